//! What was archived before the policy named a second storage, and what rewrites made since, is copied by a job.

use super::copy::{self, Item};
use crate::catalog::job::Job;
use crate::catalog::object_copy;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::catalog::{self, archived};
use crate::engine::{steps, storage as opened, throttle};
use crate::error::Result;
use crate::partition::discover;

/// Objects copied in one step, and bytes after which it ends.
const AT_ONCE: usize = 100;
const STEP_BYTES: u64 = 2 << 30;

/// Adds a job if something of a table's archive has no copy; how many.
pub fn schedule(table: &TablePolicy) -> Result<i32> {
    let Some(copies) = &table.policy.copy_storage else { return Ok(0) };
    if object_copy::next_without(table.source, copies)?.is_none() {
        return Ok(0);
    }
    let reason = format!("the policy wants a copy of each object in {copies}");
    let added = catalog::queue::add(&NewJob {
        operation: "copy",
        table: table.source,
        name: &table.name,
        partition: None,
        request: serde_json::json!({}),
        reason: &reason,
        storage: Some(copies),
    })?;
    Ok(added.into())
}

/// Copies some objects of the next partition or row set that lacks copies.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let next = match copy::wanted(job.table)? {
        Some(copies) => object_copy::next_without(job.table, &copies)?.map(|id| (copies, id)),
        None => None,
    };
    let subject = next.map(|(copies, id)| Ok::<_, crate::error::Error>((copies, archived::find(id)?))).transpose()?;
    let Some((copies, Some(subject))) = subject else {
        return steps::done(job.id, 0);
    };
    let items = object_copy::items(subject.id, Some(&copies))?;
    let (mut some, mut bytes) = (Vec::new(), 0);
    for (key, object) in items {
        bytes += object.as_ref().map_or(0, |(bytes, _)| *bytes);
        some.push(Item { key, object });
        if some.len() >= AT_ONCE || bytes >= STEP_BYTES {
            break;
        }
    }
    let owner = discover::owner(job.table)?;
    let store = opened::open_for(&subject.storage, owner)?.paced(throttle::pace);
    let copied = copy::make(&store, &subject.storage, &copies, owner, &some)?;
    let before = job.progress.get("copied").and_then(serde_json::Value::as_u64).unwrap_or(0);
    catalog::job::advance(job.id, "copying", &serde_json::json!({ "copied": before + copied }))?;
    Ok((true, "copying".to_owned()))
}
