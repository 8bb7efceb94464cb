//! Which rows are taken out of an archive whose rows are counted through all its objects.

use std::collections::BTreeMap;
use std::ops::Range;

/// Rows that are taken, one bit for each row of the objects that have such.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TakenRows {
    /// Number of the first row of each object, and at the end that of all rows.
    first: Vec<u64>,
    taken: BTreeMap<usize, Taken>,
}

/// The rows taken of one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    bits: Vec<u64>,
    count: u64,
    rows: u64,
}

impl TakenRows {
    /// Nothing is taken yet of objects with so many rows each.
    pub fn of_objects(rows: impl IntoIterator<Item = u64>) -> Self {
        let mut first = vec![0];
        let mut all = 0;
        for rows in rows {
            all += rows;
            first.push(all);
        }
        Self { first, taken: BTreeMap::new() }
    }

    /// Takes row `number`, counted through all objects; whether there is such a row that was not taken before.
    pub fn take(&mut self, number: u64) -> bool {
        let object = self.first.partition_point(|first| *first <= number).saturating_sub(1);
        let Some(Range { start, end }) = self.rows_of(object) else { return false };
        let taken = self.taken.entry(object).or_insert_with(|| Taken::none_of(end - start));
        taken.take(number - start)
    }

    fn rows_of(&self, object: usize) -> Option<Range<u64>> {
        Some(*self.first.get(object)?..*self.first.get(object + 1)?)
    }

    /// Whether nothing is taken.
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }

    /// The objects of which rows are taken, by their place, and these rows.
    pub fn objects(&self) -> impl Iterator<Item = (usize, &Taken)> {
        self.taken.iter().map(|(object, taken)| (*object, taken))
    }
}

impl Taken {
    fn none_of(rows: u64) -> Self {
        let words = usize::try_from(rows.div_ceil(64)).unwrap_or(usize::MAX);
        Self { bits: vec![0; words], count: 0, rows }
    }

    fn take(&mut self, row: u64) -> bool {
        let Some(word) = self.bits.get_mut((row / 64) as usize) else { return false };
        let bit = 1 << (row % 64);
        let new = *word & bit == 0;
        *word |= bit;
        self.count += u64::from(new);
        new
    }

    /// Whether this row of the object, from 0, is taken.
    pub fn contains(&self, row: u64) -> bool {
        self.bits.get((row / 64) as usize).is_some_and(|word| word & 1 << (row % 64) != 0)
    }

    /// How many are taken.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Whether none is left.
    pub fn is_everything(&self) -> bool {
        self.count == self.rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_counted_through_the_objects() {
        let mut taken = TakenRows::of_objects([3, 0, 70]);
        for number in [2, 3, 72] {
            assert!(taken.take(number));
        }
        assert!(!taken.take(2), "taken before");
        assert!(!taken.take(73), "there is none");
        let objects: Vec<_> = taken.objects().map(|(object, taken)| (object, taken.count())).collect();
        assert_eq!(objects, [(0, 1), (2, 2)]);
        let (_, last) = taken.objects().last().unwrap();
        let rows: Vec<_> = (0..70).filter(|row| last.contains(*row)).collect();
        assert_eq!(rows, [0, 69]);
        assert!(!last.is_everything() && !last.contains(70) && !last.contains(700));
    }

    #[test]
    fn an_object_may_be_taken_as_a_whole() {
        let mut taken = TakenRows::of_objects([2, 1]);
        assert!(taken.take(0) && taken.take(1));
        assert!(taken.objects().all(|(object, taken)| object == 0 && taken.is_everything()));
        assert!(!TakenRows::of_objects([]).take(0));
    }
}
