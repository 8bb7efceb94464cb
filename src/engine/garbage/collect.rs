//! `collect_garbage`: removes what nothing names, and what others took the place of, when the retention is over.

use std::collections::HashSet;

use archive_core::ErrorKind;
use archive_core::audit::{Retention, Seen};
use archive_core::naming::KeyName;
use archive_core::store::{BlockingStore, OWNER_KEY, ObjectMeta};
use serde_json::json;

use super::family::{self, Candidate};
use super::{AUDIT, CLOCKS, orphan, uploads};
use crate::catalog::{self, event, finding, hold, named, storage, writers};
use crate::engine::chain::{self, Removing};
use crate::engine::copies;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::check;
use crate::pg::server_text::notice;
use crate::pg::{clock, interrupts, user, wal, xact};

/// The arguments of `collect_garbage`.
#[derive(Debug)]
pub struct Options {
    /// The storage.
    pub storage: String,
    /// The retention.
    pub older_than_seconds: i64,
    /// Only tell what would be removed.
    pub dry_run: bool,
}

/// What became of one object, upload or temporary file whose time is over.
#[derive(Debug)]
pub struct Row {
    /// Its key.
    pub key: String,
    /// `object`, `manifest`, `probe` or `upload`.
    pub kind: &'static str,
    /// Its size.
    pub bytes: Option<u64>,
    /// When it was written, in seconds since 1970.
    pub last_modified: Option<i64>,
    /// Whether it was removed.
    pub removed: bool,
    /// Why not.
    pub detail: Option<String>,
}

/// Deletes in a row that the storage did not answer before the call gives up.
const UNANSWERED: u32 = 3;

/// Removes garbage, or tells what it is.
///
/// Garbage is an object that has been recorded as nobody's for as long as the retention, and one that was replaced as long ago: of an
/// earlier version of a partition, of a partition that was merged or split, or of a row set. The owner marker is read from the storage
/// before each few deletes. Rows of the catalog go after their objects. Locks: for an instant each, those of the runs that could need an
/// object. Errors: 42501, 25001, 55000 when the storage belongs to somebody else or is another place, 22023 for less than
/// `archive_ext.garbage_retention`, 55006 when another session collects, and those of the storage.
pub fn collect(options: &Options) -> Result<Vec<Row>> {
    let name = options.storage.as_str();
    storage::check_administers(name)?;
    check::transaction("collecting garbage")?;
    if !options.dry_run && xact::has_id() {
        return Err(Error::new(
            SqlState::ERRCODE_ACTIVE_SQL_TRANSACTION,
            "collecting garbage must come first in its transaction",
        )
        .detail("What the transaction has replaced would be needed again if it were rolled back.")
        .hint("Commit first."));
    }
    check_retention(options)?;
    let store = storage::open(name, user::current())?;
    storage::require_ours(name, &store)?;
    if !options.dry_run {
        storage::signing_key(name)?;
    }
    keep_out(name)?;
    let retention = Retention { now: clock::unix_now(), seconds: options.older_than_seconds };
    let found = survey(name, &store, retention)?;
    let mut run = Run {
        options,
        store: &store,
        rows: Vec::new(),
        gone: found.gone,
        kept_manifests: HashSet::new(),
        removing: Removing::default(),
        unanswered: 0,
    };
    run.rows.extend(found.kept);
    for (family, group) in family::groups(found.garbage) {
        run.group(&family, group)?;
    }
    found.probes.into_iter().try_for_each(|probe| run.remove(&probe))?;
    run.rows.extend(uploads::collect(&store, retention, options.dry_run)?);
    run.finish(found.young, &found.removals)
}

fn check_retention(options: &Options) -> Result<()> {
    let least = guc::garbage_retention_seconds();
    if options.older_than_seconds >= least {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        "older_than is less than archive_ext.garbage_retention",
    )
    .detail(format!("Objects that nothing needs stay {least} seconds at least, and {} were given.", options.older_than_seconds))
    .hint("Point-in-time recovery and forks need what was needed then. A superuser can set archive_ext.garbage_retention."))
}

/// Keeps every collection of a storage's garbage out until the end of the transaction (55006 while one is under way).
pub fn keep_out(storage: &str) -> Result<()> {
    if writers::try_hold_family(&format!("garbage of {storage}"))? {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("another session collects the garbage of storage \"{storage}\""),
    )
    .hint("Run it again when that session has committed."))
}

/// What of a storage's objects may go.
#[derive(Default)]
struct Found {
    garbage: Vec<Candidate>,
    probes: Vec<ObjectMeta>,
    kept: Vec<Row>,
    /// Keys that were replaced, and are in the storage no more.
    gone: Vec<String>,
    /// Objects whose time is not over, and their bytes.
    young: (u64, u64),
    /// The removals of the chain.
    removals: Vec<String>,
}

