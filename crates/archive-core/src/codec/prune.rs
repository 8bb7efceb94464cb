//! Decides from statistics whether rows may match a test. Every doubt is a yes (P9).

use std::cmp::Ordering;

use super::numeric::{Numeric, NumericSign};
use super::outlier::{EPOCH_DAYS, EPOCH_MICROS};
use super::predicate::{CompareOp, Scalar, Test, TextOrder};
use crate::schema::{PgType, Storage};

/// A bound of the values of a row group or a page, in the order of the column's type.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Bound {
    Int(i128),
    Float(f64),
    Bytes(Vec<u8>),
}

/// What is known about the values of some rows.
#[derive(Debug, Clone, Default)]
pub(super) struct Stats {
    /// No value is below; values may not reach it.
    pub(super) min: Option<Bound>,
    /// No value is above, NaN apart.
    pub(super) max: Option<Bound>,
    pub(super) nulls: Option<u64>,
    pub(super) rows: u64,
    /// Some native NULLs stand for values in the sidecar.
    pub(super) outliers: bool,
}

/// A constant in the units of the statistics.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Point {
    /// The constant is `floor`, or between `floor` and `floor + 1` when not exact.
    Int {
        floor: i128,
        exact: bool,
    },
    /// Not NaN.
    Float(f64),
    Bytes(Vec<u8>),
}

/// A test made ready for one column.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Prepared {
    /// An order comparison.
    Order(CompareOp, Point),
    /// Equal to one of these.
    OneOf(Vec<Point>),
    /// Nothing is known but that NULL does not pass.
    Strict,
    IsNull,
    IsNotNull,
    /// Every row may pass.
    Anything,
}

/// Makes a test ready for a column of this type.
pub(super) fn prepare(test: &Test, pg_type: &PgType) -> Prepared {
    if !pg_type.is_scalar() {
        // Statistics of lists and structs are those of their leaves, not of the rows.
        return Prepared::Anything;
    }
    match test {
        Test::IsNull => Prepared::IsNull,
        Test::IsNotNull => Prepared::IsNotNull,
        Test::Compare { op: CompareOp::Eq, value, .. } => {
            point(pg_type, value).map_or(Prepared::Strict, |point| Prepared::OneOf(vec![point]))
        }
        Test::Compare { op, value, text_order } if is_ordered(pg_type, *text_order) => {
            point(pg_type, value).map_or(Prepared::Strict, |point| Prepared::Order(*op, point))
        }
        Test::Compare { .. } => Prepared::Strict,
        Test::In { values, .. } => {
            let points: Option<Vec<Point>> = values.iter().map(|value| point(pg_type, value)).collect();
            points.map_or(Prepared::Strict, Prepared::OneOf)
        }
    }
}

/// Whether Parquet's statistics serve range comparisons of a column of this type.
pub fn is_pruned_by_order(pg_type: &PgType) -> bool {
    is_ordered(pg_type, TextOrder::Bytewise)
}

/// Whether Parquet's statistics serve equality with a constant of this type.
pub fn is_pruned_by_equality(pg_type: &PgType) -> bool {
    is_pruned_by_order(pg_type) || *pg_type == PgType::Enum
}

/// Whether PostgreSQL's order is the order of the statistics.
fn is_ordered(pg_type: &PgType, text_order: TextOrder) -> bool {
    match pg_type {
        PgType::Text | PgType::Varchar => text_order == TextOrder::Bytewise,
        PgType::Bool
        | PgType::Int2
        | PgType::Int4
        | PgType::Int8
        | PgType::Money
        | PgType::Float4
        | PgType::Float8
        | PgType::Bytea
        | PgType::Date
        | PgType::Time
        | PgType::Timestamp
        | PgType::TimestampTz
        | PgType::Uuid => true,
        PgType::Numeric { .. } => matches!(pg_type.storage(), Storage::Decimal(..)),
        _ => false,
    }
}

/// The constant in the column's units, `None` when the two are not comparable here.
fn point(pg_type: &PgType, scalar: &Scalar) -> Option<Point> {
    let exactly = |floor: i128| Some(Point::Int { floor, exact: true });
    match (pg_type, scalar) {
        (PgType::Bool, Scalar::Bool(v)) => exactly(i128::from(*v)),
        (PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Money, Scalar::Int(v)) => exactly(i128::from(*v)),
        (PgType::Float4 | PgType::Float8, Scalar::Float(v)) if !v.is_nan() => Some(Point::Float(*v)),
        (PgType::Numeric { .. }, Scalar::Decimal(v)) => decimal_point(pg_type, v),
        (PgType::Text | PgType::Varchar | PgType::Enum, Scalar::Text(v)) => Some(Point::Bytes(v.as_bytes().to_vec())),
        (PgType::Bytea, Scalar::Bytes(v)) => Some(Point::Bytes(v.clone())),
        (PgType::Uuid, Scalar::Uuid(v)) => Some(Point::Bytes(v.to_vec())),
        (PgType::Date, Scalar::Date(v)) => exactly(date_point(*v)),
        (PgType::Time, Scalar::Time(v)) => exactly(i128::from(*v)),
        (PgType::Timestamp | PgType::TimestampTz, Scalar::Timestamp(v)) => exactly(timestamp_point(*v)),
        _ => None,
    }
}

