//! The freeze: guards that refuse every write at once, and a CHECK that spares a later ATTACH its scan.

use pgrx::pg_sys;

use super::discover::{self, Leaf};
use super::locks;
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::relation::LockMode;
use crate::pg::{lock, spi, user, xact};

/// Row-level guard: BEFORE INSERT OR UPDATE OR DELETE, ENABLE ALWAYS.
pub const ROW_GUARD: &str = "archive_ext_guard";
/// Statement-level guard: BEFORE TRUNCATE, ENABLE ALWAYS.
pub const TRUNCATE_GUARD: &str = "archive_ext_guard_truncate";
/// CHECK constraint with the partition's bounds.
pub const BOUNDS_CHECK: &str = "archive_ext_bounds";

/// Why writes are refused; the guard triggers carry it as their argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// An archive run works on the partition.
    Archiving,
    /// The partition was reattached read-only.
    ReadOnly,
    /// The partition is WARM.
    Warm,
    /// A merge or split works on the partition.
    Rearranging,
}

impl Reason {
    /// The trigger argument.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Archiving => "archiving",
            Self::ReadOnly => "read-only",
            Self::Warm => "warm",
            Self::Rearranging => "rearranging",
        }
    }
}

/// What guards a partition now.
#[derive(Debug, Clone, Default)]
pub struct Guarded {
    /// The guards' OIDs and row versions: guards that were removed, or disabled for a moment, and put back differ.
    pub identity: String,
    /// Both guards are there and fire ALWAYS.
    pub guards: bool,
    /// The bounds CHECK is there and valid.
    pub bounds: bool,
}

/// Looks at the guards of a table.
pub fn observe(table: pg_sys::Oid) -> Result<Guarded> {
    user::elevated(|| {
        spi::one(
            "SELECT (SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = $1 AND tgname IN ($2, $3) AND tgenabled = 'A'),
                    EXISTS (SELECT FROM pg_constraint
                            WHERE conrelid = $1 AND conname = $4 AND contype = 'c' AND convalidated),
                    (SELECT coalesce(string_agg(oid || ':' || xmin, ' ' ORDER BY oid), '') FROM pg_trigger
                     WHERE tgrelid = $1 AND tgname IN ($2, $3))",
            &[table.into(), ROW_GUARD.into(), TRUNCATE_GUARD.into(), BOUNDS_CHECK.into()],
            |row| Ok(Guarded { guards: row.need(1)?, bounds: row.need(2)?, identity: row.need(3)? }),
        )
    })
}

/// Why the guards of a table refuse writes: what [`Reason::as_str`] said; `None` without guards that fire.
pub fn guarded_because(table: pg_sys::Oid) -> Result<Option<String>> {
    user::elevated(|| {
        spi::optional(
            r"SELECT split_part(encode(tgargs, 'escape'), '\000', 1) FROM pg_trigger
              WHERE tgrelid = $1 AND tgname = $2 AND tgenabled = 'A'",
            &[table.into(), ROW_GUARD.into()],
            |row| row.need(1),
        )
    })
}

/// Locks the tables that are to be guarded, all or none: who writes to one of them may want another.
pub fn lock_unguarded(tables: &[Leaf]) -> Result<()> {
    let mut wanted = Vec::with_capacity(tables.len());
    for table in tables {
        if !observe(table.oid)?.guards {
            wanted.push((table.oid, mode_for_guards(table.oid)?));
        }
    }
    locks::acquire_all(&wanted)
}

fn mode_for_guards(table: pg_sys::Oid) -> Result<LockMode> {
    let replaces = has_trigger(table, ROW_GUARD)? || has_trigger(table, TRUNCATE_GUARD)?;
    Ok(if replaces { LockMode::AccessExclusive } else { LockMode::ShareRowExclusive })
}