fn survey(name: &str, store: &BlockingStore, retention: Retention) -> Result<Found> {
    let mut expected = named::all(name)?;
    let holds = hold::all()?;
    let (mut found, mut orphans, mut known) = (Found::default(), Vec::new(), HashSet::new());
    store.list_pages("", |page| {
        interrupts::check();
        for object in page {
            let seen = expected.see(&object);
            if KeyName::of(&object.key) == KeyName::Removal {
                found.removals.push(object.key);
                continue;
            }
            if let (Some(family), false) = (KeyName::of(&object.key).family(), matches!(seen, Seen::Orphan)) {
                known.insert(family);
            }
            match seen {
                Seen::Replaced(replaced) => {
                    let over = retention.is_over(replaced.replaced_at, replaced.replaced_at) && !replaced.held;
                    if let Some(reason) =
                        replaced.partition.and_then(|partition| holds.get(&partition)).filter(|_| over)
                    {
                        found.kept.push(kept(&object, &format!("under legal hold: {reason}")));
                        continue;
                    }
                    let candidate = Candidate { object, replaced_at: replaced.replaced_at };
                    found.put(candidate, over);
                }
                Seen::Orphan => orphans.push(Candidate { object, replaced_at: None }),
                Seen::Own if object.key != OWNER_KEY => {
                    // One of a check_storage that runs is seconds old.
                    let retention = Retention { seconds: retention.seconds.max(3600), ..retention };
                    if retention.is_over(object.last_modified_unix, object.last_modified_unix) {
                        found.probes.push(object);
                    }
                }
                _ => {}
            }
        }
        Ok::<_, Error>(())
    })?;
    let unseen = expected.unseen();
    known.extend(unseen.iter().filter_map(|(key, _)| KeyName::of(key).family()));
    let over = |at| retention.is_over(at, at);
    found.gone =
        unseen.into_iter().filter(|(_, one)| !one.is_needed() && over(one.replaced_at)).map(|(key, _)| key).collect();
    settle_orphans((name, store), orphans, &known, retention, &mut found)?;
    Ok(found)
}

impl Found {
    fn put(&mut self, candidate: Candidate, over: bool) {
        if over {
            self.garbage.push(candidate);
        } else {
            self.young.0 += 1;
            self.young.1 += candidate.object.bytes;
        }
    }
}

/// Orphans count from when they were first recorded: when they became such nobody else can tell. After recovery to an earlier time, or
/// when the catalog was lost, objects are suddenly nobody's that were written long ago.
fn settle_orphans(
    (name, store): (&str, &BlockingStore),
    orphans: Vec<Candidate>,
    known: &HashSet<String>,
    retention: Retention,
    found: &mut Found,
) -> Result<()> {
    let taken_over = storage::taken_over_at(name, store)?;
    let (families, tables) = importable(&orphans, known, taken_over);
    let is_lost = |one: &Candidate| {
        let lost = match one.name() {
            KeyName::Batch(batch) | KeyName::BatchManifest(batch) => tables.contains(batch.table),
            name => name.family().is_some_and(|family| families.contains(&family)),
        };
        lost && is_older(one, taken_over)
    };
    let (lost, orphans): (Vec<_>, Vec<_>) = orphans.into_iter().partition(is_lost);
    let before = finding::unresolved(name, AUDIT)?;
    let mut new = Vec::new();
    for (family, group) in family::groups(orphans) {
        let (idle, busy) = family::while_idle(
            name,
            (&family, group),
            |left| Ok((left, Vec::new())),
            |why, group| (Vec::new(), group.into_iter().map(|one| (one, why)).collect()),
        )?;
        for candidate in idle {
            let ObjectMeta { key, bytes, last_modified_unix: written, .. } = &candidate.object;
            let since = match before.get(&(key.clone(), "orphaned".to_owned())) {
                Some((since, _)) => *since,
                None => {
                    new.push(orphan(key, *bytes, *written, "orphaned"));
                    retention.now
                }
            };
            let over = retention.is_over(Some(since), *written);
            found.put(candidate, over);
        }
        let over = |one: &Candidate| retention.is_over(one.object.last_modified_unix, one.object.last_modified_unix);
        found.kept.extend(busy.iter().filter(|(one, _)| over(one)).map(|(one, why)| kept(&one.object, why.why())));
    }
    finding::record_all(name, &new)?;
    let why =
        "the catalog has nothing of it: import_archive brings it back; else archive it again, or delete it by hand";
    found.kept.extend(lost.iter().map(|one| kept(&one.object, why)));
    Ok(())
}

/// Partitions and row sets that the catalog has nothing of, and that could be imported as they were when the storage was taken over: it
/// may be the catalog that is wrong, as when the extension was dropped and created again. Their families, and their tables: a batch
/// does not tell its row set.
fn importable(
    orphans: &[Candidate],
    known: &HashSet<String>,
    taken_over: Option<i64>,
) -> (HashSet<String>, HashSet<String>) {
    let of_version = |one: &&Candidate| matches!(one.name(), KeyName::Manifest(_)) && is_older(one, taken_over);
    let unknown = |one: &&Candidate| one.name().family().is_some_and(|family| !known.contains(&family));
    let manifests: Vec<_> = orphans.iter().filter(of_version).filter(unknown).collect();
    let families = manifests.iter().filter_map(|one| one.name().family()).collect();
    (families, manifests.iter().filter_map(|one| one.name().table().map(str::to_owned)).collect())
}

