//! Bounded waits for table locks.

use pgrx::pg_sys;

use super::guc::GucNest;
use super::relation::LockMode;
use super::xact;

/// Waits for `mode` on a relation as the session's `lock_timeout` says, and keeps it to the end of the transaction.
pub fn wait(relation: pg_sys::Oid, mode: LockMode) {
    // SAFETY: takes a lock that the transaction releases.
    unsafe { pg_sys::LockRelationOid(relation, mode as i32) }
}

/// Waits at most `timeout_ms` for `mode` on a relation and keeps it to the end of the transaction.
///
/// Whether the lock was got. Query cancel and every other error are raised.
pub fn acquire(relation: pg_sys::Oid, mode: LockMode, timeout_ms: i32) -> bool {
    let settings = GucNest::new().set(c"lock_timeout", &timeout_ms.to_string());
    // SAFETY: takes a lock that the transaction releases.
    let outcome = xact::subtransaction(|| unsafe { pg_sys::LockRelationOid(relation, mode as i32) });
    drop(settings);
    match outcome {
        Ok(()) => true,
        Err(caught) if caught.sqlstate == pgrx::PgSqlErrorCode::ERRCODE_LOCK_NOT_AVAILABLE => false,
        Err(caught) => crate::error::Error::from(caught).raise(),
    }
}
