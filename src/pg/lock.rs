//! Bounded waits for locks.

use std::ffi::CStr;
use std::panic::AssertUnwindSafe;

use pgrx::pg_sys;

use super::guc::GucNest;
use super::relation::LockMode;
use super::xact;
use crate::error::{Error, OrRaise, Result, SqlState};

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

/// `deadlock_timeout` in milliseconds, as other sessions have it: how long they wait for a lock before PostgreSQL looks whether
/// they are deadlocked, and ends the one for which it finds it.
pub fn deadlock_timeout_ms() -> i32 {
    // SAFETY: the setting exists; its reset value is copied to a static buffer that is read at once.
    let reset = unsafe {
        let value = pg_sys::GetConfigOptionResetString(c"deadlock_timeout".as_ptr());
        (!value.is_null()).then(|| CStr::from_ptr(value).to_str().ok().and_then(|value| value.parse().ok())).flatten()
    };
    // SAFETY: reads a setting.
    reset.unwrap_or(unsafe { pg_sys::DeadlockTimeout })
}

/// Does `work` as the one that gives way: for its waits PostgreSQL looks for deadlocks almost at once, so whoever gets into a circle
/// of waits with it is not the one that finds it. Such an end is the error that a lock is not to be had (55P03).
pub fn giving_way<T>(work: impl FnOnce() -> T) -> T {
    let _settings = looking_at_once();
    pgrx::PgTryBuilder::new(AssertUnwindSafe(work))
        .catch_when(SqlState::ERRCODE_T_R_DEADLOCK_DETECTED, |caught| {
            let detail = xact::caught_any(&caught).detail;
            Error::new(
                SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
                "sessions that hold locks which are wanted wait for this one",
            )
            .detail(detail.unwrap_or_default())
            .hint("Nothing was changed. Run it again when these have finished.")
            .raise()
        })
        .execute()
}

/// PostgreSQL looks for deadlocks almost at once, and has an autovacuum that is in the way end as soon.
fn looking_at_once() -> GucNest {
    GucNest::new().set(c"deadlock_timeout", &(deadlock_timeout_ms() / 100).max(1).to_string())
}

/// How long a wait may last, in milliseconds, that is to end before PostgreSQL looks for a deadlock for whoever began to wait later.
pub fn brief_wait_ms() -> i32 {
    (deadlock_timeout_ms() / 4 * 3).max(1)
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
/// Whether the lock was got; not where the wait is part of a deadlock. Query cancel and every other error are raised.
pub fn acquire(relation: pg_sys::Oid, mode: LockMode, timeout_ms: i32) -> bool {
    let _settings = looking_at_once();
    let waited = within(timeout_ms, || {
        // SAFETY: takes a lock that the transaction releases.
        unsafe { pg_sys::LockRelationOid(relation, mode as i32) }
        Ok(())
    });
    match waited {
        Ok(got) => got.is_some(),
        Err(error) if error.sqlstate() == SqlState::ERRCODE_T_R_DEADLOCK_DETECTED => false,
        Err(error) => error.raise(),
    }
}
