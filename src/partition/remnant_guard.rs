//! Guards over what stays of archived rows: a change would be seen by nobody who reads the archive, and lost with the next
//! restore.
//!
//! They fire for the origin only: what a subscriber applies was let through by its publisher's guards.

use std::cell::RefCell;

use pgrx::pg_sys;

use super::{discover, locks};
use crate::catalog;
use crate::catalog::remnant::Marker;
use crate::error::Result;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, trigger, user};

/// BEFORE UPDATE of a remnant.
const CHANGE_GUARD: &str = "archive_ext_remnant_change";
/// AFTER INSERT or UPDATE of a row that is taken for a remnant then, whichever trigger made it one.
const NEW_GUARD: &str = "archive_ext_remnant_new";

/// Puts the guards on a table that lacks one. Locks: SHARE ROW EXCLUSIVE on it then. Runs with the owner's rights.
pub fn guard(table: pg_sys::Oid, marker: &Marker) -> Result<()> {
    if has_guards(table)? {
        return Ok(());
    }
    let (name, owner) = (catalog::qualified_name(table)?, discover::owner(table)?);
    locks::acquire(table, &name, LockMode::ShareRowExclusive)?;
    drop_guards(table)?;
    let (old, new) = (marker.remnant("OLD"), marker.remnant("NEW"));
    let statements = [
        format!(
            "CREATE TRIGGER {CHANGE_GUARD} BEFORE UPDATE ON {name} FOR EACH ROW WHEN ({old})
             EXECUTE FUNCTION archive_ext.refuse_remnant('change')"
        ),
        format!(
            "CREATE TRIGGER {NEW_GUARD} AFTER INSERT OR UPDATE ON {name} FOR EACH ROW WHEN ({new})
             EXECUTE FUNCTION archive_ext.refuse_remnant('new')"
        ),
    ];
    user::as_user(owner, || statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}

/// Takes the guards away. Locks: ACCESS EXCLUSIVE on the table where it has some.
pub fn drop_guards(table: pg_sys::Oid) -> Result<()> {
    let (name, owner) = (catalog::qualified_name(table)?, discover::owner(table)?);
    for trigger in guards(table)? {
        user::as_user(owner, || spi::execute(&format!("DROP TRIGGER {trigger} ON {name}"), &[]))?;
    }
    Ok(())
}

/// Whether both guards are there and fire.
pub fn has_guards(table: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT count(*) = 2 FROM pg_trigger WHERE tgrelid = $1 AND tgname IN ($2, $3) AND tgenabled IN ('O', 'A')",
            &[table.into(), CHANGE_GUARD.into(), NEW_GUARD.into()],
            |row| row.need(1),
        )
    })
}

/// Whether rows of a table have the marker set, those that policies hide included. Runs with the owner's rights.
pub fn has_remnants(table: pg_sys::Oid, marker: &Marker) -> Result<bool> {
    let name = catalog::qualified_name(table)?;
    let query = format!("SELECT EXISTS (SELECT FROM {name} AS hot WHERE {})", marker.remnant("hot"));
    let _all = GucNest::new().set(c"row_security", "off");
    user::as_user(discover::owner(table)?, || spi::one(&query, &[], |row| row.need(1)))
}

fn guards(table: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT tgname::text FROM pg_trigger WHERE tgrelid = $1 AND tgname IN ($2, $3)",
            &[table.into(), CHANGE_GUARD.into(), NEW_GUARD.into()],
            |row| row.need(1),
        )
    })
}

thread_local! {
    /// The tables, and how deep in triggers the statement is that they are lifted for.
    static LIFTED: RefCell<(Vec<pg_sys::Oid>, i32)> = const { RefCell::new((Vec::new(), 0)) };
}

/// The guards of some tables let statements of the caller through until it is dropped, but none that triggers run meanwhile: those
/// over remnants, and those that keep a WARM partition as it is.
#[derive(Debug)]
pub struct Lifted {
    before: (Vec<pg_sys::Oid>, i32),
}

impl Lifted {
    /// Lifts those of these tables, which store the rows.
    pub fn of(tables: Vec<pg_sys::Oid>) -> Self {
        Self { before: LIFTED.replace((tables, trigger::depth())) }
    }
}

impl Drop for Lifted {
    fn drop(&mut self) {
        LIFTED.set(std::mem::take(&mut self.before));
    }
}

/// Whether the guards of a table let the statement through that fired the trigger which asks.
pub fn lifted(table: pg_sys::Oid) -> bool {
    LIFTED.with_borrow(|(tables, depth)| tables.contains(&table) && trigger::depth() == depth + 1)
}
