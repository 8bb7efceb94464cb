//! Who holds which lock: for refusals before the run and for naming blockers after a timeout.

use pgrx::pg_sys;

use crate::error::{Error, OrRaise, Result, SqlState};
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{lock, spi, user, xact};

/// Lock modes this transaction holds on a relation, as `pg_locks` prints them.
pub fn held_here(relation: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT mode FROM pg_locks
             WHERE locktype = 'relation' AND relation = $1 AND granted AND pid = pg_backend_pid()
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// Takes a lock within `archive_ext.lock_timeout`, or fails naming who holds it (55P03, P6).
pub fn acquire(relation: pg_sys::Oid, name: &str, mode: LockMode) -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    if lock::acquire(relation, mode, timeout) {
        return Ok(());
    }
    Err(not_available(relation, name, timeout)?)
}

/// The 55P03 error that names the sessions in the way.
pub fn not_available(relation: pg_sys::Oid, name: &str, timeout_ms: i32) -> Result<Error> {
    let blockers = blockers(relation)?;
    let detail =
        if blockers.is_empty() { "The session that held it is gone by now.".to_owned() } else { blockers.join(" ") };
    Ok(Error::new(SqlState::ERRCODE_LOCK_NOT_AVAILABLE, format!("could not lock \"{name}\" within {timeout_ms} ms"))
        .detail(detail)
        .hint("Nothing was changed. Run it again when these have finished, or raise archive_ext.lock_timeout."))
}

/// The sessions that hold locks on a relation, as sentences; at most five.
pub fn blockers(relation: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('Process %s (user %s, %s, query started %s) holds %s.', l.pid,
                           coalesce(a.usename::text, '?'), coalesce(a.state, a.backend_type),
                           coalesce(to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '?'), l.mode)
             FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted AND l.pid <> pg_backend_pid()
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY a.query_start LIMIT 5",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// Waits, at most `archive_ext.lock_timeout`, until no other session makes the archive relation `name` (55P03).
pub fn serialize(kind: &str, name: &str) -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    let waited = xact::subtransaction(|| {
        let _timeout = GucNest::new().set(c"lock_timeout", &timeout.to_string());
        user::elevated(|| {
            spi::execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('archive_ext ' || $1 || ' ' || $2, 0))",
                &[kind.into(), name.into()],
            )
        })
        .or_raise();
    });
    waited.map_err(|_| {
        Error::new(
            SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("another session is making the archive {kind} \"{name}\""),
        )
        .hint("Run it again when that session has committed.")
    })
}

/// Makes this session the only one that archives or reattaches this partition, to the end of the transaction.
pub fn claim_partition(key: &str) -> Result<()> {
    let free = user::elevated(|| {
        spi::one("SELECT pg_try_advisory_xact_lock(hashtextextended('archive_ext ' || $1, 0))", &[key.into()], |row| {
            row.need::<bool>(1)
        })
    })?;
    if free {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("partition \"{key}\" is being archived or reattached by another session"),
    )
    .hint("See archive_ext.progress and archive_ext.jobs for the run in progress."))
}
