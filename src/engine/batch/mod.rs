//! Rows archived one by one, in batches: locked, packed, written, read back, deleted, and with the same commit in the archive.
//!
//! One engine, two drivers: `archive_table_batch` does one batch in the caller's transaction, the procedure `archive_table`
//! and the worker one batch per transaction. A batch that rolls back leaves objects that nothing names.

mod columns;
mod due;
mod job;
mod keep;
mod mode;
mod pace;
mod plan;
mod purge;
mod references;
mod remove;
mod row_set;
mod select;

pub use columns::{KeyColumn, filter_fields, key, time};
pub use due::due;
pub use job::{begin, note_stop, step};
pub use keep::forget_marker;
pub use mode::Wanted;
pub use plan::{Locked, Plan, Referenced, Request};
pub use purge::purge;

use archive_core::ErrorKind;
use archive_core::codec::{Digest, sha256_of_bytes};
use archive_core::lifecycle::{Granularity, Next};
use archive_core::manifest::{BatchManifest, ManifestObject};
use archive_core::naming::{self, BatchName, HiveDate};
use archive_core::store::PutMode;
use pgrx::{Uuid, pg_sys};
use serde_json::json;

use super::plan::job_hex;
use super::progress::{Phase, Progress};
use super::{manifest, verify};
use crate::catalog;
use crate::catalog::batch_job::{self, BatchJob, Batches};
use crate::catalog::row_set::RowSet;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource, Packed};
use crate::partition::{check, locks};
use crate::pg::relation::{LockMode, Relation};
use crate::pg::tuple_id::TupleId;
use crate::pg::user;
use mode::Mode;
use pace::Laps;
use select::Chosen;

/// What one call did.
#[derive(Debug)]
pub struct Outcome {
    /// The job; a dry run has none.
    pub job: Option<Uuid>,
    /// Rows archived; in a dry run those that would be.
    pub rows: u64,
    /// Key of the first row.
    pub first_key: Option<String>,
    /// Key of the last row.
    pub last_key: Option<String>,
    /// The first object.
    pub object: Option<String>,
    /// Whether a whole pass found nothing more to archive.
    pub done: bool,
}

impl Outcome {
    fn nothing(job: Option<Uuid>, done: bool) -> Self {
        Self { job, rows: 0, first_key: None, last_key: None, object: None, done }
    }

    fn of(job: Option<Uuid>, chosen: &[Chosen], object: Option<String>) -> Self {
        let key = |row: &Chosen| batch_job::printed(&row.key);
        Self {
            job,
            rows: chosen.len() as u64,
            first_key: chosen.first().map(key),
            last_key: chosen.last().map(key),
            object,
            done: false,
        }
    }
}

/// Archives the next batch of a request in this transaction.
///
/// Locks: ROW EXCLUSIVE on the table, FOR UPDATE on the batch's rows; for the first batch what CREATE FOREIGN TABLE takes on
/// the archive. Errors: 25001 in REPEATABLE READ and SERIALIZABLE, 55006 when another session archives rows of the table,
/// XX001 when what was read back differs, 55000 when rows cannot be deleted.
pub fn archive(request: &Request) -> Result<Outcome> {
    let outcome = archive_as(request, None)?;
    if let (Some(job), false) = (outcome.job, outcome.done) {
        // Between two calls nobody works on it.
        batch_job::note_stop(job, "max_batches")?;
    }
    Ok(outcome)
}

/// The same for a job that is there.
fn archive_as(request: &Request, job: Option<Uuid>) -> Result<Outcome> {
    check::transaction("archiving rows")?;
    // From here on it keeps its name and its columns.
    locks::acquire(request.source, &catalog::qualified_name(request.source)?, LockMode::RowExclusive)?;
    let plan = Plan::of(request)?;
    locks::claim_partition(&plan.table.qualified())?;
    select::refuse_referenced(&plan)?;
    keep::prepare(&plan)?;
    let mut job = take_up(&plan, job)?;
    if job.expected.is_none() {
        pace::estimate(&plan, &mut job)?;
    }
    let laps = Laps::begin();
    loop {
        let found = select::next(&plan, &job.pass.checkpoint)?;
        let Some(last) = found.last().map(|row| row.key.clone()) else {
            match job.pass.at_end() {
                Next::Done => return end_of_pass(&plan, &job),
                Next::Batch(next) => job.pass = next,
            }
            continue;
        };
        let chosen = select::without_referenced(&plan, found)?;
        if !chosen.is_empty() {
            return batch(&plan, job, chosen, laps);
        }
        job.pass = job.pass.after_nothing(last);
    }
}

