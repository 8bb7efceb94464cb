//! What ties tables together, once all of them are there: foreign keys, and which tables age with which.

use archive_core::manifest::FamilyKey;
use pgrx::pg_sys;

use super::rebuild::try_statement;
use super::survey::Table;
use super::{Action, Line, attempt, told};
use crate::catalog;
use crate::catalog::child_table::ChildTable;
use crate::engine::family;
use crate::error::Result;
use crate::partition::discover;

/// A statement that names a table which was not there yet.
pub(super) struct Deferred<'a> {
    /// The table it is about.
    pub(super) table: &'a Table,
    /// Whose rights it runs with.
    pub(super) owner: pg_sys::Oid,
    /// The statement.
    pub(super) sql: &'a str,
}

/// Runs what had to wait; what fails now is told.
pub(super) fn run_deferred(deferred: &[Deferred<'_>], lines: &mut Vec<Line>) {
    for statement in deferred {
        try_statement(statement.table, statement.owner, statement.sql, lines);
    }
}

/// Makes the tables managed children of those that they were children of.
pub(super) fn register_children(tables: &[Table], lines: &mut Vec<Line>) -> Result<()> {
    for table in tables {
        let Some(child) = discover::find_relation(&table.schema, &table.name)? else { continue };
        for key in table.managed_parents() {
            let parent = pgrx::spi::quote_qualified_identifier(&key.schema, &key.table);
            let line = match attempt(|| register(child, key)) {
                Ok(true) => (Action::Child, format!("ages with {parent} by {}", key.foreign_key)),
                Ok(false) => continue,
                Err(error) => (Action::Warning, format!("it does not age with {parent} as it did: {}", told(&error))),
            };
            lines.push(Line::about(table.name(), line.0, line.1));
        }
    }
    Ok(())
}

/// Whether it was no child of it yet.
fn register(child: pg_sys::Oid, key: &FamilyKey) -> Result<bool> {
    let parent = discover::find_relation(&key.schema, &key.table)?.ok_or_else(|| {
        crate::error::Error::new(crate::error::SqlState::ERRCODE_UNDEFINED_TABLE, "that table is not there")
    })?;
    let edge = ChildTable { parent, child, foreign_key: key.foreign_key.clone() };
    if catalog::child_table::of(parent)?.contains(&edge) {
        return Ok(false);
    }
    family::add(parent, child, Some(&key.foreign_key))?;
    Ok(true)
}
