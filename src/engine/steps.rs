//! The driver that commits between steps: each call does the next step of a job, decided from the catalog and from
//! what is observed, never from memory (P4).

use archive_core::codec::sha256_of_bytes;
use archive_core::lifecycle::{self, Observed, Step};
use archive_core::policy::JobStatus;
use archive_core::schema::TableSchema;
use pgrx::{Uuid, pg_sys};

use super::archive::{self, Finished};
use super::batch;
use super::copies;
use super::drift;
use super::expiry;
use super::family;
use super::glacier;
use super::lifecycle::{or_when_unlocked, steer};
use super::manifest;
use super::plan::{Options, Plan, Verify};
use super::rewrite;
use super::rows;
use super::transition;
use super::verification;
use crate::catalog;
use crate::catalog::job::Job;
use crate::error::{Error, Result, SqlState};
use crate::export::ExportSource;
use crate::partition::discover::Leaf;
use crate::partition::freeze::FrozenState;
use crate::partition::{check, discover, freeze, locks, swap};

/// The job that archives `partition`: an unfinished one is taken up again. `None` when it is archived already.
pub fn begin(partition: pg_sys::Oid, options: &Options) -> Result<Option<Uuid>> {
    let _bounded = swap::bounded();
    archive::claim(partition)?;
    if catalog::partition::of_archive_relation(partition)?.is_some() {
        return Ok(None);
    }
    check::archivable(partition)?;
    if let Some(job) = catalog::job::unfinished(partition)?.filter(|job| !family::is_of_family(job)) {
        return Ok(Some(job.id));
    }
    let plan = Plan::prepare(partition, options, catalog::job::new_id()?)?;
    archive::start_job(&plan, "planned")?;
    Ok(Some(plan.job))
}

/// What the last step of a job does and returns.
pub(super) fn done(job: Uuid, rows: u64) -> Result<(bool, String)> {
    catalog::job::complete(job, rows)?;
    Ok((false, "done".to_owned()))
}

/// Does the next step of a job; `false` when nothing is left. The caller commits.
pub fn step(id: Uuid) -> Result<(bool, String)> {
    let _bounded = swap::bounded();
    failpoint!("step_begins");
    let done = any_step(id)?;
    failpoint!("step_done");
    Ok(done)
}

fn any_step(id: Uuid) -> Result<(bool, String)> {
    steer::mine(id)?;
    let job = job(id)?;
    if job.operation != "rows" {
        check::transaction("archiving")?;
    }
    if let Some(ended) = ended(&job)? {
        return Ok(ended);
    }
    match job.operation.as_str() {
        "archive" if family::is_of_family(&job) => family::step(&job),
        "archive" => archive_step(&job),
        "rows" => rows::step(&job),
        "batch" => batch::step(&job),
        "compact" => rewrite::step(&job),
        "verify" | "drop_local" => verification::step(&job),
        "expire" => or_when_unlocked(id, expiry::step(&job)),
        "copy" => copies::step(&job),
        "erase" => or_when_unlocked(id, rewrite::purge_step(&job)),
        "glacier" => glacier::moving_step(&job),
        "restore" => glacier::follow_step(&job),
        "reattach" => glacier::reattach_step(&job),
        "premake" | "drain" | "hot" | "warm" | "merge" | "split" => transition::step(&job),
        other => Err(stopped(&job, &format!("{other} has no steps"))),
    }
}

/// What a step of a job that does not run answers.
fn ended(job: &Job) -> Result<Option<(bool, String)>> {
    match job.status.as_str() {
        "running" => Ok(None),
        "completed" => Ok(Some((false, job.phase.clone()))),
        "paused" => Ok(Some((false, "paused".to_owned()))),
        other => Err(stopped(job, &format!("the job is {other}"))),
    }
}

fn archive_step(job: &Job) -> Result<(bool, String)> {
    let Some(partition) = job.partition else { return Err(gone(job)) };
    locks::claim_partition(&job.partition_name)?;
    // Another session may have done the job's last steps before the partition was free.
    let job = &self::job(job.id)?;
    if let Some(ended) = ended(job)? {
        return Ok(ended);
    }
    if archived_by(job, partition)? {
        return Ok((false, "done".to_owned()));
    }
    let plan = Plan::prepare(partition, &options(job)?, job.id)?;
    match next_step(job, &plan.leaf)? {
        Step::Swap => finish(&plan, job),
        step => before_swap(step, &plan, job),
    }
}

