//! Rows archived one by one, in batches: locked, packed, written, read back, deleted, and with the same commit in the archive.
//!
//! One engine, two drivers: `archive_table_batch` does one batch in the caller's transaction, the procedure `archive_table`
//! and the worker one batch per transaction. A batch that rolls back leaves objects that nothing names.

mod cascade;
mod columns;
mod due;
mod job;
mod keep;
mod mode;
mod pace;
mod plan;
mod purge;
mod put;
mod references;
mod remove;
mod row_set;
mod select;

pub use columns::{KeyColumn, filter_fields, key, time};
pub use due::due;
pub use job::{begin, note_stop, step};
pub use keep::forget_marker;
pub use mode::Wanted;
pub use plan::{Locked, Plan, Referenced, Request, parse_format};
pub use purge::purge;

use archive_core::lifecycle::Next;
use archive_core::naming;
use pgrx::Uuid;
use serde_json::json;

use super::progress::Progress;
use crate::catalog;
use crate::catalog::batch_job::{self, BatchJob, Batches};
use crate::error::Result;
use crate::partition::{check, locks};
use crate::pg::relation::LockMode;
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
        let mut details = json!({ "rows": job.rows, "batches": job.batches, "storage": plan.storage });
        if !job.others.is_empty() {
            details["with"] = json!(job.others);
        }
        catalog::event::record(plan.root, &plan.table.qualified(), "archived", "ARCHIVED", Some(job.id), details)?;
        for (table, rows) in &job.others {
            crate::pg::server_text::notice!("{rows} rows of {table}, which referenced them, were archived, too");
        }
    }
    Ok(Outcome::nothing(Some(job.id), true))
}

fn batch(plan: &Plan, mut job: BatchJob, mut chosen: Vec<Chosen>, mut laps: Laps) -> Result<Outcome> {
    failpoint!("batch_selected");
    let last = chosen.last().map(|row| row.key.clone()).unwrap_or_default();
    let kin = cascade::kin(plan, &mut chosen)?;
    job.seconds.select += laps.lap();
    let rows = chosen.len() + kin.iter().map(|kin| kin.rows.len()).sum::<usize>();
    let mut progress = Progress::new(job.id, plan.request.source, &plan.table.qualified(), rows as u64);
    let whole = plan.request.referenced == Referenced::Cascade;
    let mut stored = vec![put::Stored::of(plan, &mut job, &chosen, whole, &mut progress, &mut laps)?];
    // What the byte limit cut off is left for the next batch.
    chosen.truncate(stored.iter().map(put::Stored::rows).sum());
    for kin in &kin {
        stored.push(put::Stored::of(&kin.plan, &mut job, &kin.rows, true, &mut progress, &mut laps)?);
    }
    failpoint!("batch_stored");
    match plan.mode {
        Mode::Delete => {
            let others = kin.iter().map(|kin| (&kin.plan, kin.rows.as_slice()));
            remove::delete(&std::iter::once((plan, chosen.as_slice())).chain(others).collect::<Vec<_>>())?;
        }
        Mode::Mark(_) | Mode::Offload(_) => keep::keep(plan, &chosen, &stored[0].objects())?,
    }
    let object = stored.first().and_then(|stored| stored.objects().into_iter().next()).map(|object| object.key);
    failpoint!("batch_removed");
    stored.into_iter().try_for_each(|stored| stored.append(plan))?;
    failpoint!("batch_appended");
    job.seconds.delete += laps.lap();
    let outcome = Outcome::of(Some(job.id), &chosen, object);
    job.batches += 1;
    job.rows += outcome.rows;
    for kin in &kin {
        *job.others.entry(kin.plan.table.qualified()).or_default() += kin.rows.len() as u64;
    }
    let checkpoint = if whole { last } else { chosen.pop().map(|row| row.key).unwrap_or_default() };
    job.pass = job.pass.after_batch(outcome.rows, checkpoint);
    batch_job::advance(&job)?;
    failpoint!("batch_recorded");
    Ok(outcome)
}
