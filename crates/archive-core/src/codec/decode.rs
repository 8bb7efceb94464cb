//! Decoded rows: cheap access to one value at a time.

use arrow::array::{
    Array, ArrayRef, BinaryViewArray, BooleanArray, Date32Array, Decimal128Array, FixedSizeBinaryArray, Float32Array,
    Float64Array, Int16Array, Int32Array, Int64Array, ListArray, StringViewArray, StructArray, Time64MicrosecondArray,
    TimestampMicrosecondArray, UInt32Array,
};

use super::guard::corrupt;
use super::ndjson::LineCell;
use super::numeric::Numeric;
use super::outlier::{EPOCH_DAYS, EPOCH_MICROS};
use super::sidecar::Sidecar;
use super::value::{ArrayValue, IntervalValue, Value};
use crate::schema::Storage;
use crate::{Error, ErrorKind, Result};

/// Largest `time`: 24:00:00.
const MAX_TIME: i64 = 86_400_000_000;

/// A value as it comes out of a file.
#[derive(Debug, Clone, PartialEq)]
pub enum Decoded<'a> {
    /// NULL
    Null,
    /// The value.
    Value(Value<'a>),
    /// The text of a sidecar; see [`super::Sidecar`].
    Text(&'a str),
}

/// Some rows of an object.
#[derive(Debug)]
pub struct DecodedBatch {
    rows: usize,
    values: Values,
}

#[derive(Debug)]
enum Values {
    /// By column.
    Columns(Vec<Column>),
    /// By row.
    Lines(Vec<Vec<LineCell>>),
}

#[derive(Debug)]
struct Column {
    cells: Cells,
    sidecar: Option<StringViewArray>,
}

/// The cells of a column in their concrete type.
#[derive(Debug)]
enum Cells {
    Bool(BooleanArray),
    Int16(Int16Array),
    Int32(Int32Array),
    Int64(Int64Array),
    Float32(Float32Array),
    Float64(Float64Array),
    Decimal(Decimal128Array, u16),
    NumericText(StringViewArray),
    Text(StringViewArray),
    Bytes(BinaryViewArray),
    Date(Date32Array),
    Time(Time64MicrosecondArray),
    Timestamp(TimestampMicrosecondArray),
    Uuid(FixedSizeBinaryArray),
    UInt32(UInt32Array),
    Interval(StructArray, Int32Array, Int32Array, Int64Array),
    Reg(StructArray, UInt32Array, StringViewArray),
    Struct(StructArray, Vec<Cells>),
    List(ListArray, Box<Cells>),
}

impl DecodedBatch {
    /// Rows without columns.
    pub(super) fn empty(rows: usize) -> Self {
        Self { rows, values: Values::Columns(Vec::new()) }
    }

    /// Rows with these columns: the storage, the native cells, the sidecar.
    pub(super) fn new(rows: usize, columns: Vec<(Storage, ArrayRef, Option<ArrayRef>)>) -> Result<Self> {
        let columns = columns.into_iter().map(|(storage, native, sidecar)| {
            let sidecar = sidecar.map(|array| concrete(array.as_ref())).transpose()?;
            Ok(Column { cells: Cells::new(&storage, native.as_ref())?, sidecar })
        });
        Ok(Self { rows, values: Values::Columns(columns.collect::<Result<_>>()?) })
    }

    /// Rows that were lines.
    pub(super) fn of_lines(lines: Vec<Vec<LineCell>>) -> Self {
        Self { rows: lines.len(), values: Values::Lines(lines) }
    }

    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Whether a sidecar holds bytes rather than text.
    pub(super) fn has_images(&self) -> bool {
        match &self.values {
            Values::Columns(columns) => columns
                .iter()
                .filter_map(|column| column.sidecar.as_ref())
                .filter(|sidecar| sidecar.null_count() < sidecar.len())
                .any(|sidecar| sidecar.iter().flatten().any(Sidecar::is_bytes)),
            Values::Lines(lines) => {
                lines.iter().flatten().any(|cell| matches!(cell, LineCell::Sidecar(text) if Sidecar::is_bytes(text)))
            }
        }
    }

    /// The value of a row in the column at this position of [`super::ScanOptions::columns`].
    pub fn get(&self, column: usize, row: usize) -> Result<Decoded<'_>> {
        let columns = match &self.values {
            Values::Columns(columns) => columns,
            Values::Lines(lines) => {
                return match lines.get(row).and_then(|line| line.get(column)).ok_or_else(out_of_bounds)? {
                    LineCell::Null => Ok(Decoded::Null),
                    LineCell::Value(value) => Ok(Decoded::Value(value.value())),
                    LineCell::Sidecar(text) => Ok(Decoded::Text(text)),
                };
            }
        };
        let column = columns.get(column).filter(|_| row < self.rows).ok_or_else(out_of_bounds)?;
        match &column.sidecar {
            Some(sidecar) if sidecar.is_valid(row) => Ok(Decoded::Text(sidecar.value(row))),
            _ if column.cells.is_null(row) => Ok(Decoded::Null),
            _ => column.cells.value(row).map(Decoded::Value),
        }
    }

    /// Calls `visit` with what [`Self::get`] would give. For each kind that is usual by a call of its own, so that all that is done with
    /// the value is compiled for its kind: a scan spends most of its time here.
    #[inline(always)]
    pub fn visit<T>(&self, column: usize, row: usize, visit: impl FnOnce(&Decoded<'_>) -> T) -> Result<T> {
        match self.plain_cells(column, row) {
            Some(Cells::Bool(a)) if a.is_valid(row) => Ok(visit(&Decoded::Value(Value::Bool(a.value(row))))),
            Some(Cells::Int32(a)) if a.is_valid(row) => Ok(visit(&Decoded::Value(Value::Int4(a.value(row))))),
            Some(Cells::Int64(a)) if a.is_valid(row) => Ok(visit(&Decoded::Value(Value::Int8(a.value(row))))),
            Some(Cells::Float64(a)) if a.is_valid(row) => Ok(visit(&Decoded::Value(Value::Float8(a.value(row))))),
            Some(Cells::Decimal(a, scale)) if a.is_valid(row) => {
                Ok(visit(&Decoded::Value(Value::Numeric(Numeric::from_i128(a.value(row), *scale)))))
            }
            Some(Cells::Text(a)) if a.is_valid(row) => Ok(visit(&Decoded::Value(Value::Text(a.value(row))))),
            Some(Cells::Date(a)) if a.is_valid(row) => {
                date(a.value(row)).map(|date| visit(&Decoded::Value(Value::Date(date))))
            }
            Some(Cells::Timestamp(a)) if a.is_valid(row) => {
                timestamp(a.value(row)).map(|timestamp| visit(&Decoded::Value(Value::Timestamp(timestamp))))
            }
            _ => self.get(column, row).map(|cell| visit(&cell)),
        }
    }

    /// The cells of a column without a sidecar, if it has this row.
    #[inline]
    fn plain_cells(&self, column: usize, row: usize) -> Option<&Cells> {
        match &self.values {
            Values::Columns(columns) if row < self.rows => {
                columns.get(column).filter(|column| column.sidecar.is_none()).map(|column| &column.cells)
            }
            _ => None,
        }
    }
}

impl Cells {
    fn new(storage: &Storage, array: &dyn Array) -> Result<Self> {
        Ok(match storage {
            Storage::Bool => Cells::Bool(concrete(array)?),
            Storage::Int16 => Cells::Int16(concrete(array)?),
            Storage::Int32 => Cells::Int32(concrete(array)?),
            Storage::Int64 => Cells::Int64(concrete(array)?),
            Storage::Float32 => Cells::Float32(concrete(array)?),
            Storage::Float64 => Cells::Float64(concrete(array)?),
            Storage::Decimal(_, scale) => Cells::Decimal(concrete(array)?, u16::from(scale.unsigned_abs())),
            Storage::NumericText => Cells::NumericText(concrete(array)?),
            Storage::Text => Cells::Text(concrete(array)?),
            Storage::Bytes => Cells::Bytes(concrete(array)?),
            Storage::Date => Cells::Date(concrete(array)?),
            Storage::Time => Cells::Time(concrete(array)?),
            Storage::Timestamp | Storage::TimestampTz => Cells::Timestamp(concrete(array)?),
            Storage::Uuid => Cells::Uuid(concrete(array)?),
            Storage::UInt32 => Cells::UInt32(concrete(array)?),
            Storage::Interval => {
                let all: StructArray = concrete(array)?;
                let (months, days, micros) = (member(&all, 0)?, member(&all, 1)?, member(&all, 2)?);
                Cells::Interval(all, months, days, micros)
            }
            Storage::Reg => {
                let all: StructArray = concrete(array)?;
                let (oids, names) = (member(&all, 0)?, member(&all, 1)?);
                Cells::Reg(all, oids, names)
            }
            Storage::Struct(members) => {
                let all: StructArray = concrete(array)?;
                let cells = members.iter().zip(all.columns());
                let cells: Vec<_> =
                    cells.map(|(storage, column)| Cells::new(storage, column.as_ref())).collect::<Result<_>>()?;
                if cells.len() != members.len() {
                    return Err(corrupt("column was decoded as another type"));
                }
                Cells::Struct(all, cells)
            }
            Storage::List(element) => {
                let list: ListArray = concrete(array)?;
                let cells = Cells::new(element, list.values().as_ref())?;
                Cells::List(list, Box::new(cells))
            }
        })
    }

    fn is_null(&self, row: usize) -> bool {
        match self {
            Cells::Bool(a) => a.is_null(row),
            Cells::Int16(a) => a.is_null(row),
            Cells::Int32(a) => a.is_null(row),
            Cells::Int64(a) => a.is_null(row),
            Cells::Float32(a) => a.is_null(row),
            Cells::Float64(a) => a.is_null(row),
            Cells::Decimal(a, _) => a.is_null(row),
            Cells::NumericText(a) | Cells::Text(a) => a.is_null(row),
            Cells::Bytes(a) => a.is_null(row),
            Cells::Date(a) => a.is_null(row),
            Cells::Time(a) => a.is_null(row),
            Cells::Timestamp(a) => a.is_null(row),
            Cells::Uuid(a) => a.is_null(row),
            Cells::UInt32(a) => a.is_null(row),
            Cells::Interval(a, ..) | Cells::Reg(a, ..) | Cells::Struct(a, _) => a.is_null(row),
            Cells::List(a, _) => a.is_null(row),
        }
    }

    fn optional(&self, row: usize) -> Result<Option<Value<'_>>> {
        if self.is_null(row) { Ok(None) } else { self.value(row).map(Some) }
    }

    fn value(&self, row: usize) -> Result<Value<'_>> {
        Ok(match self {
            Cells::Bool(a) => Value::Bool(a.value(row)),
            Cells::Int16(a) => Value::Int2(a.value(row)),
            Cells::Int32(a) => Value::Int4(a.value(row)),
            Cells::Int64(a) => Value::Int8(a.value(row)),
            Cells::Float32(a) => Value::Float4(a.value(row)),
            Cells::Float64(a) => Value::Float8(a.value(row)),
            Cells::Decimal(a, scale) => Value::Numeric(Numeric::from_i128(a.value(row), *scale)),
            Cells::NumericText(a) => Value::Numeric(wide_numeric(a.value(row))?),
            Cells::Text(a) => Value::Text(a.value(row)),
            Cells::Bytes(a) => Value::Bytes(a.value(row)),
            Cells::Date(a) => Value::Date(date(a.value(row))?),
            Cells::Time(a) => Value::Time(time(a.value(row))?),
            Cells::Timestamp(a) => Value::Timestamp(timestamp(a.value(row))?),
            Cells::Uuid(a) => Value::Uuid(a.value(row).try_into().map_err(|_| out_of_range("uuid"))?),
            Cells::UInt32(a) => Value::UInt4(a.value(row)),
            Cells::Interval(_, months, days, micros) => Value::Interval(IntervalValue {
                months: months.value(row),
                days: days.value(row),
                micros: micros.value(row),
            }),
            Cells::Reg(_, oids, names) => Value::Reg(oids.value(row), names.value(row)),
            Cells::Struct(_, members) => {
                Value::Composite(members.iter().map(|member| member.optional(row)).collect::<Result<_>>()?)
            }
            Cells::List(a, element) => Value::Array(list(a, element, row)?),
        })
    }
}

