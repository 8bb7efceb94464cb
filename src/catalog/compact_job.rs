//! Jobs that merge small objects of a row set.

use pgrx::{JsonB, Uuid, pg_sys};
use serde_json::Value;

use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// A job to be begun.
#[derive(Debug)]
pub struct NewCompaction<'a> {
    /// The table.
    pub table: pg_sys::Oid,
    /// Its qualified name.
    pub table_name: &'a str,
    /// What is merged.
    pub request: &'a Value,
    /// Whose rights it runs with.
    pub started_by: &'a str,
}

/// The unfinished job of the table and role, which this backend takes up with the new request; or a new one.
///
/// Errors: 55000 when it is paused.
pub fn take_up(new: &NewCompaction<'_>, id: Uuid) -> Result<Uuid> {
    let found = user::elevated(|| {
        spi::rows(
            "WITH found AS (
               SELECT job_id, status FROM archive_ext.archival_job
               WHERE operation = 'compact' AND status IN ('pending', 'running', 'paused') AND table_name = $1::oid
                 AND started_by = $2::name
               ORDER BY started_at LIMIT 1 FOR UPDATE)
             UPDATE archive_ext.archival_job j
             SET status = CASE j.status WHEN 'pending' THEN 'running' ELSE j.status END, request = $3, pid = pg_backend_pid(),
                 pid_started = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())
             FROM found WHERE j.job_id = found.job_id RETURNING j.job_id, found.status",
            &[new.table.into(), new.started_by.into(), JsonB(new.request.clone()).into()],
            |row| Ok((row.need::<Uuid>(1)?, row.need::<String>(2)?)),
        )
    })?;
    match found.into_iter().next() {
        Some((id, status)) if status == "paused" => Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("compacting the archive of \"{}\" is paused", new.table_name),
        )
        .hint(format!("SELECT resume_job('{id}') lets it go on."))),
        Some((id, _)) => Ok(id),
        None => start(new, id),
    }
}

/// Writes the row of a job that starts now in this backend.
pub fn start(new: &NewCompaction<'_>, id: Uuid) -> Result<Uuid> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archival_job
               (job_id, operation, table_name, partition_name, phase, request, reason, started_by, pid, pid_started)
             VALUES ($1, 'compact', $2::oid, $3, 'compacting', $4, $5, $6::name, pg_backend_pid(),
                     (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()))",
            &[
                id.into(),
                new.table.into(),
                new.table_name.into(),
                JsonB(new.request.clone()).into(),
                format!("asked for by {}", new.started_by).into(),
                new.started_by.into(),
            ],
        )
    })?;
    Ok(id)
}

/// Ends well the jobs with this request that a crash or a lost session interrupted, when nothing is left to be merged: nobody is at
/// work on them. The caller has claimed the compaction of the table.
pub fn end_interrupted(table: pg_sys::Oid, request: &Value) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job j
             SET status = 'completed', phase = 'done', completed_at = clock_timestamp(), error = NULL, error_code = NULL,
                 next_attempt_at = NULL, rows_archived = coalesce((j.progress ->> 'rows')::bigint, 0)
             WHERE j.operation = 'compact' AND j.status IN ('pending', 'running') AND j.table_name = $1::oid AND j.request = $2
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = j.pid AND a.backend_start = j.pid_started
                                 AND a.pid <> pg_backend_pid())",
            &[table.into(), JsonB(request.clone()).into()],
        )
    })?;
    Ok(())
}