/// What the next batch would be. Changes nothing.
pub fn dry_run(request: &Request) -> Result<Outcome> {
    check::transaction("archiving rows")?;
    let plan = Plan::of(request)?;
    select::refuse_referenced(&plan)?;
    let chosen = select::look(&plan, &[])?;
    let mut outcome = Outcome::of(None, &chosen, None);
    outcome.done = chosen.is_empty();
    Ok(outcome)
}

/// Archives everything that a request matches, batch after batch, in this transaction; the job, and the rows.
pub fn archive_all(request: &Request) -> Result<(Option<Uuid>, u64)> {
    let mut rows = 0;
    loop {
        let outcome = archive(request)?;
        rows += outcome.rows;
        if outcome.done || outcome.rows == 0 {
            return Ok((outcome.job, rows));
        }
    }
}

/// Where the objects of a request go.
pub fn location(request: &Request) -> Result<String> {
    let plan = Plan::of(request)?;
    Ok(plan.store.location().url_of(&naming::table_prefix(&plan.name.0, &plan.name.1)))
}

fn take_up(plan: &Plan, job: Option<Uuid>) -> Result<BatchJob> {
    let (name, role) = (plan.table.qualified(), user::name_of(user::current()));
    let batches = Batches {
        table: plan.request.source,
        table_name: &name,
        request: &job::identity(&plan.request, plan.time.as_deref(), &plan.key)?,
        options: &job::options(&plan.request),
        started_by: &role,
        storage: &plan.storage,
        archive_before: plan.request.archive_before.as_deref(),
        job,
    };
    batch_job::take_up(&batches, catalog::job::new_id()?)
}

fn end_of_pass(plan: &Plan, job: &BatchJob) -> Result<Outcome> {
    if select::anything_left(plan)? {
        crate::pg::server_text::notice!(
            "rows of {} are locked by other sessions and left for later",
            plan.table.qualified()
        );
        batch_job::advance(job)?;
        return Ok(Outcome::nothing(Some(job.id), false));
    }
    for (table, constraint, rows) in select::held_back(plan)? {
        crate::pg::server_text::notice!(
            "{rows} rows of {} stay: rows of {table} reference them (foreign key {constraint})",
            plan.table.qualified()
        );
    }
    batch_job::advance(job)?;
    catalog::job::complete(job.id, job.rows)?;
    if job.rows > 0 {
        keep::advise_index(plan)?;
        let details = json!({ "rows": job.rows, "batches": job.batches, "storage": plan.storage });
        catalog::event::record(plan.root, &plan.table.qualified(), "archived", "ARCHIVED", Some(job.id), details)?;
    }
    Ok(Outcome::nothing(Some(job.id), true))
}

fn batch(plan: &Plan, mut job: BatchJob, mut chosen: Vec<Chosen>, mut laps: Laps) -> Result<Outcome> {
    job.seconds.select += laps.lap();
    let mut progress = Progress::new(job.id, plan.request.source, &plan.table.qualified(), chosen.len() as u64);
    catalog::storage::claim(&plan.storage, &plan.store)?;
    let archive = row_set::ensure_archive(plan)?;
    let source = ExportSource::open(plan.table.oid, plan.root, LockMode::RowExclusive)?;
    progress.phase(Phase::Exporting);
    let set = row_set::ensure(plan, &source, archive)?;
    let packed = pack(plan, &job, &set, &source, &chosen, &mut progress)?;
    chosen.truncate(packed.rows);
    job.seconds.pack += laps.lap();
    let (objects, manifest) = write(plan, &job, &set, packed.objects, &packed.digest)?;
    job.seconds.write += laps.lap();
    verify::objects(&source, &plan.store, &source.schema, objects.iter(), &mut progress)?;
    job.seconds.verify += laps.lap();
    match plan.mode {
        Mode::Delete => remove::delete(plan, &chosen)?,
        Mode::Mark(_) | Mode::Offload(_) => keep::keep(plan, &chosen, &objects)?,
    }
    catalog::row_set::append(&set, &objects, &packed.filters, &packed.digest, &manifest)?;
    job.seconds.delete += laps.lap();
    let outcome = Outcome::of(Some(job.id), &chosen, objects.into_iter().next().map(|object| object.key));
    job.batches += 1;
    job.rows += outcome.rows;
    job.pass = job.pass.after_batch(outcome.rows, chosen.pop().map(|row| row.key).unwrap_or_default());
    batch_job::advance(&job)?;
    Ok(outcome)
}