fn decimal_point(pg_type: &PgType, value: &Numeric<'_>) -> Option<Point> {
    let Storage::Decimal(_, scale) = pg_type.storage() else { return None };
    let (floor, exact) = value.floor_at(i16::from(scale)).unwrap_or(match value.sign {
        NumericSign::Negative | NumericSign::NegativeInfinity => (i128::MIN, true),
        // NaN sorts above infinity; neither is stored natively, so both are simply above everything.
        _ => (i128::MAX, true),
    });
    Some(Point::Int { floor, exact })
}

fn date_point(days: i32) -> i128 {
    match days {
        i32::MIN => i128::MIN,
        i32::MAX => i128::MAX,
        days => i128::from(days) + i128::from(EPOCH_DAYS),
    }
}

fn timestamp_point(micros: i64) -> i128 {
    match micros {
        i64::MIN => i128::MIN,
        i64::MAX => i128::MAX,
        micros => i128::from(micros) + i128::from(EPOCH_MICROS),
    }
}

/// Whether a row may pass the test.
pub(super) fn may_match(test: &Prepared, stats: &Stats) -> bool {
    match test {
        Prepared::Anything => true,
        // The native cell of an outlier is NULL too, so a value count below the row count proves nothing.
        Prepared::IsNull => stats.nulls != Some(0),
        _ if stats.outliers => true,
        _ if stats.nulls.is_some_and(|nulls| nulls >= stats.rows) => false,
        Prepared::IsNotNull | Prepared::Strict => true,
        Prepared::Order(op, point) => order_may_match(*op, point, stats),
        Prepared::OneOf(points) => points.iter().any(|point| equal_may_match(point, stats)),
    }
}

fn order_may_match(op: CompareOp, point: &Point, stats: &Stats) -> bool {
    match op {
        CompareOp::Lt => lowest(point, stats).is_none_or(|order| order.below()),
        CompareOp::Le => lowest(point, stats).is_none_or(|order| order.below_or_equal()),
        CompareOp::Eq => equal_may_match(point, stats),
        // A NaN is above every number, and statistics leave it out.
        CompareOp::Ge | CompareOp::Gt if matches!(point, Point::Float(_)) => true,
        CompareOp::Ge => highest(point, stats).is_none_or(|order| !order.below()),
        CompareOp::Gt => highest(point, stats).is_none_or(|order| !order.below_or_equal()),
    }
}

fn equal_may_match(point: &Point, stats: &Stats) -> bool {
    if matches!(point, Point::Int { exact: false, .. }) {
        return false;
    }
    lowest(point, stats).is_none_or(|order| order.below_or_equal())
        && highest(point, stats).is_none_or(|order| !order.below())
}

/// How a bound lies to a constant.
#[derive(Debug, Clone, Copy)]
struct Position {
    order: Ordering,
    /// The constant is a little above the integer that the bound was compared with.
    above: bool,
}

impl Position {
    /// bound < constant
    fn below(self) -> bool {
        self.order.is_lt() || (self.above && self.order.is_eq())
    }

    /// bound <= constant
    fn below_or_equal(self) -> bool {
        self.order.is_le()
    }
}

fn lowest(point: &Point, stats: &Stats) -> Option<Position> {
    position(stats.min.as_ref()?, point)
}

fn highest(point: &Point, stats: &Stats) -> Option<Position> {
    position(stats.max.as_ref()?, point)
}

fn position(bound: &Bound, point: &Point) -> Option<Position> {
    let exactly = |order| Some(Position { order, above: false });
    match (bound, point) {
        (Bound::Int(bound), Point::Int { floor, exact }) => Some(Position { order: bound.cmp(floor), above: !exact }),
        // Numeric comparison: -0 equals 0; a NaN bound compares with nothing.
        (Bound::Float(bound), Point::Float(value)) => exactly(bound.partial_cmp(value)?),
        (Bound::Bytes(bound), Point::Bytes(value)) => exactly(bound.as_slice().cmp(value.as_slice())),
        _ => None,
    }
}
