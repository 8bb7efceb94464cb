//! PostgreSQL datums to codec values and back.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CStr, CString};

use archive_core::codec::{ArrayValue, Decoded, Value, numeric_disk};
use archive_core::schema::PgType;
use pgrx::pg_sys;

use super::columns::Column;
use super::row::{Row, RowBuffer};
use crate::error::{Error, Result, SqlState};

/// Length, by-value flag, alignment and I/O functions of a type.
#[derive(Debug, Clone, Copy)]
struct TypeIo {
    oid: pg_sys::Oid,
    len: i16,
    by_value: bool,
    align: std::ffi::c_char,
    input: pg_sys::Oid,
    output: pg_sys::Oid,
    io_param: pg_sys::Oid,
}

impl TypeIo {
    fn of(oid: pg_sys::Oid) -> Self {
        let mut io = Self {
            oid,
            len: 0,
            by_value: false,
            align: 0,
            input: pg_sys::InvalidOid,
            output: pg_sys::InvalidOid,
            io_param: pg_sys::InvalidOid,
        };
        let mut is_varlena = false;
        // SAFETY: catalog lookups of a type that a column uses; the out pointers are valid.
        unsafe {
            pg_sys::get_typlenbyvalalign(oid, &mut io.len, &mut io.by_value, &mut io.align);
            pg_sys::getTypeInputInfo(oid, &mut io.input, &mut io.io_param);
            pg_sys::getTypeOutputInfo(oid, &mut io.output, &mut is_varlena);
        }
        io
    }
}

/// Reads and rebuilds the values of one column.
#[derive(Debug)]
pub struct ColumnIo {
    index: usize,
    name: String,
    pg_type: PgType,
    io: TypeIo,
    element: Option<TypeIo>,
    labels: RefCell<HashMap<pg_sys::Oid, String>>,
    label_oids: RefCell<HashMap<String, pg_sys::Oid>>,
    scratch: RefCell<Vec<u8>>,
}

impl ColumnIo {
    /// I/O for `column`, whose codec type is `pg_type`.
    pub fn new(column: &Column, pg_type: &PgType) -> Self {
        let element = matches!(pg_type, PgType::Array(_)).then(|| {
            // SAFETY: catalog lookup; the column's type is an array.
            TypeIo::of(unsafe { pg_sys::get_element_type(column.type_oid) })
        });
        Self {
            index: column.index,
            name: column.name.clone(),
            pg_type: pg_type.clone(),
            io: TypeIo::of(column.type_oid),
            element,
            labels: RefCell::default(),
            label_oids: RefCell::default(),
            scratch: RefCell::default(),
        }
    }

