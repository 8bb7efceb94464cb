//! Objects written anew without the rows that are taken; those of which nothing is left just go.

use archive_core::codec::Digest;
use archive_core::lifecycle::Taken;
use archive_core::manifest::ManifestObject;
use archive_core::naming;
use archive_core::store::BlockingStore;
use pgrx::Uuid;

use super::archived::{self, ArchivedRows, Fate, Names};
use super::request;
use super::restore::Shrinking;
use super::swap::Rewritten;
use crate::catalog::{self, rewrite};
use crate::engine::plan::job_hex;
use crate::engine::storage;
use crate::error::{Error, Result, SqlState};
use crate::export::Exported;
use crate::partition::discover::Leaf;

/// Writes what is left of each object of which rows are taken, and reads it back. The digests of what is left and of what was taken
/// must make that of the object (XX001).
pub(super) fn rewrite(table: &Leaf, shrinking: &Shrinking, of: (Uuid, u32)) -> Result<(BlockingStore, Rewritten)> {
    let set = &shrinking.set;
    let store = storage::open_to_rewrite(&set.storage, table.tree(), table.owner)?;
    catalog::storage::claim(&set.storage, &store)?;
    catalog::writers::hold_family(&naming::job_family(&job_hex(of.0)))?;
    let source = archived::shape(table, set.id)?;
    let filter_fields = request::filter_fields(table, &source)?;
    let names = Names::Batch { table: &table.name, of, attempt: of.0 };
    let rows = ArchivedRows { source, filter_fields, store: &store, names };
    let ids: Vec<i64> =
        shrinking.taken.objects().filter_map(|(place, _)| shrinking.objects.get(place)).copied().collect();
    let gone = rewrite::objects(set, &ids)?;
    let (mut objects, mut filters, mut left) = (Vec::new(), Vec::new(), Digest::default());
    for (old, (_, taken)) in gone.iter().zip(shrinking.taken.objects()) {
        let (kept, removed) = shrink(&rows, &old.object, taken)?;
        objects.extend(kept.objects.into_iter().map(|object| object.made_of([&old.object])));
        filters.extend(kept.filters);
        left.merge(&removed);
    }
    Ok((store, Rewritten { gone, objects, filters, left, added: Digest::default() }))
}

/// The objects with what is left of `old`, and the digest of what was taken.
pub(super) fn shrink(rows: &ArchivedRows<'_>, old: &ManifestObject, taken: &Taken) -> Result<(Exported, Digest)> {
    if taken.is_everything() {
        rows.read_back(old)?;
        return Ok((Exported::nothing(Digest::default()), old.digest.clone()));
    }
    let mut row = 0..;
    let mut fate = || if row.next().is_some_and(|row| taken.contains(row)) { Fate::Take } else { Fate::Keep };
    let (written, removed) = rows.write(&[old], &mut fate)?;
    let removed = removed.digest();
    let mut all = written.digest.clone();
    all.merge(&removed);
    if all != old.digest {
        return Err(not_what_was_archived(old));
    }
    written.objects.iter().try_for_each(|object| rows.read_back(object))?;
    Ok((written, removed))
}

fn not_what_was_archived(object: &ManifestObject) -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive object \"{}\" is not what was archived", object.key))
        .detail("The digests of its rows differ.")
        .hint("Nothing was changed. Check the storage.")
}
