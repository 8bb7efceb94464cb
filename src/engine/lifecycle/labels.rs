//! Lifecycle-partitioned tables: rows move from label to label, and the partition of an ARCHIVE label whose period is over
//! goes to the storage.

use archive_core::lifecycle::{Label, Status};
use archive_core::policy::is_over;
use serde_json::json;

use super::Outlook;
use crate::catalog;
use crate::catalog::observed::Leaf;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::engine::rows;
use crate::error::Result;
use crate::partition::discover;
use crate::pg::user;

/// Adds the jobs that are due; how many.
pub(super) fn schedule(table: &TablePolicy, outlook: &Outlook) -> Result<i32> {
    if !table.policy.is_enabled() {
        return Ok(0);
    }
    // What reads the table runs as its owner.
    let due = user::as_user(discover::owner(table.source)?, || rows::due(table.source))?;
    let mut added = 0;
    for rows in &due {
        let leaf = outlook.leaves.iter().find(|leaf| leaf.oid == rows.partition);
        if leaf.is_some_and(|leaf| leaf.observed.held.is_none()) {
            let name = leaf.map_or(table.name.as_str(), |leaf| leaf.observed.name.as_str());
            added += i32::from(catalog::queue::add(&NewJob {
                operation: "rows",
                table: table.source,
                name,
                partition: Some(rows.partition),
                request: rows.request.clone(),
                reason: &rows.reason,
                storage: None,
            })?);
        }
    }
    if due.is_empty() {
        for leaf in &outlook.leaves {
            added += i32::from(schedule_archive(table, leaf, outlook.now)?);
        }
    }
    Ok(added)
}

/// Only when no rows are due: what is archived takes no more rows.
fn schedule_archive(table: &TablePolicy, leaf: &Leaf, now: i64) -> Result<bool> {
    let period = leaf.label.as_deref().and_then(|label| label.parse::<Label>().ok()).and_then(|label| label.period);
    let Some(period) = period.filter(|period| is_over(*period, now)) else { return Ok(false) };
    if leaf.observed.status != Status::Archived || leaf.observed.held.is_some() || leaf.observed.reattached {
        return Ok(false);
    }
    catalog::queue::add(&NewJob {
        operation: "archive",
        table: table.source,
        name: &leaf.observed.name,
        partition: Some(leaf.oid),
        request: json!({}),
        reason: &format!("its period {period} is over"),
        storage: table.policy.storage.as_deref(),
    })
}
