//! Planning: size, paths and the plan of a scan.

use std::ffi::CString;

use pgrx::pg_sys;

use super::archive::Archive;
use super::estimates::KnownArchive;
use super::key_filter::{self, Lookup};
use super::prune::{self, FilePruner};
use super::pushdown::{self, Condition, PlanData};
use crate::catalog::object::ArchivedObject;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::clause::{Clause, Expression};
use crate::pg::planner::{self, BaseRel, Needed, Parameterisation, PathCost};

const BLOCK_BYTES: u64 = 8192;

/// Cost of opening an object and reading its footer, in units of `seq_page_cost`: a round trip to the store.
const FILE_COST: f64 = 100.0;

/// Cost of asking the key filter of an object, in units of `seq_page_cost`.
const FILTER_COST: f64 = 0.5;

/// Bytes of an object before the catalog was asked.
const TYPICAL_OBJECT: u64 = 512 << 20;

/// How much of a full scan one scan with values from an outer row is expected to cost. Ranges of objects, row groups and
/// pages help, but how much is not known; a hash join must win unless outer rows are very few.
const PARAMETERISED_SHARE: f64 = 0.25;

/// What the first callback finds out for the later ones.
#[derive(Debug, Clone, Copy)]
struct Planned {
    columns: usize,
    is_plain: bool,
    reach: Reach,
}

/// The part of the partition that a scan reads.
#[derive(Debug, Clone, Copy)]
struct Reach {
    files: u64,
    rows: u64,
    bytes: u64,
}

/// `GetForeignRelSize`: rows from the catalog times the selectivity of the clauses, never more than the objects that
/// constants leave over hold.
pub(super) fn size(rel: &mut BaseRel, table: pg_sys::Oid) -> Result<()> {
    let known = KnownArchive::of(table)?;
    let archive = known.archive();
    let pages = archive.partition.archived_bytes.div_ceil(BLOCK_BYTES);
    rel.set_size(archive.partition.rows as f64, u32::try_from(pages).unwrap_or(u32::MAX));
    let reach = reach(&known, &rel.restrictions())?;
    rel.limit_rows(reach.rows as f64);
    rel.keep(Planned { columns: archive.columns.len(), is_plain: known.is_plain(), reach });
    Ok(())
}

fn reach(known: &KnownArchive, clauses: &[Clause]) -> Result<Reach> {
    let archive = known.archive();
    let (rows, bytes) = (archive.partition.rows, archive.partition.archived_bytes);
    let (conditions, values) = pushdown::conditions(clauses)?;
    if conditions.is_empty() {
        return Ok(Reach { files: bytes.div_ceil(TYPICAL_OBJECT), rows, bytes });
    }
    let objects = known.objects(prune::fields(archive, pushdown::attributes(&conditions)))?;
    let reach = match &*objects {
        // Whether the only one is ruled out is the selectivity of the conditions, more or less, and not worth the time here.
        [_] => Reach { files: 1, rows, bytes },
        objects => reach_of_several(archive, objects, &conditions, &values),
    };
    let lookup = key_filter::lookup(known, &conditions)?;
    Ok(lookup.map_or(reach, |lookup| reach.limited_to(lookup)))
}

fn reach_of_several(
    archive: &Archive,
    objects: &[ArchivedObject],
    conditions: &[Condition],
    values: &[Expression],
) -> Reach {
    let values: Vec<_> = values.iter().map(Expression::estimate).collect();
    let surviving = match pushdown::bind(conditions, &values) {
        Some(bounds) => FilePruner::new(archive, conditions, objects).surviving(&bounds),
        None => Vec::new(),
    };
    let reached = || surviving.iter().filter_map(|position| objects.get(*position));
    Reach {
        files: surviving.len() as u64,
        rows: reached().map(|object| object.rows).sum(),
        bytes: reached().map(|object| object.bytes).sum(),
    }
}

impl Reach {
    /// What a lookup reads of it, as key filters tell which objects cannot have its keys.
    fn limited_to(self, lookup: Lookup) -> Self {
        let rows = self.rows.min(lookup.keys.saturating_mul(lookup.rows_each));
        let bytes = (self.bytes as f64 * rows as f64 / self.rows.max(1) as f64) as u64;
        Self { files: self.files.min(lookup.keys), rows, bytes }
    }
}

