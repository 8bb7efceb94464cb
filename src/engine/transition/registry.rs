//! Tables that are registered as static: refused everywhere, with the reason.

use archive_core::lifecycle::Kind;
use pgrx::pg_sys;

use crate::catalog;
use crate::engine::managed;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::pg::user;

/// Registers `source` as static. Errors: 42501 for those who do not own it, 22023 without a reason, 55000 where some of its
/// partitions are archived already.
pub fn register_static(source: pg_sys::Oid, reason: &str) -> Result<()> {
    let name = check_owner(source)?;
    if reason.trim().is_empty() {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "a static table needs a reason")
            .hint("Everybody who tries to archive it will read it."));
    }
    let managed = managed::ensure(source)?;
    if managed.archive_table.is_some() && catalog::partition::has_archived(managed.id)? {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partitions of \"{name}\" are archived already"),
        )
        .hint("Reattach them first; archive_ext.partitions lists them."));
    }
    catalog::managed_table::set_kind(managed.id, Kind::Static, Some(reason))
}

/// Lets a static table age again; whether it was static.
pub fn unregister_static(source: pg_sys::Oid) -> Result<bool> {
    check_owner(source)?;
    let Some(managed) = catalog::managed_table::of_source(source)?.filter(|managed| managed.kind == Kind::Static)
    else {
        return Ok(false);
    };
    catalog::managed_table::set_kind(managed.id, discover::kind(source)?, None)?;
    Ok(true)
}

/// The table's name, if it is one of the caller's, and no partition.
fn check_owner(source: pg_sys::Oid) -> Result<String> {
    let name = catalog::qualified_name(source)?;
    if !user::has_privileges_of(discover::owner(source)?) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    match discover::leaf(source)? {
        Some(table) if matches!(table.kind, 'r' | 'p') && table.parent.is_none() => Ok(name),
        _ => Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not a table of its own"))
            .hint("Name the table at the root of the partitions.")),
    }
}
