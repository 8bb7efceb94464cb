//! `repair_archive`: an object or manifest that is missing or damaged in one of two storages is restored from the other.

use archive_core::codec::sha256_of;
use archive_core::manifest::{BatchManifest, Manifest};
use archive_core::store::{BlockingStore, is_frozen};
use archive_core::{Error as StoreError, ErrorKind};

use super::copy::{self, Item};
use crate::catalog::archived::Subject;
use crate::catalog::{self, finding, object_copy, storage};
use crate::engine::{storage as opened, throttle, verification};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::pg::interrupts;

/// One object that is not what was archived in one of its storages.
#[derive(Debug)]
pub struct Repaired {
    /// Qualified name of the partition or row set.
    pub partition: String,
    /// The storage where it is missing or damaged.
    pub storage: String,
    /// Its key.
    pub key: String,
    /// What is wrong with it.
    pub fault: String,
    /// Whether it is as it was archived again.
    pub repaired: bool,
    /// From where, or why not.
    pub detail: String,
}

/// Reads every object and manifest of what `name` stands for in both storages, and restores what is missing or damaged in one from the
/// other; with `dry_run` only tells. What is whole gives no row.
///
/// Errors: 42704 when nothing archived has the name, 42501 for who may not act as the owner, 55000 where it has no copies; those of the
/// storages, but for what they say about one object.
pub fn repair(name: &str, dry_run: bool) -> Result<Vec<Repaired>> {
    let mut rows = Vec::new();
    let mut copied = false;
    for subject in verification::resolve(name)? {
        let Some(copies) = object_copy::storage_of(subject.id)? else { continue };
        copied = true;
        let owner = discover::owner(subject.source)?;
        let first = opened::open_to_rewrite(&subject.storage, subject.source, owner)?.paced(throttle::pace);
        let second = opened::open_for(&copies, owner)?.paced(throttle::pace);
        if !dry_run {
            storage::require_ours(&subject.storage, &first)?;
            storage::require_ours(&copies, &second)?;
        }
        let both = Both { subject: &subject, copies: &copies, first, second, dry_run };
        for item in copy::items_of(&subject)? {
            interrupts::check();
            rows.extend(both.repair(&item)?);
        }
    }
    if copied {
        return Ok(rows);
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("nothing of \"{name}\" has copies in a second storage"),
    )
    .hint("set_archive_policy(table, copy_storage => 'other') has everything copied that is archived."))
}

struct Both<'a> {
    subject: &'a Subject,
    copies: &'a str,
    first: BlockingStore,
    second: BlockingStore,
    dry_run: bool,
}

impl Both<'_> {
    fn repair(&self, item: &Item) -> Result<Option<Repaired>> {
        let (first, second) = (fault(&self.first, item)?, fault(&self.second, item)?);
        let (name, copies) = (self.subject.storage.as_str(), self.copies);
        let (bad, good, fault, from, to) = match (first, second) {
            (None, None) => return Ok(None),
            (Some(fault), None) => (name, copies, fault, &self.second, &self.first),
            (None, Some(fault)) => (copies, name, fault, &self.first, &self.second),
            (Some(first), Some(second)) => {
                let detail = format!("in {copies} as well: {second}");
                return Ok(Some(self.row(item, name, first, false, detail)));
            }
        };
        if self.dry_run {
            return Ok(Some(self.row(item, bad, fault, false, format!("{good} has it"))));
        }
        copy::hold_families(&[item])?;
        copy::one(from, to, item)?;
        if bad == copies {
            object_copy::note(name, &item.key, copies, item.object.as_ref().map(|(bytes, _)| *bytes))?;
        }
        if bad == name {
            let keys = std::slice::from_ref(&item.key);
            finding::resolve_all(name, keys, &["missing", "altered", "unreadable"])?;
            catalog::tier::forget_class(name, &item.key)?;
        }
        let details = serde_json::json!({ "key": item.key, "storage": bad, "fault": fault, "from": good });
        catalog::event::record(self.subject.source, &self.subject.name, "repaired", "ARCHIVED", None, details)?;
        Ok(Some(self.row(item, bad, fault, true, format!("from {good}"))))
    }

    fn row(&self, item: &Item, storage: &str, fault: String, repaired: bool, detail: String) -> Repaired {
        let (partition, key) = (self.subject.name.clone(), item.key.clone());
        Repaired { partition, storage: storage.to_owned(), key, fault, repaired, detail }
    }
}

/// What is wrong with an object or manifest in a store; `None` when it is what was archived.
fn fault(store: &BlockingStore, item: &Item) -> Result<Option<String>> {
    let Some(meta) = store.head(&item.key)? else { return Ok(Some("it is not there".to_owned())) };
    let Some((bytes, sha256)) = &item.object else {
        let text = match store.get(&item.key) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => return of_object(error),
        };
        let reads = Manifest::from_json(&text).map(drop).or_else(|_| BatchManifest::from_json(&text).map(drop));
        return Ok(reads.err().map(|error| error.message().to_owned()));
    };
    if meta.bytes != *bytes {
        return Ok(Some(format!("it has {} bytes, not {bytes}", meta.bytes)));
    }
    // What cannot be read cannot be damaged by us, and is looked at when it was restored.
    if meta.storage_class.as_deref().is_some_and(is_frozen) && meta.restore.is_none() {
        return Ok(None);
    }
    match sha256_of(&mut store.reader(&item.key, *bytes)) {
        Ok(found) if found == *sha256 => Ok(None),
        Ok(found) => Ok(Some(format!("its SHA-256 is {found}, not {sha256}"))),
        Err(error) => of_object(error),
    }
}

/// What an error says about the object, if it is about that.
fn of_object(error: StoreError) -> Result<Option<String>> {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Corrupt => Ok(Some(error.message().to_owned())),
        _ => Err(error.into()),
    }
}
