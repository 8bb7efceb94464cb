//! `compact_archive`, and what the procedure `compact_archive_steps` calls between its commits.

use pgrx::Uuid;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::rewrite::{self, Request};
use crate::error::OrRaise;
use crate::pg::args::{Name, Regclass};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Merges the next small objects of a table's archive into large ones, in the caller's transaction.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn compact_archive(
    source: Regclass,
    time_column: default!(Option<Name>, "NULL"),
    min_objects: default!(i32, "2"),
    max_bytes: default!(Option<i64>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(rows, i64),
        name!(objects, i64),
        name!(bytes, i64),
        name!(into_objects, i64),
        name!(into_bytes, i64),
        name!(done, bool),
    ),
> {
    xact::refuse_read_only(c"compact_archive()");
    let outcome = giving_way(|| rewrite::compact(&request(source, time_column, min_objects, max_bytes))).or_raise();
    TableIterator::once((
        outcome.job,
        outcome.rows.cast_signed(),
        outcome.merged.0.cast_signed(),
        outcome.merged.1.cast_signed(),
        outcome.into.0.cast_signed(),
        outcome.into.1.cast_signed(),
        outcome.done,
    ))
}

fn request(source: Regclass, time_column: Option<Name>, min_objects: i32, max_bytes: Option<i64>) -> Request {
    Request { source: source.0, time_column: time_column.map(|name| name.0), min_objects, max_bytes }
}

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::prelude::*;

    use crate::engine::rewrite;
    use crate::error::OrRaise;
    use crate::pg::args::{Name, Regclass};
    use crate::pg::xact;

    /// The job that merges small objects of a table's archive, new or taken up again.
    #[pg_extern]
    fn begin_compaction(source: Regclass, time_column: Option<Name>, min_objects: i32, max_bytes: Option<i64>) -> Uuid {
        xact::refuse_read_only(c"begin_compaction()");
        rewrite::begin(&super::request(source, time_column, min_objects, max_bytes)).or_raise()
    }
}
