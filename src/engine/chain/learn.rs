//! What a storage tells of its chain, into a catalog that does not know it.

use archive_core::chain::{Entry, Signed};
use archive_core::naming::KeyName;
use archive_core::store::BlockingStore;

use crate::catalog::{self, chain, named};
use crate::error::Result;
use crate::pg::interrupts;
use crate::pg::server_text::notice;

/// Takes over the whole chain of a storage, as an import does; the keys of links whose signatures are not theirs, which are left out.
pub fn learn(storage: &str, store: &BlockingStore) -> Result<Vec<String>> {
    let (wrong, found) = load(storage, store, &links(store)?)?
        .into_iter()
        .partition::<Vec<_>, _>(|entry| entry.signed == Signed::Wrongly);
    let found: Vec<_> = found.into_iter().filter(|entry| entry.previous.is_some()).collect();
    chain::learn(storage, store, &found)?;
    Ok(wrong.into_iter().map(|entry| entry.link.key).collect())
}

/// Takes over removals that were written by collections of garbage that did not come to their end: of manifests that nothing needs.
pub fn learn_removals(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<()> {
    let signer = catalog::storage::signing_key(storage)?.map(|key| Signed::By(key.public_key()));
    let mut found = Vec::new();
    for entry in load(storage, store, keys)? {
        let gone: Vec<_> = entry.gone().map(|link| link.key).collect();
        let is_needed = named::of(storage, &gone)?.into_values().any(|needed| needed);
        let is_signed = signer.as_ref().is_none_or(|signer| entry.signed == *signer);
        if entry.previous.is_some() && is_signed && !is_needed {
            found.push(entry);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    notice!("{} removals of manifests are noted that a call wrote which did not come to its end", found.len());
    chain::learn(storage, store, &found)
}

/// The keys of all links of a storage.
pub(super) fn links(store: &BlockingStore) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    store.list_pages("", |page| {
        interrupts::check();
        keys.extend(page.into_iter().map(|object| object.key).filter(|key| KeyName::of(key).is_link()));
        Ok::<_, crate::error::Error>(())
    })?;
    Ok(keys)
}

/// Reads those that the catalog does not know.
fn load(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<Vec<Entry>> {
    let unknown = chain::unknown(storage, store, keys)?;
    unknown.iter().map(|key| Ok(Entry::of(key, &store.get(key)?))).collect()
}
