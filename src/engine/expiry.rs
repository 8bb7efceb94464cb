//! The end of an archive: `expire_after`, and nothing else, deletes objects.
//!
//! What has expired is announced first, and for `archive_ext.expire_grace` nothing happens to it: the policy can be changed, the partition
//! brought back, a legal hold set. Then a job takes the partition out of `archive.<table>` in one committed step, which leaves a
//! certificate, and deletes every version of every object in the next ones. Of rows that were archived one by one each object ends by itself.

mod rows;

use std::collections::BTreeSet;

use archive_core::naming::KeyName;
use archive_core::store::BlockingStore;
use serde_json::json;

use super::{chain, clock, copies, steps, storage as opened, throttle};
use crate::catalog::expiry::{self, Expiring, Remaining};
use crate::catalog::job::Job;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::catalog::{self, archived, hold, storage, writers};
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::{discover, locks, swap};
use crate::pg::relation::LockMode;
use crate::pg::server_text::log;
use crate::pg::{interrupts, wal};

/// Objects deleted in one step.
const AT_ONCE: usize = 200;

/// Announces what has expired, takes back what has not any more, and adds a job for what was announced long enough ago; how many jobs.
pub fn schedule(table: &TablePolicy) -> Result<i32> {
    let now = clock::now()?;
    for name in expiry::take_back(table.source, now)? {
        catalog::event::record(table.source, &name, "expiry_withdrawn", "ARCHIVED", None, json!({}))?;
    }
    if table.policy.expire_after.is_none() {
        return Ok(0);
    }
    let mut added = 0;
    for one in expiry::expired(table.source, now)? {
        if !one.is_announced {
            announce(table, &one)?;
        } else if one.is_over && one.held_for.is_none() && !one.has_local_copy && !one.is_given_up {
            added += i32::from(catalog::queue::add(&NewJob {
                operation: "expire",
                table: table.source,
                name: &one.name,
                partition: Some(one.foreign_table),
                request: json!({ "id": one.id }),
                reason: &one.reason,
                storage: Some(&one.storage),
            })?);
        }
    }
    Ok(added)
}

fn announce(table: &TablePolicy, one: &Expiring) -> Result<()> {
    let until = expiry::announce(one, guc::expire_grace_seconds())?;
    let details = json!({ "reason": one.reason, "delete_after": until });
    log!("archive_ext: {} will be deleted after {}: {}", one.name, until, one.reason);
    catalog::event::record(table.source, &one.name, "expiring", "ARCHIVED", None, details)
}

/// Does the next step of such a job. What it is about is in its request, which `retry_job` leaves as it is.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let asked = |what: &str| job.request.get(what).and_then(serde_json::Value::as_i64);
    let Some(id) = asked("id") else { return steps::done(job.id, 0) };
    locks::claim_partition(&job.partition_name)?;
    match asked("certificate") {
        None => withdraw(job, id),
        Some(certificate) => delete(job, id, certificate),
    }
}

/// Takes the partition out of the archive. Whatever kept it from expiring meanwhile ends the job: it is not due any more.
fn withdraw(job: &Job, id: i64) -> Result<(bool, String)> {
    let Some(one) = due(job, id)? else { return steps::done(job.id, 0) };
    if one.archived_until.is_some() {
        return rows::withdraw(job, id);
    }
    let Some(subject) = archived::find(id)? else { return steps::done(job.id, 0) };
    let store = opened::open_for(&one.storage, discover::owner(job.table)?)?;
    storage::require_ours(&one.storage, &store)?;
    let parent = discover::leaf(one.foreign_table)?.and_then(|leaf| leaf.parent);
    let wanted = parent.into_iter().chain([one.foreign_table]).map(|oid| (oid, LockMode::AccessExclusive));
    locks::acquire_all(&wanted.collect::<Vec<_>>())?;
    // The locks may have been waited for. Who sets a hold waits for the partition, which is ours.
    let Some(one) = due(job, id)? else { return steps::done(job.id, 0) };
    swap::drop_foreign(one.foreign_table)?;
    let certificate = expiry::withdraw(id, &store.location().to_string())?;
    let details = json!({ "reason": one.reason, "certificate": certificate, "version": subject.version });
    catalog::event::record(job.table, &one.name, "expired", "ARCHIVED", Some(job.id), details)?;
    catalog::job::set_request(job.id, &json!({ "certificate": certificate }))?;
    catalog::job::advance(job.id, "withdrawn", &json!({}))?;
    Ok((true, "withdrawn".to_owned()))
}

