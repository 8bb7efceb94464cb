//! Jobs of operation `batch`: one batch per transaction. The request is in the job's row.

use archive_core::codec::ObjectFormat;
use pgrx::Uuid;
use serde_json::{Value, json};

use super::columns::KeyColumn;
use super::plan::{BATCH_BYTES, BATCH_ROWS, Locked, Plan, Referenced, Request, parse_format};
use super::{archive_as, keep, pace, take_up};
use crate::catalog::batch_job;
use crate::catalog::job::Job;
use crate::engine::lifecycle::steer;
use crate::engine::session;
use crate::error::{Error, Result, SqlState};
use crate::partition::check;
use crate::pg::spi;

/// The job of a request: an unfinished one of the same role for the same rows is taken up again.
pub fn begin(request: &Request) -> Result<Uuid> {
    check::transaction("archiving rows")?;
    let plan = Plan::of(request)?;
    keep::guard(&plan)?;
    let mut job = take_up(&plan, None)?;
    pace::estimate(&plan, &mut job)?;
    batch_job::advance(&job)?;
    Ok(job.id)
}

/// Does one batch of a job; `false` when it is done. The caller commits.
///
/// The request's SQL runs with the rights of the role that started the job, never with more. Errors: those of [`super::archive`];
/// 55P03 when the rows that are left are locked by others.
pub fn step(job: &Job) -> Result<(bool, String)> {
    // The step has a transaction of its own. Checks put off to its end would run when the rights of the starter are given back.
    spi::execute("SET CONSTRAINTS ALL IMMEDIATE", &[])?;
    let outcome = session::as_starter(job, || archive_as(&request_of(job)?, Some(job.id)))?;
    match outcome {
        done if done.done => Ok((false, "done".to_owned())),
        some if some.rows > 0 => Ok((true, "batches".to_owned())),
        _ => Err(Error::new(
            SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("the rows of \"{}\" that are left are locked by other sessions", job.partition_name),
        )
        .hint("Run it again when these have finished.")),
    }
}

/// Notes why a run left a job that is not done. For whoever started it or may act as the table's owner (42501).
pub fn note_stop(job: Uuid, why: &str) -> Result<()> {
    steer::mine(job)?;
    batch_job::note_stop(job, why)
}

/// What makes two requests the same job: the rows, and the order that its checkpoint is of.
pub(super) fn identity(request: &Request, time: Option<&str>, key: &[KeyColumn]) -> Result<Value> {
    let (search_path, timezone) = session::current()?;
    let key: Vec<_> = key.iter().map(|column| column.name.as_str()).collect();
    Ok(json!({
        "where": request.clause, "time_column": time, "order_key": key, "treatment": request.wanted, "search_path": search_path,
        "timezone": timezone,
    }))
}

/// What may be another from call to call.
pub(super) fn options(request: &Request) -> Value {
    json!({
        "batch_rows": request.batch_rows, "batch_bytes": request.batch_bytes, "locked": request.locked.as_str(),
        "referenced": request.referenced.as_str(), "archive_before": request.archive_before,
        "format": request.format.map(ObjectFormat::as_str),
    })
}

fn request_of(job: &Job) -> Result<Request> {
    let stored = |name: &str| job.request.get(name).and_then(Value::as_str).map(str::to_owned);
    let option = |name: &str| job.request.get("options").and_then(|options| options.get(name));
    let word = |name: &str| option(name).and_then(Value::as_str).unwrap_or("skip");
    let key = job.request.get("order_key").and_then(Value::as_array);
    Ok(Request {
        source: job.table,
        archive_before: option("archive_before").and_then(Value::as_str).map(str::to_owned),
        time_column: stored("time_column"),
        clause: stored("where"),
        order_key: key.map(|key| key.iter().filter_map(Value::as_str).map(str::to_owned).collect()),
        batch_rows: option("batch_rows").and_then(Value::as_i64).unwrap_or(BATCH_ROWS),
        batch_bytes: option("batch_bytes").and_then(Value::as_u64).unwrap_or(BATCH_BYTES),
        storage: job.storage.clone(),
        format: option("format").and_then(Value::as_str).map(parse_format).transpose()?,
        locked: Locked::parse(word("locked"))?,
        referenced: Referenced::parse(word("referenced"))?,
        wanted: job.request.get("treatment").cloned().map(serde_json::from_value).transpose()?.unwrap_or_default(),
    })
}
