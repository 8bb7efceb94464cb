//! A look at the objects of an archived partition or row set: what the catalog says they are, against what the storage has.

use archive_core::codec::{Digest, RowHasher, sha256_of};
use archive_core::manifest::ManifestObject;
use archive_core::schema::TableSchema;
use archive_core::store::{BlockingStore, ObjectMeta};
use archive_core::{Error as StoreError, ErrorKind};
use pgrx::Uuid;

use crate::catalog::archived::{self, StoredObject, Subject};
use crate::catalog::partition::{self, ArchivedPartition};
use crate::catalog::{self, finding};
use crate::engine::progress::{Phase, Progress};
use crate::engine::{lifecycle, manifest, rewrite};
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource};
use crate::pg::datum;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::xact;
use crate::shape::Archived;

/// Rows between two progress reports.
const TICK_ROWS: u64 = 4096;

/// What a finding about a damaged object may be.
pub(super) const DAMAGE: [&str; 3] = ["missing", "altered", "unreadable"];

/// Something wrong with an object.
#[derive(Debug, Clone)]
pub(super) struct Fault {
    /// The object.
    pub(super) key: String,
    /// `missing`, `altered` or `unreadable`.
    pub(super) kind: &'static str,
    /// What, for people.
    pub(super) what: String,
}

/// What a check came to, other than an error that keeps it from being made.
type Verdict<T = ()> = std::result::Result<T, Fault>;

fn fault<T>(key: &str, kind: &'static str, what: impl Into<String>) -> Result<Verdict<T>> {
    Ok(Err(Fault { key: key.to_owned(), kind, what: what.into() }))
}

/// Reads the objects of one partition or row set.
pub(super) struct Checker<'a> {
    subject: &'a Subject,
    pub(super) store: BlockingStore,
    pub(super) objects: Vec<StoredObject>,
    pub(super) schema: TableSchema,
    /// How rows are read; or why they cannot be, and only bytes are compared.
    rows: std::result::Result<ExportSource, String>,
    /// Whether rows that were read hash as they did when they were archived.
    exact: bool,
    progress: Progress,
    read: (u64, u64, u64),
    /// Objects that the store called what it called them when they were last read, or that were read.
    named: u64,
}

impl<'a> Checker<'a> {
    /// Opens the storage for a job, or for a call by hand; no request is sent. Locks: ACCESS SHARE on the foreign table.
    pub(super) fn open(subject: &'a Subject, job: Option<Uuid>) -> Result<Self> {
        let store = super::open(subject)?;
        let Some(archived) = partition::archived(subject.id)? else { return Err(gone(subject)) };
        let objects = archived::objects(subject)?;
        let foreign_table = subject.foreign_table.ok_or_else(|| gone(subject))?;
        let relation = Relation::open(foreign_table, LockMode::AccessShare).ok_or_else(|| gone(subject))?;
        let rows = shape(relation, &archived)?;
        let exact =
            datum::is_of_this_database(&archived.schema) && catalog::enums::are_as_archived(&archived.schema.enums)?;
        let total = objects.iter().map(|stored| stored.object.rows).sum();
        let mut progress = Progress::new(job.unwrap_or(Uuid::from_bytes([0; 16])), foreign_table, &subject.name, total);
        progress.phase(Phase::Verifying);
        Ok(Self { subject, store, objects, schema: archived.schema, rows, exact, progress, read: (0, 0, 0), named: 0 })
    }

    /// Looks at the manifests and at every object; all that is wrong.
    pub(super) fn everything(&mut self, content: bool) -> Result<Vec<Fault>> {
        let mut faults: Vec<Fault> = self.manifests(content)?.into_iter().chain(self.adds_up()).collect();
        for at in 0..self.objects.len() {
            faults.extend(self.object(at, content)?);
        }
        Ok(faults)
    }

    /// Looks at the manifests, and reads the objects with these ids, in the order of the ids, until `most` bytes were read. All that is
    /// wrong, and the last id.
    pub(super) fn some(&mut self, ids: &[i64], most: u64) -> Result<(Vec<Fault>, Option<i64>)> {
        let mut faults: Vec<Fault> = self.manifests(true)?.into_iter().collect();
        let mut places: Vec<(i64, usize)> =
            self.objects.iter().enumerate().map(|(at, stored)| (stored.id, at)).collect();
        places.retain(|(id, _)| ids.contains(id));
        places.sort_unstable();
        let mut last = None;
        for (id, at) in places {
            if self.read.2 >= most {
                break;
            }
            faults.extend(self.object(at, true)?);
            last = Some(id);
        }
        Ok((faults, last))
    }

