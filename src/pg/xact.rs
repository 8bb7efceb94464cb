//! Facts about the current transaction, and subtransactions that catch an error.

use pgrx::pg_sys;
use pgrx::pg_sys::panic::CaughtError;

use crate::error::Error;

/// Whether the transaction keeps one snapshot (REPEATABLE READ or SERIALIZABLE).
pub fn keeps_one_snapshot() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32 }
}

/// Whether the transaction may write nothing, as on a standby.
pub fn is_read_only() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactReadOnly }
}

/// Raises an error (25006) in a transaction that may not write, as each on a standby is; `command` is named in it. What
/// writes to a storage would else get as far as that before PostgreSQL objects.
pub fn refuse_read_only(command: &'static std::ffi::CStr) {
    // SAFETY: reads a backend-local variable and raises an error, or does nothing.
    unsafe { pg_sys::PreventCommandIfReadOnly(command.as_ptr()) }
}

/// Whether the transaction is SERIALIZABLE.
pub fn is_serializable() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::XactIsoLevel == pg_sys::XACT_SERIALIZABLE as i32 }
}

/// Whether the transaction has an id: it has changed something, or is about to.
pub fn has_id() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::GetTopTransactionIdIfAny() != pg_sys::InvalidTransactionId }
}

/// Whether a query may see more than the statement that calls it: not where the transaction keeps one snapshot, nor
/// while parallel workers share it.
pub fn may_take_snapshots() -> bool {
    // SAFETY: reads a backend-local variable.
    !keeps_one_snapshot() && unsafe { !pg_sys::IsInParallelMode() }
}

/// Whether this process is a parallel worker.
pub fn is_worker() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::ParallelWorkerNumber >= 0 }
}

/// Whether parallel workers run, or this is one.
pub fn is_parallel() -> bool {
    // SAFETY: reads a backend-local variable.
    unsafe { pg_sys::IsInParallelMode() }
}

/// The transaction's id, assigned if it has none yet.
pub fn top_transaction_id() -> u32 {
    // SAFETY: inside a transaction that may write.
    unsafe { pg_sys::GetTopTransactionId().into_inner() }
}

/// Whether transaction `xid` of this cluster is still running.
pub fn in_progress(xid: u32) -> bool {
    // SAFETY: looks at shared memory only.
    unsafe { pg_sys::TransactionIdIsInProgress(pg_sys::TransactionId::from_inner(xid)) }
}

/// Makes the catalog changes of this transaction visible to its following commands.
pub fn command_counter_increment() {
    // SAFETY: inside a transaction.
    unsafe { pg_sys::CommandCounterIncrement() }
}

/// What a failed subtransaction reported.
#[derive(Debug)]
pub struct Caught {
    /// The SQLSTATE.
    pub sqlstate: pgrx::pg_sys::errcodes::PgSqlErrorCode,
    /// The primary message.
    pub message: String,
    /// The DETAIL.
    pub detail: Option<String>,
    /// The HINT.
    pub hint: Option<String>,
}

impl From<Caught> for Error {
    fn from(caught: Caught) -> Self {
        let mut error = Error::new(caught.sqlstate, caught.message);
        if let Some(detail) = caught.detail {
            error = error.detail(detail);
        }
        match caught.hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    }
}

/// Runs `work` in a subtransaction: kept when it returns, rolled back when PostgreSQL raises an error.
///
/// Query cancel and termination are raised again.
pub fn subtransaction<T>(work: impl FnOnce() -> T) -> Result<T, Caught> {
    subtransaction_if(work, |_| true)
}

/// The same, but what `work` did is kept only if `keep` says so of its value: else it is rolled back, and the locks that
/// it took, on rows too, are given back. Not those of subtransactions within that were kept: PostgreSQL lets who waits for
/// such a row wait for the whole transaction.
pub fn subtransaction_if<T>(work: impl FnOnce() -> T, keep: impl FnOnce(&T) -> bool) -> Result<T, Caught> {
    // SAFETY: the owner and context are restored on both ways out, as PL/pgSQL does around an EXCEPTION block.
    let (owner, context) = unsafe {
        let saved = (pg_sys::CurrentResourceOwner, pg_sys::CurrentMemoryContext);
        pg_sys::BeginInternalSubTransaction(std::ptr::null());
        pg_sys::MemoryContextSwitchTo(saved.1);
        saved
    };
    let context_address = context.expose_provenance();
    let outcome = pgrx::PgTryBuilder::new(std::panic::AssertUnwindSafe(|| {
        let value = work();
        let kept = keep(&value);
        // SAFETY: ends the subtransaction begun above.
        unsafe {
            if kept {
                pg_sys::ReleaseCurrentSubTransaction();
            } else {
                pg_sys::RollbackAndReleaseCurrentSubTransaction();
            }
        }
        Ok(value)
    }))
    .catch_others(move |error| {
        // SAFETY: ends the subtransaction begun above after an error, in the context that was current before it.
        unsafe {
            pg_sys::MemoryContextSwitchTo(std::ptr::with_exposed_provenance_mut(context_address));
            pg_sys::RollbackAndReleaseCurrentSubTransaction();
        }
        Err(caught(error))
    })
    .execute();
    // SAFETY: restores what was current before.
    unsafe {
        pg_sys::MemoryContextSwitchTo(context);
        pg_sys::CurrentResourceOwner = owner;
    }
    outcome
}

fn caught(error: CaughtError) -> Caught {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = &error;
    if report.sql_error_code() == pgrx::PgSqlErrorCode::ERRCODE_QUERY_CANCELED {
        error.rethrow();
    }
    caught_any(&error)
}

/// What any error says, query cancel included.
pub(super) fn caught_any(error: &CaughtError) -> Caught {
    let (CaughtError::PostgresError(report)
    | CaughtError::ErrorReport(report)
    | CaughtError::RustPanic { ereport: report, .. }) = error;
    Caught {
        sqlstate: report.sql_error_code(),
        message: report.message().to_owned(),
        detail: report.detail().map(str::to_owned),
        hint: report.hint().map(str::to_owned),
    }
}

/// Runs `work`; an error that PostgreSQL raises in it is raised again with `about` in its DETAIL.
pub fn explained<T>(about: &str, work: impl FnOnce() -> T) -> T {
    pgrx::PgTryBuilder::new(std::panic::AssertUnwindSafe(work))
        .catch_others(|error| {
            let error = caught(error);
            let detail = match &error.detail {
                Some(detail) => format!("{detail} {about}"),
                None => about.to_owned(),
            };
            Error::from(error).detail(detail).raise()
        })
        .execute()
}

/// Runs `work` in a subtransaction that is rolled back in any case, so that the locks it takes are given back. An error is
/// raised again: whoever catches it, as an EXCEPTION block does, ends one subtransaction, and that must be their own.
pub fn rolled_back<T>(work: impl FnOnce() -> T) -> T {
    subtransaction_if(work, |_| false).unwrap_or_else(|caught| Error::from(caught).raise())
}
