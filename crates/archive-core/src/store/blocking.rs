//! What the extension calls on its main thread: the store, synchronously and interruptibly.

use super::reader::read_ranges;
use super::{
    BlockingRangeReader, BlockingUpload, FallbackStore, IoRuntime, Location, Moved, ObjectMeta, ObjectStore,
    PendingUpload, PutMode, Retrieval,
};
use crate::error::{Error, Result};
use bytes::Bytes;
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How much was asked of a store.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreMetrics {
    /// Requests sent, retries not counted.
    pub requests: u64,
    /// Bytes of objects read.
    pub bytes_read: u64,
    /// Bytes of objects written.
    pub bytes_written: u64,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    requests: AtomicU64,
    bytes_read: AtomicU64,
    bytes_written: AtomicU64,
}

impl Counters {
    pub(super) fn request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn read(&self, bytes: usize) {
        self.bytes_read.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(super) fn wrote(&self, bytes: usize) {
        self.bytes_written.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    fn snapshot(&self) -> StoreMetrics {
        StoreMetrics {
            requests: self.requests.load(Ordering::Relaxed),
            bytes_read: self.bytes_read.load(Ordering::Relaxed),
            bytes_written: self.bytes_written.load(Ordering::Relaxed),
        }
    }
}

/// A store driven from one thread that must stay interruptible.
///
/// Every call may unwind out of `poll`. A `put` or `delete` interrupted so may or may not have happened at the store.
#[derive(Debug, Clone)]
pub struct BlockingStore {
    store: Arc<dyn ObjectStore>,
    io: Arc<IoRuntime>,
    poll: fn(),
    pace: fn(u64),
    counters: Arc<Counters>,
}

impl BlockingStore {
    /// A façade over `store`; `poll` checks for interrupts and may unwind.
    pub fn new(store: Arc<dyn ObjectStore>, io: Arc<IoRuntime>, poll: fn()) -> Self {
        Self { store, io, poll, pace: |_| (), counters: Arc::default() }
    }

    /// The same, with `pace` called on this thread after so many bytes were read and before so many are written. It may
    /// wait, and unwind.
    #[must_use]
    pub fn paced(self, pace: fn(u64)) -> Self {
        Self { pace, ..self }
    }

    /// Where the objects are.
    pub fn location(&self) -> &Location {
        self.store.location()
    }

    /// The store itself.
    pub fn store(&self) -> &Arc<dyn ObjectStore> {
        &self.store
    }

    /// The same, but that what it cannot give is read from `second`, which holds the same objects.
    #[must_use]
    pub fn with_fallback(self, second: &Self) -> Self {
        let store = FallbackStore::new(Arc::clone(&self.store), Arc::clone(&second.store));
        Self { store: Arc::new(store), ..self }
    }

    /// Reads one whole object.
    pub fn get(&self, key: &str) -> Result<Bytes> {
        let key = key.to_owned();
        let bytes = self.run(|store| async move { store.get(&key).await })?;
        self.counters.read(bytes.len());
        self.pace(bytes.len());
        Ok(bytes)
    }

    /// Reads exactly `range`.
    pub fn get_range(&self, key: &str, range: Range<u64>) -> Result<Bytes> {
        let key = key.to_owned();
        let bytes = self.run(|store| async move { store.get_range(&key, range).await })?;
        self.counters.read(bytes.len());
        self.pace(bytes.len());
        Ok(bytes)
    }

    /// Reads several ranges concurrently, neighbours closer than 64 KiB in one request; answers in the given order.
    pub fn get_ranges(&self, key: &str, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let (store, counters) = (Arc::clone(&self.store), Arc::clone(&self.counters));
        let (key, ranges) = (key.to_owned(), ranges.to_vec());
        let read: Vec<Bytes> = self.wait(async move { read_ranges(store, counters, key, ranges).await })?;
        self.pace(read.iter().map(Bytes::len).sum());
        Ok(read)
    }

    /// What is known about the object, or `None`.
    pub fn head(&self, key: &str) -> Result<Option<ObjectMeta>> {
        let key = key.to_owned();
        self.run(|store| async move { store.head(&key).await })
    }

    /// Every object whose key begins with `prefix`.
    pub fn list(&self, prefix: &str) -> Result<Vec<ObjectMeta>> {
        let prefix = prefix.to_owned();
        self.run(|store| async move { store.list(&prefix).await })
    }

    /// The same, page by page, in the store's order: memory is that of one page.
    ///
    /// Errors: those of the store, and of `visit`.
    pub fn list_pages<E: From<Error>>(
        &self,
        prefix: &str,
        mut visit: impl FnMut(Vec<ObjectMeta>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut page = None;
        loop {
            let (prefix, asked) = (prefix.to_owned(), page.clone());
            let (found, next) = self.run(|store| async move { store.list_page(&prefix, asked).await })?;
            visit(found)?;
            match next {
                None => return Ok(()),
                next => page = next,
            }
        }
    }

    /// Writes one whole object.
    pub fn put(&self, key: &str, bytes: Bytes, mode: PutMode) -> Result<ObjectMeta> {
        let (key, size) = (key.to_owned(), bytes.len());
        self.pace(size);
        let meta = self.run(|store| async move { store.put(&key, bytes, mode).await })?;
        self.counters.wrote(size);
        Ok(meta)
    }

    /// Removes the object if it exists.
    pub fn delete(&self, key: &str) -> Result<()> {
        let key = key.to_owned();
        self.run(|store| async move { store.delete(&key).await })
    }

    /// Removes every version of the object; how many there were.
    pub fn delete_versions(&self, key: &str) -> Result<u64> {
        let key = key.to_owned();
        self.run(|store| async move { store.delete_versions(&key).await })
    }

    /// Puts a legal hold on an object, or lifts it.
    pub fn set_legal_hold(&self, key: &str, on: bool) -> Result<()> {
        let key = key.to_owned();
        self.run(|store| async move { store.set_legal_hold(&key, on).await })
    }

    /// Moves an object to another storage class, in place.
    pub fn set_storage_class(&self, key: &str, class: &str) -> Result<Moved> {
        let (key, class) = (key.to_owned(), class.to_owned());
        self.run(|store| async move { store.set_storage_class(&key, &class).await })
    }

    /// Asks for a readable copy of an object of a frozen class.
    pub fn restore(&self, key: &str, days: i32, retrieval: Retrieval) -> Result<()> {
        let key = key.to_owned();
        self.run(|store| async move { store.restore(&key, days, retrieval).await })
    }

    /// Uploads under `prefix` that were begun and not finished.
    pub fn pending_uploads(&self, prefix: &str) -> Result<Vec<PendingUpload>> {
        let prefix = prefix.to_owned();
        self.run(|store| async move { store.pending_uploads(&prefix).await })
    }

    /// Aborts one of them.
    pub fn abort_pending(&self, upload: &PendingUpload) -> Result<()> {
        let upload = upload.clone();
        self.run(|store| async move { store.abort_pending(&upload).await })
    }

    /// Begins an object written in pieces.
    pub fn upload(&self, key: &str) -> Result<BlockingUpload> {
        BlockingUpload::begin(self, key)
    }

    /// A reader of ranges of one object of known size.
    pub fn reader(&self, key: &str, size: u64) -> BlockingRangeReader {
        BlockingRangeReader::new(self.clone(), key, size)
    }

    /// What this façade and its clones asked of the store so far.
    pub fn metrics(&self) -> StoreMetrics {
        self.counters.snapshot()
    }

    /// A façade over the same store with counters of its own, beginning at zero.
    #[must_use]
    pub fn fork_metrics(&self) -> Self {
        Self { counters: Arc::default(), ..self.clone() }
    }

    pub(super) fn io(&self) -> &Arc<IoRuntime> {
        &self.io
    }

    pub(super) fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    pub(super) fn wait<T: Send + 'static>(
        &self,
        future: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.io.wait(future, self.poll)
    }

    pub(super) fn pace(&self, bytes: usize) {
        (self.pace)(bytes as u64);
    }

    fn run<T, F>(&self, operation: impl FnOnce(Arc<dyn ObjectStore>) -> F) -> Result<T>
    where
        T: Send + 'static,
        F: Future<Output = Result<T>> + Send + 'static,
    {
        self.counters.request();
        self.wait(operation(Arc::clone(&self.store)))
    }
}
