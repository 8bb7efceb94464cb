//! `archive_ext.legal_hold`: partitions of whose archive nothing may be deleted, and why.

use std::collections::HashMap;

use pgrx::pg_sys;

use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// SQL over partition `p`: why it is held; NULL when it is not.
pub(super) const HELD_FOR: &str = "(SELECT string_agg(h.reason, '; ' ORDER BY h.id) FROM archive_ext.legal_hold h
    WHERE h.partition_id = p.id AND h.released_at IS NULL)";

/// A partition or row set of which something was archived once, wherever its rows are now.
#[derive(Debug)]
pub struct Holdable {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// The hot table at the root.
    pub source: pg_sys::Oid,
    /// Qualified name.
    pub name: String,
    /// Storage of its last objects.
    pub storage: String,
}

const HOLDABLE: &str = "SELECT p.id, m.source::oid, format('%I.%I', p.schema_name, p.partition_name), p.storage::text
    FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
    WHERE (p.version > 0 OR p.row_set) AND p.storage IS NOT NULL";

fn holdable(row: &spi::Row<'_>) -> Result<Holdable> {
    Ok(Holdable { id: row.need(1)?, source: row.need(2)?, name: row.need(3)?, storage: row.need(4)? })
}

/// Those with this name, whether it says the schema or not.
pub fn named(name: &str) -> Result<Vec<Holdable>> {
    let sql = format!(
        "{HOLDABLE} AND parse_ident($1) IN (ARRAY[p.partition_name::text], ARRAY[p.schema_name::text, p.partition_name::text]) ORDER BY p.id"
    );
    user::elevated(|| spi::rows(&sql, &[name.into()], holdable))
}

/// Those of a table that are archived, or held.
pub fn of_table(source: pg_sys::Oid) -> Result<Vec<Holdable>> {
    let sql = format!(
        "{HOLDABLE} AND m.source = $1::oid AND (p.status = 'ARCHIVED' OR EXISTS (
           SELECT FROM archive_ext.legal_hold h WHERE h.partition_id = p.id AND h.released_at IS NULL)) ORDER BY p.id"
    );
    user::elevated(|| spi::rows(&sql, &[source.into()], holdable))
}

/// The keys of everything that was archived of a partition in this storage, in whatever version, and of its manifests.
pub fn keys(partition: i64, storage: &str) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT o.key FROM archive_ext.object o WHERE o.partition_id = $1 AND o.storage = $2::name
             UNION SELECT p.manifest_key FROM archive_ext.partition p
                   WHERE p.id = $1 AND p.manifest_key IS NOT NULL AND p.storage = $2::name
             UNION SELECT b.key FROM archive_ext.batch_manifest b WHERE b.partition_id = $1 AND b.storage = $2::name
             ORDER BY 1",
            &[partition.into(), storage.into()],
            |row| row.need(1),
        )
    })
}

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

/// Notes that the store holds objects of a partition, too.
pub fn note_at_store(partition: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.legal_hold SET at_store = true WHERE partition_id = $1 AND released_at IS NULL",
            &[partition.into()],
        )
    })
    .map(drop)
}

/// Whether the store was ever told to hold objects of a partition.
pub fn was_at_store(partition: i64) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.legal_hold WHERE partition_id = $1 AND at_store)",
            &[partition.into()],
            |row| row.need(1),
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

/// The refusal to delete what is held (55000).
pub fn refusal(message: impl Into<String>, reason: &str) -> Error {
    Error::new(SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE, message)
        .detail(format!("Reason: {reason}."))
        .hint("An administrator ends it with legal_hold(partition, false).")
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
