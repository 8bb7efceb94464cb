//! `audit_storage`: the listing of a storage against the catalog.

use std::collections::{BTreeMap, HashSet};

use archive_core::ErrorKind;
use archive_core::audit::{Expected, Seen};
use archive_core::codec::sha256_of;
use archive_core::naming::KeyName;
use archive_core::store::{BlockingStore, ObjectMeta};
use serde_json::json;

use super::family::{self, Candidate};
use super::{AUDIT, iso, orphan};
use crate::catalog::finding::{self, Finding};
use crate::catalog::{event, named, partition, place, storage};
use crate::engine::manifest;
use crate::error::{Error, Result};
use crate::partition::check;
use crate::pg::server_text::{notice, warning};
use crate::pg::{interrupts, user};

/// Compares a storage with the catalog, records what is wrong, and resolves what was.
///
/// Only what seems to have been written again is read. Locks: for an instant each, those of runs whose objects seem to be
/// nobody's. Errors: 42501 for others than superusers and the foreign server's owner, 25001 in REPEATABLE READ and
/// SERIALIZABLE, 55000 when the storage is another place than its objects, and those of the storage.
pub fn audit(storage: &str) -> Result<Vec<Finding>> {
    storage::check_administers(storage)?;
    check::transaction("auditing a storage")?;
    let store = storage::open(storage, user::current())?;
    place::refuse_moved(storage, &store)?;
    let mut looked = look(storage, &store)?;
    if is_ours(storage, &store)? {
        for group in family::groups(std::mem::take(&mut looked.orphans)) {
            let found = |orphans: Vec<Candidate>| orphans.iter().map(|one| of(&one.object, "orphaned")).collect();
            let group = (group.0.as_str(), group.1);
            looked.findings.extend::<Vec<_>>(family::while_idle(
                storage,
                group,
                |left| Ok(found(left)),
                |_, _| Vec::new(),
            )?);
        }
    } else {
        looked.findings.retain(|finding| finding.kind != "foreign");
        notice!(
            "storage \"{storage}\" belongs to another database, which may have put there what this catalog does not name"
        );
    }
    report(storage, looked)
}

fn is_ours(storage: &str, store: &BlockingStore) -> Result<bool> {
    match storage::require_ours(storage, store) {
        Ok(()) => Ok(true),
        Err(error) if error.sqlstate() == crate::error::SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE => Ok(false),
        Err(error) => Err(error),
    }
}

fn of(object: &ObjectMeta, kind: &'static str) -> Finding {
    orphan(&object.key, object.bytes, object.last_modified_unix, kind)
}

/// What a look at a storage found.
#[derive(Debug, Default)]
struct Looked {
    objects: u64,
    bytes: u64,
    findings: Vec<Finding>,
    orphans: Vec<Candidate>,
}

fn look(storage: &str, store: &BlockingStore) -> Result<Looked> {
    let mut expected = named::all(storage)?;
    let mut looked = Looked::default();
    store.list_pages("", |page| {
        interrupts::check();
        for object in page {
            looked.objects += 1;
            looked.bytes += object.bytes;
            match expected.see(&object) {
                Seen::Same | Seen::Own | Seen::Replaced(_) => {}
                Seen::Orphan => looked.orphans.push(Candidate { object, replaced_at: None }),
                Seen::Foreign => looked.findings.push(of(&object, "foreign")),
                Seen::Resized(expected) => looked.findings.push(altered(store, &object, &expected, json!({}))?),
                Seen::Rewritten(expected) => {
                    looked.findings.extend(if_altered(storage, store, &object, &expected)?);
                }
            }
        }
        Ok::<_, Error>(())
    })?;
    let unseen: Vec<_> = expected.unseen().into_iter().filter(|(_, expected)| expected.is_needed()).collect();
    looked.findings.extend(missing(storage, store, unseen)?);
    Ok(looked)
}

/// What is not listed and not there either, and is still named.
fn missing(storage: &str, store: &BlockingStore, unseen: Vec<(String, Expected)>) -> Result<Vec<Finding>> {
    let keys: Vec<_> = unseen.iter().map(|(key, _)| key.clone()).collect();
    let named = named::of(storage, &keys)?;
    let mut findings = Vec::new();
    for (key, expected) in unseen {
        if named.get(&key) == Some(&true) && store.head(&key)?.is_none() {
            let details = json!({ "by": AUDIT, "expected_bytes": expected.bytes });
            findings.push(Finding { key, kind: "missing", partition: expected.partition, details });
        }
    }
    Ok(findings)
}

