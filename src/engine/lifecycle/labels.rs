//! Lifecycle-partitioned tables: rows move from label to label, and the partition of an ARCHIVE label whose period is over
//! goes to the storage.

use archive_core::lifecycle::{Label, Moment, Status};
use archive_core::policy::is_over;
use serde_json::{Value, json};

use super::Outlook;
use crate::catalog;
use crate::catalog::observed::Leaf;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::engine::rows;
use crate::error::Result;
use crate::partition::discover;
use crate::pg::user;

/// What happens to a partition of labels.
#[derive(Debug)]
pub(super) struct Step {
    /// The partition, as an index of the outlook's leaves.
    pub(super) leaf: usize,
    /// The job that does it.
    pub(super) operation: &'static str,
    /// What rows, or the partition, become.
    pub(super) to: Status,
    /// Whether all rows of the partition are meant.
    pub(super) whole: bool,
    /// Why.
    pub(super) reason: String,
    /// When; `None` for now.
    pub(super) starts: Option<i64>,
    request: Value,
}

impl Step {
    fn moves_rows_now(&self) -> bool {
        self.operation == "rows" && self.starts.is_none()
    }
}

/// What is due for the partitions of a table, and what time alone will make due.
pub(super) fn steps(table: &TablePolicy, outlook: &Outlook) -> Result<Vec<Step>> {
    if !table.policy.is_enabled() {
        return Ok(Vec::new());
    }
    // What reads the table runs as its owner.
    // When rows will be due is told by their values, which not every reader may see.
    let tell = catalog::sees_every_row(table.source)?;
    let (due, coming) = user::as_user(discover::owner(table.source)?, || {
        let coming = if tell { rows::coming(table.source)? } else { Vec::new() };
        Ok::<_, crate::error::Error>((rows::due(table.source)?, coming))
    })?;
    let at = |partition| outlook.leaves.iter().position(|leaf| leaf.oid == partition);
    let free = |leaf: &usize| outlook.leaves.get(*leaf).is_some_and(|leaf| leaf.observed.held.is_none());
    let mut steps = Vec::new();
    for rows in due {
        let whole = rows.request.get("where").is_none_or(Value::is_null);
        let (to, reason, request) = (rows.to, rows.reason, rows.request);
        let leaf = at(rows.partition).filter(free);
        steps.extend(leaf.map(|leaf| Step { leaf, operation: "rows", to, whole, reason, starts: None, request }));
    }
    for rows in coming {
        let leaf = at(rows.partition).filter(free).filter(|leaf| steps.iter().all(|step| step.leaf != *leaf));
        let (starts, whole, request) = (Some(rows.at), rows.whole, Value::Null);
        let (to, reason) = (rows.to, rows.reason);
        steps.extend(leaf.map(|leaf| Step { leaf, operation: "rows", to, whole, reason, starts, request }));
    }
    for (index, leaf) in outlook.leaves.iter().enumerate() {
        steps.extend(archive_step(index, leaf, outlook.now));
    }
    if steps.iter().any(Step::moves_rows_now) {
        for step in steps.iter_mut().filter(|step| step.operation == "archive" && step.starts.is_none()) {
            step.reason.push_str("; after the rows that are due");
        }
    }
    Ok(steps)
}

/// The partition of an ARCHIVE label goes when no more rows can get the label.
fn archive_step(index: usize, leaf: &Leaf, now: i64) -> Option<Step> {
    let period = leaf.label.as_deref()?.parse::<Label>().ok()?.period?;
    if leaf.observed.status != Status::Archived || leaf.observed.held.is_some() || leaf.observed.reattached {
        return None;
    }
    let over = is_over(period, now);
    let ends = period.end()?.seconds_since(Moment::date(2000, 1, 1)?) * 1_000_000;
    Some(Step {
        leaf: index,
        operation: "archive",
        to: Status::Archived,
        whole: true,
        reason: format!("its period {period} is {}over", if over { "" } else { "not yet " }),
        starts: (!over).then_some(ends),
        request: json!({}),
    })
}

/// Adds the jobs that are due; how many. What is archived takes no more rows, so partitions go only when no rows are due.
pub(super) fn schedule(table: &TablePolicy, outlook: &Outlook) -> Result<i32> {
    let mut due = steps(table, outlook)?;
    due.retain(|step| step.starts.is_none());
    if due.iter().any(Step::moves_rows_now) {
        due.retain(|step| step.operation == "rows");
    }
    let mut added = 0;
    for step in due {
        let Some(leaf) = outlook.leaves.get(step.leaf) else { continue };
        added += i32::from(catalog::queue::add(&NewJob {
            operation: step.operation,
            table: table.source,
            name: &leaf.observed.name,
            partition: Some(leaf.oid),
            request: step.request,
            reason: &step.reason,
            storage: table.policy.storage.as_deref().filter(|_| step.operation == "archive"),
        })?);
    }
    Ok(added)
}
