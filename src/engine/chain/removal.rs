//! Manifests that are deleted by right: a link of the chain says so before they go.

use archive_core::chain::{Link, Removal, Removed, Sealed, removal_key};
use archive_core::naming::KeyName;
use archive_core::store::BlockingStore;

use super::read;
use crate::catalog::{self, chain};
use crate::engine::storage::put_once;
use crate::error::Result;

/// Removals that were written to a storage, and that the catalog is yet to know.
#[derive(Debug, Default)]
pub struct Removing {
    written: Vec<(String, Sealed, Vec<Removed>)>,
}

impl Removing {
    /// Writes that these keys are to be deleted and why, as far as they are manifests of which that was not written yet. Only the storage
    /// is written to.
    pub fn write(&mut self, storage: &str, store: &BlockingStore, keys: &[String], reason: &str) -> Result<()> {
        let mut removed = chain::removable(storage, store, keys)?;
        removed.extend(off_record(storage, store, keys)?);
        if removed.is_empty() {
            return Ok(());
        }
        let at = catalog::storage::now_text()?;
        let mut removal = Removal::new(at.clone(), reason, removed);
        let signer = catalog::storage::signing_key(storage)?;
        let sealed = archive_core::chain::seal(&mut removal, self.heads(storage, store)?, signer.as_ref())?;
        let key = removal_key(&at, &sealed.sha256);
        put_once(store, &key, sealed.json.clone())?;
        failpoint!("removal_put");
        self.written.push((key, sealed, removal.removed));
        Ok(())
    }

    fn heads(&self, storage: &str, store: &BlockingStore) -> Result<Vec<Link>> {
        match self.written.last() {
            Some((key, sealed, _)) => Ok(vec![Link { key: key.clone(), sha256: sealed.sha256.clone() }]),
            None => chain::heads(storage, store),
        }
    }

    /// Notes in the catalog what was written.
    pub fn record(self, storage: &str, store: &BlockingStore) -> Result<()> {
        for (key, sealed, removed) in self.written {
            chain::append(storage, store, &key, &sealed)?;
            chain::set_announced(storage, store, &removed, &key)?;
        }
        Ok(())
    }
}

/// Manifests that the record does not have, of runs that were rolled back or of a time that a recovery went back over: others may name them.
fn off_record(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<Vec<Removed>> {
    let manifests: Vec<_> = keys.iter().filter(|key| KeyName::of(key).is_manifest()).cloned().collect();
    let mut removed = Vec::new();
    for key in chain::unknown(storage, store, &manifests)? {
        let Some(entry) = read(store, &key)? else { continue };
        if let Some(previous) = entry.previous {
            removed.push(Removed { key, sha256: entry.link.sha256, previous });
        }
    }
    Ok(removed)
}

/// Says that these keys are to be deleted and why: before they are. When they are, [`chain::set_removed`] notes it.
pub fn announce(storage: &str, store: &BlockingStore, keys: &[String], reason: &str) -> Result<()> {
    let mut removing = Removing::default();
    removing.write(storage, store, keys, reason)?;
    removing.record(storage, store)
}
