//! `archive_ext.partition`: every partition that was ever archived, and where it is now.

use archive_core::lifecycle::Status;
use archive_core::manifest::{Manifest, ManifestObject};
use archive_core::schema::TableSchema;
use pgrx::{JsonB, pg_sys};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::column_map::{self, ColumnMap};
use crate::error::Result;
use crate::pg::row_version::{self, RowVersion};
use crate::pg::{spi, user};

/// What reading an archived partition needs.
#[derive(Debug, Serialize, Deserialize)]
pub struct ArchivedPartition {
    /// Catalog id, the foreign table's only option.
    pub id: i64,
    /// The foreign table that may read it.
    #[serde(serialize_with = "oid_as_number", deserialize_with = "oid")]
    pub foreign_table: Option<pg_sys::Oid>,
    /// `schema.partition` for messages.
    pub name: String,
    /// Storage the objects are in.
    pub storage: String,
    /// Version of the objects.
    pub version: i32,
    /// Rows.
    pub rows: u64,
    /// Size of all objects.
    pub archived_bytes: u64,
    /// Columns as archived.
    pub schema: TableSchema,
    /// When it was archived, in microseconds since 2000-01-01 UTC.
    pub archived_at: i64,
    /// The hot table at the root.
    #[serde(serialize_with = "oid_as_number", deserialize_with = "oid")]
    pub source: Option<pg_sys::Oid>,
    /// Which field each column of the table is now.
    pub map: ColumnMap,
    /// Whether its objects are batches of rows, which come and go one by one.
    pub row_set: bool,
    /// A second storage that has copies of its objects.
    #[serde(default)]
    pub copies: Option<String>,
}

/// The archived partition with this id, as committed now: an older snapshot sees the foreign table, so it must see this.
pub fn archived(id: i64) -> Result<Option<ArchivedPartition>> {
    let text = user::elevated(|| {
        let sql = format!(
            "SELECT jsonb_build_object('id', id, 'foreign_table', foreign_table::oid::bigint,
                    'name', format('%I.%I', schema_name, partition_name), 'storage', storage, 'version', version,
                    'rows', rows, 'archived_bytes', archived_bytes, 'schema', columns,
                    'archived_at', coalesce(((extract(epoch FROM archived_at) - 946684800) * 1000000)::bigint, 0),
                    'source', (SELECT m.source::oid::bigint FROM archive_ext.managed_table m WHERE m.id = managed_table),
                    'row_set', p.row_set, 'copies', {COPIES}, 'map', ({MAP}))
             FROM archive_ext.partition p WHERE id = $1 AND status = 'ARCHIVED' AND columns IS NOT NULL",
            COPIES = super::object_copy::STORAGE,
            MAP = column_map::as_json("p.managed_table")
        );
        spi::latest_text(&sql, &[id])
    })?;
    let Some(text) = text else { return Ok(None) };
    let partition: ArchivedPartition = serde_json::from_str(&text)?;
    Ok(Some(ArchivedPartition { map: partition.map.known_here(), ..partition }))
}

/// The version of its row, which changes with all that [`archived`] and the list of its objects say, but for its column map.
pub fn row_version(id: i64) -> Option<RowVersion> {
    row_version::committed(c"partition", c"partition_pkey", id)
}

/// Whether the snapshot of the query that is running sees this version as archived, too.
pub fn is_in_snapshot(id: i64, version: i32) -> Result<bool> {
    let seen = user::elevated(|| {
        spi::active_text(
            "SELECT id FROM archive_ext.partition WHERE id = $1 AND version = $2 AND status = 'ARCHIVED'",
            &[id, version.into()],
        )
    })?;
    Ok(seen.is_some())
}

fn oid<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<pg_sys::Oid>, D::Error> {
    Ok(Option::<u32>::deserialize(deserializer)?.map(pg_sys::Oid::from))
}

fn oid_as_number<S: Serializer>(oid: &Option<pg_sys::Oid>, serializer: S) -> Result<S::Ok, S::Error> {
    oid.map(pg_sys::Oid::to_u32).serialize(serializer)
}

