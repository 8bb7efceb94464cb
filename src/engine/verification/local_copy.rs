//! The third phase: the local copy goes, right after the archive was read back and the local copy compared with it.

use pgrx::Uuid;

use super::check::Checker;
use super::{Found, Level, check_owner, failed, local, look, name, pass};
use crate::catalog;
use crate::catalog::archived::{self, Subject};
use crate::engine::copies;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::{check, locks, swap};
use crate::pg::relation::LockMode;
use crate::pg::user;

/// A local copy that is no more.
#[derive(Debug)]
pub struct Dropped {
    /// Qualified name of the partition.
    pub partition: String,
    /// What the local copy was called.
    pub local_copy: String,
    /// Rows that are in the storage alone now.
    pub rows: u64,
    /// Bytes that are free.
    pub bytes: u64,
}

/// Reads the archive of a partition back, compares the local copy with it, and drops the local copy.
///
/// Locks: ACCESS SHARE on the foreign table; SHARE ROW EXCLUSIVE on the local copy while it is compared, ACCESS EXCLUSIVE to drop it.
/// Errors: XX001 when the archive is not what was archived, 55000 when the local copy is another by now; nothing is dropped then.
pub fn drop_local_copy(partition: &str) -> Result<Dropped> {
    check::transaction("drop_local_copy")?;
    let subject = name::one(partition)?;
    locks::claim_partition(&subject.name)?;
    let subject = archived::find(subject.id)?.filter(|subject| subject.local_copy.is_some());
    let Some(subject) = subject else { return Err(no_local_copy(partition)) };
    let (mut found, _) = look(&subject, Level::Content, None)?;
    let Found { faults, .. } = &found;
    if !faults.is_empty() {
        return Err(failed(&subject, faults));
    }
    pass(&subject, &mut found)?;
    drop_compared(&subject, None)
}

fn no_local_copy(partition: &str) -> Error {
    let message = format!("there is no local copy of \"{partition}\"");
    Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .hint("archive_ext.partitions tells which partitions have one, and until when it stays.")
}

/// Drops the local copy of what was verified and is claimed, unless its rows are others by now.
pub(super) fn drop_compared(subject: &Subject, job: Option<Uuid>) -> Result<Dropped> {
    let gone = || no_local_copy(&subject.name);
    let local = subject.local_copy.map(discover::leaf).transpose()?.flatten().ok_or_else(gone)?;
    for owner in [discover::owner(subject.source)?, local.owner] {
        if !user::has_privileges_of(owner) {
            check_owner(subject.source)?;
            return Err(Error::new(
                SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
                format!("must be owner of table {}", local.qualified()),
            ));
        }
    }
    copies::ensure(subject)?;
    locks::acquire(local.oid, &local.qualified(), LockMode::ShareRowExclusive)?;
    if let Some(difference) = local::compare_digests(subject, &Checker::open(subject, job)?, local.oid)? {
        return Err(changed(subject, &local, &difference));
    }
    swap::drop_detached(std::slice::from_ref(&local))?;
    archived::forget_local_copy(subject.id)?;
    let details = serde_json::json!({
        "local_copy": local.qualified(), "rows": subject.digest.rows, "bytes": local.total_bytes, "version": subject.version,
    });
    catalog::event::record(subject.source, &subject.name, "local_copy_dropped", "ARCHIVED", job, details)?;
    Ok(Dropped {
        partition: subject.name.clone(),
        local_copy: local.qualified(),
        rows: subject.digest.rows,
        bytes: local.total_bytes,
    })
}

fn changed(subject: &Subject, local: &Leaf, difference: &str) -> Error {
    let message = format!("the local copy of \"{}\" is not what was archived", subject.name);
    Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail(format!("Of {}: {difference}.", local.qualified()))
        .hint(
            "Nothing was dropped. If its rows are the right ones, reattach the partition and archive it again; if those in the \
             archive are, DROP TABLE the local copy.",
        )
}
