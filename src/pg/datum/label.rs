//! Enum values by label. A label may have been renamed since it was archived; the OID of its value has not changed.

use std::cell::RefCell;
use std::collections::HashMap;

use archive_core::codec::Value;
use archive_core::schema::EnumType;
use pgrx::pg_sys;

use super::type_io::TypeIo;
use crate::error::{Error, Result, SqlState};
use crate::pg::encoding::Encoding;
use crate::pg::server_text;

/// The labels of one enum type.
#[derive(Debug, Default)]
pub(super) struct Labels {
    /// OID and label of the values when they were archived.
    archived: Vec<(u32, String)>,
    /// Whether those OIDs are of this database.
    same_database: bool,
    texts: RefCell<HashMap<pg_sys::Oid, Box<LabelText>>>,
    values: RefCell<HashMap<String, pg_sys::Oid>>,
}

#[derive(Debug)]
enum LabelText {
    Utf8(String),
    Bytes(Vec<u8>),
}

impl Labels {
    /// The labels of enum `oid` as an archive knows them.
    pub(super) fn archived(oid: pg_sys::Oid, enums: &[EnumType], same_database: bool) -> Self {
        let known = known(oid, enums, same_database);
        Self { archived: known.map(|known| known.labels.clone()).unwrap_or_default(), same_database, ..Self::default() }
    }

    /// The label of a value.
    ///
    /// # Safety
    /// `value` is one of the enum that `io` describes; `self` outlives `'r`.
    pub(super) unsafe fn text<'r>(&self, value: pg_sys::Oid, io: &TypeIo, encoding: Encoding) -> Value<'r> {
        let mut texts = self.texts.borrow_mut();
        let label = texts.entry(value).or_insert_with(|| {
            // SAFETY: enum_out on a value of the enum; the text is copied.
            let bytes = unsafe { io.print(pg_sys::Datum::from(value)) };
            Box::new(match encoding.to_utf8(bytes) {
                Some(text) => LabelText::Utf8(text.into_owned()),
                None => LabelText::Bytes(bytes.to_vec()),
            })
        });
        let label: *const LabelText = &raw const **label;
        // SAFETY: labels are boxed, never removed and never changed, and `self` outlives 'r.
        match unsafe { &*label } {
            LabelText::Utf8(text) => Value::Text(text),
            LabelText::Bytes(bytes) => Value::Undecodable(bytes),
        }
    }

    /// The value that an archived label stands for now.
    pub(super) fn value(&self, label: &str, type_oid: pg_sys::Oid, encoding: Encoding) -> Result<pg_sys::Oid> {
        if let Some(value) = self.values.borrow().get(label) {
            return Ok(*value);
        }
        let value = self.resolve(label, type_oid, encoding).ok_or_else(|| unknown(label, type_oid))?;
        self.values.borrow_mut().insert(label.to_owned(), value);
        Ok(value)
    }

    /// In the database it came from a label is known by its OID, elsewhere by its name; a name that is gone falls back
    /// on the OID, which pg_upgrade keeps.
    fn resolve(&self, label: &str, type_oid: pg_sys::Oid, encoding: Encoding) -> Option<pg_sys::Oid> {
        let recorded = self.archived.iter().find(|(_, archived)| archived == label).map(|(oid, _)| *oid);
        let by_oid = || recorded.map(pg_sys::Oid::from).filter(|oid| belongs_to(*oid, type_oid));
        let by_name = || find(type_oid, &encoding.encode(label)?);
        if self.same_database { by_oid().or_else(by_name) } else { by_name().or_else(by_oid) }
    }
}

/// The archived type that enum `oid` was.
fn known(oid: pg_sys::Oid, enums: &[EnumType], same_database: bool) -> Option<&EnumType> {
    let by_oid = enums.iter().find(|known| same_database && known.oid == oid.to_u32());
    by_oid.or_else(|| {
        // SAFETY: returns a palloc'd string.
        let name = unsafe { server_text::of_c_string(pg_sys::format_type_be_qualified(oid)) };
        enums.iter().find(|known| known.name == name)
    })
}

fn unknown(label: &str, type_oid: pg_sys::Oid) -> Error {
    // SAFETY: returns a palloc'd string.
    let name = unsafe { server_text::of_c_string(pg_sys::format_type_be(type_oid)) };
    Error::new(
        SqlState::ERRCODE_INVALID_TEXT_REPRESENTATION,
        format!("archived label \"{label}\" is not a value of enum {name} any more"),
    )
    .hint(format!("ALTER TYPE {name} ADD VALUE for the label makes the archived rows readable again."))
}

/// The value of the enum with this label, looked up without an error, unlike `enum_in`.
pub(in crate::pg) fn find(type_oid: pg_sys::Oid, label: &[u8]) -> Option<pg_sys::Oid> {
    let label = std::ffi::CString::new(label).ok()?;
    // SAFETY: both keys are of the cache's key types; a name key may be any NUL-terminated string.
    let value = unsafe {
        pg_sys::GetSysCacheOid(
            pg_sys::SysCacheIdentifier::ENUMTYPOIDNAME as i32,
            pg_sys::Anum_pg_enum_oid as i16,
            pg_sys::Datum::from(type_oid),
            pg_sys::Datum::from(label.as_ptr()),
            pg_sys::Datum::null(),
            pg_sys::Datum::null(),
        )
    };
    (value != pg_sys::InvalidOid).then_some(value)
}

/// Whether `value` is a value of the enum.
fn belongs_to(value: pg_sys::Oid, type_oid: pg_sys::Oid) -> bool {
    // SAFETY: the tuple is read while it is pinned, then released.
    unsafe {
        let key = pg_sys::Datum::from(value);
        let tuple = pg_sys::SearchSysCache1(pg_sys::SysCacheIdentifier::ENUMOID as i32, key);
        if tuple.is_null() {
            return false;
        }
        let form = pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_enum>();
        let found = (*form).enumtypid == type_oid;
        pg_sys::ReleaseSysCache(tuple);
        found
    }
}