fn list<'a>(array: &'a ListArray, element: &'a Cells, row: usize) -> Result<ArrayValue<'a>> {
    let offsets = array.value_offsets();
    let bounds = offsets.get(row).zip(offsets.get(row + 1)).ok_or_else(out_of_bounds)?;
    let index = |offset: &i32| usize::try_from(*offset).map_err(|_| out_of_bounds());
    let range = index(bounds.0)?..index(bounds.1)?;
    let length = i32::try_from(range.len()).map_err(|_| out_of_bounds())?;
    let elements = range.map(|i| element.optional(i)).collect::<Result<Vec<_>>>()?;
    let dims = if length == 0 { Vec::new() } else { vec![(length, 1)] };
    Ok(ArrayValue { dims, elements })
}

fn wide_numeric(text: &str) -> Result<Numeric<'static>> {
    Numeric::parse_text(text).ok_or_else(|| out_of_range("numeric"))
}

fn date(days: i32) -> Result<i32> {
    let date = days.checked_sub(EPOCH_DAYS).filter(|date| *date != i32::MIN);
    date.ok_or_else(|| out_of_range("date"))
}

fn time(micros: i64) -> Result<i64> {
    Some(micros).filter(|micros| (0..=MAX_TIME).contains(micros)).ok_or_else(|| out_of_range("time"))
}

fn timestamp(micros: i64) -> Result<i64> {
    let timestamp = micros.checked_sub(EPOCH_MICROS).filter(|timestamp| *timestamp != i64::MIN);
    timestamp.ok_or_else(|| out_of_range("timestamp"))
}

/// A member of a struct.
fn member<T: Array + Clone + 'static>(array: &StructArray, index: usize) -> Result<T> {
    let member = array.columns().get(index).ok_or_else(|| corrupt("column was decoded as another type"))?;
    concrete(member.as_ref())
}

/// The concrete array; cloning it shares the buffers.
fn concrete<T: Array + Clone + 'static>(array: &dyn Array) -> Result<T> {
    array.as_any().downcast_ref::<T>().cloned().ok_or_else(|| corrupt("column was decoded as another type"))
}

fn out_of_range(kind: &str) -> Error {
    corrupt(format!("object holds a {kind} that PostgreSQL cannot hold"))
}

fn out_of_bounds() -> Error {
    Error::new(ErrorKind::Internal, "a value was asked for that is not in the batch")
}
