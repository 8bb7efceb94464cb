//! Sets of rows as ascending ranges.

use std::ops::Range;

use parquet::arrow::arrow_reader::{RowSelection, RowSelector};

/// The rows in both sets.
pub(super) fn intersect(a: &[Range<u64>], b: &[Range<u64>]) -> Vec<Range<u64>> {
    let (mut i, mut j) = (0, 0);
    let mut both = Vec::new();
    while let Some((x, y)) = a.get(i).zip(b.get(j)) {
        let common = x.start.max(y.start)..x.end.min(y.end);
        if !common.is_empty() {
            both.push(common);
        }
        if x.end <= y.end { i += 1 } else { j += 1 }
    }
    both
}

/// Sorted, and without overlaps and neighbours.
pub(super) fn normalize(mut ranges: Vec<Range<u64>>) -> Vec<Range<u64>> {
    ranges.retain(|range| !range.is_empty());
    ranges.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<u64>> = Vec::with_capacity(ranges.len());
    for range in ranges {
        match joined.last_mut() {
            Some(last) if range.start <= last.end => last.end = last.end.max(range.end),
            _ => joined.push(range),
        }
    }
    joined
}

/// The part of `ranges` within `start..start + rows`, counted from `start`.
pub(super) fn window(ranges: &[Range<u64>], start: u64, rows: u64) -> Vec<Range<u64>> {
    let inside = intersect(ranges, std::slice::from_ref(&(start..start.saturating_add(rows))));
    inside.into_iter().map(|range| range.start - start..range.end - start).collect()
}

/// Number of rows.
pub(super) fn count(ranges: &[Range<u64>]) -> u64 {
    ranges.iter().map(|range| range.end - range.start).sum()
}

/// The rows as Parquet selects them, `None` for all of `rows`.
pub(super) fn selection(ranges: &[Range<u64>], rows: u64) -> Option<RowSelection> {
    if count(ranges) == rows {
        return None;
    }
    let length = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    let mut selectors = Vec::with_capacity(ranges.len() * 2);
    let mut at = 0;
    for range in ranges {
        selectors.push(RowSelector::skip(length(range.start - at)));
        selectors.push(RowSelector::select(length(range.end - range.start)));
        at = range.end;
    }
    Some(RowSelection::from(selectors))
}

#[cfg(test)]
#[allow(clippy::single_range_in_vec_init, reason = "sets of one range")]
mod tests {
    use super::*;

    #[test]
    fn intersections() {
        assert_eq!(intersect(&[0..10, 20..30], &[5..25]), [5..10, 20..25]);
        assert_eq!(intersect(&[0..1, 2..3], &[1..2]), [] as [Range<u64>; 0]);
        assert_eq!(window(&[0..5, 8..12], 4, 6), [0..1, 4..6]);
        assert_eq!(normalize(vec![5..6, 0..2, 1..3, 3..4, 9..9]), [0..4, 5..6]);
        assert_eq!(count(&[0..2, 5..6]), 3);
        assert!(selection(&[0..2, 2..6], 6).is_none());
    }
}
