//! The jobs of `archive_ext.archival_job` that the scheduler made: who takes up which, and what becomes of them.

use archive_core::policy::{JobStatus, LONGEST_BACKOFF_SECONDS};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, Uuid, pg_sys};

use crate::error::Result;
use crate::pg::{spi, user};

/// A job to be done.
#[derive(Debug)]
pub struct NewJob<'a> {
    /// `archive`, `hot`, `warm` and the like.
    pub operation: &'a str,
    /// The managed table.
    pub table: pg_sys::Oid,
    /// Qualified name of the partition; of the table, where the job is about that.
    pub name: &'a str,
    /// The partition.
    pub partition: Option<pg_sys::Oid>,
    /// The operation's own arguments; `partitions` names all that it is about, if several.
    pub request: serde_json::Value,
    /// Why, for people.
    pub reason: &'a str,
    /// The policy's storage.
    pub storage: Option<&'a str>,
}

/// A job as those who steer it need it.
#[derive(Debug)]
pub struct Steered {
    /// Its id.
    pub id: Uuid,
    /// What it does.
    pub operation: String,
    /// `schema.table`.
    pub table_name: String,
    /// Owner of the table; `None` when the table is gone.
    pub table_owner: Option<pg_sys::Oid>,
    /// Qualified name of the partition.
    pub partition_name: String,
    /// Where it is in its life.
    pub status: JobStatus,
    /// Phase it reached.
    pub phase: String,
    /// Failures since it last got on.
    pub attempts: i32,
    /// Failures after which it is given up.
    pub max_attempts: i32,
    /// The backend that works on it, if it is there and at work.
    pub pid: Option<i32>,
    /// Who started it.
    pub started_by: String,
    /// Whether a call of `archive_partition` does all of it in its own transaction.
    pub by_function: bool,
    /// The policy's maintenance window.
    pub window: Option<String>,
}

/// Whether the backend that took a job up is still there and at work. A client session that is idle gave it up.
const ALIVE: &str = "EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = j.pid AND a.backend_start = j.pid_started
    AND a.state IS DISTINCT FROM 'idle' AND a.pid <> pg_backend_pid())";

const MY_START: &str = "(SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())";

fn steered(row: &spi::Row<'_>) -> Result<Steered> {
    Ok(Steered {
        id: row.need(1)?,
        operation: row.need(2)?,
        table_name: row.need(3)?,
        table_owner: row.get(4)?,
        partition_name: row.need(5)?,
        status: row.need::<String>(6)?.parse()?,
        phase: row.need(7)?,
        attempts: row.need(8)?,
        max_attempts: row.need(9)?,
        pid: row.get(10)?,
        started_by: row.need(11)?,
        by_function: row.need(12)?,
        window: row.get(13)?,
    })
}

fn select() -> String {
    format!(
        "SELECT j.job_id, j.operation, coalesce(format('%I.%I', n.nspname, c.relname), j.table_name::oid::text),
                c.relowner, j.partition_name, j.status, j.phase, j.attempts, coalesce(p.max_attempts, 5),
                CASE WHEN {ALIVE} THEN j.pid END, j.started_by::text,
                NOT j.scheduled AND j.phase = 'frozen' AND j.progress IS NULL, p.maintenance_window
         FROM archive_ext.archival_job j LEFT JOIN archive_ext.archive_policy p ON p.source = j.table_name
         LEFT JOIN pg_class c ON c.oid = j.table_name::oid LEFT JOIN pg_namespace n ON n.oid = c.relnamespace"
    )
}

/// The job with this id. Whether its backend is there is looked up anew.
pub fn find(id: Uuid) -> Result<Option<Steered>> {
    user::elevated(|| {
        spi::one("SELECT pg_stat_clear_snapshot()::text", &[], |_| Ok(()))?;
        spi::optional(&format!("{} WHERE j.job_id = $1", select()), &[id.into()], steered)
    })
}

/// Keeps others from changing the job until the transaction ends.
pub fn lock(id: Uuid) -> Result<()> {
    user::elevated(|| {
        spi::execute("SELECT FROM archive_ext.archival_job WHERE job_id = $1 FOR UPDATE", &[id.into()]).map(drop)
    })
}

/// Makes this session the only one that schedules for `source`, to the end of the transaction; whether it is.
pub fn claim_table(source: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT pg_try_advisory_xact_lock(hashtextextended('archive_ext schedule ' || $1::text, 0))",
            &[source.into()],
            |row| row.need(1),
        )
    })
}

