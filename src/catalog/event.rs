//! The history of what happened to partitions.

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
