//! PostgreSQL's clock.

use pgrx::pg_sys;

/// Now, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}