/// A partition's row as the engine needs it.
#[derive(Debug)]
pub struct Known {
    /// Catalog id.
    pub id: i64,
    /// The hot table at the root.
    pub source: pg_sys::Oid,
    /// Hot schema of the partition.
    pub schema_name: String,
    /// Its name.
    pub partition_name: String,
    /// Immediate hot parent.
    pub parent: pg_sys::Oid,
    /// FOR VALUES clause.
    pub bounds: String,
    /// LIVE, HOT, WARM or ARCHIVED.
    pub status: String,
    /// The foreign table, when archived.
    pub foreign_table: Option<pg_sys::Oid>,
    /// The local copy, while it is kept.
    pub local_copy: Option<pg_sys::Oid>,
    /// Storage of its objects.
    pub storage: Option<String>,
    /// Version of its objects; 0 before the first archive.
    pub version: i32,
    /// Its manifest.
    pub manifest_key: Option<String>,
    /// Its managed table.
    pub managed_table: i64,
    /// When it was archived, in microseconds since 2000-01-01 UTC.
    pub archived_at: i64,
}

/// A local copy that was dropped leaves an OID behind, which a dump prints as a number: in the restored database another
/// table may have it. So the name must be that of a local copy, too.
const COLUMNS: &str = "p.id, m.source::oid, p.schema_name::text, p.partition_name::text, p.parent::oid, p.bounds,
    p.status::text, (SELECT c.oid FROM pg_class c WHERE c.oid = p.foreign_table::oid),
    (SELECT c.oid FROM pg_class c WHERE c.oid = p.local_copy::oid AND c.relkind = 'r'
       AND starts_with(c.relname, p.partition_name || '__local_')), p.storage::text, p.version, p.manifest_key,
    p.managed_table, coalesce(((extract(epoch FROM p.archived_at) - 946684800) * 1000000)::bigint, 0)";

impl Known {
    /// `schema.partition`, quoted where needed.
    pub fn qualified(&self) -> String {
        pgrx::spi::quote_qualified_identifier(&self.schema_name, &self.partition_name)
    }
}

fn known(row: &spi::Row<'_>) -> Result<Known> {
    Ok(Known {
        id: row.need(1)?,
        source: row.need(2)?,
        schema_name: row.need(3)?,
        partition_name: row.need(4)?,
        parent: row.need(5)?,
        bounds: row.need(6)?,
        status: row.need(7)?,
        foreign_table: row.get(8)?,
        local_copy: row.get(9)?,
        storage: row.get(10)?,
        version: row.need(11)?,
        manifest_key: row.get(12)?,
        managed_table: row.need(13)?,
        archived_at: row.need(14)?,
    })
}

fn select(condition: &str) -> String {
    format!(
        "SELECT {COLUMNS} FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         WHERE NOT p.row_set AND {condition} ORDER BY p.id"
    )
}

/// The partition of `source` with this name.
pub fn find(source: pg_sys::Oid, schema: &str, name: &str) -> Result<Option<Known>> {
    user::elevated(|| {
        let sql = select("m.source = $1::oid AND p.schema_name = $2::name AND p.partition_name = $3::name");
        spi::optional(&sql, &[source.into(), schema.into(), name.into()], known)
    })
}

/// The partition with this id.
pub fn by_id(id: i64) -> Result<Option<Known>> {
    user::elevated(|| spi::optional(&select("p.id = $1"), &[id.into()], known))
}

/// All partitions with this name; `schema` narrows them down.
pub fn find_by_name(schema: Option<&str>, name: &str) -> Result<Vec<Known>> {
    user::elevated(|| {
        let sql = select("p.partition_name = $2::name AND ($1 IS NULL OR p.schema_name = $1::name)");
        spi::rows(&sql, &[schema.into(), name.into()], known)
    })
}

/// What took the place of a partition that was merged or split, if something did.
pub fn superseded_by(id: i64) -> Result<Option<String>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT array_to_string(superseded_by, ', ') FROM archive_ext.partition WHERE id = $1 AND superseded_at IS NOT NULL",
            &[id.into()],
            |row| row.get::<String>(1),
        )
    })?;
    Ok(found.map(Option::unwrap_or_default))
}

/// The partitions of `source` that are archived now.
pub fn archived_of(source: pg_sys::Oid) -> Result<Vec<Known>> {
    user::elevated(|| spi::rows(&select("m.source = $1::oid AND p.status = 'ARCHIVED'"), &[source.into()], known))
}

/// The partition that `relation` is the foreign table or the local copy of.
pub fn of_archive_relation(relation: pg_sys::Oid) -> Result<Option<Known>> {
    user::elevated(|| {
        let sql = select("p.status = 'ARCHIVED' AND $1 IN (p.foreign_table::oid, p.local_copy::oid)");
        let found = spi::rows(&sql, &[relation.into()], known)?;
        Ok(found.into_iter().find(|known| [known.foreign_table, known.local_copy].contains(&Some(relation))))
    })
}

