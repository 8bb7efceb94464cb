//! The lowest and the highest value of a column in a batch, found where its values are beside each other.

use arrow::array::{Array, ArrayRef, AsArray, PrimitiveArray, UInt64Array, new_empty_array};
use arrow::compute::{cast, take};
use arrow::datatypes::{
    ArrowPrimitiveType, DataType, Date32Type, Decimal128Type, Float32Type, Float64Type, Int16Type, Int32Type,
    Int64Type, Time64MicrosecondType, TimestampMicrosecondType,
};

use super::decode::{Decoded, DecodedBatch};
use super::order::{bytes_prefix, float_order};
use crate::schema::{Field, PgType, Storage};
use crate::{Error, ErrorKind, Result};

/// Longer values are no bounds of a range: nobody keeps them.
pub const LONGEST_EXTREME: usize = 64 << 10;

/// The lowest and the highest value of a column in the rows of a batch.
#[derive(Debug)]
pub struct Extremes {
    field_id: i32,
    /// Two rows of one column.
    ends: Option<DecodedBatch>,
}

impl Extremes {
    /// Whether they are found in columns of this type, in the order that PostgreSQL has: of text by its bytes.
    pub fn are_found_in(pg_type: &PgType) -> bool {
        let column = new_empty_array(pg_type.arrow("", 0).data_type());
        rows_of_ends(&pg_type.storage(), column.as_ref()).is_some()
    }

    /// Those of a column of a batch; `None` where it has no value.
    pub(super) fn of(field: &Field, column: &ArrayRef) -> Result<Option<Self>> {
        let (field_id, storage) = (field.id, field.pg_type.storage());
        let Some(rows) = rows_of_ends(&storage, column.as_ref()) else {
            return Ok(Some(Self { field_id, ends: None }));
        };
        let Some((low, high)) = rows else { return Ok(None) };
        if size(column.as_ref(), low).max(size(column.as_ref(), high)) > LONGEST_EXTREME {
            return Ok(Some(Self { field_id, ends: None }));
        }
        let rows = UInt64Array::from(vec![low as u64, high as u64]);
        let viewed = match column.data_type() {
            DataType::Utf8 => DataType::Utf8View,
            DataType::Binary => DataType::BinaryView,
            other => other.clone(),
        };
        let ends = take(column.as_ref(), &rows, None).and_then(|ends| cast(&ends, &viewed));
        let ends =
            ends.map_err(|error| Error::new(ErrorKind::Internal, "could not find the ends of a column").source(error))?;
        let ends = DecodedBatch::new(rows.len(), vec![(storage, ends, None)])?;
        Ok(Some(Self { field_id, ends: Some(ends) }))
    }

    /// The column.
    pub fn field_id(&self) -> i32 {
        self.field_id
    }

    /// The lowest and the highest value; `None` where they are not known: one of them is longer than [`LONGEST_EXTREME`].
    pub fn ends(&self) -> Result<Option<(Decoded<'_>, Decoded<'_>)>> {
        let Some(ends) = &self.ends else { return Ok(None) };
        Ok(Some((ends.get(0, 0)?, ends.get(0, 1)?)))
    }
}

/// Bytes of a value of variable length.
fn size(column: &dyn Array, row: usize) -> usize {
    match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).len(),
        DataType::Binary => column.as_binary::<i32>().value(row).len(),
        _ => 0,
    }
}

/// The rows of the lowest and the highest value, if there is a value; `None` where the order of the type is not known here.
fn rows_of_ends(storage: &Storage, column: &dyn Array) -> Option<Option<(usize, usize)>> {
    Some(match column.data_type() {
        // Its digits do not sort as the number does.
        _ if *storage == Storage::NumericText => return None,
        DataType::Boolean => ends(column, column.as_boolean().values().iter()),
        DataType::Int16 => numbers::<Int16Type>(column.as_primitive()),
        DataType::Int32 => numbers::<Int32Type>(column.as_primitive()),
        DataType::Int64 => numbers::<Int64Type>(column.as_primitive()),
        DataType::Date32 => numbers::<Date32Type>(column.as_primitive()),
        DataType::Time64(_) => numbers::<Time64MicrosecondType>(column.as_primitive()),
        DataType::Timestamp(..) => numbers::<TimestampMicrosecondType>(column.as_primitive()),
        DataType::Decimal128(..) => numbers::<Decimal128Type>(column.as_primitive()),
        DataType::Float32 => {
            ends(column, column.as_primitive::<Float32Type>().values().iter().map(|v| float_order((*v).into())))
        }
        DataType::Float64 => {
            ends(column, column.as_primitive::<Float64Type>().values().iter().map(|v| float_order(*v)))
        }
        DataType::Utf8 => {
            let texts = column.as_string::<i32>();
            ends(column, (0..texts.len()).map(|row| by_bytes(texts.value(row).as_bytes())))
        }
        DataType::Binary => {
            let values = column.as_binary::<i32>();
            ends(column, (0..values.len()).map(|row| by_bytes(values.value(row))))
        }
        DataType::FixedSizeBinary(_) => {
            let values = column.as_fixed_size_binary();
            ends(column, (0..values.len()).map(|row| by_bytes(values.value(row))))
        }
        _ => return None,
    })
}

