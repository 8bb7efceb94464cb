//! Objects of row sets that have expired. Each counts by itself, from the time at which the youngest of its rows was archived; an
//! announcement is about those of a row set that were archived up to a time.

use archive_core::codec::Digest;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{JsonB, pg_sys};
use serde_json::json;

use super::expiry::{ANNOUNCED, Expiring, GIVEN_UP, NOW, expiring};
use super::hold::HELD_FOR;
use super::rewrite::Numbered;
use crate::error::Result;
use crate::pg::{spi, user};

/// SQL over row set `p` of table `m` and policy `a`: the objects `o` that are older than `expire_after` by `now`. Where archived rows left
/// something in the table there are none: it would stand for rows that are nowhere.
pub(super) fn over(now: &str) -> String {
    format!(
        "archive_ext.object o WHERE p.row_set AND m.marker_field IS NULL AND o.partition_id = p.id AND o.version = p.version
           AND o.archived_at + a.expire_after <= {now}"
    )
}

/// SQL besides: those that announcement `e` is about, or all where there is none.
const UP_TO: &str = "o.archived_at <= coalesce(e.archived_until, 'infinity')";

/// The row sets of `source` with objects that have expired by `now`.
pub(super) fn expired(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<Expiring>> {
    let sql = format!(
        "SELECT p.id, format('%I.%I', p.schema_name, p.partition_name), p.foreign_table::oid, p.storage::text,
                format('%s objects were archived until %s, and expire_after %s is over', x.objects, to_char(x.last, 'YYYY-MM-DD'), a.expire_after),
                e.partition_id IS NOT NULL, coalesce(e.delete_after <= {NOW}, false),
                {HELD_FOR}, false, {GIVEN_UP} IS NOT NULL, x.last
         FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         JOIN archive_ext.archive_policy a ON a.source = m.source AND a.enabled
         LEFT JOIN archive_ext.expiry e ON {ANNOUNCED}
         CROSS JOIN LATERAL (SELECT count(*) AS objects, max(o.archived_at) AS last FROM {} AND {UP_TO}) x
         WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND p.foreign_table IS NOT NULL AND x.objects > 0
         ORDER BY p.id",
        over(NOW)
    );
    user::elevated(|| spi::rows(&sql, &[source.into(), now.into()], expiring))
}

/// Ids of the objects of a row set that are to be deleted by `now`: they have expired, and that was announced.
pub fn objects(set: i64, now: TimestampWithTimeZone) -> Result<Vec<i64>> {
    let sql = format!(
        "SELECT x.id FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         JOIN archive_ext.archive_policy a ON a.source = m.source AND a.enabled
         JOIN archive_ext.expiry e ON {ANNOUNCED} AND e.delete_after <= {NOW}
         CROSS JOIN LATERAL (SELECT o.id, o.ordinal FROM {} AND {UP_TO}) x
         WHERE p.id = $1 ORDER BY x.ordinal",
        over(NOW)
    );
    user::elevated(|| spi::rows(&sql, &[set.into(), now.into()], |row| row.need(1)))
}

/// These objects have left their row set, whose announcement this ends: they are to be deleted, and the certificate says which. The id of
/// that.
pub fn withdraw(set: i64, location: &str, gone: &[Numbered]) -> Result<i64> {
    let by = user::name_of(user::current());
    let mut digest = Digest::default();
    gone.iter().for_each(|gone| digest.merge(&gone.object.digest));
    let listed = |gone: &Numbered| {
        let object = &gone.object;
        json!({ "key": object.key, "bytes": object.bytes, "rows": object.rows, "sha256": object.sha256, "digest": object.digest })
    };
    let objects: serde_json::Value = gone.iter().map(listed).collect();
    let bytes: u64 = gone.iter().map(|gone| gone.object.bytes).sum();
    let youngest = gone.iter().filter_map(|gone| gone.object.archived_at.as_deref()).max();
    user::elevated(|| {
        let certificate = spi::one(
            "INSERT INTO archive_ext.deletion_certificate
               (source, table_name, partition_name, storage, location, archived_at, rows, bytes, digest, expire_after, policy_owner,
                announced_at, withdrawn_by, objects, manifests)
             SELECT m.source, (SELECT format('%I.%I', n.nspname, k.relname) FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
                               WHERE k.oid = m.source::oid), format('%I.%I', p.schema_name, p.partition_name), p.storage, $2,
                    $3::timestamptz, $4, $5, $6, a.expire_after, a.owner, e.announced_at, $7::name, $8, '{}'
             FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             JOIN archive_ext.archive_policy a ON a.source = m.source
             JOIN archive_ext.expiry e ON e.partition_id = p.id
             WHERE p.id = $1 RETURNING id",
            &[
                set.into(),
                location.into(),
                youngest.into(),
                digest.rows.cast_signed().into(),
                bytes.cast_signed().into(),
                JsonB(serde_json::to_value(&digest)?).into(),
                by.as_str().into(),
                JsonB(objects).into(),
            ],
            |row| row.need::<i64>(1),
        )?;
        spi::execute("DELETE FROM archive_ext.expiry WHERE partition_id = $1", &[set.into()])?;
        Ok(certificate)
    })
}

/// That the objects left is certain for imports. What their rows were in before, and what was replaced long ago besides, goes with them.
pub fn set_settled(certificate: i64, set: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.deletion_certificate c SET settled_at = clock_timestamp(), replaced = ARRAY(
               SELECT r.key FROM archive_ext.replaced_object r JOIN archive_ext.batch_manifest b ON b.storage = r.storage AND b.key = r.replaced_by
               WHERE b.partition_id = $2 AND r.storage = c.storage AND r.archived_at <= c.archived_at
                 AND r.key NOT IN (SELECT o ->> 'key' FROM jsonb_array_elements(c.objects) o)
               ORDER BY r.key)
             WHERE c.id = $1",
            &[certificate.into(), set.into()],
        )
        .map(drop)
    })
}

