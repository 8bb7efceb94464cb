//! `legal_hold`: while one lasts nothing is deleted of what was archived of a partition, in whatever version.

use std::collections::{BTreeSet, HashSet};

use archive_core::ErrorKind;
use archive_core::store::BlockingStore;
use pgrx::datum::TimestampWithTimeZone;

use super::{clock, garbage, verification};
use crate::catalog::hold::{self, Holdable};
use crate::catalog::{self, storage};
use crate::error::{Error, Result, SqlState};
use crate::partition::{discover, locks};
use crate::pg::server_text::notice;
use crate::pg::{interrupts, user};

/// What a call did to one partition or row set.
#[derive(Debug)]
pub struct Held {
    /// Qualified name.
    pub partition: String,
    /// Why it is held now; `None` when it is not.
    pub reason: Option<String>,
    /// Objects that the store itself holds, or lets go.
    pub objects: i64,
    /// When.
    pub at: TimestampWithTimeZone,
}

/// Puts a hold on everything that `name` stands for.
///
/// Where objects are locked, as `object_lock` of the storage or the policy says, each of them and the manifests get a legal hold of S3's, too. Locks:
/// those of garbage collection. Errors: 22023 without a reason, 42501 for who may neither act as the owner nor administers archives, 55006 while garbage is
/// collected, and those of the storage, whose objects may be held already then.
pub fn set(name: &str, reason: Option<&str>) -> Result<Vec<Held>> {
    let Some(reason) = reason.map(str::trim).filter(|reason| !reason.is_empty()) else {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "a legal hold needs a reason")
            .hint("legal_hold('partition', reason => 'case 4711'): whoever is refused is told."));
    };
    let subjects = subjects(name)?;
    let mut held = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        let new = hold::set(subject.id, reason)?;
        let objects = at_the_store(subject, true)?;
        if objects > 0 {
            hold::note_at_store(subject.id)?;
        }
        if new {
            record(subject, "held", reason, objects)?;
        }
        held.push(of(subject, objects)?);
    }
    Ok(held)
}

/// Releases the hold for this reason, or all of them, of everything that `name` stands for. Errors: 42501 for others than
/// `archive_ext_admin` and superusers, and those of [`set`].
pub fn release(name: &str, reason: Option<&str>) -> Result<Vec<Held>> {
    if !user::administers_archives() {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, "permission denied to release a legal hold")
            .detail("The owner of a table may set one, and not end it.")
            .hint("A superuser or a member of archive_ext_admin can do this."));
    }
    let subjects = subjects(name)?;
    let mut released = Vec::with_capacity(subjects.len());
    for subject in &subjects {
        if hold::release(subject.id, reason)? == 0 {
            notice!("{} has no such hold", subject.name);
            continue;
        }
        let objects = if hold::reasons(subject.id)?.is_none() { at_the_store(subject, false)? } else { 0 };
        record(subject, "released", reason.unwrap_or("all"), objects)?;
        released.push(of(subject, objects)?);
    }
    Ok(released)
}

/// What `name` stands for: a table's whole archive, or a partition or row set by its name, also where its rows came back since. Nobody may be
/// about to delete what is to be held: collections are kept out, and a job that deletes what has expired is waited for.
fn subjects(name: &str) -> Result<Vec<Holdable>> {
    let found = match verification::find(name) {
        Ok(archived) => {
            let sources: HashSet<_> = archived.iter().map(|subject| subject.source).collect();
            let mut found = hold::named(name)?;
            found.retain(|one| sources.contains(&one.source));
            if found.is_empty() {
                // The name of the table, its archive or its view.
                for source in sources {
                    found.extend(hold::of_table(source)?);
                }
            }
            found
        }
        Err(error) if error.sqlstate() == SqlState::ERRCODE_UNDEFINED_OBJECT => {
            let named = hold::named(name)?;
            if named.is_empty() {
                return Err(error);
            }
            named
        }
        Err(error) => return Err(error),
    };
    for source in found.iter().map(|one| one.source).collect::<HashSet<_>>() {
        if !user::may_administer(discover::owner(source)?) {
            let table = catalog::qualified_name(source)?;
            return Err(Error::new(
                SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of table {table}"),
            ));
        }
    }
    found
        .iter()
        .map(|one| one.storage.as_str())
        .collect::<BTreeSet<_>>()
        .into_iter()
        .try_for_each(garbage::keep_out)?;
    found.iter().try_for_each(|one| locks::wait_for_partition(&one.name))?;
    Ok(found)
}

fn of(subject: &Holdable, objects: i64) -> Result<Held> {
    Ok(Held { partition: subject.name.clone(), reason: hold::reasons(subject.id)?, objects, at: clock::now()? })
}

/// Sets or lifts the store's own holds where objects are locked; on how many objects. It lets go what it was ever told to hold.
fn at_the_store(subject: &Holdable, on: bool) -> Result<i64> {
    let by_storage = storage::options(&subject.storage)?.object_lock.is_some();
    let by_policy = catalog::policy::of(subject.source)?.object_lock.is_some();
    if !by_storage && !by_policy && (on || !hold::was_at_store(subject.id)?) {
        return Ok(0);
    }
    let store = storage::open(&subject.storage, discover::owner(subject.source)?)?;
    let keys = hold::keys(subject.id, &subject.storage)?;
    match keys.iter().try_for_each(|key| set_one(&store, key, on)) {
        // The policy is about new objects, which go to another storage by now.
        Err(error) if error.kind() == ErrorKind::Unsupported && !by_storage => Ok(0),
        held => held.map(|()| keys.len() as i64).map_err(Error::from),
    }
}

fn set_one(store: &BlockingStore, key: &str, on: bool) -> archive_core::Result<()> {
    interrupts::check();
    store.set_legal_hold(key, on)
}

fn record(subject: &Holdable, event: &str, reason: &str, objects: i64) -> Result<()> {
    let details = serde_json::json!({ "reason": reason, "objects_held_by_store": objects });
    catalog::event::record(subject.source, &subject.name, event, "ARCHIVED", None, details)
}
