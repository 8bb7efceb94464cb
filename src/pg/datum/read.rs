//! Datums to codec values.

use std::borrow::Cow;
use std::mem::ManuallyDrop;
use std::str::Utf8Error;

use archive_core::codec::{ArrayValue, IntervalValue, Value, jsonb_disk, numeric_disk};
use archive_core::schema::PgType;
use pgrx::pg_sys;

use super::build::KEPT_CAPACITY;
use super::node::{Node, RowType, Shape};
use crate::error::{Error, Result, SqlState};
use crate::pg::encoding::Encoding;
use crate::pg::varlena::{payload as varlena, raw_size};

/// Documents from this size on are printed by PostgreSQL.
const LARGE: usize = 64 << 10;

impl Node {
    /// The codec's value of a datum. What it borrows lives in the datum, in `self`, or in the current memory context.
    ///
    /// # Safety
    /// `datum` is a non-null value of this type; it, `self` and the current memory context stay valid for `'r`.
    #[inline]
    pub(super) unsafe fn value<'r>(&self, datum: pg_sys::Datum) -> Result<Value<'r>> {
        // SAFETY: every arm reads the representation of its own type, by the caller's promise.
        unsafe {
            Ok(match &self.pg_type {
                PgType::Bool => Value::Bool(datum.value() & 0xFF != 0),
                PgType::Int2 => Value::Int2(datum.value() as i16),
                PgType::Int4 => Value::Int4(datum.value() as i32),
                PgType::Int8 | PgType::Money => Value::Int8(datum.value() as i64),
                PgType::Float4 => Value::Float4(f32::from_bits(datum.value() as u32)),
                PgType::Float8 => Value::Float8(f64::from_bits(datum.value() as u64)),
                PgType::Numeric { .. } | PgType::UnboundedNumeric => {
                    Value::Numeric(numeric_disk::parse(varlena(datum)))
                }
                PgType::Text | PgType::Varchar | PgType::Bpchar | PgType::Json | PgType::Xml => {
                    text(varlena(datum), self.encoding)
                }
                PgType::Jsonb => text(self.print_jsonb(datum), self.encoding),
                PgType::Other if self.holds_oids || (self.text_may_mislead && !self.text_says_all(datum)) => {
                    Value::Image(self.io.image(datum))
                }
                PgType::Other => text(self.io.print(datum), self.encoding),
                PgType::Bytea | PgType::Opaque => Value::Bytes(varlena(datum)),
                PgType::Date => Value::Date(datum.value() as i32),
                PgType::Time => Value::Time(datum.value() as i64),
                PgType::Timestamp | PgType::TimestampTz => Value::Timestamp(datum.value() as i64),
                PgType::Interval => Value::Interval(interval(&*datum.cast_mut_ptr::<pg_sys::Interval>())),
                PgType::Uuid => Value::Uuid(*datum.cast_mut_ptr::<[u8; 16]>()),
                PgType::Oid => Value::UInt4(datum.value() as u32),
                PgType::Reg => Value::Reg(datum.value() as u32, self.reg_name(datum)),
                PgType::Enum | PgType::Array(_) | PgType::Composite(_) => self.shaped(datum)?,
            })
        }
    }

