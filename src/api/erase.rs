//! `erase_rows` and `update_archived`.

use pgrx::JsonB;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::rewrite::{self, Erased, Wish};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::args::{Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Erases rows from a table and its archive.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn erase_rows(
    source: Regclass,
    where_clause: Text,
    at_once: default!(bool, "false"),
    reason: default!(Option<Text>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(receipt, Option<i64>),
        name!(rows_deleted, i64),
        name!(rows_of_archive, i64),
        name!(objects, i64),
        name!(delete_after, Option<TimestampWithTimeZone>),
    ),
> {
    xact::refuse_read_only(c"erase_rows()");
    let reason = reason.as_ref().map(|reason| reason.0.as_str());
    let wish = Wish { source: source.0, clause: &where_clause.0, at_once, reason };
    TableIterator::once(row(giving_way(|| rewrite::erase(&wish)).or_raise()))
}

/// Gives columns of archived rows new values: `changes` are SQL expressions by column.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn update_archived(
    source: Regclass,
    where_clause: Text,
    changes: JsonB,
    at_once: default!(bool, "false"),
    reason: default!(Option<Text>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(receipt, Option<i64>),
        name!(rows_of_archive, i64),
        name!(objects, i64),
        name!(delete_after, Option<TimestampWithTimeZone>),
    ),
> {
    xact::refuse_read_only(c"update_archived()");
    let reason = reason.as_ref().map(|reason| reason.0.as_str());
    let wish = Wish { source: source.0, clause: &where_clause.0, at_once, reason };
    let changes = expressions(changes).or_raise();
    let (receipt, _, rows, objects, delete_after) = row(giving_way(|| rewrite::update(&wish, &changes)).or_raise());
    TableIterator::once((receipt, rows, objects, delete_after))
}

fn row(erased: Erased) -> (Option<i64>, i64, i64, i64, Option<TimestampWithTimeZone>) {
    let Erased { receipt, deleted, erased, objects, delete_after } = erased;
    (receipt, deleted.cast_signed(), erased.cast_signed(), objects.cast_signed(), delete_after)
}

/// An object of columns and the texts of expressions.
fn expressions(changes: JsonB) -> Result<Vec<(String, String)>> {
    let wrong = || {
        Error::new(
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            "changes must be an object of columns and SQL expressions",
        )
        .hint("Such as '{\"note\": \"NULL\", \"amount\": \"amount * 2\", \"status\": \"\u{27}paid\u{27}\"}'.")
    };
    let serde_json::Value::Object(changes) = changes.0 else { return Err(wrong()) };
    changes
        .into_iter()
        .map(|(column, value)| match value {
            serde_json::Value::String(value) => Ok((column, value)),
            _ => Err(wrong()),
        })
        .collect()
}
