//! `repair_archive`.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::copies;
use crate::error::OrRaise;
use crate::pg::args::Text;
use crate::pg::xact;

/// Restores objects that are missing or damaged in one storage from their copies in the other.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn repair_archive(
    archived: Text,
    dry_run: default!(bool, "false"),
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(storage, Text),
        name!(key, Text),
        name!(fault, Text),
        name!(repaired, bool),
        name!(detail, Text),
    ),
> {
    xact::refuse_read_only(c"repair_archive()");
    let rows = copies::repair(&archived.0, dry_run).or_raise();
    TableIterator::new(rows.into_iter().map(|one| {
        (Text(one.partition), Text(one.storage), Text(one.key), Text(one.fault), one.repaired, Text(one.detail))
    }))
}