fn pack(
    plan: &Plan,
    job: &BatchJob,
    set: &RowSet,
    source: &ExportSource,
    chosen: &[Chosen],
    progress: &mut Progress,
) -> Result<Packed> {
    let mut oids: Vec<pg_sys::Oid> = Vec::new();
    let mut rows: Vec<(usize, TupleId)> = Vec::with_capacity(chosen.len());
    for row in chosen {
        let at = oids.iter().position(|oid| *oid == row.relation).unwrap_or_else(|| {
            oids.push(row.relation);
            oids.len() - 1
        });
        rows.push((at, row.place));
    }
    let relations = oids.into_iter().map(|oid| {
        Relation::open(oid, LockMode::RowExclusive)
            .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the table was dropped meanwhile"))
    });
    let relations = relations.collect::<Result<Vec<_>>>()?;
    let date = chosen.iter().filter_map(|row| row.at).min().map(|at| HiveDate::new(at, Granularity::Month));
    let (number, hex) = (job.batches + 1, job_hex(job.id));
    let (schema, table) = set.table_name(&plan.name);
    let key = |sha256: &str| naming::batch_key(schema, table, date, BatchName { job: &hex, number, sha256 });
    let mut tick = |rows: u64, bytes: u64| progress.tick(rows, bytes);
    let filter_fields = columns::filter_fields(&plan.table, source)?;
    export::pack(source, &relations, &rows, filter_fields, plan.request.batch_bytes, key, &mut tick)
}

/// Writes the objects, then their manifest, which is read back at once; the objects, and the key of the manifest.
fn write(
    plan: &Plan,
    job: &BatchJob,
    set: &RowSet,
    packed: Vec<(ManifestObject, bytes::Bytes)>,
    digest: &Digest,
) -> Result<(Vec<ManifestObject>, String)> {
    let mut objects = Vec::with_capacity(packed.len());
    for (object, bytes) in packed {
        put_once(plan, &object.key, bytes)?;
        objects.push(object);
    }
    let (number, hex) = (job.batches + 1, job_hex(job.id));
    let now = catalog::storage::now_text()?;
    let after = set.last_batch.clone();
    let manifest = BatchManifest::new(&set.manifest_key, (&hex, number), now, digest.clone(), objects.clone(), after);
    let json = manifest.to_json()?;
    let sha256 = sha256_of_bytes(json.as_bytes());
    let (schema, table) = set.table_name(&plan.name);
    let name = BatchName { job: &hex, number, sha256: &sha256 };
    let key = naming::batch_manifest_key(schema, table, &set.name, name);
    put_once(plan, &key, json.into_bytes().into())?;
    if manifest::load_batch(&plan.store, &key)? != manifest {
        return Err(Error::new(
            SqlState::ERRCODE_DATA_CORRUPTED,
            format!("archive object \"{key}\" failed verification"),
        )
        .detail("The manifest read back is not the manifest written.")
        .hint("Nothing was removed locally. Check the storage, then archive the rows again."));
    }
    Ok((objects, key))
}

/// Writes an object that has its content in its name. One that is there already was left by an attempt that rolled back; the
/// read-back decides whether it is what it should be.
fn put_once(plan: &Plan, key: &str, bytes: bytes::Bytes) -> Result<()> {
    match plan.store.put(key, bytes, PutMode::CreateOnly) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => Ok(other.map(drop)?),
    }
}
