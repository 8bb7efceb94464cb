//! Changes of archived rows: refused, naming the way back.

use pgrx::pg_sys;
use pgrx::spi::quote_literal;

use super::archive::Archive;
use crate::catalog;
use crate::error::{Error, Result, SqlState};

/// The error for an attempt to change the rows of a foreign table.
pub(super) fn refusal(table: pg_sys::Oid) -> Error {
    build(table).unwrap_or_else(|error| error)
}

fn build(table: pg_sys::Oid) -> Result<Error> {
    let name = catalog::qualified_name(table)?;
    let partition = Archive::of(table).map_or_else(|_| name.clone(), |archive| archive.partition.name);
    Ok(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot change archived partition {name}"),
    )
    .detail("Archived rows are read-only.")
    .hint(format!(
        "Bring the partition back first: SELECT reattach_partition({}, writable => true);",
        quote_literal(partition)
    )))
}
