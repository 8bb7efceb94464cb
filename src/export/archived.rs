//! Archived rows, written again as they were archived: a label may have another name since, and an object another OID.

use archive_core::codec::{Appended, Decoded, DecodedBatch, RowHasher};
use archive_core::store::BlockingStore;

use super::{Export, ExportSource, Exported, Objects, StoreSink};
use crate::error::Result;
use crate::pg::row::Row;

/// Writes archived rows to objects. Needs [`crate::pg::guc::GucNest::lossless_text`].
pub struct ArchivedWriter<'a>(Export<'a, StoreSink<'a>>);

impl<'a> ArchivedWriter<'a> {
    /// A writer to objects named by `key` from their number.
    pub fn new(
        source: &'a ExportSource,
        objects: Objects,
        store: &'a BlockingStore,
        key: &'a dyn Fn(u32) -> String,
    ) -> Result<Self> {
        Ok(Self(Export::new(source, objects, StoreSink::new(store, key))?))
    }

    /// Adds a row of a batch; `row` are its datums.
    pub fn row(&mut self, batch: &DecodedBatch, at: usize, row: &Row<'_>) -> Result<()> {
        let Self(export) = self;
        for (index, io) in export.source.io.iter().enumerate() {
            batch.visit(index, at, |cell| -> Result<()> {
                let appended = match cell {
                    Decoded::Null => export.writer.append(index, None)?,
                    Decoded::Value(value) => export.writer.append(index, Some(value))?,
                    Decoded::Text(_) => export.writer.append(index, io.read(row)?.as_ref())?,
                };
                match (appended, cell) {
                    (Appended::Stored, _) => return Ok(()),
                    (Appended::NeedsText, Decoded::Text(text)) => export.writer.append_text(index, text)?,
                    (Appended::NeedsText, _) => export.writer.append_text(index, &io.text(row))?,
                }
                export.ranges.observe_outlier(index, row);
                Ok(())
            })??;
        }
        export.ranges.observe(row);
        export.writer.end_row()?;
        if export.writer.is_full() {
            export.flush()?;
        }
        Ok(())
    }

    /// Ends the last object.
    pub fn finish(self) -> Result<Exported> {
        let Self(export) = self;
        let source = export.source;
        source.as_owner(|| export.finish())
    }
}

/// Adds a row of a batch to a digest, as it was archived; `row` are its datums.
pub fn hash_archived(
    source: &ExportSource,
    hasher: &mut RowHasher,
    batch: &DecodedBatch,
    at: usize,
    row: &Row<'_>,
) -> Result<()> {
    for (index, io) in source.io.iter().enumerate() {
        batch.visit(index, at, |cell| -> Result<()> {
            match cell {
                Decoded::Null => hasher.column(index, None),
                Decoded::Value(value) => hasher.column(index, Some(value)),
                Decoded::Text(_) => hasher.column(index, io.read(row)?.as_ref()),
            }
            Ok(())
        })??;
    }
    hasher.end_row();
    Ok(())
}