/// The columns that the newest archived partition of a managed table was archived with.
pub fn newest_schema(managed_table: i64) -> Result<Option<TableSchema>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT columns FROM archive_ext.partition WHERE managed_table = $1 AND columns IS NOT NULL
             ORDER BY archived_at DESC NULLS LAST, id DESC LIMIT 1",
            &[managed_table.into()],
            |row| row.need::<JsonB>(1),
        )
    })?;
    Ok(found.map(|json| serde_json::from_value(json.0)).transpose()?)
}

/// The highest field id that any archived partition of a managed table has.
pub fn highest_field(managed_table: i64) -> Result<i32> {
    user::elevated(|| {
        spi::one(
            "SELECT coalesce(max((f ->> 'id')::int), 0) FROM archive_ext.partition p,
                    jsonb_array_elements(p.columns -> 'fields') f WHERE p.managed_table = $1",
            &[managed_table.into()],
            |row| row.need(1),
        )
    })
}

/// The local copies of a managed table's archived partitions.
pub fn local_copies(managed_table: i64) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid FROM archive_ext.partition p JOIN pg_class c ON c.oid = p.local_copy::oid
             WHERE p.managed_table = $1 AND p.status = 'ARCHIVED' ORDER BY p.id",
            &[managed_table.into()],
            |row| row.need(1),
        )
    })
}

/// Whether a manifest read from the storage is the one that the catalog recorded: the storage is not trusted with the
/// SQL that its DDL holds, nor with what it says about the rows.
pub fn recorded_as(id: i64, manifest: &Manifest) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT digest = $2 AND columns = $3 AND ddl = $4 AND rows = $5 FROM archive_ext.partition WHERE id = $1",
            &[
                id.into(),
                JsonB(serde_json::to_value(&manifest.digest)?).into(),
                JsonB(serde_json::to_value(&manifest.schema)?).into(),
                JsonB(serde_json::to_value(&manifest.ddl)?).into(),
                (manifest.rows as i64).into(),
            ],
            |row| Ok(row.get(1)?.unwrap_or(false)),
        )
    })
}

/// What the swap leaves behind.
#[derive(Debug)]
pub struct Archived<'a> {
    /// Managed table.
    pub managed_table: i64,
    /// Immediate hot parent.
    pub parent: pg_sys::Oid,
    /// Lower bound as text, where there is one.
    pub lower_bound: Option<&'a str>,
    /// Upper bound as text, where there is one.
    pub upper_bound: Option<&'a str>,
    /// Lifecycle label.
    pub label: &'a str,
    /// Storage of the objects.
    pub storage: &'a str,
    /// Key of the manifest.
    pub manifest_key: &'a str,
    /// The manifest.
    pub manifest: &'a Manifest,
    /// Size of the heap, its TOAST and indexes; an import from format 1 does not know it.
    pub local_bytes: Option<u64>,
}

/// Makes sure that the partition has a row and returns its id; the row becomes visible with the swap.
pub fn reserve(archived: &Archived<'_>) -> Result<i64> {
    let source = &archived.manifest.source;
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.partition AS p
               (managed_table, schema_name, partition_name, parent, bounds, lower_bound, upper_bound, status)
             VALUES ($1, $2::name, $3::name, $4::oid, $5, $6, $7, 'HOT')
             ON CONFLICT (managed_table, schema_name, partition_name) DO UPDATE
               SET parent = excluded.parent, bounds = excluded.bounds, lower_bound = excluded.lower_bound,
                   upper_bound = excluded.upper_bound
             RETURNING p.id",
            &[
                archived.managed_table.into(),
                source.partition_schema.as_str().into(),
                source.partition.as_str().into(),
                archived.parent.into(),
                source.bounds.as_deref().unwrap_or_default().into(),
                archived.lower_bound.into(),
                archived.upper_bound.into(),
            ],
            |row| row.need(1),
        )
    })
}

/// Where the swap put the partition.
#[derive(Debug, Clone, Copy)]
pub struct Placed {
    /// The foreign table.
    pub foreign_table: pg_sys::Oid,
    /// The local copy; `None` when it was dropped at once.
    pub local_copy: Option<pg_sys::Oid>,
    /// How long the local copy stays, in seconds.
    pub keep_seconds: i64,
}