/// `GetForeignPaths`: the plain scan, and scans with values from other relations of the join.
pub(super) fn paths(rel: &mut BaseRel, table: pg_sys::Oid) -> Result<()> {
    let Some(planned) = kept(rel).copied() else { return Ok(()) };
    let mut full = scan_cost(rel, planned, planned.reach);
    if extremes(rel, &rel.restrictions()) {
        // Rows are made, not read.
        let (_, tuple, operator) = planner::cost_units();
        full = PathCost { startup: 0.0, total: planned.reach.rows as f64 * operator.min(tuple), ..full };
    }
    rel.add_path(full, None);
    add_shared(rel, planned, full);
    let usable = |clause: &Clause| pushdown::conditions(&[*clause]).is_ok_and(|(found, _)| !found.is_empty());
    let parameterisations = rel.parameterisations(&usable);
    let known = if parameterisations.is_empty() { None } else { Some(KnownArchive::of(table)?) };
    for with in parameterisations {
        let share = |cost: f64| full.startup + (cost - full.startup) * PARAMETERISED_SHARE;
        let part = PathCost { rows: with.rows(), total: share(full.total), ..full };
        let single = known.as_ref().map(|known| lookup_cost(rel, planned, known, &with)).transpose()?.flatten();
        let best = single.filter(|single| single.total < part.total).unwrap_or(part);
        rel.add_path(best, Some(with));
    }
    Ok(())
}

/// The scan that processes share. Where the rows' places are asked for they are counted in one process, and what the catalog answers
/// is not divided.
fn add_shared(rel: &mut BaseRel, planned: Planned, full: PathCost) {
    let workers = rel.parallel_workers(planned.reach.bytes.div_ceil(BLOCK_BYTES) as f64);
    if workers == 0 || !planned.is_plain {
        return;
    }
    let clauses = rel.restrictions();
    if !rel.needs_places(&clauses) && !extremes(rel, &clauses) {
        rel.add_partial_path(full, workers);
    }
}

/// The cost of one scan that looks for keys from an outer row, where key filters tell which objects cannot have them.
fn lookup_cost(
    rel: &BaseRel,
    planned: Planned,
    known: &KnownArchive,
    with: &Parameterisation,
) -> Result<Option<PathCost>> {
    let mut clauses = rel.restrictions();
    clauses.extend(rel.clauses_with(with));
    let (conditions, _) = pushdown::conditions(&clauses)?;
    let Some(lookup) = key_filter::lookup(known, &conditions)? else { return Ok(None) };
    let cost = scan_cost(rel, planned, planned.reach.limited_to(lookup));
    let asked = planned.reach.rows.div_ceil(lookup.rows_each) as f64 * FILTER_COST * planner::cost_units().0;
    Ok(Some(PathCost { rows: with.rows(), startup: cost.startup + asked, total: cost.total + asked }))
}

/// Whether the catalog may have the answer: what is asked are rows without values, or extremes.
fn extremes(rel: &BaseRel, clauses: &[Clause]) -> bool {
    let no_values = || rel.needed(clauses) == Needed::Some(Vec::new());
    guc::enable_catalog_answers() && !rel.needs_places(clauses) && (no_values() || rel.is_asked_for_extremes_only())
}

fn scan_cost(rel: &BaseRel, planned: Planned, reach: Reach) -> PathCost {
    let share = match &rel.needed(&rel.restrictions()) {
        Needed::All => 1.0,
        Needed::Some(columns) => columns.len() as f64 / planned.columns.max(1) as f64,
    };
    let (page, tuple, _) = planner::cost_units();
    let (startup, per_row) = rel.restriction_cost();
    let startup = startup + if reach.files > 0 { FILE_COST * page } else { 0.0 };
    let files = FILE_COST * page * reach.files.saturating_sub(1) as f64;
    let pages = reach.bytes.div_ceil(BLOCK_BYTES) as f64 * share * page;
    let rows = reach.rows as f64 * (tuple + per_row);
    PathCost { rows: rel.rows(), startup, total: startup + files + pages + rows }
}

#[allow(unsafe_code)]
fn kept(rel: &BaseRel) -> Option<&Planned> {
    // SAFETY: `size` keeps a Planned, and nothing else keeps anything.
    unsafe { rel.kept() }
}

/// What the plan carries and the expressions that the executor evaluates for it.
pub(super) fn data(rel: &BaseRel, clauses: &[Clause]) -> Result<(CString, Vec<Expression>)> {
    let (conditions, values) = pushdown::conditions(clauses)?;
    let columns = match rel.needed(clauses) {
        Needed::All => None,
        Needed::Some(columns) => Some(columns),
    };
    let places = rel.needs_places(clauses);
    let text = PlanData { extremes: extremes(rel, clauses), columns, conditions, places }.to_text()?;
    let text = CString::new(text)
        .map_err(|_| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "plan of an archive scan holds a NUL byte"))?;
    Ok((text, values))
}
