//! A partition with managed children is archived with theirs: its job becomes that of the family.

use pgrx::Uuid;

use crate::catalog;
use crate::engine::family;
use crate::engine::steps;
use crate::error::Result;

/// Replaces a job that has not begun by the family's, which waits to be taken up; whether its partition has a family.
/// What stands in the family's way is an error (55000).
pub(super) fn hand_over(id: Uuid) -> Result<bool> {
    let Some(job) = catalog::job::find(id)? else { return Ok(false) };
    let begun = job.phase != "planned" || job.progress.as_object().is_some_and(|progress| !progress.is_empty());
    let Some(partition) = job.partition.filter(|_| job.operation == "archive" && !begun) else { return Ok(false) };
    if family::is_of_family(&job) || family::members(partition)?.len() < 2 {
        return Ok(false);
    }
    let options = steps::options(&job)?;
    let reason = catalog::job::reason(id)?;
    catalog::queue::remove(id)?;
    if let Some(head) = family::begin(partition, &options)? {
        catalog::queue::enqueue(head, reason.as_deref())?;
    }
    Ok(true)
}
