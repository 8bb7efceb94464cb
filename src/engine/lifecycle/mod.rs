//! Stand-in until the scheduler is merged.

use pgrx::Uuid;
use pgrx::pg_sys;

use crate::error::{Error, Result};
use crate::pg::{spi, user};

/// Nothing yet.
pub fn schedule(_source: Option<pg_sys::Oid>) -> Result<i32> {
    Ok(0)
}

/// A pending job of this role.
pub fn next_job(_source: Option<pg_sys::Oid>) -> Result<Option<Uuid>> {
    let role = user::name_of(user::current());
    user::elevated(|| {
        spi::optional(
            "UPDATE archive_ext.archival_job SET status = 'running', pid = pg_backend_pid() WHERE job_id =
               (SELECT job_id FROM archive_ext.archival_job WHERE status = 'pending' AND started_by = $1::name LIMIT 1 FOR UPDATE SKIP LOCKED)
             RETURNING job_id",
            &[role.as_str().into()],
            |row| row.need(1),
        )
    })
}

/// Ends the job.
pub fn failed(job: Uuid, error: &Error) -> Result<()> {
    super::steps::cancel(job, "failed", error.message()).map(drop)
}
