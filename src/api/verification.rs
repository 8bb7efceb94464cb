//! `verify_archive`, `drop_local_copy`, `reconcile_archive`, and what the procedure `verify_archive_steps` calls between its commits.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::verification::{self, Level, Verified};
use crate::error::OrRaise;
use crate::pg::args::{Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Compares what is in the storage with what was archived: a row for each partition.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn verify_archive(
    partition: Text,
    level: default!(&str, "'content'"),
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(level, String),
        name!(objects, i64),
        name!(rows, i64),
        name!(bytes, i64),
        name!(verified_at, Option<TimestampWithTimeZone>),
        name!(result, Text),
    ),
> {
    xact::refuse_read_only(c"verify_archive()");
    let verified = Level::parse(level).and_then(|level| verification::verify(&partition.0, level)).or_raise();
    TableIterator::new(verified.into_iter().map(row))
}

#[allow(clippy::type_complexity)]
fn row(one: Verified) -> (Text, String, i64, i64, i64, Option<TimestampWithTimeZone>, Text) {
    (
        Text(one.partition),
        one.level.as_str().to_owned(),
        one.objects.cast_signed(),
        one.rows.cast_signed(),
        one.bytes.cast_signed(),
        one.verified_at,
        Text(one.result),
    )
}

/// Drops the local copy of an archived partition, once its archive and the local copy were found to be equal.
#[pg_extern]
fn drop_local_copy(
    partition: Text,
) -> TableIterator<'static, (name!(partition, Text), name!(local_copy, Text), name!(rows, i64), name!(bytes_freed, i64))>
{
    xact::refuse_read_only(c"drop_local_copy()");
    let dropped = giving_way(|| verification::drop_local_copy(&partition.0)).or_raise();
    TableIterator::once((
        Text(dropped.partition),
        Text(dropped.local_copy),
        dropped.rows.cast_signed(),
        dropped.bytes.cast_signed(),
    ))
}

/// Looks for every object of a table's archive and reads some of them.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn reconcile_archive(
    source: Regclass,
    sample_percent: default!(f64, "1"),
) -> TableIterator<
    'static,
    (name!(objects, i64), name!(sampled, i64), name!(rows, i64), name!(bytes, i64), name!(damaged, i64)),
> {
    xact::refuse_read_only(c"reconcile_archive()");
    let all = verification::reconcile(source.0, sample_percent).or_raise();
    TableIterator::once((
        all.objects.cast_signed(),
        all.sampled.cast_signed(),
        all.rows.cast_signed(),
        all.bytes.cast_signed(),
        all.damaged.cast_signed(),
    ))
}

#[pg_schema]
mod archive_ext {
    use pgrx::iter::TableIterator;
    use pgrx::prelude::*;

    use crate::engine::verification::{self, Level};
    use crate::error::OrRaise;
    use crate::pg::args::Text;
    use crate::pg::xact;

    /// What a name stands for that `verify_archive` takes: ids and names. Checks the level, too.
    #[pg_extern]
    fn verifiable(partition: Text, level: &str) -> TableIterator<'static, (name!(id, i64), name!(partition, Text))> {
        let found = Level::parse(level).and_then(|_| verification::resolve(&partition.0)).or_raise();
        TableIterator::new(found.into_iter().map(|subject| (subject.id, Text(subject.name))))
    }

    /// Verifies one of these; whether it is what was archived, and what was found. Nothing when it is not archived any more.
    #[pg_extern]
    fn verify_one(id: i64, level: &str) -> TableIterator<'static, (name!(passed, bool), name!(result, Text))> {
        xact::refuse_read_only(c"verify_one()");
        let verified = Level::parse(level).and_then(|level| verification::verify_by_id(id, level)).or_raise();
        TableIterator::new(verified.into_iter().map(|one| (one.verified_at.is_some(), Text(one.result))))
    }
}