/// Adds a job of the table's owner, unless an unfinished one has its partition, or for those about the table does the same; whether it did.
pub fn add(new: &NewJob<'_>) -> Result<bool> {
    let added = user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archival_job
               (operation, table_name, partition_name, partition, request, reason, storage, verify, status, started_by, scheduled)
             SELECT $1, $2::oid, $3, $4::oid, $5, $6, $7::name, 'content', 'pending',
                    (SELECT pg_get_userbyid(c.relowner) FROM pg_class c WHERE c.oid = $2::oid), true
             WHERE NOT EXISTS (
               SELECT FROM archive_ext.archival_job j WHERE j.status IN ('pending', 'running', 'paused')
                 AND CASE WHEN $4 IS NULL THEN j.table_name = $2::oid AND j.operation = $1
                     ELSE j.partition = $4::oid OR j.request -> 'partitions' ?| ARRAY[$3]
                       OR j.request -> 'partitions' ?| ARRAY(SELECT jsonb_array_elements_text($5 -> 'partitions')) END)",
            &[
                new.operation.into(),
                new.table.into(),
                new.name.into(),
                new.partition.into(),
                JsonB(new.request.clone()).into(),
                new.reason.into(),
                new.storage.into(),
            ],
        )
    })?;
    Ok(added > 0)
}

/// Jobs that were running when their backend went away, of tables that the current user may act for.
pub fn interrupted(source: Option<pg_sys::Oid>) -> Result<Vec<Uuid>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            &format!(
                "WITH gone AS (
                   SELECT j.job_id FROM archive_ext.archival_job j JOIN pg_class c ON c.oid = j.table_name::oid
                   WHERE j.status = 'running' AND j.scheduled AND ($2 IS NULL OR c.oid = $2)
                     AND pg_has_role($1, c.relowner, 'USAGE') AND NOT {ALIVE}
                   ORDER BY j.started_at FOR UPDATE OF j SKIP LOCKED)
                 SELECT job_id FROM gone"
            ),
            &[me.into(), source.into()],
            |row| row.need(1),
        )
    })
}

/// Whether a pending job may be taken up at the time of this parameter. None waits for longer than the longest wait: a later time was
/// noted while the clock was ahead.
fn is_due(now: &str) -> String {
    format!(
        "(j.next_attempt_at IS NULL OR j.next_attempt_at <= {now}
          OR j.next_attempt_at > {now} + make_interval(secs => {LONGEST_BACKOFF_SECONDS}))"
    )
}

/// SQL over job `j`: whether a person asked for it, so that neither the window nor a policy that is switched off holds it up.
const AT_ANY_TIME: &str = "j.operation IN ('restore', 'reattach', 'erase')";

/// Whether jobs of this operation go on outside windows.
pub fn is_at_any_time(operation: &str) -> bool {
    matches!(operation, "restore" | "reattach" | "erase")
}

/// The tables that the current user may act for and that have a job to take up, each with its window and whether its policy is enabled.
pub fn waiting_tables(
    source: Option<pg_sys::Oid>,
    now: TimestampWithTimeZone,
) -> Result<Vec<(pg_sys::Oid, Option<String>, bool)>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT c.oid, p.maintenance_window, coalesce(p.enabled, true)
                 FROM pg_class c LEFT JOIN archive_ext.archive_policy p ON p.source = c.oid::regclass
                 WHERE ($2 IS NULL OR c.oid = $2) AND pg_has_role($1, c.relowner, 'USAGE')
                   AND c.oid IN (SELECT j.table_name::oid FROM archive_ext.archival_job j
                                 WHERE j.status = 'pending' AND {} AND (coalesce(p.enabled, true) OR {AT_ANY_TIME}))
                 ORDER BY c.oid",
                is_due("$3")
            ),
            &[me.into(), source.into(), now.into()],
            |row| Ok((row.need(1)?, row.get(2)?, row.need(3)?)),
        )
    })
}

/// Takes up the next job of these tables: interrupted ones first, then the oldest. Two sessions never get the same. Of tables whose
/// window is `closed`, only what a person asked for.
pub fn claim(tables: &[pg_sys::Oid], closed: &[pg_sys::Oid], now: TimestampWithTimeZone) -> Result<Option<Uuid>> {
    user::elevated(|| {
        spi::optional(
            &format!(
                "UPDATE archive_ext.archival_job SET status = 'running', pid = pg_backend_pid(), pid_started = {MY_START},
                   next_attempt_at = NULL, suspended_at = NULL
                 WHERE job_id = (SELECT j.job_id FROM archive_ext.archival_job j
                                 WHERE j.status = 'pending'
                                   AND (j.table_name::oid = ANY ($1) OR {AT_ANY_TIME} AND j.table_name::oid = ANY ($3))
                                   AND {}
                                 ORDER BY j.phase = 'planned', j.started_at, j.job_id
                                 FOR UPDATE SKIP LOCKED LIMIT 1)
                 RETURNING job_id",
                is_due("$2")
            ),
            &[tables.to_vec().into(), now.into(), closed.to_vec().into()],
            |row| row.need(1),
        )
    })
}

/// A step went well: earlier failures are forgiven.
pub fn got_on(id: Uuid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET attempts = 0, error = NULL, error_code = NULL
             WHERE job_id = $1 AND status = 'running' AND (attempts > 0 OR error IS NOT NULL)",
            &[id.into()],
        )
        .map(drop)
    })
}

/// Ends a job that has no more steps, if the last one did not.
pub fn settle(id: Uuid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job
             SET status = 'completed', completed_at = clock_timestamp(), error = NULL, error_code = NULL
             WHERE job_id = $1 AND status = 'running'",
            &[id.into()],
        )
        .map(drop)
    })
}

