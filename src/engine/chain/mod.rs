//! The chain of the manifests of a storage: each names the one before by its hash, and what deletes one says so first.

mod learn;
mod removal;
mod verify;

pub use learn::{learn, learn_removals};
pub use removal::{Removing, announce};
pub use verify::{Options, public_keys, verify};

use archive_core::ErrorKind;
use archive_core::chain::{self, Chained, Entry, Sealed};
use archive_core::store::BlockingStore;

use crate::catalog;
use crate::error::Result;
use crate::pg::interrupts;

/// Makes a document the next link: it names the last ones, and is signed where the storage has a key.
///
/// Errors: those of reading the key (58P01, 28000, 22023).
pub fn seal<T: Chained>(storage: &str, store: &BlockingStore, document: &mut T) -> Result<Sealed> {
    let key = catalog::storage::signing_key(storage)?;
    Ok(chain::seal(document, catalog::chain::heads(storage, store)?, key.as_ref())?)
}

/// Reads a link; `None` when it is not there.
fn read(store: &BlockingStore, key: &str) -> Result<Option<Entry>> {
    interrupts::check();
    match store.get(key) {
        Ok(document) => Ok(Some(Entry::of(key, &document))),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error.into()),
    }
}
