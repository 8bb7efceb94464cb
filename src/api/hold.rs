//! `legal_hold`.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::hold;
use crate::error::OrRaise;
use crate::pg::args::Text;
use crate::pg::xact;

/// Keeps everything that was archived of a partition, or of a table, from being deleted, or ends that.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn legal_hold(
    partition: Text,
    on: default!(bool, "true"),
    reason: default!(Option<Text>, "NULL"),
) -> TableIterator<
    'static,
    (
        name!(partition, Text),
        name!(held_for, Option<Text>),
        name!(objects_held_by_store, i64),
        name!(at, TimestampWithTimeZone),
    ),
> {
    xact::refuse_read_only(c"legal_hold()");
    let reason = reason.as_ref().map(|reason| reason.0.as_str());
    let call = if on { hold::set } else { hold::release };
    let held = call(&partition.0, reason).or_raise();
    TableIterator::new(held.into_iter().map(|one| (Text(one.partition), one.reason.map(Text), one.objects, one.at)))
}