    /// The value of this column in `row`; `None` for NULL. What it borrows lives until the row's memory is reset.
    pub fn read<'r>(&self, row: &Row<'r>) -> Result<Option<Value<'r>>> {
        let Some(datum) = row.datum(self.index) else { return Ok(None) };
        // SAFETY: the datum is a non-null value of this column's type, valid while the row is borrowed.
        unsafe { self.value(datum, &self.pg_type, &self.io) }.map(Some)
    }

    /// PostgreSQL's text form of this column in `row`, for values that the native Parquet type cannot hold.
    pub fn text(&self, row: &Row<'_>) -> String {
        let Some(datum) = row.datum(self.index) else { return String::new() };
        // SAFETY: output function of this column's type on a non-null value of it.
        unsafe { c_text(pg_sys::OidOutputFunctionCall(self.io.output, datum)) }.to_owned()
    }

    /// Rebuilds the datum of this column from an archived cell, in the current memory context.
    pub fn write(&self, cell: &Decoded<'_>, row: &mut RowBuffer) -> Result<()> {
        let datum = self.datum(cell)?;
        row.set(self.index, datum);
        Ok(())
    }

    pub(super) fn datum(&self, cell: &Decoded<'_>) -> Result<Option<pg_sys::Datum>> {
        match cell {
            Decoded::Null => Ok(None),
            Decoded::Text(text) => self.text_datum(text, &self.io).map(Some),
            Decoded::Value(value) => self.value_datum(value, &self.pg_type, &self.io).map(Some),
        }
    }

    /// # Safety
    /// `datum` is a non-null value of the type `io` describes and stays valid for `'r`.
    unsafe fn value<'r>(&self, datum: pg_sys::Datum, pg_type: &PgType, io: &TypeIo) -> Result<Value<'r>> {
        // SAFETY: every arm reads the representation of its own type, by the caller's promise.
        unsafe {
            Ok(match pg_type {
                PgType::Bool => Value::Bool(datum.value() & 0xFF != 0),
                PgType::Int2 => Value::Int2(datum.value() as i16),
                PgType::Int4 => Value::Int4(datum.value() as i32),
                PgType::Int8 => Value::Int8(datum.value() as i64),
                PgType::Float4 => Value::Float4(f32::from_bits(datum.value() as u32)),
                PgType::Float8 => Value::Float8(f64::from_bits(datum.value() as u64)),
                PgType::Numeric { .. } => Value::Numeric(numeric_disk::parse(varlena(datum))),
                PgType::Text | PgType::Varchar | PgType::Bpchar | PgType::Json => {
                    Value::Text(self.utf8(varlena(datum))?)
                }
                PgType::Jsonb => Value::Text(c_text(pg_sys::OidOutputFunctionCall(io.output, datum))),
                PgType::Bytea => Value::Bytes(varlena(datum)),
                PgType::Date => Value::Date(datum.value() as i32),
                PgType::Time => Value::Time(datum.value() as i64),
                PgType::Timestamp | PgType::TimestampTz => Value::Timestamp(datum.value() as i64),
                PgType::Uuid => Value::Uuid(*datum.cast_mut_ptr::<[u8; 16]>()),
                PgType::Enum => Value::Text(self.label(pg_sys::Oid::from(datum.value() as u32), io)),
                PgType::Array(element) => Value::Array(self.array(datum, element)?),
            })
        }
    }

    fn utf8<'r>(&self, bytes: &'r [u8]) -> Result<&'r str> {
        std::str::from_utf8(bytes).map_err(|_| {
            Error::new(
                SqlState::ERRCODE_CHARACTER_NOT_IN_REPERTOIRE,
                format!("column \"{}\" holds a value that is not valid UTF-8", self.name),
            )
        })
    }

    /// # Safety
    /// `io` describes an enum type and `value` is one of its values.
    unsafe fn label<'r>(&self, value: pg_sys::Oid, io: &TypeIo) -> &'r str {
        let mut labels = self.labels.borrow_mut();
        let label = labels.entry(value).or_insert_with(|| {
            // SAFETY: enum_out on a value of the enum.
            unsafe { c_text(pg_sys::OidOutputFunctionCall(io.output, pg_sys::Datum::from(value))) }.to_owned()
        });
        // SAFETY: labels are never removed or changed, and their heap storage outlives every row of the scan.
        unsafe { std::mem::transmute::<&str, &'r str>(label.as_str()) }
    }

    /// # Safety
    /// `datum` is an array whose elements `self.element` describes.
    unsafe fn array<'r>(&self, datum: pg_sys::Datum, pg_type: &PgType) -> Result<ArrayValue<'r>> {
        let Some(io) = &self.element else { return Err(not_an_array(&self.name)) };
        // SAFETY: the array is detoasted into the row's memory, which outlives 'r; deconstruct_array fills
        // `count` entries; ARR_DIMS and ARR_LBOUND follow the fixed header.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let ndim = (*array).ndim as usize;
            let sizes = array.add(1).cast::<i32>();
            let dims = (0..ndim).map(|d| (*sizes.add(d), *sizes.add(ndim + d))).collect();
            let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
            pg_sys::deconstruct_array(
                array,
                io.oid,
                io.len.into(),
                io.by_value,
                io.align,
                &mut values,
                &mut nulls,
                &mut count,
            );
            let element = |i: usize| {
                if *nulls.add(i) { Ok(None) } else { self.value(*values.add(i), pg_type, io).map(Some) }
            };
            let elements = (0..count as usize).map(element).collect::<Result<_>>()?;
            Ok(ArrayValue { dims, elements })
        }
    }

    fn text_datum(&self, text: &str, io: &TypeIo) -> Result<pg_sys::Datum> {
        let text = CString::new(text).map_err(|_| {
            Error::new(
                SqlState::ERRCODE_DATA_CORRUPTED,
                format!("archived text of column \"{}\" holds a NUL byte", self.name),
            )
        })?;
        // SAFETY: input function of this type; a bad text raises a PostgreSQL error.
        Ok(unsafe { pg_sys::OidInputFunctionCall(io.input, text.as_ptr().cast_mut(), io.io_param, -1) })
    }

    fn value_datum(&self, value: &Value<'_>, pg_type: &PgType, io: &TypeIo) -> Result<pg_sys::Datum> {
        Ok(match value {
            Value::Bool(v) => pg_sys::Datum::from(*v),
            Value::Int2(v) => pg_sys::Datum::from(*v),
            Value::Int4(v) | Value::Date(v) => pg_sys::Datum::from(*v),
            Value::Int8(v) | Value::Time(v) | Value::Timestamp(v) => pg_sys::Datum::from(*v),
            Value::Float4(v) => pg_sys::Datum::from(v.to_bits()),
            Value::Float8(v) => pg_sys::Datum::from(v.to_bits()),
            Value::Uuid(v) => palloc_copy(v),
            Value::Bytes(v) => palloc_varlena(v),
            Value::Numeric(v) => {
                let mut scratch = self.scratch.borrow_mut();
                numeric_disk::build(v, &mut scratch);
                palloc_varlena(&scratch)
            }
            Value::Text(v) => match pg_type {
                PgType::Jsonb => self.text_datum(v, io)?,
                PgType::Enum => self.enum_value(v, io)?,
                _ => palloc_varlena(v.as_bytes()),
            },
            Value::Array(v) => self.array_datum(v, pg_type)?,
        })
    }

    fn enum_value(&self, label: &str, io: &TypeIo) -> Result<pg_sys::Datum> {
        if let Some(oid) = self.label_oids.borrow().get(label) {
            return Ok(pg_sys::Datum::from(*oid));
        }
        let datum = self.text_datum(label, io)?;
        self.label_oids.borrow_mut().insert(label.to_owned(), pg_sys::Oid::from(datum.value() as u32));
        Ok(datum)
    }

    fn array_datum(&self, array: &ArrayValue<'_>, pg_type: &PgType) -> Result<pg_sys::Datum> {
        let (PgType::Array(element_type), Some(io)) = (pg_type, &self.element) else {
            return Err(not_an_array(&self.name));
        };
        let mut values = Vec::with_capacity(array.elements.len());
        let mut nulls = Vec::with_capacity(array.elements.len());
        for element in &array.elements {
            nulls.push(element.is_none());
            values.push(match element {
                Some(value) => self.value_datum(value, element_type, io)?,
                None => pg_sys::Datum::null(),
            });
        }
        let (mut dims, mut bounds): (Vec<i32>, Vec<i32>) = array.dims.iter().copied().unzip();
        // SAFETY: the arrays have one entry for each element and dimension; the result is a palloc'd array.
        let array = unsafe {
            pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                dims.len() as i32,
                dims.as_mut_ptr(),
                bounds.as_mut_ptr(),
                io.oid,
                io.len.into(),
                io.by_value,
                io.align,
            )
        };
        Ok(pg_sys::Datum::from(array))
    }
}

