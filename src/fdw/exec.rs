//! Execution: objects are opened one after the other, as rows are asked for.

use std::cell::RefCell;
use std::rc::Rc;

use archive_core::codec::{DecodedBatch, ObjectReader, Predicate, ReadMetrics, ScanOptions};
use archive_core::store::{BlockingStore, StoreMetrics};

use super::archive::Archive;
use super::extremes::Extremes;
use super::key_filter::KeyFilters;
use super::prune::{self, FilePruner};
use super::pushdown::{self, PlanData};
use super::source::{ObjectSource, RangeCache};
use crate::catalog::object::ArchivedObject;
use crate::catalog::{storage, tier};
use crate::error::Result;
use crate::guc;
use crate::pg::arena::Arena;
use crate::pg::expr::{Evaluated, Expressions};
use crate::pg::foreign_scan::ScanNode;
use crate::pg::reshape::Reshaper;
use crate::pg::row::RowBuffer;
use crate::pg::tuple_id::TupleId;

/// The state of a scan. The query's memory owns it; it holds nothing that must be given back to PostgreSQL.
pub(super) struct Scan {
    archive: Archive,
    plan: PlanData,
    files: Vec<ArchivedObject>,
    /// Place of each object's first row, where places are asked for.
    first_places: Vec<u64>,
    pruner: FilePruner,
    filters: KeyFilters,
    expressions: Expressions,
    decoder: Reshaper,
    row: RowBuffer,
    arena: Arena,
    store: Option<BlockingStore>,
    cache: Option<Rc<RefCell<RangeCache>>>,
    run: Option<Run>,
    /// What the catalog answers by itself.
    extremes: Option<Extremes>,
    /// Objects left over by the values known last.
    planned: usize,
    done: Totals,
}

/// One pass over the objects, begun with the first row that is asked for.
struct Run {
    files: std::vec::IntoIter<usize>,
    predicates: Vec<Predicate>,
    reader: Option<ObjectReader<ObjectSource>>,
    batch: Option<DecodedBatch>,
    /// Next row of the batch.
    at: usize,
    /// Place of that row among all rows of the archive, as long as none is skipped within an object.
    next_place: u64,
}

/// What was done so far, for EXPLAIN.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) read: ReadMetrics,
}

/// `BeginForeignScan`: reads the catalog, never the storage.
pub(super) fn begin(node: &mut ScanNode<Scan>, explain_only: bool) -> Result<()> {
    let plan = PlanData::from_text(&node.plan_data())?;
    let archive = Archive::of(node.relation())?;
    if !explain_only {
        archive.refuse_older_snapshot()?;
    }
    // A plan may be older than the setting.
    let by_catalog = plan.extremes && guc::enable_catalog_answers();
    let asked = plan.columns.as_deref().filter(|_| by_catalog).unwrap_or_default();
    let looked_at = pushdown::attributes(&plan.conditions).chain(asked.iter().copied());
    let files = archive.objects(&prune::fields(&archive, looked_at))?;
    let extremes = if by_catalog { Extremes::of(&archive, &files, asked) } else { None };
    let pruner = FilePruner::new(&archive, &plan.conditions, &files);
    // What cannot be read can still be explained.
    let decoder = if explain_only { archive.lenient_reshaper()? } else { archive.reshaper(plan.columns.as_deref())? };
    let expressions = node.prepare_expressions();
    let row = RowBuffer::new(archive.attributes);
    let planned = if extremes.is_some() { 0 } else { files.len() };
    let (store, cache, run, done) = (None, None, None, Totals::default());
    let filters = KeyFilters::default();
    let first_places = if plan.places { first_places(&files) } else { Vec::new() };
    let mut scan = Scan {
        archive,
        plan,
        files,
        first_places,
        pruner,
        filters,
        expressions,
        decoder,
        row,
        arena: Arena::default(),
        store,
        cache,
        run,
        extremes,
        planned,
        done,
    };
    if explain_only && scan.extremes.is_none() {
        let values = scan.expressions.evaluate_at_start();
        scan.planned = scan.select(&values)?.map_or(0, |(files, _)| files.len());
    }
    node.keep(scan);
    Ok(())
}

fn first_places(files: &[ArchivedObject]) -> Vec<u64> {
    let count = |next: &mut u64, file: &ArchivedObject| Some(std::mem::replace(next, *next + file.rows));
    files.iter().scan(0, count).collect()
}

impl Scan {
    /// The next row, whose values live until the one after it and in the current memory context; with its place, if the query asks for
    /// that.
    pub(super) fn next_row(&mut self) -> Result<Option<(&RowBuffer, Option<TupleId>)>> {
        if let Some(extremes) = &mut self.extremes {
            return Ok(extremes.next_row(&mut self.row).then_some((&self.row, None)));
        }
        // The values of the last row are nobody's any more.
        self.arena.reset();
        if let Some(run) = &mut self.run
            && let Some(batch) = run.batch.as_ref().filter(|batch| run.at < batch.rows())
        {
            self.decoder.decode(batch, run.at, &mut self.row, &mut self.arena, None)?;
            let place = self.plan.places.then(|| TupleId::of_number(run.next_place));
            run.at += 1;
            run.next_place += 1;
            return Ok(Some((&self.row, place)));
        }
        let mut run = match self.run.take() {
            Some(run) => run,
            None => self.start()?,
        };
        let found = self.advance(&mut run)?;
        let place = self.plan.places.then(|| TupleId::of_number(run.next_place.saturating_sub(1)));
        self.run = Some(run);
        Ok(found.then_some((&self.row, place)))
    }