/// What a job does next, from what is observed.
pub(super) fn next_step(job: &Job, leaf: &Leaf) -> Result<Step> {
    Ok(lifecycle::resume(job.phase.parse()?, &observe(job, leaf)?))
}

/// Does a step that comes before the swap.
pub(super) fn before_swap(step: Step, plan: &Plan, job: &Job) -> Result<(bool, String)> {
    match step {
        Step::Freeze => freeze(plan, job),
        Step::Export { .. } => export(plan, job),
        Step::Verify => verify(plan, job),
        Step::Stop(reason) => Err(stopped(job, reason)),
        _ => Ok((false, job.phase.clone())),
    }
}

pub(super) fn job(id: Uuid) -> Result<Job> {
    catalog::job::find(id)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("archive job {id} does not exist")))
}

pub(super) fn gone(job: &Job) -> Error {
    stopped(job, "the partition was dropped")
}

pub(super) fn stopped(job: &Job, reason: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("archiving \"{}\" cannot go on: {reason}", job.partition_name),
    )
    .hint("See archive_ext.jobs; cancel_job(job_id) ends the job and lifts its guards.")
}

pub(super) fn options(job: &Job) -> Result<Options> {
    Ok(Options {
        storage: job.storage.clone(),
        verify: Verify::parse(&job.verify)?,
        drop_local_seconds: job.drop_local_seconds,
        allow_subscribed: job.request.get(archive::ALLOW_SUBSCRIBED).is_some(),
    })
}

/// Whether the swap of this job is committed. Its foreign table carries the partition's name now.
pub(super) fn archived_by(job: &Job, partition: pg_sys::Oid) -> Result<bool> {
    Ok(job.phase == "done" || catalog::partition::of_archive_relation(partition)?.is_some())
}

fn observe(job: &Job, leaf: &Leaf) -> Result<Observed> {
    let guarded = freeze::observe(leaf.oid)?;
    Ok(Observed {
        local_exists: true,
        local_attached: leaf.parent.is_some(),
        archive_attached: false,
        guard_present: guarded.guards && guarded.bounds,
        unchanged_since_export: is_unchanged(job, leaf)?,
        objects_uploaded: 0,
        manifest_present: job.progress.get("manifest").is_some(),
        verified: job.phase == "verified",
        drop_due: false,
    })
}

/// Whether what this job exported is still what is there, and where it was put.
fn is_unchanged(job: &Job, leaf: &Leaf) -> Result<bool> {
    let Some(state) = exported_state(job) else { return Ok(false) };
    if freeze::frozen_state(leaf).ok() != Some(state) {
        return Ok(false);
    }
    let source = ExportSource::peek(leaf.oid, leaf.root.unwrap_or(leaf.oid))?;
    let noted = |what: &str| job.progress.get(what).and_then(serde_json::Value::as_str).unwrap_or_default();
    // A job that a policy made names no storage.
    Ok(noted("columns") == columns_text(&source.schema)?
        && catalog::place::still_at(noted("storage"), noted("location")).is_ok())
}

/// What tells columns from others.
fn columns_text(schema: &TableSchema) -> Result<String> {
    Ok(sha256_of_bytes(serde_json::to_string(schema)?.as_bytes()))
}

/// What the partition was when this job exported it.
fn exported_state(job: &Job) -> Option<FrozenState> {
    let relfilenode = job.progress.get("relfilenode")?.as_u64()?;
    let guards = job.progress.get("guards")?.as_str()?.to_owned();
    Some(FrozenState { relfilenode: u32::try_from(relfilenode).ok()?.into(), guards })
}

/// Guards and CHECK in one committed step, the validation in the next.
fn freeze(plan: &Plan, job: &Job) -> Result<(bool, String)> {
    let guarded = freeze::observe(plan.leaf.oid)?;
    if guarded.guards && job.progress.get("guarded").is_some() {
        freeze::validate_bounds_check(&plan.leaf)?;
        catalog::job::advance(plan.job, "frozen", &serde_json::json!({ "exports": exports(job) }))?;
        return Ok((true, "frozen".to_owned()));
    }
    drift::note_columns(plan.root)?;
    freeze::close(&plan.leaf)?;
    catalog::job::advance(plan.job, "planned", &serde_json::json!({ "guarded": true, "exports": exports(job) }))?;
    Ok((true, "planned".to_owned()))
}

/// Exports of one job at most: what changes as often will go on to, and each costs a version in the storage.
const MOST_EXPORTS: u64 = 5;

fn exports(job: &Job) -> u64 {
    job.progress.get("exports").and_then(serde_json::Value::as_u64).unwrap_or(0)
}

