//! Heap to objects: one pass over the rows, bounded memory.

mod archived;
mod batch;
mod ranges;
mod sink;
mod sorted;
mod source;

use std::collections::VecDeque;

use archive_core::codec::{
    Appended, Digest, Flushed, KeyFilter, ObjectFormat, ObjectSink, ObjectSummary, PartitionWriter, RowHasher,
    WriterOptions,
};
use archive_core::manifest::{ColumnRange, ManifestObject};
use archive_core::store::BlockingStore;

pub use archived::{ArchivedWriter, hash_archived};
pub use batch::{Packed, pack};
pub use sink::StoreSink;
pub use sorted::sorted;
pub use source::ExportSource;

use self::ranges::Ranges;

use crate::error::Result;
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::io;
use crate::pg::row::Row;
use crate::pg::scan::TableScan;
use crate::pg::snapshot::LatestSnapshot;
use crate::pg::tuple_id::TupleId;

/// What an export wrote.
#[derive(Debug)]
pub struct Exported {
    /// The objects in order.
    pub objects: Vec<ManifestObject>,
    /// Digest of every row, taken from the datums.
    pub digest: Digest,
    /// Where the first row of each object is.
    pub positions: Vec<TupleId>,
    /// The key filter of each object, where it has one.
    pub filters: Vec<Option<KeyFilter>>,
}

impl Exported {
    /// No objects yet.
    pub fn nothing(digest: Digest) -> Self {
        Self { objects: Vec::new(), digest, positions: Vec::new(), filters: Vec::new() }
    }
}

/// What objects are written as.
#[derive(Debug, Clone, Default)]
pub struct Objects {
    /// They get filters of the keys over the columns with these ids.
    pub filter_fields: Vec<i32>,
    /// Their format.
    pub format: ObjectFormat,
}

/// Rows of a table by their places, the second excluded.
pub type Places = (TupleId, TupleId);

/// All rows.
pub const EVERYWHERE: Places = (TupleId::FIRST, TupleId::END);

/// Called every few thousand rows with rows and bytes so far.
pub type Tick<'a> = &'a mut dyn FnMut(u64, u64);

/// Rows between two calls of [`Tick`].
const TICK_ROWS: u64 = 4096;

/// Writes every row of a table that is visible now to objects named by `key`.
pub fn export_objects(
    source: &ExportSource,
    objects: &Objects,
    store: &BlockingStore,
    key: &dyn Fn(u32) -> String,
) -> Result<Exported> {
    source.as_owner(|| export_as_owner(source, EVERYWHERE, objects, store, key, &mut |_, _| ()))
}

/// Writes every row at `places` that is visible now to objects named by `key`. The partition is frozen by then.
pub fn export(
    source: &ExportSource,
    places: Places,
    store: &BlockingStore,
    key: impl Fn(u32) -> String,
    tick: Tick<'_>,
) -> Result<Exported> {
    source.as_owner(|| export_as_owner(source, places, &Objects::default(), store, &key, tick))
}

fn export_as_owner(
    source: &ExportSource,
    places: Places,
    objects: &Objects,
    store: &BlockingStore,
    key: &dyn Fn(u32) -> String,
    tick: Tick<'_>,
) -> Result<Exported> {
    let snapshot = LatestSnapshot::take();
    let _text = GucNest::lossless_text();
    let mut export = Export::new(source, objects.clone(), StoreSink::new(store, key))?;
    let mut scan = scan(source, &snapshot, places);
    while let Some(result) = scan.next_row(|row| export.row(&row)) {
        result?;
        export.batch_begins.get_or_insert(scan.place());
        if export.writer.is_full() {
            // A huge value is in the batch by now; its datum need not wait in memory until the batch is encoded.
            scan.release_row();
            export.flush()?;
        }
        export.tick(tick);
    }
    export.finish()
}

fn scan<'a>(source: &'a ExportSource, snapshot: &'a LatestSnapshot, places: Places) -> TableScan<'a> {
    if places == EVERYWHERE {
        return TableScan::begin(&source.relation, snapshot);
    }
    TableScan::begin_range(&source.relation, snapshot, places.0, places.1)
}

/// The digests of the rows at each of `places` that are visible now, without writing anything.
pub fn digests(source: &ExportSource, places: &[Places], tick: Tick<'_>) -> Result<Vec<Digest>> {
    source.as_owner(|| digests_as_owner(source, places, tick))
}

fn digests_as_owner(source: &ExportSource, places: &[Places], tick: Tick<'_>) -> Result<Vec<Digest>> {
    let snapshot = LatestSnapshot::take();
    let _text = GucNest::lossless_text();
    let mut rows = 0;
    let mut digests = Vec::with_capacity(places.len());
    for places in places {
        let mut hasher = RowHasher::new(&source.schema);
        let mut scan = scan(source, &snapshot, *places);
        while let Some(result) = scan.next_row(|row| hash_row(source, &mut hasher, &row)) {
            result?;
            rows += 1;
            if u64::is_multiple_of(rows, TICK_ROWS) {
                tick(rows, 0);
            }
        }
        digests.push(hasher.digest());
    }
    Ok(digests)
}

