//! The time a RANGE partition covers, for its label and its place in the bucket.

use archive_core::lifecycle::{Granularity, Label, Moment, Period, Status, list_values};
use archive_core::naming::HiveDate;
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::pg_sys;

use crate::catalog::time_key;
use crate::error::Result;
use crate::partition::discover::{self, Leaf};
use crate::pg::{spi, user};

/// Lower bound and length of a time partition, or of the label of a LIST partition.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    lower: Moment,
    granularity: Granularity,
}

impl Span {
    /// The span of a leaf; `None` unless its first key column tells the time and both bounds are finite, or its only value
    /// is a label with a period.
    pub fn of(leaf: &Leaf) -> Result<Option<Self>> {
        let (Some(parent), Some(bounds)) = (leaf.parent, &leaf.bounds) else { return Ok(None) };
        Self::of_bounds(parent, bounds)
    }

    /// The span of these bounds below `parent`.
    pub fn of_bounds(parent: pg_sys::Oid, bounds: &str) -> Result<Option<Self>> {
        if let [value] = list_values(bounds).as_slice() {
            let period = value.parse::<Label>().ok().and_then(|label| label.period);
            return Ok(period.map(|period| Self { lower: period.begin(), granularity: period.granularity() }));
        }
        let span = time_key::of(parent)?.and_then(|key| key.span(bounds));
        Ok(span.map(|(lower, granularity)| Self { lower, granularity }))
    }

    /// The span of the partition or of the nearest partition above it that has one.
    pub fn of_tree(leaf: &Leaf) -> Result<Option<Self>> {
        let mut at = leaf.clone();
        loop {
            if let Some(span) = Self::of(&at)? {
                return Ok(Some(span));
            }
            let above = at.parent.map(discover::leaf).transpose()?.flatten();
            let Some(above) = above else { return Ok(None) };
            at = above;
        }
    }

    /// The span that begins at `lower`.
    pub fn at(lower: Moment, granularity: Granularity) -> Self {
        Self { lower, granularity }
    }

    /// The same with labels of another granularity.
    pub fn labelled(self, granularity: Granularity) -> Self {
        Self { granularity, ..self }
    }

    /// The Hive directories of the partition's objects.
    pub fn hive_date(self) -> HiveDate {
        HiveDate::new(self.lower, self.granularity)
    }
}

/// The label of a partition in a status: `ARCHIVE_202401`, `WARM_2024Q1`, or without a span the bare status.
pub fn label(status: Status, span: Option<Span>) -> String {
    Label::new(status, span.map(|span| Period::new(span.lower, span.granularity))).to_string()
}

/// What clocks of a time zone show at `bound`, a timestamptz as text.
pub fn moment_in(bound: &str, zone: &str) -> Result<Option<Moment>> {
    wall_clock("$1::timestamptz AT TIME ZONE $2", &[bound.into(), zone.into()])
}

/// The same for a timestamptz.
pub fn moment_of(at: TimestampWithTimeZone, zone: &str) -> Result<Option<Moment>> {
    wall_clock("$1 AT TIME ZONE $2", &[at.into(), zone.into()])
}

/// The bound of a timestamptz at which clocks of a time zone show `at`, as text in UTC.
pub fn bound_in(at: Moment, zone: &str) -> Result<String> {
    let text = text(at);
    user::elevated(|| {
        spi::one("SELECT ($1::timestamp AT TIME ZONE $2)::text", &[text.as_str().into(), zone.into()], |row| {
            row.need(1)
        })
    })
}

/// `2024-01-01 00:00:00`.
pub fn text(at: Moment) -> String {
    format!("{:04}-{:02}-{:02} {:02}:{:02}:{:02}", at.year, at.month, at.day, at.hour, at.minute, at.second)
}

/// The time zone of the session.
pub fn session_zone() -> Result<String> {
    spi::one("SELECT pg_catalog.current_setting('TimeZone')", &[], |row| row.need(1))
}

fn wall_clock(timestamp: &str, args: &[DatumWithOid<'_>]) -> Result<Option<Moment>> {
    user::elevated(|| {
        let parts = spi::one(
            &format!(
                "SELECT ARRAY[extract(year FROM t), extract(month FROM t), extract(day FROM t), extract(hour FROM t),
                              extract(minute FROM t), trunc(extract(second FROM t))]::int[]
                 FROM (SELECT CASE WHEN isfinite({timestamp}) THEN {timestamp} END AS t) b"
            ),
            args,
            |row| row.need::<Vec<Option<i32>>>(1),
        )?;
        let mut parts = parts.into_iter().flatten();
        let (Some(year), Some(month), Some(day), Some(hour), Some(minute), Some(second)) =
            (parts.next(), parts.next(), parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Ok(None);
        };
        let small = |value: i32| u8::try_from(value).unwrap_or_default();
        Ok(Moment::new(year, small(month), small(day), small(hour), small(minute), small(second)))
    })
}
