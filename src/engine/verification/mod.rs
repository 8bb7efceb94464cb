//! The second and third phase of archiving: what is in the storage is read back again, later and through fresh requests, and only
//! when it still is what was archived may the local copy go. Also by hand, and by samples.

mod check;
mod job;
mod local;
mod local_copy;
mod name;
mod reconcile;

use pgrx::datum::TimestampWithTimeZone;
use pgrx::{Uuid, pg_sys};

use super::{storage, throttle};
use crate::catalog;
use crate::catalog::archived::{self, Subject};
use crate::catalog::finding::{self, Finding};
use crate::catalog::{frozen, restore_request};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::pg::server_text::warning;
use crate::pg::user;
use check::{Checker, Fault};

pub use job::{fates, schedule, step};
pub use local_copy::drop_local_copy;
pub use name::{find, resolve};
pub use reconcile::reconcile;

/// How closely what is in the storage is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each object is there, with its size, and is called by the store what it was when it was last read.
    Checksum,
    /// Every object is read: its SHA-256, every row, the digest of each column.
    Content,
    /// Besides, row by row against the local copy.
    Deep,
}

impl Level {
    /// Parses `checksum`, `content` or `deep` (22023 otherwise).
    pub fn parse(text: &str) -> Result<Self> {
        [Self::Checksum, Self::Content, Self::Deep]
            .into_iter()
            .find(|level| level.as_str() == text.to_ascii_lowercase())
            .ok_or_else(|| {
                Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, format!("unknown verify level \"{text}\"")).hint(
                    "Use 'checksum' (sizes, and what the store calls the objects), 'content' (every object read back, digests \
                     compared) or 'deep' (also row by row with the local copy).",
                )
            })
    }

    /// The name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Checksum => "checksum",
            Self::Content => "content",
            Self::Deep => "deep",
        }
    }
}

/// What a verification found.
#[derive(Debug)]
pub struct Verified {
    /// Qualified name of the partition or row set.
    pub partition: String,
    /// How closely it was looked at: no more than `content` without a local copy.
    pub level: Level,
    /// Objects looked at.
    pub objects: u64,
    /// Rows that they hold; that were read, but for `checksum`.
    pub rows: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// When it was found to be what was archived; `None` when it was not.
    pub verified_at: Option<TimestampWithTimeZone>,
    /// What was found, for people.
    pub result: String,
}

/// Verifies everything that `name` stands for: a table's whole archive, a partition, a row set. What is wrong is in the rows that are
/// returned, in `archive_ext.findings`, in events, and in the log: it is no error.
///
/// What is in a frozen storage class is looked for, and not read.
///
/// Locks: ACCESS SHARE on the foreign tables, which keeps these partitions from being reattached. Errors: 42501 for who may not act
/// as the owner; whatever keeps the storage from being read.
pub fn verify(name: &str, level: Level) -> Result<Vec<Verified>> {
    resolve(name)?.iter().map(|subject| verify_one(subject, level)).collect()
}

/// The same for the archived partition or row set with this id.
pub fn verify_by_id(id: i64, level: Level) -> Result<Option<Verified>> {
    let Some(subject) = archived::find(id)? else { return Ok(None) };
    check_owner(subject.source)?;
    verify_one(&subject, level).map(Some)
}

fn verify_one(subject: &Subject, level: Level) -> Result<Verified> {
    let frozen = level != Level::Checksum && !subject.row_set && restore_request::is_unreadable(subject.id)?;
    let level = if frozen { Level::Checksum } else { level };
    let mut verified = verify_at(subject, level)?;
    if frozen {
        verified.result = format!("{}; not read: it is in a frozen storage class", verified.result);
    }
    Ok(verified)
}

fn verify_at(subject: &Subject, level: Level) -> Result<Verified> {
    let (mut found, local) = look(subject, level, None)?;
    match local {
        None if !found.faults.is_empty() => {
            report(subject, level, &found.faults)?;
            found.verified.result = summary(&found);
        }
        Some(difference) => {
            note_failure(subject, level, &difference)?;
            warning!("archive_ext: {} is not what its local copy is: {difference}", subject.name);
            found.verified.result = difference;
        }
        None => pass(subject, &mut found)?,
    }
    Ok(found.verified)
}

/// What a look at the objects found.
struct Found {
    verified: Verified,
    faults: Vec<Fault>,
}

