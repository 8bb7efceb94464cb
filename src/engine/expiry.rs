//! The end of an archive: `expire_after`, and nothing else, deletes objects.
//!
//! What has expired is announced first, and for `archive_ext.expire_grace` nothing happens to it: the policy can be changed, the partition
//! brought back, a legal hold set. Then a job takes the partition out of `archive.<table>` in one committed step, which leaves a
//! certificate, and deletes every version of every object in the next ones.

use archive_core::naming::KeyName;
use archive_core::store::BlockingStore;
use serde_json::json;

use super::{clock, storage as opened, throttle};
use crate::catalog::expiry::{self, Expiring};
use crate::catalog::job::Job;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::catalog::{self, archived, hold, named, storage, writers};
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
        } else if one.is_over && one.held_for.is_none() && !one.has_local_copy {
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
    let until = expiry::announce(one.id, guc::expire_grace_seconds())?;
    let details = json!({ "reason": one.reason, "delete_after": until });
    log!("archive_ext: {} will be deleted after {}: {}", one.name, until, one.reason);
    catalog::event::record(table.source, &one.name, "expiring", "ARCHIVED", None, details)
}

/// Does the next step of such a job.
pub fn step(job: &Job) -> Result<(bool, String)> {
    match job.progress.get("certificate").and_then(serde_json::Value::as_i64) {
        None => withdraw(job),
        Some(certificate) => delete(job, certificate),
    }
}

/// Takes the partition out of the archive. Whatever kept it from expiring meanwhile ends the job: it is not due any more.
fn withdraw(job: &Job) -> Result<(bool, String)> {
    let Some(id) = job.request.get("id").and_then(serde_json::Value::as_i64) else { return done(job) };
    locks::claim_partition(&job.partition_name)?;
    let due = expiry::expired(job.table, clock::now()?)?;
    let due = due.into_iter().find(|one| one.id == id && one.is_over && Some(one.foreign_table) == job.partition);
    let Some(one) = due.filter(|one| !one.has_local_copy) else { return done(job) };
    refuse_held(&one.name, one.held_for.as_deref())?;
    let Some(subject) = archived::find(id)? else { return done(job) };
    let store = opened::open_for(&one.storage, discover::owner(job.table)?)?;
    storage::require_ours(&one.storage, &store)?;
    let parent = discover::leaf(one.foreign_table)?.and_then(|leaf| leaf.parent);
    let wanted = parent.into_iter().chain([one.foreign_table]).map(|oid| (oid, LockMode::AccessExclusive));
    locks::acquire_all(&wanted.collect::<Vec<_>>())?;
    swap::drop_foreign(one.foreign_table)?;
    let certificate = expiry::withdraw(id, &store.location().to_string())?;
    let details = json!({ "reason": one.reason, "certificate": certificate, "version": subject.version });
    catalog::event::record(job.table, &one.name, "expired", "ARCHIVED", Some(job.id), details)?;
    catalog::job::advance(job.id, "withdrawn", &json!({ "certificate": certificate, "id": id }))?;
    Ok((true, "withdrawn".to_owned()))
}

fn refuse_held(partition: &str, held_for: Option<&str>) -> Result<()> {
    let Some(reason) = held_for else { return Ok(()) };
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("archived partition \"{partition}\" is under a legal hold"),
    )
    .detail(format!("Reason: {reason}."))
    .hint("An administrator ends it with legal_hold(partition, false)."))
}

/// Deletes some of what the certificate names. A step that is done again finds nothing left of what went before.
fn delete(job: &Job, certificate: i64) -> Result<(bool, String)> {
    let Some(remaining) = expiry::remaining(certificate)? else { return done(job) };
    let noted = |what: &str| job.progress.get(what).and_then(serde_json::Value::as_u64).unwrap_or(0);
    let (from, before) = (noted("deleted") as usize, noted("versions"));
    let store = opened::open_for(&remaining.storage, discover::owner(job.table)?)?.paced(throttle::pace);
    if store.location().to_string() != remaining.location {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "storage \"{}\" is another place than the objects of \"{}\"",
                remaining.storage, remaining.partition_name
            ),
        )
        .detail(format!("They are in {}, and the storage is {}.", remaining.location, store.location()))
        .hint("Put the location of the foreign server back."));
    }
    storage::require_ours(&remaining.storage, &store)?;
    let id = job.progress.get("id").and_then(serde_json::Value::as_i64).unwrap_or_default();
    refuse_held(&remaining.partition_name, hold::reasons(id)?.as_deref())?;
    alone(&remaining.keys)?;
    // What took the partition out of the archive is in the log on disk before its objects go.
    wal::flush();
    let some: Vec<_> = remaining.keys.iter().skip(from).take(AT_ONCE).cloned().collect();
    let (versions, kept) = delete_some(&remaining.storage, &store, &some)?;
    let (deleted, versions) = (from + some.len(), before + versions);
    let kept = [kept_before(job), kept].concat();
    if deleted < remaining.keys.len() {
        let progress =
            json!({ "certificate": certificate, "id": id, "deleted": deleted, "versions": versions, "kept": kept });
        catalog::job::advance(job.id, "deleting", &progress)?;
        return Ok((true, "deleting".to_owned()));
    }
    let gone: Vec<_> = remaining.keys.iter().filter(|key| !kept.contains(key)).cloned().collect();
    named::forget(&remaining.storage, &gone)?;
    expiry::certify(certificate, versions, &kept)?;
    let details = json!({ "certificate": certificate, "objects": gone.len(), "versions": versions, "kept": kept });
    catalog::event::record(job.table, &remaining.partition_name, "deleted", "ARCHIVED", Some(job.id), details)?;
    done(job)
}

fn kept_before(job: &Job) -> Vec<String> {
    let kept = job.progress.get("kept").and_then(serde_json::Value::as_array);
    kept.into_iter().flatten().filter_map(|key| key.as_str().map(str::to_owned)).collect()
}

/// No run may come to name these objects meanwhile, nor a collection remove them.
fn alone(keys: &[String]) -> Result<()> {
    let Some(family) = keys.first().and_then(|key| KeyName::of(key).family()) else { return Ok(()) };
    if writers::try_hold_family(&family)? {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("another session works on the objects of \"{family}\"")))
}

/// How many versions went, and the keys that something else needs.
fn delete_some(storage: &str, store: &BlockingStore, keys: &[String]) -> Result<(u64, Vec<String>)> {
    let needed = named::of(storage, keys)?;
    let (kept, keys): (Vec<_>, Vec<_>) = keys.iter().cloned().partition(|key| needed.get(key) == Some(&true));
    let mut versions = 0;
    for key in &keys {
        interrupts::check();
        versions += store.delete_versions(key)?;
    }
    Ok((versions, kept))
}

fn done(job: &Job) -> Result<(bool, String)> {
    catalog::job::complete(job.id, 0)?;
    Ok((false, "done".to_owned()))
}
