//! The time by which tables age: the clock's, or `archive_ext.now` in tests and rehearsals.

use pgrx::datum::TimestampWithTimeZone;

use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{spi, user, xact};

/// Now. A value of `archive_ext.now` that is no time is refused (22007).
pub fn now() -> Result<TimestampWithTimeZone> {
    let Some(text) = guc::now() else {
        return spi::one("SELECT pg_catalog.clock_timestamp()", &[], |row| row.need(1));
    };
    let parsed = xact::subtransaction(|| {
        user::as_user(user::current(), || {
            spi::one("SELECT $1::timestamptz", &[text.as_str().into()], |row| row.need::<TimestampWithTimeZone>(1))
        })
    });
    let invalid = |detail: String| {
        Error::new(
            SqlState::ERRCODE_INVALID_DATETIME_FORMAT,
            format!("setting \"archive_ext.now\" is no time: \"{text}\""),
        )
        .detail(detail)
        .hint("SET archive_ext.now = '2025-01-01 00:00+00', or RESET archive_ext.now.")
    };
    parsed.map_err(|caught| invalid(caught.message))?
}
