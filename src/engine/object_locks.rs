//! `object_locks`: what the stores themselves say that keeps archived objects from being deleted.

use archive_core::store::{BlockingStore, Kept};
use pgrx::pg_sys;

use super::{storage as opened, verification};
use crate::catalog::{hold, object_copy};
use crate::error::Result;
use crate::partition::discover;
use crate::pg::interrupts;

/// An object or manifest, and what keeps it.
#[derive(Debug)]
pub struct Lock {
    /// Qualified name of its partition or row set.
    pub partition: String,
    /// The storage it is in.
    pub storage: String,
    /// Its key.
    pub key: String,
    /// Mode, end and hold; nothing where the store keeps nothing, or does not say.
    pub kept: Kept,
}

/// What is archived of what `name` stands for, in every version and in both storages, and until when each store keeps it. Objects that are
/// not there are left out. Nothing is locked or changed.
///
/// Errors: 42704 when nothing archived has the name, 42501 for who may not act as the owner; those of the storages.
pub fn of(name: &str) -> Result<Vec<Lock>> {
    let mut found = Vec::new();
    for subject in verification::resolve(name)? {
        let owner = discover::owner(subject.source)?;
        let keys = hold::keys(subject.id, &subject.storage)?;
        let copies = object_copy::of_keys(&subject.storage, &keys)?;
        for (storage, keys) in [(subject.storage, keys)].into_iter().chain(copies) {
            found.extend(in_storage(&subject.name, &storage, keys, owner)?);
        }
    }
    Ok(found)
}

fn in_storage(partition: &str, storage: &str, keys: Vec<String>, owner: pg_sys::Oid) -> Result<Vec<Lock>> {
    let store = opened::open_for(storage, owner)?;
    let mut found = Vec::new();
    for key in keys {
        let Some(kept) = kept(&store, &key)? else { continue };
        found.push(Lock { partition: partition.to_owned(), storage: storage.to_owned(), key, kept });
    }
    Ok(found)
}

fn kept(store: &BlockingStore, key: &str) -> Result<Option<Kept>> {
    interrupts::check();
    Ok(store.head(key)?.map(|meta| meta.kept))
}
