//! What moved where, and the events that tell it.

use std::collections::BTreeMap;

use archive_core::lifecycle::{Label, Status};
use pgrx::Uuid;
use serde_json::json;

use super::plan::Plan;
use crate::catalog;
use crate::catalog::event::Transition;
use crate::error::Result;

/// Rows of one label that got another.
#[derive(Debug, Default)]
struct Moved {
    rows: u64,
    children: BTreeMap<String, u64>,
}

/// Rows moved, by the label before and after.
#[derive(Debug, Default)]
pub struct Tally(BTreeMap<(String, String), Moved>);

impl Tally {
    /// One group of rows, and the rows of each child table that went with it.
    pub fn group(from: &str, to: &str, rows: u64, children: Vec<(String, u64)>) -> Self {
        let children = children.into_iter().filter(|(_, rows)| *rows > 0).collect();
        Self(BTreeMap::from([((from.to_owned(), to.to_owned()), Moved { rows, children })]))
    }

    /// Adds another.
    pub fn add(&mut self, other: Self) {
        for (labels, moved) in other.0 {
            let sum = self.0.entry(labels).or_default();
            sum.rows += moved.rows;
            for (child, rows) in moved.children {
                *sum.children.entry(child).or_default() += rows;
            }
        }
    }

    /// All rows, children included.
    pub fn total(&self) -> u64 {
        self.0.values().map(|moved| moved.rows + moved.children.values().sum::<u64>()).sum()
    }

    /// The labels that rows have now.
    pub fn labels(&self) -> Vec<String> {
        let mut labels: Vec<_> = self.0.keys().map(|(_, to)| to.clone()).collect();
        labels.sort();
        labels.dedup();
        labels
    }

    /// Writes an event for each pair of labels.
    pub fn record(&self, plan: &Plan, job: Option<Uuid>) -> Result<()> {
        for ((from, to), moved) in &self.0 {
            let status = |label: &str| -> Option<Status> { label.parse::<Label>().ok().map(|label| label.status) };
            catalog::event::record_transition(&Transition {
                table: plan.table.oid,
                partition: &plan.partition_name(from),
                event: "moved",
                from: status(from),
                to: status(to),
                reason: &plan.request.reason,
                job,
                details: json!({
                    "rows": moved.rows, "children": moved.children, "from_label": from, "to_label": to,
                    "where": plan.request.clause, "removal_time": plan.request.removal_time,
                }),
            })?;
        }
        Ok(())
    }
}
