//! `plan_archive`, `explain_lifecycle`, `lifecycle_map`, and the rows of `archive_ext.alerts`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::{SetOfIterator, TableIterator};
use pgrx::prelude::*;

use crate::catalog;
use crate::engine::lifecycle;
use crate::error::OrRaise;
use crate::pg::args::{Regclass, Text};

/// What the policies will do, and when; touches nothing.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn plan_archive(
    source: default!(Option<Regclass>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(table_name, Regclass),
        name!(partitions, Text),
        name!(action, String),
        name!(starts, Option<TimestampWithTimeZone>),
        name!(rows, Option<i64>),
        name!(local_bytes, Option<i64>),
        name!(objects, Option<i32>),
        name!(archived_bytes, Option<i64>),
        name!(bytes_freed, Option<i64>),
        name!(saved_per_month, Option<AnyNumeric>),
        name!(locks, String),
        name!(reason, Text),
        name!(note, Option<Text>),
    ),
> {
    let coming = lifecycle::plan(source.map(|source| source.0)).or_raise();
    TableIterator::new(coming.into_iter().map(|one| {
        (
            Regclass(one.table),
            Text(one.subject),
            one.action.to_owned(),
            one.starts,
            one.rows,
            one.local_bytes,
            one.objects,
            one.archived_bytes,
            one.bytes_freed,
            one.saved_per_month.and_then(|saved| AnyNumeric::try_from(format!("{saved:.4}").as_str()).ok()),
            one.locks.to_owned(),
            Text(one.reason),
            one.note.map(Text),
        )
    }))
}

/// Each partition of a table: its state, what comes next, why it waits, who is in the way, what frees it.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn explain_lifecycle(
    source: Regclass,
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(status, String),
        name!(label, Option<Text>),
        name!(next_step, Option<String>),
        name!(due, Option<TimestampWithTimeZone>),
        name!(reason, Text),
        name!(blocked_by, Option<Text>),
        name!(freed_by, Option<Text>),
    ),
> {
    let lines = lifecycle::explain(source.0).or_raise();
    TableIterator::new(lines.into_iter().map(|line| {
        (
            Text(line.partition),
            line.status.to_owned(),
            line.label.map(Text),
            line.next,
            line.when,
            Text(line.reason),
            line.blocked_by.map(Text),
            line.freed_by.map(Text),
        )
    }))
}

/// A table's partitions by tier and size, drawn.
#[pg_extern]
fn lifecycle_map(source: Regclass) -> SetOfIterator<'static, Text> {
    SetOfIterator::new(lifecycle::map(source.0).or_raise().into_iter().map(Text))
}

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;

    use super::*;

    /// Whether the views show the caller all that they hold.
    #[pg_extern(stable)]
    pub fn sees_all() -> bool {
        crate::pg::user::reads_all_archives()
    }

    /// Whether row-level security hides no row of a table from the caller.
    #[pg_extern(stable)]
    pub fn sees_every_row(source: Regclass) -> bool {
        catalog::sees_every_row(source.0).or_raise()
    }

    /// What is wrong with the caller's tables.
    #[pg_extern]
    #[allow(clippy::type_complexity)]
    pub fn standing_alerts() -> TableIterator<
        'static,
        (
            name!(alert, String),
            name!(table_name, Regclass),
            name!(partition_name, Option<Text>),
            name!(job_id, Option<Uuid>),
            name!(since, Option<TimestampWithTimeZone>),
            name!(detail, Text),
            name!(remedy, Text),
        ),
    > {
        let alerts = lifecycle::standing().or_raise();
        TableIterator::new(alerts.into_iter().map(|one| {
            let partition = one.partition.map(Text);
            (one.alert, Regclass(one.table), partition, one.job, one.since, Text(one.detail), Text(one.remedy))
        }))
    }
}
