//! A PostgreSQL value, borrowed from where it lives.

use super::numeric::Numeric;

/// One non-null value, in PostgreSQL's units and epochs.
#[derive(Debug, Clone, PartialEq)]
pub enum Value<'a> {
    /// `boolean`
    Bool(bool),
    /// `smallint`
    Int2(i16),
    /// `integer`
    Int4(i32),
    /// `bigint`
    Int8(i64),
    /// `real`
    Float4(f32),
    /// `double precision`
    Float8(f64),
    /// `numeric`
    Numeric(Numeric<'a>),
    /// text, varchar, bpchar, json, the text of a jsonb, the label of an enum
    Text(&'a str),
    /// `bytea`
    Bytes(&'a [u8]),
    /// Days since 2000-01-01; `i32::MIN` and `i32::MAX` are the infinities.
    Date(i32),
    /// Microseconds since midnight.
    Time(i64),
    /// Microseconds since 2000-01-01, with or without time zone; `i64::MIN` and `i64::MAX` are the infinities.
    Timestamp(i64),
    /// `uuid`
    Uuid([u8; 16]),
    /// An array.
    Array(ArrayValue<'a>),
}

/// An array value.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct ArrayValue<'a> {
    /// (length, lower bound) per dimension; the empty array has none.
    pub dims: Vec<(i32, i32)>,
    /// The elements in storage order.
    pub elements: Vec<Option<Value<'a>>>,
}

impl ArrayValue<'_> {
    /// Whether this is an array that a Parquet list holds: empty, or one dimension that starts at 1.
    pub fn is_plain(&self) -> bool {
        match self.dims.as_slice() {
            [] => self.elements.is_empty(),
            [(length, 1)] => usize::try_from(*length).is_ok_and(|n| n > 0 && n == self.elements.len()),
            _ => false,
        }
    }
}

impl Value<'_> {
    /// Bytes of memory the value needs when it waits in a batch.
    pub(crate) fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) => bytes.len(),
            Value::Array(array) => array.elements.iter().map(|e| e.as_ref().map_or(1, Value::size)).sum::<usize>() + 8,
            Value::Numeric(numeric) => numeric.text_size(),
            _ => 16,
        }
    }
}
