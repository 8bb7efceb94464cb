//! Values as JSON, and which of them have no form in it.

use std::io::Write as _;

use super::time;
use crate::codec::outlier::mismatch;
use crate::codec::value::{ArrayValue, IntervalValue, Value};
use crate::codec::{Numeric, numeric::NumericSign};
use crate::schema::{PgType, Storage};
use crate::{Error, ErrorKind, Result};

/// A double holds every decimal of so many digits, so readers that know no other numbers show it as it is.
const DOUBLE_DIGITS: u8 = 15;

/// Appends the value's JSON to `line`. `false` for a value that has none: an outlier, of which nothing, or the beginning, was appended.
pub(super) fn put(line: &mut Vec<u8>, pg_type: &PgType, value: Option<&Value<'_>>) -> Result<bool> {
    let Some(value) = value else {
        line.extend_from_slice(b"null");
        return Ok(true);
    };
    let storage = pg_type.storage();
    match (&storage, value) {
        (_, Value::Undecodable(_) | Value::Image(_)) => return Ok(false),
        (Storage::Bool, Value::Bool(v)) => line.extend_from_slice(if *v { b"true" } else { b"false" }),
        (Storage::Int16, Value::Int2(v)) => number(line, v)?,
        (Storage::Int32, Value::Int4(v)) => number(line, v)?,
        (Storage::Int64, Value::Int8(v)) => number(line, v)?,
        (Storage::UInt32, Value::UInt4(v)) => number(line, v)?,
        (Storage::Float32, Value::Float4(v)) if v.is_finite() => json(line, v)?,
        (Storage::Float64, Value::Float8(v)) if v.is_finite() => json(line, v)?,
        (Storage::Float32, Value::Float4(_)) | (Storage::Float64, Value::Float8(_)) => return Ok(false),
        (Storage::Decimal(..) | Storage::NumericText, Value::Numeric(v)) => return numeric(line, &storage, v),
        (Storage::Text, Value::Text(v)) if is_json(pg_type) => return Ok(document(line, v)),
        (Storage::Text, Value::Text(v)) => json(line, v)?,
        (Storage::Bytes, Value::Bytes(v)) => bytes(line, v),
        (Storage::Date, Value::Date(v)) => return quoted(line, time::date(*v), ""),
        (Storage::Time, Value::Time(v)) => return quoted(line, time::time(*v), ""),
        (Storage::Timestamp, Value::Timestamp(v)) => return quoted(line, time::timestamp(*v), ""),
        (Storage::TimestampTz, Value::Timestamp(v)) => return quoted(line, time::timestamp(*v), "Z"),
        (Storage::Uuid, Value::Uuid(v)) => json(line, &uuid::Uuid::from_bytes(*v).hyphenated().to_string())?,
        (Storage::Interval, Value::Interval(IntervalValue { months, days, micros })) => {
            write(line, format_args!(r#"{{"months":{months},"days":{days},"micros":{micros}}}"#))?;
        }
        (Storage::Reg, Value::Reg(oid, name)) => {
            write(line, format_args!(r#"{{"oid":{oid},"name":"#))?;
            json(line, name)?;
            line.push(b'}');
        }
        (Storage::Struct(_), Value::Composite(parts)) => return composite(line, pg_type, parts),
        (Storage::List(_), Value::Array(array)) => return list(line, pg_type, array),
        _ => return Err(mismatch(&storage, value)),
    }
    Ok(true)
}

/// Whether the column's text is JSON itself and stands in the line as it is.
pub(super) fn is_json(pg_type: &PgType) -> bool {
    matches!(pg_type, PgType::Json | PgType::Jsonb)
}

/// Whether numerics of this storage are numbers in JSON, too; others are strings.
pub(super) fn is_number(storage: &Storage) -> bool {
    matches!(storage, Storage::Decimal(precision, _) if *precision <= DOUBLE_DIGITS)
}

fn numeric(line: &mut Vec<u8>, storage: &Storage, value: &Numeric<'_>) -> Result<bool> {
    let text = match value.sign {
        NumericSign::Positive | NumericSign::Negative => value.to_string(),
        NumericSign::NaN | NumericSign::PositiveInfinity | NumericSign::NegativeInfinity => return Ok(false),
    };
    if Numeric::parse_text(&text).as_ref() != Some(value) {
        return Ok(false);
    }
    match is_number(storage) {
        true => line.extend_from_slice(text.as_bytes()),
        false => write(line, format_args!("\"{text}\""))?,
    }
    Ok(true)
}

/// A document stands in the line as it is, unless that would end the line, or other readers would refuse it or lose a part of it.
fn document(line: &mut Vec<u8>, text: &str) -> bool {
    let whole =
        serde_json::from_str::<&serde_json::value::RawValue>(text).is_ok_and(|raw| raw.get().len() == text.len());
    let fits = whole && text != "null" && !text.contains(['\n', '\r']) && !has_surrogate(text);
    if fits {
        line.extend_from_slice(text.as_bytes());
    }
    fits
}

/// Half a character: PostgreSQL's `json` takes it, most parsers do not.
fn has_surrogate(text: &str) -> bool {
    text.as_bytes().windows(4).any(|part| match part {
        [b'\\', b'u', d, digit] => {
            d.eq_ignore_ascii_case(&b'd') && !digit.is_ascii_digit() | matches!(digit, b'8' | b'9')
        }
        _ => false,
    })
}

fn bytes(line: &mut Vec<u8>, bytes: &[u8]) {
    line.extend_from_slice(br#""\\x"#);
    for byte in bytes {
        line.extend([byte >> 4, byte & 15].map(|digit| b"0123456789abcdef"[usize::from(digit)]));
    }
    line.push(b'"');
}

fn quoted(line: &mut Vec<u8>, text: Option<String>, suffix: &str) -> Result<bool> {
    let Some(text) = text else { return Ok(false) };
    write(line, format_args!("\"{text}{suffix}\""))?;
    Ok(true)
}

fn composite(line: &mut Vec<u8>, pg_type: &PgType, parts: &[Option<Value<'_>>]) -> Result<bool> {
    let PgType::Composite(attributes) = pg_type else { return Err(confused()) };
    if attributes.len() != parts.len() {
        return Ok(false);
    }
    line.push(b'{');
    for (at, (attribute, part)) in attributes.iter().zip(parts).enumerate() {
        separate(line, at);
        json(line, &attribute.name)?;
        line.push(b':');
        if !put(line, &attribute.pg_type, part.as_ref())? {
            return Ok(false);
        }
    }
    line.push(b'}');
    Ok(true)
}

fn list(line: &mut Vec<u8>, pg_type: &PgType, array: &ArrayValue<'_>) -> Result<bool> {
    let PgType::Array(element) = pg_type else { return Err(confused()) };
    if !array.is_plain() {
        return Ok(false);
    }
    line.push(b'[');
    for (at, value) in array.elements.iter().enumerate() {
        separate(line, at);
        if !put(line, element, value.as_ref())? {
            return Ok(false);
        }
    }
    line.push(b']');
    Ok(true)
}

/// A comma before all but the first.
pub(super) fn separate(line: &mut Vec<u8>, at: usize) {
    if at > 0 {
        line.push(b',');
    }
}

fn number(line: &mut Vec<u8>, value: impl std::fmt::Display) -> Result<()> {
    write(line, format_args!("{value}"))
}

/// Appends a string with its escapes, or a float by the fewest digits that tell it.
pub(super) fn json(line: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) -> Result<()> {
    serde_json::to_writer(line, value).map_err(|error| confused().source(error))
}

fn write(line: &mut Vec<u8>, text: std::fmt::Arguments<'_>) -> Result<()> {
    line.write_fmt(text).map_err(|error| confused().source(error))
}

fn confused() -> Error {
    Error::new(ErrorKind::Internal, "could not write a value as JSON")
}
