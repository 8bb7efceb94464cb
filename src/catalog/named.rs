//! Which keys of a storage the catalog names, and which of them others took the place of.

use std::collections::HashMap;

use archive_core::audit::{Comparison, Expected};

use super::object::MANIFEST_KEY;
use crate::error::Result;
use crate::pg::{spi, user};

/// Rows read at a time.
const PAGE: i64 = 10_000;

/// Since when an object `o` of partition `p` is not needed any more; NULL while it is. A later version says when it came.
const REPLACED: &str = "CASE WHEN p.superseded_at IS NOT NULL THEN p.superseded_at
    WHEN o.version <> p.version THEN coalesce((SELECT min(n.uploaded_at) FROM archive_ext.object n
      WHERE n.partition_id = p.id AND n.version > o.version), p.erased_at, p.archived_at, p.status_since) END";

/// Everything that the catalog names in a storage, as committed now.
pub fn all(storage: &str) -> Result<Comparison> {
    let mut comparison = Comparison::default();
    let mut last = 0;
    loop {
        let page = objects(storage, last)?;
        let Some((id, ..)) = page.last() else { break };
        last = *id;
        page.into_iter().for_each(|(_, key, expected)| comparison.expect(key, expected));
    }
    others(storage)?.into_iter().for_each(|(key, expected)| comparison.expect(key, expected));
    Ok(comparison)
}

fn expected(row: &spi::Row<'_>, first: usize) -> Result<(String, Expected)> {
    Ok((
        row.need(first)?,
        Expected {
            bytes: row.get::<i64>(first + 1)?.map(i64::unsigned_abs),
            etag: row.get(first + 2)?,
            named_at: row.get(first + 3)?,
            replaced_at: row.get(first + 4)?,
            partition: row.get(first + 5)?,
            held: row.need(first + 6)?,
        },
    ))
}

fn objects(storage: &str, after: i64) -> Result<Vec<(i64, String, Expected)>> {
    let sql = format!(
        "SELECT o.id, o.key, o.bytes, o.etag, floor(extract(epoch FROM o.uploaded_at))::bigint,
                floor(extract(epoch FROM {REPLACED}))::bigint, p.id, false
         FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
         WHERE o.storage = $1::name AND o.id > $2 ORDER BY o.id LIMIT {PAGE}"
    );
    user::elevated(|| {
        spi::rows(&sql, &[storage.into(), after.into()], |row| {
            let (key, expected) = expected(row, 2)?;
            Ok((row.need(1)?, key, expected))
        })
    })
}

/// Manifests and what was replaced. A replaced object is held while a transaction runs that is older than its replacement, by the clock
/// and, where the number was given by this very cluster, by its transaction; and as long as the last batches of its row set took
/// rows out of the archive: an import cannot tell whether they were committed, and then reads what they replaced.
fn others(storage: &str) -> Result<Vec<(String, Expected)>> {
    let sql = format!(
        "WITH running AS (
           SELECT min(a.xact_start) AS since FROM pg_stat_activity a
           WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()),
         horizon AS (
           SELECT coalesce(pg_current_xact_id_if_assigned(), pg_snapshot_xmax(pg_current_snapshot()))::text::numeric
                  - max(age(x.xmin)) AS xid
           FROM (SELECT a.backend_xmin AS xmin FROM pg_stat_activity a WHERE a.pid <> pg_backend_pid()
                 UNION ALL SELECT s.xmin FROM pg_replication_slots s) x WHERE x.xmin IS NOT NULL),
         adopted AS (
           SELECT max(c.adopted_at) AS at FROM archive_ext.storage_claim c WHERE c.storage = $1::name)
         SELECT p.manifest_key, NULL::bigint, NULL::text,
                CASE WHEN NOT p.row_set THEN floor(extract(epoch FROM greatest(p.archived_at, (SELECT max(o.uploaded_at)
                  FROM archive_ext.object o WHERE o.partition_id = p.id AND o.version = p.version))))::bigint END,
                floor(extract(epoch FROM p.superseded_at))::bigint, p.id, false
         FROM archive_ext.partition p WHERE p.storage = $1::name AND p.manifest_key IS NOT NULL
         UNION ALL
         SELECT DISTINCT ON (p.id, o.version)
                {MANIFEST_KEY}, NULL, NULL, NULL,
                floor(extract(epoch FROM {REPLACED}))::bigint, p.id, false
         FROM archive_ext.partition p JOIN archive_ext.object o ON o.partition_id = p.id AND o.version <> p.version
         WHERE o.storage = $1::name AND NOT p.row_set
         UNION ALL
         SELECT c.key, c.bytes, NULL, NULL, NULL, NULL, false FROM archive_ext.object_copy c WHERE c.copy_storage = $1::name
         UNION ALL
         SELECT b.key, NULL, NULL, NULL, floor(extract(epoch FROM p.superseded_at))::bigint, p.id, false
         FROM archive_ext.batch_manifest b JOIN archive_ext.partition p ON p.id = b.partition_id WHERE b.storage = $1::name
         UNION ALL
         SELECT r.key, r.bytes, NULL, NULL, floor(extract(epoch FROM r.replaced_at))::bigint,
                (SELECT b.partition_id FROM archive_ext.batch_manifest b WHERE b.storage = r.storage AND b.key = r.replaced_by),
                coalesce(r.replaced_at >= running.since, false)
                OR coalesce(r.replaced_xid::text::numeric >= horizon.xid, false)
                   AND coalesce(adopted.at < r.replaced_at, true)
                OR EXISTS (SELECT FROM archive_ext.batch_manifest b
                           WHERE b.storage = r.storage AND b.key = r.replaced_by
                             AND NOT EXISTS (SELECT FROM archive_ext.batch_manifest l
                                             WHERE l.partition_id = b.partition_id AND l.id > b.id AND l.xid <> b.xid)
                             AND EXISTS (SELECT FROM archive_ext.batch_manifest s
                                         WHERE s.partition_id = b.partition_id AND s.xid = b.xid AND s.restores))
         FROM archive_ext.replaced_object r, running, horizon, adopted WHERE r.storage = $1::name"
    );
    // It begins with WITH and only reads: a fresh snapshot is what it gets either way.
    user::elevated(|| spi::writing_rows(&sql, &[storage.into()], |row| expected(row, 1)))
}

