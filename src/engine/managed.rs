//! Registering a table as managed: how it ages, and where its archive will be.

use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::managed_table::ManagedTable;
use crate::error::Result;
use crate::partition::archive_tree::ArchiveNames;
use crate::partition::discover;

/// The managed table of `source`, registered now if it was not. No archive relation is made.
pub fn ensure(source: pg_sys::Oid) -> Result<ManagedTable> {
    if let Some(managed) = catalog::managed_table::of_source(source)? {
        return Ok(managed);
    }
    let (_, name) = discover::schema_and_name(source)?;
    let names = ArchiveNames::of(source, &name, &catalog::policy::of(source)?)?;
    catalog::managed_table::register(source, discover::kind(source)?, &names.schema, &names.table)
}
