//! The rows behind the view `archive_ext.progress`.

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::catalog;
use crate::error::OrRaise;
use crate::pg::args::Regclass;
use crate::pg::{background, shmem, user};

#[pg_schema]
mod archive_ext {
    use super::*;

    /// The runs in this database that publish their progress, on relations that the caller may SELECT from or whose
    /// statistics he may read, or all for readers of all archives; empty when the library was not preloaded.
    #[pg_extern]
    #[allow(clippy::type_complexity)]
    pub fn progress_slots() -> TableIterator<
        'static,
        (
            name!(pid, i32),
            name!(job_id, Uuid),
            name!(relation, Regclass),
            name!(phase, String),
            name!(rows, i64),
            name!(rows_total, i64),
            name!(bytes, i64),
            name!(phase_started, Option<TimestampWithTimeZone>),
        ),
    > {
        let everything = user::reads_all_statistics() || user::reads_all_archives();
        let mut slots = shmem::running(background::my_database().to_u32());
        slots.retain(|slot| everything || catalog::may_select(slot.relation.into()).or_raise());
        TableIterator::new(slots.into_iter().map(|slot| {
            (
                slot.pid,
                Uuid::from_bytes(slot.job),
                Regclass(pg_sys::Oid::from(slot.relation)),
                shmem::PHASES.get(usize::from(slot.phase)).copied().unwrap_or_default().to_owned(),
                slot.rows as i64,
                slot.rows_total as i64,
                slot.bytes as i64,
                TimestampWithTimeZone::try_from(slot.phase_started).ok(),
            )
        }))
    }
}
