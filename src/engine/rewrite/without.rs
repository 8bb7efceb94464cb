//! Objects written anew without the rows that are taken, as they were archived; those of which nothing is left just go.

use archive_core::codec::{Digest, RowHasher, sha256_of, sha256_of_bytes};
use archive_core::lifecycle::Taken;
use archive_core::manifest::ManifestObject;
use archive_core::naming::{self, BatchName};
use archive_core::store::BlockingStore;
use pgrx::Uuid;

use super::read;
use super::request;
use super::restore::Shrinking;
use super::swap::Rewritten;
use crate::catalog::{self, partition, rewrite};
use crate::engine::plan::job_hex;
use crate::engine::storage;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ArchivedWriter, ExportSource, Exported};
use crate::partition::discover::Leaf;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::shape::Archived;

/// A row set's storage and the shape of its rows.
struct Rewrite<'a> {
    source: ExportSource,
    filter_fields: Vec<i32>,
    store: BlockingStore,
    name: &'a (String, String),
    /// Names the objects of this attempt.
    of: (Uuid, u32),
}

/// Writes what is left of each object of which rows are taken, and reads it back. The digests of what is left and of what was taken
/// must make that of the object (XX001).
pub(super) fn rewrite(
    table: &Leaf,
    shrinking: &Shrinking,
    name: &(String, String),
    of: (Uuid, u32),
) -> Result<(BlockingStore, Rewritten)> {
    let set = &shrinking.set;
    let store = storage::open_for(&set.storage, table.owner)?;
    catalog::storage::claim(&set.storage, &store)?;
    let source = shape(table, set.id)?;
    let filter_fields = request::filter_fields(table, &source)?;
    let rewrite = Rewrite { source, filter_fields, store, name, of };
    let ids: Vec<i64> =
        shrinking.taken.objects().filter_map(|(place, _)| shrinking.objects.get(place)).copied().collect();
    let gone = rewrite::objects(set, &ids)?;
    let (mut objects, mut filters, mut left) = (Vec::new(), Vec::new(), Digest::default());
    for (old, (_, taken)) in gone.iter().zip(shrinking.taken.objects()) {
        let (kept, removed) = rewrite.shrink(&old.object, taken)?;
        objects.extend(kept.objects);
        filters.extend(kept.filters);
        left.merge(&removed);
    }
    Ok((rewrite.store, Rewritten { gone, objects, filters, left }))
}

/// How the rows of a row set were archived.
fn shape(table: &Leaf, set: i64) -> Result<ExportSource> {
    let gone = || Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the archive was dropped meanwhile");
    let archived = partition::archived(set)?.ok_or_else(gone)?;
    let relation = Relation::open(table.oid, LockMode::AccessShare).ok_or_else(gone)?;
    let columns = {
        let _path = GucNest::new().safe_search_path();
        let partition::ArchivedPartition { name, schema, map, archived_at, .. } = &archived;
        Archived { name, schema, map, archived_at: *archived_at }.columns()?
    };
    let key_fields = ExportSource::peek(table.oid, table.oid)?.key_fields;
    Ok(ExportSource::archived(relation, archived.schema, columns, key_fields))
}

impl Rewrite<'_> {
    /// The objects with what is left of `old`, and the digest of what was taken.
    fn shrink(&self, old: &ManifestObject, taken: &Taken) -> Result<(Exported, Digest)> {
        if taken.is_everything() {
            return Ok((Exported::nothing(Digest::default()), old.digest.clone()));
        }
        let key = |ordinal: u32| self.key(old, ordinal);
        let _text = GucNest::lossless_text();
        let mut writer = ArchivedWriter::new(&self.source, self.filter_fields.clone(), &self.store, &key)?;
        let (mut hasher, mut number) = (RowHasher::new(&self.source.schema), 0);
        read::rows(&self.source, &self.store, &self.source.schema, old, &mut |batch, at, row| {
            number += 1;
            match taken.contains(number - 1) {
                true => export::hash_archived(&self.source, &mut hasher, batch, at, &row.row()),
                false => writer.row(batch, at, &row.row()),
            }
        })?;
        let (written, removed) = (writer.finish()?, hasher.digest());
        let mut all = written.digest.clone();
        all.merge(&removed);
        if all != old.digest {
            return Err(not_what_was_archived(old));
        }
        written.objects.iter().try_for_each(|object| self.read_back(object))?;
        Ok((written, removed))
    }

    fn key(&self, old: &ManifestObject, ordinal: u32) -> String {
        let (id, number) = self.of;
        let sha256 = sha256_of_bytes(format!("{id} {} {ordinal}", old.key).as_bytes());
        naming::batch_key_beside(&old.key, &self.name.1, BatchName { job: &job_hex(id), number, sha256: &sha256 })
    }

    /// The object that was written, through fresh requests (P2).
    fn read_back(&self, object: &ManifestObject) -> Result<()> {
        let mut hasher = RowHasher::new(&self.source.schema);
        read::rows(&self.source, &self.store, &self.source.schema, object, &mut |batch, at, row| {
            export::hash_archived(&self.source, &mut hasher, batch, at, &row.row())
        })?;
        let sha256 = sha256_of(&mut self.store.reader(&object.key, object.bytes))?;
        if hasher.digest() == object.digest && sha256 == object.sha256 {
            return Ok(());
        }
        let message = format!("archive object \"{}\" failed verification", object.key);
        Err(Error::new(SqlState::ERRCODE_DATA_CORRUPTED, message)
            .detail("What is read back is not what was written.")
            .hint("Nothing was changed. Check the storage, then restore the rows again."))
    }
}

fn not_what_was_archived(object: &ManifestObject) -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive object \"{}\" is not what was archived", object.key))
        .detail("The digests of its rows differ.")
        .hint("Nothing was changed. Check the storage.")
}