/// Puts both guards on `table`, replacing older ones. Locks: SHARE ROW EXCLUSIVE on the table, so running writers
/// are waited for. Runs with the owner's rights.
pub fn guard(table: pg_sys::Oid, name: &str, owner: pg_sys::Oid, reason: Reason) -> Result<()> {
    locks::acquire(table, name, mode_for_guards(table)?)?;
    failpoint!("freeze_locked");
    drop_guards(table, name, owner)?;
    let argument = reason.as_str();
    user::as_user(owner, || {
        spi::execute(
            &format!(
                "CREATE TRIGGER {ROW_GUARD} BEFORE INSERT OR UPDATE OR DELETE ON {name}
                 FOR EACH ROW EXECUTE FUNCTION archive_ext.refuse_write('{argument}')"
            ),
            &[],
        )?;
        spi::execute(
            &format!(
                "CREATE TRIGGER {TRUNCATE_GUARD} BEFORE TRUNCATE ON {name}
                 FOR EACH STATEMENT EXECUTE FUNCTION archive_ext.refuse_write('{argument}')"
            ),
            &[],
        )?;
        spi::execute(
            &format!("ALTER TABLE {name} ENABLE ALWAYS TRIGGER {ROW_GUARD}, ENABLE ALWAYS TRIGGER {TRUNCATE_GUARD}"),
            &[],
        )
    })?;
    Ok(())
}

fn drop_guards(table: pg_sys::Oid, name: &str, owner: pg_sys::Oid) -> Result<()> {
    for trigger in [ROW_GUARD, TRUNCATE_GUARD] {
        if has_trigger(table, trigger)? {
            user::as_user(owner, || spi::execute(&format!("DROP TRIGGER {trigger} ON {name}"), &[]))?;
        }
    }
    Ok(())
}

fn has_trigger(table: pg_sys::Oid, trigger: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = $1 AND tgname = $2)",
            &[table.into(), trigger.into()],
            |row| row.need(1),
        )
    })
}

/// Puts the guards of an archive run on a partition, and the CHECK of its bounds, not yet validated.
///
/// Locks: ACCESS EXCLUSIVE from the start where the CHECK is to be added. Guards take less, but a lock that grows would deadlock
/// with who reads the partition and then writes to it.
pub fn close(leaf: &Leaf) -> Result<()> {
    let name = leaf.qualified();
    loop {
        if let Some(condition) = bounds_condition(leaf)? {
            locks::acquire(leaf.oid, &name, LockMode::AccessExclusive)?;
            guard(leaf.oid, &name, leaf.owner, Reason::Archiving)?;
            return add_check(leaf, &condition);
        }
        let _held = locks::hold(leaf.oid, &name, mode_for_guards(leaf.oid)?)?;
        // The guards of a run that was rolled back are lifted, and its CHECK with them, by a process that waits for this lock too.
        if observe(leaf.oid)?.bounds {
            return guard(leaf.oid, &name, leaf.owner, Reason::Archiving);
        }
    }
}

/// Adds the CHECK of the bounds, not yet validated. Locks: ACCESS EXCLUSIVE on the partition, for an instant.
pub fn add_bounds_check(leaf: &Leaf) -> Result<()> {
    bounds_condition(leaf)?.map_or(Ok(()), |condition| add_check(leaf, &condition))
}

/// The bounds as a condition; `None` where a valid CHECK has them. Asked before the partition is locked: PostgreSQL opens the tables
/// above it for the answer, which DDL of the whole table locks before its partitions.
fn bounds_condition(leaf: &Leaf) -> Result<Option<String>> {
    if observe(leaf.oid)?.bounds {
        return Ok(None);
    }
    user::elevated(|| {
        spi::one("SELECT pg_get_partition_constraintdef($1)", &[leaf.oid.into()], |row| row.need::<String>(1))
    })
    .map(Some)
}

fn add_check(leaf: &Leaf, condition: &str) -> Result<()> {
    let name = leaf.qualified();
    locks::acquire(leaf.oid, &name, LockMode::AccessExclusive)?;
    if discover::leaf(leaf.oid)?.is_none_or(|now| (now.parent, &now.bounds) != (leaf.parent, &leaf.bounds)) {
        return Err(changed(&name));
    }
    drop_bounds_check(leaf.oid, &name, leaf.owner)?;
    user::as_user(leaf.owner, || {
        spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {BOUNDS_CHECK} CHECK ({condition}) NOT VALID"), &[])
    })?;
    failpoint!("freeze_guarded");
    Ok(())
}

/// Validates the CHECK of the bounds: a scan under SHARE UPDATE EXCLUSIVE, which readers do not notice.
pub fn validate_bounds_check(leaf: &Leaf) -> Result<()> {
    let name = leaf.qualified();
    if observe(leaf.oid)?.bounds {
        return Ok(());
    }
    locks::acquire(leaf.oid, &name, LockMode::ShareUpdateExclusive)?;
    user::as_user(leaf.owner, || spi::execute(&format!("ALTER TABLE {name} VALIDATE CONSTRAINT {BOUNDS_CHECK}"), &[]))?;
    failpoint!("freeze_validated");
    Ok(())
}

