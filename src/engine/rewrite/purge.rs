//! Deletes what held erased rows from the storage: replaced objects, and everything that earlier versions have and the erased one does not,
//! in every version that the store keeps.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use archive_core::codec::Digest;
use archive_core::naming::{KeyName, encode_ident};
use pgrx::pg_sys;

use crate::catalog::erasure::{self, OldVersions, Open};
use crate::catalog::job::Job;
use crate::catalog::queue::NewJob;
use crate::catalog::{self, hold, named, object_copy, queue, row_set, storage, writers};
use crate::engine::plan::job_hex;
use crate::engine::{chain, copies, manifest, steps, storage as opened, throttle};
use crate::error::Result;
use crate::partition::discover;
use crate::pg::{interrupts, wal};

/// Objects deleted in one step.
const AT_ONCE: usize = 500;
/// Seconds until it is looked again whether somebody still reads them.
const LOOK: f64 = 30.0;

/// Does the next step for the oldest receipt of the job's table whose objects are to be deleted, or puts the job back until that is.
pub fn step(job: &Job) -> Result<(bool, String)> {
    let Some(open) = erasure::oldest(job.table)? else {
        return steps::done(job.id, 0);
    };
    if open.seconds_left > 0.0 {
        return wait(job, open.seconds_left);
    }
    if !open.is_settled {
        let hex = job_hex(job.id);
        open.sets.iter().try_for_each(|set| settle(&hex, job.table, *set))?;
        erasure::set_settled(open.id)?;
        return Ok((true, "settled".to_owned()));
    }
    refuse_held(&open)?;
    if open.is_read {
        return wait(job, LOOK);
    }
    let mut keys = erasure::keys(open.id)?;
    keys.extend(leftovers(job, open.id, &keys)?);
    // An object that is gone must not be named by a manifest.
    keys.sort_by_key(|(_, key)| !KeyName::of(key).is_manifest());
    let families: BTreeSet<_> = keys.iter().filter_map(|(_, key)| KeyName::of(key).family()).collect();
    // Between two steps of a job only its row protects what it wrote.
    let unfinished = writers::unfinished_families()?;
    for family in &families {
        if unfinished.contains(family) || !writers::try_hold_family(family)? {
            return wait(job, LOOK);
        }
    }
    delete(job, &open, &keys)
}

/// Adds the job that deletes what is to be deleted for a table, unless there is one; whether it did.
pub fn queue(source: pg_sys::Oid, name: &str) -> Result<bool> {
    queue::add(&NewJob {
        operation: "erase",
        table: source,
        name,
        partition: None,
        request: serde_json::json!({}),
        reason: "what held erased rows is deleted from the storage",
        storage: None,
    })
}

/// What runs that rolled back left of earlier versions: the catalog never knew it.
fn leftovers(job: &Job, receipt: i64, known: &[(String, String)]) -> Result<Vec<(String, String)>> {
    let known: HashSet<_> = known.iter().map(|(storage, key)| (storage.as_str(), key.as_str())).collect();
    let old = erasure::old_versions(receipt)?;
    let mut places = BTreeSet::new();
    for old in &old {
        places.insert((old.storage.clone(), old.storage.clone(), old.table.clone()));
        let copies = object_copy::storages_of(&old.storage)?.into_iter().chain(copies::wanted(job.table)?);
        places.extend(copies.map(|copies| (copies, old.storage.clone(), old.table.clone())));
    }
    let mut found = Vec::new();
    for (storage, first, table) in places {
        let store = opened::open_for(&storage, discover::owner(job.table)?)?;
        for object in store.list(&format!("{table}/"))? {
            interrupts::check();
            let (KeyName::Data(key) | KeyName::Manifest(key)) = KeyName::of(&object.key) else { continue };
            let is_old = |old: &OldVersions| {
                old.storage == first
                    && old.table == key.table
                    && encode_ident(&old.partition) == key.partition
                    && key.version < old.before
            };
            if old.iter().any(is_old) && !known.contains(&(storage.as_str(), object.key.as_str())) {
                found.push((storage.clone(), object.key.clone()));
            }
        }
    }
    Ok(found)
}

fn wait(job: &Job, seconds: f64) -> Result<(bool, String)> {
    queue::wait(job.id, seconds.max(1.0))?;
    Ok((false, "waiting".to_owned()))
}

/// An import takes what the last transaction took out of a row set of `table` for doubtful, and wants its objects: another manifest, by the
/// job with these hex digits, makes it certain. Locks: the row set.
pub fn settle(job: &str, table: pg_sys::Oid, set: i64) -> Result<()> {
    let Some(mut set) = row_set::lock(set)? else { return Ok(()) };
    let store = opened::open_to_rewrite(&set.storage, table, discover::owner(table)?)?;
    catalog::storage::claim(&set.storage, &store)?;
    let now = discover::schema_and_name(table)?;
    let step = (job, 1);
    let hint = "Nothing was deleted. Check the storage, then retry_job.";
    manifest::settle(&store, &mut set, &now, step, hint)?;
    let empty = manifest::next_batch(&set, step, Digest::default(), Vec::new())?;
    let key = manifest::put_batch(&store, &set, &now, empty, hint)?;
    row_set::settled(&set, &key)
}

fn refuse_held(open: &Open) -> Result<()> {
    for id in open.partitions.iter().chain(&open.sets) {
        let Some(reason) = hold::reasons(*id)? else { continue };
        return Err(hold::refusal(format!("what held rows of erasure {} is under a legal hold", open.id), &reason));
    }
    Ok(())
}

/// Deletes some, and what the catalog knows of them: a step that is done again finds only the rest.
fn delete(job: &Job, open: &Open, keys: &[(String, String)]) -> Result<(bool, String)> {
    let mut by_storage: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (storage, key) in keys {
        by_storage.entry(storage).or_default().push(key.clone());
    }
    // What took their place is in the log on disk before they go.
    wal::flush();
    let (mut left, mut kept) = (AT_ONCE, Vec::new());
    for (storage, keys) in by_storage {
        let needed = named::of(storage, &keys)?;
        let (needed, free): (Vec<_>, Vec<_>) =
            keys.into_iter().partition(|key| needed.get(key).is_some_and(|needed| *needed));
        kept.extend(needed);
        let some: Vec<_> = free.into_iter().take(left).collect();
        if some.is_empty() {
            continue;
        }
        // What says that they go is locked as they were.
        let store = opened::open_to_rewrite(storage, job.table, discover::owner(job.table)?)?.paced(throttle::pace);
        storage::require_ours(storage, &store)?;
        chain::announce(storage, &store, &some, &format!("erased, receipt {}", open.id))?;
        let mut versions = 0;
        for key in &some {
            interrupts::check();
            versions += store.delete_versions(key)?;
        }
        catalog::chain::set_removed(storage, &store, &some)?;
        versions += copies::delete(storage, &some, discover::owner(job.table)?)?;
        named::forget(storage, &some)?;
        erasure::note_deleted(open.id, &some, versions)?;
        left -= some.len();
        if left == 0 {
            catalog::job::advance(job.id, "deleting", &serde_json::json!({ "receipt": open.id }))?;
            return Ok((true, "deleting".to_owned()));
        }
    }
    erasure::complete(open.id)?;
    let details = serde_json::json!({ "receipt": open.id, "kept_for_others": kept.len() });
    catalog::event::record(job.table, &job.partition_name, "erasure_completed", "ARCHIVED", Some(job.id), details)?;
    Ok((true, "deleted".to_owned()))
}
