//! The row set that a batch is added to: the newest one, if it is of the same columns and in the same storage.

use archive_core::codec::Digest;
use archive_core::naming;
use pgrx::pg_sys;

use super::plan::Plan;
use crate::catalog::row_set::{self, RowSet};
use crate::engine::drift;
use crate::engine::manifest::{self, Subject};
use crate::error::Result;
use crate::export::{ExportSource, Exported};
use crate::partition::archive_tree;
use crate::partition::row_set as foreign;

/// Makes the archive relations where they are missing; the managed table's id and the archive parent.
pub fn ensure_archive(plan: &Plan) -> Result<(i64, pg_sys::Oid)> {
    let source = plan.request.source;
    let (managed, archive) = archive_tree::ensure(source, source, &plan.names)?;
    drift::sync(source)?;
    Ok((managed.id, archive))
}

/// The row set for rows of `source`, made if there is none yet: with it its manifest and its foreign table.
pub fn ensure(plan: &Plan, source: &ExportSource, (managed_table, archive): (i64, pg_sys::Oid)) -> Result<RowSet> {
    match row_set::newest(managed_table)? {
        Some(set) if set.schema == source.schema && set.storage == plan.storage => Ok(set),
        _ => create(plan, source, managed_table, archive),
    }
}

fn create(plan: &Plan, source: &ExportSource, managed_table: i64, archive: pg_sys::Oid) -> Result<RowSet> {
    let number = u32::try_from(row_set::count(managed_table)? + 1).unwrap_or(u32::MAX);
    let name = naming::row_set_name(&plan.names.table, number)?;
    let subject = Subject {
        leaf: &plan.table,
        name: &name,
        root: plan.request.source,
        root_name: &plan.name,
        parent: plan.partitioned.then_some(plan.request.source),
        names: &plan.names,
        family: None,
    };
    let nothing = Exported { objects: Vec::new(), digest: Digest::default(), positions: Vec::new() };
    let version = manifest::next_version(&plan.store, &plan.name, &name, 0)?;
    let key = naming::manifest_key(&plan.name.0, &plan.name.1, &name, version);
    let manifest = manifest::build(subject, source, nothing, version)?;
    manifest::put(&plan.store, &key, &manifest)?;
    let id = row_set::create(managed_table, plan.request.source, &plan.storage, &key, &manifest)?;
    let table = foreign::put_foreign(plan.request.source, archive, &plan.names, &name, &plan.storage, id)?;
    row_set::set_foreign_table(id, table)?;
    Ok(RowSet {
        id,
        name,
        storage: plan.storage.clone(),
        manifest_key: key,
        schema: manifest.schema,
        digest: manifest.digest,
        last_batch: None,
        made_for: Some(plan.name.clone()),
        foreign_table: Some(table),
    })
}
