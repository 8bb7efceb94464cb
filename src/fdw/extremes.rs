//! What the catalog answers by itself: how many rows there are, and the lowest and highest values of their columns.
//!
//! `count(*)`, `min` and `max` make no difference between the rows of an object and these: one with the lowest values, one with the
//! highest, and rows of NULLs up to their number (`BaseRel::is_asked_for_extremes_only`).

use super::archive::Archive;
use super::prune::{RangedColumn, Versions};
use crate::catalog::object::ArchivedObject;
use crate::pg::constant::Constant;
use crate::pg::guc::GucNest;
use crate::pg::row::RowBuffer;

/// The rows that stand for those of a partition.
#[derive(Debug)]
pub(super) struct Extremes {
    objects: Vec<Stand>,
    /// The object, and the row of it that comes next.
    at: (usize, u64),
}

/// The rows that stand for those of an object.
#[derive(Debug)]
struct Stand {
    rows: u64,
    /// Index of each column, with its lowest and highest value.
    columns: Vec<(usize, Option<(Constant, Constant)>)>,
}

impl Extremes {
    /// Those of these attributes; `None` when the catalog does not know one of them in one of the objects. Keeps values in the current
    /// memory context.
    pub(super) fn of(archive: &Archive, objects: &[ArchivedObject], attributes: &[i16]) -> Option<Self> {
        let _settings = GucNest::lossless_text();
        let mut versions = Versions::new();
        let columns = attributes.iter().map(|attribute| {
            let column = archive.column(*attribute)?;
            Some((column.index, RangedColumn::new(archive, column, &mut versions)?))
        });
        let columns: Vec<_> = columns.collect::<Option<_>>()?;
        let stand = |object: &ArchivedObject| {
            let known = |(index, column): &(usize, RangedColumn)| {
                let facts = column.facts(object);
                let empty = facts.has_values == Some(false);
                (empty || facts.range.is_some()).then_some((*index, facts.range.filter(|_| !empty)))
            };
            Some(Stand { rows: object.rows, columns: columns.iter().map(known).collect::<Option<_>>()? })
        };
        Some(Self { objects: objects.iter().map(stand).collect::<Option<_>>()?, at: (0, 0) })
    }

    /// Makes the next row; `false` after the last.
    pub(super) fn next_row(&mut self, row: &mut RowBuffer) -> bool {
        while let Some(stand) = self.objects.get(self.at.0) {
            if self.at.1 < stand.rows {
                if self.at.1 <= 2 {
                    stand.make(self.at.1, row);
                }
                self.at.1 += 1;
                return true;
            }
            self.at = (self.at.0 + 1, 0);
        }
        false
    }

    /// Begins anew.
    pub(super) fn rewind(&mut self) {
        self.at = (0, 0);
    }
}

impl Stand {
    /// Row 0 has the lowest values, row 1 the highest, row 2 and those after it have none.
    fn make(&self, number: u64, row: &mut RowBuffer) {
        for (index, range) in &self.columns {
            let value = match number {
                0 => range.map(|(low, _)| low),
                1 => range.map(|(_, high)| high),
                _ => None,
            };
            row.put(*index, value);
        }
    }
}
