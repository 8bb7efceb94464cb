//! Whether a maintenance window is open. The zone conversion is PostgreSQL's.

use archive_core::policy::{WEEK, Window};

use crate::engine::clock;
use crate::error::Result;
use crate::pg::{spi, user};

/// A window at a time.
#[derive(Debug, Clone)]
pub struct State {
    window: Option<Window>,
    minute: u32,
}

impl State {
    /// Whether jobs may run. Without a window they always may.
    pub fn is_open(&self) -> bool {
        self.window.as_ref().is_none_or(|window| window.is_open(self.minute))
    }

    /// Minutes until they may.
    pub fn opens_in(&self) -> u32 {
        self.window.as_ref().map_or(0, |window| window.opens_in(self.minute))
    }

    /// Minutes since it closed last, where it does.
    pub fn closed_since(&self) -> Option<u32> {
        self.window.as_ref().and_then(|window| window.closed_since(self.minute))
    }
}

/// The state of a window now; without a zone it is meant in UTC.
pub fn state(text: Option<&str>) -> Result<State> {
    let Some(window) = text.and_then(|text| text.parse::<Window>().ok()) else {
        return Ok(State { window: None, minute: 0 });
    };
    let now = clock::now()?;
    let zone = window.zone.clone().unwrap_or_else(|| "UTC".to_owned());
    let minute = user::elevated(|| {
        spi::one(
            "SELECT ((extract(isodow FROM t) - 1) * 1440 + extract(hour FROM t) * 60 + extract(minute FROM t))::int
             FROM (SELECT $1 AT TIME ZONE $2 AS t) z",
            &[now.into(), zone.as_str().into()],
            |row| row.need::<i32>(1),
        )
    })?;
    Ok(State { window: Some(window), minute: minute.unsigned_abs() % WEEK })
}

/// Whether a window that somebody wrote is open now; without a zone it is meant in the session's.
///
/// Errors: 22023 when it is none.
pub fn is_open(text: Option<&str>) -> Result<bool> {
    let Some(text) = text else { return Ok(true) };
    let window: Window = text.parse()?;
    let zone = match &window.zone {
        Some(zone) => zone.clone(),
        None => spi::one("SELECT pg_catalog.current_setting('TimeZone')", &[], |row| row.need(1))?,
    };
    Ok(state(Some(&window.in_zone(zone).to_string()))?.is_open())
}

/// Whether PostgreSQL knows a time zone of this name.
pub fn zone_is_known(zone: &str) -> bool {
    crate::pg::xact::subtransaction(|| {
        user::elevated(|| spi::one("SELECT (now() AT TIME ZONE $1)::text", &[zone.into()], |_| Ok(())))
    })
    .is_ok_and(|known| known.is_ok())
}
