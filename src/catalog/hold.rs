//! `archive_ext.legal_hold`: partitions of whose archive nothing may be deleted, and why.

use std::collections::HashMap;

use crate::error::Result;
use crate::pg::{spi, user};

/// Puts a hold on a partition; whether it had none for this reason.
pub fn set(partition: i64, reason: &str) -> Result<bool> {
    let by = user::name_of(user::current());
    let set = user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.legal_hold (partition_id, reason, set_by) VALUES ($1, $2, $3::name)
             ON CONFLICT (partition_id, reason) WHERE released_at IS NULL DO NOTHING",
            &[partition.into(), reason.into(), by.as_str().into()],
        )
    })?;
    Ok(set > 0)
}

/// Releases a partition's hold for this reason, or all of them; how many.
pub fn release(partition: i64, reason: Option<&str>) -> Result<u64> {
    let by = user::name_of(user::current());
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.legal_hold SET released_at = clock_timestamp(), released_by = $3::name
             WHERE partition_id = $1 AND released_at IS NULL AND ($2 IS NULL OR reason = $2)",
            &[partition.into(), reason.into(), by.as_str().into()],
        )
    })
}

/// Why a partition is held; `None` when it is not.
pub fn reasons(partition: i64) -> Result<Option<String>> {
    user::elevated(|| {
        spi::one(
            "SELECT string_agg(reason, '; ' ORDER BY id) FROM archive_ext.legal_hold
             WHERE partition_id = $1 AND released_at IS NULL",
            &[partition.into()],
            |row| row.get(1),
        )
    })
}

/// The manifests of a partition or row set, of its present version.
pub fn manifests(partition: i64) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT manifest_key FROM archive_ext.partition WHERE id = $1 AND manifest_key IS NOT NULL
             UNION SELECT key FROM archive_ext.batch_manifest WHERE partition_id = $1 ORDER BY 1",
            &[partition.into()],
            |row| row.need(1),
        )
    })
}

/// All partitions that are held, and why.
pub fn all() -> Result<HashMap<i64, String>> {
    let held = user::elevated(|| {
        spi::rows(
            "SELECT partition_id, string_agg(reason, '; ' ORDER BY id) FROM archive_ext.legal_hold
             WHERE released_at IS NULL GROUP BY partition_id",
            &[],
            |row| Ok((row.need::<i64>(1)?, row.need::<String>(2)?)),
        )
    })?;
    Ok(held.into_iter().collect())
}
