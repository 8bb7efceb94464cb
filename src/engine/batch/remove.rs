//! Deleting what is in the archive: exactly the rows that were read.

use std::collections::BTreeMap;

use super::plan::Plan;
use super::select::Chosen;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Deletes the rows by their places, which this transaction has locked since before it read them: no other version of a row
/// can be there. Triggers run, with the rights of the caller.
///
/// Errors: 55000 when a trigger or rule kept rows.
pub fn delete(plan: &Plan, chosen: &[Chosen]) -> Result<()> {
    let mut places: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in chosen {
        places.entry(row.relation.to_u32()).or_default().push(row.place.to_string());
    }
    let table = plan.table.qualified();
    let name = pgrx::spi::quote_identifier(&plan.table.name);
    let mut deleted = 0;
    for (relation, places) in places {
        let query = format!(
            "DELETE FROM {table} WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
             AND {name}.tableoid OPERATOR(pg_catalog.=) {}::pg_catalog.oid",
            relation
        );
        deleted += user::own_sql(user::current(), || spi::execute(&query, &[places.into()]))?;
    }
    if deleted == chosen.len() as u64 {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{deleted} of {} archived rows of \"{table}\" could be deleted", chosen.len()),
    )
    .detail("A BEFORE DELETE trigger, a rule or a row security policy kept the others. Nothing was changed.")
    .hint("Let the table's owner delete these rows, or leave them out by the where_clause."))
}