/// Marks a reserved partition ARCHIVED and records its objects; the time until which the local copy stays.
pub fn set_archived(
    id: i64,
    archived: &Archived<'_>,
    placed: &Placed,
) -> Result<Option<pgrx::datum::TimestampWithTimeZone>> {
    let manifest = archived.manifest;
    user::elevated(|| {
        record_objects(id, archived.storage, manifest)?;
        spi::one(
            "UPDATE archive_ext.partition
             SET status = 'ARCHIVED', tier = CASE WHEN EXISTS (SELECT FROM archive_ext.object o WHERE o.partition_id = $1 AND o.version = $7)
                   AND NOT EXISTS (SELECT FROM archive_ext.object o WHERE o.partition_id = $1 AND o.version = $7 AND o.storage_class IS NULL)
                   THEN 'glacier' ELSE 'cold' END, label = $2, hot_table = NULL, foreign_table = $3::oid, status_since = clock_timestamp(),
                 local_copy = $4::oid,
                 local_copy_until = CASE WHEN $4::oid IS NULL THEN NULL ELSE now() + make_interval(secs => $5) END,
                 keep_until = NULL, storage = $6::name, version = $7, manifest_key = $8, rows = $9, local_bytes = $10,
                 archived_bytes = $11, digest = $12, columns = $13, ddl = $14, archived_at = clock_timestamp(),
                 verified_at = clock_timestamp(), verified_level = 'content', reverified_at = NULL, reattached_at = NULL, writable = false, family = $15,
                 superseded_at = NULL, superseded_by = NULL
             WHERE id = $1 RETURNING local_copy_until",
            &[
                id.into(),
                archived.label.into(),
                placed.foreign_table.into(),
                placed.local_copy.into(),
                (placed.keep_seconds as f64).into(),
                archived.storage.into(),
                manifest.version.cast_signed().into(),
                archived.manifest_key.into(),
                (manifest.rows as i64).into(),
                archived.local_bytes.map(|bytes| bytes as i64).into(),
                (manifest.bytes as i64).into(),
                JsonB(serde_json::to_value(&manifest.digest)?).into(),
                JsonB(serde_json::to_value(&manifest.schema)?).into(),
                JsonB(serde_json::to_value(&manifest.ddl)?).into(),
                manifest.family.as_ref().map(|family| family.id.as_str()).into(),
            ],
            |row| row.get(1),
        )
    })
}

/// Another version takes the place of the one before, with other objects and the same columns.
pub fn set_rewritten(id: i64, storage: &str, manifest_key: &str, manifest: &Manifest) -> Result<()> {
    user::elevated(|| {
        record_objects(id, storage, manifest)?;
        spi::execute(
            "UPDATE archive_ext.partition
             SET version = $2, manifest_key = $3, rows = $4, archived_bytes = $5, digest = $6, verified_at = clock_timestamp(),
                 erased_at = clock_timestamp(),
                 verified_level = 'content', reverified_at = NULL,
                 tier = CASE WHEN EXISTS (SELECT FROM archive_ext.object o WHERE o.partition_id = $1 AND o.version = $2
                                            AND o.storage_class IS NULL) THEN 'cold' ELSE tier END
             WHERE id = $1",
            &[
                id.into(),
                manifest.version.cast_signed().into(),
                manifest_key.into(),
                (manifest.rows as i64).into(),
                (manifest.bytes as i64).into(),
                JsonB(serde_json::to_value(&manifest.digest)?).into(),
            ],
        )
        .map(drop)
    })
}

/// Corrects what an import knows better: when the partition was archived, and whether its objects were read now.
pub fn set_imported(id: i64, archived_at: &str, verified: bool) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition
             SET archived_at = $2::timestamptz, verified_at = CASE WHEN $3 THEN clock_timestamp() END,
                 verified_level = CASE WHEN $3 THEN 'content' END
             WHERE id = $1",
            &[id.into(), archived_at.into(), verified.into()],
        )
    })?;
    Ok(())
}

fn record_objects(id: i64, storage: &str, manifest: &Manifest) -> Result<()> {
    insert_objects((id, storage), manifest.version.cast_signed(), 0, &manifest.objects)
}

