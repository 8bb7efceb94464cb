//! The lowest and the highest value of each column, by object.

use archive_core::codec::{Extremes, Flushed, ObjectFormat};
use archive_core::manifest::ColumnRange;

use super::ExportSource;
use crate::catalog;
use crate::error::Result;
use crate::pg::columns;
use crate::pg::compare::RangeTracker;
use crate::pg::memory::MemoryContext;
use crate::pg::row::Row;

/// Ranges of each column, split by the object that each batch went to.
pub(super) struct Ranges<'a> {
    source: &'a ExportSource,
    columns: Vec<Column>,
    /// Those of `columns` whose values have to be looked at row by row.
    by_row: Vec<usize>,
    objects: Vec<Vec<ColumnRange>>,
    current: u32,
    /// Where the trackers keep values.
    memory: MemoryContext,
}

struct Column {
    /// Its position in the source.
    index: usize,
    field_id: i32,
    collation: Option<String>,
    collation_version: Option<String>,
    tracker: RangeTracker,
    /// Whether each batch tells its extremes, outliers aside.
    told_by_batches: bool,
}

impl<'a> Ranges<'a> {
    /// Trackers of the columns that have a useful order.
    pub(super) fn new(source: &'a ExportSource, format: ObjectFormat) -> Self {
        let fields = source.columns.iter().zip(&source.schema.fields).enumerate();
        let columns = fields.filter_map(|(index, (column, field))| {
            // Rows written again as they were archived may be tracked in another collation than they were then.
            let same = columns::field(column, field.id).is_ok_and(|now| now.collation == field.collation);
            let collation_version = catalog::collation_version(column.collation);
            // So collations are called that sort by bytes.
            let bytewise = collation_version.as_deref() == Some("");
            let tracker = RangeTracker::new(column, &field.pg_type, bytewise).filter(|_| same)?;
            let told_by_batches = format == ObjectFormat::Parquet
                && tracker.has_the_order_of_batches()
                && Extremes::are_found_in(&field.pg_type);
            let (field_id, collation) = (field.id, field.collation.clone());
            Some(Column { index, field_id, collation, collation_version, tracker, told_by_batches })
        });
        let columns: Vec<_> = columns.collect();
        let by_row = columns.iter().enumerate().filter(|(_, column)| !column.told_by_batches).map(|(at, _)| at);
        Self {
            source,
            by_row: by_row.collect(),
            columns,
            objects: Vec::new(),
            current: 0,
            memory: MemoryContext::new(c"archive_ext ranges"),
        }
    }

    /// Ids of the fields whose extremes the writer is to tell with each batch.
    pub(super) fn of_batches(&self) -> Vec<i32> {
        self.columns.iter().filter(|column| column.told_by_batches).map(|column| column.field_id).collect()
    }

    /// Takes the values of a row into the ranges of the batch that is being filled.
    #[inline]
    pub(super) fn observe(&mut self, row: &Row<'_>) {
        for at in &self.by_row {
            if let Some(column) = self.columns.get_mut(*at) {
                column.tracker.observe(row, &self.memory);
            }
        }
    }

    /// Takes in a value that goes to a sidecar, so that no batch tells of it. `index` is the position of its column in the source.
    pub(super) fn observe_outlier(&mut self, index: usize, row: &Row<'_>) {
        let column = self.columns.iter_mut().find(|column| column.index == index && column.told_by_batches);
        if let Some(column) = column {
            column.tracker.observe(row, &self.memory);
        }
    }

    /// The batch is complete; which object it goes to is known later.
    pub(super) fn hand_over(&mut self) {
        for column in &mut self.columns {
            column.tracker.hand_over();
        }
    }

    /// The first batch that is complete is in its object.
    pub(super) fn flushed(&mut self, flushed: &Flushed) -> Result<()> {
        if flushed.ordinal != self.current {
            self.close_object();
            self.current = flushed.ordinal;
        }
        for column in &mut self.columns {
            column.tracker.merge_batch();
        }
        flushed.extremes.iter().try_for_each(|extremes| self.merge(extremes))
    }

    fn merge(&mut self, extremes: &Extremes) -> Result<()> {
        let Some(column) = self.columns.iter_mut().find(|column| column.field_id == extremes.field_id()) else {
            return Ok(());
        };
        let (Some((low, high)), Some(io)) = (extremes.ends()?, self.source.io.get(column.index)) else {
            column.tracker.merge_unknown();
            return Ok(());
        };
        self.memory.within(|| {
            match (io.datum(&low)?, io.datum(&high)?) {
                (Some(low), Some(high)) => column.tracker.merge(low, high),
                _ => column.tracker.merge_unknown(),
            }
            Ok(())
        })
    }

    fn close_object(&mut self) {
        let ranges = self.columns.iter_mut().filter_map(|column| {
            let (min, max) = column.tracker.take_object()?;
            Some(ColumnRange {
                field_id: column.field_id,
                min,
                max,
                collation: column.collation.clone(),
                collation_version: column.collation_version.clone(),
            })
        });
        let ranges = ranges.collect();
        let at = self.current as usize;
        self.objects.resize_with(self.objects.len().max(at + 1), Vec::new);
        if let Some(object) = self.objects.get_mut(at) {
            *object = ranges;
        }
    }

    /// The ranges of each object, by ordinal.
    pub(super) fn finish(mut self) -> Vec<Vec<ColumnRange>> {
        self.close_object();
        self.objects
    }
}
