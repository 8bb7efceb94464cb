//! `archive_ext.erasure`: receipts of rows that were erased from archives, or corrected in them, and what is still to be deleted for that.
//! The clause is not in it, for it may name a person: its SHA-256 is.

use archive_core::codec::{Digest, sha256_of_bytes};
use archive_core::manifest::ManifestObject;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, pg_sys};
use serde_json::json;

use super::object::MANIFEST_KEY;
use crate::error::Result;
use crate::pg::{spi, user};

/// A change of an archive that this transaction makes.
#[derive(Debug)]
pub struct NewErasure<'a> {
    /// `erase` or `update`.
    pub kind: &'a str,
    /// The table.
    pub source: pg_sys::Oid,
    /// Its qualified name.
    pub table_name: &'a str,
    /// Which rows.
    pub clause: &'a str,
    /// Why.
    pub reason: Option<&'a str>,
    /// Rows deleted from the table.
    pub deleted: u64,
    /// Rows of the archive.
    pub erased: u64,
    /// Digest of these as they were.
    pub digest: &'a Digest,
    /// Objects that held them, with their storages.
    pub gone: &'a [(String, ManifestObject)],
    /// Objects in their place.
    pub new: &'a [(String, ManifestObject)],
    /// Partitions that have a new version.
    pub partitions: &'a [i64],
    /// Row sets.
    pub sets: &'a [i64],
    /// Seconds for which the objects stay.
    pub retention_seconds: i64,
}

/// Writes a receipt; its number, and when the objects are deleted at the earliest.
pub fn add(new: &NewErasure<'_>) -> Result<(i64, TimestampWithTimeZone)> {
    let by = user::name_of(user::current());
    let list = |objects: &[(String, ManifestObject)]| -> serde_json::Value {
        objects
            .iter()
            .map(|(storage, object)| {
                json!({ "storage": storage, "key": object.key, "sha256": object.sha256, "rows": object.rows, "bytes": object.bytes })
            })
            .collect()
    };
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.erasure
               (kind, source, table_name, clause_sha256, reason, requested_by, rows_deleted, rows_of_archive, digest, objects, replaced_by,
                partitions, row_sets, delete_after, deleted_at)
             SELECT $1, $2::oid, $3, $4, $5, $6::name, $7, $8, $9, $10, $11,
                    (SELECT coalesce(jsonb_agg(jsonb_build_object('id', p.id, 'version', p.version,
                               'table', coalesce(split_part(p.manifest_key, '/', 1),
                                 (SELECT split_part(o.key, '/', 1) FROM archive_ext.object o WHERE o.partition_id = p.id ORDER BY o.id DESC LIMIT 1)), 'partition', p.partition_name)), '[]') FROM archive_ext.partition p
                     WHERE p.id = ANY ($12)), $13, clock_timestamp() + make_interval(secs => $14),
                    CASE WHEN $10 = '[]'::jsonb AND cardinality($12) = 0 THEN clock_timestamp() END
             RETURNING id, delete_after",
            &[
                new.kind.into(),
                new.source.into(),
                new.table_name.into(),
                sha256_of_bytes(new.clause.as_bytes()).as_str().into(),
                new.reason.into(),
                by.as_str().into(),
                (new.deleted as i64).into(),
                (new.erased as i64).into(),
                JsonB(serde_json::to_value(new.digest)?).into(),
                JsonB(list(new.gone)).into(),
                JsonB(list(new.new)).into(),
                new.partitions.to_vec().into(),
                new.sets.to_vec().into(),
                (new.retention_seconds as f64).into(),
            ],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// SQL over receipt `e`: whether a legal hold keeps what it is to delete.
pub(super) const HELD: &str = "EXISTS (SELECT FROM archive_ext.legal_hold h WHERE h.released_at IS NULL
    AND (h.partition_id = ANY (e.row_sets)
         OR h.partition_id IN (SELECT (v ->> 'id')::bigint FROM jsonb_array_elements(e.partitions) v)))";

