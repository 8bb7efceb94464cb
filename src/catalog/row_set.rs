//! Row sets: the archived rows of a table that is archived row by row. A row set is a row of `archive_ext.partition` whose
//! objects come batch by batch; a table gets another one when its columns change.

use archive_core::codec::{Digest, KeyFilter};
use archive_core::manifest::{Manifest, ManifestObject, Unsettled};
use archive_core::naming;
use archive_core::schema::TableSchema;
use pgrx::datum::DatumWithOid;
use pgrx::{JsonB, pg_sys};

use super::{key_filter, partition};
use crate::error::Result;
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::{spi, user};

/// The row set that batches are added to.
#[derive(Debug)]
pub struct RowSet {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// Its name, which its foreign table has too.
    pub name: String,
    /// Storage of its objects.
    pub storage: String,
    /// Key of its manifest.
    pub manifest_key: String,
    /// The columns that its rows have.
    pub schema: TableSchema,
    /// Digest of all its rows.
    pub digest: Digest,
    /// Key of the manifest of its last batch.
    pub last_batch: Option<String>,
    /// What the next manifest has to say first, of a row set that was imported.
    pub unsettled: Option<Unsettled>,
    /// Schema and name that the table had when it was made, unless they are too long to be told from the manifest's key.
    pub made_for: Option<(String, String)>,
    /// The foreign table that reads it.
    pub foreign_table: Option<pg_sys::Oid>,
}

impl RowSet {
    /// Schema and table that the keys of its objects begin with: those that the table had when the row set was made. `now` is
    /// what it is called now.
    pub fn table_name<'a>(&'a self, now: &'a (String, String)) -> (&'a str, &'a str) {
        let named = self.made_for.as_ref().unwrap_or(now);
        (&named.0, &named.1)
    }
}

/// All objects of a row set are of one version.
pub(super) const VERSION: i32 = 1;

/// The newest row set of a managed table, or of one of its partitions, locked until the end of the transaction.
pub fn newest(managed_table: i64, partition: Option<pg_sys::Oid>) -> Result<Option<RowSet>> {
    let found = find(
        "managed_table = $1 AND row_set AND rows_of::oid IS NOT DISTINCT FROM $2 ORDER BY id DESC LIMIT 1 FOR UPDATE",
        &[managed_table.into(), partition.into()],
    )?;
    Ok(found.into_iter().next())
}

/// Longer than for other locks: batches and merges hold a row set while they write.
fn bounded() -> GucNest {
    GucNest::new().set(c"lock_timeout", &(10 * i64::from(guc::lock_timeout_ms())).to_string())
}

/// All row sets of a managed table, oldest first.
pub fn all(managed_table: i64) -> Result<Vec<RowSet>> {
    find("managed_table = $1 AND row_set ORDER BY id", &[managed_table.into()])
}

/// The same, locked until the end of the transaction.
pub fn lock_all(managed_table: i64) -> Result<Vec<RowSet>> {
    let _bounded = bounded();
    find("managed_table = $1 AND row_set ORDER BY id FOR UPDATE", &[managed_table.into()])
}

/// The row set with this id as it is now, locked until the end of the transaction; `None` when it is gone.
pub fn lock(id: i64) -> Result<Option<RowSet>> {
    let _bounded = bounded();
    Ok(find("id = $1 AND row_set FOR UPDATE", &[id.into()])?.into_iter().next())
}

fn find(condition: &str, given: &[DatumWithOid<'_>]) -> Result<Vec<RowSet>> {
    let sql = format!(
        "SELECT id, partition_name::text, storage::text, manifest_key, columns, digest, last_batch, foreign_table::oid, unsettled
         FROM archive_ext.partition WHERE {condition}"
    );
    user::elevated(|| spi::writing_rows(&sql, given, row_set))
}

fn row_set(row: &spi::Row<'_>) -> Result<RowSet> {
    let manifest_key = row.need::<String>(4)?;
    Ok(RowSet {
        id: row.need(1)?,
        name: row.need(2)?,
        storage: row.need(3)?,
        schema: serde_json::from_value(row.need::<JsonB>(5)?.0)?,
        digest: serde_json::from_value(row.need::<JsonB>(6)?.0)?,
        last_batch: row.get(7)?,
        foreign_table: row.get(8)?,
        unsettled: row.get::<JsonB>(9)?.map(|json| serde_json::from_value(json.0)).transpose()?,
        made_for: naming::table_of_prefix(&manifest_key),
        manifest_key,
    })
}

/// Whether the hot table `source` has row sets.
pub fn any(source: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
                            WHERE m.source = $1::oid AND p.row_set)",
            &[source.into()],
            |row| row.need(1),
        )
    })
}

