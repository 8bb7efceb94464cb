//! Merging small objects into large ones: read, sorted by PostgreSQL, written by month, read back, swapped.

use archive_core::codec::{Digest, sha256_of_bytes};
use archive_core::lifecycle::next_group;
use archive_core::naming::{self, BatchName, HiveDate};
use archive_core::store::BlockingStore;
use pgrx::Uuid;
use serde_json::json;

use super::archived::{self, ArchivedRows, Fate, Names};
use super::read;
use super::request::{self, Request};
use super::swap::{self, Rewritten};
use crate::catalog::compact_job::{self, NewCompaction};
use crate::catalog::rewrite::{self, Numbered};
use crate::catalog::row_set::{self, RowSet};
use crate::catalog::{self, managed_table};
use crate::engine::plan::job_hex;
use crate::engine::progress::{Phase, Progress};
use crate::engine::{storage, verify};
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource, Exported, Objects};
use crate::partition::check;
use crate::partition::discover::Leaf;
use crate::pg::relation::LockMode;
use crate::pg::sort::RowSort;
use crate::pg::user;

/// Phase of a job that has merged something.
pub(super) const PHASE: &str = "compacting";

/// What one call did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The job; `None` when nothing was to be merged.
    pub job: Option<Uuid>,
    /// Objects merged, and their bytes.
    pub merged: (u64, u64),
    /// Objects they became, and their bytes.
    pub into: (u64, u64),
    /// Rows in them.
    pub rows: u64,
    /// Whether nothing more is to be merged.
    pub done: bool,
}

/// A table, and the columns by which its archive is sorted.
struct Plan {
    table: Leaf,
    name: (String, String),
    time: Option<String>,
    source: ExportSource,
}

/// Merges the next small objects of a table's archive, in this transaction.
///
/// Locks: ACCESS SHARE on the table; the row set, after the new objects were written and verified. Errors: 25001 in REPEATABLE
/// READ and SERIALIZABLE, 55006 when another session compacts the same archive, XX001 when rows read are not those archived or
/// rows read back are not those written, and those of [`request::table`].
pub fn compact(request: &Request) -> Result<Outcome> {
    let table = begin(request)?;
    let outcome = merge_next(request, table, || {
        let new = request.stored();
        let name = catalog::qualified_name(request.source)?;
        let role = user::name_of(user::current());
        let new = NewCompaction { table: request.source, table_name: &name, request: &new, started_by: &role };
        Ok((compact_job::start(&new, catalog::job::new_id()?)?, 1))
    })?;
    match outcome.job {
        Some(job) => catalog::job::complete(job, outcome.rows)?,
        None => compact_job::end_interrupted(request.source, &request.stored())?,
    }
    Ok(outcome)
}

/// The same as a step of a job, which has done so many.
pub(super) fn compact_as(request: &Request, job: Uuid, steps: u32) -> Result<Outcome> {
    let table = begin(request)?;
    merge_next(request, table, || Ok((job, steps + 1)))
}

fn begin(request: &Request) -> Result<Leaf> {
    check::transaction("compacting an archive")?;
    request.check()?;
    let table = request::table(request.source, "compact_archive")?;
    crate::partition::locks::claim_compaction(&table.qualified())?;
    Ok(table)
}

fn merge_next(request: &Request, table: Leaf, job: impl FnOnce() -> Result<(Uuid, u32)>) -> Result<Outcome> {
    let Some(managed) = managed_table::of_source(request.source)? else { return Ok(nothing()) };
    let sets = row_set::all(managed.id)?;
    if sets.is_empty() {
        return Ok(nothing());
    }
    let plan = Plan {
        time: request::time(&table, request.time_column.as_deref())?,
        name: (table.schema.clone(), table.name.clone()),
        source: ExportSource::open(request.source, request.source, LockMode::AccessShare)?,
        table,
    };
    for set in &sets {
        let small = rewrite::small_objects(set.id, plan.time_field(), request::small_bytes())?;
        let group = next_group(&small, request.threshold());
        if !group.is_empty() && is_readable(&plan.table, &plan.source, set) {
            return merge(&plan, set, rewrite::objects(set, &group)?, job()?);
        }
    }
    Ok(nothing())
}

/// Whether the rows of a row set can be written again: types that they were archived with may be gone.
pub(super) fn is_readable(table: &Leaf, now: &ExportSource, set: &RowSet) -> bool {
    set.schema == now.schema || archived::shape(table, set.id).is_ok()
}

fn nothing() -> Outcome {
    Outcome { done: true, ..Outcome::default() }
}

fn merge(plan: &Plan, set: &RowSet, old: Vec<Numbered>, (job, step): (Uuid, u32)) -> Result<Outcome> {
    let rows = old.iter().map(|old| old.object.rows).sum();
    let mut progress = Progress::new(job, plan.source.relation.oid(), &plan.table.qualified(), rows);
    let store = storage::open_to_rewrite(&set.storage, plan.table.tree(), plan.table.owner)?;
    catalog::storage::claim(&set.storage, &store)?;
    catalog::writers::hold_family(&naming::job_family(&job_hex(job)))?;
    progress.phase(Phase::Exporting);
    let written = match set.schema == plan.source.schema {
        true => sorted(plan, set, &old, &store, (job, step), &mut progress)?,
        false => in_order(plan, set, &old, &store, (job, step))?,
    };
    failpoint!("compact_written");
    let outcome = Outcome {
        job: Some(job),
        merged: (old.len() as u64, old.iter().map(|old| old.object.bytes).sum()),
        into: (written.objects.len() as u64, written.objects.iter().map(|object| object.bytes).sum()),
        rows,
        done: false,
    };
    let made = written.objects.into_iter().map(|object| object.made_of(old.iter().map(|old| &old.object)));
    let objects = made.collect();
    let rewritten = Rewritten {
        gone: old,
        objects,
        filters: written.filters,
        left: export::no_rows(&plan.source),
        added: Digest::default(),
    };
    swap::swap(set.id, &store, &plan.name, (job, step), &rewritten)?;
    record(plan, set, &outcome)?;
    Ok(outcome)
}

