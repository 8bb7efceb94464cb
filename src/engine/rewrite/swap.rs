//! The end of a rewrite: its manifest, and the catalog.

use archive_core::codec::{Digest, KeyFilter};
use archive_core::manifest::ManifestObject;
use archive_core::store::BlockingStore;
use pgrx::Uuid;

use crate::catalog::rewrite;
use crate::catalog::rewrite::{Numbered, Replacement};
use crate::catalog::row_set::{self, RowSet};
use crate::engine::manifest;
use crate::engine::plan::job_hex;
use crate::error::{Error, Result, SqlState};

/// What was written in the place of some objects of a row set, and verified.
#[derive(Debug)]
pub struct Rewritten {
    /// The objects that go.
    pub gone: Vec<Numbered>,
    /// The objects that come.
    pub objects: Vec<ManifestObject>,
    /// The key filter of each of these, where it has one.
    pub filters: Vec<Option<KeyFilter>>,
    /// Digest of the rows that leave the archive.
    pub left: Digest,
    /// Digest of the rows that are new in it.
    pub added: Digest,
}

/// Names the new objects in the place of the old ones. The row set is locked only here, so that batches wait for no more than a small
/// manifest. `now` is the table's schema and name, `step` the rewrite's number within its job.
///
/// Errors: 42P01 when the row set is gone, 40001 when another session replaced one of the objects first.
pub fn swap(
    set: i64,
    store: &BlockingStore,
    now: &(String, String),
    (job, step): (Uuid, u32),
    rewritten: &Rewritten,
) -> Result<()> {
    let mut set = row_set::lock(set)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the archive was dropped meanwhile"))?;
    failpoint!("rewrite_locked");
    let manifest = write_manifest(&mut set, store, now, (&job_hex(job), step), rewritten)?;
    let Rewritten { gone, objects, filters, left, added } = rewritten;
    rewrite::replace(&set, &Replacement { gone, objects, filters, left, added, manifest: &manifest })?;
    failpoint!("rewrite_replaced");
    Ok(())
}

/// Takes objects out of a row set for good: nothing comes in their place. Arguments and errors as of [`swap`].
pub fn take_out(
    set: i64,
    store: &BlockingStore,
    now: &(String, String),
    step: (Uuid, u32),
    gone: Vec<Numbered>,
) -> Result<()> {
    let mut left = Digest::default();
    gone.iter().for_each(|gone| left.merge(&gone.object.digest));
    let nothing = Rewritten { gone, objects: Vec::new(), filters: Vec::new(), left, added: Digest::default() };
    swap(set, store, now, step, &nothing)
}

/// Writes the manifest and reads it back; its key.
fn write_manifest(
    set: &mut RowSet,
    store: &BlockingStore,
    now: &(String, String),
    step: (&str, u32),
    rewritten: &Rewritten,
) -> Result<String> {
    let mut digest = Digest::default();
    rewritten.objects.iter().for_each(|object| digest.merge(&object.digest));
    let replaces = rewritten.gone.iter().map(|gone| gone.object.key.clone()).collect();
    let hint = "Nothing was changed. Check the storage, then run it again.";
    manifest::settle(store, set, now, step, hint)?;
    let manifest = manifest::next_batch(set, step, digest, rewritten.objects.clone())?;
    let manifest = manifest.replacing(replaces, rewritten.left.rows);
    manifest::put_batch(store, set, now, manifest, hint)
}
