//! The rows of an object, one by one.

use archive_core::codec::{DecodedBatch, ObjectReader, ScanOptions};
use archive_core::manifest::ManifestObject;
use archive_core::schema::TableSchema;
use archive_core::store::BlockingStore;

use crate::error::Result;
use crate::export::ExportSource;
use crate::pg::arena::Arena;
use crate::pg::guc::GucNest;
use crate::pg::interrupts;
use crate::pg::memory::MemoryContext;
use crate::pg::row::RowBuffer;

/// A row: the batch it was decoded in, its place there, and its datums.
pub type Visit<'a> = &'a mut dyn FnMut(&DecodedBatch, usize, &RowBuffer) -> Result<()>;

/// Visits the rows of an object of `schema` in order, with the rights of their owner. Datums live until the next row.
pub fn rows(
    source: &ExportSource,
    store: &BlockingStore,
    schema: &TableSchema,
    object: &ManifestObject,
    visit: Visit<'_>,
) -> Result<()> {
    source.as_owner(|| rows_as_owner(source, store, schema, object, visit))
}

fn rows_as_owner(
    source: &ExportSource,
    store: &BlockingStore,
    schema: &TableSchema,
    object: &ManifestObject,
    visit: Visit<'_>,
) -> Result<()> {
    let _text = GucNest::lossless_text();
    let columns = schema.fields.iter().map(|field| field.id).collect();
    let options = ScanOptions { columns, ..ScanOptions::default() };
    let mut reader = ObjectReader::open(store.reader(&object.key, object.bytes), object.recorded()?, schema, options)?;
    let mut memory = MemoryContext::new(c"archive_ext rewritten row");
    let (mut buffer, mut arena) = (RowBuffer::new(source.attributes()), Arena::default());
    while let Some(batch) = reader.next_batch()? {
        for at in 0..batch.rows() {
            interrupts::check();
            memory.reset();
            arena.reset();
            memory.within(|| {
                for (column, io) in source.io.iter().enumerate() {
                    batch.visit(column, at, |cell| io.write(cell, &mut buffer, &mut arena))??;
                }
                visit(&batch, at, &buffer)
            })?;
        }
    }
    Ok(())
}
