//! What is wrong, as our tables and the server's show it, for tables that the current user may SELECT from.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// Something that somebody should look at.
#[derive(Debug)]
pub struct Standing {
    /// `given up`, `verification failed`, `failing`, `interrupted`, `late`, `nobody runs jobs`, `owner is gone`, `rows are missing`,
    /// `overdue`.
    pub alert: String,
    /// The table.
    pub table: pg_sys::Oid,
    /// The partition.
    pub partition: Option<String>,
    /// The job.
    pub job: Option<Uuid>,
    /// Since when.
    pub since: Option<TimestampWithTimeZone>,
    /// What is wrong.
    pub detail: String,
    /// What to do.
    pub remedy: String,
}

fn standing(row: &spi::Row<'_>) -> Result<Standing> {
    Ok(Standing {
        alert: row.need(1)?,
        table: row.need(2)?,
        partition: row.get(3)?,
        job: row.get(4)?,
        since: row.get(5)?,
        detail: row.need(6)?,
        remedy: row.need(7)?,
    })
}

/// Jobs that were given up, fail, or were interrupted.
pub fn of_jobs() -> Result<Vec<Standing>> {
    let (me, everything) = (user::current(), user::reads_all_archives());
    let jobs = user::elevated(|| {
        spi::rows(
            "SELECT * FROM (
               SELECT CASE WHEN j.error_code = 'XX001' THEN 'verification failed'
                           WHEN j.status = 'failed' THEN 'given up'
                           WHEN j.status = 'pending' AND j.attempts > 0 THEN 'failing'
                           WHEN j.status = 'running' AND j.why_stopped IS NULL AND NOT EXISTS (
                             SELECT FROM pg_stat_activity a WHERE a.pid = j.pid AND a.backend_start = j.pid_started)
                             THEN 'interrupted' END AS alert,
                      c.oid, j.partition_name, j.job_id, coalesce(j.completed_at, j.started_at) AS since,
                      coalesce(j.error, 'the session that ran it is gone') AS detail,
                      CASE WHEN j.status = 'failed' THEN format('Mend the cause, then SELECT retry_job(''%s'').', j.job_id)
                           WHEN j.status = 'pending' THEN format('It is tried again%s.',
                             to_char(j.next_attempt_at, '\" at \"YYYY-MM-DD HH24:MI:SS TZ'))
                           WHEN j.scheduled THEN 'The worker, or CALL run_lifecycle(), takes it up again.'
                           ELSE format('Call it again, or SELECT cancel_job(''%s''), which makes the partition writable.', j.job_id)
                      END AS remedy, CASE WHEN j.error IS NOT NULL THEN coalesce(j.error_code, '?') END AS error_code
               FROM archive_ext.archival_job j JOIN pg_class c ON c.oid = j.table_name::oid
               WHERE (j.status IN ('pending', 'running') OR j.status = 'failed' AND j.scheduled
                      AND NOT EXISTS (SELECT FROM archive_ext.archival_job n WHERE n.table_name = j.table_name
                                      AND n.partition_name = j.partition_name AND n.started_at > j.started_at))
                 AND ($2 OR has_table_privilege($1, c.oid, 'SELECT'))
             ) a WHERE alert IS NOT NULL ORDER BY since",
            &[me.into(), everything.into()],
            |row| Ok((standing(row)?, row.get::<String>(8)?)),
        )
    })?;
    jobs.into_iter().map(|(job, error_code)| without_rows(job, error_code)).collect()
}

/// Errors may quote rows that row-level security hides from the current user.
fn without_rows(mut job: Standing, error_code: Option<String>) -> Result<Standing> {
    if let Some(code) = error_code
        && !super::sees_every_row(job.table)?
    {
        job.detail = format!("SQLSTATE {code}; the message may quote rows that row-level security hides from you");
    }
    Ok(job)
}

/// Policies that nobody carries out.
pub fn of_policies() -> Result<Vec<Standing>> {
    let (me, everything) = (user::current(), user::reads_all_archives());
    user::elevated(|| {
        spi::rows(
            "SELECT a.alert, c.oid, NULL::text, NULL::uuid, coalesce(p.checked_at, p.changed_at), a.detail, a.remedy
             FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source::oid
             LEFT JOIN pg_roles r ON r.rolname = p.owner, LATERAL (
               SELECT 'owner is gone' AS alert, format('role %I, as whom its jobs run, may not act for the table', p.owner) AS detail,
                      'Have the table''s owner call set_archive_policy again.' AS remedy
               WHERE r.oid IS NULL OR NOT pg_has_role(r.oid, c.relowner, 'USAGE')
               UNION ALL
               SELECT 'nobody runs jobs', CASE WHEN p.checked_at IS NULL THEN 'no worker runs, and nobody has called run_lifecycle yet'
                        ELSE 'no worker runs, and nobody has called run_lifecycle for a day' END,
                      'Put archive_ext into shared_preload_libraries and restart, or schedule CALL run_lifecycle().'
               WHERE NOT EXISTS (SELECT FROM pg_stat_activity w WHERE w.backend_type = 'archive_ext launcher')
                 AND (p.checked_at IS NULL OR p.checked_at < clock_timestamp() - interval '1 day')
                 AND num_nonnulls(p.hot_after, p.warm_after, p.archive_after, p.max_hot_bytes, p.premake) > 0
             ) a
             WHERE p.enabled AND ($2 OR has_table_privilege($1, c.oid, 'SELECT')) ORDER BY c.oid::regclass::text, 1",
            &[me.into(), everything.into()],
            standing,
        )
    })
}

