//! Codec values to datums, in the current memory context.

use std::borrow::Cow;
use std::cell::RefCell;
use std::mem::offset_of;

use archive_core::codec::{ArrayValue, IntervalValue, Numeric, Value, jsonb_disk, numeric_disk};
use archive_core::schema::PgType;
use pgrx::pg_sys;

use super::node::{Node, RowType, Shape};
use crate::error::{Error, Result, SqlState};
use crate::pg::arena::Arena;
use crate::pg::encoding::Encoding;

thread_local! {
    /// Where a numeric is put together, so that not every one needs an allocation.
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// Where a document is.
    static DOCUMENT: RefCell<(jsonb_disk::Builder, Vec<u8>)> = RefCell::default();
}

/// Capacity of what documents are put together in that is kept for the next one.
pub(super) const KEPT_CAPACITY: usize = 1 << 20;

impl Node {
    /// The datum of a value.
    pub(super) fn datum(&self, value: &Value<'_>) -> Result<pg_sys::Datum> {
        Ok(match value {
            Value::Bool(v) => pg_sys::Datum::from(*v),
            Value::Int2(v) => pg_sys::Datum::from(*v),
            Value::Int4(v) | Value::Date(v) => pg_sys::Datum::from(*v),
            Value::Int8(v) | Value::Time(v) | Value::Timestamp(v) => pg_sys::Datum::from(*v),
            Value::Float4(v) => pg_sys::Datum::from(v.to_bits()),
            Value::Float8(v) => pg_sys::Datum::from(v.to_bits()),
            Value::UInt4(v) => pg_sys::Datum::from(*v),
            Value::Uuid(v) => palloc_copy(v),
            Value::Bytes(v) => palloc_varlena(v),
            Value::Numeric(v) => numeric(v),
            Value::Interval(v) => interval(*v),
            Value::Text(v) => self.text_value(v)?,
            Value::Undecodable(v) => self.read_server_text(v)?,
            Value::Image(v) => self.read_image(v, None)?,
            Value::Reg(_, name) if !self.same_database && !name.is_empty() => self.parse(name)?,
            Value::Reg(oid, _) => pg_sys::Datum::from(*oid),
            Value::Composite(parts) => match &self.shape {
                Shape::Composite(row) => row.datum(parts)?,
                _ => return Err(mismatch("composite")),
            },
            Value::Array(v) => match &self.shape {
                Shape::Array(element) => element.array_datum(v)?,
                _ => return Err(mismatch("array")),
            },
        })
    }

    /// The same, with the bytes of plain values in `arena`.
    #[inline(always)]
    pub(super) fn datum_in(&self, value: &Value<'_>, arena: &mut Arena) -> Result<pg_sys::Datum> {
        match value {
            Value::Bool(v) => Ok(pg_sys::Datum::from(*v)),
            Value::Int4(v) | Value::Date(v) => Ok(pg_sys::Datum::from(*v)),
            Value::Int8(v) | Value::Timestamp(v) => Ok(pg_sys::Datum::from(*v)),
            Value::Float8(v) => Ok(pg_sys::Datum::from(v.to_bits())),
            _ => self.placed_datum(value, arena),
        }
    }

    fn placed_datum(&self, value: &Value<'_>, arena: &mut Arena) -> Result<pg_sys::Datum> {
        let placed = match value {
            Value::Uuid(v) => arena.copy(v),
            Value::Bytes(v) => arena.varlena(v),
            Value::Numeric(v) => SCRATCH.with_borrow_mut(|scratch| {
                numeric_disk::build(v, scratch);
                arena.varlena(scratch)
            }),
            Value::Text(v) if self.pg_type.is_plain_text() && matches!(self.shape, Shape::Scalar) => {
                arena.varlena(&self.plain_text(v)?)
            }
            Value::Text(v) if self.is_document() => {
                return with_document(v, |document| {
                    arena.varlena(document).unwrap_or_else(|| palloc_varlena(document))
                })
                .map_or_else(|| self.parse(v), Ok);
            }
            _ => None,
        };
        placed.map_or_else(|| self.datum(value), Ok)
    }

    /// Whether texts are those of documents, and in the encoding of the database.
    pub(super) fn is_document(&self) -> bool {
        self.pg_type == PgType::Jsonb && matches!(self.shape, Shape::Scalar) && matches!(self.encoding, Encoding::Utf8)
    }

