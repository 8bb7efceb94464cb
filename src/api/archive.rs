//! `archive_partition` and `archive_partitions`.

use pgrx::Uuid;
use pgrx::datum::{Interval, TimestampWithTimeZone};
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use super::seconds;
use crate::engine::archive::{self, Outcome};
use crate::engine::plan::{Options, Verify};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::args::{Name, Regclass};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// One row for each archived partition.
type ArchivedRows = TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(archived, Regclass),
        name!(rows, Option<i64>),
        name!(local_bytes, i64),
        name!(archived_bytes, Option<i64>),
        name!(objects, Option<i32>),
        name!(location, String),
        name!(local_copy_until, Option<TimestampWithTimeZone>),
    ),
>;

/// Archives one partition: freeze, export, read-back, swap, in the caller's transaction.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn archive_partition(
    partition: Regclass,
    storage: default!(Option<Name>, "NULL"),
    verify: default!(&str, "'content'"),
    drop_local: default!(Option<Interval>, "NULL"),
    dry_run: default!(bool, "false"),
    allow_subscribed: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(archived, Regclass),
        name!(rows, Option<i64>),
        name!(local_bytes, i64),
        name!(archived_bytes, Option<i64>),
        name!(objects, Option<i32>),
        name!(location, String),
        name!(local_copy_until, Option<TimestampWithTimeZone>),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"archive_partition()");
    }
    let options = options(storage, verify, drop_local, allow_subscribed);
    giving_way(|| options.and_then(|options| run(&[partition], &options, dry_run))).or_raise()
}

/// Archives several partitions: all are exported and verified before the first is swapped.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn archive_partitions(
    partitions: Vec<Option<Regclass>>,
    storage: default!(Option<Name>, "NULL"),
    verify: default!(&str, "'content'"),
    drop_local: default!(Option<Interval>, "NULL"),
    dry_run: default!(bool, "false"),
    allow_subscribed: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(archived, Regclass),
        name!(rows, Option<i64>),
        name!(local_bytes, i64),
        name!(archived_bytes, Option<i64>),
        name!(objects, Option<i32>),
        name!(location, String),
        name!(local_copy_until, Option<TimestampWithTimeZone>),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"archive_partitions()");
    }
    let partitions: Vec<_> = partitions.into_iter().flatten().collect();
    let options = options(storage, verify, drop_local, allow_subscribed);
    giving_way(|| options.and_then(|options| run(&partitions, &options, dry_run))).or_raise()
}

fn run(partitions: &[Regclass], options: &Options, dry_run: bool) -> Result<ArchivedRows> {
    let oids: Vec<_> = partitions.iter().map(|partition| partition.0).collect();
    let outcomes = if dry_run { archive::dry_run(&oids, options) } else { archive::archive(&oids, options) }?;
    Ok(TableIterator::new(outcomes.into_iter().map(row)))
}

/// The options of a call, checked (22023).
pub fn options(
    storage: Option<Name>,
    verify: &str,
    drop_local: Option<Interval>,
    allow_subscribed: bool,
) -> Result<Options> {
    let drop_local_seconds = drop_local.map(seconds);
    if drop_local_seconds.is_some_and(|seconds| seconds < 0) {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "drop_local must not be negative")
            .hint("'0' drops the local copy as soon as the archive is verified; NULL takes the policy's drop_after."));
    }
    let (storage, verify) = (storage.map(|name| name.0), Verify::parse(verify)?);
    Ok(Options { storage, verify, drop_local_seconds, allow_subscribed })
}

/// One row of the result.
#[allow(clippy::type_complexity)]
pub fn row(
    outcome: Outcome,
) -> (Option<Uuid>, Regclass, Option<i64>, i64, Option<i64>, Option<i32>, String, Option<TimestampWithTimeZone>) {
    (
        outcome.job,
        Regclass(outcome.archived),
        outcome.rows.map(|rows| rows as i64),
        outcome.local_bytes as i64,
        outcome.archived_bytes.map(|bytes| bytes as i64),
        outcome.objects.map(|objects| objects as i32),
        outcome.location,
        outcome.local_copy_until,
    )
}
