//! Copying objects and manifests from one storage to another, proved by reading the copy back.

use std::collections::BTreeSet;

use archive_core::codec::{sha256_of, sha256_while};
use archive_core::manifest::ManifestObject;
use archive_core::naming::KeyName;
use archive_core::store::{BlockingStore, PutMode};
use pgrx::pg_sys;

use crate::catalog::archived::Subject;
use crate::catalog::object_copy;
use crate::catalog::{self, storage, writers};
use crate::engine::{storage as opened, throttle};
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::partition::discover;
use crate::pg::server_text::warning;
use crate::pg::{interrupts, xact};

/// Something that is copied.
#[derive(Debug, Clone)]
pub struct Item {
    /// Below the prefix of both storages.
    pub key: String,
    /// Size and SHA-256 of an object; `None` of a manifest.
    pub object: Option<(u64, String)>,
}

impl Item {
    /// An object of a manifest.
    pub fn of(object: &ManifestObject) -> Self {
        Self { key: object.key.clone(), object: Some((object.bytes, object.sha256.clone())) }
    }

    /// A manifest.
    pub fn manifest(key: &str) -> Self {
        Self { key: key.to_owned(), object: None }
    }
}

/// The storage of copies that the policy of a table names.
pub fn wanted(source: pg_sys::Oid) -> Result<Option<String>> {
    Ok(catalog::policy::of(source)?.copy_storage)
}

/// Everything that an archived partition or row set has in its storage now.
pub fn items_of(subject: &Subject) -> Result<Vec<Item>> {
    object_copy::items(subject.id, None)
        .map(|items| items.into_iter().map(|(key, object)| Item { key, object }).collect())
}

/// Copies what is not known to be in the second storage, and reads it back there.
///
/// Errors: 42501 where the table's owner may not use it, XX001 when an object is not what was archived, or its copy is not the object; those
/// of both storages.
pub fn make(store: &BlockingStore, name: &str, copies: &str, owner: pg_sys::Oid, items: &[Item]) -> Result<u64> {
    // What is there is there.
    if name == copies {
        return Ok(0);
    }
    let keys: Vec<_> = items.iter().map(|item| item.key.clone()).collect();
    let known = object_copy::known(name, copies, &keys)?;
    let missing: Vec<_> = items.iter().filter(|item| !known.contains(&item.key)).collect();
    if missing.is_empty() {
        return Ok(0);
    }
    let second = opened::open_for(copies, owner)?.paced(throttle::pace);
    refuse_same_place(store, &second)?;
    storage::claim(copies, &second)?;
    hold_families(&missing)?;
    for item in &missing {
        interrupts::check();
        one(store, &second, item)?;
        failpoint!("copy_made");
        object_copy::note(name, &item.key, copies, item.object.as_ref().map(|(bytes, _)| *bytes))?;
    }
    Ok(missing.len() as u64)
}

/// What deletes objects waits until what is copied of them is known, or not there.
pub(super) fn hold_families(items: &[&Item]) -> Result<()> {
    let families: BTreeSet<_> = items.iter().filter_map(|item| KeyName::of(&item.key).family()).collect();
    families.iter().try_for_each(|family| writers::hold_family(family))
}

/// Copies one object or manifest and reads it back.
pub(super) fn one(from: &BlockingStore, to: &BlockingStore, item: &Item) -> Result<()> {
    let Some((bytes, sha256)) = &item.object else {
        let manifest = from.get(&item.key)?;
        to.put(&item.key, manifest.clone(), PutMode::Overwrite)?;
        return if to.get(&item.key)? == manifest { Ok(()) } else { Err(not_equal(&item.key)) };
    };
    // A run that rolled back may have left it there.
    if to.head(&item.key)?.is_some_and(|meta| meta.bytes == *bytes)
        && sha256_of(&mut to.reader(&item.key, *bytes)).is_ok_and(|found| found == *sha256)
    {
        return Ok(());
    }
    let mut upload = to.upload(&item.key)?;
    let read = sha256_while(&mut from.reader(&item.key, *bytes), &mut |piece| upload.write(piece))?;
    if read != *sha256 {
        return Err(not_archived(&item.key, from));
    }
    upload.finish()?;
    if sha256_of(&mut to.reader(&item.key, *bytes))? == *sha256 { Ok(()) } else { Err(not_equal(&item.key)) }
}

/// Two storages of one place are one copy.
fn refuse_same_place(first: &BlockingStore, second: &BlockingStore) -> Result<()> {
    if first.location().to_string() != second.location().to_string() {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "both storages are one place")
        .detail(format!("It is {}.", first.location()))
        .hint("Name a storage in another region or of another provider as copy_storage."))
}

fn not_archived(key: &str, store: &BlockingStore) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("object \"{}\" is not what was archived", store.location().url_of(key)),
    )
    .hint("SELECT * FROM repair_archive(partition) restores it from a copy that is.")
}

fn not_equal(key: &str) -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("the copy of \"{key}\" failed verification"))
        .detail("What is read back from the second storage is not what was written.")
        .hint("Nothing was removed locally. Check that storage, then run it again.")
}

/// Deletes the copies of objects that were deleted, every version of them; how many versions. `role` opens the second storages.
pub fn delete(name: &str, keys: &[String], role: pg_sys::Oid) -> Result<u64> {
    let mut versions = 0;
    for (copies, keys) in object_copy::of_keys(name, keys)? {
        let second = opened::open_for(&copies, role)?.paced(throttle::pace);
        storage::require_ours(&copies, &second)?;
        for key in &keys {
            interrupts::check();
            versions += second.delete_versions(key)?;
        }
        object_copy::forget(name, &copies, &keys)?;
    }
    Ok(versions)
}

/// Copies the manifests of a row set to the storages that have copies of these objects of it: before they go, for an import from there
/// would want them.
pub fn manifests(store: &BlockingStore, name: &str, set: i64, keys: &[String], owner: pg_sys::Oid) -> Result<()> {
    for copies in object_copy::of_keys(name, keys)?.into_keys() {
        let missing = object_copy::items(set, Some(&copies))?;
        let missing = missing.into_iter().filter(|(_, object)| object.is_none());
        let missing: Vec<_> = missing.map(|(key, object)| Item { key, object }).collect();
        make(store, name, &copies, owner, &missing)?;
    }
    Ok(())
}

/// The same of garbage, which is gone by now: what the second storage does not take back stays known, and is told.
pub fn delete_or_warn(name: &str, keys: &[String], role: pg_sys::Oid) -> Result<()> {
    let deleted = xact::subtransaction(|| delete(name, keys, role).or_raise());
    if let Err(caught) = deleted {
        warning!("copies of garbage of storage {name} could not be deleted: {}", caught.message);
    }
    Ok(())
}

/// Copies everything of an archived partition or row set where the policy wants that: before its local copy goes.
pub fn ensure(subject: &Subject) -> Result<()> {
    let Some(copies) = wanted(subject.source)? else { return Ok(()) };
    let owner = discover::owner(subject.source)?;
    let store = opened::open_for(&subject.storage, owner)?.paced(throttle::pace);
    make(&store, &subject.storage, &copies, owner, &items_of(subject)?).map(drop)
}