    /// The bytes of a text in the encoding of the database.
    fn plain_text<'v>(&self, text: &'v str) -> Result<Cow<'v, [u8]>> {
        let bytes = self.encoding.encode(text).ok_or_else(|| untranslatable(&self.pg_type))?;
        // Nothing that PostgreSQL stores has one, and its functions would read past the end.
        if bytes.contains(&0) { Err(holds_nul()) } else { Ok(bytes) }
    }

    fn text_value(&self, text: &str) -> Result<pg_sys::Datum> {
        match &self.shape {
            Shape::Enum(labels) => {
                // SAFETY: catalog lookup of a type in use.
                let base = unsafe { pg_sys::getBaseType(self.io.oid) };
                labels.value(text, base, self.encoding).map(pg_sys::Datum::from)
            }
            _ if self.pg_type.is_plain_text() => Ok(palloc_varlena(&self.plain_text(text)?)),
            _ if self.is_document() => with_document(text, palloc_varlena).map_or_else(|| self.parse(text), Ok),
            _ => self.parse(text),
        }
    }

    /// What the input function makes of a text in UTF-8.
    pub(super) fn parse(&self, text: &str) -> Result<pg_sys::Datum> {
        let bytes = self.encoding.encode(text).ok_or_else(|| untranslatable(&self.pg_type))?;
        self.io.parse(&bytes).ok_or_else(holds_nul)
    }

    /// The value of a text in the encoding of the database.
    pub(super) fn read_server_text(&self, bytes: &[u8]) -> Result<pg_sys::Datum> {
        if self.pg_type.is_plain_text() {
            return Ok(palloc_varlena(bytes));
        }
        self.io.parse(bytes).ok_or_else(holds_nul)
    }

    /// The value that an image is of; in another database than its own the one that its text is of, where the image holds
    /// OIDs of that database.
    pub(super) fn read_image(&self, image: &[u8], text: Option<&str>) -> Result<pg_sys::Datum> {
        let readable = if self.same_database { Some(Cow::Borrowed(image)) } else { self.image_from_elsewhere(image) };
        match (readable.and_then(|image| self.io.of_image(&image)), text) {
            (Some(datum), _) => Ok(datum),
            (None, Some(text)) => self.parse(text),
            (None, None) => Err(foreign_image()),
        }
    }

    /// The image as it would be in this database; `None` when it may hold OIDs that nobody can tell. That of an array of
    /// an extension's base type holds one, its element's type.
    fn image_from_elsewhere<'i>(&self, image: &'i [u8]) -> Option<Cow<'i, [u8]>> {
        const ELEMENT_TYPE: usize = offset_of!(pg_sys::ArrayType, elemtype) - size_of::<pg_sys::varlena>();
        match &self.shape {
            _ if self.holds_oids => None,
            Shape::Scalar => Some(Cow::Borrowed(image)),
            Shape::Array(element) if element.text_may_mislead => {
                let mut image = image.to_vec();
                let oid = element.io.oid.to_u32().to_ne_bytes();
                image.get_mut(ELEMENT_TYPE..ELEMENT_TYPE + oid.len())?.copy_from_slice(&oid);
                Some(Cow::Owned(image))
            }
            _ => None,
        }
    }

    /// An array of elements of this type.
    fn array_datum(&self, array: &ArrayValue<'_>) -> Result<pg_sys::Datum> {
        let (mut values, mut nulls) = self.datums(array.elements.iter())?;
        let (mut dims, mut bounds): (Vec<i32>, Vec<i32>) = array.dims.iter().copied().unzip();
        // SAFETY: the arrays have one entry for each element and dimension; the result is a palloc'd array.
        let array = unsafe {
            pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                dims.len() as i32,
                dims.as_mut_ptr(),
                bounds.as_mut_ptr(),
                self.io.oid,
                self.io.len.into(),
                self.io.by_value,
                self.io.align,
            )
        };
        Ok(pg_sys::Datum::from(array))
    }

    fn datums<'v>(
        &self,
        elements: impl ExactSizeIterator<Item = &'v Option<Value<'v>>>,
    ) -> Result<(Vec<pg_sys::Datum>, Vec<bool>)> {
        let (mut values, mut nulls) = (Vec::with_capacity(elements.len()), Vec::with_capacity(elements.len()));
        for element in elements {
            nulls.push(element.is_none());
            values.push(element.as_ref().map_or(Ok(pg_sys::Datum::null()), |value| self.datum(value))?);
        }
        Ok((values, nulls))
    }
}

