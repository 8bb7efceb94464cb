//! `restore_rows`.

use pgrx::prelude::*;

use crate::engine::rewrite::{self, Conflict};
use crate::error::OrRaise;
use crate::pg::args::{Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Puts archived rows back into the table that they came from, in the caller's transaction; how many.
#[pg_extern]
fn restore_rows(source: Regclass, where_clause: Text, on_conflict: default!(&str, "'error'")) -> i64 {
    xact::refuse_read_only(c"restore_rows()");
    Conflict::parse(on_conflict)
        .and_then(|conflict| giving_way(|| rewrite::restore(source.0, &where_clause.0, conflict)))
        .or_raise()
        .cast_signed()
}
