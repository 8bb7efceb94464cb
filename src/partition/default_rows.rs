//! The DEFAULT partition beside a partition that comes back: ATTACH must not scan it under the parent's lock, and rows
//! of the range that went there meanwhile must not be lost or doubled.

use pgrx::pg_sys;

use super::freeze;
use super::locks;
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::relation::LockMode;
use crate::pg::{spi, user, xact};

/// CHECK on the DEFAULT partition that excludes the range, for the time of the reattach.
pub const EXCLUDES: &str = "archive_ext_excludes";

/// The DEFAULT partition of `parent`.
pub fn of_parent(parent: pg_sys::Oid) -> Result<Option<pg_sys::Oid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT partdefid FROM pg_partitioned_table WHERE partrelid = $1 AND partdefid <> 0",
            &[parent.into()],
            |row| row.need(1),
        )
    })
}

/// Adds the CHECK, not validated: no further row of the range arrives. Locks: ACCESS EXCLUSIVE on the DEFAULT partition.
pub fn exclude(default: pg_sys::Oid, condition: &str) -> Result<()> {
    let name = catalog::qualified_name(default)?;
    locks::acquire(default, &name, LockMode::AccessExclusive)?;
    admit(default)?;
    let owner = super::discover::owner(default)?;
    user::as_user(owner, || {
        spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {EXCLUDES} CHECK (NOT ({condition})) NOT VALID"), &[])
    })?;
    Ok(())
}

/// Whether the CHECK is there.
pub fn excludes(default: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND conname = $2)",
            &[default.into(), EXCLUDES.into()],
            |row| row.need(1),
        )
    })
}

/// Takes the CHECK away again.
pub fn admit(default: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(default)?;
    let owner = super::discover::owner(default)?;
    if excludes(default)? {
        user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} DROP CONSTRAINT {EXCLUDES}"), &[]))?;
    }
    Ok(())
}

/// Refuses rows of the range that the DEFAULT partition holds (23514), listing some, or moves them into `table`; then
/// validates the CHECK under SHARE UPDATE EXCLUSIVE.
pub fn settle(default: pg_sys::Oid, condition: &str, table: pg_sys::Oid, move_rows: bool) -> Result<()> {
    let name = catalog::qualified_name(default)?;
    let (rows, sample) = late_rows(&name, condition)?;
    if rows > 0 && !move_rows {
        return Err(Error::new(
            SqlState::ERRCODE_CHECK_VIOLATION,
            format!("DEFAULT partition {name} holds {rows} rows of the partition that is to be reattached"),
        )
        .detail(format!("Among them: {sample}."))
        .hint("reattach_partition(…, late_rows => 'move') moves them into it; or delete them first."));
    }
    if rows > 0 {
        move_into(&name, condition, table)?;
        pgrx::notice!("moved {rows} rows from {name} into the reattached partition");
    }
    locks::acquire(default, &name, LockMode::ShareUpdateExclusive)?;
    let owner = super::discover::owner(default)?;
    user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} VALIDATE CONSTRAINT {EXCLUDES}"), &[]))?;
    Ok(())
}

fn late_rows(default: &str, condition: &str) -> Result<(i64, String)> {
    user::as_user(user::current(), || {
        spi::one(
            &format!(
                "SELECT count(*), coalesce((SELECT string_agg(s.r, ', ') FROM
                    (SELECT d::text AS r FROM {default} d WHERE {condition} LIMIT 3) s), '')
                 FROM {default} WHERE {condition}"
            ),
            &[],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

fn move_into(default: &str, condition: &str, table: pg_sys::Oid) -> Result<()> {
    let target = catalog::qualified_name(table)?;
    let owner = super::discover::owner(table)?;
    let columns = insertable_columns(table)?;
    freeze::lift_guards(table, &target, owner)?;
    user::as_user(user::current(), || {
        spi::execute(
            &format!(
                "WITH late AS (DELETE FROM {default} WHERE {condition} RETURNING *)
                 INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM late"
            ),
            &[],
        )
    })?;
    xact::command_counter_increment();
    Ok(())
}

fn insertable_columns(table: pg_sys::Oid) -> Result<String> {
    user::elevated(|| {
        spi::one(
            "SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum) FROM pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped AND attgenerated = ''",
            &[table.into()],
            |row| row.need(1),
        )
    })
}