/// What the job is about, if it still is to be deleted; an error when it is held.
fn due(job: &Job, id: i64) -> Result<Option<Expiring>> {
    let expired = expiry::expired(job.table, clock::now()?)?;
    let is_it = |one: &Expiring| one.id == id && one.is_over && Some(one.foreign_table) == job.partition;
    let Some(one) = expired.into_iter().find(is_it).filter(|one| !one.has_local_copy) else { return Ok(None) };
    refuse_held(&one.name, one.held_for.as_deref())?;
    Ok(Some(one))
}

fn refuse_held(partition: &str, held_for: Option<&str>) -> Result<()> {
    let Some(reason) = held_for else { return Ok(()) };
    Err(hold::refusal(format!("archived partition \"{partition}\" is under a legal hold"), reason))
}

/// Deletes some of what the certificate names. A step that is done again finds nothing left of what went before.
fn delete(job: &Job, id: i64, certificate: i64) -> Result<(bool, String)> {
    let Some(remaining) = expiry::remaining(certificate)? else { return steps::done(job.id, 0) };
    let from = job.progress.get("deleted").and_then(serde_json::Value::as_u64).unwrap_or(0) as usize;
    // What says that they go is locked as they were.
    let store =
        opened::open_to_rewrite(&remaining.storage, job.table, discover::owner(job.table)?)?.paced(throttle::pace);
    refuse_moved(&remaining, &store)?;
    storage::require_ours(&remaining.storage, &store)?;
    refuse_held(&remaining.partition_name, hold::reasons(id)?.as_deref())?;
    if rows::is_about(job)
        && let Some(before) = rows::prepare(job, id, certificate, &remaining, &store)?
    {
        return Ok(before);
    }
    let some: Vec<_> = remaining.keys.iter().skip(from).take(AT_ONCE).cloned().collect();
    alone(&some)?;
    // What took the partition out of the archive is in the log on disk before its objects go.
    wal::flush();
    let kept = expiry::needed(id, &remaining.storage, &some)?;
    let gone: Vec<_> = some.iter().filter(|key| !kept.contains(key)).cloned().collect();
    chain::announce(&remaining.storage, &store, &gone, &format!("expired, certificate {certificate}"))?;
    let mut versions = 0;
    for key in &gone {
        interrupts::check();
        versions += store.delete_versions(key)?;
    }
    catalog::chain::set_removed(&remaining.storage, &store, &gone)?;
    versions += copies::delete(&remaining.storage, &gone, discover::owner(job.table)?)?;
    expiry::note_deleted(certificate, versions)?;
    let kept = [kept_before(job), kept].concat();
    let deleted = from + some.len();
    if deleted < remaining.keys.len() {
        catalog::job::advance(job.id, "deleting", &json!({ "deleted": deleted, "kept": kept }))?;
        return Ok((true, "deleting".to_owned()));
    }
    let gone: Vec<_> = remaining.keys.iter().filter(|key| !kept.contains(key)).cloned().collect();
    expiry::certify(certificate, id, &gone, &kept)?;
    let details = json!({ "certificate": certificate, "objects": gone.len(), "kept": kept });
    catalog::event::record(job.table, &remaining.partition_name, "deleted", "ARCHIVED", Some(job.id), details)?;
    steps::done(job.id, 0)
}

fn refuse_moved(remaining: &Remaining, store: &BlockingStore) -> Result<()> {
    if store.location().to_string() == remaining.location {
        return Ok(());
    }
    let (storage, partition) = (&remaining.storage, &remaining.partition_name);
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("storage \"{storage}\" is another place than the objects of \"{partition}\""),
    )
    .detail(format!("They are in {}, and the storage is {}.", remaining.location, store.location()))
    .hint("Put the location of the foreign server back."))
}

fn kept_before(job: &Job) -> Vec<String> {
    let kept = job.progress.get("kept").and_then(serde_json::Value::as_array);
    kept.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// No run may come to name these objects meanwhile, nor a collection remove them.
fn alone(keys: &[String]) -> Result<()> {
    let families: BTreeSet<_> = keys.iter().filter_map(|key| KeyName::of(key).family()).collect();
    let unfinished = writers::unfinished_families()?;
    for family in families {
        if unfinished.contains(&family) || !writers::try_hold_family(&family)? {
            return Err(Error::new(
                SqlState::ERRCODE_OBJECT_IN_USE,
                format!("another session or job works on the objects of \"{family}\""),
            )
            .hint("The deletion goes on when that is over."));
        }
    }
    Ok(())
}