/// Local copies whose time passed a day ago, and that no job is about.
pub fn of_local_copies() -> Result<Vec<Standing>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            "SELECT 'overdue', s.oid, format('%I.%I', p.schema_name, p.partition_name), NULL::uuid, p.local_copy_until,
                    format('its local copy was to stay until %s, and nobody has dropped it',
                           to_char(p.local_copy_until, 'YYYY-MM-DD HH24:MI TZ')),
                    'Put archive_ext into shared_preload_libraries and restart, or schedule CALL run_lifecycle().'
             FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             JOIN pg_class s ON s.oid = m.source::oid JOIN pg_class l ON l.oid = p.local_copy::oid
             LEFT JOIN archive_ext.archive_policy a ON a.source = m.source
             WHERE p.status = 'ARCHIVED' AND p.local_copy_until < clock_timestamp() - interval '1 day'
               AND coalesce(a.enabled, true) AND has_table_privilege($1, s.oid, 'SELECT')
               AND NOT EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.partition = p.foreign_table AND j.scheduled
                                 AND j.status IN ('pending', 'running', 'paused', 'failed', 'cancelled'))
             ORDER BY p.local_copy_until",
            &[me.into()],
            standing,
        )
    })
}

/// What a person was promised and has not got: deletions that are still open a day after their time, and restores that failed.
pub fn of_promises() -> Result<Vec<Standing>> {
    let (me, everything) = (user::current(), user::reads_all_archives());
    user::elevated(|| {
        spi::rows(
            "SELECT a.alert, c.oid, a.partition, NULL::uuid, a.since, a.detail, a.remedy FROM pg_class c JOIN (
               SELECT 'overdue' AS alert, e.source::oid AS source, NULL::text AS partition, e.delete_after AS since,
                      format('what held rows of erasure %s was to be deleted after %s, and is not yet', e.id,
                             to_char(e.delete_after, 'YYYY-MM-DD HH24:MI TZ')) AS detail,
                      'See archive_ext.jobs for its erase job; CALL run_lifecycle() where no worker runs.' AS remedy
               FROM archive_ext.erasure e WHERE e.deleted_at IS NULL AND e.delete_after < clock_timestamp() - interval '1 day'
               UNION ALL
               SELECT 'overdue', d.source::oid, d.partition_name, d.withdrawn_at,
                      format('its objects were to be deleted from %s on, and are not yet (certificate %s)',
                             to_char(d.withdrawn_at, 'YYYY-MM-DD HH24:MI TZ'), d.id),
                      'See archive_ext.jobs for its expire job; retry_job(job_id) begins it again.'
               FROM archive_ext.deletion_certificate d WHERE d.deleted_at IS NULL AND d.withdrawn_at < clock_timestamp() - interval '1 day'
               UNION ALL
               SELECT 'restore failed', m.source::oid, format('%I.%I', p.schema_name, p.partition_name), r.ended_at,
                      format('restore request %s failed: %s', r.id, coalesce(r.error, 'the storage does not say why')),
                      'Mend what is wrong, then SELECT * FROM request_restore(partition).'
               FROM archive_ext.restore_request r JOIN archive_ext.partition p ON p.id = r.partition_id
               JOIN archive_ext.managed_table m ON m.id = p.managed_table
               WHERE r.status = 'failed' AND r.ended_at > clock_timestamp() - interval '7 days'
                 AND NOT EXISTS (SELECT FROM archive_ext.restore_request l WHERE l.partition_id = r.partition_id AND l.id > r.id)
             ) a ON a.source = c.oid
             WHERE $2 OR has_table_privilege($1, c.oid, 'SELECT') ORDER BY a.since",
            &[me.into(), everything.into()],
            standing,
        )
    })
}

/// A job of the scheduler that is not done.
#[derive(Debug)]
pub struct Unfinished {
    /// The job.
    pub job: Uuid,
    /// The table.
    pub table: pg_sys::Oid,
    /// The partition.
    pub partition: String,
    /// When it was made.
    pub since: Option<TimestampWithTimeZone>,
    /// How long ago that is.
    pub age_minutes: i64,
    /// Its window closed on it.
    pub suspended: bool,
    /// The window.
    pub window: Option<String>,
}

/// The scheduler's jobs that wait or run.
pub fn unfinished() -> Result<Vec<Unfinished>> {
    let (me, everything) = (user::current(), user::reads_all_archives());
    user::elevated(|| {
        spi::rows(
            "SELECT j.job_id, c.oid, j.partition_name, j.started_at,
                    (extract(epoch FROM clock_timestamp() - j.started_at) / 60)::bigint, j.suspended_at IS NOT NULL,
                    p.maintenance_window
             FROM archive_ext.archival_job j JOIN pg_class c ON c.oid = j.table_name::oid
             LEFT JOIN archive_ext.archive_policy p ON p.source = j.table_name
             WHERE j.scheduled AND j.status IN ('pending', 'running')
               -- These wait for the storage, or for a retention to be over.
               AND j.operation NOT IN ('restore', 'reattach', 'erase')
               AND NOT (j.operation = 'expire' AND j.attempts = 0 AND j.error IS NOT NULL) AND ($2 OR has_table_privilege($1, c.oid, 'SELECT'))
             ORDER BY j.started_at",
            &[me.into(), everything.into()],
            |row| {
                Ok(Unfinished {
                    job: row.need(1)?,
                    table: row.need(2)?,
                    partition: row.need(3)?,
                    since: row.get(4)?,
                    age_minutes: row.need(5)?,
                    suspended: row.need(6)?,
                    window: row.get(7)?,
                })
            },
        )
    })
}
