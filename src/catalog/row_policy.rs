//! What a policy says about tables whose rows move between LIST partitions, and the jobs that move them.

use archive_core::lifecycle::{Epoch, Granularities, Status};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, Uuid, pg_sys};

use super::time_key::EPOCH_MILLIS;
use crate::error::Result;
use crate::pg::{spi, user};

/// The part of a policy that concerns rows.
#[derive(Debug, Clone, Default)]
pub struct RowPolicy {
    /// Length of the periods of each status.
    pub granularities: Granularities,
    /// Column with the time at which a row leaves WARM.
    pub removal_column: Option<String>,
    /// Column with a row's own time.
    pub time_column: Option<String>,
    /// Since when snowflake ids in it count.
    pub key_epoch: Option<Epoch>,
    /// Tablespace of HOT partitions.
    pub hot_tablespace: Option<String>,
    /// Tablespace of WARM partitions.
    pub warm_tablespace: Option<String>,
}

/// The policy of `source`, or the defaults.
pub fn of(source: pg_sys::Oid) -> Result<RowPolicy> {
    let policy = user::elevated(|| {
        spi::optional(
            &format!(
                "SELECT live_granularity, hot_granularity, warm_granularity, archive_granularity, removal_column::text,
                        time_column::text, hot_tablespace::text, warm_tablespace::text, {EPOCH_MILLIS}
                 FROM archive_ext.archive_policy p WHERE source = $1::oid"
            ),
            &[source.into()],
            |row| {
                let mut granularities = Granularities::default();
                for (ordinal, status) in Status::ALL.into_iter().enumerate() {
                    if let Some(name) = row.get::<String>(ordinal + 1)? {
                        granularities.set(status, &name);
                    }
                }
                Ok(RowPolicy {
                    granularities,
                    removal_column: row.get(5)?,
                    time_column: row.get(6)?,
                    hot_tablespace: row.get(7)?,
                    warm_tablespace: row.get(8)?,
                    key_epoch: row.get(9)?.map(Epoch::from_unix_millis),
                })
            },
        )
    })?;
    Ok(policy.unwrap_or_default())
}

/// The age at which rows of the table get `status` (HOT or WARM).
pub fn age(source: pg_sys::Oid, status: Status) -> Result<Option<String>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT CASE $2 WHEN 'HOT' THEN hot_after WHEN 'WARM' THEN warm_after END::text
             FROM archive_ext.archive_policy WHERE source = $1::oid AND enabled",
            &[source.into(), status.as_str().into()],
            |row| row.get::<String>(1),
        )
    })?;
    Ok(found.flatten())
}

/// `now` less the age at which rows of the table get `status` (HOT, WARM; of a plain table ARCHIVED): what ended by then is due. ISO text in UTC.
pub fn due_before(source: pg_sys::Oid, status: Status, now: TimestampWithTimeZone) -> Result<Option<String>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT ($3 - CASE $2 WHEN 'HOT' THEN hot_after WHEN 'WARM' THEN warm_after WHEN 'ARCHIVED' THEN archive_after END)::text
             FROM archive_ext.archive_policy WHERE source = $1::oid AND enabled",
            &[source.into(), status.as_str().into(), now.into()],
            |row| row.get::<String>(1),
        )
    })?;
    Ok(found.flatten())
}

/// A job that moves rows, to be started.
#[derive(Debug)]
pub struct NewRowJob<'a> {
    /// The table.
    pub table: pg_sys::Oid,
    /// Its qualified name.
    pub table_name: &'a str,
    /// Which rows, and to what.
    pub request: &'a serde_json::Value,
    /// Why.
    pub reason: &'a str,
    /// Whose rights its statements run with.
    pub started_by: &'a str,
}

/// The unfinished job of the same role with the same request.
pub fn unfinished(new: &NewRowJob<'_>) -> Result<Option<Uuid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT job_id FROM archive_ext.archival_job
             WHERE operation = 'rows' AND status = 'running' AND table_name = $1::oid AND request = $2
               AND started_by = $3::name ORDER BY started_at LIMIT 1",
            &[new.table.into(), JsonB(new.request.clone()).into(), new.started_by.into()],
            |row| row.need(1),
        )
    })
}

/// Writes the row of a job that starts now in this backend.
pub fn start(id: Uuid, new: &NewRowJob<'_>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archival_job
               (job_id, operation, table_name, partition_name, phase, request, reason, started_by, pid)
             VALUES ($1, 'rows', $2::oid, $3, 'moving', $4, $5, $6::name, pg_backend_pid())",
            &[
                id.into(),
                new.table.into(),
                new.table_name.into(),
                JsonB(new.request.clone()).into(),
                new.reason.into(),
                new.started_by.into(),
            ],
        )
    })?;
    Ok(())
}

/// The role that started a job: its statements run with that role's rights.
pub fn started_by(id: Uuid) -> Result<String> {
    user::elevated(|| {
        spi::one("SELECT started_by::text FROM archive_ext.archival_job WHERE job_id = $1", &[id.into()], |row| {
            row.need(1)
        })
    })
}

/// Schema, name and bounds of the archived partitions of `source`.
pub fn archived_bounds(source: pg_sys::Oid) -> Result<Vec<(String, String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT p.schema_name::text, p.partition_name::text, p.bounds
             FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND p.foreign_table IS NOT NULL ORDER BY p.id",
            &[source.into()],
            |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
        )
    })
}
