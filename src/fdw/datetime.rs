//! Comparisons between date, timestamp and timestamptz as comparisons within the column's type.
//!
//! A constant is converted, never the column: what comes out holds for every row for which the operator holds, and
//! perhaps for a few more, which PostgreSQL's recheck removes.

use archive_core::codec::CompareOp;
use pgrx::pg_sys;

use crate::pg::constant::{self, Constant};

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// `column op constant` as tests with constants of the column's type, all of which must hold. `None`: nothing is known.
///
/// Types that are not all about time stay as they are.
pub(super) fn within_type(
    column: pg_sys::Oid,
    op: CompareOp,
    constant: Constant,
) -> Option<Vec<(CompareOp, Constant)>> {
    let value = constant.integer();
    let exactly = |value| Some(vec![(op, Constant::from_integer(column, value))]);
    match (column, constant.type_oid()) {
        (pg_sys::TIMESTAMPTZOID, pg_sys::DATEOID) => {
            exactly(constant::date_to_timestamptz(i32::try_from(value).ok()?)?)
        }
        (pg_sys::TIMESTAMPTZOID, pg_sys::TIMESTAMPOID) => exactly(constant::timestamp_to_timestamptz(value)?),
        (pg_sys::TIMESTAMPOID, pg_sys::DATEOID) => exactly(date_to_timestamp(value)?),
        (pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID) => Some(typed(column, around(op, value))),
        (pg_sys::DATEOID, pg_sys::TIMESTAMPOID) => Some(typed(column, to_days(op, value))),
        (pg_sys::DATEOID, pg_sys::TIMESTAMPTZOID) => {
            let days = around(op, value).into_iter().flat_map(|(op, value)| to_days(op, value)).collect();
            Some(typed(column, days))
        }
        _ => Some(vec![(op, constant)]),
    }
}

fn typed(column: pg_sys::Oid, tests: Vec<(CompareOp, i64)>) -> Vec<(CompareOp, Constant)> {
    tests.into_iter().map(|(op, value)| (op, Constant::from_integer(column, value))).collect()
}

fn is_infinite(micros: i64) -> bool {
    micros == i64::MIN || micros == i64::MAX
}

fn date_to_timestamp(days: i64) -> Option<i64> {
    match i32::try_from(days).ok()? {
        i32::MIN => Some(i64::MIN),
        i32::MAX => Some(i64::MAX),
        days => i64::from(days).checked_mul(MICROS_PER_DAY),
    }
}

/// An instant as local time, which is less than a day away. Local time is not even monotonic in the instant, so the
/// exact conversion of one bound would not do.
fn around(op: CompareOp, micros: i64) -> Vec<(CompareOp, i64)> {
    if is_infinite(micros) {
        return vec![(op, micros)];
    }
    let (low, high) = (micros.saturating_sub(MICROS_PER_DAY), micros.saturating_add(MICROS_PER_DAY));
    match op {
        CompareOp::Lt | CompareOp::Le => vec![(CompareOp::Le, high)],
        CompareOp::Ge | CompareOp::Gt => vec![(CompareOp::Ge, low)],
        CompareOp::Eq => vec![(CompareOp::Ge, low), (CompareOp::Le, high)],
    }
}

/// A date is midnight of its day.
fn to_days(op: CompareOp, micros: i64) -> Vec<(CompareOp, i64)> {
    if is_infinite(micros) {
        let infinity = if micros < 0 { i32::MIN } else { i32::MAX };
        return vec![(op, infinity.into())];
    }
    let floor = micros.div_euclid(MICROS_PER_DAY);
    let ceiling = floor + i64::from(micros.rem_euclid(MICROS_PER_DAY) != 0);
    match op {
        CompareOp::Lt | CompareOp::Ge => vec![(op, ceiling)],
        CompareOp::Le | CompareOp::Gt => vec![(op, floor)],
        CompareOp::Eq => vec![(CompareOp::Ge, ceiling), (CompareOp::Le, floor)],
    }
}
