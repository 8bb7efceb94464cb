//! `archive_ext.object_copy`: objects and manifests that are in a second storage, too.

use std::collections::{BTreeMap, HashSet};

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// The key of an object or manifest, and of an object size and SHA-256.
pub type Copied = (String, Option<(u64, String)>);

/// SQL: everything that archived partition or row set `p` has in its storage now: key, bytes, sha256, whether it cannot be read, manifests
/// without the last three.
fn items_sql() -> String {
    format!(
        "(SELECT o.key, o.bytes, o.sha256, 0 AS rank, {} AS frozen FROM archive_ext.object o WHERE o.partition_id = p.id AND o.version = p.version
          UNION ALL SELECT p.manifest_key, NULL, NULL, 1, false WHERE p.manifest_key IS NOT NULL
          UNION ALL SELECT b.key, NULL, NULL, 1, false FROM archive_ext.batch_manifest b WHERE b.partition_id = p.id AND p.row_set)",
        super::tier::is_unreadable("o")
    )
}

/// SQL over item `i` of partition `p`: whether it has a copy in storage `$2`.
const HAS_COPY: &str = "EXISTS (SELECT FROM archive_ext.object_copy c WHERE c.storage = p.storage AND c.key = i.key AND c.copy_storage = $2::name)";

/// What an archived partition or row set has in its storage now, objects first; with `without` what has no copy in that storage and can be
/// read.
pub fn items(partition: i64, without: Option<&str>) -> Result<Vec<Copied>> {
    let sql = format!(
        "SELECT i.key, i.bytes, i.sha256 FROM archive_ext.partition p CROSS JOIN LATERAL {} i
         WHERE p.id = $1 AND p.status = 'ARCHIVED' AND ($2 IS NULL OR NOT i.frozen AND NOT {HAS_COPY}) ORDER BY i.rank, i.key",
        items_sql()
    );
    user::elevated(|| {
        spi::rows(&sql, &[partition.into(), without.into()], |row| {
            let object = row.get::<i64>(2)?.map(i64::unsigned_abs).zip(row.get::<String>(3)?);
            Ok((row.need(1)?, object))
        })
    })
}

/// The next archived partition that can be read, or row set, of a table, of which something readable has no copy in this storage.
pub fn next_without(source: pg_sys::Oid, copies: &str) -> Result<Option<i64>> {
    let sql = format!(
        "SELECT p.id FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND p.storage <> $2::name
           AND (p.row_set OR NOT EXISTS (SELECT FROM {items} i WHERE i.frozen))
           AND EXISTS (SELECT FROM {items} i WHERE NOT i.frozen AND NOT {HAS_COPY})
         ORDER BY p.id LIMIT 1",
        items = items_sql()
    );
    user::elevated(|| spi::optional(&sql, &[source.into(), copies.into()], |row| row.need(1)))
}

/// Which of these keys of a storage have copies in another.
pub fn known(storage: &str, copies: &str, keys: &[String]) -> Result<HashSet<String>> {
    let found = user::elevated(|| {
        spi::rows(
            "SELECT key FROM archive_ext.object_copy WHERE storage = $1::name AND copy_storage = $2::name AND key = ANY ($3)",
            &[storage.into(), copies.into(), keys.to_vec().into()],
            |row| row.need::<String>(1),
        )
    })?;
    Ok(found.into_iter().collect())
}

/// A copy was made and read back.
pub fn note(storage: &str, key: &str, copies: &str, bytes: Option<u64>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.object_copy (storage, key, copy_storage, bytes) VALUES ($1::name, $2, $3::name, $4)
             ON CONFLICT (storage, key, copy_storage) DO UPDATE SET verified_at = clock_timestamp()",
            &[storage.into(), key.into(), copies.into(), bytes.map(u64::cast_signed).into()],
        )
        .map(drop)
    })
}

/// The storages that have copies of some of these keys, and of which.
pub fn of_keys(storage: &str, keys: &[String]) -> Result<BTreeMap<String, Vec<String>>> {
    let found = user::elevated(|| {
        spi::rows(
            "SELECT copy_storage::text, key FROM archive_ext.object_copy WHERE storage = $1::name AND key = ANY ($2) ORDER BY 1, 2",
            &[storage.into(), keys.to_vec().into()],
            |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
        )
    })?;
    let mut by_storage: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (copies, key) in found {
        by_storage.entry(copies).or_default().push(key);
    }
    Ok(by_storage)
}

/// The storages that have copies of anything of a storage.
pub fn storages_of(storage: &str) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT DISTINCT copy_storage::text FROM archive_ext.object_copy WHERE storage = $1::name ORDER BY 1",
            &[storage.into()],
            |row| row.need(1),
        )
    })
}

/// These copies are gone.
pub fn forget(storage: &str, copies: &str, keys: &[String]) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.object_copy WHERE storage = $1::name AND copy_storage = $2::name AND key = ANY ($3)",
            &[storage.into(), copies.into(), keys.to_vec().into()],
        )
        .map(drop)
    })
}

/// A storage that has copies of objects of an archived partition or row set.
pub fn storage_of(partition: i64) -> Result<Option<String>> {
    let sql = format!("SELECT {STORAGE} FROM archive_ext.partition p WHERE p.id = $1");
    Ok(user::elevated(|| spi::optional(&sql, &[partition.into()], |row| row.get::<String>(1)))?.flatten())
}

/// SQL over partition `p`: a storage that has copies of its objects.
pub(super) const STORAGE: &str = "(SELECT c.copy_storage::text FROM archive_ext.object o
    JOIN archive_ext.object_copy c ON c.storage = o.storage AND c.key = o.key
    WHERE o.partition_id = p.id AND o.version = p.version GROUP BY c.copy_storage ORDER BY count(*) DESC, max(c.verified_at) DESC LIMIT 1)";
