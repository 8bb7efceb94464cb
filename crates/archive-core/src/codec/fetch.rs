//! Reads byte ranges with few requests: neighbours are fetched together and cut apart without copying.

use std::ops::Range;

use bytes::Bytes;

use super::guard::corrupt;
use super::reader::RangeReader;
use crate::{Error, ErrorKind, Result};

/// Bytes between two ranges that are fetched rather than asked for apart.
const GAP: u64 = 64 << 10;
/// Largest range made by joining.
const JOINED: u64 = 16 << 20;

/// The bytes of each range, in order.
pub(super) fn fetch<R: RangeReader>(reader: &mut R, size: u64, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
    if ranges.iter().any(|range| range.start > range.end || range.end > size) {
        return Err(corrupt("object points beyond its end"));
    }
    let joined = join(ranges);
    let parts = reader.read_ranges(&joined)?;
    let complete = parts.len() == joined.len()
        && joined.iter().zip(&parts).all(|(range, part)| range.end - range.start == part.len() as u64);
    if !complete {
        return Err(Error::new(ErrorKind::Storage, "storage returned another number of bytes than asked for"));
    }
    ranges.iter().map(|range| cut(range, &joined, &parts)).collect()
}

/// Sorted ranges that cover `ranges`.
fn join(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
    let mut sorted: Vec<Range<u64>> = ranges.iter().filter(|range| !range.is_empty()).cloned().collect();
    sorted.sort_by_key(|range| (range.start, range.end));
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.end <= last.end => {}
            Some(last) if overlap_or_near(last, &range) => last.end = range.end,
            _ => joined.push(range),
        }
    }
    joined
}

fn overlap_or_near(last: &Range<u64>, next: &Range<u64>) -> bool {
    next.start < last.end || (next.start - last.end <= GAP && next.end - last.start <= JOINED)
}

fn cut(range: &Range<u64>, joined: &[Range<u64>], parts: &[Bytes]) -> Result<Bytes> {
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let last = joined.partition_point(|part| part.start <= range.start).checked_sub(1);
    let found = last.and_then(|i| Some((joined.get(i)?, parts.get(i)?))).filter(|(part, _)| range.end <= part.end);
    let (part, bytes) = found.ok_or_else(|| Error::new(ErrorKind::Internal, "a byte range was not fetched"))?;
    let at = |offset: u64| usize::try_from(offset - part.start).unwrap_or(usize::MAX).min(bytes.len());
    Ok(bytes.slice(at(range.start)..at(range.end)))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "sets of one range")]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_joined_up_to_a_limit() {
        assert_eq!(join(&[10..20, 0..10, 30..40]), [0..40]);
        assert_eq!(join(&[0..1, 1 + 2 * GAP..2 + 2 * GAP]).len(), 2);
        assert_eq!(join(&[0..JOINED, JOINED..JOINED + 1]).len(), 2);
        assert_eq!(join(&[0..100, 10..20, 50..120, 7..7]), [0..120]);
    }

    struct Memory(Bytes);

    impl RangeReader for Memory {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }
        fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
            Ok(ranges.iter().map(|range| self.0.slice(range.start as usize..range.end as usize)).collect())
        }
    }

    #[test]
    fn every_range_gets_its_bytes() {
        let mut memory = Memory(Bytes::from_static(b"0123456789"));
        let parts = fetch(&mut memory, 10, &[5..7, 0..2, 3..3, 9..10, 5..6]).unwrap();
        assert_eq!(parts, [&b"56"[..], b"01", b"", b"9", b"5"]);
        assert_eq!(fetch(&mut memory, 10, &[5..11]).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
