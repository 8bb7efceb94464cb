//! `reconcile_counts`.

use pgrx::datum::Date;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::counts;
use crate::error::OrRaise;
use crate::pg::args::{Name, Regclass};
use crate::pg::xact;

/// Counts the rows of each month in a table and its archive, and tells which are missing that were counted before.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn reconcile_counts(
    source: Regclass,
    time_column: default!(Option<Name>, "NULL"),
    accept: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(month, Option<Date>),
        name!(hot, i64),
        name!(archived, i64),
        name!(total, i64),
        name!(recorded, Option<i64>),
        name!(missing, i64),
    ),
> {
    xact::refuse_read_only(c"reconcile_counts()");
    let time = time_column.map(|name| name.0);
    let months = counts::reconcile(source.0, time.as_deref(), accept).or_raise();
    TableIterator::new(months.into_iter().map(|month| {
        let missing = month.missing();
        let (hot, archived) = (month.counted.hot, month.counted.archived);
        (first_day(&month.counted.month), hot, archived, hot + archived, month.recorded, missing)
    }))
}

/// The month as a date; rows without a time have none.
fn first_day(month: &str) -> Option<Date> {
    if month == "-infinity" { None } else { month.parse().ok() }
}
