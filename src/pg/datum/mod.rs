//! PostgreSQL datums to codec values and back.

mod build;
mod label;
mod node;
mod read;
mod type_io;

use std::borrow::Cow;

use archive_core::codec::{Decoded, Sidecar, Value};
use archive_core::schema::{PgType, TableSchema};
use pgrx::pg_sys;

use self::node::{Node, Origin, Shape};
use self::type_io::TypeIo;
use super::arena::Arena;
use super::background;
use super::columns::Column;
use super::encoding::Encoding;
use super::guc::GucNest;
use super::memory::MemoryContext;
use super::row::{Row, RowBuffer};
use super::xact;
use crate::error::Result;

pub(super) use self::label::find as find_label;

/// Reads and rebuilds the values of one column.
#[derive(Debug)]
pub struct ColumnIo {
    index: usize,
    node: Node,
    depends_on_settings: bool,
    /// Whether reading and making values may fail in functions of the type.
    may_fail: (bool, bool),
    /// What such an error says about where it happened.
    about: String,
}

impl ColumnIo {
    /// I/O for `column` of a table of this database, whose codec type is `pg_type`. The current memory context must
    /// outlive it.
    pub fn new(column: &Column, pg_type: &PgType) -> Self {
        Self::with_origin(column, pg_type, Origin::Live)
    }

    /// I/O for `column`, which takes archived values of type `pg_type` out of files of `schema`.
    pub fn archived(column: &Column, pg_type: &PgType, schema: &TableSchema) -> Self {
        Self::with_origin(column, pg_type, Origin::Archive { schema, same_database: is_of_this_database(schema) })
    }

    fn with_origin(column: &Column, pg_type: &PgType, origin: Origin<'_>) -> Self {
        let node = Node::new(column.type_oid, pg_type, Encoding::of_database(), origin);
        Self {
            index: column.index,
            depends_on_settings: node.any(&Node::depends_on_settings),
            may_fail: (node.any(&|node| node.text_may_mislead), node.any(&Node::is_parsed)),
            about: format!(
                "This is about a value of column \"{}\" that is archived or read from an archive.",
                column.name
            ),
            node,
        }
    }

    /// The value of this column in `row`; `None` for NULL. What it borrows lives until the row's memory is reset.
    ///
    /// Text depends on settings: see [`GucNest::lossless_text`].
    pub fn read<'r>(&self, row: &Row<'r>) -> Result<Option<Value<'r>>> {
        let Some(datum) = row.datum(self.index) else { return Ok(None) };
        // SAFETY: the datum is a non-null value of this column's type, valid while the row is borrowed.
        let value = || unsafe { self.node.value(datum) };
        if self.may_fail.0 { xact::explained(&self.about, value) } else { value() }.map(Some)
    }

    /// Calls `visit` with what [`Self::read`] would give.
    #[inline(always)]
    pub fn visit<T>(&self, row: &Row<'_>, visit: impl FnOnce(Option<&Value<'_>>) -> T) -> Result<T> {
        match row.datum(self.index) {
            None => Ok(visit(None)),
            Some(_) if self.may_fail.0 => Ok(visit(self.read(row)?.as_ref())),
            // SAFETY: the datum is a non-null value of this column's type, valid while the row is borrowed.
            Some(datum) => unsafe { self.node.visit(datum, |value| visit(Some(value))) },
        }
    }

    /// Whether an archived cell is, as it is, what [`Self::read`] gives of the value that is made of it, and one can be made: for the
    /// types of PostgreSQL whose representation the codec knows, and for documents in the form in which PostgreSQL prints them.
    pub fn is_read_as(&self, cell: &Decoded<'_>) -> bool {
        let value = match cell {
            Decoded::Null => return true,
            Decoded::Value(value) if matches!(self.node.encoding, Encoding::Utf8) => value,
            Decoded::Value(_) | Decoded::Text(_) => return false,
        };
        match (&self.node.pg_type, value) {
            (PgType::Jsonb, Value::Text(text)) => {
                self.node.is_document() && build::with_document(text, |_| ()).is_some()
            }
            (
                PgType::Bool
                | PgType::Int2
                | PgType::Int4
                | PgType::Int8
                | PgType::Money
                | PgType::Float4
                | PgType::Float8
                | PgType::Numeric { .. }
                | PgType::UnboundedNumeric
                | PgType::Text
                | PgType::Varchar
                | PgType::Bpchar
                | PgType::Json
                | PgType::Bytea
                | PgType::Date
                | PgType::Time
                | PgType::Timestamp
                | PgType::TimestampTz
                | PgType::Interval
                | PgType::Uuid
                | PgType::Oid,
                _,
            ) => true,
            _ => false,
        }
    }

    /// PostgreSQL's text form of this column in `row` for the sidecar, for values that the native Parquet type cannot
    /// hold.
    pub fn text<'r>(&self, row: &Row<'r>) -> Cow<'r, str> {
        let Some(datum) = row.datum(self.index) else { return Cow::Borrowed("") };
        // SAFETY: a non-null value of this column's type, valid while the row is borrowed.
        unsafe {
            let printed: &'r [u8] = self.node.io.print(datum);
            let exact = self.text_is_exact(datum, printed);
            let text = || self.node.encoding.to_utf8(printed);
            if self.node.holds_oids || !exact {
                // Elsewhere, OIDs mean nothing, and names are all there is. A text that says too little is of no use.
                let misleads = !exact && self.node.any(&|node| node.text_may_mislead);
                let elsewhere = if misleads { None } else { text() };
                return Cow::Owned(Sidecar::of_image(self.node.io.image(datum), elsewhere.as_deref()));
            }
            text().unwrap_or_else(|| Cow::Owned(Sidecar::of_server_text(printed)))
        }
    }

    /// Whether PostgreSQL makes the same value of the text that it printed. It may refuse it, where a domain within has stricter
    /// constraints than it had; and an array that once held a NULL has other bytes than its text makes.
    ///
    /// # Safety
    /// `datum` is a non-null value of the column's type.
    unsafe fn text_is_exact(&self, datum: pg_sys::Datum, printed: &[u8]) -> bool {
        let node = &self.node;
        if matches!(node.shape, Shape::Scalar) && !node.text_may_mislead && !node.holds_oids {
            return true;
        }
        // Of a large array, what is parsed takes several times its size, which the sidecar needs next.
        let parsing = MemoryContext::new(c"archive_ext parsed text");
        if let Shape::Array(element) = &node.shape {
            // SAFETY: by the caller's promise.
            if let Some(exact) = parsing.within(|| unsafe { element.is_plain_array(datum) }) {
                return exact;
            }
        }
        // SAFETY: by the caller's promise; an input function may raise an error, which ends the subtransaction.
        xact::subtransaction(|| parsing.within(|| unsafe { node.is_made_of(datum, printed) })).unwrap_or(false)
    }

    /// Rebuilds the datum of this column from an archived cell, in `arena` where it can be, else in the current memory context.
    #[inline(always)]
    pub fn write(&self, cell: &Decoded<'_>, row: &mut RowBuffer, arena: &mut Arena) -> Result<()> {
        let datum = match cell {
            Decoded::Null => None,
            Decoded::Value(value) if !self.may_fail.1 && !self.depends_on_settings => {
                Some(self.node.datum_in(value, arena)?)
            }
            _ => self.datum(cell)?,
        };
        row.set(self.index, datum);
        Ok(())
    }

    /// The datum of an archived cell, in the current memory context; `None` for NULL.
    pub fn datum(&self, cell: &Decoded<'_>) -> Result<Option<pg_sys::Datum>> {
        let _settings = self.depends_on_settings.then(GucNest::lossless_text);
        if self.may_fail.1 || matches!(cell, Decoded::Text(_)) {
            return xact::explained(&self.about, || self.make(cell));
        }
        self.make(cell)
    }

    fn make(&self, cell: &Decoded<'_>) -> Result<Option<pg_sys::Datum>> {
        match cell {
            Decoded::Null => Ok(None),
            Decoded::Value(value) => self.node.datum(value).map(Some),
            Decoded::Text(text) => match Sidecar::parse(text)? {
                Sidecar::Text(text) => self.node.parse(text).map(Some),
                Sidecar::ServerText(bytes) => self.node.read_server_text(&bytes).map(Some),
                Sidecar::Image(image, text) => self.node.read_image(&image, text).map(Some),
            },
        }
    }
}

