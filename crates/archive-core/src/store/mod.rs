//! Object stores: S3 and a local directory behind one trait, and the façade that the PostgreSQL backend drives.
//!
//! `options` and `credentials` validate what a DBA writes; `open` builds a store without any traffic; [`BlockingStore`]
//! runs it from the backend's main thread on an [`IoRuntime`]; [`OwnerMarker`] keeps one cluster per prefix.

mod blocking;
mod class;
mod common;
#[cfg(test)]
use crate::error::ErrorKind;
#[cfg(test)]
mod contract;
mod credentials;
mod endpoint;
mod fallback;
mod faulty;
mod key;
mod local;
mod location;
mod lock;
mod options;
mod owner;
mod probe;
mod reader;
mod runtime;
mod s3;
#[cfg(test)]
mod test_server;
#[cfg(test)]
mod tests;
mod upload;
mod values;

pub use blocking::{BlockingStore, StoreMetrics};
pub use class::{FROZEN_CLASSES, GLACIER_CLASSES, Restore, Retrieval, is_frozen, poll_seconds};
pub use common::{Moved, ObjectMeta, ObjectStore, PendingUpload, PutMode, Upload};
pub(crate) use credentials::read_private;
pub use credentials::{Credentials, UserMappingOptions};
pub use endpoint::AllowedEndpoints;
use endpoint::Endpoint;
pub use fallback::FallbackStore;
pub use faulty::{Fault, FaultyStore, Op};
pub use key::{TEMP_PREFIX, validate_key};
pub use location::Location;
pub use lock::{Kept, LockMode, ObjectLock, RetentionUnit};
pub use options::{Checksum, CredentialSource, StorageOptions};
pub use owner::{ClaimTime, OWNER_KEY, OwnerIdentity, OwnerMarker};
pub use probe::{ProbeResult, probe};
pub use reader::BlockingRangeReader;
pub use runtime::IoRuntime;
pub use upload::BlockingUpload;
pub use values::Sse;

use crate::error::Result;
use std::sync::Arc;

/// Opens the store that `options` describe, wherever it is.
pub fn open(
    options: &StorageOptions,
    credentials: Option<Credentials>,
    io: &IoRuntime,
) -> Result<Arc<dyn ObjectStore>> {
    open_within(options, credentials, &AllowedEndpoints::default(), io)
}

/// Opens the store that `options` describe, if its endpoint is allowed. Reads environment variables or the credentials
/// file, never the network; addresses that names resolve to are checked at each connection.
///
/// `credentials` is what the extension found for `options.credentials`: required for S3, ignored for a directory.
pub fn open_within(
    options: &StorageOptions,
    credentials: Option<Credentials>,
    allowed: &AllowedEndpoints,
    io: &IoRuntime,
) -> Result<Arc<dyn ObjectStore>> {
    allowed.check(options)?;
    match &options.location {
        Location::File(directory) => Ok(Arc::new(local::LocalStore::new(directory.clone()))),
        Location::S3 { .. } => {
            let _context = io.enter();
            Ok(Arc::new(s3::S3Store::open(options, credentials, allowed)?))
        }
    }
}
