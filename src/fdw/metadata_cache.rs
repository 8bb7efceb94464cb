//! Footers and page indexes of objects that this backend read last, `archive_ext.metadata_cache` of them: the next query that reads the
//! object asks for its pages at once. An object is known by its SHA-256: ids may begin anew with the extension.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;
use lru::LruCache;

use crate::guc;

/// Bytes of an object, and where they are.
pub(super) type Piece = (Range<u64>, Bytes);

#[derive(Debug)]
struct MetadataCache {
    ranges: LruCache<(Rc<str>, u64, u64), Bytes>,
    bytes: usize,
}

thread_local! {
    static METADATA: RefCell<MetadataCache> = RefCell::new(MetadataCache { ranges: LruCache::unbounded(), bytes: 0 });
}

impl MetadataCache {
    fn put(&mut self, key: (Rc<str>, u64, u64), bytes: &Bytes) {
        self.bytes += bytes.len();
        // A copy: the range may be a slice of a much longer read.
        let replaced = self.ranges.put(key, Bytes::copy_from_slice(bytes));
        self.bytes -= replaced.map_or(0, |replaced| replaced.len());
    }

    fn shrink_to(&mut self, limit: usize) {
        while self.bytes > limit {
            let Some((_, oldest)) = self.ranges.pop_lru() else { break };
            self.bytes -= oldest.len();
        }
    }
}

/// A range of an object, if it is remembered.
pub(super) fn find(object: &Rc<str>, range: &Range<u64>) -> Option<Bytes> {
    METADATA.with_borrow_mut(|cache| cache.ranges.get(&(Rc::clone(object), range.start, range.end)).cloned())
}

/// Remembers what was read of an object that could be opened.
pub(super) fn keep(object: &Rc<str>, pieces: &[Piece]) {
    let limit = guc::metadata_cache_bytes();
    METADATA.with_borrow_mut(|cache| {
        for (range, bytes) in pieces.iter().filter(|(_, bytes)| bytes.len() <= limit) {
            cache.put((Rc::clone(object), range.start, range.end), bytes);
        }
        cache.shrink_to(limit);
    });
}

/// Forgets an object that is not what was written: it may be mended.
pub(super) fn forget(object: &str) {
    METADATA.with_borrow_mut(|cache| {
        let keys: Vec<_> = cache.ranges.iter().map(|(key, _)| key.clone()).filter(|key| &*key.0 == object).collect();
        for key in keys {
            cache.bytes -= cache.ranges.pop(&key).map_or(0, |bytes| bytes.len());
        }
    });
}
