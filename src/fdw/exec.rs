//! Execution: objects are opened one after the other, as rows are asked for. `shared` divides them among the processes of a parallel query.

use std::cell::RefCell;
use std::rc::Rc;

use archive_core::ErrorKind;
use archive_core::codec::{DecodedBatch, ObjectReader, Predicate, ReadMetrics, ScanOptions};
use archive_core::store::{BlockingStore, StoreMetrics};

use super::archive::Archive;
use super::extremes::Extremes;
use super::key_filter::KeyFilters;
use super::prune::{self, FilePruner};
use super::pushdown::{self, PlanData};
use super::shared::Share;
use super::source::{ObjectSource, RangeCache};
use crate::catalog::frozen::{self, Frozen};
use crate::catalog::object::ArchivedObject;
use crate::catalog::partition::ArchivedPartition;
use crate::catalog::storage;
use crate::error::{Error, Result};
use crate::guc;
use crate::pg::arena::Arena;
use crate::pg::expr::{Evaluated, Expressions};
use crate::pg::foreign_scan::ScanNode;
use crate::pg::reshape::Reshaper;
use crate::pg::row::RowBuffer;
use crate::pg::server_text::warning;
use crate::pg::tuple_id::TupleId;
use crate::pg::{executor_start, xact};

/// The state of a scan. The query's memory owns it; it holds nothing that must be given back to PostgreSQL.
pub(super) struct Scan {
    archive: Archive,
    plan: PlanData,
    files: Vec<ArchivedObject>,
    /// Place of each object's first row.
    first_places: Vec<u64>,
    /// What the processes of a parallel query share.
    pub(super) share: Option<Share>,
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
    planned: Planned,
    pub(super) done: Totals,
    /// What the workers of a parallel query did.
    pub(super) others: Totals,
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

/// Objects that are read, as far as that is known, for EXPLAIN.
#[derive(Debug, Clone, Default)]
pub(super) struct Planned {
    /// How many.
    pub(super) files: usize,
    /// Their bytes, with all their columns.
    pub(super) bytes: u64,
    /// Their storage class, where it is one for all of them and not the storage's.
    pub(super) class: Option<String>,
    /// How many of them must be restored first.
    pub(super) frozen: usize,
}

impl Planned {
    fn of<'a>(files: impl Iterator<Item = &'a ArchivedObject>) -> Self {
        let mut planned = Self::default();
        for file in files {
            if planned.files == 0 {
                planned.class.clone_from(&file.class);
            } else if planned.class != file.class {
                planned.class = None;
            }
            planned.files += 1;
            planned.bytes += file.bytes;
            planned.frozen += usize::from(file.frozen.is_some());
        }
        planned
    }
}

/// What was done so far, for EXPLAIN.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Totals {
    pub(super) files: u64,
    pub(super) read: ReadMetrics,
    pub(super) store: StoreMetrics,
}

/// The state of a node: a worker's scan is made of what the leader left for it.
pub(super) enum ScanState {
    /// Nothing was asked of the worker yet.
    Joining(Share),
    /// Rows are read.
    Scanning(Box<Scan>),
}

/// The scan of a node; `None` in a worker that nothing was asked of yet.
pub(super) fn of(node: &mut ScanNode<ScanState>) -> Option<&mut Scan> {
    match node.state() {
        Some(ScanState::Scanning(scan)) => Some(scan),
        Some(ScanState::Joining(_)) | None => None,
    }
}