    /// Fills `self.row` with the next row, opening objects as needed. On an error the run is dropped.
    fn advance(&mut self, run: &mut Run) -> Result<bool> {
        loop {
            if let Some(batch) = run.batch.as_ref().filter(|batch| run.at < batch.rows()) {
                self.decoder.decode(batch, run.at, &mut self.row, &mut self.arena, None)?;
                run.at += 1;
                run.next_place += 1;
                return Ok(true);
            }
            // The old batch is freed before the next one is read.
            run.batch = None;
            run.at = 0;
            if run.reader.is_none() && !self.open_next(run)? {
                return Ok(false);
            }
            if let Some(reader) = &mut run.reader {
                let next = reader.next_batch();
                if next.is_err() {
                    reader.reader().forget();
                }
                run.batch = next?;
            }
            if run.batch.is_none() {
                self.close(run);
            }
        }
    }

    /// Begins a pass with the values that parameters have now.
    fn start(&mut self) -> Result<Run> {
        let values = self.expressions.evaluate();
        let (files, predicates) = self.select(&values)?.unwrap_or_default();
        self.planned = files.len();
        Ok(Run { files: files.into_iter(), predicates, reader: None, batch: None, at: 0, next_place: 0 })
    }

    /// Objects to read and predicates on their rows. `None` when no row can match.
    fn select(&mut self, values: &[Evaluated]) -> Result<Option<(Vec<usize>, Vec<Predicate>)>> {
        let Some(bounds) = pushdown::bind(&self.plan.conditions, values) else { return Ok(None) };
        let files = self.pruner.surviving(&bounds);
        let predicates = pushdown::predicates(&self.archive, &self.plan.conditions, &bounds);
        let files = self.filters.surviving(files, &self.files, &self.archive, &predicates)?;
        Ok(Some((files, predicates)))
    }

    fn open_next(&mut self, run: &mut Run) -> Result<bool> {
        let Some(position) = run.files.next() else { return Ok(false) };
        let Some(file) = self.files.get(position) else { return Ok(false) };
        if self.archive.partition.tier == tier::GLACIER {
            return Err(tier::in_glacier(&self.archive.partition.name));
        }
        if self.store.is_none() {
            self.store = Some(storage::open(&self.archive.partition.storage, self.archive.owner)?);
        }
        let Some(store) = &self.store else { return Ok(false) };
        let mut options = ScanOptions { columns: self.decoder.fields().to_vec(), ..ScanOptions::default() };
        if self.plan.places {
            // Rows are counted, so none may be skipped.
            run.next_place = self.first_places.get(position).copied().unwrap_or_default();
        } else {
            options.predicates.clone_from(&run.predicates);
        }
        run.reader = Some(open(store, file, &self.archive, options, self.cache.clone())?);
        self.done.files += 1;
        Ok(true)
    }

    fn close(&mut self, run: &mut Run) {
        if let Some(reader) = run.reader.take() {
            self.done.add(&reader.metrics());
        }
    }

    /// `ReScanForeignScan`: the next row begins a new pass, with new values.
    pub(super) fn rewind(&mut self) {
        if let Some(extremes) = &mut self.extremes {
            extremes.rewind();
        }
        if let Some(mut run) = self.run.take() {
            self.close(&mut run);
            self.cache.get_or_insert_default();
        }
    }

    /// `EndForeignScan`: frees what is large before the query's memory goes.
    pub(super) fn end(&mut self) {
        self.rewind();
        self.cache = None;
        self.store = None;
    }

    /// The partition and its foreign table.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Objects that are read, and all.
    pub(super) fn planned(&self) -> (usize, usize) {
        (self.planned, self.files.len())
    }

    /// Whether the catalog has the answer.
    pub(super) fn is_answered_by_catalog(&self) -> bool {
        self.extremes.is_some()
    }

    /// Objects that the key filters ruled out.
    pub(super) fn filtered(&self) -> usize {
        self.filters.skipped
    }

    /// What was done so far.
    pub(super) fn totals(&self) -> (Totals, StoreMetrics) {
        let mut totals = self.done;
        if let Some(reader) = self.run.as_ref().and_then(|run| run.reader.as_ref()) {
            totals.add(&reader.metrics());
        }
        (totals, self.store.as_ref().map(BlockingStore::metrics).unwrap_or_default())
    }
}

impl Totals {
    fn add(&mut self, metrics: &ReadMetrics) {
        self.read.row_groups_read += metrics.row_groups_read;
        self.read.row_groups_skipped += metrics.row_groups_skipped;
        self.read.row_groups_skipped_by_bloom += metrics.row_groups_skipped_by_bloom;
        self.read.rows_skipped_by_page_index += metrics.rows_skipped_by_page_index;
        self.read.rows_read += metrics.rows_read;
    }
}

/// Opens an object and checks that it is the one the catalog speaks of.
pub(super) fn open(
    store: &BlockingStore,
    file: &ArchivedObject,
    archive: &Archive,
    options: ScanOptions,
    cache: Option<Rc<RefCell<RangeCache>>>,
) -> Result<ObjectReader<ObjectSource>> {
    let (source, opening) = ObjectSource::new(store.reader(&file.key, file.bytes), file, cache);
    let reader = ObjectReader::open(source, file.recorded()?, &archive.partition.schema, options)?;
    opening.done();
    Ok(reader)
}
