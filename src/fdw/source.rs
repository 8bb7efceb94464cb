//! The bytes of an object, and a small memory of those that a repeated scan asks for again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use archive_core::codec::{ObjectFormat, RangeReader};
use archive_core::store::BlockingRangeReader;
use bytes::Bytes;

use super::metadata_cache::{self, Piece};
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

/// Reads one object of a scan.
#[derive(Debug)]
pub(super) struct ObjectSource {
    reader: BlockingRangeReader,
    sha256: Rc<str>,
    ordinal: i32,
    cache: Option<Rc<RefCell<RangeCache>>>,
    opening: Reads,
}

/// What was read while an object is opened; `None` afterwards, and where nothing of it is to be remembered.
type Reads = Rc<RefCell<Option<Vec<Piece>>>>;

/// As long as this lives, what is read is an object's metadata.
#[derive(Debug)]
pub(super) struct Opening {
    sha256: Rc<str>,
    reads: Reads,
}

impl Opening {
    /// The object could be opened.
    pub(super) fn done(self) {
        if let Some(reads) = self.reads.take() {
            metadata_cache::keep(&self.sha256, &reads);
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // It could not be opened, perhaps by what was remembered of it.
        if self.reads.take().is_some() {
            metadata_cache::forget(&self.sha256);
        }
    }
}

impl ObjectSource {
    /// A source of the bytes of an object that is opened next; `cache` for scans that repeat.
    pub(super) fn new(
        reader: BlockingRangeReader,
        object: &ArchivedObject,
        cache: Option<Rc<RefCell<RangeCache>>>,
    ) -> (Self, Opening) {
        // Lines have no metadata.
        let remembers =
            guc::metadata_cache_bytes() > 0 && matches!(ObjectFormat::of_key(&object.key), Ok(ObjectFormat::Parquet));
        let reads: Reads = Rc::new(RefCell::new(remembers.then(Vec::new)));
        let sha256: Rc<str> = object.sha256.as_str().into();
        let opening = Opening { sha256: Rc::clone(&sha256), reads: Rc::clone(&reads) };
        (Self { reader, sha256, ordinal: object.ordinal, cache, opening: reads }, opening)
    }

    /// Forgets what is remembered of the object, which is not what was written.
    pub(super) fn forget(&self) {
        metadata_cache::forget(&self.sha256);
    }

    fn find(&self, range: &Range<u64>) -> Option<Bytes> {
        let key = (self.ordinal, range.start, range.end);
        let of_scan = self.cache.as_ref().and_then(|cache| cache.borrow().ranges.get(&key).cloned());
        of_scan.or_else(|| self.opening.borrow().as_ref().and_then(|_| metadata_cache::find(&self.sha256, range)))
    }

    fn keep(&self, range: &Range<u64>, bytes: &Bytes) {
        if let Some(cache) = &self.cache {
            cache.borrow_mut().keep((self.ordinal, range.start, range.end), bytes);
        }
        if let Some(reads) = self.opening.borrow_mut().as_mut() {
            reads.push((range.clone(), bytes.clone()));
        }
    }
}

impl RangeReader for ObjectSource {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> archive_core::Result<Vec<Bytes>> {
        let known: Vec<Option<Bytes>> = ranges.iter().map(|range| self.find(range)).collect();
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(range, _)| range.clone()).collect();
        // No borrow of a cache is held while reading: it may unwind.
        let read = if missing.is_empty() { Vec::new() } else { self.reader.read_ranges(&missing)? };
        missing.iter().zip(&read).for_each(|(range, bytes)| self.keep(range, bytes));
        let mut read = read.into_iter();
        Ok(known.into_iter().map(|known| known.unwrap_or_else(|| read.next().unwrap_or_default())).collect())
    }
}