fn numbers<T: ArrowPrimitiveType<Native: Ord>>(column: &PrimitiveArray<T>) -> Option<(usize, usize)> {
    ends(column, column.values().iter().copied())
}

/// Bytes are mostly told apart by the first.
fn by_bytes(bytes: &[u8]) -> (u64, &[u8]) {
    (bytes_prefix(bytes), bytes)
}

/// The rows of the lowest and the highest of these values, of which NULLs do not count.
#[inline(always)]
fn ends<K: Ord + Copy>(column: &dyn Array, values: impl Iterator<Item = K>) -> Option<(usize, usize)> {
    let nulls = column.nulls();
    let mut rows = values.enumerate().filter(|(row, _)| nulls.is_none_or(|nulls| nulls.is_valid(*row)));
    let (row, value) = rows.next()?;
    let (mut low, mut high) = ((row, value), (row, value));
    for (row, value) in rows {
        if value < low.1 {
            low = (row, value);
        } else if value > high.1 {
            high = (row, value);
        }
    }
    Some((low.0, high.0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{BinaryArray, BooleanArray, FixedSizeBinaryArray, Float64Array, Int64Array, StringArray};

    use super::*;
    use crate::codec::Value;

    fn found(pg_type: PgType, column: ArrayRef) -> Option<Option<(String, String)>> {
        let field = Field {
            id: 7,
            name: "v".to_owned(),
            type_sql: pg_type.sql_name(),
            pg_type,
            collation: None,
            not_null: false,
        };
        let extremes = Extremes::of(&field, &column).unwrap()?;
        assert_eq!(extremes.field_id(), 7);
        Some(extremes.ends().unwrap().map(|(low, high)| (format!("{low:?}"), format!("{high:?}"))))
    }

    fn shown(low: Value<'_>, high: Value<'_>) -> Option<Option<(String, String)>> {
        Some(Some((format!("{:?}", Decoded::Value(low)), format!("{:?}", Decoded::Value(high)))))
    }

    #[test]
    fn ends_are_found_among_nulls() {
        let column = Arc::new(Int64Array::from(vec![None, Some(3), Some(-9), None, Some(4), Some(-9)]));
        assert_eq!(found(PgType::Int8, column), shown(Value::Int8(-9), Value::Int8(4)));
        assert_eq!(found(PgType::Int8, Arc::new(Int64Array::from(vec![None, None]))), None);
        assert_eq!(found(PgType::Int8, Arc::new(Int64Array::from(Vec::<i64>::new()))), None);
        let column = Arc::new(BooleanArray::from(vec![Some(true), None, Some(true)]));
        assert_eq!(found(PgType::Bool, column), shown(Value::Bool(true), Value::Bool(true)));
    }

    #[test]
    fn some_orders_are_not_known() {
        let known =
            [PgType::Bool, PgType::Text, PgType::Bytea, PgType::Uuid, PgType::Numeric { precision: 10, scale: 2 }];
        assert!(known.iter().all(Extremes::are_found_in));
        let unknown = [PgType::UnboundedNumeric, PgType::Interval, PgType::Oid, PgType::Array(Box::new(PgType::Int4))];
        assert!(!unknown.iter().any(Extremes::are_found_in));
        assert_eq!(found(PgType::UnboundedNumeric, Arc::new(StringArray::from(vec!["9", "10"]))), Some(None));
    }

    #[test]
    fn floats_are_ordered_as_postgresql_does() {
        let column = Arc::new(Float64Array::from(vec![0.0, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY]));
        assert_eq!(found(PgType::Float8, column), shown(Value::Float8(f64::NEG_INFINITY), Value::Float8(-f64::NAN)));
    }

    #[test]
    fn bytes_are_ordered_beyond_the_first_eight() {
        let texts = ["customer 2", "customer 10", "customer", "customer \u{e9}", "customer \u{1}"];
        let column = Arc::new(StringArray::from(texts.to_vec()));
        assert_eq!(found(PgType::Text, column), shown(Value::Text("customer"), Value::Text("customer \u{e9}")));
        let column = Arc::new(BinaryArray::from(vec![&b"\0\0"[..], b"\0", b"\0\0\0\0\0\0\0\0\0"]));
        assert_eq!(found(PgType::Bytea, column), shown(Value::Bytes(b"\0"), Value::Bytes(&[0; 9])));
        let uuids = [[9; 16], [1; 16]];
        let column = Arc::new(FixedSizeBinaryArray::try_from_iter(uuids.into_iter()).unwrap());
        assert_eq!(found(PgType::Uuid, column), shown(Value::Uuid([1; 16]), Value::Uuid([9; 16])));
    }

    #[test]
    fn a_huge_value_is_no_end() {
        let huge = "z".repeat(LONGEST_EXTREME + 1);
        let column = |values: Vec<&str>| Arc::new(StringArray::from(values));
        assert_eq!(found(PgType::Text, column(vec!["a", &huge])), Some(None));
        assert_eq!(
            found(PgType::Text, column(vec!["a", &huge, "zzzz{"])),
            shown(Value::Text("a"), Value::Text("zzzz{"))
        );
    }
}
