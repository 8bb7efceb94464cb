//! `reattach_partition` of what is frozen: the copies are asked for, and a job brings the partition back when they are there.

use archive_core::lifecycle::Status;
use archive_core::store::Retrieval;

use super::request::{Wish, queue_follow, request};
use crate::catalog::job::Job;
use crate::catalog::partition::Known;
use crate::catalog::queue::{self, NewJob};
use crate::catalog::{self, restore_request};
use crate::engine::reattach::{self, Options};
use crate::engine::steps;
use crate::error::{Error, Result, SqlState};
use crate::pg::lock::giving_way;
use crate::pg::server_text::notice;

/// Days for which the copies stay: the partition is loaded as soon as they are there.
const DAYS: i32 = 3;
/// Seconds after which a job looks again, which the request itself is followed by another.
const LOOK: f64 = 60.0;

/// Whether a partition can be brought back now; if not, its copies are asked for and a job is made that does it.
pub fn later(known: &Known, options: Options) -> Result<bool> {
    if known.local_copy.is_some() || !restore_request::is_unreadable(known.id)? {
        return Ok(false);
    }
    let name = known.qualified();
    refuse_other_job(known, &name)?;
    let wish = Wish { from: None, to: None, retrieval: Retrieval::Standard, days: DAYS };
    let requests = request(&name, &wish)?;
    let added = queue::add(&NewJob {
        operation: "reattach",
        table: known.source,
        name: &name,
        partition: known.foreign_table,
        request: serde_json::json!({
            "id": known.id, "keep_for": options.keep_for_seconds, "status": options.status.as_str(), "writable": options.writable,
            "move_late_rows": options.move_late_rows,
        }),
        reason: "its objects are restored from a frozen storage class first",
        storage: known.storage.as_deref(),
    })?;
    let numbers: Vec<_> = requests.iter().map(|request| request.id.to_string()).collect();
    let what = if added { "a job reattaches it when that is there" } else { "another job has it already" };
    notice!("{name} is in a frozen storage class: restore request {} was made, and {what}", numbers.join(", "));
    Ok(true)
}

/// A job that does something else with the partition must be out of the way, before anything is paid for (55006).
fn refuse_other_job(known: &Known, name: &str) -> Result<()> {
    let unfinished = known.foreign_table.map(queue::unfinished_of).transpose()?.flatten();
    let Some((job, operation)) = unfinished.filter(|(_, operation)| operation != "reattach") else { return Ok(()) };
    Err(Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("a job has archived partition {name}"))
        .detail(format!("Job {job} is to do this with it: {operation}."))
        .hint("Let it end, or cancel_job(job_id), and reattach the partition then."))
}

/// Brings the partition back once its copies are there.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let asked = |what: &str| job.request.get(what).cloned().unwrap_or_default();
    let found = asked("id").as_i64().map(catalog::partition::by_id).transpose()?.flatten();
    let is_it = |known: &Known| {
        known.status == "ARCHIVED" && known.foreign_table.is_some() && known.foreign_table == job.partition
    };
    let Some(known) = found.filter(is_it) else { return steps::done(job.id, 0) };
    if restore_request::is_unreadable(known.id)? && known.local_copy.is_none() {
        if restore_request::open_for(known.id)?.is_none() {
            return Err(failed(&known));
        }
        queue_follow(known.source, &catalog::qualified_name(known.source)?)?;
        queue::wait(job.id, LOOK)?;
        return Ok((false, "waiting".to_owned()));
    }
    let options = Options {
        keep_for_seconds: asked("keep_for").as_i64(),
        status: asked("status").as_str().and_then(|status| status.parse().ok()).unwrap_or(Status::Warm),
        writable: asked("writable").as_bool().unwrap_or(false),
        move_late_rows: asked("move_late_rows").as_bool().unwrap_or(false),
    };
    giving_way(|| reattach::reattach(&known.qualified(), options))?;
    steps::done(job.id, 0)
}

fn failed(known: &Known) -> Error {
    let name = known.qualified();
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("archived partition {name} cannot be read, and nobody asks for it any more"),
    )
    .detail(
        "Its restore request has failed, or its copies lapsed before it was brought back; see archive_ext.restores.",
    )
    .hint(format!("SELECT * FROM request_restore('{name}'), then retry_job."))
}