fn export(plan: &Plan, job: &Job) -> Result<(bool, String)> {
    let exports = exports(job);
    if exports >= MOST_EXPORTS {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_IN_USE,
            format!("partition \"{}\" changed after each of {exports} exports", plan.name()),
        )
        .detail("Its file, its columns, its guards or the place of the storage were others each time.")
        .hint("Nothing was removed. Find out who rewrites or alters it, then archive it again."));
    }
    let mut progress = archive::progress(plan);
    let finished = archive::export(plan, &mut progress)?;
    let left = serde_json::json!({
        "manifest": finished.key, "version": finished.manifest.version, "relfilenode": finished.state.relfilenode.to_u32(), "guards": finished.state.guards,
        "exports": exports + 1, "storage": plan.storage, "location": plan.store.location().to_string(), "columns": columns_text(&finished.manifest.schema)?,
    });
    catalog::job::advance(plan.job, "exported", &left)?;
    Ok((true, "exported".to_owned()))
}

pub(super) fn finished(plan: &Plan, job: &Job) -> Result<Finished> {
    let key = job.progress.get("manifest").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
    if let Some(location) = job.progress.get("location").and_then(serde_json::Value::as_str) {
        catalog::place::still_at(&plan.storage, location)?;
    }
    let manifest = manifest::load(&plan.store, &key)?;
    let state = exported_state(job).ok_or_else(|| freeze::changed(&plan.name()))?;
    Ok(Finished { key, manifest, state })
}

fn verify(plan: &Plan, job: &Job) -> Result<(bool, String)> {
    let mut progress = archive::progress(plan);
    archive::verify(plan, &finished(plan, job)?, plan.verify, &mut progress)?;
    catalog::job::advance(plan.job, "verified", &job.progress)?;
    Ok((true, "verified".to_owned()))
}

fn finish(plan: &Plan, job: &Job) -> Result<(bool, String)> {
    archive::finish(plan, finished(plan, job)?)?;
    Ok((false, "done".to_owned()))
}

/// Ends a job after an error of its step, as [`cancel`] does. A merge or split that has swapped goes on with the next call: what it
/// was made of is still to be dropped.
pub fn fail(id: Uuid, reason: &str) -> Result<bool> {
    steer::mine(id)?;
    if job(id)?.phase == "swapped" {
        return Ok(false);
    }
    cancel(id, "failed", reason)
}

/// Ends a job that does not run any more and lifts its guards, with the jobs of its family. Only its starter, the table's
/// owner or a superuser may.
pub fn cancel(id: Uuid, status: &str, reason: &str) -> Result<bool> {
    steer::mine(id)?;
    let _bounded = swap::bounded();
    let asked = job(id)?;
    if !asked.status.parse::<JobStatus>()?.is_unfinished() {
        return Ok(false);
    }
    for job in family::jobs_of(asked)? {
        cancel_one(&job, status, reason)?;
    }
    Ok(true)
}

fn cancel_one(job: &Job, status: &str, reason: &str) -> Result<()> {
    if matches!(job.operation.as_str(), "rows" | "batch" | "compact") {
        rows::may_steer(job)?;
    }
    if matches!(job.operation.as_str(), "premake" | "drain" | "hot" | "warm" | "merge" | "split") {
        transition::abandon(job)?;
        return catalog::job::stop(job.id, status, reason);
    }
    if matches!(job.operation.as_str(), "verify" | "drop_local" | "expire") {
        return catalog::job::stop(job.id, status, reason);
    }
    if let Some(leaf) = left_guarded(job)? {
        check::ownership(&leaf)?;
        locks::claim_partition(&leaf.qualified())?;
        if let Some(parent) = leaf.parent.filter(|_| leaf.detach_pending) {
            // Nothing of it can be altered before.
            swap::finalize_pending(parent)?;
        }
        freeze::lift(leaf.oid)?;
    }
    catalog::job::stop(job.id, status, reason)
}

/// The table whose guards a job leaves: its partition, whatever became of that since, but for what is archived.
fn left_guarded(job: &Job) -> Result<Option<Leaf>> {
    let Some(leaf) = job.partition.map(discover::leaf).transpose()?.flatten().filter(|leaf| leaf.kind == 'r') else {
        return Ok(None);
    };
    let archived = catalog::partition::of_archive_relation(leaf.oid)?.is_some();
    let guarded = leaf.parent.is_some() || freeze::guarded_because(leaf.oid)?.is_some();
    Ok(Some(leaf).filter(|_| guarded && !archived))
}
