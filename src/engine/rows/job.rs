//! Jobs of operation `rows`: one batch per transaction, resumable at any point.

use archive_core::lifecycle::Status;
use pgrx::{Uuid, pg_sys};
use serde_json::{Value, json};

use super::filter;
use super::plan::{Plan, Request};
use super::statement::{self, Outcome};
use crate::catalog;
use crate::catalog::job::Job;
use crate::catalog::row_policy::{self, NewRowJob};
use crate::engine::{batch, session, steps};
use crate::error::{Error, Result, SqlState};
use crate::partition::locks;
use crate::pg::user;

/// The job of a request: an unfinished one of the same role is taken up again.
pub fn begin(request: &Request, batch_rows: i64) -> Result<Uuid> {
    if batch_rows < 1 {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "batch_rows must be at least 1"));
    }
    if let Some(batches) = super::batches(request)? {
        return batch::begin(&batch::Request { batch_rows, ..batches });
    }
    let plan = Plan::of(request)?;
    filter::check(&plan)?;
    filter::refuse_illegal(&plan)?;
    let (stored, name, role) = (store(request, batch_rows)?, plan.table.qualified(), user::name_of(user::current()));
    let new = NewRowJob {
        table: request.source,
        table_name: &name,
        request: &stored,
        reason: &request.reason,
        started_by: &role,
    };
    if let Some(unfinished) = row_policy::unfinished(&new)? {
        return Ok(unfinished);
    }
    plan.managed_table()?;
    let id = catalog::job::new_id()?;
    row_policy::start(id, &new)?;
    Ok(id)
}

/// Does one batch of a job; `false` when no row is left. The caller commits.
///
/// The request's SQL runs with the rights of the role that started the job, never with more: others must have its
/// privileges (42501).
pub fn step(job: &Job) -> Result<(bool, String)> {
    locks::claim_partition(&format!("rows {}", job.id))?;
    let outcome = session::as_starter(job, || batch(job))?;
    let moved_before = job.progress.get("rows").and_then(Value::as_u64).unwrap_or(0);
    let moved = match &outcome {
        Outcome::Moved(moved, _) => moved_before + moved.total(),
        Outcome::Made | Outcome::Nothing => moved_before,
    };
    if matches!(outcome, Outcome::Nothing | Outcome::Moved(_, true)) {
        return steps::done(job.id, moved);
    }
    catalog::job::advance(job.id, "moving", &json!({ "rows": moved }))?;
    Ok((true, "moving".to_owned()))
}

fn batch(job: &Job) -> Result<Outcome> {
    let (request, batch_rows) = load(job)?;
    let plan = Plan::of(&request)?;
    // The table may have changed since the last step, and with it what the clause means.
    filter::check(&plan)?;
    let outcome = statement::batch(&plan, batch_rows)?;
    if let Outcome::Moved(moved, _) = &outcome {
        moved.record(&plan, Some(job.id))?;
    }
    Ok(outcome)
}

fn store(request: &Request, batch_rows: i64) -> Result<Value> {
    let (search_path, timezone) = session::current()?;
    Ok(json!({
        "where": request.clause, "labels": request.labels, "status": request.to.as_str(),
        "removal_time": request.removal_time, "reason": request.reason, "batch_rows": batch_rows,
        "search_path": search_path, "timezone": timezone,
    }))
}

/// Rows per batch of a job that does not say.
const BATCH_ROWS: i64 = 10_000;

fn load(job: &Job) -> Result<(Request, i64)> {
    let stored = &job.request;
    let text = |name: &str| stored.get(name).and_then(Value::as_str).map(str::to_owned);
    let to: Status = text("status").unwrap_or_default().parse()?;
    let labels = stored.get("labels").and_then(Value::as_array);
    let labels = labels.map(|labels| labels.iter().filter_map(Value::as_str).map(str::to_owned).collect());
    let request = Request {
        source: job.table,
        clause: text("where"),
        labels,
        to,
        removal_time: text("removal_time"),
        reason: text("reason").unwrap_or_else(|| "job".to_owned()),
        keep_keys: false,
    };
    Ok((request, stored.get("batch_rows").and_then(Value::as_i64).unwrap_or(BATCH_ROWS)))
}

/// Refuses callers who are neither the starter of a rows job nor own its table (42501).
pub fn may_steer(job: &Job) -> Result<()> {
    let owner = crate::partition::discover::owner(job.table).unwrap_or(pg_sys::InvalidOid);
    let starter = user::find(&row_policy::started_by(job.id)?);
    if user::has_privileges_of(owner) || starter.is_some_and(user::has_privileges_of) {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {}", job.partition_name)))
}
