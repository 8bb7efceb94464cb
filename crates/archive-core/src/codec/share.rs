//! Several readers of the same objects, each of which reads some of the row groups.

use std::fmt;
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};

/// Which rows of an object are this reader's. It is asked once about the rows of each row group that may hold wanted ones, in
/// ascending order; formats without row groups ask about all rows.
pub trait ClaimRows: fmt::Debug {
    /// Takes these rows, unless another reader has.
    fn claim(&self, rows: Range<u64>) -> bool;
}

/// Where the rows begin that nobody has taken yet, of all rows of all objects, in shared memory. Every reader goes through the row
/// groups in the same order and leaves out only what all others leave out, too.
#[derive(Debug, Default)]
#[repr(transparent)]
pub struct SharedPosition(AtomicU64);

impl SharedPosition {
    /// Takes a row group, unless another reader has.
    pub fn claim(&self, rows: Range<u64>) -> bool {
        let take = |next: u64| (next <= rows.start).then_some(rows.end);
        self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, take).is_ok()
    }

    /// Whether all rows before `end` are taken.
    pub fn is_past(&self, end: u64) -> bool {
        self.0.load(Ordering::Acquire) >= end
    }

    /// Takes all that is left: the readers stop after what they have.
    pub fn finish(&self) {
        self.0.store(u64::MAX, Ordering::Release);
    }

    /// Nothing is taken any more.
    pub fn reset(&self) {
        self.0.store(0, Ordering::Release);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Barrier;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_before_a_taken_row_group_is_taken() {
        let position = SharedPosition::default();
        assert!(position.claim(10..20));
        assert!(!position.claim(0..10));
        assert!(!position.claim(10..20));
        assert!(position.is_past(20));
        assert!(!position.is_past(21));
        assert!(position.claim(20..30));
        position.finish();
        assert!(!position.claim(30..40) && position.is_past(40));
        position.reset();
        assert!(position.claim(0..10));
    }

    proptest! {
        #[test]
        fn each_row_group_is_read_by_one(sizes in prop::collection::vec(1_u64..50, 1..60), readers in 1_usize..5) {
            let mut groups = Vec::new();
            let mut first = 0;
            for size in sizes {
                groups.push(first..first + size);
                first += size;
            }
            let (position, barrier) = (SharedPosition::default(), Barrier::new(readers));
            let read = || {
                barrier.wait();
                groups.iter().filter(|group| position.claim((*group).clone())).cloned().collect::<Vec<_>>()
            };
            let mut all: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..readers).map(|_| scope.spawn(read)).collect();
                threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
            });
            all.sort_by_key(|group| group.start);
            prop_assert_eq!(all, groups);
            prop_assert!(position.is_past(first));
        }
    }
}
