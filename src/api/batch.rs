//! `archive_table_batch`, and what the procedure `archive_table` calls between its commits.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::batch::{self, Locked, Outcome, Referenced, Request, Wanted};
use crate::engine::rows;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::args::{Name, Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// The row of `archive_table_batch`.
type BatchRow = TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(rows, i64),
        name!(first_key, Option<Text>),
        name!(last_key, Option<Text>),
        name!(object, Option<Text>),
        name!(done, bool),
    ),
>;

/// Archives the next batch of rows: written, read back, deleted, in the caller's transaction.
#[pg_extern]
#[allow(clippy::too_many_arguments, clippy::type_complexity)]
fn archive_table_batch(
    source: Regclass,
    archive_before: Option<TimestampWithTimeZone>,
    time_column: default!(Option<Name>, "NULL"),
    batch_rows: default!(i64, "5000"),
    batch_bytes: default!(i64, "67108864"),
    where_clause: default!(Option<Text>, "NULL"),
    order_key: default!(Option<Vec<Option<Name>>>, "NULL"),
    storage: default!(Option<Name>, "NULL"),
    format: default!(Option<&str>, "NULL"),
    locked: default!(&str, "'skip'"),
    referenced: default!(&str, "'skip'"),
    mode: default!(&str, "'delete'"),
    mark_column: default!(Option<Name>, "NULL"),
    payload: default!(Option<Vec<Option<Name>>>, "NULL"),
    search_column: default!(Option<Name>, "NULL"),
    search_config: default!(Option<Text>, "NULL"),
    dry_run: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(job_id, Option<Uuid>),
        name!(rows, i64),
        name!(first_key, Option<Text>),
        name!(last_key, Option<Text>),
        name!(object, Option<Text>),
        name!(done, bool),
    ),
> {
    if !dry_run {
        xact::refuse_read_only(c"archive_table_batch()");
    }
    let request = request(
        source,
        archive_before,
        time_column,
        (batch_rows, batch_bytes),
        where_clause,
        order_key,
        (storage, format),
        (locked, referenced),
        wanted(mode, mark_column, payload, search_column, search_config),
    );
    let run = |request| if dry_run { batch::dry_run(&request) } else { batch::archive(&request) };
    row(giving_way(|| request.and_then(run)).or_raise())
}

fn row(outcome: Outcome) -> BatchRow {
    TableIterator::once((
        outcome.job,
        outcome.rows.cast_signed(),
        outcome.first_key.map(Text),
        outcome.last_key.map(Text),
        outcome.object.map(Text),
        outcome.done,
    ))
}

#[allow(clippy::too_many_arguments)]
fn request(
    source: Regclass,
    archive_before: Option<TimestampWithTimeZone>,
    time_column: Option<Name>,
    (batch_rows, batch_bytes): (i64, i64),
    where_clause: Option<Text>,
    order_key: Option<Vec<Option<Name>>>,
    (storage, format): (Option<Name>, Option<&str>),
    (locked, referenced): (&str, &str),
    wanted: Wanted,
) -> Result<Request> {
    if archive_before.is_none() && where_clause.is_none() {
        return Err(Error::new(
            SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            "archive_before and where_clause must not both be NULL",
        )
        .hint("where_clause => 'true' archives every row."));
    }
    Ok(Request {
        source: source.0,
        archive_before: archive_before.as_ref().map(rows::text_of).transpose()?,
        time_column: time_column.map(|name| name.0),
        clause: where_clause.map(|text| text.0),
        order_key: order_key.map(|columns| columns.into_iter().flatten().map(|name| name.0).collect()),
        batch_rows,
        batch_bytes: u64::try_from(batch_bytes).unwrap_or(0),
        storage: storage.map(|name| name.0),
        format: format.map(batch::parse_format).transpose()?,
        locked: Locked::parse(locked)?,
        referenced: Referenced::parse(referenced)?,
        wanted,
    })
}

fn wanted(
    mode: &str,
    mark_column: Option<Name>,
    payload: Option<Vec<Option<Name>>>,
    search_column: Option<Name>,
    search_config: Option<Text>,
) -> Wanted {
    Wanted {
        mode: mode.to_owned(),
        mark_column: mark_column.map(|name| name.0),
        payload: payload.map(|columns| columns.into_iter().flatten().map(|name| name.0).collect()),
        search_column: search_column.map(|name| name.0),
        search_config: search_config.map(|text| text.0),
        keep_keys: false,
    }
}

/// Deletes marked rows of which the archive holds every value; the rows deleted.
#[pg_extern]
fn purge_marked(source: Regclass, max_rows: default!(i64, "10000")) -> i64 {
    xact::refuse_read_only(c"purge_marked()");
    giving_way(|| batch::purge(source.0, max_rows)).map(|purged| purged.rows.cast_signed()).or_raise()
}

/// No column tells any more which rows of a table are in the archive.
#[pg_extern]
fn forget_marker(source: Regclass) {
    xact::refuse_read_only(c"forget_marker()");
    batch::forget_marker(source.0).or_raise();
}

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::datum::TimestampWithTimeZone;
    use pgrx::prelude::*;

    use crate::engine::batch;
    use crate::error::OrRaise;
    use crate::pg::args::{Name, Regclass, Text};
    use crate::pg::lock::giving_way;
    use crate::pg::xact;

    /// The next batch of `purge_marked_steps`.
    #[pg_extern]
    fn purge_batch(source: Regclass, batch_rows: i64) -> i64 {
        xact::refuse_read_only(c"purge_batch()");
        giving_way(|| batch::purge(source.0, batch_rows)).map(|purged| purged.rows.cast_signed()).or_raise()
    }

    /// Notes why a run left a job that is not done.
    #[pg_extern]
    fn note_stop(job_id: Uuid, why: &str) {
        xact::refuse_read_only(c"note_stop()");
        batch::note_stop(job_id, why).or_raise();
    }

    /// The job that archives rows in batches, new or taken up again.
    #[pg_extern]
    #[allow(clippy::too_many_arguments)]
    fn begin_batches(
        source: Regclass,
        archive_before: Option<TimestampWithTimeZone>,
        time_column: Option<Name>,
        batch_rows: i64,
        batch_bytes: i64,
        where_clause: Option<Text>,
        order_key: Option<Vec<Option<Name>>>,
        storage: Option<Name>,
        format: Option<&str>,
        locked: &str,
        referenced: &str,
        mode: &str,
        mark_column: Option<Name>,
        payload: Option<Vec<Option<Name>>>,
        search_column: Option<Name>,
        search_config: Option<Text>,
    ) -> Uuid {
        xact::refuse_read_only(c"begin_batches()");
        super::request(
            source,
            archive_before,
            time_column,
            (batch_rows, batch_bytes),
            where_clause,
            order_key,
            (storage, format),
            (locked, referenced),
            super::wanted(mode, mark_column, payload, search_column, search_config),
        )
        .and_then(|request| batch::begin(&request))
        .or_raise()
    }
}