/// Writes the rows of objects of a partition in a storage, numbered from `first`. Runs elevated.
pub(super) fn insert_objects(
    (id, storage): (i64, &str),
    version: i32,
    first: i32,
    objects: &[ManifestObject],
) -> Result<()> {
    for (ordinal, object) in (first..).zip(objects) {
        spi::execute(
            "INSERT INTO archive_ext.object
               (partition_id, version, ordinal, key, bytes, rows, sha256, row_groups, digest, ranges, null_counts, sidecars, storage, archived_at,
                storage_class, restored_until)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13::name, coalesce($14::timestamptz, clock_timestamp()),
                    max(o.storage_class), max(o.restored_until)
             FROM archive_ext.object o WHERE o.storage = $13::name AND o.key = $4
             ON CONFLICT (partition_id, version, ordinal) DO NOTHING",
            &[
                id.into(),
                version.into(),
                ordinal.into(),
                object.key.as_str().into(),
                (object.bytes as i64).into(),
                (object.rows as i64).into(),
                object.sha256.as_str().into(),
                object.row_groups.cast_signed().into(),
                JsonB(serde_json::to_value(&object.digest)?).into(),
                JsonB(serde_json::to_value(&object.ranges)?).into(),
                JsonB(serde_json::to_value(&object.null_counts)?).into(),
                JsonB(serde_json::to_value(&object.sidecars)?).into(),
                storage.into(),
                object.archived_at.as_deref().into(),
            ],
        )?;
    }
    Ok(())
}

/// A partition of the hot table with a status of its own. A partition without a row is LIVE.
#[derive(Debug)]
pub struct Local<'a> {
    /// Managed table.
    pub managed_table: i64,
    /// The partition.
    pub hot_table: pg_sys::Oid,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Immediate hot parent.
    pub parent: pg_sys::Oid,
    /// FOR VALUES clause.
    pub bounds: &'a str,
    /// Lower bound as text, where there is one.
    pub lower_bound: Option<&'a str>,
    /// Upper bound as text, where there is one.
    pub upper_bound: Option<&'a str>,
}

/// Records the status of a partition that is in the hot table; its id. The objects of an earlier archive stay known.
pub fn set_local(
    local: &Local<'_>,
    status: Status,
    label: &str,
    removal_time: Option<pgrx::datum::TimestampWithTimeZone>,
) -> Result<i64> {
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.partition AS p
               (managed_table, schema_name, partition_name, parent, bounds, lower_bound, upper_bound, hot_table, status,
                tier, label, removal_time)
             VALUES ($1, $2::name, $3::name, $4::oid, $5, $6, $7, $8::oid, $9::archive_ext.lifecycle_status,
                     CASE $9 WHEN 'WARM' THEN 'warm' ELSE 'hot' END, $10, $11)
             ON CONFLICT (managed_table, schema_name, partition_name) DO UPDATE
               SET parent = excluded.parent, bounds = excluded.bounds, lower_bound = excluded.lower_bound,
                   upper_bound = excluded.upper_bound, hot_table = excluded.hot_table, status = excluded.status,
                   tier = excluded.tier, label = excluded.label, writable = false,
                   removal_time = coalesce(excluded.removal_time, p.removal_time), status_since = clock_timestamp(),
                   superseded_at = NULL, superseded_by = NULL
             RETURNING p.id",
            &[
                local.managed_table.into(),
                local.schema.into(),
                local.name.into(),
                local.parent.into(),
                local.bounds.into(),
                local.lower_bound.into(),
                local.upper_bound.into(),
                local.hot_table.into(),
                status.as_str().into(),
                label.into(),
                removal_time.into(),
            ],
            |row| row.need(1),
        )
    })
}

/// The status of the hot partition `relation`; LIVE without a row.
pub fn local_status(relation: pg_sys::Oid) -> Result<Status> {
    let status = user::elevated(|| {
        spi::optional(
            "SELECT status::text FROM archive_ext.partition WHERE hot_table = $1::oid ORDER BY id DESC LIMIT 1",
            &[relation.into()],
            |row| row.need::<String>(1),
        )
    })?;
    Ok(status.map_or(Ok(Status::Live), |status| status.parse())?)
}

/// Whether the hot partition `relation` is at rest: WARM, and not brought back to be corrected.
pub fn is_read_only(relation: pg_sys::Oid) -> Result<bool> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT status = 'WARM' AND NOT writable FROM archive_ext.partition WHERE hot_table = $1::oid
             ORDER BY id DESC LIMIT 1",
            &[relation.into()],
            |row| row.need(1),
        )
    })?;
    Ok(found.unwrap_or(false))
}

/// A WARM partition is read-only again.
pub fn set_read_only(relation: pg_sys::Oid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition SET writable = false WHERE hot_table = $1::oid AND writable",
            &[relation.into()],
        )
        .map(drop)
    })
}

