//! Archived rows back into their table: inserted there, and with the same commit no more in the archive.

use archive_core::lifecycle::TakenRows;
use pgrx::pg_sys;
use serde_json::json;

use super::insert::Insertion;
use super::matched;
use super::request;
use super::swap;
use super::without;
use crate::catalog::{self, managed_table, row_set};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::Leaf;
use crate::partition::{check, locks};
use crate::pg::relation::LockMode;

/// What happens to an archived row when the table has one with its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Conflict {
    /// Nothing is restored (23505).
    Error,
    /// The archived row stays in the archive.
    Skip,
    /// The table's row gets the archived values.
    Replace,
}

impl Conflict {
    /// Parses `error`, `skip` or `replace` (22023 otherwise).
    pub fn parse(text: &str) -> Result<Self> {
        match text {
            "error" => Ok(Self::Error),
            "skip" => Ok(Self::Skip),
            "replace" => Ok(Self::Replace),
            other => Err(Error::new(
                SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("on_conflict must be 'error', 'skip' or 'replace', not \"{other}\""),
            )),
        }
    }
}

/// A row set of which rows go back.
pub(super) struct Shrinking {
    pub(super) set: row_set::RowSet,
    /// Ids of its objects, in order.
    pub(super) objects: Vec<i64>,
    pub(super) taken: TakenRows,
}

/// Puts the archived rows of `source` for which `clause` holds back into it, in this transaction; how many.
///
/// Locks: ROW EXCLUSIVE on the table, the row sets, and what INSERT locks. Errors: 25001 in REPEATABLE READ and SERIALIZABLE,
/// 55006 when another session archives rows of the table, 23505 for keys that the table has, 55000 when a trigger or rule kept
/// rows out, XX001 when an object is not what was archived or what was written is not what is read back, and those of
/// [`request::table`], of the clause, and of INSERT.
pub fn restore(source: pg_sys::Oid, clause: &str, conflict: Conflict) -> Result<u64> {
    check::transaction("restoring rows")?;
    let table = request::table(source, "restore_rows")?;
    let name = table.qualified();
    locks::acquire(source, &name, LockMode::RowExclusive)?;
    locks::wait_for_partition(&name)?;
    let Some((managed, archive)) =
        managed_table::of_source(source)?.and_then(|managed| Some((managed.id, managed.archive_table?)))
    else {
        return Ok(0);
    };
    let mut sets = row_set::lock_all(managed)?.into_iter().map(matched::shrinking).collect::<Result<Vec<_>>>()?;
    let insertion = Insertion::new(&table, archive, clause, conflict, &sets)?;
    let moved = insertion.run(&mut sets)?;
    failpoint!("restore_rows_inserted");
    if moved.skipped > 0 {
        crate::pg::server_text::notice!("{} archived rows stay: \"{name}\" has rows with their keys", moved.skipped);
    }
    let objects = rewrite_all(&table, &sets)?;
    failpoint!("restore_rows_rewritten");
    if moved.restored > 0 {
        let details = json!({ "rows": moved.restored, "skipped": moved.skipped, "objects": objects });
        catalog::event::record(source, &name, "restored", "LIVE", None, details)?;
    }
    Ok(moved.restored)
}

/// Writes the objects anew of which rows are taken; how many these are.
fn rewrite_all(table: &Leaf, sets: &[Shrinking]) -> Result<usize> {
    let (id, name) = (catalog::job::new_id()?, (table.schema.clone(), table.name.clone()));
    let mut objects = 0;
    for (number, shrinking) in (1..).zip(sets).filter(|(_, shrinking)| !shrinking.taken.is_empty()) {
        let (store, rewritten) = without::rewrite(table, shrinking, (id, number))?;
        objects += rewritten.gone.len();
        swap::swap(shrinking.set.id, &store, &name, (id, number), &rewritten)?;
    }
    Ok(objects)
}
