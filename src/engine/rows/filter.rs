//! Which rows a request is about, and which of them it must not be.

use archive_core::lifecycle::{Label, transition};
use pgrx::spi::quote_identifier;

use super::plan::Plan;
use crate::engine::where_clause;
use crate::error::{Error, Result, SqlState};
use crate::partition::swap;
use crate::pg::{spi, user};

/// Checks that the clause is one boolean expression over the table.
pub fn check(plan: &Plan) -> Result<()> {
    where_clause::check(plan.request.clause.as_deref(), &plan.table.qualified())
}

/// The clause for a statement over the table.
pub fn condition(plan: &Plan) -> String {
    where_clause::condition(plan.request.clause.as_deref())
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
    let _bounded = swap::patient();
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
