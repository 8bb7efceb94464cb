//! Deleting what is in the archive: exactly the rows that were read.

use pgrx::datum::DatumWithOid;

use super::plan::Plan;
use super::select::{self, Chosen};
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Deletes the rows of these tables by their places, which this transaction has locked since before it read them: no other version
/// of a row can be there. All of it is one statement, at whose end foreign keys are looked at: rows may reference each other.
/// Triggers run, with the rights of the caller.
///
/// Errors: 55000 when a trigger or rule kept rows.
pub fn delete(tables: &[(&Plan, &[Chosen])]) -> Result<()> {
    let mut deletes = Vec::new();
    let mut given: Vec<DatumWithOid<'_>> = Vec::new();
    for (number, (plan, chosen)) in tables.iter().enumerate() {
        let (table, name) = (plan.table.qualified(), pgrx::spi::quote_identifier(&plan.table.name));
        for (relation, places) in select::places(chosen) {
            given.push(places.into());
            let delete = format!(
                "DELETE FROM {table} WHERE {name}.ctid OPERATOR(pg_catalog.=) ANY (${}::pg_catalog.tid[]) \
                 AND {name}.tableoid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid RETURNING {number} AS number",
                given.len()
            );
            deletes.push(delete);
        }
    }
    if let ([delete], [(plan, chosen)]) = (deletes.as_slice(), tables) {
        // A statement of its own may be rewritten by rules.
        let gone =
            user::own_sql(user::current(), || spi::writing_rows(delete, &given, |row| row.need::<i32>(1)))?.len();
        let kept = || kept(&plan.table.qualified(), gone as i64, chosen.len());
        return if gone == chosen.len() { Ok(()) } else { Err(kept()) };
    }
    let names = || (1..=deletes.len()).map(|at| format!("archive_ext_d{at}"));
    let with: Vec<_> = names().zip(&deletes).map(|(name, delete)| format!("{name} AS ({delete})")).collect();
    let gone: Vec<_> = names().map(|name| format!("SELECT number FROM {name}")).collect();
    let query = format!(
        "WITH {} SELECT g.number, pg_catalog.count(*) FROM ({}) g GROUP BY g.number",
        with.join(", "),
        gone.join(" UNION ALL ")
    );
    let counts = user::own_sql(user::current(), || {
        spi::writing_rows(&query, &given, |row| Ok((row.need::<i32>(1)?, row.need::<i64>(2)?)))
    })?;
    for (number, (plan, chosen)) in (0..).zip(tables) {
        let deleted = counts.iter().find(|(table, _)| *table == number).map_or(0, |(_, rows)| *rows);
        if deleted != chosen.len() as i64 {
            return Err(kept(&plan.table.qualified(), deleted, chosen.len()));
        }
    }
    Ok(())
}

fn kept(table: &str, deleted: i64, wanted: usize) -> Error {
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{deleted} of {wanted} archived rows of \"{table}\" could be deleted"),
    )
    .detail("A BEFORE DELETE trigger, a rule or a row security policy kept the others. Nothing was changed.")
    .hint("Let the table's owner delete these rows, or leave them out by the where_clause.")
}