/// A receipt whose objects are not deleted yet.
#[derive(Debug)]
pub struct Open {
    /// Its number.
    pub id: i64,
    /// Seconds until they may be.
    pub seconds_left: f64,
    /// Whether the manifests of its row sets make it certain.
    pub is_settled: bool,
    /// Whether a transaction runs that began before it.
    pub is_read: bool,
    /// Partitions.
    pub partitions: Vec<i64>,
    /// Row sets.
    pub sets: Vec<i64>,
}

fn ids(texts: &[String]) -> Vec<i64> {
    texts.iter().filter_map(|id| id.parse().ok()).collect()
}

/// Tables of the current user's of which something is still to be deleted.
pub fn open_tables(source: Option<pg_sys::Oid>) -> Result<Vec<(pg_sys::Oid, String)>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            &format!("SELECT DISTINCT c.oid, format('%I.%I', n.nspname, c.relname) FROM archive_ext.erasure e JOIN pg_class c ON c.oid = e.source::oid
             JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE e.deleted_at IS NULL AND NOT {HELD} AND pg_has_role($1, c.relowner, 'USAGE') AND ($2 IS NULL OR c.oid = $2)"),
            &[me.into(), source.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// The oldest of a table's that no legal hold keeps.
pub fn oldest(source: pg_sys::Oid) -> Result<Option<Open>> {
    user::elevated(|| {
        spi::optional(
            &format!("SELECT e.id, extract(epoch FROM e.delete_after - clock_timestamp())::float8, e.settled_at IS NOT NULL,
                    EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()
                              AND a.xact_start < coalesce(e.settled_at, clock_timestamp())),
                    ARRAY(SELECT p ->> 'id' FROM jsonb_array_elements(e.partitions) p), e.row_sets::text[]
             FROM archive_ext.erasure e WHERE e.source = $1::oid AND e.deleted_at IS NULL AND NOT {HELD}
             ORDER BY e.delete_after, e.id LIMIT 1"),
            &[source.into()],
            |row| {
                Ok(Open {
                    id: row.need(1)?,
                    seconds_left: row.need(2)?,
                    is_settled: row.need(3)?,
                    is_read: row.need(4)?,
                    partitions: ids(&row.need::<Vec<String>>(5)?),
                    sets: ids(&row.need::<Vec<String>>(6)?),
                })
            },
        )
    })
}

/// The manifests of its row sets make it certain.
pub fn set_settled(id: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute("UPDATE archive_ext.erasure SET settled_at = clock_timestamp() WHERE id = $1", &[id.into()])
            .map(drop)
    })
}

