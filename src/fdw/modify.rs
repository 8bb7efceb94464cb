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
    let partition = Archive::of(table).map(|archive| archive.partition).ok();
    let hint = match partition.as_ref().map(|partition| (partition.row_set, partition.source)) {
        Some((true, Some(source))) => {
            let source = quote_literal(catalog::qualified_name(source)?);
            format!("Bring the rows back first: SELECT restore_rows({source}, 'where_clause');")
        }
        _ => {
            let partition = quote_literal(partition.map_or_else(|| name.clone(), |partition| partition.name));
            format!("Bring the partition back first: SELECT reattach_partition({partition}, writable => true);")
        }
    };
    Ok(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("cannot change archived partition {name}"),
    )
    .detail("Archived rows are read-only.")
    .hint(hint))
}
