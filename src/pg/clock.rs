//! PostgreSQL's clock.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

/// 2000-01-01 UTC, from which PostgreSQL counts, in microseconds since 1970.
const MICROS_2000: i64 = 946_684_800_000_000;

/// Now, in microseconds since 2000-01-01 UTC.
pub fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Now, in seconds since 1970, whatever `archive_ext.now` says: storages and read-backs have their times from it.
pub fn unix_now() -> i64 {
    unix_seconds(now())
}

/// Seconds since 1970 as a `timestamptz`; `None` out of its range.
pub fn from_unix_seconds(seconds: i64) -> Option<TimestampWithTimeZone> {
    let micros = seconds.checked_mul(1_000_000)?.checked_sub(MICROS_2000)?;
    TimestampWithTimeZone::try_from(micros).ok()
}

/// A `timestamptz` in seconds since 1970.
pub fn unix_seconds(at: pg_sys::TimestampTz) -> i64 {
    (at + MICROS_2000).div_euclid(1_000_000)
}
