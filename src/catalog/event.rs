//! The history of what happened to partitions.

use archive_core::lifecycle::Status;
use pgrx::{JsonB, Uuid, pg_sys};

use crate::error::Result;
use crate::pg::{spi, user};

/// Writes one event. `event` is a short past participle: `archived`, `reattached`; `status` is LIVE, HOT, WARM or
/// ARCHIVED.
pub fn record(
    table: pg_sys::Oid,
    partition: &str,
    event: &str,
    status: &str,
    job: Option<Uuid>,
    details: serde_json::Value,
) -> Result<()> {
    let actor = user::name_of(user::current());
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.lifecycle_event (table_name, partition_name, event, status, job_id, actor, details)
             VALUES ($1::oid, $2, $3, $4::archive_ext.lifecycle_status, $5, $6::name, $7)",
            &[
                table.into(),
                partition.into(),
                event.into(),
                status.into(),
                job.into(),
                actor.as_str().into(),
                JsonB(details).into(),
            ],
        )
    })?;
    Ok(())
}

/// A partition, or rows of it, that went from one status to another.
#[derive(Debug)]
pub struct Transition<'a> {
    /// The managed table.
    pub table: pg_sys::Oid,
    /// Qualified name of the partition.
    pub partition: &'a str,
    /// A short past participle: `aged`, `merged`, `moved`, `premade`.
    pub event: &'a str,
    /// Status before.
    pub from: Option<Status>,
    /// Status after.
    pub to: Option<Status>,
    /// Why: the policy's rule, or that somebody called a function.
    pub reason: &'a str,
    /// The job that did it.
    pub job: Option<Uuid>,
    /// Anything else worth keeping.
    pub details: serde_json::Value,
}

/// Writes a transition: who, when, from, to, why.
pub fn record_transition(transition: &Transition<'_>) -> Result<()> {
    let actor = user::name_of(user::current());
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.lifecycle_event
               (table_name, partition_name, event, from_status, status, reason, job_id, actor, details)
             VALUES ($1::oid, $2, $3, $4::archive_ext.lifecycle_status, $5::archive_ext.lifecycle_status, $6, $7,
                     $8::name, $9)",
            &[
                transition.table.into(),
                transition.partition.into(),
                transition.event.into(),
                transition.from.map(Status::as_str).into(),
                transition.to.map(Status::as_str).into(),
                transition.reason.into(),
                transition.job.into(),
                actor.as_str().into(),
                JsonB(transition.details.clone()).into(),
            ],
        )
    })?;
    Ok(())
}

/// Writes an event that is about a storage.
pub fn record_storage(storage: &str, event: &str, details: serde_json::Value) -> Result<()> {
    let actor = user::name_of(user::current());
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.lifecycle_event (partition_name, event, actor, details) VALUES ($1, $2, $3::name, $4)",
            &[storage.into(), event.into(), actor.as_str().into(), JsonB(details).into()],
        )
    })?;
    Ok(())
}

/// Adds to the newest event of a partition what its writer did not know: where it came from, and why.
pub fn explain(table: pg_sys::Oid, partition: &str, from: Status, reason: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.lifecycle_event SET from_status = $3::archive_ext.lifecycle_status, reason = $4
             WHERE id = (SELECT max(id) FROM archive_ext.lifecycle_event
                         WHERE table_name = $1::oid AND partition_name = $2)",
            &[table.into(), partition.into(), from.as_str().into(), reason.into()],
        )
    })?;
    Ok(())
}
