//! The bytes of an object, and a small memory of those that a repeated scan asks for again.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ops::Range;
use std::rc::Rc;

use archive_core::codec::RangeReader;
use archive_core::store::BlockingRangeReader;
use bytes::Bytes;

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
    ordinal: i32,
    cache: Option<Rc<RefCell<RangeCache>>>,
}

impl ObjectSource {
    /// A source of object `ordinal`; `cache` for scans that repeat.
    pub(super) fn new(reader: BlockingRangeReader, ordinal: i32, cache: Option<Rc<RefCell<RangeCache>>>) -> Self {
        Self { reader, ordinal, cache }
    }

    fn key(&self, range: &Range<u64>) -> (i32, u64, u64) {
        (self.ordinal, range.start, range.end)
    }
}

impl RangeReader for ObjectSource {
    fn len(&self) -> u64 {
        self.reader.len()
    }

    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> archive_core::Result<Vec<Bytes>> {
        let Some(cache) = self.cache.clone() else { return self.reader.read_ranges(ranges) };
        let known: Vec<Option<Bytes>> =
            ranges.iter().map(|range| cache.borrow().ranges.get(&self.key(range)).cloned()).collect();
        let missing: Vec<Range<u64>> =
            ranges.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(range, _)| range.clone()).collect();
        // No borrow of the cache is held while reading: it may unwind.
        let read = if missing.is_empty() { Vec::new() } else { self.reader.read_ranges(&missing)? };
        for (range, bytes) in missing.iter().zip(&read) {
            cache.borrow_mut().keep(self.key(range), bytes);
        }
        let mut read = read.into_iter();
        Ok(known.into_iter().map(|known| known.unwrap_or_else(|| read.next().unwrap_or_default())).collect())
    }
}
