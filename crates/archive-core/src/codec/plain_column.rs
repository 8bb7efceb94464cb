//! Columns of the usual types while their batch fills up. Values are only put beside each other then, as PostgreSQL has them; the thread
//! that encodes the batch hashes them and makes Arrow columns of them, column by column.

use std::mem::ManuallyDrop;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float64Array, Int32Array, Int64Array,
    StringArray, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::error::ArrowError;

use super::digest::ValueHasher;
use super::numeric::{Digits, Numeric, NumericSign};
use super::outlier::{EPOCH_DAYS, EPOCH_MICROS, date, decimal, timestamp};
use super::value::Value;
use crate::schema::{PgType, Storage};
use crate::{Error, ErrorKind, Result};

/// Values, bytes of values that a new batch has room for at first, at most: a huge value is not followed by another, as a rule.
const MOST_VALUES: usize = 64 << 10;
const MOST_BYTES: usize = 2 << 20;
/// Bytes of a `uuid`.
const UUID: usize = 16;

/// The values of a column in the rows of a batch.
#[derive(Debug)]
pub(super) struct PlainColumn {
    /// Field id.
    id: i32,
    values: Values,
    /// Whether there is a value, once one was missing.
    valid: Option<Vec<bool>>,
    rows: usize,
    /// Hashes of values that the native column cannot hold, with their rows.
    outliers: Vec<(usize, u128)>,
}

#[derive(Debug)]
enum Values {
    Bool(Vec<bool>),
    Int4(Vec<i32>),
    Int8(Vec<i64>),
    Float8(Vec<f64>),
    /// In PostgreSQL's epoch, as the next.
    Date(Vec<i32>),
    Timestamp(Vec<i64>, bool),
    Uuid(Vec<u8>),
    Text(Texts),
    Numeric(Box<Numerics>),
}

/// Bytes of values one after the other, and where each ends, after a zero.
#[derive(Debug)]
struct Texts {
    bytes: Vec<u8>,
    ends: Vec<i32>,
}

/// Numbers as they are, for the digest, and as the file has them.
#[derive(Debug)]
struct Numerics {
    precision: u8,
    scale: i8,
    heads: Vec<(NumericSign, i16, u16)>,
    digits: Vec<u8>,
    ends: Vec<usize>,
    unscaled: Vec<i128>,
}

impl PlainColumn {
    /// A column of this type; `None` for a type that is not among the usual ones.
    pub(super) fn new(id: i32, pg_type: &PgType) -> Option<Self> {
        Values::new(&pg_type.storage()).map(|values| Self { id, values, valid: None, rows: 0, outliers: Vec::new() })
    }

    /// Adds a value that the column's type can hold, or NULL. `false` for another, which is not added.
    #[inline(always)]
    pub(super) fn push(&mut self, value: Option<&Value<'_>>) -> bool {
        let Some(value) = value else {
            self.push_absent();
            return true;
        };
        match (&mut self.values, value) {
            (Values::Bool(values), Value::Bool(v)) => values.push(*v),
            (Values::Int4(values), Value::Int4(v)) => values.push(*v),
            (Values::Int8(values), Value::Int8(v)) => values.push(*v),
            (Values::Float8(values), Value::Float8(v)) => values.push(*v),
            (Values::Date(values), Value::Date(v)) if date(*v).is_some() => values.push(*v),
            (Values::Timestamp(values, _), Value::Timestamp(v)) if timestamp(*v).is_some() => values.push(*v),
            (Values::Uuid(values), Value::Uuid(v)) => values.extend_from_slice(v),
            (Values::Text(texts), Value::Text(v)) => texts.push(v),
            (Values::Numeric(numerics), Value::Numeric(v)) => match decimal(v, numerics.precision, numerics.scale) {
                Some(unscaled) => numerics.push(v, unscaled),
                None => return false,
            },
            _ => return false,
        }
        self.rows += 1;
        if let Some(valid) = &mut self.valid {
            valid.push(true);
        }
        true
    }

    /// Adds NULL in the place of a value with this hash, which goes elsewhere.
    pub(super) fn push_outlier(&mut self, hash: u128) {
        self.outliers.push((self.rows, hash));
        self.push_absent();
    }

    fn push_absent(&mut self) {
        self.values.push_default();
        let rows = self.rows;
        self.valid.get_or_insert_with(|| vec![true; rows]).push(false);
        self.rows += 1;
    }

    /// The rows so far; the column is empty afterwards, with room for as many again.
    pub(super) fn take(&mut self) -> Self {
        let next = Self { id: self.id, values: self.values.like(), valid: None, rows: 0, outliers: Vec::new() };
        std::mem::replace(self, next)
    }