/// Puts a running job back because its window closed.
pub fn suspend(id: Uuid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET status = 'pending', pid = NULL, suspended_at = clock_timestamp()
             WHERE job_id = $1 AND status = 'running'",
            &[id.into()],
        )
        .map(drop)
    })
}

/// Puts a running job back because what it waits for is not there yet; it is taken up again in so many seconds.
pub fn wait(id: Uuid, seconds: f64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET status = 'pending', pid = NULL, attempts = 0, error = NULL, error_code = NULL,
               next_attempt_at = clock_timestamp() + make_interval(secs => least($2, $3))
             WHERE job_id = $1 AND status = 'running'",
            &[id.into(), seconds.into(), (LONGEST_BACKOFF_SECONDS as f64).into()],
        )
        .map(drop)
    })
}

/// A job that waits for the storage has something to do now.
pub fn wake(table: pg_sys::Oid, operation: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET next_attempt_at = NULL
             WHERE table_name = $1::oid AND operation = $2 AND status = 'pending'",
            &[table.into(), operation.into()],
        )
        .map(drop)
    })
}

/// Puts a running job back after a failure, to be tried again so many seconds after `now`.
pub fn put_back(
    id: Uuid,
    attempts: i32,
    error: &str,
    code: &str,
    now: TimestampWithTimeZone,
    seconds: i64,
) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET status = 'pending', pid = NULL, attempts = $2, error = $3, error_code = $4,
               next_attempt_at = $5 + make_interval(secs => $6)
             WHERE job_id = $1 AND status = 'running'",
            &[id.into(), attempts.into(), error.into(), code.into(), now.into(), (seconds as f64).into()],
        )
        .map(drop)
    })
}

/// Notes the attempts and the SQLSTATE of a job that was given up.
pub fn note_failure(id: Uuid, attempts: i32, code: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET attempts = $2, error_code = $3 WHERE job_id = $1",
            &[id.into(), attempts.into(), code.into()],
        )
        .map(drop)
    })
}

/// Writes the status that a person decided.
pub fn set_status(id: Uuid, status: JobStatus) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job
             SET status = $2,
                 attempts = CASE WHEN $2 = 'pending' THEN 0 ELSE attempts END,
                 next_attempt_at = CASE WHEN $2 = 'pending' THEN NULL ELSE next_attempt_at END,
                 phase = CASE WHEN $2 = 'pending' AND status IN ('failed', 'cancelled') THEN 'planned' ELSE phase END,
                 progress = CASE WHEN $2 = 'pending' AND status IN ('failed', 'cancelled') THEN NULL ELSE progress END,
                 completed_at = CASE WHEN $2 = 'pending' THEN NULL ELSE completed_at END,
                 scheduled = scheduled OR $2 = 'pending'
             WHERE job_id = $1",
            &[id.into(), status.as_str().into()],
        )
        .map(drop)
    })
}

/// The unfinished job of a partition, and what it does.
pub fn unfinished_of(partition: pg_sys::Oid) -> Result<Option<(Uuid, String)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT job_id, operation FROM archive_ext.archival_job
             WHERE partition = $1::oid AND status IN ('pending', 'running', 'paused') ORDER BY started_at DESC LIMIT 1",
            &[partition.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Ends the jobs of a table that nobody has begun: its policy changed, and what is due is asked anew.
pub fn withdraw(source: pg_sys::Oid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.archival_job
             WHERE table_name = $1::oid AND status = 'pending' AND scheduled AND phase = 'planned' AND progress IS NULL
               AND attempts = 0 AND reason IS NOT NULL AND operation NOT IN ('restore', 'reattach', 'erase')",
            &[source.into()],
        )
        .map(drop)
    })
}

/// Has the backend that works on a job cancel its statement.
pub fn interrupt(pid: i32) -> Result<()> {
    user::elevated(|| spi::one("SELECT pg_cancel_backend($1)", &[pid.into()], |_| Ok(())))
}

/// An unfinished job, other than `id`, that has the partition of `id`.
pub fn in_the_way(id: Uuid) -> Result<Option<Uuid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT o.job_id FROM archive_ext.archival_job j JOIN archive_ext.archival_job o
               ON o.job_id <> j.job_id AND o.status IN ('pending', 'running', 'paused')
              AND (o.partition = j.partition OR (j.partition IS NULL AND o.table_name = j.table_name AND o.operation = j.operation))
             WHERE j.job_id = $1 LIMIT 1",
            &[id.into()],
            |row| row.need(1),
        )
    })
}

/// Removes a job that another one replaces before it has begun.
pub fn remove(id: Uuid) -> Result<()> {
    user::elevated(|| spi::execute("DELETE FROM archive_ext.archival_job WHERE job_id = $1", &[id.into()]).map(drop))
}

/// Leaves a running job to whoever takes up the next one.
pub fn enqueue(id: Uuid, reason: Option<&str>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET status = 'pending', pid = NULL, scheduled = true, reason = coalesce($2, reason)
             WHERE job_id = $1",
            &[id.into(), reason.into()],
        )
        .map(drop)
    })
}
