//! Uploads that were begun and never finished, and the temporary files of a directory.

use archive_core::audit::Retention;
use archive_core::naming::KeyName;
use archive_core::store::{BlockingStore, PendingUpload, TEMP_PREFIX};

use super::CLOCKS;
use super::collect::Row;
use crate::catalog::writers;
use crate::error::Result;
use crate::pg::interrupts;
use crate::pg::server_text::notice;

/// Aborts those that are older than the retention and belong to no transaction that runs: an upload ends with the transaction that began
/// it.
pub(super) fn collect(store: &BlockingStore, retention: Retention, dry_run: bool) -> Result<Vec<Row>> {
    let pending = match store.pending_uploads("") {
        Ok(pending) => pending,
        Err(error) => {
            notice!("unfinished uploads are left alone: {}", error.message());
            return Ok(Vec::new());
        }
    };
    // After the listing: a transaction that begins later has begun none of these.
    let oldest = writers::oldest(store)?;
    let over = |upload: &PendingUpload| retention.is_over(upload.initiated_unix, upload.initiated_unix);
    let mut rows = Vec::new();
    for upload in pending.into_iter().filter(is_ours).filter(over) {
        interrupts::check();
        let alive = oldest.is_some_and(|oldest| upload.initiated_unix.is_none_or(|begun| begun + CLOCKS >= oldest));
        rows.push(abort(store, upload, alive, dry_run));
    }
    Ok(rows)
}

fn is_ours(upload: &PendingUpload) -> bool {
    let name = upload.key.rsplit('/').next().unwrap_or_default();
    name.starts_with(TEMP_PREFIX) || KeyName::of(&upload.key) != KeyName::Foreign
}

fn abort(store: &BlockingStore, upload: PendingUpload, alive: bool, dry_run: bool) -> Row {
    let row = Row {
        key: upload.key.clone(),
        kind: "upload",
        bytes: None,
        last_modified: upload.initiated_unix,
        removed: false,
        detail: None,
    };
    if alive {
        return Row { detail: Some("another session writes to the storage".to_owned()), ..row };
    }
    if dry_run {
        return row;
    }
    match store.abort_pending(&upload) {
        Ok(()) => Row { removed: true, ..row },
        Err(error) => Row { detail: Some(error.message().to_owned()), ..row },
    }
}
