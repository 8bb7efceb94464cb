//! The user's where_clause: one boolean expression, run with nobody's rights but the user's (P8).

use archive_core::lifecycle::{Label, transition};
use pgrx::spi::quote_identifier;

use super::plan::Plan;
use crate::error::{Error, Result, SqlState};
use crate::partition::swap;
use crate::pg::expression::{self, Located};
use crate::pg::{spi, user};

/// Checks that the clause is one boolean expression over the table. Errors name it and the place in it; they keep
/// PostgreSQL's SQLSTATE, or have 42601 where the text is more than an expression.
pub fn check(plan: &Plan) -> Result<()> {
    let Some(clause) = &plan.request.clause else { return Ok(()) };
    const BEFORE: &str = "SELECT ";
    let one =
        expression::located(|| expression::is_one(clause)).map_err(|error| explained(error, BEFORE, clause))??;
    if !one {
        return Err(Error::new(SqlState::ERRCODE_SYNTAX_ERROR, "where_clause is not one expression")
            .detail(format!("where_clause: {clause}"))
            .hint("Write what would stand after WHERE, such as ref = 'INC-23': no WHERE, no semicolon, no ORDER BY or LIMIT."));
    }
    let before = format!("SELECT FROM {} WHERE (\n", plan.table.qualified());
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
pub fn condition(plan: &Plan) -> String {
    plan.request.clause.as_ref().map_or_else(|| "true".to_owned(), |clause| format!("(\n{clause}\n)"))
}

/// Refuses when a matching row has a status from which the new one cannot be reached, naming those that can (55000).
pub fn refuse_illegal(plan: &Plan) -> Result<()> {
    if plan.illegal.is_empty() {
        return Ok(());
    }
    let (root, name) = (plan.table.qualified(), quote_identifier(&plan.table.name));
    let column = quote_identifier(&plan.table.column);
    let query = format!(
        "SELECT {name}.{column}::pg_catalog.text FROM {root} \
         WHERE {name}.{column} OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND {} LIMIT 1",
        condition(plan)
    );
    let _bounded = swap::bounded();
    let found = user::own_sql(user::current(), || {
        spi::writing_rows(&query, &[plan.illegal.clone().into()], |row| row.need::<String>(1))
    })?;
    let Some(value) = found.into_iter().next() else { return Ok(()) };
    Err(illegal(plan, &value))
}

fn illegal(plan: &Plan, value: &str) -> Error {
    let (root, to) = (plan.table.qualified(), plan.request.to);
    let column = quote_identifier(&plan.table.column);
    let leave = format!("AND {column} <> '{value}' in the where_clause leaves these rows where they are.");
    match value.parse::<Label>() {
        Ok(label) => {
            let legal: Vec<_> = transition::targets(label.status).iter().map(|status| status.as_str()).collect();
            Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("rows of \"{root}\" cannot go from {} to {to}", label.status),
            )
            .detail(format!(
                "The where_clause matches rows of {value}. From {} rows go to {}.",
                label.status,
                legal.join(" or ")
            ))
            .hint(leave)
        }
        Err(_) => Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rows of \"{root}\" have \"{value}\" in {column}, which is no lifecycle label"),
        )
        .hint(format!("A label is LIVE, HOT, WARM or ARCHIVE, followed by _ and a period such as 202412. {leave}")),
    }
}