/// Which of these keys the catalog names now, and whether they are needed. What it names for a storage of another name is: two servers
/// may be one place, and a server may be renamed.
pub fn of(storage: &str, keys: &[String]) -> Result<HashMap<String, bool>> {
    let found = user::elevated(|| {
        spi::rows(
            "SELECT k.key,
                    EXISTS (SELECT FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
                            WHERE o.storage = $1::name AND o.key = k.key AND o.version = p.version AND p.superseded_at IS NULL)
                    OR EXISTS (SELECT FROM archive_ext.partition p
                               WHERE p.storage = $1::name AND p.manifest_key = k.key AND p.superseded_at IS NULL)
                    OR EXISTS (SELECT FROM archive_ext.batch_manifest b WHERE b.storage = $1::name AND b.key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.object_copy c WHERE c.copy_storage = $1::name AND c.key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.object o WHERE o.storage <> $1::name AND o.key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.partition p WHERE p.storage <> $1::name AND p.manifest_key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.batch_manifest b WHERE b.storage <> $1::name AND b.key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.replaced_object r WHERE r.storage <> $1::name AND r.key = k.key),
                    EXISTS (SELECT FROM archive_ext.object o WHERE o.storage = $1::name AND o.key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.partition p WHERE p.storage = $1::name AND p.manifest_key = k.key)
                    OR EXISTS (SELECT FROM archive_ext.replaced_object r WHERE r.storage = $1::name AND r.key = k.key)
             FROM unnest($2::text[]) AS k (key)",
            &[storage.into(), keys.to_vec().into()],
            |row| Ok((row.need::<String>(1)?, row.need::<bool>(2)?, row.need::<bool>(3)?)),
        )
    })?;
    Ok(found.into_iter().filter(|(_, needed, named)| *needed || *named).map(|(key, needed, _)| (key, needed)).collect())
}

/// Forgets keys whose objects are gone and that nothing needs: called after they were removed, so that a crash in between leaves rows
/// without objects, which the next call forgets.
pub fn forget(storage: &str, keys: &[String]) -> Result<()> {
    let statements = [
        "DELETE FROM archive_ext.replaced_object WHERE storage = $1::name AND key = ANY ($2)",
        "DELETE FROM archive_ext.object o USING archive_ext.partition p
         WHERE p.id = o.partition_id AND o.storage = $1::name AND o.key = ANY ($2)
           AND (o.version <> p.version OR p.superseded_at IS NOT NULL)",
        // A partition of that name may come again, by a split: then it has never been archived.
        "UPDATE archive_ext.partition SET manifest_key = NULL
         WHERE storage = $1::name AND manifest_key = ANY ($2) AND superseded_at IS NOT NULL",
        "DELETE FROM archive_ext.object_position WHERE storage = $1::name AND key = ANY ($2)",
    ];
    user::elevated(|| {
        statements.iter().try_for_each(|sql| spi::execute(sql, &[storage.into(), keys.to_vec().into()]).map(drop))
    })
}

/// The SHA-256 that an object was archived with.
pub fn sha256(storage: &str, key: &str) -> Result<Option<String>> {
    user::elevated(|| {
        spi::optional(
            "SELECT sha256 FROM archive_ext.object WHERE storage = $1::name AND key = $2 ORDER BY id DESC LIMIT 1",
            &[storage.into(), key.into()],
            |row| row.need(1),
        )
    })
}

/// Notes what the store says about an object that was found to be right.
pub fn note_tag(storage: &str, key: &str, tag: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object SET etag = $3 WHERE storage = $1::name AND key = $2",
            &[storage.into(), key.into(), tag.into()],
        )
    })?;
    Ok(())
}
