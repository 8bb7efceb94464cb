//! Jobs of operation `compact`: one group of objects per transaction. What is left to do the catalog tells.

use pgrx::Uuid;
use serde_json::{Value, json};

use super::compact::{self, Outcome, compact_as};
use super::request::{self, Request};
use crate::catalog;
use crate::catalog::compact_job::{self, NewCompaction};
use crate::catalog::job::Job;
use crate::engine::{session, steps};
use crate::error::Result;
use crate::pg::user;

impl Request {
    /// As a job's row holds it.
    pub fn stored(&self) -> Value {
        json!({ "time_column": self.time_column, "min_objects": self.min_objects, "max_bytes": self.max_bytes })
    }

    fn of_job(job: &Job) -> Self {
        let number = |name: &str| job.request.get(name).and_then(Value::as_i64);
        Self {
            source: job.table,
            time_column: job.request.get("time_column").and_then(Value::as_str).map(str::to_owned),
            min_objects: number("min_objects").and_then(|number| i32::try_from(number).ok()).unwrap_or(2),
            max_bytes: number("max_bytes"),
        }
    }
}

/// The job that merges the small objects of a table's archive: an unfinished one of the same role is taken up again.
pub fn begin(request: &Request) -> Result<Uuid> {
    request.check()?;
    let table = request::table(request.source, "compact_archive")?;
    let (stored, name, role) = (request.stored(), table.qualified(), user::name_of(user::current()));
    let new = NewCompaction { table: request.source, table_name: &name, request: &stored, started_by: &role };
    compact_job::take_up(&new, catalog::job::new_id()?)
}

/// Merges the next objects of a job; `false` when none are left. The caller commits.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let number = |name: &str| job.progress.get(name).and_then(Value::as_u64).unwrap_or(0);
    let steps = number("steps");
    let Outcome { done, rows, merged, into, .. } = session::as_starter(job, || {
        compact_as(&Request::of_job(job), job.id, u32::try_from(steps).unwrap_or(u32::MAX))
    })?;
    let rows = number("rows") + rows;
    if done {
        return steps::done(job.id, rows);
    }
    let (objects, written) = (number("objects") + merged.0, number("into_objects") + into.0);
    let progress = json!({ "steps": steps + 1, "rows": rows, "objects": objects, "into_objects": written });
    catalog::job::advance(job.id, compact::PHASE, &progress)?;
    Ok((true, compact::PHASE.to_owned()))
}
