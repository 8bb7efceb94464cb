//! The time a RANGE partition covers, for its label and its place in the bucket.

use archive_core::lifecycle::{Granularity, Label, Moment, Period, Status, list_values, range_bounds};
use archive_core::naming::HiveDate;
use pgrx::pg_sys;

use crate::error::Result;
use crate::partition::discover::Leaf;
use crate::pg::{spi, user};

/// Lower bound and length of a time partition, or of the label of a LIST partition.
#[derive(Debug, Clone, Copy)]
pub struct Span {
    lower: Moment,
    granularity: Granularity,
}

impl Span {
    /// The span of a leaf; `None` unless its first key column is a date or timestamp with both bounds finite, or its
    /// only value is a label with a period.
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
        if !is_time_key(parent)? {
            return Ok(None);
        }
        let (Some(lower), Some(upper)) = range_bounds(bounds) else { return Ok(None) };
        let (Some(lower), Some(upper)) = (moment(&lower)?, moment(&upper)?) else { return Ok(None) };
        let span = |granularity| Self { lower: lower.on_calendar(granularity), granularity };
        Ok(Granularity::between(lower, upper).map(span))
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

fn is_time_key(parent: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        Ok(spi::optional(
            "SELECT a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
             FROM pg_partitioned_table k JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
             WHERE k.partrelid = $1 AND k.partstrat = 'r'",
            &[parent.into()],
            |row| row.need::<bool>(1),
        )?
        .unwrap_or(false))
    })
}

/// The wall clock time in a bound; an offset is dropped, for bounds are printed in UTC.
fn moment(bound: &str) -> Result<Option<Moment>> {
    user::elevated(|| {
        let parts = spi::one(
            "SELECT ARRAY[extract(year FROM t), extract(month FROM t), extract(day FROM t), extract(hour FROM t),
                          extract(minute FROM t), trunc(extract(second FROM t))]::int[]
             FROM (SELECT CASE WHEN isfinite($1::timestamp) THEN $1::timestamp END AS t) b",
            &[bound.into()],
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
