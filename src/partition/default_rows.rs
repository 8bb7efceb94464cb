//! The DEFAULT partition beside a partition that comes back: ATTACH must not scan it under the parent's lock, and rows
//! of the range that went there meanwhile must not be lost or doubled.

use pgrx::pg_sys;

use super::{freeze, locks, snapshots};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::relation::LockMode;
use crate::pg::{spi, user, xact};

/// CHECK on the DEFAULT partition that excludes a range while transaction `xid` reattaches a partition. Each has one of its
/// own, which nobody else takes away while it runs.
fn check_name(xid: u32) -> String {
    format!("{EXCLUDES}{xid}")
}

const EXCLUDES: &str = "archive_ext_excludes_";

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

/// Adds the CHECK of transaction `xid`, not validated: no further row of the range arrives. Those that a crash left behind
/// go. Locks: ACCESS EXCLUSIVE on the DEFAULT partition.
pub fn exclude(default: pg_sys::Oid, condition: &str, xid: u32) -> Result<()> {
    let name = catalog::qualified_name(default)?;
    locks::acquire(default, &name, LockMode::AccessExclusive)?;
    for check in checks(default)?.into_iter().filter(|check| is_left_over(check)) {
        drop_check(default, &check)?;
    }
    let (owner, check) = (super::discover::owner(default)?, check_name(xid));
    user::as_user(owner, || {
        spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {check} CHECK (NOT ({condition})) NOT VALID"), &[])
    })?;
    Ok(())
}

/// The CHECKs of all runs.
fn checks(default: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT conname::text FROM pg_constraint WHERE conrelid = $1 AND starts_with(conname::text, $2)",
            &[default.into(), EXCLUDES.into()],
            |row| row.need(1),
        )
    })
}

fn is_left_over(check: &str) -> bool {
    let xid = check.strip_prefix(EXCLUDES).and_then(|xid| xid.parse().ok());
    xid.is_none_or(|xid| !xact::in_progress(xid))
}

/// Whether the CHECK of transaction `xid` is there.
pub fn excludes(default: pg_sys::Oid, xid: u32) -> Result<bool> {
    Ok(checks(default)?.contains(&check_name(xid)))
}

/// Takes the CHECK of transaction `xid` away again.
pub fn admit(default: pg_sys::Oid, xid: u32) -> Result<()> {
    if excludes(default, xid)? { drop_check(default, &check_name(xid)) } else { Ok(()) }
}

fn drop_check(default: pg_sys::Oid, check: &str) -> Result<()> {
    let (name, owner) = (catalog::qualified_name(default)?, super::discover::owner(default)?);
    let check = pgrx::spi::quote_identifier(check);
    user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} DROP CONSTRAINT {check}"), &[]))?;
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
        let moved = move_into(&name, condition, table)?;
        refuse_loss(&name, rows, moved)?;
        crate::pg::server_text::notice!("moved {rows} rows from {name} into the reattached partition");
    }
    validate(default, &name)
}

/// Moves the rows of each range into its table; then validates the CHECK under SHARE UPDATE EXCLUSIVE. The rows of each.
pub fn settle_all(default: pg_sys::Oid, ranges: &[(String, pg_sys::Oid)]) -> Result<Vec<u64>> {
    let name = catalog::qualified_name(default)?;
    let mut moved = Vec::with_capacity(ranges.len());
    for (condition, table) in ranges {
        let (late, _) = late_rows(&name, condition)?;
        let arrived = if late > 0 { move_into(&name, condition, *table)? } else { 0 };
        refuse_loss(&name, late, arrived)?;
        moved.push(arrived);
    }
    validate(default, &name)?;
    Ok(moved)
}

fn validate(default: pg_sys::Oid, name: &str) -> Result<()> {
    locks::acquire(default, name, LockMode::ShareUpdateExclusive)?;
    let (owner, check) = (super::discover::owner(default)?, check_name(xact::top_transaction_id()));
    user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} VALIDATE CONSTRAINT {check}"), &[]))?;
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

/// A trigger may take a row away on its way: then nothing moves.
fn refuse_loss(default: &str, late: i64, moved: u64) -> Result<()> {
    if i64::try_from(moved) == Ok(late) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_INTEGRITY_CONSTRAINT_VIOLATION,
        format!("only {moved} of {late} rows of DEFAULT partition {default} arrived in their partition"),
    )
    .detail("A trigger or a rule kept the others from being moved, or they were deleted meanwhile. No row was moved.")
    .hint("Have the function of the trigger let the rows pass, or delete the rows first."))
}

/// A row that moves is deleted first: a foreign key with an action on delete would take referencing rows along, and the
/// checks of a deferred one would still be pending when the DEFAULT partition is altered (23503).
fn refuse_cascades(default: &str) -> Result<()> {
    let key = user::elevated(|| {
        spi::optional(
            "SELECT quote_ident(k.conname), format('%I.%I', n.nspname, c.relname), k.confdeltype IN ('c', 'n', 'd')
             FROM pg_constraint k JOIN pg_class c ON c.oid = k.conrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE k.contype = 'f' AND k.confrelid = $1::regclass AND (k.confdeltype IN ('c', 'n', 'd') OR k.condeferred)
             ORDER BY k.oid LIMIT 1",
            &[default.into()],
            |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?, row.need::<bool>(3)?)),
        )
    })?;
    let Some((key, table, has_action)) = key else { return Ok(()) };
    let (what, why) = match has_action {
        true => {
            (format!("would change rows of {table}"), "has an action ON DELETE, and a row that moves is deleted first")
        }
        false => (
            format!("cannot wait for a deferred foreign key of {table}"),
            "is INITIALLY DEFERRED, and a row that moves is deleted first",
        ),
    };
    Err(Error::new(SqlState::ERRCODE_FOREIGN_KEY_VIOLATION, format!("moving rows out of {default} {what}"))
        .detail(format!("Foreign key {key} {why}."))
        .hint(format!("ALTER TABLE {table} DROP CONSTRAINT {key}, and add it again when the rows have moved.")))
}

/// Moves the late rows; how many arrived.
fn move_into(default: &str, condition: &str, table: pg_sys::Oid) -> Result<u64> {
    refuse_cascades(default)?;
    // A query of the new partition alone would find a row in neither place.
    snapshots::wait_for(&snapshots::held()?, &format!("the move of rows out of {default}"))?;
    let target = catalog::qualified_name(table)?;
    let owner = super::discover::owner(table)?;
    let columns = insertable_columns(table)?;
    freeze::lift_guards(table, &target, owner)?;
    let moved = user::as_user(user::current(), || {
        spi::execute(
            &format!(
                "WITH late AS (DELETE FROM {default} WHERE {condition} RETURNING *)
                 INSERT INTO {target} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM late"
            ),
            &[],
        )
    })?;
    xact::command_counter_increment();
    Ok(moved)
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