/// Looks at the objects, and where these are whole and `deep` asks for it, at the local copy; how that differs.
fn look(subject: &Subject, level: Level, job: Option<Uuid>) -> Result<(Found, Option<String>)> {
    if level != Level::Checksum && !subject.row_set {
        frozen::refuse(subject.id)?;
    }
    let mut checker = Checker::open(subject, job)?;
    let deep = level == Level::Deep && subject.local_copy.is_some() && checker.source().is_some();
    let done = if level == Level::Deep && !deep { Level::Content } else { level };
    let faults = checker.everything(done != Level::Checksum)?;
    let difference = if deep && faults.is_empty() { local::compare_rows(subject, &checker)? } else { None };
    let (objects, rows, bytes) = checker.totals();
    let result = match (done, level) {
        (Level::Checksum, _) => checker.told_by_store(),
        (Level::Content, Level::Deep) if subject.local_copy.is_none() => {
            "equal; there is no local copy to compare row by row".to_owned()
        }
        (Level::Content, _) => checker.told_by_reading(),
        (Level::Deep, _) => "equal, and row by row equal to the local copy".to_owned(),
    };
    // Of a row set what can be read is.
    let result = match checker.frozen() {
        0 => result,
        _ if level == Level::Checksum => result,
        frozen => format!("{result}; {frozen} of them not read: they are in a frozen storage class"),
    };
    let verified =
        Verified { partition: subject.name.clone(), level: done, objects, rows, bytes, verified_at: None, result };
    Ok((Found { verified, faults }, difference))
}

/// It is what was archived: noted with the partition, as an event, and in the findings that this settles.
fn pass(subject: &Subject, found: &mut Found) -> Result<()> {
    let verified = &mut found.verified;
    verified.verified_at = archived::set_verified(subject, verified.level.as_str())?;
    let details = serde_json::json!({
        "level": verified.level.as_str(), "version": subject.version, "objects": verified.objects, "rows": verified.rows,
        "bytes": verified.bytes,
    });
    catalog::event::record(subject.source, &subject.name, "verified", "ARCHIVED", None, details)
}

/// What is wrong is noted, each object's fault once, and told.
fn report(subject: &Subject, level: Level, faults: &[Fault]) -> Result<()> {
    for fault in faults {
        let details = serde_json::json!({ "what": fault.what, "level": level.as_str(), "version": subject.version });
        let finding = Finding { key: fault.key.clone(), kind: fault.kind, partition: Some(subject.id), details };
        finding::record(&subject.storage, finding)?;
    }
    note_failure(subject, level, &told(faults))
}

fn note_failure(subject: &Subject, level: Level, what: &str) -> Result<()> {
    let details = serde_json::json!({ "level": level.as_str(), "version": subject.version, "what": what });
    catalog::event::record(subject.source, &subject.name, "verification_failed", "ARCHIVED", None, details)
}

fn summary(found: &Found) -> String {
    format!("{} of {} objects failed: {}", found.faults.len(), found.verified.objects, told(&found.faults))
}

/// The faults as a sentence; of many the first.
fn told(faults: &[Fault]) -> String {
    const MOST: usize = 5;
    let more = match faults.len().saturating_sub(MOST) {
        0 => String::new(),
        more => format!("; and {more} more"),
    };
    let first: Vec<_> = faults.iter().take(MOST).map(|fault| format!("\"{}\": {}", fault.key, fault.what)).collect();
    format!("{}{more}", first.join("; "))
}

/// The error of a verification that must pass before something goes (XX001).
fn failed(subject: &Subject, faults: &[Fault]) -> Error {
    not_as_archived(subject, &told(faults)).hint(format!(
        "The local copy stays. SELECT * FROM verify_archive('{}') notes what is wrong; put the objects back from a copy, or \
         reattach the partition and archive it anew.",
        subject.name
    ))
}

fn not_as_archived(subject: &Subject, what: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("the archive of \"{}\" is not what was archived", subject.name),
    )
    .detail(format!("{what}."))
}

/// How the local copy of an archived partition differs from what is archived; `None` when it does not, or there is none.
pub fn local_copy_differs(id: i64) -> Result<Option<String>> {
    let Some(subject) = archived::find(id)? else { return Ok(None) };
    let Some(local) = subject.local_copy else { return Ok(None) };
    local::compare_digests(&subject, &Checker::open(&subject, None)?, local)
}

/// The storage of a subject with the credentials of the table's owner.
fn open(subject: &Subject) -> Result<archive_core::store::BlockingStore> {
    Ok(storage::open_for(&subject.storage, discover::owner(subject.source)?)?.paced(throttle::pace))
}

/// Only who may act as the owner of the table reads its archive with the owner's credentials (42501).
fn check_owner(source: pg_sys::Oid) -> Result<()> {
    if user::has_privileges_of(discover::owner(source)?) {
        return Ok(());
    }
    let table = catalog::qualified_name(source)?;
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {table}")))
}