/// `BeginForeignScan`: reads the catalog, never the storage. Workers wait for what the leader found there.
pub(super) fn begin(node: &mut ScanNode<ScanState>, explain_only: bool) -> Result<()> {
    if node.is_shared() && xact::is_worker() {
        return Ok(());
    }
    let plan = PlanData::from_text(&node.plan_data())?;
    let archive = Archive::of(node.relation())?;
    if !explain_only {
        archive.refuse_older_snapshot()?;
    }
    // A plan may be older than the setting.
    let by_catalog = plan.extremes && !node.is_shared() && guc::enable_catalog_answers();
    let asked = plan.columns.as_deref().filter(|_| by_catalog).unwrap_or_default();
    let looked_at = pushdown::attributes(&plan.conditions).chain(asked.iter().copied());
    let files = archive.objects(&prune::fields(&archive, looked_at))?;
    let extremes = if by_catalog { Extremes::of(&archive, &files, asked) } else { None };
    // What cannot be read can still be explained.
    let decoder = if explain_only { archive.lenient_reshaper()? } else { archive.reshaper(plan.columns.as_deref())? };
    if !explain_only && files.iter().any(|file| file.frozen.is_some()) {
        executor_start::look_at_this();
    }
    let mut scan = Scan::new(plan, archive, files, decoder, node.prepare_expressions());
    scan.extremes = extremes;
    if scan.extremes.is_some() {
        scan.note_planned(&[]);
    } else if explain_only {
        scan.plan_files()?;
    }
    node.keep(ScanState::Scanning(Box::new(scan)));
    Ok(())
}

/// A worker's first row is asked for: its scan, of the archive that the leader found.
pub(super) fn join(node: &mut ScanNode<ScanState>) -> Result<()> {
    let Some(ScanState::Joining(share)) = node.state() else { return Ok(()) };
    let share = share.clone();
    let (partition, files) = share.catalog()?;
    let scan = node.in_query_memory(|| -> Result<Scan> {
        let plan = PlanData::from_text(&node.plan_data())?;
        let archive = Archive::of_leader(node.relation(), partition)?;
        let decoder = archive.reshaper(plan.columns.as_deref())?;
        let mut scan = Scan::new(plan, archive, files, decoder, node.prepare_expressions());
        scan.share = Some(share);
        Ok(scan)
    })?;
    if let Some(state) = node.state() {
        *state = ScanState::Scanning(Box::new(scan));
    }
    Ok(())
}

fn first_places(files: &[ArchivedObject]) -> Vec<u64> {
    let count = |next: &mut u64, file: &ArchivedObject| Some(std::mem::replace(next, *next + file.rows));
    files.iter().scan(0, count).collect()
}