/// Whether the hot table `source` has a row set of this name.
pub fn exists(source: pg_sys::Oid, name: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
                            WHERE m.source = $1::oid AND p.partition_name = $2::name AND p.row_set)",
            &[source.into(), name.into()],
            |row| row.need(1),
        )
    })
}

/// How many row sets a managed table has, or one of its partitions.
pub fn count(managed_table: i64, partition: Option<pg_sys::Oid>) -> Result<i64> {
    user::elevated(|| {
        spi::one(
            "SELECT count(*) FROM archive_ext.partition
             WHERE managed_table = $1 AND row_set AND rows_of::oid IS NOT DISTINCT FROM $2",
            &[managed_table.into(), partition.into()],
            |row| row.need(1),
        )
    })
}

/// Writes the row of a row set of the hot table `parent`, or of a partition right below it, which `manifest` describes, still
/// without objects; its id.
pub fn create(
    managed_table: i64,
    parent: pg_sys::Oid,
    partition: Option<pg_sys::Oid>,
    storage: &str,
    manifest_key: &str,
    manifest: &Manifest,
) -> Result<i64> {
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.partition
               (managed_table, schema_name, partition_name, parent, bounds, status, tier, storage, version, manifest_key, rows,
                archived_bytes, digest, columns, ddl, archived_at, row_set, rows_of)
             VALUES ($1, $2::name, $3::name, $4::oid, $12, 'ARCHIVED', 'cold', $5::name, $6, $7, 0, 0, $8, $9, $10,
                     clock_timestamp(), true, $11::oid)
             RETURNING id",
            &[
                managed_table.into(),
                manifest.source.partition_schema.as_str().into(),
                manifest.source.partition.as_str().into(),
                parent.into(),
                storage.into(),
                VERSION.into(),
                manifest_key.into(),
                JsonB(serde_json::to_value(Digest::default())?).into(),
                JsonB(serde_json::to_value(&manifest.schema)?).into(),
                JsonB(serde_json::to_value(&manifest.ddl)?).into(),
                partition.into(),
                manifest.source.bounds.as_deref().unwrap_or_default().into(),
            ],
            |row| row.need(1),
        )
    })
}

/// Notes the foreign table that reads a row set.
pub fn set_foreign_table(id: i64, foreign_table: pg_sys::Oid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition SET foreign_table = $2::oid WHERE id = $1",
            &[id.into(), foreign_table.into()],
        )
    })?;
    Ok(())
}

/// Adds the verified objects of the batch with manifest `batch`, whose rows `digest` is of: with the commit they are in the
/// archive.
pub fn append(
    set: &RowSet,
    objects: &[ManifestObject],
    filters: &[Option<KeyFilter>],
    digest: &Digest,
    batch: &str,
) -> Result<()> {
    add(set, objects, filters, digest, Some(batch))?;
    user::elevated(|| record_manifest(set, batch, false))
}

/// What an import found of a row set.
#[derive(Debug, Clone, Copy)]
pub struct Chain<'a> {
    /// The manifests, oldest first.
    pub manifests: &'a [String],
    /// The one that the next comes after.
    pub last: Option<&'a str>,
    /// What the next one has to say first.
    pub unsettled: Option<&'a Unsettled>,
}

/// Fills a row set that was just made with what an import found. There are no key filters in a storage.
pub fn import(set: &RowSet, objects: &[ManifestObject], digest: &Digest, chain: Chain<'_>) -> Result<()> {
    import_manifests(set.id, &set.storage, chain.manifests)?;
    if chain.manifests.is_empty() {
        return Ok(());
    }
    add(set, objects, &[], digest, chain.last)?;
    let Some(unsettled) = chain.unsettled else { return Ok(()) };
    let unsettled = JsonB(serde_json::to_value(unsettled)?);
    user::elevated(|| {
        let sql = "UPDATE archive_ext.partition SET unsettled = $2 WHERE id = $1";
        spi::execute(sql, &[set.id.into(), unsettled.into()]).map(drop)
    })
}

/// Notes that the manifest `batch` says what was unsettled.
pub fn settled(set: &RowSet, batch: &str) -> Result<()> {
    user::elevated(|| {
        let sql = "UPDATE archive_ext.partition SET last_batch = $2, unsettled = NULL WHERE id = $1";
        spi::execute(sql, &[set.id.into(), batch.into()])?;
        record_manifest(set, batch, false)
    })
}

