//! `archive_ext.archival_job`: one row for each run.

use pgrx::{JsonB, Uuid, pg_sys};

use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// What a new job is about.
#[derive(Debug, Clone)]
pub struct NewJob<'a> {
    /// `archive` or `reattach`.
    pub operation: &'a str,
    /// The partitioned table at the root.
    pub table: pg_sys::Oid,
    /// Qualified name of the partition.
    pub partition_name: &'a str,
    /// The partition, if it exists.
    pub partition: Option<pg_sys::Oid>,
    /// Storage the objects are in.
    pub storage: &'a str,
    /// `content` or `deep`.
    pub verify: &'a str,
    /// How long the local copy stays, in seconds.
    pub drop_local_seconds: Option<i64>,
    /// Phase it starts in.
    pub phase: &'a str,
}

/// A job as the engine needs it.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: Uuid,
    /// `archive`, `reattach`, `hot`, `warm`, `merge` and the like.
    pub operation: String,
    /// The managed table.
    pub table: pg_sys::Oid,
    /// The partition.
    pub partition: Option<pg_sys::Oid>,
    /// Qualified name of the partition.
    pub partition_name: String,
    /// `pending`, `running`, `paused`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// Phase of the state machine.
    pub phase: String,
    /// Storage.
    pub storage: Option<String>,
    /// `content` or `deep`.
    pub verify: String,
    /// How long the local copy stays, in seconds.
    pub drop_local_seconds: Option<i64>,
    /// What the finished steps left behind.
    pub progress: serde_json::Value,
    /// What was asked for: the operation's own arguments.
    pub request: serde_json::Value,
}

const COLUMNS: &str = "job_id, partition::oid, partition_name, status, phase, storage::text, verify,
    extract(epoch FROM drop_local)::bigint, coalesce(progress, '{}'), operation, table_name::oid, request";

/// The statuses of jobs that keep others from their partition.
const UNFINISHED: &str = "('pending', 'running', 'paused')";

/// When the calling backend started: with its pid it tells one run from another.
const MY_START: &str = "(SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())";

fn job(row: &spi::Row<'_>) -> Result<Job> {
    Ok(Job {
        id: row.need(1)?,
        partition: row.get(2)?,
        partition_name: row.need(3)?,
        status: row.need(4)?,
        phase: row.need(5)?,
        storage: row.get(6)?,
        verify: row.get(7)?.unwrap_or_else(|| "content".to_owned()),
        drop_local_seconds: row.get(8)?,
        progress: row.need::<JsonB>(9)?.0,
        operation: row.need(10)?,
        table: row.need(11)?,
        request: row.need::<JsonB>(12)?.0,
    })
}

/// A fresh job id.
pub fn new_id() -> Result<Uuid> {
    spi::one("SELECT pg_catalog.gen_random_uuid()", &[], |row| row.need(1))
}

/// Writes the row of a job that starts now, run by backend `pid` for `started_by`.
pub fn start(id: Uuid, new: &NewJob<'_>, started_by: &str, pid: i32) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archival_job
               (job_id, operation, table_name, partition_name, partition, storage, verify, drop_local, phase,
                started_by, pid, pid_started)
             VALUES ($1, $2, $3::oid, $4, $5::oid, $6::name, $7, make_interval(secs => $8), $9, $10::name, $11,
                     (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = $11))
             ON CONFLICT (job_id) DO NOTHING",
            &[
                id.into(),
                new.operation.into(),
                new.table.into(),
                new.partition_name.into(),
                new.partition.into(),
                new.storage.into(),
                new.verify.into(),
                new.drop_local_seconds.map(|s| s as f64).into(),
                new.phase.into(),
                started_by.into(),
                pid.into(),
            ],
        )
    })?;
    Ok(())
}

/// The job with this id.
pub fn find(id: Uuid) -> Result<Option<Job>> {
    user::elevated(|| {
        spi::optional(&format!("SELECT {COLUMNS} FROM archive_ext.archival_job WHERE job_id = $1"), &[id.into()], job)
    })
}

/// The newest unfinished job that archives a partition; one that waits is the calling backend's from now on.
pub fn unfinished(partition: pg_sys::Oid) -> Result<Option<Job>> {
    user::elevated(|| {
        spi::optional(
            &format!(
                "UPDATE archive_ext.archival_job SET status = 'running', pid = pg_backend_pid(), pid_started = {MY_START}
                 WHERE job_id = (SELECT j.job_id FROM archive_ext.archival_job j
                                 WHERE j.partition = $1::oid AND j.operation = 'archive' AND j.status IN {UNFINISHED}
                                 ORDER BY j.started_at DESC LIMIT 1)
                 RETURNING {COLUMNS}"
            ),
            &[partition.into()],
            job,
        )
    })
}

