//! `set_archive_policy` and `drop_archive_policy`.

use pgrx::datum::Interval;
use pgrx::prelude::*;

use super::seconds;
use crate::catalog;
use crate::catalog::policy::Policy;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::partition::discover;
use crate::pg::args::{Name, Regclass};
use crate::pg::user;

/// Sets where and how a table is archived; NULL leaves a setting as it is.
#[pg_extern]
fn set_archive_policy(
    source: Regclass,
    storage: default!(Option<Name>, "NULL"),
    drop_after: default!(Option<Interval>, "NULL"),
    archive_schema: default!(Option<Name>, "NULL"),
    archive_name: default!(Option<Name>, "NULL"),
) {
    let policy = Policy {
        storage: storage.map(|name| name.0),
        drop_after_seconds: drop_after.map(seconds),
        archive_schema: archive_schema.map(|name| name.0),
        archive_name: archive_name.map(|name| name.0),
    };
    set(source.0, &policy).or_raise();
}

fn set(source: pg_sys::Oid, policy: &Policy) -> Result<()> {
    check_source(source)?;
    if let Some(storage) = &policy.storage {
        catalog::storage::options(storage)?;
    }
    if policy.drop_after_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "drop_after must not be negative"));
    }
    let renames = policy.archive_schema.is_some() || policy.archive_name.is_some();
    if renames && catalog::managed_table::of_source(source)?.is_some_and(|managed| managed.archive_table.is_some()) {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            "archive_schema and archive_name cannot change once partitions are archived",
        )
        .hint("Set them before the first partition of the table is archived."));
    }
    catalog::policy::set(source, policy)
}

fn check_source(source: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(source)?;
    if !user::has_privileges_of(discover::owner(source)?) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    match discover::leaf(source)? {
        Some(table) if table.kind == 'p' && table.parent.is_none() => Ok(()),
        _ => Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not a partitioned table"))
            .hint("Policies belong to the root of a partition tree.")),
    }
}

/// Removes a table's policy; whether there was one.
#[pg_extern]
fn drop_archive_policy(source: Regclass) -> bool {
    check_source(source.0).and_then(|()| catalog::policy::drop(source.0)).or_raise()
}
