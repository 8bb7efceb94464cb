//! Why nothing is done by itself in this database.

use crate::engine::storage;
use crate::error::Result;
use crate::guc;
use crate::pg::worker_table;

/// Why no background worker does anything in this database; `None` when they do.
pub fn worker_hold() -> Result<Option<String>> {
    if !worker_table::preloaded() {
        return Ok(Some(
            "archive_ext is not in shared_preload_libraries: only CALL run_lifecycle() does what is due".to_owned(),
        ));
    }
    if !guc::worker_enabled() {
        return Ok(Some("archive_ext.worker_enabled is off".to_owned()));
    }
    if worker_table::launcher().is_none() {
        return Ok(Some("the launcher does not run: the server is a standby, or the launcher failed".to_owned()));
    }
    storage::copied()
}
