//! One form for all values that PostgreSQL's default operators call equal: `1.0` and `1.00`, `-0` and `0`, blank padded
//! text with and without its blanks, `1 month` and `30 days`.

use super::numeric::{Numeric, NumericSign};
use super::predicate::Scalar;
use super::value::{IntervalValue, Value};
use crate::schema::PgType;

/// Microseconds of a day, days of a month: how PostgreSQL compares intervals.
const DAY: i128 = 86_400_000_000;
const MONTH: i128 = 30;

/// The bits that stand for every NaN.
const NAN: u64 = 0x7ff8_0000_0000_0000;

/// A value in the form that is the same for all that are equal to it.
#[derive(Debug)]
pub(super) enum Canonical<'a> {
    /// Whole numbers, dates, times and truth values.
    Int(i64),
    /// The bits of a double.
    Float(u64),
    /// Microseconds.
    Interval(i128),
    Numeric(&'a Numeric<'a>),
    Bytes(&'a [u8]),
}

/// Whether equality of values of this type can be told from their canonical forms. Of text only where the collation is
/// deterministic.
pub fn has_canonical_form(pg_type: &PgType) -> bool {
    match pg_type {
        PgType::Bool
        | PgType::Int2
        | PgType::Int4
        | PgType::Int8
        | PgType::Money
        | PgType::Oid
        | PgType::Float4
        | PgType::Float8
        | PgType::Numeric { .. }
        | PgType::UnboundedNumeric
        | PgType::Text
        | PgType::Varchar
        | PgType::Bpchar
        | PgType::Enum
        | PgType::Bytea
        | PgType::Date
        | PgType::Time
        | PgType::Timestamp
        | PgType::TimestampTz
        | PgType::Uuid
        | PgType::Interval => true,
        PgType::Json
        | PgType::Jsonb
        | PgType::Reg
        | PgType::Xml
        | PgType::Other
        | PgType::Opaque
        | PgType::Composite(_)
        | PgType::Array(_) => false,
    }
}

impl<'a> Canonical<'a> {
    /// The form of a value of a column of this type; `None` when there is none.
    pub(super) fn of_value(pg_type: &PgType, value: &'a Value<'_>) -> Option<Self> {
        if !has_canonical_form(pg_type) {
            return None;
        }
        Some(match value {
            Value::Bool(v) => Self::Int((*v).into()),
            Value::Int2(v) => Self::Int((*v).into()),
            Value::Int4(v) | Value::Date(v) => Self::Int((*v).into()),
            Value::Int8(v) | Value::Time(v) | Value::Timestamp(v) => Self::Int(*v),
            Value::UInt4(v) => Self::Int((*v).into()),
            Value::Float4(v) => float((*v).into()),
            Value::Float8(v) => float(*v),
            Value::Numeric(v) => Self::Numeric(v),
            Value::Text(v) => text(pg_type, v),
            Value::Bytes(v) => Self::Bytes(v),
            Value::Uuid(v) => Self::Bytes(v),
            Value::Interval(v) => Self::Interval(span(v)),
            Value::Reg(..) | Value::Undecodable(_) | Value::Image(_) | Value::Composite(_) | Value::Array(_) => {
                return None;
            }
        })
    }

    /// The form of a constant that is compared with a column of this type; `None` when the two are not comparable here.
    pub(super) fn of_scalar(pg_type: &PgType, scalar: &'a Scalar) -> Option<Self> {
        Some(match (pg_type, scalar) {
            (PgType::Bool, Scalar::Bool(v)) => Self::Int((*v).into()),
            (PgType::Int2 | PgType::Int4 | PgType::Int8 | PgType::Money | PgType::Oid, Scalar::Int(v)) => Self::Int(*v),
            (PgType::Float4 | PgType::Float8, Scalar::Float(v)) => float(*v),
            (PgType::Numeric { .. } | PgType::UnboundedNumeric, Scalar::Decimal(v)) => Self::Numeric(v),
            (PgType::Text | PgType::Varchar | PgType::Bpchar | PgType::Enum, Scalar::Text(v)) => text(pg_type, v),
            (PgType::Bytea, Scalar::Bytes(v)) => Self::Bytes(v),
            (PgType::Date, Scalar::Date(v)) => Self::Int((*v).into()),
            (PgType::Time, Scalar::Time(v)) => Self::Int(*v),
            (PgType::Timestamp | PgType::TimestampTz, Scalar::Timestamp(v)) => Self::Int(*v),
            (PgType::Uuid, Scalar::Uuid(v)) => Self::Bytes(v),
            (PgType::Interval, Scalar::Interval(v)) => Self::Interval(span(v)),
            _ => return None,
        })
    }

    /// Appends its bytes: the same in every version, and on every machine.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        match self {
            Self::Int(v) => out.extend_from_slice(&v.to_le_bytes()),
            Self::Float(bits) => out.extend_from_slice(&bits.to_le_bytes()),
            Self::Interval(micros) => out.extend_from_slice(&micros.to_le_bytes()),
            Self::Numeric(v) => put_numeric(out, v),
            Self::Bytes(bytes) => out.extend_from_slice(bytes),
        }
    }
}

fn float(value: f64) -> Canonical<'static> {
    // All NaNs are equal, and so are both zeros.
    Canonical::Float(match value {
        value if value.is_nan() => NAN,
        0.0 => 0,
        value => value.to_bits(),
    })
}

fn text<'a>(pg_type: &PgType, text: &'a str) -> Canonical<'a> {
    match pg_type {
        PgType::Bpchar => Canonical::Bytes(text.trim_end_matches(' ').as_bytes()),
        _ => Canonical::Bytes(text.as_bytes()),
    }
}

fn span(interval: &IntervalValue) -> i128 {
    let days = i128::from(interval.months) * MONTH + i128::from(interval.days);
    days * DAY + i128::from(interval.micros)
}

/// Sign, weight and the digits between the first and the last that is not zero.
fn put_numeric(out: &mut Vec<u8>, value: &Numeric<'_>) {
    if !value.is_finite() {
        out.push(match value.sign {
            NumericSign::NaN => b'n',
            NumericSign::NegativeInfinity => b'<',
            _ => b'>',
        });
        return;
    }
    let digits: Vec<i16> = value.digits().collect();
    let first = digits.iter().position(|digit| *digit != 0);
    let (Some(first), Some(last)) = (first, digits.iter().rposition(|digit| *digit != 0)) else {
        return out.push(b'0');
    };
    out.push(if value.sign == NumericSign::Negative { b'-' } else { b'+' });
    out.extend_from_slice(&(i64::from(value.weight) - first as i64).to_le_bytes());
    digits.get(first..=last).unwrap_or_default().iter().for_each(|digit| out.extend_from_slice(&digit.to_le_bytes()));
}