    /// Calls `visit` with the codec's value of a datum. Of each type that is usual by a call of its own, so that all that is done with
    /// the value is compiled for its kind: an export spends most of its time here.
    ///
    /// # Safety
    /// As for [`Self::value`].
    #[inline(always)]
    pub(super) unsafe fn visit<T>(&self, datum: pg_sys::Datum, visit: impl FnOnce(&Value<'_>) -> T) -> Result<T> {
        // SAFETY: as in `value`.
        unsafe {
            Ok(match &self.pg_type {
                PgType::Bool => visit(&borrowing(Value::Bool(datum.value() & 0xFF != 0))),
                PgType::Int4 => visit(&borrowing(Value::Int4(datum.value() as i32))),
                PgType::Int8 => visit(&borrowing(Value::Int8(datum.value() as i64))),
                PgType::Float8 => visit(&borrowing(Value::Float8(f64::from_bits(datum.value() as u64)))),
                PgType::Date => visit(&borrowing(Value::Date(datum.value() as i32))),
                PgType::Timestamp | PgType::TimestampTz => visit(&borrowing(Value::Timestamp(datum.value() as i64))),
                PgType::Uuid => visit(&borrowing(Value::Uuid(*datum.cast_mut_ptr::<[u8; 16]>()))),
                PgType::Numeric { .. } => visit(&borrowing(Value::Numeric(numeric_disk::parse(varlena(datum))))),
                PgType::Text | PgType::Varchar if matches!(self.encoding, Encoding::Utf8) => {
                    let bytes = varlena(datum);
                    match utf8(bytes) {
                        Ok(text) => visit(&borrowing(Value::Text(text))),
                        Err(_) => visit(&Value::Undecodable(bytes)),
                    }
                }
                PgType::Jsonb if matches!(self.encoding, Encoding::Utf8) => {
                    let mut printed = self.printed.borrow_mut();
                    let text = match print_document(datum, &mut printed) {
                        Some(()) => printed.as_slice(),
                        None => self.io.print(datum),
                    };
                    match utf8(text) {
                        Ok(text) => visit(&borrowing(Value::Text(text))),
                        Err(_) => visit(&Value::Undecodable(text)),
                    }
                }
                _ => visit(&self.value(datum)?),
            })
        }
    }

    /// What the output function prints, several times as fast. A domain prints as its base type does.
    ///
    /// # Safety
    /// As for [`Self::value`], of a `jsonb`.
    unsafe fn print_jsonb<'r>(&self, datum: pg_sys::Datum) -> &'r [u8] {
        let mut printed = self.printed.borrow_mut();
        // SAFETY: by the caller's promise.
        unsafe {
            match print_document(datum, &mut printed) {
                Some(()) => palloc_bytes(&printed),
                None => self.io.print(datum),
            }
        }
    }

    /// # Safety
    /// As for [`Self::value`].
    unsafe fn shaped<'r>(&self, datum: pg_sys::Datum) -> Result<Value<'r>> {
        // SAFETY: by the caller's promise; the shape is that of the type.
        unsafe {
            match &self.shape {
                Shape::Enum(labels) => {
                    Ok(labels.text(pg_sys::Oid::from(datum.value() as u32), &self.io, self.encoding))
                }
                Shape::Array(element) => element.array(datum).map(Value::Array),
                Shape::Composite(row) => row.values(datum).map(Value::Composite),
                Shape::Scalar => Err(confused()),
            }
        }
    }

    /// # Safety
    /// As for [`Self::value`].
    unsafe fn reg_name<'r>(&self, datum: pg_sys::Datum) -> &'r str {
        // SAFETY: by the caller's promise.
        match text(unsafe { self.io.print(datum) }, self.encoding) {
            Value::Text(name) => name,
            // The OID is the value; elsewhere nothing would have a name like this.
            _ => "",
        }
    }

    /// Whether the input function makes the same value of what the output function prints. PostgreSQL's own types are
    /// known to; a type of an extension may print less than it holds, as `seg` rounds.
    ///
    /// # Safety
    /// `datum` is a non-null value of this type.
    pub(super) unsafe fn text_says_all(&self, datum: pg_sys::Datum) -> bool {
        // SAFETY: by the caller's promise.
        unsafe { self.is_made_of(datum, self.io.print(datum)) }
    }

    /// Whether the input function makes the datum of what the output function printed of it.
    ///
    /// # Safety
    /// As for [`Self::text_says_all`].
    pub(super) unsafe fn is_made_of(&self, datum: pg_sys::Datum, printed: &[u8]) -> bool {
        // SAFETY: by the caller's promise; what was parsed is a value of the type too.
        unsafe { self.io.parse(printed).is_some_and(|parsed| self.io.image(parsed) == self.io.image(datum)) }
    }

    /// The array whose elements are of this type.
    ///
    /// # Safety
    /// `datum` is a non-null array of elements of this type; else as for [`Self::value`].
    unsafe fn array<'r>(&self, datum: pg_sys::Datum) -> Result<ArrayValue<'r>> {
        // SAFETY: the array is detoasted into the row's memory, which outlives 'r; there are `count` values and flags.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (sizes, lower_bounds) = dimensions(array);
            let dims = sizes.iter().copied().zip(lower_bounds.iter().copied()).collect();
            let (values, nulls, count) = self.deconstruct(array);
            let element = |i: usize| if *nulls.add(i) { Ok(None) } else { self.value(*values.add(i)).map(Some) };
            let elements = (0..count as usize).map(element).collect::<Result<_>>()?;
            Ok(ArrayValue { dims, elements })
        }
    }

