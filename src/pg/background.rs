//! Background workers: starting them, and what their main functions need.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use pgrx::bgworkers::{
    BackgroundWorker, BackgroundWorkerBuilder, BackgroundWorkerStatus, DynamicBackgroundWorker, SignalWakeFlags,
};
use pgrx::pg_sys;

use super::xact::{self, Caught};

unsafe extern "C-unwind" {
    // PostgreSQL's own handlers as they are: pgrx's wrappers are no C functions.
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
    fn SignalHandlerForShutdownRequest(signal: std::ffi::c_int);
    fn die(signal: std::ffi::c_int);
}

/// How long the postmaster waits before it starts a launcher again that failed.
const RESTART: Duration = Duration::from_secs(5);

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
    keep_own_settings();
}

/// What database or role set for sessions is not for the worker, where it would keep it from working.
fn keep_own_settings() {
    for (name, value) in [
        (c"lock_timeout", c"0"),
        (c"statement_timeout", c"0"),
        (c"idle_in_transaction_session_timeout", c"0"),
        (c"default_transaction_isolation", c"read committed"),
        (c"default_transaction_read_only", c"off"),
    ] {
        super::guc::override_setting(name, value);
    }
}

/// Registers the launcher; called while the library is preloaded. It starts once recovery has ended: never on a standby,
/// and at once after its promotion.
pub fn register_launcher() {
    BackgroundWorkerBuilder::new("archive_ext launcher")
        .set_library("archive_ext")
        .set_function("archive_ext_launcher")
        .enable_spi_access()
        .set_restart_time(Some(RESTART))
        .load();
}

/// Starts a worker of the launcher's; process `notify` is woken when it starts and ends. `None` without a free slot.
pub fn start_for(notify: i32, kind: &str, function: &str, argument: u32) -> Option<DynamicBackgroundWorker> {
    BackgroundWorkerBuilder::new(kind)
        .set_library("archive_ext")
        .set_function(function)
        .set_argument(Some(pg_sys::Datum::from(argument)))
        .set_notify_pid(notify)
        .enable_spi_access()
        .set_restart_time(None)
        .load_dynamic()
        .ok()
}

/// Whether the worker has ended, or will never start.
pub fn has_ended(worker: &DynamicBackgroundWorker) -> bool {
    matches!(worker.pid(), Err(BackgroundWorkerStatus::Stopped | BackgroundWorkerStatus::PostmasterDied))
}

/// Connects to the shared catalogs only: no database is in use by this process.
pub fn connect_shared() {
    // SAFETY: handlers of PostgreSQL's own; SIGTERM only sets a flag that the launcher looks at.
    unsafe {
        handle(pg_sys::SIGHUP, SignalHandlerForConfigReload);
        handle(pg_sys::SIGTERM, SignalHandlerForShutdownRequest);
        pg_sys::BackgroundWorkerUnblockSignals();
    }
    BackgroundWorker::connect_worker_to_spi(None, None);
}

/// Connects to a database with `role` as session user, or as the bootstrap superuser. Ends the process when that is
/// refused: a role without LOGIN (before PostgreSQL 17), or without CONNECT.
///
/// SIGTERM ends the worker at the next check for interrupts, as it does a session. SIGINT stays PostgreSQL's: it cancels
/// the step, and lock timeouts are delivered by it.
pub fn connect_as(database: pg_sys::Oid, role: Option<pg_sys::Oid>) {
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    let flags = pg_sys::BGWORKER_BYPASS_ROLELOGINCHECK;
    #[cfg(not(any(feature = "pg17", feature = "pg18")))]
    let flags = 0;
    // SAFETY: handlers of PostgreSQL's own, and its own way to connect.
    unsafe {
        handle(pg_sys::SIGHUP, SignalHandlerForConfigReload);
        handle(pg_sys::SIGTERM, die);
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, role.unwrap_or(pg_sys::InvalidOid), flags);
    }
    keep_own_settings();
}

/// Whether a role that may not log in can still be a worker's session user.
pub const ANY_ROLE_CONNECTS: bool = cfg!(any(feature = "pg17", feature = "pg18"));

unsafe fn handle(signal: u32, handler: unsafe extern "C-unwind" fn(std::ffi::c_int)) {
    // SAFETY: by the caller's promise the handler is fit for this process.
    unsafe {
        #[cfg(feature = "pg18")]
        pg_sys::pqsignal_be(signal as i32, Some(handler));
        #[cfg(not(feature = "pg18"))]
        pg_sys::pqsignal(signal as i32, Some(handler));
    }
}

/// Whether the launcher was told to end.
pub fn told_to_end() -> bool {
    // SAFETY: a flag of this process.
    unsafe { (&raw const pg_sys::ShutdownRequestPending).read_volatile() != 0 }
}

/// Ends a launcher that was told to. The exit code has the postmaster start another one, unless it shuts down.
pub fn exit() -> ! {
    // SAFETY: the regular end of a process.
    unsafe { pg_sys::proc_exit(1) }
}

/// Reads the configuration files again if SIGHUP asked for it.
pub fn reload_settings() {
    // SAFETY: a flag of this process, and PostgreSQL's own way to read its files.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Sleeps until a signal comes in or the time is over, then handles interrupts.
pub fn rest(duration: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    let milliseconds = std::ffi::c_long::try_from(duration.as_millis()).unwrap_or(std::ffi::c_long::MAX);
    // SAFETY: this process's own latch.
    unsafe {
        pg_sys::WaitLatch(pg_sys::MyLatch, events as i32, milliseconds, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    super::interrupts::check();
}

/// Runs `work` in a transaction of its own: committed when it returns, rolled back when an error is raised. Being
/// cancelled is such an error; being terminated ends the process.
pub fn caught_transaction<T>(activity: &str, work: impl FnOnce() -> T) -> Result<T, Caught> {
    // SAFETY: the life of a transaction as PostgresMain leads it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    report(activity);
    let outcome = pgrx::PgTryBuilder::new(AssertUnwindSafe(|| {
        let value = work();
        // SAFETY: ends the transaction begun above. Deferred triggers may raise an error here.
        unsafe {
            pg_sys::PopActiveSnapshot();
            pg_sys::CommitTransactionCommand();
        }
        Ok(value)
    }))
    .catch_others(|error| {
        // SAFETY: ends the transaction begun above after an error.
        unsafe {
            pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
            pg_sys::AbortCurrentTransaction();
            pg_sys::QueryCancelPending = 0;
        }
        Err(xact::caught_any(&error))
    })
    .execute();
    // SAFETY: between transactions. The worker is never shown as idle: whoever is idle has given its job up.
    unsafe { pg_sys::pgstat_report_stat(true) };
    outcome
}

fn report(activity: &str) {
    if let Ok(text) = std::ffi::CString::new(super::server_text::message(activity.to_owned())) {
        // SAFETY: the text is copied.
        unsafe { pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, text.as_ptr()) }
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
        super::interrupts::let_barriers_pass();
        std::thread::sleep(Duration::from_millis(20));
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
pub fn pause(duration: Duration) {
    let until = std::time::Instant::now() + duration;
    while std::time::Instant::now() < until {
        super::interrupts::check_in_wait();
        std::thread::sleep(duration.min(Duration::from_millis(20)));
    }
}
