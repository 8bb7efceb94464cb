//! `request_restore` and `poll_restores`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::catalog::restore_request::Shown;
use crate::engine::glacier::{self, Wish};
use crate::error::{Error, OrRaise};
use crate::pg::args::{Regclass, Text};
use crate::pg::xact;

/// Asks for readable copies of what is in a frozen storage class: of a partition, or of a table and a time range.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn request_restore(
    archived: Text,
    from_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    to_time: default!(Option<TimestampWithTimeZone>, "NULL"),
    tier: default!(&str, "'standard'"),
    days: default!(i32, "7"),
) -> TableIterator<
    'static,
    (
        name!(request, i64),
        name!(partition, Text),
        name!(status, Text),
        name!(retrieval, Text),
        name!(days, i32),
        name!(objects, i64),
        name!(bytes, i64),
        name!(cost, Option<f64>),
        name!(currency, Option<Text>),
        name!(expected_at, Option<TimestampWithTimeZone>),
        name!(ready_until, Option<TimestampWithTimeZone>),
        name!(error, Option<Text>),
    ),
> {
    xact::refuse_read_only(c"request_restore()");
    let retrieval = tier.parse().map_err(Error::from).or_raise();
    let wish = Wish { from: from_time, to: to_time, retrieval, days };
    rows(glacier::request(&archived.0, &wish).or_raise())
}

/// Sends requests for readable copies to the store, and looks how far they are: of one table, or all of the caller's.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn poll_restores(
    source: default!(Option<Regclass>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(request, i64),
        name!(partition, Text),
        name!(status, Text),
        name!(retrieval, Text),
        name!(days, i32),
        name!(objects, i64),
        name!(bytes, i64),
        name!(cost, Option<f64>),
        name!(currency, Option<Text>),
        name!(expected_at, Option<TimestampWithTimeZone>),
        name!(ready_until, Option<TimestampWithTimeZone>),
        name!(error, Option<Text>),
    ),
> {
    xact::refuse_read_only(c"poll_restores()");
    rows(glacier::poll(source.map(|source| source.0)).or_raise())
}

type Row = (
    i64,
    Text,
    Text,
    Text,
    i32,
    i64,
    i64,
    Option<f64>,
    Option<Text>,
    Option<TimestampWithTimeZone>,
    Option<TimestampWithTimeZone>,
    Option<Text>,
);

fn rows(requests: Vec<Shown>) -> TableIterator<'static, Row> {
    TableIterator::new(requests.into_iter().map(|one| {
        (
            one.id,
            Text(one.partition),
            Text(one.status),
            Text(one.retrieval),
            one.days,
            one.objects,
            one.bytes,
            one.cost,
            one.currency.map(Text),
            one.expected_at,
            one.ready_until,
            one.error.map(Text),
        )
    }))
}