impl Scan {
    /// Keeps values in the current memory context.
    fn new(
        plan: PlanData,
        archive: Archive,
        files: Vec<ArchivedObject>,
        decoder: Reshaper,
        expressions: Expressions,
    ) -> Self {
        Self {
            pruner: FilePruner::new(&archive, &plan.conditions, &files),
            first_places: first_places(&files),
            share: None,
            filters: KeyFilters::default(),
            row: RowBuffer::new(archive.attributes),
            arena: Arena::default(),
            store: None,
            cache: None,
            run: None,
            extremes: None,
            planned: Planned::of(files.iter()),
            done: Totals::default(),
            others: Totals::default(),
            archive,
            plan,
            files,
            decoder,
            expressions,
        }
    }

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
                run.batch = next.map_err(|error| unreadable(&self.archive, error))?;
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
        self.note_planned(&files);
        Ok(Run { files: files.into_iter(), predicates, reader: None, batch: None, at: 0, next_place: 0 })
    }

    /// Finds out which objects are left over by what is known before the first row.
    pub(super) fn plan_files(&mut self) -> Result<()> {
        let values = self.expressions.evaluate_at_start();
        let (files, _) = self.select(&values)?.unwrap_or_default();
        self.note_planned(&files);
        Ok(())
    }

    fn note_planned(&mut self, files: &[usize]) {
        self.planned = Planned::of(files.iter().filter_map(|at| self.files.get(*at)));
    }

    /// What cannot be read of the objects that are needed for certain; `None` where rows of other tables decide about that.
    pub(super) fn frozen_at_start(&mut self) -> Result<Option<Frozen>> {
        if self.extremes.is_some() || !self.expressions.are_known_at_start() {
            return Ok(None);
        }
        let values = self.expressions.evaluate_at_start();
        let (files, _) = self.select(&values)?.unwrap_or_default();
        Ok(Frozen::of(&self.archive.partition, files.iter().filter_map(|at| self.files.get(*at))))
    }

    /// The partition as the catalog has it, and its objects.
    pub(super) fn found(&self) -> (&ArchivedPartition, &[ArchivedObject]) {
        (&self.archive.partition, &self.files)
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
        let first = |position: usize| self.first_places.get(position).copied().unwrap_or_default();
        let taken = |position: usize| {
            let end = first(position) + self.files.get(position).map_or(0, |file| file.rows);
            self.share.as_ref().is_some_and(|share| share.is_past(end))
        };
        let Some(position) = run.files.find(|position| !taken(*position)) else { return Ok(false) };
        let Some(file) = self.files.get(position) else { return Ok(false) };
        if file.frozen.is_some()
            && let Some(frozen) = Frozen::of(&self.archive.partition, self.files.iter())
        {
            return Err(frozen::refusal(&[frozen])?);
        }
        if self.store.is_none() {
            let ArchivedPartition { storage, copies, .. } = &self.archive.partition;
            self.store = Some(storage::open_for_reading(storage, copies.as_deref(), self.archive.owner)?);
        }
        let Some(store) = &self.store else { return Ok(false) };
        let mut options = ScanOptions { columns: self.decoder.fields().to_vec(), ..ScanOptions::default() };
        if self.plan.places {
            // Rows are counted, so none may be skipped.
            run.next_place = first(position);
        } else {
            options.predicates.clone_from(&run.predicates);
        }
        match &self.share {
            Some(share) => options.share = Some(Rc::new(share.part(first(position)))),
            None => self.done.files += 1,
        }
        run.reader = Some(open(store, file, &self.archive, options, self.cache.clone())?);
        Ok(true)
    }

    fn close(&mut self, run: &mut Run) {
        if let Some(reader) = run.reader.take() {
            self.done.add_read(&reader.metrics());
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
        self.warn_of_fallbacks();
        self.cache = None;
        self.store = None;
    }

    fn warn_of_fallbacks(&self) {
        let answers = self.store.as_ref().map_or(0, |store| store.store().fallbacks());
        let ArchivedPartition { name, storage, copies, .. } = &self.archive.partition;
        if let Some(copies) = copies.as_ref().filter(|_| answers > 0) {
            warning!(
                "storage {storage} could not give all of {name}: {answers} answers are from its copies in {copies}; see repair_archive"
            );
        }
    }

    /// The partition and its foreign table.
    pub(super) fn archive(&self) -> &Archive {
        &self.archive
    }

    /// Objects that are read, and how many there are.
    pub(super) fn planned(&self) -> (&Planned, usize) {
        (&self.planned, self.files.len())
    }

    /// Whether the catalog has the answer.
    pub(super) fn is_answered_by_catalog(&self) -> bool {
        self.extremes.is_some()
    }

    /// Objects that the key filters ruled out.
    pub(super) fn filtered(&self) -> usize {
        self.filters.skipped
    }

    /// What was done so far, by this process and by workers that have ended.
    pub(super) fn totals(&self) -> Totals {
        let mut totals = self.done;
        totals.add_read(&self.others.read);
        totals.files += self.others.files + self.share.as_ref().map_or(0, Share::begun);
        if let Some(reader) = self.run.as_ref().and_then(|run| run.reader.as_ref()) {
            totals.add_read(&reader.metrics());
        }
        totals.store = self.store.as_ref().map(BlockingStore::metrics).unwrap_or_default();
        totals.store.requests += self.others.store.requests;
        totals.store.bytes_read += self.others.store.bytes_read;
        totals
    }
}

impl Totals {
    fn add_read(&mut self, metrics: &ReadMetrics) {
        self.read.row_groups_read += metrics.row_groups_read;
        self.read.row_groups_skipped += metrics.row_groups_skipped;
        self.read.row_groups_skipped_by_bloom += metrics.row_groups_skipped_by_bloom;
        self.read.rows_skipped_by_page_index += metrics.rows_skipped_by_page_index;
        self.read.rows_read += metrics.rows_read;
    }
}

/// A restored copy may lapse at any time, and the rules of a bucket may move objects.
fn unreadable(archive: &Archive, error: archive_core::Error) -> Error {
    match error.kind() {
        ErrorKind::NeedsRestore => frozen::lapsed(&archive.partition.name, &error),
        _ => error.into(),
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
    let reader = ObjectReader::open(source, file.recorded()?, &archive.partition.schema, options)
        .map_err(|error| unreadable(archive, error))?;
    opening.done();
    Ok(reader)
}
