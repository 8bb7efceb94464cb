//! The columns of a relation as the codec's schema, or the reason a column cannot be archived yet.

use archive_core::schema::{Field, PgType};
use pgrx::pg_sys;

use super::relation::Relation;
use crate::error::{Error, Result, SqlState};

/// SQL for the version of the database's default collation now, over `pg_database d`. PostgreSQL 14 reports none.
#[cfg(feature = "pg14")]
pub const DATABASE_COLLATION_VERSION: &str =
    "CASE WHEN d.datcollate IN ('C', 'POSIX') OR d.datcollate LIKE 'C.%' THEN '' END";
/// SQL for the version of the database's default collation now, over `pg_database d`.
#[cfg(not(feature = "pg14"))]
pub const DATABASE_COLLATION_VERSION: &str =
    "CASE WHEN d.datlocprovider = 'c' AND (d.datcollate IN ('C', 'POSIX') OR d.datcollate LIKE 'C.%') THEN ''
          ELSE pg_database_collation_actual_version(d.oid) END";

/// One live attribute of a relation.
#[derive(Debug, Clone)]
pub struct Column {
    /// Index in the row (attnum - 1).
    pub index: usize,
    /// Column name.
    pub name: String,
    /// Type OID.
    pub type_oid: pg_sys::Oid,
    /// Type modifier, -1 for none.
    pub typmod: i32,
    /// Collation, invalid for types without one.
    pub collation: pg_sys::Oid,
    /// Whether NULL is refused.
    pub not_null: bool,
    /// Generated when read (PostgreSQL 18), so that the heap holds nothing of it.
    pub is_virtual: bool,
}

/// The attributes of `relation` that are not dropped, in order.
pub fn of_relation(relation: &Relation) -> Vec<Column> {
    (0..relation.attribute_count()).filter_map(|index| column(relation, index)).collect()
}

fn column(relation: &Relation, index: usize) -> Option<Column> {
    // SAFETY: index < natts of a live tuple descriptor.
    let attribute = unsafe { &*tuple_desc_attr(relation.tupdesc(), index) };
    if attribute.attisdropped {
        return None;
    }
    // SAFETY: attname is a NUL-terminated NameData.
    let name = unsafe { std::ffi::CStr::from_ptr(attribute.attname.data.as_ptr()) };
    Some(Column {
        index,
        name: name.to_string_lossy().into_owned(),
        type_oid: attribute.atttypid,
        typmod: attribute.atttypmod,
        collation: attribute.attcollation,
        not_null: attribute.attnotnull,
        is_virtual: attribute.attgenerated as u8 == b'v',
    })
}

/// `TupleDescAttr`, which PostgreSQL 18 moved behind a compact attribute array.
///
/// # Safety
/// `tupdesc` is live and `index < natts`.
pub(super) unsafe fn tuple_desc_attr(tupdesc: pg_sys::TupleDesc, index: usize) -> *const pg_sys::FormData_pg_attribute {
    #[cfg(feature = "pg18")]
    // SAFETY: by the caller's promise.
    unsafe {
        pg_sys::TupleDescAttr(tupdesc, index as i32)
    }
    #[cfg(not(feature = "pg18"))]
    // SAFETY: by the caller's promise.
    unsafe {
        (*tupdesc).attrs.as_ptr().add(index)
    }
}

/// The codec type of a column, or an error that names the column (P5: refused before the run).
pub fn pg_type(column: &Column) -> Result<PgType> {
    if column.is_virtual {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("column \"{}\" is a virtual generated column, which cannot be archived yet", column.name),
        )
        .hint("Make it STORED."));
    }
    if let Some(pg_type) = PgType::from_oid(column.type_oid.to_u32(), column.typmod) {
        return Ok(pg_type);
    }
    if is_enum(column.type_oid) {
        return Ok(PgType::Enum);
    }
    // SAFETY: syscache lookup of a valid type OID.
    let element = unsafe { pg_sys::get_element_type(column.type_oid) };
    if element != pg_sys::InvalidOid && is_enum(element) {
        return Ok(PgType::Array(Box::new(PgType::Enum)));
    }
    Err(Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("column \"{}\" has type {}, which cannot be archived yet", column.name, type_sql(column)),
    )
    .detail("Only types whose every value comes back identical are archived; nothing was changed.")
    .hint("Use one of bool, int2, int4, int8, float4, float8, numeric(p,s), text, varchar, char, bytea, date, time, timestamp, timestamptz, uuid, json, jsonb, enums and one-dimensional arrays of these."))
}

fn is_enum(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: syscache lookup.
    unsafe { pg_sys::get_typtype(type_oid) == pg_sys::TYPTYPE_ENUM as std::ffi::c_char }
}

/// `format_type(oid, typmod)`, schema-qualified where needed under the current search path.
pub fn type_sql(column: &Column) -> String {
    // SAFETY: returns a palloc'd C string.
    unsafe {
        let text = pg_sys::format_type_with_typemod(column.type_oid, column.typmod);
        std::ffi::CStr::from_ptr(text).to_string_lossy().into_owned()
    }
}

/// The field of the archive schema for a column; `id` is its field id.
pub fn field(column: &Column, id: i32) -> Result<Field> {
    Ok(Field {
        id,
        name: column.name.clone(),
        pg_type: pg_type(column)?,
        type_sql: type_sql(column),
        collation: collation_name(column.collation),
        not_null: column.not_null,
    })
}

fn collation_name(collation: pg_sys::Oid) -> Option<String> {
    if collation == pg_sys::InvalidOid {
        return None;
    }
    // SAFETY: palloc'd copy or NULL.
    unsafe {
        let name = pg_sys::get_collation_name(collation);
        (!name.is_null()).then(|| std::ffi::CStr::from_ptr(name).to_string_lossy().into_owned())
    }
}