    /// Calls `put` with the hash of each of these values.
    pub(super) fn hash(&self, rows: Range<usize>, hasher: &mut ValueHasher, mut put: impl FnMut(u128)) {
        let id = self.id;
        match &self.values {
            Values::Bool(v) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Bool(*v))), put),
            Values::Int4(v) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Int4(*v))), put),
            Values::Int8(v) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Int8(*v))), put),
            Values::Float8(v) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Float8(*v))), put),
            Values::Date(v) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Date(*v))), put),
            Values::Timestamp(v, _) => self.each(v, rows, |v| hasher.hash(id, Some(&Value::Timestamp(*v))), put),
            Values::Uuid(v) => {
                let (uuids, _) = v.as_chunks::<UUID>();
                self.each(uuids, rows, |v| hasher.hash(id, Some(&Value::Uuid(*v))), put);
            }
            Values::Text(texts) => {
                for row in rows {
                    put(match self.is_valid(row) {
                        true => hasher.hash_text(id, texts.get(row)),
                        false => self.absent(row, hasher),
                    });
                }
            }
            Values::Numeric(numerics) => {
                for row in rows {
                    put(match self.is_valid(row) {
                        // It owns nothing: the compiler would call its destructor for each all the same.
                        true => hasher.hash_numeric(id, &ManuallyDrop::new(numerics.get(row))),
                        false => self.absent(row, hasher),
                    });
                }
            }
        }
    }

    #[inline(always)]
    fn each<T>(&self, values: &[T], rows: Range<usize>, mut hash: impl FnMut(&T) -> u128, mut put: impl FnMut(u128)) {
        for (row, value) in rows.clone().zip(values.get(rows).unwrap_or_default()) {
            put(match self.is_valid(row) {
                true => hash(value),
                false => self.absent(row, &mut ValueHasher::default()),
            });
        }
    }

    #[inline]
    fn is_valid(&self, row: usize) -> bool {
        self.valid.as_ref().is_none_or(|valid| valid.get(row) == Some(&true))
    }

    /// The hash of NULL, or of what went elsewhere.
    fn absent(&self, row: usize, hasher: &mut ValueHasher) -> u128 {
        match self.outliers.binary_search_by_key(&row, |(at, _)| *at) {
            Ok(at) => self.outliers.get(at).map_or(0, |(_, hash)| *hash),
            Err(_) => hasher.hash(self.id, None),
        }
    }

    /// The Arrow column.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        let nulls = self.valid.map(NullBuffer::from);
        self.values
            .into_array(nulls)
            .map_err(|error| Error::new(ErrorKind::Internal, "could not encode a column").source(error))
    }
}

impl Values {
    fn new(storage: &Storage) -> Option<Self> {
        Some(match storage {
            Storage::Bool => Self::Bool(Vec::new()),
            Storage::Int32 => Self::Int4(Vec::new()),
            Storage::Int64 => Self::Int8(Vec::new()),
            Storage::Float64 => Self::Float8(Vec::new()),
            Storage::Date => Self::Date(Vec::new()),
            Storage::Timestamp => Self::Timestamp(Vec::new(), false),
            Storage::TimestampTz => Self::Timestamp(Vec::new(), true),
            Storage::Uuid => Self::Uuid(Vec::new()),
            Storage::Text => Self::Text(Texts::with_capacity(0, 0)),
            Storage::Decimal(precision, scale) => {
                Self::Numeric(Box::new(Numerics::with_capacity(*precision, *scale, 0, 0)))
            }
            _ => return None,
        })
    }

    /// No values of the same kind, with room for as many.
    fn like(&self) -> Self {
        fn of<T>(values: &[T]) -> Vec<T> {
            Vec::with_capacity(values.len().min(MOST_VALUES))
        }
        match self {
            Self::Bool(v) => Self::Bool(of(v)),
            Self::Int4(v) => Self::Int4(of(v)),
            Self::Int8(v) => Self::Int8(of(v)),
            Self::Float8(v) => Self::Float8(of(v)),
            Self::Date(v) => Self::Date(of(v)),
            Self::Timestamp(v, with_zone) => Self::Timestamp(of(v), *with_zone),
            Self::Uuid(v) => Self::Uuid(Vec::with_capacity(v.len().min(MOST_BYTES))),
            Self::Text(v) => Self::Text(Texts::with_capacity(v.ends.len(), v.bytes.len())),
            Self::Numeric(v) => {
                Self::Numeric(Box::new(Numerics::with_capacity(v.precision, v.scale, v.heads.len(), v.digits.len())))
            }
        }
    }

