//! A store whose objects are in a second one, too: what the first cannot give is read from the other.

use super::{Location, Moved, ObjectMeta, ObjectStore, PendingUpload, PutMode, Retrieval, Upload};
use crate::error::{ErrorKind, Result};
use async_trait::async_trait;
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Reads from `first`, and from `second` what `first` lacks or cannot give. Everything else goes to `first` alone.
#[derive(Debug)]
pub struct FallbackStore {
    first: Arc<dyn ObjectStore>,
    second: Arc<dyn ObjectStore>,
    fallbacks: AtomicU64,
}

impl FallbackStore {
    /// Both hold the same objects under the same keys.
    pub fn new(first: Arc<dyn ObjectStore>, second: Arc<dyn ObjectStore>) -> Self {
        Self { first, second, fallbacks: AtomicU64::new(0) }
    }

    /// The answer of the second store, where the first had none; if that has none either, the first one's error counts.
    async fn or_second<T>(&self, first: Result<T>, second: impl Future<Output = Result<T>> + Send) -> Result<T> {
        let error = match first {
            Err(error) if may_be_elsewhere(error.kind()) => error,
            answer => return answer,
        };
        match second.await {
            Ok(answer) => {
                self.fallbacks.fetch_add(1, Ordering::Relaxed);
                Ok(answer)
            }
            Err(_) => Err(error),
        }
    }
}

/// What the other store may do better: not what the caller did wrong.
fn may_be_elsewhere(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::Storage
            | ErrorKind::Corrupt
            | ErrorKind::PermissionDenied
            | ErrorKind::NeedsRestore
            | ErrorKind::DiskFull
    )
}

#[async_trait]
impl ObjectStore for FallbackStore {
    fn location(&self) -> &Location {
        self.first.location()
    }

    fn fallbacks(&self) -> u64 {
        self.fallbacks.load(Ordering::Relaxed)
    }

    async fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta> {
        self.first.put(key, bytes, mode).await
    }

    async fn begin_upload(&self, key: &str) -> Result<Box<dyn Upload>> {
        self.first.begin_upload(key).await
    }

    async fn get(&self, key: &str) -> Result<Bytes> {
        self.or_second(self.first.get(key).await, self.second.get(key)).await
    }

    async fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        self.or_second(self.first.get_range(key, range.clone()).await, self.second.get_range(key, range)).await
    }

    async fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        match self.first.head(key).await {
            Ok(None) => self.second.head(key).await,
            first => self.or_second(first, self.second.head(key)).await,
        }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        self.first.list(prefix).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.first.delete(key).await
    }

    async fn delete_versions(&self, key: &str) -> Result<u64> {
        self.first.delete_versions(key).await
    }

    async fn set_legal_hold(&self, key: &str, on: bool) -> Result<()> {
        self.first.set_legal_hold(key, on).await
    }

    async fn set_storage_class(&self, key: &str, class: &str) -> Result<Moved> {
        self.first.set_storage_class(key, class).await
    }

    async fn restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        self.first.restore(key, days, retrieval).await
    }

    async fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        self.first.pending_uploads(prefix).await
    }

    async fn abort_pending(&self, upload: &PendingUpload) -> Result<()> {
        self.first.abort_pending(upload).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::local::LocalStore;
    use crate::store::{Fault, FaultyStore, Op};

    fn stores() -> (tempfile::TempDir, Arc<FaultyStore>, Arc<dyn ObjectStore>) {
        let root = tempfile::tempdir().unwrap();
        let store = |name: &str| {
            std::fs::create_dir(root.path().join(name)).unwrap();
            Arc::new(LocalStore::new(root.path().join(name))) as Arc<dyn ObjectStore>
        };
        let (first, second) = (Arc::new(FaultyStore::new(store("first"))), store("second"));
        (root, first, second)
    }

    fn run<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
    }

    #[test]
    fn what_the_first_lacks_or_refuses_comes_from_the_second() {
        let (_root, first, second) = stores();
        run(async {
            let bytes = Bytes::from_static(b"0123456789");
            for store in [Arc::clone(&first) as Arc<dyn ObjectStore>, Arc::clone(&second)] {
                store.put("both", bytes.clone(), PutMode::Overwrite).await.unwrap();
            }
            second.put("second", bytes.clone(), PutMode::Overwrite).await.unwrap();
            let store = FallbackStore::new(Arc::clone(&first) as Arc<dyn ObjectStore>, second);
            assert_eq!((store.get("both").await.unwrap(), store.fallbacks()), (bytes.clone(), 0));
            assert_eq!((store.get("second").await.unwrap(), store.fallbacks()), (bytes.clone(), 1));
            assert_eq!(store.get_range("second", 2..4).await.unwrap(), bytes.slice(2..4));
            assert_eq!(store.head("second").await.unwrap().unwrap().bytes, 10);
            first.inject(Op::GetRange, 1, Fault::Error(ErrorKind::Storage));
            assert_eq!(store.get_range("both", 2..4).await.unwrap(), bytes.slice(2..4));
            assert_eq!(store.fallbacks(), 3);
            // Neither has it: the first one's word counts. What the caller did wrong is wrong everywhere.
            assert_eq!(store.get("none").await.unwrap_err().kind(), ErrorKind::NotFound);
            assert_eq!(store.head("none").await.unwrap(), None);
            assert!(store.get("/wrong").await.is_err());
        });
    }
}