/// Whether it was there when this catalog took the storage over.
fn is_older(one: &Candidate, taken_over: Option<i64>) -> bool {
    taken_over.is_some_and(|at| one.object.last_modified_unix.is_none_or(|written| written <= at + CLOCKS))
}

fn row(object: &ObjectMeta) -> Row {
    Row {
        key: object.key.clone(),
        kind: KeyName::of(&object.key).kind(),
        bytes: Some(object.bytes),
        last_modified: object.last_modified_unix,
        removed: false,
        detail: None,
    }
}

fn kept(object: &ObjectMeta, why: &str) -> Row {
    Row { detail: Some(why.to_owned()), ..row(object) }
}

struct Run<'a> {
    options: &'a Options,
    store: &'a BlockingStore,
    rows: Vec<Row>,
    /// Keys whose objects are in the storage no more.
    gone: Vec<String>,
    /// Families whose manifest could not be removed: what it names stays, too.
    kept_manifests: HashSet<String>,
    /// What the chain of manifests is told; the catalog at the end, for nothing may be written to it on the way.
    removing: Removing,
    unanswered: u32,
}

impl Run<'_> {
    /// Removes what is garbage of one family. Nobody who could need it works meanwhile.
    fn group(&mut self, family: &str, group: Vec<Candidate>) -> Result<()> {
        let (storage, store, dry_run) = (self.options.storage.as_str(), self.store, self.options.dry_run);
        let rows = family::while_idle(
            storage,
            (family, group),
            |garbage| {
                if !dry_run {
                    // The catalog alone does not tell: another cluster may have taken the storage over since.
                    storage::require_ours(storage, store)?;
                    // What the catalog says by now must not be lost with a crash when the objects are gone.
                    wal::flush();
                    let keys: Vec<_> = garbage.iter().map(|one| one.object.key.clone()).collect();
                    self.removing.write(storage, store, &keys, "garbage")?;
                }
                garbage.iter().try_fold(Vec::new(), |mut rows, one| {
                    let row = match self.kept_manifests.contains(family) && one.is_orphan() {
                        true => kept(&one.object, "its manifest is still there"),
                        false => self.delete(&one.object)?,
                    };
                    if one.name().is_manifest() && !row.removed && !dry_run {
                        self.kept_manifests.insert(family.to_owned());
                    }
                    rows.push(row);
                    Ok::<_, Error>(rows)
                })
            },
            |why, group| group.iter().map(|one| kept(&one.object, why.why())).collect(),
        )?;
        self.rows.extend(rows);
        Ok(())
    }

    fn remove(&mut self, object: &ObjectMeta) -> Result<()> {
        let row = self.delete(object)?;
        self.rows.push(row);
        Ok(())
    }

    /// What the store refuses, as an object under a lock, stays and is told; a store that is gone ends the call.
    fn delete(&mut self, object: &ObjectMeta) -> Result<Row> {
        if self.options.dry_run {
            return Ok(row(object));
        }
        interrupts::check();
        match self.store.delete(&object.key) {
            Ok(()) => {
                self.unanswered = 0;
                self.gone.push(object.key.clone());
                Ok(Row { removed: true, ..row(object) })
            }
            Err(error) => {
                self.unanswered = if error.kind() == ErrorKind::Storage { self.unanswered + 1 } else { 0 };
                if self.unanswered >= UNANSWERED { Err(error.into()) } else { Ok(kept(object, &error.to_string())) }
            }
        }
    }

    fn finish(self, young: (u64, u64), removals: &[String]) -> Result<Vec<Row>> {
        let storage = self.options.storage.as_str();
        if young.0 > 0 {
            notice!("{} more objects ({} bytes) are garbage, and their time is not over", young.0, young.1);
        }
        if self.options.dry_run {
            return Ok(self.rows);
        }
        failpoint!("garbage_removed");
        self.removing.record(storage, self.store)?;
        catalog::chain::set_removed(storage, self.store, &self.gone)?;
        chain::learn_removals(storage, self.store, removals, &self.gone)?;
        copies::delete_or_warn(storage, &self.gone, user::current())?;
        named::forget(storage, &self.gone)?;
        finding::resolve_all(storage, &self.gone, &["orphaned"])?;
        let removed: Vec<_> = self.rows.iter().filter(|row| row.removed).collect();
        let details = json!({
            "removed": removed.len(), "bytes": removed.iter().filter_map(|row| row.bytes).sum::<u64>(),
            "kept": self.rows.len() - removed.len(), "older_than_seconds": self.options.older_than_seconds,
        });
        event::record_storage(storage, "garbage collected", details)?;
        Ok(self.rows)
    }
}