/// An object that was written after it was archived may be the same: then its new tag is noted.
fn if_altered(
    storage: &str,
    store: &BlockingStore,
    object: &ObjectMeta,
    expected: &Expected,
) -> Result<Option<Finding>> {
    if KeyName::of(&object.key).is_manifest() {
        return Ok(match is_recorded(store, object, expected)? {
            true => None,
            false => {
                Some(altered(store, object, expected, json!({ "content": "is not the manifest that was archived" }))?)
            }
        });
    }
    let archived = named::sha256(storage, &object.key)?;
    let found = sha256_of(&mut store.reader(&object.key, object.bytes))?;
    if archived.as_deref() == Some(found.as_str()) {
        if let Some(tag) = object.tag() {
            named::note_tag(storage, &object.key, &tag)?;
        }
        return Ok(None);
    }
    altered(store, object, expected, json!({ "sha256": found, "expected_sha256": archived })).map(Some)
}

fn is_recorded(store: &BlockingStore, object: &ObjectMeta, expected: &Expected) -> Result<bool> {
    match (manifest::load(store, &object.key), expected.partition) {
        (Ok(manifest), Some(id)) => partition::recorded_as(id, &manifest),
        _ => Ok(false),
    }
}

fn altered(
    store: &BlockingStore,
    object: &ObjectMeta,
    expected: &Expected,
    more: serde_json::Value,
) -> Result<Finding> {
    // A listing tells no version.
    let head = match store.head(&object.key) {
        Ok(head) => head,
        Err(error) if error.kind() == ErrorKind::NeedsRestore => None,
        Err(error) => return Err(error.into()),
    };
    let mut details = json!({
        "by": AUDIT, "bytes": object.bytes, "expected_bytes": expected.bytes, "etag": object.etag,
        "version_id": head.and_then(|head| head.version_id), "written": object.last_modified_unix.and_then(iso),
    });
    if let (Some(details), serde_json::Value::Object(more)) = (details.as_object_mut(), more) {
        details.extend(more);
    }
    Ok(Finding { key: object.key.clone(), kind: "altered", partition: expected.partition, details })
}

/// Records what was found, resolves what was not found any more, and says so.
fn report(storage: &str, looked: Looked) -> Result<Vec<Finding>> {
    let before = finding::unresolved(storage, AUDIT)?;
    let mut findings = looked.findings;
    findings.sort_by(|one, other| (one.kind, &one.key).cmp(&(other.kind, &other.key)));
    let now: HashSet<_> = findings.iter().map(|finding| (finding.key.as_str(), finding.kind)).collect();
    let mut over: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for ((key, kind), (_, ours)) in &before {
        // What a verification found by reading rows an audit does not see.
        let visible = *ours || kind == "missing";
        if visible && !now.contains(&(key.as_str(), kind.as_str())) {
            over.entry(kind).or_default().push(key.clone());
        }
    }
    over.into_iter().try_for_each(|(kind, keys)| finding::resolve_all(storage, &keys, &[kind]))?;
    finding::record_all(storage, &findings)?;
    let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
    findings.iter().for_each(|finding| *counts.entry(finding.kind).or_default() += 1);
    if !counts.is_empty() {
        let counts: Vec<_> = counts.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        warning!(
            "storage \"{storage}\" is not what the catalog says: {} (see archive_ext.findings)",
            counts.join(", ")
        );
    }
    let details = json!({ "objects": looked.objects, "bytes": looked.bytes, "findings": counts });
    event::record_storage(storage, "storage audited", details)?;
    Ok(findings)
}

/// A manifest in a storage that the catalog knows nothing of, or an older version of.
#[derive(Debug)]
pub struct Newer {
    /// Its key.
    pub key: String,
}

/// Manifests that the catalog does not name, of versions that came after what it knows: as after recovery to an earlier time.
pub fn newer_than_catalog(storage: &str, store: &BlockingStore) -> Result<(Vec<Newer>, Vec<Finding>)> {
    let looked = look(storage, store)?;
    let newer =
        |candidate: Candidate| candidate.name().is_manifest().then(|| Newer { key: candidate.object.key.clone() });
    let broken = looked.findings.into_iter().filter(|finding| finding.kind != "foreign").collect();
    Ok((looked.orphans.into_iter().filter_map(newer).collect(), broken))
}
