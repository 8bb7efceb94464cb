//! What a storage tells of its chain, into a catalog that does not know it.

use std::collections::{BTreeSet, HashSet};

use archive_core::chain::{Entry, Link, Signed};
use archive_core::naming::KeyName;
use archive_core::store::BlockingStore;

use super::read;
use crate::catalog::{self, chain, named};
use crate::error::{Error, Result};
use crate::pg::interrupts;
use crate::pg::server_text::notice;

/// What was left out when a chain was taken over.
#[derive(Debug, Default)]
pub struct Learnt {
    /// Keys, and why.
    pub left_out: Vec<(String, String)>,
    /// Links that others name, and that were not there.
    pub absent: usize,
}

/// Takes over the whole chain of a storage, as an import does. What cannot be read is left out, and so is a removal that the storage's key
/// did not sign, if it has one; what others name and is not there is noted as deleted.
pub fn learn(storage: &str, store: &BlockingStore) -> Result<Learnt> {
    let own_key = catalog::storage::signing_key(storage)?.map(|key| key.public_key());
    let mut learnt = Learnt::default();
    let mut found = Vec::new();
    for key in chain::unknown(storage, store, &links(store)?)? {
        let entry = match read(store, &key) {
            Ok(Some(entry)) => entry,
            Ok(None) => continue,
            Err(error) => {
                learnt.left_out.push((key, error.message().to_owned()));
                continue;
            }
        };
        match unfit(&entry, own_key.as_deref()) {
            Some(why) => learnt.left_out.push((key, why.to_owned())),
            None if entry.previous.is_some() => found.push(entry),
            None => {}
        }
    }
    note(storage, store, &found, own_key.as_deref())?;
    let absent = absent(storage, store, &found)?;
    chain::note_absent(storage, store, &absent)?;
    chain::find_heads(storage, store)?;
    learnt.absent = absent.len();
    Ok(learnt)
}

/// Why a link is not taken over, if so.
fn unfit(entry: &Entry, own_key: Option<&str>) -> Option<&'static str> {
    let is_own = matches!((&entry.signed, own_key), (Signed::By(signer), Some(own)) if signer == own);
    match &entry.signed {
        Signed::Wrongly => Some("its signature is not of these bytes: see verify_chain"),
        _ if own_key.is_some() && !entry.removed.is_empty() && !is_own => {
            Some("it says that manifests were deleted, and the key of the storage has not signed it")
        }
        _ => None,
    }
}

/// Notes links with what they say is gone. Of a storage that has a key, no other is remembered.
fn note(storage: &str, store: &BlockingStore, found: &[Entry], own_key: Option<&str>) -> Result<()> {
    for entry in found {
        let key = match &entry.signed {
            Signed::By(key) => Some(key.as_str()).filter(|key| own_key.is_none_or(|own| own == *key)),
            Signed::Not | Signed::Wrongly => None,
        };
        chain::note(storage, store, (&entry.link, entry.previous.as_deref().unwrap_or_default()), key)?;
    }
    for entry in found.iter().filter(|entry| !entry.removed.is_empty()) {
        for removed in &entry.removed {
            chain::note(storage, store, (&removed.link(), &removed.previous), None)?;
        }
        chain::set_announced(storage, store, &entry.removed, &entry.link.key)?;
        chain::set_removed(storage, store, &entry.gone().map(|link| link.key).collect::<Vec<_>>())?;
    }
    Ok(())
}

/// The links that these name, and of which there is no record by now.
fn absent(storage: &str, store: &BlockingStore, found: &[Entry]) -> Result<Vec<Link>> {
    let named: BTreeSet<Link> = found.iter().flat_map(Entry::named).cloned().collect();
    let named: Vec<_> = named.into_iter().collect();
    let recorded = chain::recorded(storage, store, &named)?;
    Ok(named.into_iter().filter(|link| !recorded.contains(link)).collect())
}

/// Takes over removals that collections of garbage wrote which did not come to their end: of links on record that nothing needs and that are
/// gone, either as replaced long enough ago (`gone`) or as of no partition at all.
pub fn learn_removals(storage: &str, store: &BlockingStore, keys: &[String], gone: &[String]) -> Result<()> {
    let own_key = catalog::storage::signing_key(storage)?.map(|key| key.public_key());
    let gone: HashSet<&str> = gone.iter().map(String::as_str).collect();
    let mut found: Vec<Entry> = Vec::new();
    for key in chain::unknown(storage, store, keys)? {
        let Some(entry) = read(store, &key)? else { continue };
        if unfit(&entry, own_key.as_deref()).is_none() && is_confirmed(storage, store, (&entry, &found), &gone)? {
            found.push(entry);
        }
    }
    if found.is_empty() {
        return Ok(());
    }
    notice!("{} removals of manifests are noted that a call wrote which did not come to its end", found.len());
    note(storage, store, &found, own_key.as_deref())?;
    chain::find_heads(storage, store)
}

/// Whether the record agrees with a removal, of which these came `before`.
fn is_confirmed(
    storage: &str,
    store: &BlockingStore,
    (entry, before): (&Entry, &[Entry]),
    gone: &HashSet<&str>,
) -> Result<bool> {
    let Some(previous) = &entry.previous else { return Ok(false) };
    let links: Vec<Link> = entry.gone().collect();
    let mut wanted = links.clone();
    wanted.extend(previous.iter().filter(|link| !before.iter().any(|known| known.link == **link)).cloned());
    let recorded = chain::recorded(storage, store, &wanted)?;
    let keys: Vec<_> = links.iter().map(|link| link.key.clone()).collect();
    let named = named::of(storage, &keys)?;
    let may_go =
        |key: &String| KeyName::of(key).is_manifest() && (gone.contains(key.as_str()) || !named.contains_key(key));
    Ok(wanted.iter().all(|link| recorded.contains(link)) && keys.iter().all(may_go))
}

/// The keys of all links of a storage.
pub(super) fn links(store: &BlockingStore) -> Result<Vec<String>> {
    let mut keys = Vec::new();
    store.list_pages("", |page| {
        interrupts::check();
        keys.extend(page.into_iter().map(|object| object.key).filter(|key| KeyName::of(key).is_link()));
        Ok::<_, Error>(())
    })?;
    Ok(keys)
}
