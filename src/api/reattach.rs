//! `reattach_partition`.

use archive_core::lifecycle::Status;
use pgrx::datum::Interval;
use pgrx::prelude::*;

use super::seconds;
use crate::engine::reattach::{self, Options};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::args::{Regclass, Text};
use crate::pg::lock::giving_way;
use crate::pg::xact;

/// Puts an archived partition back into its table; NULL when it is in a frozen storage class, and a job puts it back once its objects
/// are restored.
#[pg_extern]
fn reattach_partition(
    partition: Text,
    keep_for: default!(Option<Interval>, "NULL"),
    writable: default!(bool, "false"),
    late_rows: default!(&str, "'refuse'"),
) -> Option<Regclass> {
    xact::refuse_read_only(c"reattach_partition()");
    let options = Options {
        keep_for_seconds: keep_for.map(seconds),
        status: Status::Warm,
        writable,
        move_late_rows: parse_late_rows(late_rows).or_raise(),
    };
    giving_way(|| reattach::reattach_or_wait(&partition.0, options)).or_raise().map(Regclass)
}

fn parse_late_rows(text: &str) -> Result<bool> {
    match text.to_ascii_lowercase().as_str() {
        "refuse" => Ok(false),
        "move" => Ok(true),
        other => Err(Error::new(
            SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("unknown value \"{other}\" for late_rows"),
        )
        .hint("Use 'refuse' or 'move'.")),
    }
}
