//! Planning: size, paths and the plan of a scan.

use std::ffi::CString;

use pgrx::pg_sys;

use super::archive::Archive;
use super::key_filter;
use super::prune::{self, FilePruner};
use super::pushdown::{self, PlanData};
use crate::error::{Error, Result, SqlState};
use crate::pg::clause::{Clause, Expression};
use crate::pg::planner::{self, BaseRel, Needed, PathCost};

const BLOCK_BYTES: u64 = 8192;

/// Cost of opening an object and reading its footer, in units of `seq_page_cost`: a round trip to the store.
const FILE_COST: f64 = 100.0;

/// Bytes of an object before the catalog was asked.
const TYPICAL_OBJECT: u64 = 512 << 20;

/// How much of a full scan one scan with values from an outer row is expected to cost. Ranges of objects, row groups and
/// pages help, but how much is not known; a hash join must win unless outer rows are very few.
const PARAMETERISED_SHARE: f64 = 0.25;

/// What the first callback finds out for the later ones.
#[derive(Debug)]
struct Planned {
    columns: usize,
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
    let archive = Archive::of(table)?;
    let pages = archive.partition.archived_bytes.div_ceil(BLOCK_BYTES);
    rel.set_size(archive.partition.rows as f64, u32::try_from(pages).unwrap_or(u32::MAX));
    let reach = reach(&archive, &rel.restrictions())?;
    rel.limit_rows(reach.rows as f64);
    rel.keep(Planned { columns: archive.columns.len(), reach });
    Ok(())
}

fn reach(archive: &Archive, clauses: &[Clause]) -> Result<Reach> {
    let (rows, bytes) = (archive.partition.rows, archive.partition.archived_bytes);
    let (conditions, values) = pushdown::conditions(clauses)?;
    if conditions.is_empty() {
        return Ok(Reach { files: bytes.div_ceil(TYPICAL_OBJECT), rows, bytes });
    }
    let objects = archive.objects(&prune::fields(archive, &conditions))?;
    let values: Vec<_> = values.iter().map(Expression::estimate).collect();
    let surviving = match pushdown::bind(&conditions, &values) {
        Some(bounds) => FilePruner::new(archive, &conditions, &objects).surviving(&bounds),
        None => Vec::new(),
    };
    let reached = || surviving.iter().filter_map(|position| objects.get(*position));
    let reach = Reach {
        files: surviving.len() as u64,
        rows: reached().map(|object| object.rows).sum(),
        bytes: reached().map(|object| object.bytes).sum(),
    };
    let ids: Vec<i64> = reached().map(|object| object.id).collect();
    let keys = key_filter::expected_keys(archive, &conditions, &ids)?;
    Ok(keys.map_or(reach, |keys| reach.limited_to(keys)))
}

impl Reach {
    /// What is read of it to find so many keys, when key filters tell which objects cannot have them.
    fn limited_to(self, keys: u64) -> Self {
        let files = self.files.min(keys);
        let share = |all: u64| (all * files).div_ceil(self.files.max(1));
        Self { files, rows: share(self.rows), bytes: share(self.bytes) }
    }
}

/// `GetForeignPaths`: the plain scan, and scans with values from other relations of the join.
pub(super) fn paths(rel: &mut BaseRel) {
    let Some(full) = scan_cost(rel) else { return };
    rel.add_path(full, None);
    let usable = |clause: &Clause| pushdown::conditions(&[*clause]).is_ok_and(|(found, _)| !found.is_empty());
    for with in rel.parameterisations(&usable) {
        let share = |cost: f64| full.startup + (cost - full.startup) * PARAMETERISED_SHARE;
        rel.add_path(PathCost { rows: with.rows(), total: share(full.total), ..full }, Some(with));
    }
}

fn scan_cost(rel: &BaseRel) -> Option<PathCost> {
    let needed = rel.needed(&rel.restrictions());
    let planned = kept(rel)?;
    let share = match &needed {
        Needed::All => 1.0,
        Needed::Some(columns) => columns.len() as f64 / planned.columns.max(1) as f64,
    };
    let (page, tuple, _) = planner::cost_units();
    let (startup, per_row) = rel.restriction_cost();
    let reach = planned.reach;
    let startup = startup + if reach.files > 0 { FILE_COST * page } else { 0.0 };
    let files = FILE_COST * page * reach.files.saturating_sub(1) as f64;
    let pages = reach.bytes.div_ceil(BLOCK_BYTES) as f64 * share * page;
    let rows = reach.rows as f64 * (tuple + per_row);
    Some(PathCost { rows: rel.rows(), startup, total: startup + files + pages + rows })
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
    let text = PlanData { columns, conditions, places: rel.needs_places(clauses) }.to_text()?;
    let text = CString::new(text)
        .map_err(|_| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "plan of an archive scan holds a NUL byte"))?;
    Ok((text, values))
}
