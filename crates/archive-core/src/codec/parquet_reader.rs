//! Reads one Parquet object: footer, pruning, then batches, asking for bytes as they are needed.

use std::collections::{BTreeSet, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::RecordBatch;
use parquet::DecodeResult;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ArrowReaderMetadata;
use parquet::arrow::push_decoder::{ParquetPushDecoder, ParquetPushDecoderBuilder, RowGroupSelection};
use parquet::bloom_filter::Sbbf;
use parquet::file::metadata::{ParquetMetaData, RowGroupMetaData};

use super::bind::{self, Bound, Place};
use super::decode::DecodedBatch;
use super::fetch::fetch;
use super::footer::{Tail, check_counts};
use super::guard::{corrupt, guarded};
use super::predicate::Predicate;
use super::prune::{Prepared, may_match, prepare};
use super::reader::{RangeReader, ReadMetrics, ScanOptions, no_such_field};
use super::reserve::{check_dictionaries, is_compressed};
use super::{rows, stats};
use crate::schema::TableSchema;
use crate::{Error, Result};

/// Reads one object; see the module.
pub(super) struct ParquetReader<R> {
    reader: R,
    size: u64,
    metadata: Arc<ParquetMetaData>,
    decoding: ArrowReaderMetadata,
    /// The columns to decode, in the order asked for.
    columns: Vec<Bound>,
    tests: Vec<ColumnTest>,
    opts: ScanOptions,
    groups: VecDeque<Group>,
    current: Option<Current>,
    metrics: ReadMetrics,
}

/// A test and the column it is about.
#[derive(Debug)]
struct ColumnTest {
    column: Bound,
    test: Prepared,
}

/// A row group that may hold wanted rows; any one where the object is shared.
#[derive(Debug, Clone, Copy)]
struct Group {
    index: usize,
    first_row: u64,
    rows: u64,
    /// By its statistics.
    is_ruled_out: bool,
}

/// The row group being read.
struct Current {
    group: usize,
    rows_left: u64,
    /// `None` when no column is wanted.
    decoder: Option<ParquetPushDecoder>,
}

impl<R: RangeReader> ParquetReader<R> {
    /// Reads the footer of the object and checks that it holds the columns of `schema`.
    pub(super) fn open(mut reader: R, size: u64, schema: &TableSchema, opts: ScanOptions) -> Result<Self> {
        let tail = Tail::read(&mut reader, size)?;
        let mut metadata = Arc::new(tail.metadata(&mut reader)?);
        check_counts(&metadata)?;
        let (bound, file) = bind::bind(&metadata, schema)?;
        let columns = wanted(&bound, &opts.columns)?;
        let tests = column_tests(&bound, &opts.predicates);
        let mut groups = groups(&metadata, &tests);
        let left: Vec<usize> = groups.iter().filter(|group| !group.is_ruled_out).map(|group| group.index).collect();
        let mut skipped = 0;
        // Where readers share the object, the one that takes a row group counts it.
        if opts.share.is_none() {
            skipped = (groups.len() - left.len()) as u64;
            groups.retain(|group| !group.is_ruled_out);
        }
        if !left.is_empty() && (!tests.is_empty() || opts.row_ranges.is_some()) {
            let (tested, read) = leaves(&columns, &tests);
            let owned = Arc::unwrap_or_clone(metadata);
            metadata = Arc::new(tail.page_index(&mut reader, owned, &left, &tested, &read)?);
        }
        Ok(Self {
            reader,
            size,
            decoding: bind::decoding(Arc::clone(&metadata), &file)?,
            metadata,
            columns,
            tests,
            opts,
            groups,
            current: None,
            metrics: ReadMetrics { row_groups_skipped: skipped, ..ReadMetrics::default() },
        })
    }

    /// The next rows, `None` at the end.
    pub(super) fn next_batch(&mut self) -> Result<Option<DecodedBatch>> {
        loop {
            let Some(mut current) = self.current.take() else {
                match self.groups.pop_front() {
                    Some(group) => self.current = self.begin(group)?,
                    None => return Ok(None),
                }
                continue;
            };
            if let Some(batch) = self.advance(&mut current)? {
                self.metrics.rows_read += batch.rows() as u64;
                self.current = Some(current);
                return Ok(Some(batch));
            }
        }
    }

    /// The next rows of the row group, `None` at its end.
    fn advance(&mut self, current: &mut Current) -> Result<Option<DecodedBatch>> {
        let Some(decoder) = &mut current.decoder else {
            let rows = current.rows_left.min(self.opts.max_batch_rows as u64);
            current.rows_left -= rows;
            return Ok((rows > 0).then(|| DecodedBatch::empty(usize::try_from(rows).unwrap_or(usize::MAX))));
        };
        loop {
            match guarded(|| decoder.try_decode())? {
                DecodeResult::NeedsData(ranges) => {
                    let data = fetch(&mut self.reader, self.size, &ranges)?;
                    let group = self.metadata.row_groups().get(current.group);
                    for (range, bytes) in ranges.iter().zip(&data) {
                        check_dictionaries(bytes, group.is_some_and(|group| is_compressed(group, range.start)))?;
                    }
                    guarded(|| decoder.push_ranges(ranges, data))?;
                }
                DecodeResult::Data(batch) => {
                    let left = current.rows_left.checked_sub(batch.num_rows() as u64);
                    current.rows_left = left.ok_or_else(wrong_rows)?;
                    return decoded(&self.columns, &batch).map(Some);
                }
                DecodeResult::Finished if current.rows_left > 0 => return Err(wrong_rows()),
                DecodeResult::Finished => return Ok(None),
            }
        }
    }

    /// Starts on a row group, unless it is another reader's, or page index, bloom filters or the sample rule it out.
    fn begin(&mut self, group: Group) -> Result<Option<Current>> {
        let rows = group.first_row..group.first_row + group.rows;
        if self.opts.share.as_ref().is_some_and(|share| !share.claim(rows)) {
            return Ok(None);
        }
        if group.is_ruled_out {
            self.metrics.row_groups_skipped += 1;
            return Ok(None);
        }
        let matching = self.matching_rows(group);
        if matching.is_empty() && group.rows > 0 || self.blooms_rule_out(group)? {
            self.metrics.row_groups_skipped += 1;
            return Ok(None);
        }
        let selected = match &self.opts.row_ranges {
            Some(sample) => rows::intersect(&matching, &rows::window(sample, group.first_row, group.rows)),
            None => matching.clone(),
        };
        if selected.is_empty() {
            return Ok(None);
        }
        self.metrics.row_groups_read += 1;
        self.metrics.rows_skipped_by_page_index += group.rows - rows::count(&matching);
        let decoder = if self.columns.is_empty() { None } else { Some(self.decoder(group, &selected)?) };
        Ok(Some(Current { group: group.index, rows_left: rows::count(&selected), decoder }))
    }

    /// The rows of the row group whose pages may match every test.
    fn matching_rows(&self, group: Group) -> Vec<Range<u64>> {
        let mut matching: Vec<Range<u64>> = std::iter::once(0..group.rows).collect();
        let Some(metadata) = self.metadata.row_groups().get(group.index) else { return matching };
        for ColumnTest { column, test } in &self.tests {
            let known = stats::group_stats(column, metadata);
            if let Some(rows) = stats::matching_rows(column, test, &known, &self.metadata, group.index) {
                matching = rows::intersect(&matching, &rows::normalize(rows));
            }
        }
        rows::normalize(matching)
    }

    /// Whether a bloom filter shows that no row passes.
    fn blooms_rule_out(&mut self, group: Group) -> Result<bool> {
        let metadata = Arc::clone(&self.metadata);
        let Some(group) = metadata.row_groups().get(group.index) else { return Ok(false) };
        for ColumnTest { column, test } in &self.tests {
            let Some(chunk) = group.columns().get(column.native.leaf) else { continue };
            let asks = stats::asks_bloom(column, test) && !stats::group_stats(column, group).outliers;
            let Some(range) = stats::bloom_range(chunk).filter(|_| asks) else { continue };
            let bytes = fetch(&mut self.reader, self.size, &[range])?.into_iter().next().unwrap_or_default();
            let filter = guarded(|| Sbbf::from_bytes(&bytes))?;
            if !stats::bloom_may_match(&filter, column, test, chunk) {
                self.metrics.row_groups_skipped_by_bloom += 1;
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn decoder(&self, group: Group, selected: &[Range<u64>]) -> Result<ParquetPushDecoder> {
        let selection = RowGroupSelection::new(group.index, rows::selection(selected, group.rows));
        let roots = roots(&self.columns);
        let batch_rows = self.metadata.row_groups().get(group.index).map_or(1, |group| self.batch_rows(group));
        guarded(|| {
            let builder = ParquetPushDecoderBuilder::new_with_metadata(self.decoding.clone());
            let mask = ProjectionMask::roots(builder.parquet_schema(), roots);
            builder.with_batch_size(batch_rows).with_projection(mask).with_row_group_selections(vec![selection]).build()
        })
    }

    /// Rows that decode to about the wanted number of bytes.
    fn batch_rows(&self, group: &RowGroupMetaData) -> usize {
        let places = self.columns.iter().flat_map(|column| [Some(column.native), column.sidecar]).flatten();
        let chunks = places.flat_map(Place::leaves).filter_map(|leaf| group.columns().get(leaf));
        let sizes = chunks.map(|chunk| chunk.uncompressed_size());
        let bytes: u64 = sizes.map(|size| u64::try_from(size).unwrap_or(0)).sum();
        let rows = u64::try_from(group.num_rows()).unwrap_or(0).max(1);
        let per_row = usize::try_from(bytes / rows).unwrap_or(usize::MAX).max(1);
        (self.opts.batch_bytes / per_row).clamp(1, self.opts.max_batch_rows)
    }

    /// What was done so far.
    pub(super) fn metrics(&self) -> ReadMetrics {
        self.metrics
    }

    /// Rows of the object.
    pub(super) fn num_rows(&self) -> u64 {
        u64::try_from(self.metadata.file_metadata().num_rows()).unwrap_or(0)
    }

    /// The source of bytes.
    pub(super) fn reader(&self) -> &R {
        &self.reader
    }

    /// The same, to read from.
    pub(super) fn reader_mut(&mut self) -> &mut R {
        &mut self.reader
    }
}

fn wanted(bound: &[Bound], ids: &[i32]) -> Result<Vec<Bound>> {
    let find = |id: &i32| bound.iter().find(|column| column.field_id == *id).cloned();
    ids.iter().map(|id| find(id).ok_or_else(|| no_such_field(*id))).collect()
}

/// The tests of columns that are known; a test that is left out costs time, never rows.
fn column_tests(bound: &[Bound], predicates: &[Predicate]) -> Vec<ColumnTest> {
    let prepared = predicates.iter().filter_map(|predicate| {
        let column = bound.iter().find(|column| column.field_id == predicate.field_id)?.clone();
        let test = prepare(&predicate.test, &column.pg_type);
        Some(ColumnTest { column, test })
    });
    prepared.filter(|test| test.test != Prepared::Anything).collect()
}

fn groups(metadata: &ParquetMetaData, tests: &[ColumnTest]) -> VecDeque<Group> {
    let mut first_row = 0;
    let mut groups = VecDeque::with_capacity(metadata.num_row_groups());
    for (index, group) in metadata.row_groups().iter().enumerate() {
        let rows = u64::try_from(group.num_rows()).unwrap_or(0);
        let keeps = |test: &ColumnTest| may_match(&test.test, &stats::group_stats(&test.column, group));
        groups.push_back(Group { index, first_row, rows, is_ruled_out: !tests.iter().all(keeps) });
        first_row += rows;
    }
    groups
}

/// Leaves whose column index, and those whose offset index is needed.
fn leaves(columns: &[Bound], tests: &[ColumnTest]) -> (Vec<usize>, Vec<usize>) {
    let tested: Vec<usize> = tests.iter().map(|test| test.column.native.leaf).collect();
    let read = columns.iter().flat_map(|column| [Some(column.native), column.sidecar]).flatten();
    let read = read.flat_map(Place::leaves).chain(tested.iter().copied()).collect();
    (tested, read)
}

/// Positions of the fields to read, ascending.
fn roots(columns: &[Bound]) -> Vec<usize> {
    let places = columns.iter().flat_map(|column| [Some(column.native), column.sidecar]).flatten();
    places.map(|place| place.root).collect::<BTreeSet<_>>().into_iter().collect()
}

fn decoded(columns: &[Bound], batch: &RecordBatch) -> Result<DecodedBatch> {
    let roots = roots(columns);
    let array = |root: usize| {
        let position = roots.binary_search(&root).ok();
        let array = position.filter(|_| roots.len() == batch.num_columns()).and_then(|i| batch.columns().get(i));
        array.cloned().ok_or_else(|| corrupt("object was decoded to other columns than asked for"))
    };
    let columns = columns.iter().map(|column| {
        let sidecar = column.sidecar.map(|place| array(place.root)).transpose()?;
        Ok((column.pg_type.storage(), array(column.native.root)?, sidecar))
    });
    DecodedBatch::new(batch.num_rows(), columns.collect::<Result<_>>()?)
}

fn wrong_rows() -> Error {
    corrupt("a row group holds another number of rows than recorded")
}