/// What was counted of the months of these objects would be taken for lost: of an object with rows of one month so many, of the months of
/// others all archived ones. Where the range of the time `field` does not tell, rows that are missing already stay missing.
pub fn forget_months(source: pg_sys::Oid, ids: &[i64], field: Option<i32>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "WITH gone AS (
               SELECT o.rows, date_trunc('month', r.first)::date AS first, date_trunc('month', r.last)::date AS last
               FROM archive_ext.object o LEFT JOIN LATERAL (
                 SELECT substring(e ->> 'min' FROM '^\\d{4}-\\d\\d-\\d\\d')::timestamp AS first,
                        substring(e ->> 'max' FROM '^\\d{4}-\\d\\d-\\d\\d')::timestamp AS last
                 FROM jsonb_array_elements(o.ranges) e
                 WHERE (e ->> 'field_id')::int = $3 AND (e ->> 'min') || (e ->> 'max') !~ 'BC'
                   AND NOT EXISTS (SELECT FROM jsonb_array_elements(o.null_counts) n
                                   WHERE (n ->> 0)::int = $3 AND (n ->> 1)::bigint > 0)) r ON true
               WHERE o.id = ANY ($2)),
             less AS (
               SELECT c.month, CASE WHEN bool_or(g.first IS NULL OR g.last IS NULL OR g.first < g.last) THEN max(c.archived)
                                    ELSE sum(g.rows) END::bigint AS rows
               FROM archive_ext.month_count c
               JOIN gone g ON CASE WHEN g.first IS NULL OR g.last IS NULL THEN c.missing_since IS NULL AND c.archived > 0
                                   ELSE c.month BETWEEN g.first AND g.last END
               WHERE c.source = $1::oid GROUP BY c.month)
             UPDATE archive_ext.month_count c
             SET recorded = greatest(c.recorded - l.rows, 0), archived = greatest(c.archived - l.rows, 0)
             FROM less l WHERE c.source = $1::oid AND c.month = l.month",
            &[source.into(), ids.to_vec().into(), field.into()],
        )
        .map(drop)
    })
}