/// Moves a job to another phase and keeps what the step left behind; the calling backend owns it from now on.
pub fn advance(id: Uuid, phase: &str, progress: &serde_json::Value) -> Result<()> {
    let advanced = user::elevated(|| {
        spi::execute(
            &format!(
                "UPDATE archive_ext.archival_job
                 SET phase = $2, progress = $3, pid = pg_backend_pid(), pid_started = {MY_START}
                 WHERE job_id = $1 AND status IN {UNFINISHED} RETURNING 1"
            ),
            &[id.into(), phase.into(), JsonB(progress.clone()).into()],
        )
    })?;
    if advanced > 0 {
        return Ok(());
    }
    // Somebody cancelled it between the look at it and the claim of its partition: what this step did is rolled back.
    Err(Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, format!("archive job {id} was ended meanwhile"))
        .hint("See archive_ext.jobs; retry_job(job_id) begins it again."))
}

/// Adds to what was asked for: the operation's own arguments.
pub fn set_request(id: Uuid, request: &serde_json::Value) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET request = request || $2 WHERE job_id = $1",
            &[id.into(), JsonB(request.clone()).into()],
        )
    })?;
    Ok(())
}

/// Ends a job well.
pub fn complete(id: Uuid, rows: u64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job
             SET status = 'completed', phase = 'done', rows_archived = $2, completed_at = clock_timestamp(), error = NULL,
                 error_code = NULL
             WHERE job_id = $1",
            &[id.into(), (rows as i64).into()],
        )
    })?;
    Ok(())
}

/// Ends an unfinished job as `failed` or `cancelled`.
pub fn stop(id: Uuid, status: &str, error: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            &format!(
                "UPDATE archive_ext.archival_job SET status = $2, completed_at = clock_timestamp(), error = $3
                 WHERE job_id = $1 AND status IN {UNFINISHED}"
            ),
            &[id.into(), status.into(), error.into()],
        )
    })?;
    Ok(())
}

/// Ends the unfinished jobs whose table, or whose partition that was to be archived, the command that just ran dropped: nobody could
/// go on with them. Those that a session is at work on are left to it; it holds their rows and may wait for what was dropped.
/// Within a `sql_drop` event trigger only.
pub fn end_dropped() -> Result<()> {
    user::elevated(|| {
        spi::execute(
            &format!(
                "UPDATE archive_ext.archival_job
                 SET status = 'failed', completed_at = clock_timestamp(), error = 'what it was about was dropped'
                 WHERE job_id IN (
                     SELECT j.job_id FROM archive_ext.archival_job j
                     WHERE j.status IN {UNFINISHED} AND j.pid IS DISTINCT FROM pg_backend_pid()
                       AND EXISTS (SELECT FROM pg_event_trigger_dropped_objects() d
                                   WHERE d.classid = 'pg_class'::regclass
                                     AND (d.objid = j.table_name::oid OR d.objid = j.partition::oid AND j.operation = 'archive'))
                     FOR UPDATE OF j SKIP LOCKED)"
            ),
            &[],
        )
    })?;
    Ok(())
}

/// Ends older unfinished jobs of a partition that a new one replaces.
pub fn supersede(partition: pg_sys::Oid, by: Uuid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            &format!(
                "UPDATE archive_ext.archival_job
                 SET status = 'failed', completed_at = clock_timestamp(), error = 'interrupted; another run took over',
                     scheduled = false
                 WHERE partition = $1::oid AND status IN {UNFINISHED} AND job_id <> $2"
            ),
            &[partition.into(), by.into()],
        )
    })?;
    Ok(())
}

/// Why the job is there, if its maker said so.
pub fn reason(id: Uuid) -> Result<Option<String>> {
    let found = user::elevated(|| {
        spi::optional("SELECT reason FROM archive_ext.archival_job WHERE job_id = $1", &[id.into()], |row| {
            row.get::<String>(1)
        })
    })?;
    Ok(found.flatten())
}

/// An unfinished job, other than `but`, that works on `partition`: its own, or a merge or split of which it is a source.
pub fn working_on(partition: pg_sys::Oid, but: Option<Uuid>) -> Result<Option<Uuid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT job_id FROM archive_ext.archival_job
             WHERE status IN ('running', 'paused') AND job_id IS DISTINCT FROM $2
               AND (partition = $1::oid OR request -> 'sources' @> to_jsonb($1::oid::bigint))
             ORDER BY started_at DESC LIMIT 1",
            &[partition.into(), but.into()],
            |row| row.need(1),
        )
    })
}
