//! Reading many ranges of one object in few requests.

use super::blocking::Counters;
use super::{BlockingStore, ObjectStore};
use crate::codec::RangeReader;
use crate::error::{Error, ErrorKind, Result};
use bytes::Bytes;
use std::ops::Range;
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

/// Ranges with a smaller gap are read in one request.
const COALESCE_GAP: u64 = 64 * 1024;
/// Joined requests do not grow past this; a single longer range is read as asked.
const COALESCE_LIMIT: u64 = 16 * 1024 * 1024;
/// Requests in flight.
const CONCURRENCY: usize = 8;

/// Ranges of one object, read on the main thread.
#[derive(Debug, Clone)]
pub struct BlockingRangeReader {
    store: BlockingStore,
    key: String,
    size: u64,
}

impl BlockingRangeReader {
    pub(super) fn new(store: BlockingStore, key: &str, size: u64) -> Self {
        Self { store, key: key.to_owned(), size }
    }
}

impl RangeReader for BlockingRangeReader {
    fn len(&self) -> u64 {
        self.size
    }

    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        match ranges.iter().find(|r| r.end > self.size) {
            None => self.store.get_ranges(&self.key, ranges),
            Some(range) => Err(Error::new(ErrorKind::Corrupt, format!("object \"{}\" is too short", self.key))
                .detail(format!("Bytes {}..{} are wanted and it has {}.", range.start, range.end, self.size))),
        }
    }
}

pub(super) async fn read_ranges(
    store: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
    key: String,
    ranges: Vec<Range<u64>>,
) -> Result<Vec<Bytes>> {
    let plan = coalesce(&ranges);
    let fetched = fetch(store, counters, key, &plan).await?;
    ranges.iter().map(|range| cut(range, &plan, &fetched)).collect()
}

/// The requests that cover all ranges, in order of their beginnings.
fn coalesce(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|r| r.start < r.end).cloned().collect();
    sorted.sort_by_key(|r| (r.start, r.end));
    let mut plan: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match plan.last_mut() {
            Some(last) if joins(last, &range) => last.end = last.end.max(range.end),
            _ => plan.push(range),
        }
    }
    plan
}

fn joins(last: &Range<u64>, next: &Range<u64>) -> bool {
    let contained = next.end <= last.end;
    contained || (next.start < last.end.saturating_add(COALESCE_GAP) && next.end - last.start <= COALESCE_LIMIT)
}

async fn fetch(
    store: Arc<dyn ObjectStore>,
    counters: Arc<Counters>,
    key: String,
    plan: &[Range<u64>],
) -> Result<Vec<Bytes>> {
    let permits = Arc::new(Semaphore::new(CONCURRENCY));
    let mut tasks = JoinSet::new();
    for (index, range) in plan.iter().cloned().enumerate() {
        let (store, counters, key) = (Arc::clone(&store), Arc::clone(&counters), key.clone());
        let permits = Arc::clone(&permits);
        tasks.spawn(async move {
            let _permit = permits.acquire_owned().await;
            counters.request();
            let bytes = store.get_range(&key, range).await?;
            counters.read(bytes.len());
            Ok::<_, Error>((index, bytes))
        });
    }
    let mut fetched = vec![Bytes::new(); plan.len()];
    while let Some(joined) = tasks.join_next().await {
        let (index, bytes) = joined.map_err(|e| Error::new(ErrorKind::Internal, "a read task failed").source(e))??;
        fetched[index] = bytes;
    }
    Ok(fetched)
}

fn cut(range: &Range<u64>, plan: &[Range<u64>], fetched: &[Bytes]) -> Result<Bytes> {
    if range.start >= range.end {
        return Ok(Bytes::new());
    }
    let index = plan.partition_point(|r| r.start <= range.start).saturating_sub(1);
    // A joined request may begin earlier than the one before it ends; walk back to one that contains the range.
    let found = (0..=index).rev().find(|&i| plan.get(i).is_some_and(|r| r.start <= range.start && range.end <= r.end));
    let slice = found.and_then(|i| {
        let (start, end) = (range.start - plan[i].start, range.end - plan[i].start);
        (end <= fetched[i].len() as u64).then(|| fetched[i].slice(start as usize..end as usize))
    });
    slice.ok_or_else(|| Error::new(ErrorKind::Internal, "a byte range was not covered by its requests"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn neighbours_share_a_request() {
        assert_eq!(coalesce(&[100..200, 0..50, 70_000..70_001]), vec![0..200, 70_000..70_001]);
        let (empty, beyond) = (5..5, 7..7);
        assert_eq!(coalesce(&[empty, beyond]), Vec::<Range<u64>>::new());
        let big = COALESCE_LIMIT;
        assert_eq!(coalesce(&[0..big, big..big + 1]).len(), 2);
    }

    proptest! {
        #[test]
        fn every_range_is_cut_from_what_was_fetched(
            ranges in prop::collection::vec((0u64..500_000, 0u64..100_000), 0..20)
        ) {
            let ranges: Vec<Range<u64>> = ranges.into_iter().map(|(start, len)| start..start + len).collect();
            let whole: Vec<u8> = (0..600_000u32).map(|i| (i % 251) as u8).collect();
            let plan = coalesce(&ranges);
            let fetched: Vec<Bytes> = plan
                .iter()
                .map(|r| Bytes::copy_from_slice(&whole[r.start as usize..r.end as usize]))
                .collect();
            for range in &ranges {
                let expected = &whole[range.start as usize..range.end as usize];
                prop_assert_eq!(&cut(range, &plan, &fetched).unwrap()[..], expected);
            }
        }
    }
}