impl RowType {
    /// A composite value of the type as it is now: attributes that it gained are NULL, those that it lost are left out.
    fn datum(&self, parts: &[Option<Value<'_>>]) -> Result<pg_sys::Datum> {
        // SAFETY: the descriptor is a live copy of ours.
        let count = unsafe { (*self.tupdesc).natts } as usize;
        let (mut values, mut nulls) = (vec![pg_sys::Datum::null(); count], vec![true; count]);
        for ((index, node), part) in self.attributes.iter().zip(parts) {
            let (Some(index), Some(part)) = (index, part) else { continue };
            let node = node.as_ref().ok_or_else(attribute_changed)?;
            if let (Some(value), Some(null)) = (values.get_mut(*index), nulls.get_mut(*index)) {
                (*value, *null) = (node.datum(part)?, false);
            }
        }
        // SAFETY: one value and one flag for each attribute of the descriptor.
        unsafe {
            let tuple = pg_sys::heap_form_tuple(self.tupdesc, values.as_mut_ptr(), nulls.as_mut_ptr());
            Ok(pg_sys::heap_copy_tuple_as_datum(tuple, self.tupdesc))
        }
    }
}

/// What `take` makes of the document whose text this is; `None` for a text that PostgreSQL's own function has to look at.
pub(super) fn with_document<T>(text: &str, take: impl FnOnce(&[u8]) -> T) -> Option<T> {
    DOCUMENT.with_borrow_mut(|(builder, document)| {
        let taken = builder.build(text, document).map(|()| take(document));
        if document.capacity() > KEPT_CAPACITY {
            (*builder, *document) = Default::default();
        }
        taken
    })
}

fn numeric(value: &Numeric<'_>) -> pg_sys::Datum {
    SCRATCH.with_borrow_mut(|scratch| {
        numeric_disk::build(value, scratch);
        palloc_varlena(scratch)
    })
}

fn interval(value: IntervalValue) -> pg_sys::Datum {
    // SAFETY: palloc returns memory for the struct, which is filled.
    unsafe {
        let target = pg_sys::palloc(size_of::<pg_sys::Interval>()).cast::<pg_sys::Interval>();
        target.write(pg_sys::Interval { time: value.micros, day: value.days, month: value.months });
        pg_sys::Datum::from(target)
    }
}

pub(super) fn palloc_copy(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: palloc returns at least the requested bytes or raises an error.
    unsafe {
        let target = pg_sys::palloc(bytes.len()).cast::<u8>();
        std::ptr::copy_nonoverlapping(bytes.as_ptr(), target, bytes.len());
        pg_sys::Datum::from(target)
    }
}

pub(super) fn palloc_varlena(payload: &[u8]) -> pg_sys::Datum {
    // SAFETY: cstring_to_text_with_len copies `len` bytes behind a 4-byte header; any varlena is laid out so.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(payload.as_ptr().cast(), payload.len() as i32)) }
}

fn mismatch(kind: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_DATATYPE_MISMATCH,
        format!("an archived {kind} was found for a column of another kind"),
    )
}

fn foreign_image() -> Error {
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        "an archived value can be read in the database that it comes from only",
    )
    .detail("The text of one of its parts does not say everything that it is, so its bytes were archived.")
    .hint("Select other columns or rows.")
}

fn attribute_changed() -> Error {
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        "an attribute of a composite type has another type than when the partition was archived",
    )
    .hint("Select other columns, or change the attribute's type back.")
}

fn untranslatable(pg_type: &PgType) -> Error {
    Error::new(
        SqlState::ERRCODE_UNTRANSLATABLE_CHARACTER,
        format!("archived {} has a character that the encoding of this database lacks", pg_type.sql_name()),
    )
    .hint("Import the archive into a database with encoding UTF8.")
}

fn holds_nul() -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, "archived text holds a NUL byte")
}
