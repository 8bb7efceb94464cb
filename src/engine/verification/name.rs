//! What the name in a call stands for.

use pgrx::pg_sys;

use super::check_owner;
use crate::catalog::archived::{self, Subject};
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// What `name` stands for: of a table, its archive or its view, everything that is archived; else a partition or row set by its hot
/// name, its foreign table or its local copy.
///
/// Errors: 42704 when nothing archived has the name, 42725 when several have it, 42501 for who may not act as the owner.
pub fn resolve(name: &str) -> Result<Vec<Subject>> {
    let found = find(name)?;
    if let Some(first) = found.first() {
        check_owner(first.source)?;
    }
    Ok(found)
}

/// The same for whoever asks: the caller checks what he may do.
pub fn find(name: &str) -> Result<Vec<Subject>> {
    let relation = relation(name)?;
    let found = match relation {
        Some(relation) => archived::of_relation(relation)?,
        None => Vec::new(),
    };
    if found.is_empty() { by_name(name, relation) } else { Ok(found) }
}

/// The one partition or row set that `name` stands for.
pub(super) fn one(name: &str) -> Result<Subject> {
    let is_table = relation(name)?.map(archived::is_managed).transpose()?.unwrap_or(false);
    let found = resolve(name)?;
    match found.into_iter().next() {
        Some(subject) if !is_table => Ok(subject),
        _ => Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is a table or its archive"))
            .hint("Name one archived partition; archive_ext.partitions lists them.")),
    }
}

/// A relation that the caller's search path knows by this name.
fn relation(name: &str) -> Result<Option<pg_sys::Oid>> {
    user::own_sql(user::current(), || {
        spi::one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[name.into()], |row| row.get::<pg_sys::Oid>(1))
    })
}

fn by_name(name: &str, relation: Option<pg_sys::Oid>) -> Result<Vec<Subject>> {
    let parts =
        user::elevated(|| spi::one("SELECT parse_ident($1)", &[name.into()], |row| row.need::<Vec<String>>(1)))?;
    let (schema, bare) = match parts.as_slice() {
        [bare] => (None, bare),
        [schema, bare] => (Some(schema.as_str()), bare),
        _ => return Err(nothing(name, false)),
    };
    let found = archived::named(schema, bare)?;
    match found.as_slice() {
        [] => Err(nothing(name, relation.map(archived::is_managed).transpose()?.unwrap_or(false))),
        [_] => Ok(found),
        several => {
            let names: Vec<_> = several.iter().map(|subject| subject.name.as_str()).collect();
            Err(Error::new(SqlState::ERRCODE_AMBIGUOUS_PARAMETER, format!("partition name \"{name}\" is ambiguous"))
                .hint(format!("Qualify it: {}.", names.join(", "))))
        }
    }
}

fn nothing(name: &str, managed: bool) -> Error {
    let message = if managed {
        format!("nothing of table \"{name}\" is archived")
    } else {
        format!("there is no archived table or partition \"{name}\"")
    };
    Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, message)
        .hint("archive_ext.partitions lists what is archived; name it as schema.partition.")
}
