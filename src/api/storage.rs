//! `check_storage` and `adopt_storage`.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::storage;
use crate::error::OrRaise;
use crate::pg::args::Name;
use crate::pg::xact;

/// Tries every operation on a storage that archiving needs, one row for each.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn check_storage(
    storage: Name,
) -> TableIterator<'static, (name!(check_name, String), name!(ok, bool), name!(elapsed_ms, f64), name!(detail, String))>
{
    xact::refuse_read_only(c"check_storage()");
    let checks = storage::check(&storage.0).or_raise();
    TableIterator::new(
        checks
            .into_iter()
            .map(|check| (check.name, check.ok, (check.milliseconds * 1000.0).round() / 1000.0, check.detail)),
    )
}

/// Takes over a storage prefix that another cluster claimed. For superusers and members of `archive_ext_admin`.
#[pg_extern]
fn adopt_storage(storage: Name) {
    xact::refuse_read_only(c"adopt_storage()");
    storage::adopt(&storage.0).or_raise();
}