fn not_an_array(column: &str) -> Error {
    Error::new(SqlState::ERRCODE_DATATYPE_MISMATCH, format!("column \"{column}\" is not an array"))
}

/// The payload of a varlena, detoasted in the current memory context where needed.
///
/// # Safety
/// `datum` points to a varlena that stays valid for `'r`, as does the current memory context's content.
unsafe fn varlena<'r>(datum: pg_sys::Datum) -> &'r [u8] {
    // SAFETY: by the caller's promise.
    unsafe {
        let packed = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        std::slice::from_raw_parts(pgrx::vardata_any(packed).cast(), pgrx::varsize_any_exhdr(packed))
    }
}

/// # Safety
/// `text` is a NUL-terminated string in the server encoding (UTF-8, checked before a run) that outlives `'r`.
unsafe fn c_text<'r>(text: *const std::ffi::c_char) -> &'r str {
    // SAFETY: by the caller's promise; output functions return valid text in the server encoding.
    unsafe { CStr::from_ptr(text).to_str().unwrap_or_default() }
}

fn palloc_copy(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: palloc returns at least the requested bytes or raises an error.
    unsafe {
        let target = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        pg_sys::Datum::from(target)
    }
}

fn palloc_varlena(payload: &[u8]) -> pg_sys::Datum {
    // SAFETY: cstring_to_text_with_len copies `len` bytes behind a 4-byte header; any varlena is laid out so.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(payload.as_ptr().cast(), payload.len() as i32)) }
}

/// The text form of any datum through its type's output function.
pub(super) fn output_text(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> String {
    let io = TypeIo::of(type_oid);
    // SAFETY: output function of the type on a non-null value of it.
    unsafe { c_text(pg_sys::OidOutputFunctionCall(io.output, datum)) }.to_owned()
}

/// A datum of any type from its text form.
pub(super) fn input_text(type_oid: pg_sys::Oid, text: &str) -> Option<pg_sys::Datum> {
    let io = TypeIo::of(type_oid);
    let text = CString::new(text).ok()?;
    // SAFETY: input function of the type; a bad text raises a PostgreSQL error.
    Some(unsafe { pg_sys::OidInputFunctionCall(io.input, text.as_ptr().cast_mut(), io.io_param, -1) })
}

/// The codec value of a constant of one of the built-in scalar types; `None` for others.
pub(super) fn constant<'r>(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<Value<'r>> {
    let numeric = type_oid == pg_sys::NUMERICOID;
    let pg_type = PgType::from_oid(type_oid.to_u32(), if numeric { ((38 << 16) | 2) + 4 } else { -1 })?;
    let column = Column {
        index: 0,
        name: String::new(),
        type_oid,
        typmod: -1,
        collation: pg_sys::InvalidOid,
        not_null: true,
        is_virtual: false,
    };
    let io = ColumnIo::new(&column, &pg_type);
    // SAFETY: the caller passes a non-null datum of `type_oid` that lives in the current memory context.
    unsafe { io.value(datum, &io.pg_type, &io.io) }.ok()
}

/// Copies a datum out of the current row into the current memory context.
pub(super) fn copy(datum: pg_sys::Datum, by_value: bool, len: i16) -> pg_sys::Datum {
    match (by_value, len) {
        (true, _) => datum,
        (false, -1) => {
            // SAFETY: a varlena; the copy is detoasted, so that it needs no snapshot later.
            pg_sys::Datum::from(unsafe { pg_sys::pg_detoast_datum_copy(datum.cast_mut_ptr()) })
        }
        (false, len) => {
            // SAFETY: a by-reference type of fixed length; types without a length have no column statistics here.
            palloc_copy(unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), len.max(0) as usize) })
        }
    }
}
