//! Which values their native column can hold, and as what. A value that it cannot hold is an *outlier* and goes into
//! the sidecar as text.

use super::numeric::{Numeric, NumericSign, pow10};
use super::value::{ArrayValue, IntervalValue, Value};
use crate::schema::Storage;
use crate::{Error, ErrorKind, Result};

/// Days from 1970-01-01 to 2000-01-01.
pub(super) const EPOCH_DAYS: i32 = 10_957;
/// Microseconds from 1970-01-01 to 2000-01-01.
pub(super) const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// Microseconds of a day; PostgreSQL's `24:00:00`, which Parquet's time does not have.
const DAY_MICROS: i64 = 86_400_000_000;

/// A value in the form its native column stores.
#[derive(Debug, Clone)]
pub(super) enum Cell<'v, 'a> {
    Bool(bool),
    Int16(i16),
    Int32(i32),
    Int64(i64),
    Float32(f32),
    Float64(f64),
    Int128(i128),
    NumericText(&'v Numeric<'a>),
    Text(&'a str),
    Bytes(&'a [u8]),
    Uuid([u8; 16]),
    UInt32(u32),
    Interval(IntervalValue),
    Reg(u32, &'a str),
    Struct(&'v [Option<Value<'a>>]),
    List(&'v ArrayValue<'a>),
}

/// The cell for a value, `None` for an outlier, an error when the value is of another type than the column.
pub(super) fn cell<'v, 'a>(storage: &Storage, value: &'v Value<'a>) -> Result<Option<Cell<'v, 'a>>> {
    Ok(match (storage, value) {
        (Storage::Bool, Value::Bool(v)) => Some(Cell::Bool(*v)),
        (Storage::Int16, Value::Int2(v)) => Some(Cell::Int16(*v)),
        (Storage::Int32, Value::Int4(v)) => Some(Cell::Int32(*v)),
        (Storage::Int64, Value::Int8(v)) => Some(Cell::Int64(*v)),
        (Storage::Float32, Value::Float4(v)) => Some(Cell::Float32(*v)),
        (Storage::Float64, Value::Float8(v)) => Some(Cell::Float64(*v)),
        (Storage::Decimal(precision, scale), Value::Numeric(v)) => decimal(v, *precision, *scale).map(Cell::Int128),
        (Storage::NumericText, Value::Numeric(v)) => Some(Cell::NumericText(v)),
        (Storage::Text, Value::Text(v)) => Some(Cell::Text(v)),
        (Storage::Bytes, Value::Bytes(v)) => Some(Cell::Bytes(v)),
        (Storage::Date, Value::Date(v)) => date(*v).map(Cell::Int32),
        (Storage::Time, Value::Time(v)) => (0..DAY_MICROS).contains(v).then_some(Cell::Int64(*v)),
        (Storage::Timestamp | Storage::TimestampTz, Value::Timestamp(v)) => timestamp(*v).map(Cell::Int64),
        (Storage::Uuid, Value::Uuid(v)) => Some(Cell::Uuid(*v)),
        (Storage::UInt32, Value::UInt4(v)) => Some(Cell::UInt32(*v)),
        (Storage::Interval, Value::Interval(v)) => Some(Cell::Interval(*v)),
        (Storage::Reg, Value::Reg(oid, name)) => Some(Cell::Reg(*oid, name)),
        (Storage::Text, Value::Undecodable(_) | Value::Image(_)) => None,
        (Storage::Struct(members), Value::Composite(v)) => plain_struct(members, v)?.then_some(Cell::Struct(v)),
        (Storage::List(element), Value::Array(v)) => plain_list(element, v)?.then_some(Cell::List(v)),
        _ => return Err(mismatch(storage, value)),
    })
}

/// The unscaled decimal, unless its text would differ from that of the value.
#[inline]
pub(super) fn decimal(numeric: &Numeric<'_>, precision: u8, scale: i8) -> Option<i128> {
    let same_scale = i32::from(numeric.dscale) == i32::from(scale);
    let unscaled = numeric.to_i128(i16::from(scale)).filter(|_| same_scale)?;
    let negative_zero = unscaled == 0 && numeric.sign != NumericSign::Positive;
    let limit = pow10(precision.into())?.unsigned_abs();
    (!negative_zero && unscaled.unsigned_abs() < limit).then_some(unscaled)
}

/// The native date; `None` for an outlier.
#[inline]
pub(super) fn date(days: i32) -> Option<i32> {
    let finite = days != i32::MIN && days != i32::MAX;
    days.checked_add(EPOCH_DAYS).filter(|_| finite)
}

/// The native timestamp; `None` for an outlier.
#[inline]
pub(super) fn timestamp(micros: i64) -> Option<i64> {
    let finite = micros != i64::MIN && micros != i64::MAX;
    // Other engines read the largest number as infinity.
    micros.checked_add(EPOCH_MICROS).filter(|native| finite && *native != i64::MAX)
}

fn plain_list(element: &Storage, array: &ArrayValue<'_>) -> Result<bool> {
    for value in array.elements.iter().flatten() {
        if cell(element, value)?.is_none() {
            return Ok(false);
        }
    }
    Ok(array.is_plain())
}

fn plain_struct(members: &[Storage], parts: &[Option<Value<'_>>]) -> Result<bool> {
    for (member, part) in members.iter().zip(parts) {
        if let Some(value) = part
            && cell(member, value)?.is_none()
        {
            return Ok(false);
        }
    }
    Ok(members.len() == parts.len())
}

/// The error about a value that the column cannot have.
pub(super) fn mismatch(storage: &Storage, value: &Value<'_>) -> Error {
    // The value itself is user data and stays out of the message.
    let kind = match value {
        Value::Bool(_) => "boolean",
        Value::Int2(_) | Value::Int4(_) | Value::Int8(_) => "integer",
        Value::Float4(_) | Value::Float8(_) => "float",
        Value::Numeric(_) => "numeric",
        Value::Text(_) => "text",
        Value::Bytes(_) => "bytea",
        Value::Date(_) => "date",
        Value::Time(_) => "time",
        Value::Timestamp(_) => "timestamp",
        Value::Uuid(_) => "uuid",
        Value::UInt4(_) | Value::Reg(..) => "oid",
        Value::Interval(_) => "interval",
        Value::Undecodable(_) => "text outside UTF-8",
        Value::Image(_) => "opaque",
        Value::Composite(_) => "composite",
        Value::Array(_) => "array",
    };
    Error::new(ErrorKind::Internal, format!("a value of type {kind} was given for a column stored as {storage:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_native(storage: Storage, value: Value<'_>) -> bool {
        cell(&storage, &value).unwrap().is_some()
    }

    #[test]
    fn infinities_and_far_futures_are_outliers() {
        assert!(is_native(Storage::Date, Value::Date(0)));
        assert!(!is_native(Storage::Date, Value::Date(i32::MIN)));
        assert!(!is_native(Storage::Date, Value::Date(i32::MAX)));
        assert!(!is_native(Storage::Timestamp, Value::Timestamp(i64::MIN)));
        // 294276-12-31 23:59:59.999999
        assert!(!is_native(Storage::TimestampTz, Value::Timestamp(9_223_371_331_199_999_999)));
        assert!(is_native(Storage::TimestampTz, Value::Timestamp(i64::MAX - 1 - EPOCH_MICROS)));
        assert!(!is_native(Storage::TimestampTz, Value::Timestamp(i64::MAX - EPOCH_MICROS)));
        assert!(!is_native(Storage::Time, Value::Time(DAY_MICROS)));
    }

    #[test]
    fn decimals_keep_scale_and_sign() {
        let at = |text: &str| is_native(Storage::Decimal(5, 2), Value::Numeric(Numeric::parse_text(text).unwrap()));
        assert!(at("0.00") && at("-1.50") && at("999.99"));
        assert!(!at("1.5") && !at("1.500") && !at("1000.00") && !at("NaN") && !at("-Infinity"));
        let mut zero = Numeric::from_i128(0, 2);
        zero.sign = NumericSign::Negative;
        assert!(!is_native(Storage::Decimal(5, 2), Value::Numeric(zero)));
    }

    #[test]
    fn lists_are_plain_one_dimensional_arrays() {
        let list = || Storage::List(Box::new(Storage::Date));
        let array = |dims: &[(i32, i32)], elements: &[i32]| {
            let elements = elements.iter().map(|e| Some(Value::Date(*e))).collect();
            Value::Array(ArrayValue { dims: dims.to_vec(), elements })
        };
        assert!(is_native(list(), array(&[], &[])));
        assert!(is_native(list(), array(&[(2, 1)], &[1, 2])));
        assert!(!is_native(list(), array(&[(2, 0)], &[1, 2])));
        assert!(!is_native(list(), array(&[(1, 1), (2, 1)], &[1, 2])));
        assert!(!is_native(list(), array(&[(1, 1)], &[i32::MAX])));
    }

    #[test]
    fn a_value_of_another_type_is_an_error() {
        let error = cell(&Storage::Int32, &Value::Text("secret")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal);
        assert!(!error.to_string().contains("secret"));
    }
}
