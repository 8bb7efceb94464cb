//! `glacier_after`: the objects of an archived partition move to an archive class, some in each step; of a row set those whose time has come.
//!
//! What is there cannot be read back, so the proof comes before: an object is read and compared, and then copied, unless the store says
//! of each copy which SHA-256 it has.

use archive_core::codec::sha256_of;
use archive_core::store::{BlockingStore, is_frozen};

use crate::catalog::archived::{self, Subject};
use crate::catalog::finding::{self, Finding};
use crate::catalog::job::Job;
use crate::catalog::tier::{self, Movable};
use crate::catalog::{self, storage};
use crate::engine::{clock, lifecycle, rewrite, steps, storage as opened, throttle};
use crate::error::{Error, Result, SqlState};
use crate::partition::{discover, locks};
use crate::pg::interrupts;

/// Objects moved in one step, and bytes after which it ends.
const AT_ONCE: usize = 50;
const STEP_BYTES: u64 = 8 << 30;

/// Does the next step of such a job. Whatever made it due may be over by then.
pub fn step(job: &Job) -> Result<(bool, String)> {
    locks::claim_partition(&job.partition_name)?;
    let policy = catalog::policy::of(job.table)?;
    let Some(subject) = subject(job)?.filter(|_| policy.glacier_after.is_some()) else { return steps::done(job.id, 0) };
    let class = policy.glacier_class();
    let objects = objects(&subject, class)?;
    let store = opened::open_for(&subject.storage, discover::owner(subject.source)?)?.paced(throttle::pace);
    storage::require_ours(&subject.storage, &store)?;
    let mut mover = Mover { subject: &subject, store, class, proves: false, bytes: 0 };
    let mut moved = 0;
    for object in objects.iter().take(AT_ONCE) {
        if mover.bytes >= STEP_BYTES {
            break;
        }
        if let Err(error) = mover.go(object) {
            // What was found stays noted, and what was moved before, although the job fails.
            if error.sqlstate() == SqlState::ERRCODE_DATA_CORRUPTED {
                note(&subject, object, &error)?;
            }
            lifecycle::failed(job.id, &error)?;
            return Ok((false, "failed".to_owned()));
        }
        moved += 1;
    }
    failpoint!("glacier_moved");
    let so_far = job.progress.get("moved").and_then(serde_json::Value::as_u64).unwrap_or(0) + moved as u64;
    if moved < objects.len() {
        catalog::job::advance(job.id, "moving", &serde_json::json!({ "moved": so_far }))?;
        return Ok((true, "moving".to_owned()));
    }
    if !subject.row_set {
        if finding::any(subject.id)? {
            lifecycle::failed(job.id, &damaged(&subject))?;
            return Ok((false, "failed".to_owned()));
        }
        tier::set_glacier(subject.id)?;
    }
    if so_far > 0 || !subject.row_set {
        let details = serde_json::json!({ "storage_class": class, "objects": so_far, "version": subject.version });
        catalog::event::record(subject.source, &subject.name, "moved_to_glacier", "ARCHIVED", Some(job.id), details)?;
    }
    steps::done(job.id, 0)
}

/// What the job is about, if that still is archived as it was, and only there.
fn subject(job: &Job) -> Result<Option<Subject>> {
    let Some(id) = job.request.get("id").and_then(serde_json::Value::as_i64) else { return Ok(None) };
    let same = |subject: &Subject| subject.foreign_table == job.partition && subject.local_copy.is_none();
    Ok(archived::find(id)?.filter(same))
}

/// What is to move now. Other objects of a row set may come to it meanwhile, or be replaced: who then reads the former one by an older
/// snapshot is refused, as by any that moved.
fn objects(subject: &Subject, class: &str) -> Result<Vec<Movable>> {
    if !subject.row_set {
        return tier::movable(subject.id, subject.version, class);
    }
    tier::due_of_rows(subject.id, rewrite::time_field(subject.source)?, class, clock::now()?)
}

struct Mover<'a> {
    subject: &'a Subject,
    store: BlockingStore,
    class: &'a str,
    /// Whether the store said of the last copy which SHA-256 it has: then it will of the next.
    proves: bool,
    bytes: u64,
}

impl Mover<'_> {
    fn go(&mut self, object: &Movable) -> Result<()> {
        interrupts::check();
        let key = &object.key;
        let Some(meta) = self.store.head(key)? else { return Err(self.altered(key, "it is not there")) };
        if meta.bytes != object.bytes {
            return Err(self.altered(key, &format!("it has {} bytes, not {}", meta.bytes, object.bytes)));
        }
        let (etag, version_id) = (meta.etag.as_deref(), meta.version_id.as_deref());
        // The rules of a bucket, or a policy that wanted another class, came first: from there it goes nowhere.
        if let Some(class) = meta.storage_class.as_deref().filter(|class| is_frozen(class) && *class != self.class) {
            return tier::set_class(&self.subject.storage, key, Some(class), etag, version_id);
        }
        // A step that was rolled back may have moved it.
        let is_there = meta.storage_class.as_deref() == Some(self.class);
        if !self.proves && !is_there {
            let sha256 = sha256_of(&mut self.store.reader(key, object.bytes))?;
            self.compare(object, &sha256)?;
        }
        let moved = self.store.set_storage_class(key, self.class)?;
        let meta = &moved.meta;
        let (etag, version_id) = (meta.etag.as_deref(), meta.version_id.as_deref());
        // It is there, whatever it is.
        tier::set_class(&self.subject.storage, key, Some(self.class), etag, version_id)?;
        self.proves = moved.sha256.is_some();
        self.bytes += object.bytes;
        moved.sha256.map_or(Ok(()), |sha256| self.compare(object, &sha256))
    }

    fn compare(&self, object: &Movable, sha256: &str) -> Result<()> {
        if sha256 == object.sha256 {
            let keys = std::slice::from_ref(&object.key);
            return finding::resolve_all(&self.subject.storage, keys, &["missing", "altered", "unreadable"]);
        }
        Err(self.altered(&object.key, &format!("its SHA-256 is {sha256}, not {}", object.sha256)))
    }

    fn altered(&self, key: &str, what: &str) -> Error {
        Error::new(
            SqlState::ERRCODE_DATA_CORRUPTED,
            format!("the archive of \"{}\" is not what was archived", self.subject.name),
        )
        .detail(format!("\"{key}\": {what}."))
        .hint("It does not move to an archive class. Put the object back from a copy or an older version of the bucket, and call retry_job.")
    }
}

fn damaged(subject: &Subject) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("the archive of \"{}\" is not what was archived", subject.name),
    )
    .detail("archive_ext.findings has what was found.")
    .hint(
        "Put the objects back from a copy or an older version of the bucket, verify_archive them, and call retry_job.",
    )
}

fn note(subject: &Subject, object: &Movable, error: &Error) -> Result<()> {
    let what = error.detail_text().unwrap_or(error.message()).trim_end_matches('.');
    let kind = if what.ends_with("it is not there") { "missing" } else { "altered" };
    let details = serde_json::json!({ "what": what, "level": "glacier", "version": subject.version });
    finding::record(&subject.storage, Finding { key: object.key.clone(), kind, partition: Some(subject.id), details })
}