fn add(
    set: &RowSet,
    objects: &[ManifestObject],
    filters: &[Option<KeyFilter>],
    digest: &Digest,
    last_batch: Option<&str>,
) -> Result<()> {
    let mut all = set.digest.clone();
    all.merge(digest);
    let bytes: u64 = objects.iter().map(|object| object.bytes).sum();
    user::elevated(|| {
        let first = spi::one(
            "SELECT coalesce(max(ordinal) + 1, 0) FROM archive_ext.object WHERE partition_id = $1 AND version = $2",
            &[set.id.into(), VERSION.into()],
            |row| row.need(1),
        )?;
        partition::insert_objects((set.id, &set.storage), VERSION, first, objects)?;
        key_filter::insert(set.id, VERSION, first, filters)?;
        spi::execute(
            "UPDATE archive_ext.partition SET rows = rows + $2, archived_bytes = archived_bytes + $3, digest = $4, last_batch = $5,
                    archived_at = clock_timestamp(), verified_at = clock_timestamp(), verified_level = 'content'
             WHERE id = $1",
            &[
                set.id.into(),
                (digest.rows as i64).into(),
                (bytes as i64).into(),
                JsonB(serde_json::to_value(&all)?).into(),
                last_batch.into(),
            ],
        )
    })?;
    Ok(())
}

/// Notes the manifest that a row set got last: an import follows the chain of all of them. Runs elevated.
pub(super) fn record_manifest(set: &RowSet, key: &str, restores: bool) -> Result<()> {
    spi::execute(
        "INSERT INTO archive_ext.batch_manifest (partition_id, storage, key, restores) VALUES ($1, $2::name, $3, $4)
         ON CONFLICT (storage, key) DO NOTHING",
        &[set.id.into(), set.storage.as_str().into(), key.into(), restores.into()],
    )?;
    Ok(())
}

/// Notes the manifests that an import found, oldest first.
pub fn import_manifests(partition: i64, storage: &str, keys: &[String]) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.batch_manifest (partition_id, storage, key)
             SELECT $1, $2::name, k.key FROM unnest($3::text[]) WITH ORDINALITY AS k (key, number) ORDER BY k.number
             ON CONFLICT (storage, key) DO UPDATE SET partition_id = excluded.partition_id",
            &[partition.into(), storage.into(), keys.to_vec().into()],
        )
    })?;
    Ok(())
}

/// The row set of a hot partition whose rows left stubs.
#[derive(Debug)]
pub struct OfPartition {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// Its foreign table.
    pub foreign_table: pg_sys::Oid,
    /// Rows in it.
    pub rows: u64,
    /// Bytes of its objects.
    pub bytes: u64,
    /// How many objects it has.
    pub objects: usize,
}

/// The row set with the rows of a hot partition that left stubs; it may have no rows any more.
pub fn of_partition(partition: pg_sys::Oid) -> Result<Option<OfPartition>> {
    user::elevated(|| {
        spi::optional(
            "SELECT p.id, p.foreign_table::oid, p.rows, p.archived_bytes,
                    (SELECT count(*) FROM archive_ext.object o WHERE o.partition_id = p.id AND o.version = p.version)
             FROM archive_ext.partition p WHERE p.rows_of = $1::oid AND p.foreign_table IS NOT NULL",
            &[partition.into()],
            |row| {
                Ok(OfPartition {
                    id: row.need(1)?,
                    foreign_table: row.need(2)?,
                    rows: row.need::<i64>(3)?.unsigned_abs(),
                    bytes: row.need::<i64>(4)?.unsigned_abs(),
                    objects: usize::try_from(row.need::<i64>(5)?).unwrap_or_default(),
                })
            },
        )
    })
}

/// Forgets a row set without rows, whose foreign table is gone. Its manifests may be needed by a recovery to an earlier time, so they
/// stay in the storage as long as objects do that others stand for.
///
/// Errors: 55000 while it is under a legal hold, which would go with it.
pub fn forget(id: i64) -> Result<()> {
    if let Some(reason) = super::hold::reasons(id)? {
        let message = "rows that were archived one by one are under a legal hold, though they came back";
        let refusal = super::hold::refusal(message, &reason);
        return Err(refusal.hint("An administrator ends it with legal_hold(table, false)."));
    }
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.replaced_object (storage, key, bytes, replaced_by)
             SELECT p.storage, k.key, 0, p.manifest_key FROM archive_ext.partition p, LATERAL (
               SELECT p.manifest_key AS key UNION ALL SELECT b.key FROM archive_ext.batch_manifest b WHERE b.partition_id = p.id
             ) k WHERE p.id = $1 AND p.row_set AND p.rows = 0
             ON CONFLICT (storage, key) DO NOTHING",
            &[id.into()],
        )?;
        spi::execute("DELETE FROM archive_ext.partition WHERE id = $1 AND row_set AND rows = 0", &[id.into()])
    })?;
    Ok(())
}
