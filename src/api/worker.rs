//! The rows behind the view `archive_ext.workers`, and why nothing runs by itself.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::{storage, throttle};
use crate::error::{OrRaise, Result};
use crate::guc;
use crate::pg::worker_table;

#[pg_schema]
mod archive_ext {
    use super::*;

    /// The launcher and the job workers of the cluster; empty when the library was not preloaded.
    #[pg_extern]
    #[allow(clippy::type_complexity)]
    pub fn worker_slots() -> TableIterator<
        'static,
        (
            name!(pid, Option<i32>),
            name!(kind, &'static str),
            name!(database, Option<pg_sys::Oid>),
            name!(role, Option<pg_sys::Oid>),
            name!(state, &'static str),
            name!(job_id, Option<Uuid>),
            name!(since, Option<TimestampWithTimeZone>),
            name!(detail, Option<String>),
        ),
    > {
        TableIterator::new(worker_table::all().into_iter().map(|slot| {
            (
                Some(slot.pid).filter(|pid| *pid != 0),
                if slot.role == 0 { "launcher" } else { "worker" },
                Some(slot.database).filter(|oid| *oid != 0).map(pg_sys::Oid::from),
                Some(slot.role).filter(|oid| *oid != 0).map(pg_sys::Oid::from),
                worker_table::STATES.get(usize::from(slot.state)).copied().unwrap_or_default(),
                slot.job.map(Uuid::from_bytes),
                TimestampWithTimeZone::try_from(slot.since).ok(),
                Some(slot.detail()).filter(|detail| !detail.is_empty()),
            )
        }))
    }

    /// Why no background worker does anything in this database; NULL when they do.
    #[pg_extern]
    pub fn worker_hold() -> Option<String> {
        super::worker_hold().or_raise()
    }

    /// Why jobs wait for others just now; NULL when they need not.
    #[pg_extern]
    pub fn throttled() -> Option<String> {
        throttle::hold().or_raise().map(|hold| hold.to_string())
    }
}

fn worker_hold() -> Result<Option<String>> {
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