/// A partition that came back.
#[derive(Debug)]
pub struct Reattached<'a> {
    /// The hot partition.
    pub hot_table: pg_sys::Oid,
    /// Its status.
    pub status: Status,
    /// Whether it can be written to.
    pub writable: bool,
    /// Its label.
    pub label: &'a str,
    /// For how long.
    pub keep_for_seconds: Option<i64>,
}

/// Marks a partition as back in the hot table.
pub fn set_reattached(id: i64, back: &Reattached<'_>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition
             SET status = $3::archive_ext.lifecycle_status, tier = lower($3), label = $4, hot_table = $2::oid,
                 foreign_table = NULL, local_copy = NULL, local_copy_until = NULL, reattached_at = now(),
                 status_since = now(),
                 keep_until = now() + make_interval(secs => $5), writable = $6
             WHERE id = $1",
            &[
                id.into(),
                back.hot_table.into(),
                back.status.as_str().into(),
                back.label.into(),
                back.keep_for_seconds.map(|seconds| seconds as f64).into(),
                back.writable.into(),
            ],
        )
    })?;
    Ok(())
}

/// The label of a partition: of the hot partition or the archived one's foreign table `relation`.
pub fn label_of(relation: pg_sys::Oid) -> Result<Option<String>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT label FROM archive_ext.partition WHERE $1 IN (hot_table::oid, foreign_table::oid)
             ORDER BY id DESC LIMIT 1",
            &[relation.into()],
            |row| row.get::<String>(1),
        )
    })?;
    Ok(found.flatten())
}

/// Notes when the partition's rows are to be removed for good; `None` keeps what was noted.
pub fn set_removal_time(
    source: pg_sys::Oid,
    schema: &str,
    name: &str,
    removal_time: Option<pgrx::datum::TimestampWithTimeZone>,
) -> Result<()> {
    let Some(removal_time) = removal_time else { return Ok(()) };
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition p SET removal_time = $4 FROM archive_ext.managed_table m
             WHERE m.id = p.managed_table AND m.source = $1::oid AND p.schema_name = $2::name
               AND p.partition_name = $3::name",
            &[source.into(), schema.into(), name.into(), removal_time.into()],
        )
    })?;
    Ok(())
}

/// The hot partition `relation` is no more: its rows are in `successors`. What was never archived is forgotten. What was
/// keeps its row, without a table, so that its objects stay known; it is returned.
pub fn supersede(relation: pg_sys::Oid, successors: &[String]) -> Result<Option<Known>> {
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.partition WHERE hot_table = $1::oid AND status <> 'ARCHIVED' AND version = 0",
            &[relation.into()],
        )?;
        let known =
            spi::optional(&select("p.hot_table::oid = $1 AND p.status <> 'ARCHIVED'"), &[relation.into()], known)?;
        spi::execute(
            "UPDATE archive_ext.partition
             SET hot_table = NULL, label = NULL, keep_until = NULL, reattached_at = NULL, removal_time = NULL,
                 status_since = clock_timestamp(), superseded_at = clock_timestamp(), superseded_by = $2
             WHERE hot_table = $1::oid AND status <> 'ARCHIVED'",
            &[relation.into(), successors.to_vec().into()],
        )?;
        Ok(known)
    })
}

/// WARM partitions whose bounds are not proven yet: they were made WARM by a transaction that could not do it itself.
pub fn unsettled(bounds_check: &str) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid FROM archive_ext.partition p JOIN pg_class c ON c.oid = p.hot_table::oid
             JOIN pg_constraint k ON k.conrelid = c.oid AND k.conname = $1 AND NOT k.convalidated
             WHERE p.status = 'WARM' AND c.relkind = 'r' ORDER BY p.id",
            &[bounds_check.into()],
            |row| row.need(1),
        )
    })
}

/// Whether any partition of a managed table is archived.
pub fn has_archived(managed_table: i64) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.partition WHERE managed_table = $1 AND status = 'ARCHIVED')",
            &[managed_table.into()],
            |row| row.need(1),
        )
    })
}

/// The latest removal time of these hot partitions.
pub fn latest_removal_time(relations: &[pg_sys::Oid]) -> Result<Option<pgrx::datum::TimestampWithTimeZone>> {
    user::elevated(|| {
        spi::one(
            "SELECT max(removal_time) FROM archive_ext.partition WHERE hot_table::oid = ANY ($1)",
            &[relations.to_vec().into()],
            |row| row.get(1),
        )
    })
}
