//! The independent read-back (P2): every object through fresh requests, decoded by the code that serves queries, hashed again, and
//! compared with what the export hashed. Datums are made where the codec does not know for sure what they would be
//! ([`crate::pg::datum::ColumnIo::is_read_as`]), and of all values by `deep`.

use archive_core::codec::{Decoded, DecodedBatch, ObjectReader, RowHasher, ScanOptions};
use archive_core::manifest::{Manifest, ManifestObject};
use archive_core::schema::TableSchema;
use archive_core::store::BlockingStore;

use super::plan::Verify;
use super::progress::{Phase, Progress};
use crate::error::{Error, Result, SqlState};
use crate::export::ExportSource;
use crate::pg::arena::Arena;
use crate::pg::guc::GucNest;
use crate::pg::interrupts;
use crate::pg::memory::MemoryContext;
use crate::pg::row::{Row, RowBuffer};
use crate::pg::scan::TableScan;
use crate::pg::snapshot::LatestSnapshot;

/// Rows between two progress reports.
const TICK_ROWS: u64 = 4096;

/// Reads a version back and compares it with its manifest; `deep` also compares each row with the local copy.
///
/// Errors: XX001 with the object, and the columns that differ.
pub fn read_back(
    source: &ExportSource,
    store: &BlockingStore,
    key: &str,
    manifest: &Manifest,
    level: Verify,
    progress: &mut Progress,
) -> Result<()> {
    progress.phase(Phase::Verifying);
    progress.rows_total(manifest.rows);
    if super::manifest::load(store, key)? != *manifest {
        return Err(corrupt(key, "the manifest read back is not the manifest written"));
    }
    let snapshot = LatestSnapshot::take();
    let mut local = (level == Verify::Deep).then(|| TableScan::begin(&source.relation, &snapshot));
    let mut reader = ReadBack::new(source, progress);
    for object in &manifest.objects {
        reader.checksum(store, object)?;
        source.as_owner(|| reader.rows(store, &manifest.schema, object, &mut local))?;
    }
    if local.is_some_and(|mut scan| scan.next_row(|_| ()).is_some()) {
        return Err(corrupt(key, "the local copy has rows that the archive lacks"));
    }
    Ok(())
}

/// Reads objects back, of rows of `schema`, and compares them with what was packed into them.
///
/// Errors: as [`read_back`].
pub fn objects<'o>(
    source: &ExportSource,
    store: &BlockingStore,
    schema: &TableSchema,
    objects: impl Iterator<Item = &'o ManifestObject>,
    progress: &mut Progress,
) -> Result<()> {
    progress.phase(Phase::Verifying);
    let mut reader = ReadBack::new(source, progress);
    for object in objects {
        reader.checksum(store, object)?;
        source.as_owner(|| reader.rows(store, schema, object, &mut None))?;
    }
    Ok(())
}

fn corrupt(key: &str, what: &str) -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive object \"{key}\" failed verification"))
        .detail(format!("{what}."))
        .hint("Nothing was removed locally. Check the storage, then archive the partition again.")
}

struct ReadBack<'a> {
    source: &'a ExportSource,
    memory: MemoryContext,
    rows: u64,
    progress: &'a mut Progress,
}

impl<'a> ReadBack<'a> {
    fn new(source: &'a ExportSource, progress: &'a mut Progress) -> Self {
        Self { source, memory: MemoryContext::new(c"archive_ext read-back"), rows: 0, progress }
    }

    /// The whole object, statistics and indexes included, has the bytes that were written.
    fn checksum(&self, store: &BlockingStore, object: &ManifestObject) -> Result<()> {
        let sha256 = archive_core::codec::sha256_of(&mut store.reader(&object.key, object.bytes))?;
        if sha256 == object.sha256 {
            return Ok(());
        }
        Err(corrupt(&object.key, &format!("its SHA-256 is {sha256}, not {}", object.sha256)))
    }

    fn rows(
        &mut self,
        store: &BlockingStore,
        schema: &TableSchema,
        object: &ManifestObject,
        local: &mut Option<TableScan<'_>>,
    ) -> Result<()> {
        let _text = GucNest::lossless_text();
        let columns = schema.fields.iter().map(|field| field.id).collect();
        let options = ScanOptions { columns, ..ScanOptions::default() };
        let mut reader =
            ObjectReader::open(store.reader(&object.key, object.bytes), object.recorded()?, schema, options)?;
        let mut hasher = RowHasher::new(schema);
        let (mut buffer, mut arena) = (RowBuffer::new(self.source.relation.attribute_count()), Arena::default());
        while let Some(batch) = reader.next_batch()? {
            for at in 0..batch.rows() {
                interrupts::check();
                self.memory.reset();
                arena.reset();
                let whole = local.is_some();
                self.memory.within(|| self.hash(&batch, at, whole, (&mut buffer, &mut arena), &mut hasher))?;
                self.compare(object, &buffer.row(), local)?;
                self.tick(object);
            }
        }
        compare_digests(schema, object, &hasher)
    }

    /// Adds a row to the digest as it would come back. Values are made of the cells where only that tells, or the `whole` row is wanted.
    fn hash(
        &self,
        batch: &DecodedBatch,
        at: usize,
        whole: bool,
        (buffer, arena): (&mut RowBuffer, &mut Arena),
        hasher: &mut RowHasher,
    ) -> Result<()> {
        for (column, io) in self.source.io.iter().enumerate() {
            batch.visit(column, at, |cell| -> Result<()> {
                if whole || !io.is_read_as(cell) {
                    io.write(cell, buffer, arena)?;
                    return io.visit(&buffer.row(), |value| hasher.column(column, value));
                }
                match cell {
                    Decoded::Value(value) => hasher.column(column, Some(value)),
                    _ => hasher.column(column, None),
                }
                Ok(())
            })??;
        }
        hasher.end_row();
        Ok(())
    }

    fn compare(&self, object: &ManifestObject, archived: &Row<'_>, local: &mut Option<TableScan<'_>>) -> Result<()> {
        let Some(scan) = local else { return Ok(()) };
        let difference = scan.next_row(|row| -> Result<Option<usize>> {
            for (column, io) in self.source.io.iter().enumerate() {
                if io.read(&row)? != io.read(archived)? {
                    return Ok(Some(column));
                }
            }
            Ok(None)
        });
        match difference.transpose()? {
            Some(None) => Ok(()),
            Some(Some(column)) => {
                let column = self.source.columns.get(column).map_or("", |column| column.name.as_str());
                let row = self.rows + 1;
                Err(corrupt(&object.key, &format!("row {row} differs from the local copy in column \"{column}\"")))
            }
            None => Err(corrupt(&object.key, "it has rows that the local copy lacks")),
        }
    }

    fn tick(&mut self, object: &ManifestObject) {
        self.rows += 1;
        if self.rows.is_multiple_of(TICK_ROWS) {
            self.progress.tick(self.rows, object.bytes);
        }
    }
}

fn compare_digests(schema: &TableSchema, object: &ManifestObject, hasher: &RowHasher) -> Result<()> {
    let digest = hasher.digest();
    if digest == object.digest {
        return Ok(());
    }
    let columns: Vec<_> = digest
        .differing_columns(&object.digest)
        .iter()
        .filter_map(|id| schema.field(*id))
        .map(|field| format!("\"{}\"", field.name))
        .collect();
    let what = if digest.rows == object.digest.rows {
        format!("its rows differ from those exported, in column {}", columns.join(", "))
    } else {
        format!("it has {} rows instead of {}", digest.rows, object.digest.rows)
    };
    Err(corrupt(&object.key, &what))
}
