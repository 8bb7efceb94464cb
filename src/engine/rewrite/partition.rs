//! A new version of an archived partition: the objects of which rows are taken are written again without them, and others are added.

use std::cell::Cell;

use archive_core::codec::Digest;
use archive_core::manifest::{Manifest, ManifestObject};
use archive_core::naming::{KeyName, encode_ident};
use archive_core::store::BlockingStore;

use super::archived::{self, ArchivedRows, Names};
use super::matched::Touched;
use super::without;
use crate::catalog::archived::Subject;
use crate::catalog::partition;
use crate::catalog::{self, frozen};
use crate::engine::{manifest, storage as opened};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::Leaf;

/// A version whose objects were written and read back; nothing names it yet.
pub(super) struct NewVersion {
    pub(super) subject: Subject,
    store: BlockingStore,
    key: String,
    manifest: Manifest,
    /// Objects that it has no more.
    pub(super) gone: Vec<ManifestObject>,
    /// Objects that are new in it.
    pub(super) new: Vec<ManifestObject>,
    /// Digest of the rows that were taken.
    pub(super) left: Digest,
}

impl NewVersion {
    /// Puts it in the place of the one before: the manifest, then the catalog.
    pub(super) fn put_in_place(&mut self) -> Result<()> {
        manifest::put(&self.subject.storage, &self.store, &self.key, &mut self.manifest)?;
        if manifest::load(&self.store, &self.key)? != self.manifest {
            return Err(not_recorded(&self.subject, &self.key));
        }
        partition::set_rewritten(self.subject.id, &self.subject.storage, &self.key, &self.manifest)
    }
}

/// What is written besides: `None` where rows only go.
pub(super) type Add<'a> = Option<&'a dyn Fn(&BlockingStore, &ArchivedRows<'_>, &str) -> Result<Vec<ManifestObject>>>;

/// Writes the objects of the version and reads them back. The partition is claimed.
///
/// Errors: 55000 where an object cannot be read before it was restored, XX001 where one is not what was archived.
pub(super) fn rewrite(table: &Leaf, touched: &Touched, add: Add<'_>) -> Result<NewVersion> {
    let subject = &touched.subject;
    frozen::refuse(subject.id)?;
    let store = opened::open_to_rewrite(&subject.storage, subject.source, table.owner)?;
    catalog::storage::claim(&subject.storage, &store)?;
    if let Some(family) = KeyName::of(&subject.manifest_key).family() {
        catalog::writers::hold_family(&family)?;
    }
    let before = manifest::load(&store, &subject.manifest_key)?;
    if !partition::recorded_as(subject.id, &before)? {
        return Err(not_recorded(subject, &subject.manifest_key));
    }
    let source = archived::shape(table, subject.id)?;
    let name = (before.source.schema.clone(), before.source.table.clone());
    let own_name = before.source.partition.clone();
    let version = manifest::next_version(&store, &name, &own_name, subject.version.unsigned_abs())?;
    let version = version.max(highest_version(&store, &before)?.saturating_add(1));
    let names = Names::Version { partition: &own_name, version, next: Cell::new(0) };
    let rows = ArchivedRows { source, filter_fields: Vec::new(), store: &store, names };
    let mut objects: Vec<Vec<ManifestObject>> = before.objects.iter().map(|object| vec![object.clone()]).collect();
    let (mut gone, mut new, mut left) = (Vec::new(), Vec::new(), Digest::default());
    for (place, taken) in touched.taken.objects() {
        let Some(old) = before.objects.get(place) else { return Err(not_recorded(subject, &subject.manifest_key)) };
        let (kept, removed) = without::shrink(&rows, old, taken)?;
        left.merge(&removed);
        gone.push(old.clone());
        new.extend(kept.objects.iter().cloned());
        objects[place] = kept.objects;
    }
    if let Some(add) = add {
        let beside = before.objects.first().map_or(subject.manifest_key.as_str(), |object| object.key.as_str());
        let added = add(&store, &rows, beside)?;
        new.extend(added.iter().cloned());
        objects.push(added);
    }
    let after = next(before, version, objects.into_iter().flatten().collect())?;
    let manifest_key = archive_core::naming::manifest_key(&name.0, &name.1, &own_name, version);
    drop(rows);
    failpoint!("partition_rewritten");
    Ok(NewVersion { subject: subject.clone(), store, key: manifest_key, manifest: after, gone, new, left })
}

/// The highest version of which there is an object beside those of a manifest: one that a run left that rolled back is not overwritten,
/// for a bucket that keeps versions would keep its rows under a key that is needed.
fn highest_version(store: &BlockingStore, manifest: &Manifest) -> Result<u32> {
    let partition = encode_ident(&manifest.source.partition);
    let Some(first) = manifest.objects.first() else { return Ok(0) };
    let directory = first.key.rsplit_once('/').map_or("", |(directory, _)| directory);
    let found = store.list(&format!("{directory}/{partition}.v"))?;
    let version = |key: &str| match KeyName::of(key) {
        KeyName::Data(data) if data.partition == partition => Some(data.version),
        _ => None,
    };
    Ok(found.iter().filter_map(|object| version(&object.key)).max().unwrap_or(0))
}

/// The manifest of the next version, which differs in its objects alone.
fn next(before: Manifest, version: u32, objects: Vec<ManifestObject>) -> Result<Manifest> {
    let mut digest = Digest::default();
    objects.iter().for_each(|object| digest.merge(&object.digest));
    let (rows, bytes) = objects.iter().fold((0, 0), |(rows, bytes), object| (rows + object.rows, bytes + object.bytes));
    Ok(Manifest { version, created_at: catalog::storage::now_text()?, digest, rows, bytes, objects, ..before })
}

fn not_recorded(subject: &Subject, key: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("manifest \"{key}\" of \"{}\" is not what was archived", subject.name),
    )
    .detail("Its digest, columns or objects differ from those in the archive catalog.")
    .hint("Nothing was changed. Restore the object from a copy or an older version of the bucket.")
}
