//! Builds the Arrow columns of one batch.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{
    ArrayRef, BinaryBuilder, BooleanBuilder, Date32Builder, Decimal128Builder, FixedSizeBinaryBuilder, Float32Builder,
    Float64Builder, Int16Builder, Int32Builder, Int64Builder, ListArray, StringBuilder, StructArray,
    Time64MicrosecondBuilder, TimestampMicrosecondBuilder, UInt32Builder,
};
use arrow::buffer::{NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{DataType, FieldRef, Fields};

use super::digest::{BlockHasher, Digest, ValueHasher};
use super::outlier::{Cell, cell};
use super::plain_column::PlainColumn;
use super::value::{ArrayValue, IntervalValue, Value};
use crate::schema::{PgType, Storage, TableSchema};
use crate::{Error, ErrorKind, Result};

/// The columns of a batch while its rows come in.
#[derive(Debug)]
pub(super) struct ColumnBuffer {
    columns: Vec<Column>,
    sidecars: Vec<Option<SidecarBuilder>>,
    hasher: ValueHasher,
}

/// A column of a batch while its rows come in.
#[derive(Debug)]
struct Column {
    id: i32,
    storage: Storage,
    cells: ColumnCells,
}

#[derive(Debug)]
enum ColumnCells {
    /// Values of a usual type, as they are.
    Plain(PlainColumn),
    /// Cells of another, and the hashes of their values.
    Built(Box<ColumnBuilder>, Vec<u128>),
}

/// The columns of a batch whose rows are all there.
#[derive(Debug)]
pub(super) struct ColumnBatch {
    rows: usize,
    columns: Vec<(i32, BatchColumn)>,
    sidecars: Vec<(usize, ArrayRef)>,
}

#[derive(Debug)]
enum BatchColumn {
    Plain(PlainColumn),
    Built(ArrayRef, Vec<u128>),
}

/// The columns of a batch as a file takes them, and the digest of its rows.
#[derive(Debug)]
pub(super) struct EncodedBatch {
    pub(super) columns: Vec<ArrayRef>,
    /// The sidecars of those that have an outlier.
    pub(super) sidecars: Vec<(usize, ArrayRef)>,
    pub(super) digest: Digest,
}

impl ColumnBuffer {
    /// A buffer of rows of `schema`.
    pub(super) fn new(schema: &TableSchema) -> Result<Self> {
        let columns: Vec<_> =
            schema.fields.iter().map(|field| Column::new(field.id, &field.pg_type)).collect::<Result<_>>()?;
        Ok(Self { sidecars: no_sidecars(columns.len()), columns, hasher: ValueHasher::default() })
    }

    /// Bytes that a cell of a type takes besides its value, or instead of one that is missing: its slot, its hash, whether it is NULL.
    pub(super) fn cell_overhead(pg_type: &PgType) -> usize {
        match pg_type.storage() {
            Storage::Decimal(..) => 32,
            _ => 16,
        }
    }

    /// The next value of a row. `false` for an outlier, which is NULL in its column.
    #[inline(always)]
    pub(super) fn append(&mut self, column: usize, value: Option<&Value<'_>>) -> Result<bool> {
        let column = self.columns.get_mut(column).ok_or_else(confused)?;
        if let ColumnCells::Plain(plain) = &mut column.cells
            && plain.push(value)
        {
            return Ok(true);
        }
        column.append_otherwise(value, &mut self.hasher)
    }

    /// The text of the outlier in row `row`.
    pub(super) fn append_text(&mut self, row: usize, column: usize, text: &str) -> Result<()> {
        self.sidecars.get_mut(column).ok_or_else(confused)?.get_or_insert_default().append(row, text);
        Ok(())
    }

    /// The columns of so many rows; the buffer is empty afterwards.
    pub(super) fn take(&mut self, rows: usize) -> Result<ColumnBatch> {
        let columns: Vec<_> = self.columns.iter_mut().map(Column::take).collect::<Result<_>>()?;
        let sidecars = std::mem::replace(&mut self.sidecars, no_sidecars(columns.len())).into_iter().enumerate();
        let sidecars = sidecars.filter_map(|(i, sidecar)| Some((i, sidecar?.finish(rows)))).collect();
        Ok(ColumnBatch { rows, columns, sidecars })
    }
}

fn no_sidecars(columns: usize) -> Vec<Option<SidecarBuilder>> {
    std::iter::repeat_with(|| None).take(columns).collect()
}

impl Column {
    fn new(id: i32, pg_type: &PgType) -> Result<Self> {
        let cells = match PlainColumn::new(id, pg_type) {
            Some(plain) => ColumnCells::Plain(plain),
            None => ColumnCells::Built(Box::new(ColumnBuilder::new(pg_type)?), Vec::new()),
        };
        Ok(Self { id, storage: pg_type.storage(), cells })
    }

    fn append_otherwise(&mut self, value: Option<&Value<'_>>, hasher: &mut ValueHasher) -> Result<bool> {
        match &mut self.cells {
            ColumnCells::Plain(plain) => match value.map(|value| cell(&self.storage, value)).transpose()? {
                Some(None) => plain.push_outlier(hasher.hash(self.id, value)),
                _ => return Err(confused()),
            },
            ColumnCells::Built(builder, hashes) => {
                let stored = builder.append(value)?;
                hashes.push(hasher.hash(self.id, value));
                return Ok(stored);
            }
        }
        Ok(false)
    }

    fn take(&mut self) -> Result<(i32, BatchColumn)> {
        let column = match &mut self.cells {
            ColumnCells::Plain(plain) => BatchColumn::Plain(plain.take()),
            ColumnCells::Built(builder, hashes) => BatchColumn::Built(builder.finish()?, std::mem::take(hashes)),
        };
        Ok((self.id, column))
    }
}

impl ColumnBatch {
    /// Hashes the rows, and makes Arrow columns of the values.
    pub(super) fn encode(self) -> Result<EncodedBatch> {
        let digest = self.digest();
        let columns = self.columns.into_iter().map(|(_, column)| match column {
            BatchColumn::Plain(plain) => plain.finish(),
            BatchColumn::Built(array, _) => Ok(array),
        });
        Ok(EncodedBatch { columns: columns.collect::<Result<_>>()?, sidecars: self.sidecars, digest })
    }

    /// The digest of the rows, from the values as they were appended.
    fn digest(&self) -> Digest {
        let mut hasher = ValueHasher::default();
        let mut rows = BlockHasher::new(self.columns.iter().map(|(id, _)| *id).collect());
        for begin in (0..self.rows).step_by(BlockHasher::ROWS) {
            let block = begin..(begin + BlockHasher::ROWS).min(self.rows);
            for (at, (_, column)) in self.columns.iter().enumerate() {
                let mut row = 0;
                let mut put = |hash| {
                    rows.put(row, at, hash);
                    row += 1;
                };
                match column {
                    BatchColumn::Plain(plain) => plain.hash(block.clone(), &mut hasher, put),
                    BatchColumn::Built(_, hashes) => {
                        hashes.get(block.clone()).into_iter().flatten().for_each(|hash| put(*hash))
                    }
                }
            }
            rows.end_block(block.len());
        }
        rows.finish()
    }
}

/// The builder of one native column.
#[derive(Debug)]
struct ColumnBuilder {
    storage: Storage,
    cells: Cells,
}

#[derive(Debug)]
enum Cells {
    Bool(BooleanBuilder),
    Int16(Int16Builder),
    Int32(Int32Builder),
    Int64(Int64Builder),
    Float32(Float32Builder),
    Float64(Float64Builder),
    Decimal(Decimal128Builder),
    Text(StringBuilder),
    Bytes(BinaryBuilder),
    Date(Date32Builder),
    Time(Time64MicrosecondBuilder),
    Timestamp(TimestampMicrosecondBuilder),
    Uuid(FixedSizeBinaryBuilder),
    UInt32(UInt32Builder),
    Interval(Box<IntervalCells>),
    Reg(Box<RegCells>),
    Struct(StructCells),
    List(Box<ListCells>),
}

#[derive(Debug)]
struct IntervalCells {
    fields: Fields,
    months: Int32Builder,
    days: Int32Builder,
    micros: Int64Builder,
    valid: Vec<bool>,
}

#[derive(Debug)]
struct RegCells {
    fields: Fields,
    oids: UInt32Builder,
    names: StringBuilder,
    valid: Vec<bool>,
}

#[derive(Debug)]
struct StructCells {
    fields: Fields,
    members: Vec<ColumnBuilder>,
    valid: Vec<bool>,
}

#[derive(Debug)]
struct ListCells {
    field: FieldRef,
    element: ColumnBuilder,
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

impl ColumnBuilder {
    /// A builder of cells of this type.
    fn new(pg_type: &PgType) -> Result<Self> {
        let storage = pg_type.storage();
        let cells = match (&storage, pg_type) {
            (Storage::Bool, _) => Cells::Bool(BooleanBuilder::new()),
            (Storage::Int16, _) => Cells::Int16(Int16Builder::new()),
            (Storage::Int32, _) => Cells::Int32(Int32Builder::new()),
            (Storage::Int64, _) => Cells::Int64(Int64Builder::new()),
            (Storage::Float32, _) => Cells::Float32(Float32Builder::new()),
            (Storage::Float64, _) => Cells::Float64(Float64Builder::new()),
            (Storage::Decimal(precision, scale), _) => Cells::Decimal(decimal_builder(*precision, *scale)?),
            (Storage::NumericText | Storage::Text, _) => Cells::Text(StringBuilder::new()),
            (Storage::Bytes, _) => Cells::Bytes(BinaryBuilder::new()),
            (Storage::Date, _) => Cells::Date(Date32Builder::new()),
            (Storage::Time, _) => Cells::Time(Time64MicrosecondBuilder::new()),
            (Storage::Timestamp, _) => Cells::Timestamp(TimestampMicrosecondBuilder::new()),
            (Storage::TimestampTz, _) => Cells::Timestamp(TimestampMicrosecondBuilder::new().with_timezone("UTC")),
            (Storage::Uuid, _) => Cells::Uuid(FixedSizeBinaryBuilder::new(16)),
            (Storage::UInt32, _) => Cells::UInt32(UInt32Builder::new()),
            (Storage::Interval, _) => Cells::Interval(Box::new(IntervalCells::new(fields_of(pg_type)?))),
            (Storage::Reg, _) => Cells::Reg(Box::new(RegCells::new(fields_of(pg_type)?))),
            (Storage::Struct(_), PgType::Composite(attributes)) => Cells::Struct(StructCells {
                fields: fields_of(pg_type)?,
                members: attributes.iter().map(|a| ColumnBuilder::new(&a.pg_type)).collect::<Result<_>>()?,
                valid: Vec::new(),
            }),
            (Storage::List(_), PgType::Array(element)) => Cells::List(Box::new(ListCells::new(pg_type, element)?)),
            (Storage::Struct(_) | Storage::List(_), _) => return Err(confused()),
        };
        Ok(Self { storage, cells })
    }

    /// Appends a value, or NULL. `false` means that the value is an outlier, and NULL was appended in its place.
    fn append(&mut self, value: Option<&Value<'_>>) -> Result<bool> {
        let cell = match value {
            Some(value) => cell(&self.storage, value)?,
            None => None,
        };
        let stored = cell.is_some() || value.is_none();
        match cell {
            Some(cell) => self.put(cell)?,
            None => self.put_null(),
        }
        Ok(stored)
    }

    fn put(&mut self, cell: Cell<'_, '_>) -> Result<()> {
        match (&mut self.cells, cell) {
            (Cells::Bool(b), Cell::Bool(v)) => b.append_value(v),
            (Cells::Int16(b), Cell::Int16(v)) => b.append_value(v),
            (Cells::Int32(b), Cell::Int32(v)) => b.append_value(v),
            (Cells::Int64(b), Cell::Int64(v)) => b.append_value(v),
            (Cells::Float32(b), Cell::Float32(v)) => b.append_value(v),
            (Cells::Float64(b), Cell::Float64(v)) => b.append_value(v),
            (Cells::Decimal(b), Cell::Int128(v)) => b.append_value(v),
            (Cells::Text(b), Cell::Text(v)) => b.append_value(v),
            (Cells::Text(b), Cell::NumericText(v)) => {
                write!(b, "{v}").map_err(|_| confused())?;
                b.append_value("");
            }
            (Cells::Bytes(b), Cell::Bytes(v)) => b.append_value(v),
            (Cells::Date(b), Cell::Int32(v)) => b.append_value(v),
            (Cells::Time(b), Cell::Int64(v)) => b.append_value(v),
            (Cells::Timestamp(b), Cell::Int64(v)) => b.append_value(v),
            (Cells::Uuid(b), Cell::Uuid(v)) => b.append_value(v).map_err(|_| confused())?,
            (Cells::UInt32(b), Cell::UInt32(v)) => b.append_value(v),
            (Cells::Interval(b), Cell::Interval(v)) => b.put(v),
            (Cells::Reg(b), Cell::Reg(oid, name)) => b.put(oid, name),
            (Cells::Struct(b), Cell::Struct(v)) => b.put(v)?,
            (Cells::List(b), Cell::List(v)) => b.put(v)?,
            _ => return Err(confused()),
        }
        Ok(())
    }

    fn put_null(&mut self) {
        match &mut self.cells {
            Cells::Bool(b) => b.append_null(),
            Cells::Int16(b) => b.append_null(),
            Cells::Int32(b) => b.append_null(),
            Cells::Int64(b) => b.append_null(),
            Cells::Float32(b) => b.append_null(),
            Cells::Float64(b) => b.append_null(),
            Cells::Decimal(b) => b.append_null(),
            Cells::Text(b) => b.append_null(),
            Cells::Bytes(b) => b.append_null(),
            Cells::Date(b) => b.append_null(),
            Cells::Time(b) => b.append_null(),
            Cells::Timestamp(b) => b.append_null(),
            Cells::Uuid(b) => b.append_null(),
            Cells::UInt32(b) => b.append_null(),
            Cells::Interval(b) => b.put_null(),
            Cells::Reg(b) => b.put_null(),
            Cells::Struct(b) => b.put_null(),
            Cells::List(b) => b.end(false),
        }
    }

    /// The column; the builder is empty afterwards.
    fn finish(&mut self) -> Result<ArrayRef> {
        Ok(match &mut self.cells {
            Cells::Bool(b) => Arc::new(b.finish()),
            Cells::Int16(b) => Arc::new(b.finish()),
            Cells::Int32(b) => Arc::new(b.finish()),
            Cells::Int64(b) => Arc::new(b.finish()),
            Cells::Float32(b) => Arc::new(b.finish()),
            Cells::Float64(b) => Arc::new(b.finish()),
            Cells::Decimal(b) => Arc::new(b.finish()),
            Cells::Text(b) => Arc::new(b.finish()),
            Cells::Bytes(b) => Arc::new(b.finish()),
            Cells::Date(b) => Arc::new(b.finish()),
            Cells::Time(b) => Arc::new(b.finish()),
            Cells::Timestamp(b) => Arc::new(b.finish()),
            Cells::Uuid(b) => Arc::new(b.finish()),
            Cells::UInt32(b) => Arc::new(b.finish()),
            Cells::Interval(b) => b.finish()?,
            Cells::Reg(b) => b.finish()?,
            Cells::Struct(b) => b.finish()?,
            Cells::List(b) => b.finish()?,
        })
    }
}

/// The members of a struct; each has a cell for every row, NULL where the struct is.
impl StructCells {
    fn put(&mut self, parts: &[Option<Value<'_>>]) -> Result<()> {
        for (member, part) in self.members.iter_mut().zip(parts) {
            if !member.append(part.as_ref())? {
                return Err(confused());
            }
        }
        self.valid.push(true);
        Ok(())
    }

    fn put_null(&mut self) {
        self.members.iter_mut().for_each(ColumnBuilder::put_null);
        self.valid.push(false);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let members = self.members.iter_mut().map(ColumnBuilder::finish).collect::<Result<Vec<_>>>()?;
        structs(&self.fields, members, &mut self.valid)
    }
}

impl IntervalCells {
    fn new(fields: Fields) -> Self {
        let (months, days, micros) = (Int32Builder::new(), Int32Builder::new(), Int64Builder::new());
        Self { fields, months, days, micros, valid: Vec::new() }
    }

    fn put(&mut self, interval: IntervalValue) {
        self.months.append_value(interval.months);
        self.days.append_value(interval.days);
        self.micros.append_value(interval.micros);
        self.valid.push(true);
    }

    fn put_null(&mut self) {
        self.months.append_null();
        self.days.append_null();
        self.micros.append_null();
        self.valid.push(false);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let members: Vec<ArrayRef> =
            vec![Arc::new(self.months.finish()), Arc::new(self.days.finish()), Arc::new(self.micros.finish())];
        structs(&self.fields, members, &mut self.valid)
    }
}

impl RegCells {
    fn new(fields: Fields) -> Self {
        Self { fields, oids: UInt32Builder::new(), names: StringBuilder::new(), valid: Vec::new() }
    }

    fn put(&mut self, oid: u32, name: &str) {
        self.oids.append_value(oid);
        self.names.append_value(name);
        self.valid.push(true);
    }

    fn put_null(&mut self) {
        self.oids.append_null();
        self.names.append_null();
        self.valid.push(false);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let members: Vec<ArrayRef> = vec![Arc::new(self.oids.finish()), Arc::new(self.names.finish())];
        structs(&self.fields, members, &mut self.valid)
    }
}

fn structs(fields: &Fields, members: Vec<ArrayRef>, valid: &mut Vec<bool>) -> Result<ArrayRef> {
    let nulls = NullBuffer::from(std::mem::take(valid));
    let array = StructArray::try_new(fields.clone(), members, Some(nulls));
    Ok(Arc::new(array.map_err(|error| confused().source(error))?))
}

fn fields_of(pg_type: &PgType) -> Result<Fields> {
    match pg_type.arrow("", 0).data_type() {
        DataType::Struct(fields) if !fields.is_empty() => Ok(fields.clone()),
        _ => Err(confused()),
    }
}

impl ListCells {
    fn new(list: &PgType, element: &PgType) -> Result<Self> {
        let field = match list.arrow("", 0).data_type() {
            DataType::List(field) => Arc::clone(field),
            _ => return Err(confused()),
        };
        Ok(Self { field, element: ColumnBuilder::new(element)?, offsets: vec![0], valid: Vec::new() })
    }

    fn put(&mut self, array: &ArrayValue<'_>) -> Result<()> {
        for element in &array.elements {
            if !self.element.append(element.as_ref())? {
                return Err(confused());
            }
        }
        let length = i32::try_from(array.elements.len()).map_err(|_| confused())?;
        let end = self.offsets.last().copied().unwrap_or(0).checked_add(length).ok_or_else(confused)?;
        self.offsets.push(end);
        self.valid.push(true);
        Ok(())
    }

    /// Ends a list without elements.
    fn end(&mut self, valid: bool) {
        self.offsets.push(self.offsets.last().copied().unwrap_or(0));
        self.valid.push(valid);
    }

    fn finish(&mut self) -> Result<ArrayRef> {
        let offsets = OffsetBuffer::new(ScalarBuffer::from(std::mem::replace(&mut self.offsets, vec![0])));
        let nulls = NullBuffer::from(std::mem::take(&mut self.valid));
        let list = ListArray::try_new(Arc::clone(&self.field), offsets, self.element.finish()?, Some(nulls));
        Ok(Arc::new(list.map_err(|error| confused().source(error))?))
    }
}

/// The builder of a sidecar; it exists only while the batch has outliers in the column.
#[derive(Debug, Default)]
struct SidecarBuilder {
    rows: usize,
    texts: StringBuilder,
}

impl SidecarBuilder {
    /// The text of the value in row `row`; rows in between are NULL.
    fn append(&mut self, row: usize, text: &str) {
        self.fill(row);
        self.texts.append_value(text);
        self.rows = row + 1;
    }

    fn fill(&mut self, rows: usize) {
        self.texts.append_nulls(rows.saturating_sub(self.rows));
        self.rows = self.rows.max(rows);
    }

    /// The column of `rows` rows.
    fn finish(mut self, rows: usize) -> ArrayRef {
        self.fill(rows);
        Arc::new(self.texts.finish())
    }
}

fn decimal_builder(precision: u8, scale: i8) -> Result<Decimal128Builder> {
    Decimal128Builder::new().with_precision_and_scale(precision, scale).map_err(|error| confused().source(error))
}

fn confused() -> Error {
    Error::new(ErrorKind::Internal, "could not encode a value")
}