/// Whether OIDs in the rows of an archive mean something here.
pub fn is_of_this_database(schema: &TableSchema) -> bool {
    schema.origin.as_deref().is_none_or(|origin| origin == background::database_identity())
}

/// The text of a bound, when it says everything that the value is, now and later: what it names could be renamed.
pub(super) fn bound_text(type_oid: pg_sys::Oid, pg_type: &PgType, datum: pg_sys::Datum) -> Option<String> {
    let node = Node::new(type_oid, pg_type, Encoding::of_database(), Origin::Live);
    // SAFETY: a non-null value of the type; the text is copied.
    let exact = unsafe { !node.text_may_mislead || node.text_says_all(datum) };
    if !exact || (node.holds_oids && *pg_type != PgType::Enum) {
        return None;
    }
    output_text(type_oid, datum)
}

/// The text form of any datum through its type's output function; `None` when UTF-8 cannot represent it.
pub(super) fn output_text(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<String> {
    // SAFETY: output function of the type on a non-null value of it; the text is copied.
    let bytes = unsafe { TypeIo::of(type_oid).print(datum) };
    Encoding::of_database().to_utf8(bytes).map(|text| text.into_owned())
}

/// A datum of any type from its text form.
pub(super) fn input_text(type_oid: pg_sys::Oid, text: &str) -> Option<pg_sys::Datum> {
    TypeIo::of(type_oid).parse(&Encoding::of_database().encode(text)?)
}

/// The codec value of a constant of one of the built-in scalar types; `None` for others.
pub(super) fn constant<'r>(type_oid: pg_sys::Oid, datum: pg_sys::Datum) -> Option<Value<'r>> {
    let pg_type = PgType::from_oid(type_oid.to_u32(), -1).filter(PgType::is_scalar)?;
    let node = Node::new(type_oid, &pg_type, Encoding::of_database(), Origin::Live);
    // SAFETY: the caller passes a non-null datum of `type_oid` that lives in the current memory context; a scalar's
    // value borrows nothing of the node.
    unsafe { node.value(datum) }.ok()
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
            // SAFETY: a by-reference type of fixed length; no type of another length has an order.
            build::palloc_copy(unsafe { std::slice::from_raw_parts(datum.cast_mut_ptr::<u8>(), len.max(0) as usize) })
        }
    }
}