    fn push_default(&mut self) {
        match self {
            Self::Bool(v) => v.push(false),
            Self::Int4(v) | Self::Date(v) => v.push(0),
            Self::Int8(v) | Self::Timestamp(v, _) => v.push(0),
            Self::Float8(v) => v.push(0.0),
            Self::Uuid(v) => v.extend_from_slice(&[0; UUID]),
            Self::Text(v) => v.push(""),
            Self::Numeric(v) => v.push(&Numeric::special(NumericSign::Positive), 0),
        }
    }

    fn into_array(self, nulls: Option<NullBuffer>) -> std::result::Result<ArrayRef, ArrowError> {
        Ok(match self {
            Self::Bool(v) => Arc::new(BooleanArray::new(BooleanBuffer::from(v), nulls)),
            Self::Int4(v) => Arc::new(Int32Array::try_new(v.into(), nulls)?),
            Self::Int8(v) => Arc::new(Int64Array::try_new(v.into(), nulls)?),
            Self::Float8(v) => Arc::new(Float64Array::try_new(v.into(), nulls)?),
            Self::Date(mut v) => {
                v.iter_mut().for_each(|date| *date = date.wrapping_add(EPOCH_DAYS));
                Arc::new(Date32Array::try_new(v.into(), nulls)?)
            }
            Self::Timestamp(mut v, with_zone) => {
                v.iter_mut().for_each(|timestamp| *timestamp = timestamp.wrapping_add(EPOCH_MICROS));
                let array = TimestampMicrosecondArray::try_new(v.into(), nulls)?;
                Arc::new(if with_zone { array.with_timezone("UTC") } else { array })
            }
            Self::Uuid(v) => Arc::new(FixedSizeBinaryArray::try_new(UUID as i32, Buffer::from(v), nulls)?),
            Self::Text(v) => {
                let offsets = OffsetBuffer::new(ScalarBuffer::from(v.ends));
                Arc::new(StringArray::try_new(offsets, Buffer::from(v.bytes), nulls)?)
            }
            Self::Numeric(v) => {
                let array = Decimal128Array::try_new(v.unscaled.into(), nulls)?;
                Arc::new(array.with_precision_and_scale(v.precision, v.scale)?)
            }
        })
    }
}

impl Texts {
    fn with_capacity(ends: usize, bytes: usize) -> Self {
        let mut texts = Self {
            bytes: Vec::with_capacity(bytes.min(MOST_BYTES)),
            ends: Vec::with_capacity(ends.clamp(1, MOST_VALUES)),
        };
        texts.ends.push(0);
        texts
    }

    #[inline]
    fn push(&mut self, text: &str) {
        self.bytes.extend_from_slice(text.as_bytes());
        // No batch holds so much; if one did, Arrow would refuse an end that is beyond the bytes.
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    fn get(&self, row: usize) -> &[u8] {
        let end = |at: usize| self.ends.get(at).and_then(|end| usize::try_from(*end).ok()).unwrap_or(0);
        self.bytes.get(end(row)..end(row + 1)).unwrap_or_default()
    }
}

impl Numerics {
    fn with_capacity(precision: u8, scale: i8, values: usize, digits: usize) -> Self {
        let values = values.min(MOST_VALUES);
        Self {
            precision,
            scale,
            heads: Vec::with_capacity(values),
            digits: Vec::with_capacity(digits.min(MOST_BYTES)),
            ends: Vec::with_capacity(values),
            unscaled: Vec::with_capacity(values),
        }
    }

    #[inline]
    fn push(&mut self, numeric: &Numeric<'_>, unscaled: i128) {
        self.heads.push((numeric.sign, numeric.weight, numeric.dscale));
        match &numeric.digits {
            Digits::Bytes(bytes) => self.digits.extend_from_slice(bytes),
            digits => digits.iter().for_each(|digit| self.digits.extend_from_slice(&digit.to_ne_bytes())),
        }
        self.ends.push(self.digits.len());
        self.unscaled.push(unscaled);
    }

    fn get(&self, row: usize) -> Numeric<'_> {
        let end = |row: usize| self.ends.get(row).copied().unwrap_or(0);
        let begin = row.checked_sub(1).map_or(0, end);
        let (sign, weight, dscale) = self.heads.get(row).copied().unwrap_or((NumericSign::NaN, 0, 0));
        Numeric { sign, weight, dscale, digits: Digits::Bytes(self.digits.get(begin..end(row)).unwrap_or_default()) }
    }
}