    /// Whether an array whose elements are of this type is, byte for byte, what its text makes. Cheaper than making it, for
    /// elements of which that is known: then an array is what PostgreSQL would construct of its elements, unless it has a
    /// bitmap of NULLs without a NULL. `None` where it is not known.
    ///
    /// # Safety
    /// As for [`Self::array`].
    pub(super) unsafe fn is_plain_array(&self, datum: pg_sys::Datum) -> Option<bool> {
        if !self.is_what_its_text_says() {
            return None;
        }
        // SAFETY: as for `array`; construct_md_array reads as many values as the dimensions say, which are as many as
        // were deconstructed.
        unsafe {
            let array = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::ArrayType>();
            let (sizes, lower_bounds) = dimensions(array);
            let (values, nulls, _) = self.deconstruct(array);
            let again = pg_sys::construct_md_array(
                values,
                nulls,
                (*array).ndim,
                sizes.as_ptr().cast_mut(),
                lower_bounds.as_ptr().cast_mut(),
                (*array).elemtype,
                self.io.len.into(),
                self.io.by_value,
                self.io.align,
            );
            Some(varlena(pg_sys::Datum::from(again)) == varlena(pg_sys::Datum::from(array)))
        }
    }

    /// Whether each value of the type has one representation only, and its text is that of no other.
    fn is_what_its_text_says(&self) -> bool {
        // SAFETY: a catalog lookup of a type in use.
        let is_domain = unsafe { pg_sys::getBaseType(self.io.oid) } != self.io.oid;
        let plain = matches!(
            self.pg_type,
            PgType::Bool
                | PgType::Int2
                | PgType::Int4
                | PgType::Int8
                | PgType::Text
                | PgType::Varchar
                | PgType::Bytea
                | PgType::Date
                | PgType::Timestamp
                | PgType::TimestampTz
                | PgType::Uuid
        );
        plain && !is_domain
    }

    /// The elements, their NULL flags, and how many there are, in the current memory context.
    ///
    /// # Safety
    /// `array` is a detoasted array of elements of this type.
    unsafe fn deconstruct(&self, array: *mut pg_sys::ArrayType) -> (*mut pg_sys::Datum, *mut bool, i32) {
        let (mut values, mut nulls, mut count) = (std::ptr::null_mut(), std::ptr::null_mut(), 0);
        // SAFETY: by the caller's promise; the out pointers are valid.
        unsafe {
            pg_sys::deconstruct_array(
                array,
                (*array).elemtype,
                self.io.len.into(),
                self.io.by_value,
                self.io.align,
                &mut values,
                &mut nulls,
                &mut count,
            );
        }
        (values, nulls, count)
    }
}

