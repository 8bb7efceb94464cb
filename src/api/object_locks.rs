//! `object_locks`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::object_locks;
use crate::error::OrRaise;
use crate::pg::args::Text;
use crate::pg::clock;

/// What of an archive its storages themselves refuse to delete, and until when.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn object_locks(
    archived: Text,
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(storage, Text),
        name!(key, Text),
        name!(lock_mode, Option<String>),
        name!(retain_until, Option<TimestampWithTimeZone>),
        name!(legal_hold, bool),
    ),
> {
    let found = object_locks::of(&archived.0).or_raise();
    TableIterator::new(found.into_iter().map(|one| {
        let mode = one.kept.retention.map(|(mode, _)| mode.as_str().to_owned());
        let until = one.kept.retention.and_then(|(_, until)| clock::from_unix_seconds(until));
        (Text(one.partition), Text(one.storage), Text(one.key), mode, until, one.kept.held)
    }))
}
