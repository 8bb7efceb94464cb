//! A PostgreSQL value, borrowed from where it lives.

use super::numeric::Numeric;

/// One non-null value, in PostgreSQL's units and epochs.
#[derive(Debug, Clone)]
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
    /// `oid` and the like
    UInt4(u32),
    /// `interval`
    Interval(IntervalValue),
    /// A `reg*` value: its OID, which is the value, and the name that the output function prints.
    Reg(u32, &'a str),
    /// The text of a value in a database encoding that UTF-8 cannot represent, in that encoding.
    Undecodable(&'a [u8]),
    /// A value whose text does not say everything that it is: its bytes in memory.
    Image(&'a [u8]),
    /// A composite value: its attributes in order.
    Composite(Vec<Option<Value<'a>>>),
    /// An array.
    Array(ArrayValue<'a>),
}

/// An interval; no part is ever carried over into another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct IntervalValue {
    /// Months.
    pub months: i32,
    /// Days.
    pub days: i32,
    /// Microseconds.
    pub micros: i64,
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

/// The same value with the same representation: floats are compared by their bits.
impl PartialEq for Value<'_> {
    fn eq(&self, other: &Self) -> bool {
        use Value as V;
        match (self, other) {
            (V::Bool(a), V::Bool(b)) => a == b,
            (V::Int2(a), V::Int2(b)) => a == b,
            (V::Int4(a), V::Int4(b)) | (V::Date(a), V::Date(b)) => a == b,
            (V::Int8(a), V::Int8(b)) | (V::Time(a), V::Time(b)) | (V::Timestamp(a), V::Timestamp(b)) => a == b,
            (V::Float4(a), V::Float4(b)) => a.to_bits() == b.to_bits(),
            (V::Float8(a), V::Float8(b)) => a.to_bits() == b.to_bits(),
            (V::Numeric(a), V::Numeric(b)) => a == b,
            (V::Text(a), V::Text(b)) => a == b,
            (V::Bytes(a), V::Bytes(b)) | (V::Undecodable(a), V::Undecodable(b)) | (V::Image(a), V::Image(b)) => a == b,
            (V::Uuid(a), V::Uuid(b)) => a == b,
            // The name is only how the OID is shown.
            (V::UInt4(a), V::UInt4(b)) | (V::Reg(a, _), V::Reg(b, _)) => a == b,
            (V::Interval(a), V::Interval(b)) => a == b,
            (V::Composite(a), V::Composite(b)) => a == b,
            (V::Array(a), V::Array(b)) => a == b,
            _ => false,
        }
    }
}

impl Value<'_> {
    /// Bytes of memory the value needs when it waits in a batch.
    #[inline(always)]
    pub(crate) fn size(&self) -> usize {
        match self {
            Value::Text(text) => text.len(),
            Value::Bytes(bytes) | Value::Undecodable(bytes) | Value::Image(bytes) => bytes.len(),
            Value::Reg(_, name) => name.len() + 4,
            Value::Composite(parts) => sizes(parts),
            Value::Array(array) => sizes(&array.elements) + 8,
            Value::Numeric(numeric) => numeric.text_size(),
            _ => 16,
        }
    }
}

fn sizes(parts: &[Option<Value<'_>>]) -> usize {
    parts.iter().map(|part| part.as_ref().map_or(1, Value::size)).sum()
}