/// A value that owns nothing: the compiler would call its destructor for each all the same.
#[inline(always)]
fn borrowing(value: Value<'_>) -> ManuallyDrop<Value<'_>> {
    ManuallyDrop::new(value)
}

/// The text of bytes in UTF-8; most are ASCII, which is seen sooner.
#[inline(always)]
fn utf8(bytes: &[u8]) -> std::result::Result<&str, Utf8Error> {
    if bytes.is_ascii() {
        // SAFETY: ASCII is UTF-8.
        return Ok(unsafe { std::str::from_utf8_unchecked(bytes) });
    }
    std::str::from_utf8(bytes)
}

/// The sizes of the dimensions of an array, and their lower bounds (`ARR_DIMS`, `ARR_LBOUND`).
///
/// # Safety
/// `array` is a detoasted array that lives for `'r`.
unsafe fn dimensions<'r>(array: *const pg_sys::ArrayType) -> (&'r [i32], &'r [i32]) {
    // SAFETY: by the caller's promise; both follow the fixed header.
    unsafe {
        let ndim = (*array).ndim as usize;
        std::slice::from_raw_parts(array.add(1).cast::<i32>(), 2 * ndim).split_at(ndim)
    }
}

impl RowType {
    /// The attributes of a composite value, in the order in which they are archived.
    ///
    /// # Safety
    /// `datum` is a non-null value of the type; else as for [`Node::value`].
    unsafe fn values<'r>(&self, datum: pg_sys::Datum) -> Result<Vec<Option<Value<'r>>>> {
        // SAFETY: the header is detoasted into the row's memory; heap_deform_tuple fills one entry for each attribute.
        unsafe {
            let header = pg_sys::pg_detoast_datum(datum.cast_mut_ptr()).cast::<pg_sys::HeapTupleHeaderData>();
            let mut tuple = pg_sys::HeapTupleData {
                t_len: pgrx::varsize_any(header.cast()) as u32,
                t_data: header,
                ..Default::default()
            };
            let count = (*self.tupdesc).natts as usize;
            let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
            pg_sys::heap_deform_tuple(&raw mut tuple, self.tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
            let attribute = |(index, node): &(Option<usize>, Option<Node>)| match (index, node) {
                (Some(index), Some(node)) if nulls.get(*index) == Some(&false) => {
                    values.get(*index).map(|datum| node.value(*datum)).transpose()
                }
                _ => Ok(None),
            };
            self.attributes.iter().map(attribute).collect()
        }
    }
}

/// Puts the text of a document in the place of what is in `printed`. `None` for one that is not understood, and for a large one, which
/// is not to be in memory once more.
///
/// # Safety
/// As for [`Node::value`], of a `jsonb`.
unsafe fn print_document(datum: pg_sys::Datum, printed: &mut Vec<u8>) -> Option<()> {
    // A document of huge numbers is much longer as a text.
    if printed.capacity() > KEPT_CAPACITY {
        *printed = Vec::new();
    }
    printed.clear();
    // SAFETY: by the caller's promise.
    unsafe { if raw_size(datum) > LARGE { None } else { jsonb_disk::print(varlena(datum), printed) } }
}

fn interval(interval: &pg_sys::Interval) -> IntervalValue {
    IntervalValue { months: interval.month, days: interval.day, micros: interval.time }
}

/// Text in the encoding of the database as the codec wants it. A converted text is put into the current memory context.
pub(super) fn text(bytes: &[u8], encoding: Encoding) -> Value<'_> {
    match encoding.to_utf8(bytes) {
        Some(Cow::Borrowed(text)) => Value::Text(text),
        Some(Cow::Owned(text)) => Value::Text(palloc_text(&text)),
        None => Value::Undecodable(bytes),
    }
}

fn palloc_text<'r>(text: &str) -> &'r str {
    // SAFETY: the bytes of a text.
    unsafe { std::str::from_utf8_unchecked(palloc_bytes(text.as_bytes())) }
}

fn palloc_bytes<'r>(bytes: &[u8]) -> &'r [u8] {
    // SAFETY: as many bytes as there are are allocated and filled; they live as long as the current memory context, to which the
    // caller's promise binds 'r.
    unsafe {
        let copy = pg_sys::MemoryContextAllocHuge(pg_sys::CurrentMemoryContext, bytes.len().max(1)).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
        std::slice::from_raw_parts(copy, bytes.len())
    }
}

fn confused() -> Error {
    Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "a column's type is not what it was looked up as")
}