/// The digest of no rows.
pub fn no_rows(source: &ExportSource) -> Digest {
    RowHasher::new(&source.schema).digest()
}

/// Adds one row to a digest. Needs [`GucNest::lossless_text`]: some values are hashed as text.
pub fn hash_row(source: &ExportSource, hasher: &mut RowHasher, row: &Row<'_>) -> Result<()> {
    for (index, io) in source.io.iter().enumerate() {
        io.visit(row, |value| hasher.column(index, value))?;
    }
    hasher.end_row();
    Ok(())
}

fn writer_options(source: &ExportSource) -> WriterOptions {
    WriterOptions {
        row_group_rows: guc::row_group_rows(),
        row_group_bytes: guc::row_group_bytes(),
        object_bytes: guc::object_bytes(),
        bloom_fields: source.key_fields.clone(),
        created_by: concat!("archive_ext ", env!("CARGO_PKG_VERSION")).to_owned(),
        ..WriterOptions::default()
    }
}

struct Export<'a, S> {
    source: &'a ExportSource,
    writer: PartitionWriter<S>,
    ranges: Ranges<'a>,
    /// Where the first row of the batch is that is being filled.
    batch_begins: Option<TupleId>,
    /// The same of batches that are being encoded.
    begun: VecDeque<Option<TupleId>>,
    positions: Vec<TupleId>,
}

/// What was written, the ranges of each object, the sink, and the digest of all rows.
type Parts<S> = (Vec<ObjectSummary>, Vec<Vec<ColumnRange>>, S, Digest);

impl<'a, S: ObjectSink> Export<'a, S> {
    fn new(source: &'a ExportSource, objects: Objects, sink: S) -> Result<Self> {
        let Objects { filter_fields, format } = objects;
        let ranges = Ranges::new(source, format);
        let range_fields = ranges.of_batches();
        let options = WriterOptions { filter_fields, format, range_fields, ..writer_options(source) };
        let writer = PartitionWriter::new(source.schema.clone(), options, sink)?;
        Ok(Self {
            source,
            writer: writer.encoding_in(io::background()?),
            ranges,
            batch_begins: None,
            begun: VecDeque::new(),
            positions: Vec::new(),
        })
    }

    fn tick(&self, tick: Tick<'_>) {
        if self.writer.rows().is_multiple_of(TICK_ROWS) {
            tick(self.writer.rows(), self.writer.bytes_written());
        }
    }

    fn row(&mut self, row: &Row<'_>) -> Result<()> {
        for (index, io) in self.source.io.iter().enumerate() {
            if io.visit(row, |value| self.writer.append(index, value))?? == Appended::NeedsText {
                self.writer.append_text(index, &io.text(row))?;
                self.ranges.observe_outlier(index, row);
            }
        }
        self.ranges.observe(row);
        self.writer.end_row()?;
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        self.hand_over();
        for flushed in self.writer.flush()? {
            self.note(&flushed)?;
        }
        Ok(())
    }

    /// The batch is complete; which object it goes to is known later.
    fn hand_over(&mut self) {
        self.begun.push_back(self.batch_begins.take());
        self.ranges.hand_over();
    }

    fn note(&mut self, flushed: &Flushed) -> Result<()> {
        let first = self.begun.pop_front().flatten();
        note(&mut self.ranges, &mut self.positions, first, flushed)
    }

    fn into_parts(self) -> Result<Parts<S>> {
        self.into_parts_and_positions().map(|(parts, _)| parts)
    }

    fn into_parts_and_positions(mut self) -> Result<(Parts<S>, Vec<TupleId>)> {
        self.hand_over();
        let (summaries, last, sink) = self.writer.finish()?;
        for (flushed, first) in last.iter().zip(self.begun) {
            note(&mut self.ranges, &mut self.positions, first, flushed)?;
        }
        let mut digest = RowHasher::new(&self.source.schema).digest();
        summaries.iter().for_each(|summary| digest.merge(&summary.digest));
        Ok(((summaries, self.ranges.finish(), sink, digest), self.positions))
    }
}

impl Export<'_, StoreSink<'_>> {
    fn finish(self) -> Result<Exported> {
        let ((mut summaries, ranges, sink, digest), positions) = self.into_parts_and_positions()?;
        let filters = summaries.iter_mut().map(|summary| summary.key_filter.take()).collect();
        let mut objects = Vec::with_capacity(summaries.len());
        for (summary, key) in summaries.iter().zip(sink.into_keys()) {
            let ranges = ranges.get(summary.ordinal as usize).cloned().unwrap_or_default();
            objects.push(ManifestObject::new(key, summary, ranges));
        }
        Ok(Exported { objects, digest, positions, filters })
    }
}

/// A batch that begins at `first` went to an object; the first of each tells where the object begins.
fn note(
    ranges: &mut Ranges<'_>,
    positions: &mut Vec<TupleId>,
    first: Option<TupleId>,
    flushed: &Flushed,
) -> Result<()> {
    positions.extend(first.filter(|_| flushed.ordinal as usize == positions.len()));
    ranges.flushed(flushed)
}
