//! The backend's I/O runtime: helper threads with every signal blocked, and uploads aborted when the backend exits.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use archive_core::codec::Background;
use archive_core::store::IoRuntime;
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use pgrx::pg_sys;

use super::interrupts;
use crate::error::Result;

static RUNTIME: OnceLock<Arc<IoRuntime>> = OnceLock::new();

/// How long a dying backend waits for the store to take back its unfinished uploads.
const EXIT_GRACE: Duration = Duration::from_millis(800);

/// The runtime of this backend, started on first use.
pub fn runtime() -> Result<Arc<IoRuntime>> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(Arc::clone(runtime));
    }
    let runtime = with_signals_blocked(|| IoRuntime::new(block_signals))?;
    let runtime = Arc::clone(RUNTIME.get_or_init(|| Arc::new(runtime)));
    // SAFETY: the callback is a static function that touches no PostgreSQL state.
    unsafe { pg_sys::before_shmem_exit(Some(abort_uploads), pg_sys::Datum::null()) };
    Ok(runtime)
}

/// Another thread of this backend for work that touches nothing of PostgreSQL's.
pub fn background() -> Result<Background> {
    let runtime = runtime()?;
    Ok(Background::new(move |task| runtime.spawn_work(task), interrupts::check_in_wait))
}

/// Threads inherit the mask of the thread that starts them, so it is set around the start, and again in each thread.
fn with_signals_blocked<T>(start: impl FnOnce() -> T) -> T {
    let mut previous = SigSet::empty();
    let masked = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut previous)).is_ok();
    let result = start();
    if masked {
        let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&previous), None);
    }
    result
}

fn block_signals() {
    let _ = SigSet::all().thread_block();
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn abort_uploads(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    if let Some(runtime) = RUNTIME.get() {
        runtime.abort_uploads(EXIT_GRACE);
    }
}