/// Writes rows that have other columns than the table has now one after the other, as they were archived: in the order of the key.
fn in_order(plan: &Plan, set: &RowSet, old: &[Numbered], store: &BlockingStore, of: (Uuid, u32)) -> Result<Exported> {
    let source = archived::shape(&plan.table, set.id)?;
    let filter_fields = request::filter_fields(&plan.table, &source)?;
    let names = Names::Batch { table: &plan.table.name, of, attempt: catalog::job::new_id()? };
    let rows = ArchivedRows { source, filter_fields, store, names };
    let objects: Vec<_> = old.iter().map(|old| &old.object).collect();
    let (written, _) = rows.write(&objects, &mut || Fate::Keep)?;
    same_rows(old, &written.digest)?;
    written.objects.iter().try_for_each(|object| rows.read_back(object))?;
    Ok(written)
}

/// Writes the rows sorted, those of each month to objects of its own.
fn sorted(
    plan: &Plan,
    set: &RowSet,
    old: &[Numbered],
    store: &BlockingStore,
    (job, number): (Uuid, u32),
    progress: &mut Progress,
) -> Result<Exported> {
    let mut sort = RowSort::begin(&plan.source.relation, &plan.order()?)?;
    for old in old {
        read::rows(&plan.source, store, &set.schema, &old.object, &mut |_, _, row| {
            sort.put(row);
            Ok(())
        })?;
    }
    sort.sort();
    // Objects are uploaded while they are written, so their names cannot hold their hash: no two attempts have the same one.
    let (attempt, hex) = (catalog::job::new_id()?, job_hex(job));
    let format = archived::newest_format(old.last().map(|old| &old.object))?;
    let (schema, table) = set.table_name(&plan.name);
    let key = |date: Option<HiveDate>, ordinal: u32| {
        let sha256 = sha256_of_bytes(format!("{attempt} {date:?} {ordinal}").as_bytes());
        naming::batch_key(schema, table, date, BatchName { job: &hex, number, sha256: &sha256 }, format)
    };
    let time = plan.time.as_ref().and_then(|time| plan.position(time));
    let written_as = Objects { filter_fields: request::filter_fields(&plan.table, &plan.source)?, format };
    let tick = &mut |rows, bytes| progress.tick(rows, bytes);
    let written = export::sorted(&plan.source, &mut sort, time, &written_as, store, &key, tick)?;
    same_rows(old, &written.digest)?;
    verify::objects(&plan.source, store, &set.schema, written.objects.iter(), progress)?;
    Ok(written)
}

impl Plan {
    fn position(&self, column: &str) -> Option<usize> {
        self.source.columns.iter().position(|known| known.name == column)
    }

    fn time_field(&self) -> Option<i32> {
        let at = self.time.as_ref().and_then(|time| self.position(time))?;
        self.source.schema.fields.get(at).map(|field| field.id)
    }

    /// By time, then by key; a table that has neither any more by its first column.
    fn order(&self) -> Result<Vec<&crate::pg::columns::Column>> {
        let mut names: Vec<_> = self.time.iter().cloned().collect();
        names.extend(
            request::key(&self.table)?.into_iter().map(|key| key.name).filter(|key| Some(key) != self.time.as_ref()),
        );
        let at = names.iter().filter_map(|name| self.position(name));
        let columns: Vec<_> = at.filter_map(|at| self.source.columns.get(at)).collect();
        Ok(if columns.is_empty() { self.source.columns.iter().take(1).collect() } else { columns })
    }
}

/// What was read of the old objects and written to the new ones are the rows that were archived (XX001).
fn same_rows(old: &[Numbered], written: &Digest) -> Result<()> {
    let mut archived = Digest::default();
    old.iter().for_each(|old| archived.merge(&old.object.digest));
    if archived == *written {
        return Ok(());
    }
    let keys: Vec<_> = old.iter().map(|old| old.object.key.as_str()).collect();
    Err(Error::new(SqlState::ERRCODE_DATA_CORRUPTED, "the rows of archived objects are not those that were archived")
        .detail(format!("They hold {} rows, and {} were archived: {}.", written.rows, archived.rows, keys.join(", ")))
        .hint("Nothing was changed. Check the storage."))
}

fn record(plan: &Plan, set: &RowSet, outcome: &Outcome) -> Result<()> {
    let details = json!({
        "row_set": set.name, "rows": outcome.rows, "objects": outcome.merged.0, "bytes": outcome.merged.1,
        "into_objects": outcome.into.0, "into_bytes": outcome.into.1,
    });
    let table = plan.source.relation.oid();
    catalog::event::record(table, &plan.table.qualified(), "compacted", "ARCHIVED", outcome.job, details)
}
