//! Dynamic background workers: starting one, and what its main function needs.

use std::panic::AssertUnwindSafe;

use pgrx::bgworkers::{BackgroundWorker, BackgroundWorkerBuilder, DynamicBackgroundWorker, SignalWakeFlags};
use pgrx::pg_sys;

unsafe extern "C-unwind" {
    /// PostgreSQL's SIGTERM handler of backends (tcop/postgres.c). The binding of pgrx is a function that no signal can call.
    fn die(signal: std::ffi::c_int);
}

/// Starts `function` of this library as a background worker; `None` without a free worker slot.
pub fn start(name: &str, function: &str, argument: u32) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new(name)
        .set_library("archive_ext")
        .set_function(function)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_notify_pid(std::process::id().cast_signed())
        .enable_spi_access()
        .set_restart_time(None)
        .load_dynamic()
        .ok()
}

/// Starts `function` in `database` without anybody waiting for it; whether a worker slot was free.
pub fn start_in(name: &str, function: &str, argument: u32, database: pg_sys::Oid) -> bool {
    BackgroundWorkerBuilder::new(name)
        .set_library("archive_ext")
        .set_function(function)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_extra(&database.to_u32().to_string())
        .enable_spi_access()
        .set_restart_time(None)
        .load_dynamic()
        .is_ok()
}

/// The database that [`start_in`] named.
pub fn database_of_start() -> Option<pg_sys::Oid> {
    BackgroundWorker::get_extra().parse::<u32>().ok().map(pg_sys::Oid::from)
}

/// Connects a worker as [`connect`] does, but ends it on SIGTERM as a backend ends: nothing of what it does must be finished.
pub fn connect_to_work(database: pg_sys::Oid) {
    connect(database);
    // SAFETY: PostgreSQL's own handler; it sets flags that CHECK_FOR_INTERRUPTS acts on.
    unsafe {
        pg_sys::pqsignal(pg_sys::SIGTERM as i32, Some(die));
    }
}

/// Connects the worker to a database as the bootstrap superuser; statements for a user switch to that user.
pub fn connect(database: pg_sys::Oid) {
    // SIGTERM only sets a flag: at shutdown the worker still finishes, because the transaction it waits for ends too.
    // SIGINT stays PostgreSQL's: lock timeouts are delivered by it.
    BackgroundWorker::attach_signal_handlers(SignalWakeFlags::SIGTERM);
    BackgroundWorker::connect_worker_to_spi_by_oid(Some(database), None);
    // The database's own timeouts are not for the worker; it sets a lock timeout where it waits for a lock.
    for name in [c"lock_timeout", c"statement_timeout", c"idle_in_transaction_session_timeout"] {
        super::guc::override_setting(name, c"0");
    }
}

/// `<system identifier>/<database OID>`: OIDs mean the same wherever this is the same.
pub fn database_identity() -> String {
    // SAFETY: reads the control file's copy in memory, and a constant of the backend.
    unsafe { format!("{}/{}", pg_sys::GetSystemIdentifier(), pg_sys::MyDatabaseId.to_u32()) }
}

/// Waits until transaction `xid` has ended, whatever happens but the end of the postmaster.
pub fn wait_for_transaction(xid: u32) {
    while super::xact::in_progress(xid) {
        super::interrupts::exit_without_postmaster();
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // SAFETY: a flag of this process; a cancel sent meanwhile must not keep the guards from being lifted.
    unsafe { pg_sys::QueryCancelPending = 0 };
}

/// Runs `work` in a transaction of its own and commits it.
pub fn transaction<T>(work: impl FnOnce() -> T) -> T {
    BackgroundWorker::transaction(AssertUnwindSafe(work))
}

/// Whether the worker was asked to end.
pub fn asked_to_end() -> bool {
    BackgroundWorker::sigterm_received()
}

/// The database of this backend.
pub fn my_database() -> pg_sys::Oid {
    // SAFETY: set once at connection.
    unsafe { pg_sys::MyDatabaseId }
}

/// Sleeps, noticing interrupts.
pub fn pause(duration: std::time::Duration) {
    let until = std::time::Instant::now() + duration;
    while std::time::Instant::now() < until {
        super::interrupts::check_in_wait();
        std::thread::sleep(duration.min(std::time::Duration::from_millis(20)));
    }
}
