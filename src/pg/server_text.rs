//! Text that goes to and comes from PostgreSQL where the database's encoding is not UTF-8, which is all that Rust and
//! pgrx know.

use std::borrow::Cow;
use std::ffi::{CStr, CString};

use pgrx::datum::{Date, DatumWithOid, TimestampWithTimeZone};
use pgrx::prelude::*;
use pgrx::{JsonB, Uuid};

use super::encoding::Encoding;
use crate::error::{Error, Result, SqlState};

/// A statement in the encoding of the database.
pub(super) fn statement(sql: &str) -> Result<CString> {
    let bytes = encode(sql)?;
    CString::new(bytes.into_owned())
        .map_err(|_| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "catalog query holds a NUL byte"))
}

fn encode(text: &str) -> Result<Cow<'_, [u8]>> {
    Encoding::of_database().encode(text).ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_UNTRANSLATABLE_CHARACTER,
            format!("the encoding of this database lacks a character of {text:?}"),
        )
    })
}

/// What PostgreSQL wrote, as UTF-8; what UTF-8 cannot represent is replaced.
pub(super) fn decode(bytes: &[u8]) -> String {
    Encoding::of_database().to_utf8(bytes).unwrap_or_else(|| String::from_utf8_lossy(bytes)).into_owned()
}

/// The same for a string of C.
///
/// # Safety
/// `text` is a NUL-terminated string.
pub(super) unsafe fn of_c_string(text: *const std::ffi::c_char) -> String {
    // SAFETY: by the caller's promise.
    decode(unsafe { CStr::from_ptr(text) }.to_bytes())
}

/// A message for the log and the client: PostgreSQL takes it for text in the encoding of the database.
pub fn message(text: String) -> String {
    if text.is_ascii() || Encoding::is_utf8() {
        return text;
    }
    let plain = |character: char| match character {
        '…' => "...".to_owned(),
        ascii if ascii.is_ascii() => ascii.to_string(),
        other => other.escape_unicode().to_string(),
    };
    text.chars().map(plain).collect()
}

/// A NOTICE whose text may hold names.
macro_rules! notice {
    ($($part:tt)*) => { pgrx::notice!("{}", $crate::pg::server_text::message(format!($($part)*))) };
}

/// A WARNING whose text may hold names.
macro_rules! warning {
    ($($part:tt)*) => { pgrx::warning!("{}", $crate::pg::server_text::message(format!($($part)*))) };
}

/// A LOG entry whose text may hold names.
macro_rules! log {
    ($($part:tt)*) => { pgrx::log!("{}", $crate::pg::server_text::message(format!($($part)*))) };
}

pub(crate) use {log, notice, warning};

/// The arguments of a statement in the encoding of the database; `None` where nothing needs a conversion.
pub(super) fn arguments<'a>(arguments: &[DatumWithOid<'a>]) -> Result<Option<Vec<DatumWithOid<'a>>>> {
    match Encoding::of_database() {
        Encoding::Utf8 => Ok(None),
        Encoding::Other { .. } => arguments.iter().map(argument).collect::<Result<_>>().map(Some),
    }
}

fn argument<'a>(given: &DatumWithOid<'a>) -> Result<DatumWithOid<'a>> {
    let (oid, datum) = (given.oid(), given.datum());
    // SAFETY: Rust made the datum of UTF-8 text; the copy is of the same type, in the current memory context.
    unsafe {
        let value = datum.map(|datum| datum.sans_lifetime());
        let converted = match (oid, value) {
            (pg_sys::TEXTOID, Some(value)) => text_datum(&encode(&utf8_of(value))?),
            (pg_sys::JSONBOID, Some(value)) => {
                let printed = CStr::from_ptr(pg_sys::OidOutputFunctionCall(JSONB_OUT.into(), value));
                let text = String::from_utf8_lossy(printed.to_bytes()).into_owned();
                let text = statement(&text)?;
                pg_sys::OidInputFunctionCall(JSONB_IN.into(), text.as_ptr().cast_mut(), oid, -1)
            }
            (_, Some(value)) => value,
            (_, None) => return Ok(DatumWithOid::null_oid(oid)),
        };
        Ok(DatumWithOid::new(converted, oid))
    }
}

