//! The columns of a relation as the codec's schema, or the reason a column cannot be archived.

use archive_core::schema::{Attribute, Field, PgType};
use pgrx::pg_sys;

use super::relation::Relation;
use super::server_text;
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
    of_tupdesc(relation.tupdesc())
}

/// The attributes of a tuple descriptor that are not dropped, in order.
pub(super) fn of_tupdesc(tupdesc: pg_sys::TupleDesc) -> Vec<Column> {
    // SAFETY: every caller passes a live descriptor.
    let count = unsafe { (*tupdesc).natts } as usize;
    (0..count).filter_map(|index| column(tupdesc, index)).collect()
}

fn column(tupdesc: pg_sys::TupleDesc, index: usize) -> Option<Column> {
    // SAFETY: index < natts of a live tuple descriptor.
    let attribute = unsafe { &*tuple_desc_attr(tupdesc, index) };
    if attribute.attisdropped {
        return None;
    }
    // SAFETY: attname is a NUL-terminated NameData.
    let name = unsafe { server_text::of_c_string(attribute.attname.data.as_ptr()) };
    Some(Column {
        index,
        name,
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
    type_of(column.type_oid, column.typmod).map_err(|kind| {
        Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("column \"{}\" has type {}, which cannot be archived", column.name, type_sql(column)),
        )
        .detail(format!("{} is a pseudo-type: its values have no form of their own.", name_of(kind)))
    })
}

/// Base type of what may be a domain, its `typtype`, and its element type if it is an array; for walks into a type. A
/// domain's type modifier takes the place of `typmod`.
pub(super) fn anatomy(oid: pg_sys::Oid, typmod: &mut i32) -> (pg_sys::Oid, u8, pg_sys::Oid) {
    // SAFETY: raises an error when types nest too deeply; catalog lookups of an existing type.
    unsafe {
        pg_sys::check_stack_depth();
        let base = pg_sys::getBaseTypeAndTypmod(oid, typmod);
        (base, pg_sys::get_typtype(base) as u8, pg_sys::get_element_type(base))
    }
}

/// The codec type of a type; the OID of the part that has none as error.
fn type_of(oid: pg_sys::Oid, mut typmod: i32) -> std::result::Result<PgType, pg_sys::Oid> {
    if let Some(pg_type) = PgType::from_oid(oid.to_u32(), typmod) {
        return Ok(pg_type);
    }
    let (base, kind, element) = anatomy(oid, &mut typmod);
    match kind {
        _ if base != oid => type_of(base, typmod),
        b'e' => Ok(PgType::Enum),
        b'c' => composite(oid),
        b'p' => Err(oid),
        _ if element != pg_sys::InvalidOid => Ok(PgType::array(type_of(element, typmod)?)),
        _ => Ok(PgType::Other),
    }
}

/// Parquet has no struct without members, so a composite without attributes is archived as text.
fn composite(oid: pg_sys::Oid) -> std::result::Result<PgType, pg_sys::Oid> {
    let mut attributes = Vec::new();
    for column in attributes_of(oid) {
        let pg_type = type_of(column.type_oid, column.typmod)?;
        attributes.push(Attribute { id: column.index as i32 + 1, name: column.name, pg_type });
    }
    Ok(if attributes.is_empty() { PgType::Other } else { PgType::Composite(attributes) })
}

pub(super) fn attributes_of(composite: pg_sys::Oid) -> Vec<Column> {
    // SAFETY: a composite type; the copy needs no reference count and is freed here.
    unsafe {
        let tupdesc = pg_sys::lookup_rowtype_tupdesc_copy(composite, -1);
        let columns = of_tupdesc(tupdesc);
        pg_sys::FreeTupleDesc(tupdesc);
        columns
    }
}

/// The enum types that values of a column hold, wherever nested.
pub fn enums_within(column: &Column) -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    collect_enums(column.type_oid, &mut found);
    found
}

fn collect_enums(oid: pg_sys::Oid, found: &mut Vec<pg_sys::Oid>) {
    let (base, kind, element) = anatomy(oid, &mut -1);
    match kind {
        b'e' if !found.contains(&base) => found.push(base),
        b'c' => attributes_of(base).iter().for_each(|attribute| collect_enums(attribute.type_oid, found)),
        _ if element != pg_sys::InvalidOid => collect_enums(element, found),
        _ => {}
    }
}

fn name_of(type_oid: pg_sys::Oid) -> String {
    // SAFETY: returns a palloc'd C string.
    unsafe { server_text::of_c_string(pg_sys::format_type_be(type_oid)) }
}

/// Whether a type is a domain with constraints, its own or its base's: ADD COLUMN then rewrites the table to check them.
pub fn is_constrained_domain(type_oid: pg_sys::Oid) -> bool {
    // SAFETY: catalog lookups; false for what is no domain.
    unsafe { pg_sys::DomainHasConstraints(type_oid) }
}

/// `format_type(oid, typmod)`, schema-qualified where needed under the current search path.
pub fn type_sql(column: &Column) -> String {
    // SAFETY: returns a palloc'd C string.
    unsafe {
        let text = pg_sys::format_type_with_typemod(column.type_oid, column.typmod);
        server_text::of_c_string(text)
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
        (!name.is_null()).then(|| server_text::of_c_string(name))
    }
}