    /// The catalog names every object of the partition: their digests make the partition's.
    fn adds_up(&self) -> Option<Fault> {
        let mut all = Digest::default();
        self.objects.iter().for_each(|stored| all.merge(&stored.object.digest));
        if all == self.subject.digest || self.subject.row_set {
            return None;
        }
        let what =
            format!("the catalog has objects of {} rows, and {} were archived", all.rows, self.subject.digest.rows);
        Some(Fault { key: self.subject.manifest_key.clone(), kind: "altered", what })
    }

    /// Looks at one object, by its place in the list; what is wrong with it. Where nothing is, older findings are settled.
    pub(super) fn object(&mut self, at: usize, content: bool) -> Result<Option<Fault>> {
        let Some(stored) = self.objects.get(at).cloned() else { return Ok(None) };
        let content = content && !stored.is_frozen;
        let verdict = self.verdict(&stored, content)?;
        self.read.0 += 1;
        self.read.1 += stored.object.rows;
        self.read.2 += stored.object.bytes;
        if let Err(fault) = verdict {
            return Ok(Some(fault));
        }
        // Only what was read settles what was found by reading.
        let settled = if content { &DAMAGE[..] } else { &DAMAGE[..1] };
        finding::resolve_all(&self.subject.storage, std::slice::from_ref(&stored.object.key), settled)?;
        Ok(None)
    }

    fn verdict(&mut self, stored: &StoredObject, content: bool) -> Result<Verdict> {
        let object = &stored.object;
        let meta = match head(&self.store, object)? {
            Ok(meta) => meta,
            Err(fault) => return Ok(Err(fault)),
        };
        let same_name = stored.etag.is_some() && stored.etag == meta.etag;
        self.named += u64::from(same_name);
        // Another name may be that of the same bytes, put back from a copy: reading tells.
        if !content && (same_name || stored.etag.is_none()) {
            return Ok(Ok(()));
        }
        if let Err(fault) = self.bytes(object)? {
            return Ok(Err(fault));
        }
        if let Err(fault) = self.rows(object)? {
            return Ok(Err(fault));
        }
        self.named += u64::from(!same_name);
        archived::set_verified_object(stored.id, meta.etag.as_deref(), meta.version_id.as_deref())?;
        Ok(Ok(()))
    }

    fn bytes(&self, object: &ManifestObject) -> Result<Verdict> {
        match sha256_of(&mut self.store.reader(&object.key, object.bytes)) {
            Ok(sha256) if sha256 == object.sha256 => Ok(Ok(())),
            Ok(sha256) => fault(&object.key, "altered", format!("its SHA-256 is {sha256}, not {}", object.sha256)),
            Err(error) => damaged(&object.key, "altered", error),
        }
    }

    /// Every row is decoded, made datums of as for queries, and hashed as it was archived.
    fn rows(&mut self, object: &ManifestObject) -> Result<Verdict> {
        let Ok(source) = &self.rows else { return Ok(Ok(())) };
        let mut hasher = RowHasher::new(&self.schema);
        let (progress, before, bytes) = (&mut self.progress, self.read.1, self.read.2);
        let mut rows = 0;
        // A type's input function raises what it does not take.
        let read = xact::subtransaction(|| {
            rewrite::rows(source, &self.store, &self.schema, object, &mut |batch, at, row| {
                rows += 1;
                if u64::is_multiple_of(rows, TICK_ROWS) {
                    progress.tick(before + rows, bytes);
                }
                export::hash_archived(source, &mut hasher, batch, at, &row.row())
            })
        });
        match read.unwrap_or_else(|caught| Err(caught.into())) {
            Ok(()) if hasher.digest() == object.digest => Ok(Ok(())),
            // Of another database, or with labels that are called otherwise now, some values hash otherwise; the bytes are the same.
            Ok(()) if !self.exact && hasher.digest().rows == object.digest.rows => Ok(Ok(())),
            Ok(()) => {
                fault(&object.key, "altered", super::local::difference(&self.schema, &hasher.digest(), &object.digest))
            }
            Err(error) if is_of_the_rows(error.sqlstate()) => fault(&object.key, "unreadable", error.message()),
            Err(error) => Err(error),
        }
    }

    /// The manifests say what the catalog says: without them the storage alone restores nothing (P3).
    pub(super) fn manifests(&self, content: bool) -> Result<Option<Fault>> {
        let subject = self.subject;
        for key in [Some(&subject.manifest_key), subject.last_batch.as_ref()].into_iter().flatten() {
            let verdict = match content {
                true => self.manifest(key)?,
                false => there(&self.store, key)?,
            };
            if let Err(fault) = verdict {
                return Ok(Some(fault));
            }
            let settled = if content { &DAMAGE[..] } else { &DAMAGE[..1] };
            finding::resolve_all(&subject.storage, std::slice::from_ref(key), settled)?;
        }
        Ok(None)
    }