const JSONB_IN: u32 = 3806;
const JSONB_OUT: u32 = 3804;

/// # Safety
/// `datum` is a text.
unsafe fn utf8_of(datum: pg_sys::Datum) -> String {
    // SAFETY: by the caller's promise.
    unsafe {
        let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
        let bytes = std::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text));
        String::from_utf8_lossy(bytes).into_owned()
    }
}

fn text_datum(bytes: &[u8]) -> pg_sys::Datum {
    // SAFETY: the text is copied into the current memory context.
    unsafe { pg_sys::Datum::from(pg_sys::cstring_to_text_with_len(bytes.as_ptr().cast(), bytes.len() as i32)) }
}

/// Text for the client as a datum. What the encoding of the database lacks is escaped.
pub(super) fn result_datum(text: String) -> pg_sys::Datum {
    match encode(&text) {
        Ok(bytes) => text_datum(&bytes),
        Err(_) => text_datum(message(text).as_bytes()),
    }
}

/// A type that a column of a result can be read as.
pub trait Column: Sized {
    /// How the datum is read.
    type Raw: FromDatum + IntoDatum;
    /// The value.
    fn from_raw(raw: Self::Raw) -> Self;
}

macro_rules! columns_as_they_are {
    ($($type:ty),*) => {$(
        impl Column for $type {
            type Raw = Self;
            fn from_raw(raw: Self) -> Self {
                raw
            }
        }
    )*};
}

columns_as_they_are!(bool, i8, i16, i32, i64, f64, pg_sys::Oid, Uuid, Date, TimestampWithTimeZone, Vec<Option<i32>>);

/// Text in the encoding of the database.
#[derive(Debug)]
pub struct ServerText(pub(super) String);

/// jsonb with text in the encoding of the database.
#[derive(Debug)]
pub struct ServerJson(serde_json::Value);

impl FromDatum for ServerText {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: a text, whose bytes are copied.
        unsafe {
            let text = pg_sys::pg_detoast_datum_packed(datum.cast_mut_ptr());
            let bytes = std::slice::from_raw_parts(pgrx::vardata_any(text).cast::<u8>(), pgrx::varsize_any_exhdr(text));
            Some(Self(decode(bytes)))
        }
    }
}

impl IntoDatum for ServerText {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTOID
    }

    fn is_compatible_with(other: pg_sys::Oid) -> bool {
        String::is_compatible_with(other)
    }
}

impl FromDatum for ServerJson {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: a jsonb, printed by its output function.
        let text = unsafe { CStr::from_ptr(pg_sys::OidOutputFunctionCall(JSONB_OUT.into(), datum)) };
        Some(Self(serde_json::from_str(&decode(text.to_bytes())).unwrap_or(serde_json::Value::Null)))
    }
}

impl IntoDatum for ServerJson {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        JsonB(self.0).into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::JSONBOID
    }
}

impl Column for String {
    type Raw = ServerText;

    fn from_raw(raw: ServerText) -> Self {
        raw.0
    }
}

impl Column for JsonB {
    type Raw = ServerJson;

    fn from_raw(raw: ServerJson) -> Self {
        Self(raw.0)
    }
}

impl Column for Vec<String> {
    type Raw = ServerTexts;

    fn from_raw(raw: ServerTexts) -> Self {
        raw.0
    }
}

/// An array of text in the encoding of the database, without NULLs.
#[derive(Debug)]
pub struct ServerTexts(Vec<String>);

impl FromDatum for ServerTexts {
    unsafe fn from_polymorphic_datum(datum: pg_sys::Datum, is_null: bool, _: pg_sys::Oid) -> Option<Self> {
        if is_null {
            return None;
        }
        // SAFETY: an array of texts.
        let elements = unsafe { super::constant::elements_of(pg_sys::TEXTARRAYOID, datum)? };
        // SAFETY: each element is a text that is not NULL.
        let texts = elements.into_iter().filter_map(|text| unsafe { ServerText::from_datum(text, false) });
        Some(Self(texts.map(|text| text.0).collect()))
    }
}

impl IntoDatum for ServerTexts {
    fn into_datum(self) -> Option<pg_sys::Datum> {
        self.0.into_datum()
    }

    fn type_oid() -> pg_sys::Oid {
        pg_sys::TEXTARRAYOID
    }
}
