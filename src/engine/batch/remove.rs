//! Deleting what is in the archive: exactly the rows that were read.

use super::plan::Plan;
use super::select::{self, Chosen};
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Deletes the rows by their places, which this transaction has locked since before it read them: no other version of a row
/// can be there. Triggers run, with the rights of the caller.
///
/// Errors: 55000 when a trigger or rule kept rows.
pub fn delete(plan: &Plan, chosen: &[Chosen]) -> Result<()> {
    let table = plan.table.qualified();
    let name = pgrx::spi::quote_identifier(&plan.table.name);
    let mut deleted = 0;
    for (relation, places) in select::places(chosen) {
        let query = format!(
            "DELETE FROM {table} WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
             AND {name}.tableoid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid RETURNING {name}.ctid::pg_catalog.text"
        );
        let gone = user::own_sql(user::current(), || {
            spi::writing_rows(&query, &[places.into()], |row| row.need::<String>(1))
        })?;
        deleted += gone.len();
    }
    if deleted == chosen.len() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{deleted} of {} archived rows of \"{table}\" could be deleted", chosen.len()),
    )
    .detail("A BEFORE DELETE trigger, a rule or a row security policy kept the others. Nothing was changed.")
    .hint("Let the table's owner delete these rows, or leave them out by the where_clause."))
}