/// Storages and keys of what may hold the rows: the replaced objects, and those and the manifests of earlier versions of the partitions.
/// Manifests come first: an object that is gone must not be named by one.
pub fn keys(id: i64) -> Result<Vec<(String, String)>> {
    user::elevated(|| {
        spi::rows(
            &format!("WITH erased AS (
               SELECT p.id, p.storage, p.manifest_key, (v ->> 'version')::int AS version
               FROM archive_ext.erasure e, jsonb_array_elements(e.partitions) v JOIN archive_ext.partition p ON p.id = (v ->> 'id')::bigint
               WHERE e.id = $1),
             old AS (
               SELECT o.storage::text, o.key, o.version FROM erased e JOIN archive_ext.object o ON o.partition_id = e.id AND o.version < e.version),
             keys AS (
               SELECT e.storage::text, regexp_replace(e.manifest_key, '\\.v\\d+\\.json$', '.v' || n || '.json') AS key, 1 AS rank
               FROM erased e, generate_series(1, e.version - 1) n WHERE e.manifest_key IS NOT NULL
               UNION SELECT o.storage, {MANIFEST_KEY}, 1 FROM old o
               UNION SELECT o.storage, o.key, 2 FROM old o
               UNION SELECT r.storage::text, r.key, 2 FROM archive_ext.erasure e JOIN archive_ext.batch_manifest b ON b.partition_id = ANY (e.row_sets)
                     JOIN archive_ext.replaced_object r ON r.storage = b.storage AND r.replaced_by = b.key AND r.replaced_at <= e.settled_at
                     WHERE e.id = $1
               UNION SELECT o ->> 'storage', o ->> 'key', 2 FROM archive_ext.erasure e, jsonb_array_elements(e.objects) o WHERE e.id = $1)
             SELECT k.storage, k.key FROM keys k, archive_ext.erasure e
             WHERE e.id = $1 AND NOT k.key = ANY (e.deleted_keys) GROUP BY k.storage, k.key ORDER BY min(k.rank), k.key"),
            &[id.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Partitions of a table of which rows were deleted in the table (`leaves`), and those of whose place these or the partitions `archived` took,
/// with a stored version: it has the rows, and stands for nothing any more. Their ids; they are archived anew as a whole from now on.
pub fn disown(source: pg_sys::Oid, leaves: &[pg_sys::Oid], archived: &[i64]) -> Result<Vec<i64>> {
    user::elevated(|| {
        spi::writing_rows(
            "WITH RECURSIVE mine AS (
               SELECT p.id, format('%I.%I', p.schema_name, p.partition_name) AS name, p.hot_table::oid AS leaf, p.superseded_by
               FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
               WHERE m.source = $1::oid AND NOT p.row_set),
             touched AS (
               SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
               WHERE c.oid = ANY ($2)
               UNION SELECT mine.name FROM mine WHERE mine.id = ANY ($3)
               UNION SELECT mine.name FROM mine JOIN touched t ON t.name = ANY (mine.superseded_by))
             UPDATE archive_ext.partition p SET version = p.version + 1, manifest_key = NULL, erased_at = clock_timestamp()
             FROM mine
             WHERE mine.id = p.id AND p.version > 0 AND p.status <> 'ARCHIVED'
               AND (p.superseded_at IS NULL AND mine.leaf = ANY ($2)
                    OR p.superseded_at IS NOT NULL AND mine.name IN (SELECT name FROM touched))
               AND EXISTS (SELECT FROM archive_ext.object o WHERE o.partition_id = p.id)
             RETURNING p.id",
            &[source.into(), leaves.to_vec().into(), archived.to_vec().into()],
            |row| row.need(1),
        )
    })
}

/// A partition that a receipt is about: its first key segment, its name, and the version since which the rows are gone.
#[derive(Debug)]
pub struct OldVersions {
    /// `<schema>.<table>` as keys begin.
    pub table: String,
    /// The partition.
    pub partition: String,
    /// Earlier ones have the rows.
    pub before: u32,
    /// The storage.
    pub storage: String,
}

/// What versions of which partitions a receipt is about, by storage.
pub fn old_versions(id: i64) -> Result<Vec<OldVersions>> {
    user::elevated(|| {
        spi::rows(
            "SELECT v ->> 'table', v ->> 'partition', (v ->> 'version')::int, p.storage::text
             FROM archive_ext.erasure e, jsonb_array_elements(e.partitions) v JOIN archive_ext.partition p ON p.id = (v ->> 'id')::bigint
             WHERE e.id = $1 AND v ->> 'table' IS NOT NULL AND p.storage IS NOT NULL ORDER BY 4, 1",
            &[id.into()],
            |row| {
                Ok(OldVersions {
                    table: row.need(1)?,
                    partition: row.need(2)?,
                    before: row.need::<i32>(3)?.unsigned_abs(),
                    storage: row.need(4)?,
                })
            },
        )
    })
}

/// These are gone, with so many versions of them.
pub fn note_deleted(id: i64, keys: &[String], versions: u64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.erasure SET deleted_keys = deleted_keys || $2, deleted_versions = deleted_versions + $3 WHERE id = $1",
            &[id.into(), keys.to_vec().into(), (versions as i64).into()],
        )
        .map(drop)
    })
}

/// Nothing is left of what held the rows.
pub fn complete(id: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute("UPDATE archive_ext.erasure SET deleted_at = clock_timestamp() WHERE id = $1", &[id.into()])
            .map(drop)
    })
}
