//! `check_consistency`.

use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::consistency;
use crate::error::OrRaise;
use crate::pg::args::Text;
use crate::pg::xact;

/// Where catalog, relations and storages disagree, one row for each; with `repair` mends what is safe.
#[pg_extern]
#[allow(clippy::type_complexity)]
fn check_consistency(
    repair: default!(bool, "false"),
) -> TableIterator<'static, (name!(object, Text), name!(problem, Text), name!(repaired, bool), name!(remedy, Text))> {
    xact::refuse_read_only(c"check_consistency()");
    let lines = consistency::check(repair).or_raise();
    TableIterator::new(
        lines.into_iter().map(|line| (Text(line.object), Text(line.problem), line.repaired, Text(line.remedy))),
    )
}
