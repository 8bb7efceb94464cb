//! The user's where_clause: one boolean expression, run with nobody's rights but the user's (P8).

use crate::error::{Error, Result, SqlState};
use crate::pg::expression::{self, Located};
use crate::pg::{spi, user};

/// Checks that the clause is one boolean expression over the table. Errors name it and the place in it; they keep
/// PostgreSQL's SQLSTATE, or have 42601 where the text is more than an expression.
pub fn check(clause: Option<&str>, table: &str) -> Result<()> {
    let Some(clause) = clause else { return Ok(()) };
    const BEFORE: &str = "SELECT ";
    let one =
        expression::located(|| expression::is_one(clause)).map_err(|error| explained(error, BEFORE, clause))??;
    if !one {
        return Err(Error::new(SqlState::ERRCODE_SYNTAX_ERROR, "where_clause is not one expression")
            .detail(format!("where_clause: {clause}"))
            .hint("Write what would stand after WHERE, such as ref = 'INC-23': no WHERE, no semicolon, no ORDER BY or LIMIT."));
    }
    let before = format!("SELECT FROM {table} WHERE (\n");
    let query = format!("{before}{clause}\n) LIMIT 0");
    // LIMIT 0 runs nothing of it, but resolves names and types.
    expression::located(|| user::own_sql(user::current(), || spi::writing_rows(&query, &[], |_| Ok(()))))
        .map_err(|error| explained(error, &before, clause))??;
    Ok(())
}

fn explained(located: Located, before: &str, clause: &str) -> Error {
    let Located { error, position } = located;
    let before = before.chars().count() as i32;
    let at = position - before;
    let place = match at {
        at if at >= 1 && at <= clause.chars().count() as i32 => format!("At character {at} of where_clause: {clause}"),
        _ => format!("where_clause: {clause}"),
    };
    let detail = error.detail.map_or_else(|| place.clone(), |detail| format!("{detail}\n{place}"));
    let explained = Error::new(error.sqlstate, format!("invalid where_clause: {}", error.message)).detail(detail);
    match error.hint {
        Some(hint) => explained.hint(hint),
        None => explained,
    }
}

/// The clause for a statement over the table.
pub fn condition(clause: Option<&str>) -> String {
    clause.map_or_else(|| "true".to_owned(), |clause| format!("(\n{clause}\n)"))
}