/// Makes a table writable again. Disabling the guards takes SHARE ROW EXCLUSIVE, which readers do not hold up; guards and
/// CHECK are dropped if ACCESS EXCLUSIVE is to be had at once, else by the next freeze.
pub fn lift(table: pg_sys::Oid) -> Result<()> {
    let (schema, name) = discover::schema_and_name(table)?;
    let name = pgrx::spi::quote_qualified_identifier(schema, name);
    let owner = discover::owner(table)?;
    // One lock that grew while it is waited for would deadlock with who reads the table and is about to write to it.
    let mut alone = lock::try_acquire(table, LockMode::AccessExclusive);
    locks::acquire(table, &name, LockMode::ShareRowExclusive)?;
    // What was read-only before the run stays so.
    if catalog::partition::is_read_only(table)? {
        return Ok(());
    }
    for trigger in [ROW_GUARD, TRUNCATE_GUARD] {
        if has_trigger(table, trigger)? {
            user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} DISABLE TRIGGER {trigger}"), &[]))?;
        }
    }
    alone |= lock::try_acquire(table, LockMode::AccessExclusive);
    if alone {
        drop_guards(table, &name, owner)?;
        drop_bounds_check(table, &name, owner)?;
    }
    Ok(())
}

/// Makes a read-only partition writable: guards and CHECK go. Locks: ACCESS EXCLUSIVE on it, to the end of the transaction.
pub fn thaw(leaf: &Leaf) -> Result<()> {
    let name = leaf.qualified();
    locks::acquire(leaf.oid, &name, LockMode::AccessExclusive)?;
    drop_guards(leaf.oid, &name, leaf.owner)?;
    drop_bounds_check(leaf.oid, &name, leaf.owner)
}

/// Takes only the guards away: writes are allowed again, the bounds stay proven.
pub fn lift_guards(table: pg_sys::Oid, name: &str, owner: pg_sys::Oid) -> Result<()> {
    drop_guards(table, name, owner)
}

/// Drops the CHECK of the bounds, if there.
pub fn drop_bounds_check(table: pg_sys::Oid, name: &str, owner: pg_sys::Oid) -> Result<()> {
    let there = user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM pg_constraint WHERE conrelid = $1 AND conname = $2)",
            &[table.into(), BOUNDS_CHECK.into()],
            |row| row.need::<bool>(1),
        )
    })?;
    if there {
        user::as_user(owner, || spi::execute(&format!("ALTER TABLE {name} DROP CONSTRAINT {BOUNDS_CHECK}"), &[]))?;
    }
    Ok(())
}

/// Freezes within this transaction: for a partition that it created or holds exclusively.
pub fn freeze_here(leaf: &Leaf) -> Result<()> {
    close(leaf)?;
    validate_bounds_check(leaf)?;
    xact::command_counter_increment();
    Ok(())
}

/// What a frozen partition is recognised by: its file and its guards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenState {
    /// `pg_class.relfilenode`: another one means that the table was rewritten.
    pub relfilenode: pg_sys::Oid,
    /// [`Guarded::identity`].
    pub guards: String,
}

/// The state of a frozen partition, or the error that it is not frozen, or has other bounds, another parent or another name than planned:
/// it is detached and dropped by its name.
pub fn frozen_state(leaf: &Leaf) -> Result<FrozenState> {
    let guarded = observe(leaf.oid)?;
    match discover::leaf(leaf.oid)? {
        Some(now)
            if guarded.guards
                && now.bounds == leaf.bounds
                && now.parent == leaf.parent
                && (&now.schema, &now.name) == (&leaf.schema, &leaf.name) =>
        {
            Ok(FrozenState { relfilenode: now.relfilenode, guards: guarded.identity })
        }
        _ => Err(changed(&leaf.qualified())),
    }
}

/// The error for a partition that is not what was exported.
pub fn changed(name: &str) -> Error {
    Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("partition \"{name}\" changed while it was being archived"))
        .detail("Its guards were removed, or it was rewritten or altered, after the export.")
        .hint("Nothing was removed. Archive it again.")
}
