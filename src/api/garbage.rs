//! `audit_storage` and `collect_garbage`.

use pgrx::JsonB;
use pgrx::datum::{Interval, TimestampWithTimeZone, to_timestamp};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use super::seconds;
use crate::engine::garbage::{self, Options};
use crate::error::OrRaise;
use crate::pg::args::{Name, Text};
use crate::pg::xact;

/// Compares what a storage holds with the catalog, one row for each object that is missing, altered, orphaned or foreign.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn audit_storage(
    storage: Name,
) -> TableIterator<'static, (name!(storage, Text), name!(key, Text), name!(kind, String), name!(details, JsonB))> {
    xact::refuse_read_only(c"audit_storage()");
    let findings = garbage::audit(&storage.0).or_raise();
    TableIterator::new(
        findings
            .into_iter()
            .map(move |found| (Text(storage.0.clone()), Text(found.key), found.kind.to_owned(), JsonB(found.details))),
    )
}

/// Removes objects that nothing needs any more, or tells which they are.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn collect_garbage(
    storage: Name,
    older_than: default!(Interval, "'14 days'"),
    dry_run: default!(bool, "true"),
) -> TableIterator<
    'static,
    (
        name!(key, Text),
        name!(kind, String),
        name!(bytes, Option<i64>),
        name!(last_modified, Option<TimestampWithTimeZone>),
        name!(removed, bool),
        name!(detail, Option<Text>),
    ),
> {
    xact::refuse_read_only(c"collect_garbage()");
    let options = Options { storage: storage.0, older_than_seconds: seconds(older_than), dry_run };
    let rows = garbage::collect(&options).or_raise();
    TableIterator::new(rows.into_iter().map(|row| {
        (
            Text(row.key),
            row.kind.to_owned(),
            row.bytes.map(u64::cast_signed),
            row.last_modified.map(|unix| to_timestamp(unix as f64)),
            row.removed,
            row.detail.map(Text),
        )
    }))
}
