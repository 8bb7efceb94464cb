//! The bytes of an object, and small memories of those that a repeated scan, or the next query, asks for again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use archive_core::codec::RangeReader;
use archive_core::store::BlockingRangeReader;
use bytes::Bytes;
use lru::LruCache;

use crate::catalog::object::ArchivedObject;
use crate::guc;

/// Bytes remembered at most.
const CACHE_BYTES: usize = 16 << 20;

/// A longer range is not remembered.
const CACHED_RANGE: usize = 1 << 20;

/// Ranges that were read before: footers, indexes and small pages, which a nested loop reads once for each outer row.
#[derive(Debug, Default)]
pub(super) struct RangeCache {
    ranges: HashMap<(i32, u64, u64), Bytes>,
    bytes: usize,
}

impl RangeCache {
    fn keep(&mut self, key: (i32, u64, u64), bytes: &Bytes) {
        if bytes.len() <= CACHED_RANGE && self.bytes + bytes.len() <= CACHE_BYTES {
            self.bytes += bytes.len();
            // A copy: the range may be a slice of a much longer read.
            self.ranges.insert(key, Bytes::copy_from_slice(bytes));
        }
    }
}

/// Footers and page indexes of objects that this backend read last, `archive_ext.metadata_cache` of them: the next query that reads
/// the object asks for its pages at once. An object's id is never another's, and objects do not change.
#[derive(Debug)]
struct MetadataCache {
    ranges: LruCache<(i64, u64, u64), Bytes>,
    bytes: usize,
}

thread_local! {
    static METADATA: RefCell<MetadataCache> = RefCell::new(MetadataCache { ranges: LruCache::unbounded(), bytes: 0 });
}

impl MetadataCache {
    fn find(object: i64, range: &Range<u64>) -> Option<Bytes> {
        METADATA.with_borrow_mut(|cache| cache.ranges.get(&(object, range.start, range.end)).cloned())
    }

    fn keep(object: i64, range: &Range<u64>, bytes: &Bytes) {
        let limit = guc::metadata_cache_bytes();
        METADATA.with_borrow_mut(|cache| {
            if bytes.len() <= limit {
                cache.bytes += bytes.len();
                // A copy, as above.
                let replaced = cache.ranges.put((object, range.start, range.end), Bytes::copy_from_slice(bytes));
                cache.bytes -= replaced.map_or(0, |replaced| replaced.len());
            }
            while cache.bytes > limit {
                let Some((_, oldest)) = cache.ranges.pop_lru() else { break };
                cache.bytes -= oldest.len();
            }
        });
    }
}

/// Reads one object of a scan.
#[derive(Debug)]
pub(super) struct ObjectSource {
    reader: BlockingRangeReader,
    object: i64,
    ordinal: i32,
    cache: Option<Rc<RefCell<RangeCache>>>,
    opening: Rc<Cell<bool>>,
}

/// What is read as long as this lives is an object's metadata.
#[derive(Debug)]
pub(super) struct Opening(Rc<Cell<bool>>);

impl Drop for Opening {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

impl ObjectSource {
    /// A source of the bytes of an object that is opened next; `cache` for scans that repeat.
    pub(super) fn new(
        reader: BlockingRangeReader,
        object: &ArchivedObject,
        cache: Option<Rc<RefCell<RangeCache>>>,
    ) -> (Self, Opening) {
        let opening = Rc::new(Cell::new(guc::metadata_cache_bytes() > 0));
        let source = Self { reader, object: object.id, ordinal: object.ordinal, cache, opening: Rc::clone(&opening) };
        (source, Opening(opening))
    }

    /// The ranges, each from `known` or from the storage; those are given to `keep`.
    fn read_through(
        &mut self,
        ranges: &[Range<u64>],
        known: impl Fn(&Range<u64>) -> Option<Bytes>,
        keep: impl Fn(&Range<u64>, &Bytes),
    ) -> archive_core::Result<Vec<Bytes>> {
        let known: Vec<Option<Bytes>> = ranges.iter().map(known).collect();
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(range, _)| range.clone()).collect();
        // No borrow of a cache is held while reading: it may unwind.
        let read = if missing.is_empty() { Vec::new() } else { self.reader.read_ranges(&missing)? };
        missing.iter().zip(&read).for_each(|(range, bytes)| keep(range, bytes));
        let mut read = read.into_iter();
        Ok(known.into_iter().map(|known| known.unwrap_or_else(|| read.next().unwrap_or_default())).collect())
    }
}

impl RangeReader for ObjectSource {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> archive_core::Result<Vec<Bytes>> {
        if self.opening.get() {
            let object = self.object;
            let known = |range: &Range<u64>| MetadataCache::find(object, range);
            return self.read_through(ranges, known, |range, bytes| MetadataCache::keep(object, range, bytes));
        }
        let Some(cache) = self.cache.clone() else { return self.reader.read_ranges(ranges) };
        let ordinal = self.ordinal;
        let key = |range: &Range<u64>| (ordinal, range.start, range.end);
        let known = |range: &Range<u64>| cache.borrow().ranges.get(&key(range)).cloned();
        self.read_through(ranges, known, |range, bytes| cache.borrow_mut().keep(key(range), bytes))
    }
}
