//! Bounded waits for locks.

use pgrx::pg_sys;

use super::guc::GucNest;
use super::relation::LockMode;
use super::xact;
use crate::error::{OrRaise, Result, SqlState};

/// Takes `mode` on a relation if nobody is in the way, and keeps it to the end of the transaction; whether it was got.
pub fn try_acquire(relation: pg_sys::Oid, mode: LockMode) -> bool {
    // SAFETY: takes a lock that the transaction releases, or none.
    unsafe { pg_sys::ConditionalLockRelationOid(relation, mode as i32) }
}

/// Who owns a lock within this backend, which decides how it is given back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    /// What was current when [`try_acquire`] got it.
    Current,
    /// The (sub)transaction: [`acquire`] waits in a subtransaction, which leaves it its locks.
    Transaction,
}

/// Gives back a lock of this (sub)transaction.
pub fn release(relation: pg_sys::Oid, mode: LockMode, owner: Owner) {
    // SAFETY: both owners outlive the call, and the current one is put back.
    unsafe {
        let current = pg_sys::CurrentResourceOwner;
        if owner == Owner::Transaction {
            pg_sys::CurrentResourceOwner = pg_sys::CurTransactionResourceOwner;
        }
        pg_sys::UnlockRelationOid(relation, mode as i32);
        pg_sys::CurrentResourceOwner = current;
    }
}

/// `deadlock_timeout` in milliseconds: how long PostgreSQL waits for a lock before it looks for a deadlock.
pub fn deadlock_timeout_ms() -> i32 {
    // SAFETY: reads a setting.
    unsafe { pg_sys::DeadlockTimeout }
}

/// `lock_timeout` of the session in milliseconds, if it has one.
pub fn lock_timeout_ms() -> Option<i32> {
    // SAFETY: reads a setting.
    Some(unsafe { pg_sys::LockTimeout }).filter(|ms| *ms > 0)
}

/// Runs `work` in a subtransaction in which each wait for a lock lasts `timeout_ms` at most; the locks are kept to the end of the
/// transaction. `None` when a wait was over (55P03). Every other error passes, a deadlock too; query cancel is raised.
pub fn within<T>(timeout_ms: i32, work: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
    let waited = xact::subtransaction(|| {
        let _timeout = GucNest::new().set(c"lock_timeout", &timeout_ms.to_string());
        work().or_raise()
    });
    match waited {
        Ok(value) => Ok(Some(value)),
        Err(caught) if caught.sqlstate == SqlState::ERRCODE_LOCK_NOT_AVAILABLE => Ok(None),
        Err(caught) => Err(caught.into()),
    }
}

/// Waits at most `timeout_ms` for `mode` on a relation and keeps it to the end of the transaction.
///
/// Whether the lock was got. Query cancel and every other error are raised.
pub fn acquire(relation: pg_sys::Oid, mode: LockMode, timeout_ms: i32) -> bool {
    let waited = within(timeout_ms, || {
        // SAFETY: takes a lock that the transaction releases.
        unsafe { pg_sys::LockRelationOid(relation, mode as i32) }
        Ok(())
    });
    waited.or_raise().is_some()
}
