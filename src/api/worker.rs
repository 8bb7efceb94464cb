//! The rows behind the view `archive_ext.workers`, and why nothing runs by itself.

use std::time::Duration;

use pgrx::Uuid;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::iter::TableIterator;
use pgrx::prelude::*;

use crate::engine::{lifecycle, throttle};
use crate::error::OrRaise;
use crate::pg::{background, user, worker_table};

#[pg_schema]
mod archive_ext {
    use super::*;

    /// The launcher and the job workers of roles whose sessions the caller sees in `pg_stat_activity`, all of them for readers of all archives; empty when the
    /// library was not preloaded. How busy the cluster is, which is why a worker waits, only readers of all statistics see.
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
        let statistics = user::reads_all_statistics();
        let mut slots = worker_table::all();
        let everything = user::reads_all_archives();
        slots.retain(|slot| slot.role == 0 || everything || user::sees_activity_of(slot.role.into()));
        TableIterator::new(slots.into_iter().map(move |slot| {
            (
                Some(slot.pid).filter(|pid| *pid != 0),
                if slot.role == 0 { "launcher" } else { "worker" },
                Some(slot.database).filter(|oid| *oid != 0).map(pg_sys::Oid::from),
                Some(slot.role).filter(|oid| *oid != 0).map(pg_sys::Oid::from),
                worker_table::STATES.get(usize::from(slot.state)).copied().unwrap_or_default(),
                slot.job.map(Uuid::from_bytes),
                TimestampWithTimeZone::try_from(slot.since).ok(),
                Some(slot.detail()).filter(|detail| !detail.is_empty() && (statistics || slot.role == 0)),
            )
        }))
    }

    /// Why no background worker does anything in this database; NULL when they do.
    #[pg_extern]
    pub fn worker_hold() -> Option<String> {
        lifecycle::worker_hold().or_raise()
    }

    /// Waits for so many seconds, whatever the clock is set to meanwhile: `pg_sleep` lasts until a time of day.
    #[pg_extern]
    pub fn pause(seconds: f64) {
        const LONGEST: f64 = 1e9;
        background::pause(Duration::try_from_secs_f64(seconds.clamp(0.0, LONGEST)).unwrap_or_default());
    }

    /// Why jobs wait for others just now; NULL when they need not.
    #[pg_extern]
    pub fn throttled() -> Option<String> {
        throttle::hold().or_raise().map(|hold| throttle::told(&hold))
    }
}
