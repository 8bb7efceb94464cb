//! The row set that a batch is added to: the newest one, if it is of the same columns and in the same storage.

use archive_core::codec::Digest;
use archive_core::naming;
use pgrx::pg_sys;

use super::plan::Plan;
use crate::catalog;
use crate::catalog::row_set::{self, RowSet};
use crate::engine::drift;
use crate::engine::manifest::{self, Subject};
use crate::error::{Error, Result, SqlState};
use crate::export::{ExportSource, Exported};
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::discover::Leaf;
use crate::partition::row_set as foreign;

/// What the names of the table's row sets begin with.
pub fn base_name<'a>(names: &'a ArchiveNames, table: &'a Leaf) -> &'a str {
    if table.parent.is_some() { &table.name } else { &names.table }
}

/// Makes the archive relations where they are missing; the managed table's id and the archive parent.
pub fn ensure_archive(plan: &Plan) -> Result<(i64, pg_sys::Oid)> {
    let (managed, archive) = archive_tree::ensure(plan.root, plan.table.parent.unwrap_or(plan.root), &plan.names)?;
    drift::sync(plan.root)?;
    Ok((managed.id, archive))
}

/// The row set for rows of `source`, made if there is none yet: with it its manifest and its foreign table.
///
/// Errors: 0A000 when stubs of a partition were left with other columns: the archive has one table in its place.
pub fn ensure(plan: &Plan, source: &ExportSource, (managed_table, archive): (i64, pg_sys::Oid)) -> Result<RowSet> {
    match row_set::newest(managed_table, partition(plan))? {
        Some(set) if set.schema == source.schema && set.storage == plan.storage => Ok(set),
        Some(_) if partition(plan).is_some() => Err(other_shape(plan)),
        _ => create(plan, source, managed_table, archive),
    }
}

/// The partition whose rows the row set has; `None` for a managed table.
fn partition(plan: &Plan) -> Option<pg_sys::Oid> {
    plan.table.parent.map(|_| plan.table.oid)
}

fn other_shape(plan: &Plan) -> Error {
    let name = plan.table.qualified();
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("rows of \"{name}\" left stubs with other columns, or to another storage"),
    )
    .detail("The archive of a partition has one place for such rows.")
    .hint("Bring them back first, then archive all of them.")
}

fn create(plan: &Plan, source: &ExportSource, managed_table: i64, archive: pg_sys::Oid) -> Result<RowSet> {
    let number = u32::try_from(row_set::count(managed_table, partition(plan))? + 1).unwrap_or(u32::MAX);
    let name = naming::row_set_name(base_name(&plan.names, &plan.table), number)?;
    let subject = Subject {
        leaf: &plan.table,
        name: &name,
        root: plan.root,
        root_name: &plan.name,
        parent: plan.table.parent.or_else(|| (plan.table.kind == 'p').then_some(plan.root)),
        names: &plan.names,
        family: None,
    };
    let nothing = Exported::nothing(Digest::default());
    catalog::writers::hold_family(&naming::manifest_key(&plan.name.0, &plan.name.1, &name, 0))?;
    let version = manifest::next_version(&plan.store, &plan.name, &name, 0)?;
    let key = naming::manifest_key(&plan.name.0, &plan.name.1, &name, version);
    let mut manifest = manifest::build(subject, source.schema.clone(), nothing, version)?;
    manifest::put(&plan.storage, &plan.store, &key, &mut manifest)?;
    let parent = plan.table.parent.unwrap_or(plan.root);
    let id = row_set::create(managed_table, parent, partition(plan), &plan.storage, &key, &manifest)?;
    let place = foreign::Place { source: plan.root, archive, names: &plan.names, name: &name, storage: &plan.storage };
    let table = match &plan.table.bounds {
        Some(bounds) => foreign::put_partition(&place, id, bounds, plan.table.oid)?,
        None => foreign::put_foreign(&place, id)?,
    };
    row_set::set_foreign_table(id, table)?;
    Ok(RowSet {
        id,
        name,
        storage: plan.storage.clone(),
        manifest_key: key,
        schema: manifest.schema,
        digest: manifest.digest,
        last_batch: None,
        unsettled: None,
        made_for: Some(plan.name.clone()),
        foreign_table: Some(table),
    })
}
