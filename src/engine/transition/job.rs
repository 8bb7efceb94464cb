//! The steps of jobs that a scheduler makes: `premake`, `drain`, `hot`, `warm`, `merge` and `split`.

use archive_core::lifecycle::Status;
use pgrx::pg_sys;

use super::{drain_default, premake, rearrange, refuse_writes, set_status};
use crate::catalog;
use crate::catalog::job::Job;
use crate::engine::steps;
use crate::error::{Error, Result, SqlState};
use crate::partition::{check, discover, freeze};

/// Does the next step of `job`; whether there are more, and the phase reached. The caller commits.
pub fn step(job: &Job) -> Result<(bool, String)> {
    match job.operation.as_str() {
        "merge" | "split" => rearrange::step(job),
        "premake" => {
            let ahead = job.request.get("ahead").and_then(serde_json::Value::as_i64);
            let made = premake(job.table, ahead.and_then(|ahead| i32::try_from(ahead).ok()))?;
            steps::done(job.id, made.len() as u64)
        }
        "drain" => steps::done(job.id, drain_default(job.table)?),
        "warm" if job.phase != "frozen" => {
            refuse_writes(partition(job)?, job.id)?;
            catalog::job::advance(job.id, "frozen", &job.progress)?;
            Ok((true, "frozen".to_owned()))
        }
        "hot" => age(job, Status::Hot),
        _ => age(job, Status::Warm),
    }
}

fn age(job: &Job, status: Status) -> Result<(bool, String)> {
    let reason = catalog::job::reason(job.id)?.unwrap_or_else(|| "a job of the lifecycle".to_owned());
    set_status(partition(job)?, status, None, &reason, Some(job.id))?;
    steps::done(job.id, 0)
}

fn partition(job: &Job) -> Result<pg_sys::Oid> {
    job.partition.ok_or_else(|| {
        Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("partition \"{}\" was dropped", job.partition_name))
    })
}

/// Undoes what a job that was not finished left behind in committed steps: guards, and the tables of a merge or split.
pub fn abandon(job: &Job) -> Result<()> {
    if matches!(job.operation.as_str(), "merge" | "split") {
        return rearrange::abandon(job);
    }
    let Some(named) = job.partition.map(discover::leaf).transpose()?.flatten() else { return Ok(()) };
    check::access(&named)?;
    for leaf in discover::leaf_oids(named.oid)? {
        if freeze::guarded_because(leaf)?.as_deref() == Some(freeze::Reason::Warm.as_str()) {
            freeze::lift(leaf)?;
        }
    }
    Ok(())
}
