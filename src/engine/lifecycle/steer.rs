//! `cancel_job`, `pause_job`, `resume_job`, `retry_job`: for whoever started the job or may act as the table's owner.

use std::time::{Duration, Instant};

use archive_core::policy::{JobEvent, JobStatus};
use pgrx::Uuid;

use super::{find, steps};
use crate::catalog;
use crate::catalog::queue::Steered;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::locks;
use crate::pg::server_text::notice;
use crate::pg::{background, user};

/// Ends a job and lifts its guards; whether it was unfinished. A step that runs in another session is cancelled, and
/// waited for at most `archive_ext.lock_timeout`.
pub fn cancel(id: Uuid) -> Result<bool> {
    let job = mine(id)?;
    if !job.status.is_unfinished() {
        return Ok(false);
    }
    if let (JobStatus::Running, Some(pid)) = (job.status, job.pid) {
        if job.by_function {
            catalog::queue::interrupt(pid)?;
            notice!("the statement that archives \"{}\" was asked to end, which lifts its guards", job.partition_name);
            return Ok(true);
        }
        stop_step(&job, pid)?;
    }
    let reason = format!("cancelled by {}", user::name_of(user::current()));
    steps::cancel(id, JobStatus::Cancelled.as_str(), &reason)
}

/// With the job's row locked the step cannot end meanwhile, so that the cancel hits nothing else.
fn stop_step(job: &Steered, pid: i32) -> Result<()> {
    catalog::queue::lock(job.id)?;
    if find(job.id)?.pid != Some(pid) {
        return Ok(());
    }
    catalog::queue::interrupt(pid)?;
    let until = Instant::now() + Duration::from_millis(guc::lock_timeout_ms().unsigned_abs().into());
    loop {
        match locks::claim_partition(&job.partition_name) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > until => return Err(error),
            Err(_) => background::pause(Duration::from_millis(20)),
        }
    }
}

/// Stops a job after the step that runs now, until it is resumed.
pub fn pause(id: Uuid) -> Result<()> {
    let job = mine(id)?;
    let status = job.status.after(JobEvent::Paused)?;
    if job.by_function {
        let message = format!("\"{}\" is archived in one transaction, which cannot be paused", job.partition_name);
        return Err(Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
            .hint("cancel_job ends it; run_lifecycle and archive_partition_steps can be paused."));
    }
    catalog::queue::set_status(id, status)?;
    if job.status == JobStatus::Running {
        notice!("the step of \"{}\" that runs now is finished first", job.partition_name);
    }
    if job.phase != "planned" {
        notice!("\"{}\" stays as it is meanwhile: it refuses writes once it is frozen", job.partition_name);
    }
    Ok(())
}

/// Lets a paused job go on.
pub fn resume(id: Uuid) -> Result<()> {
    let status = mine(id)?.status.after(JobEvent::Resumed)?;
    catalog::queue::set_status(id, status)
}

/// Starts a job again that was given up or cancelled.
pub fn retry(id: Uuid) -> Result<()> {
    let job = mine(id)?;
    let status = job.status.after(JobEvent::Retried)?;
    if let Some(other) = catalog::queue::in_the_way(id)? {
        let message = format!("another job works on \"{}\"", job.partition_name);
        return Err(
            Error::new(SqlState::ERRCODE_OBJECT_IN_USE, message).hint(format!("See job {other} in archive_ext.jobs."))
        );
    }
    catalog::queue::set_status(id, status)
}

/// The job, for whoever started it or may act as the owner of its table (42501).
pub(in crate::engine) fn mine(id: Uuid) -> Result<Steered> {
    let job = find(id)?;
    let me = user::name_of(user::current());
    let may = job.started_by == me || user::is_superuser() || job.table_owner.is_some_and(user::has_privileges_of);
    if may {
        return Ok(job);
    }
    let message = format!("must be owner of table {}", job.table_name);
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, message))
}
