//! The second and third phase as jobs of the scheduler.

use archive_core::policy::{Fate, stored};
use pgrx::pg_sys;

use super::check::Checker;
use super::{Found, Level, Verified, failed, local_copy, look, not_as_archived, pass, report, told};
use crate::catalog;
use crate::catalog::archived::{self, Ageing, Subject};
use crate::catalog::finding;
use crate::catalog::job::Job;
use crate::catalog::observed;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::catalog::tier;
use crate::engine::{clock, lifecycle, rewrite, steps};
use crate::error::Result;
use crate::partition::locks;
use crate::pg::clock::unix_now;

/// The archived partitions of a table for which something is to come, and what is next for each at `now`.
pub fn fates(table: &TablePolicy, now: i64) -> Result<Vec<(Ageing, Fate)>> {
    let time = table.policy.glacier_after.map(|_| rewrite::time_field(table.source)).transpose()?.flatten();
    let fate = |mut one: Ageing| {
        one.stored.glacier_at = glacier_at(table, &one, time)?;
        let fate = stored(&table.policy, &one.stored, now);
        Ok((one, fate))
    };
    archived::ageing(table.source)?.into_iter().map(fate).collect()
}

/// When the objects move to an archive class, unless they are deleted before; of a row set the first of them, by the field with the times
/// of their rows.
fn glacier_at(table: &TablePolicy, one: &Ageing, time: Option<i32>) -> Result<Option<i64>> {
    if one.stored.by_objects && one.is_movable && table.policy.glacier_after.is_some() {
        return tier::next_of_rows(one.id, time, table.policy.glacier_class());
    }
    let (Some(age), Some(ended), true) = (table.policy.glacier_after, one.ended, one.is_movable) else {
        return Ok(None);
    };
    let at = observed::later(ended, age)?;
    Ok(Some(at).filter(|at| one.expires_at.is_none_or(|end| *at < end)))
}

/// Adds a job for each archived partition of a table that is to be verified again, whose local copy is to go, or whose objects move to an
/// archive class; how many.
pub fn schedule(table: &TablePolicy) -> Result<i32> {
    let mut added = 0;
    for (one, fate) in fates(table, pg_sys::TimestampTz::from(clock::now()?))? {
        let Fate::Due(step) = fate else { continue };
        added += i32::from(catalog::queue::add(&NewJob {
            operation: step.action.operation(),
            table: table.source,
            name: &one.name,
            partition: Some(one.foreign_table),
            request: serde_json::json!({ "id": one.id }),
            reason: &step.reason,
            storage: one.storage.as_deref(),
        })?);
    }
    Ok(added)
}

/// Does the next step of such a job: reading the archive back, then, if it is about that, dropping the local copy. What a read-back
/// finds stays noted although the job fails, so that its transaction commits.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let Some(subject) = subject(job)? else { return steps::done(job.id, 0) };
    if subject.row_set {
        return row_set_step(job, &subject);
    }
    let version = job.progress.get("version").and_then(serde_json::Value::as_i64);
    if job.phase == "verified"
        && version == Some(subject.version.into())
        && is_recent(job)
        && !finding::any(subject.id)?
    {
        return drop(job, &subject);
    }
    let (mut found, _) = look(&subject, Level::Content, Some(job.id))?;
    if !found.faults.is_empty() {
        report(&subject, Level::Content, &found.faults)?;
        lifecycle::failed(job.id, &failed(&subject, &found.faults))?;
        return Ok((false, "failed".to_owned()));
    }
    pass(&subject, &mut found)?;
    if job.operation == "verify" {
        return steps::done(job.id, found.verified.rows);
    }
    catalog::job::advance(job.id, "verified", &serde_json::json!({ "version": subject.version, "at": unix_now() }))?;
    Ok((true, "verified".to_owned()))
}

/// Bytes of objects that one step reads of a row set, which may be far larger than a partition.
const STEP_BYTES: u64 = 1 << 30;

/// Reads the objects of a row set whose time has come, some in each step. When all were read the job fails if something was wrong with
/// one of them; tried again, it reads those alone that were not found whole.
fn row_set_step(job: &Job, subject: &Subject) -> Result<(bool, String)> {
    let noted = |what: &str| job.progress.get(what).and_then(serde_json::Value::as_i64).unwrap_or(0);
    let due = archived::due_objects(subject, clock::now()?, noted("last"))?;
    let mut checker = Checker::open(subject, Some(job.id))?;
    let (faults, last) = checker.some(&due, STEP_BYTES)?;
    if !faults.is_empty() {
        report(subject, Level::Content, &faults)?;
    }
    let (objects, rows, bytes) = checker.totals();
    let before = |what: &str, more: u64| noted(what).unsigned_abs() + more;
    let (objects, rows, bytes) = (before("objects", objects), before("rows", rows), before("bytes", bytes));
    let wrong = job.progress.get("wrong").and_then(serde_json::Value::as_str).map(str::to_owned);
    let wrong = wrong.or_else(|| (!faults.is_empty()).then(|| told(&faults)));
    if last.is_some() && last != due.last().copied() {
        let so_far = serde_json::json!({
            "last": last, "objects": objects, "rows": rows, "bytes": bytes, "wrong": wrong,
        });
        catalog::job::advance(job.id, "verifying", &so_far)?;
        return Ok((true, "verifying".to_owned()));
    }
    if let Some(wrong) = wrong {
        catalog::job::advance(job.id, "planned", &serde_json::json!({}))?;
        lifecycle::failed(job.id, &not_as_archived(subject, &wrong))?;
        return Ok((false, "failed".to_owned()));
    }
    if objects > 0 {
        let result = checker.told_by_reading();
        let partition = subject.name.clone();
        let verified = Verified { partition, level: Level::Content, objects, rows, bytes, verified_at: None, result };
        pass(subject, &mut Found { verified, faults })?;
    }
    steps::done(job.id, rows)
}

/// Seconds for which a read-back counts: a job may be suspended, paused, or tried again for days before it drops the copy.
const RECENT: i64 = 600;

fn is_recent(job: &Job) -> bool {
    let at = job.progress.get("at").and_then(serde_json::Value::as_i64);
    at.is_some_and(|at| (0..=RECENT).contains(&unix_now().saturating_sub(at)))
}

/// What the job is about, if that still is archived as it was, and in a dropping job has its local copy.
fn subject(job: &Job) -> Result<Option<Subject>> {
    let Some(id) = job.request.get("id").and_then(serde_json::Value::as_i64) else { return Ok(None) };
    let same = |subject: &Subject| {
        subject.foreign_table == job.partition && (job.operation == "verify" || subject.local_copy.is_some())
    };
    Ok(archived::find(id)?.filter(same))
}

fn drop(job: &Job, subject: &Subject) -> Result<(bool, String)> {
    locks::claim_partition(&subject.name)?;
    let dropped = local_copy::drop_compared(subject, Some(job.id))?;
    steps::done(job.id, dropped.rows)
}