    fn manifest(&self, key: &str) -> Result<Verdict> {
        if let Err(fault) = there(&self.store, key)? {
            return Ok(Err(fault));
        }
        let subject = self.subject;
        let read = match subject.last_batch.as_deref() == Some(key) {
            true => manifest::load_batch(&self.store, key).map(|_| true),
            false => manifest::load(&self.store, key).and_then(|read| match subject.row_set {
                true => Ok(read.schema == self.schema),
                false => partition::recorded_as(subject.id, &read),
            }),
        };
        match read {
            Ok(true) => Ok(Ok(())),
            Ok(false) => fault(key, "altered", "the manifest does not say what the archive catalog says"),
            Err(error) if error.sqlstate() == SqlState::ERRCODE_DATA_CORRUPTED => {
                fault(key, "altered", error.message())
            }
            Err(error) => Err(error),
        }
    }

    /// Objects, rows and bytes looked at so far.
    pub(super) fn totals(&self) -> (u64, u64, u64) {
        self.read
    }

    /// What `checksum` proved.
    pub(super) fn told_by_store(&self) -> String {
        match self.objects.len() as u64 {
            all if all == self.named => "sizes and etags equal".to_owned(),
            all => format!("sizes equal; of {} of {all} objects no etag is known to compare", all - self.named),
        }
    }

    /// What reading proved.
    pub(super) fn told_by_reading(&self) -> String {
        match &self.rows {
            Ok(_) => "equal".to_owned(),
            Err(why) => format!("equal by SHA-256 alone: {why}"),
        }
    }

    /// How many objects must be restored before they can be read: of these it is seen that they are there.
    pub(super) fn frozen(&self) -> usize {
        self.objects.iter().filter(|stored| stored.is_frozen).count()
    }

    /// How the rows are read, if they can be.
    pub(super) fn source(&self) -> Option<&ExportSource> {
        self.rows.as_ref().ok()
    }
}

/// How rows were archived, whatever columns the table has now; or which column has a type that is gone.
fn shape(relation: Relation, archived: &ArchivedPartition) -> Result<std::result::Result<ExportSource, String>> {
    let columns = {
        let _path = GucNest::new().safe_search_path();
        let ArchivedPartition { name, schema, map, archived_at, .. } = archived;
        Archived { name, schema, map, archived_at: *archived_at }.columns()
    };
    match columns {
        Ok(columns) => Ok(Ok(ExportSource::archived(relation, archived.schema.clone(), columns, Vec::new()))),
        Err(error) if error.sqlstate() == SqlState::ERRCODE_FEATURE_NOT_SUPPORTED => {
            Ok(Err(error.detail_text().unwrap_or(error.message()).trim_end_matches('.').to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// The object is there and has its size.
pub(super) fn head(store: &BlockingStore, object: &ManifestObject) -> Result<Verdict<ObjectMeta>> {
    match store.head(&object.key)? {
        None => fault(&object.key, "missing", "it is not there"),
        Some(meta) if meta.bytes != object.bytes => {
            fault(&object.key, "altered", format!("it has {} bytes, not {}", meta.bytes, object.bytes))
        }
        Some(meta) => Ok(Ok(meta)),
    }
}

fn there(store: &BlockingStore, key: &str) -> Result<Verdict> {
    match store.head(key)? {
        None => fault(key, "missing", "it is not there"),
        Some(_) => Ok(Ok(())),
    }
}

/// Whether an error of reading an object, whose bytes are right, is about the rows in it, and not about the storage.
fn is_of_the_rows(state: SqlState) -> bool {
    let code = lifecycle::code_of(state);
    // Class 22 is data exceptions, 23 what a domain refuses.
    code.starts_with("22") || code.starts_with("23") || matches!(code.as_str(), "XX001" | "0A000")
}

/// An error of the storage that says something about the object, other than that the storage cannot be reached.
fn damaged(key: &str, kind: &'static str, error: StoreError) -> Result<Verdict> {
    match error.kind() {
        ErrorKind::NotFound => fault(key, "missing", "it is not there"),
        ErrorKind::Corrupt => fault(key, kind, error.to_string()),
        _ => Err(error.into()),
    }
}

fn gone(subject: &Subject) -> Error {
    Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("the foreign table of \"{}\" is gone", subject.name))
        .hint("reattach_partition or import_archive make one from what is in the storage.")
}
