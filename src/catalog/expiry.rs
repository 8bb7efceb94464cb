//! `archive_ext.expiry` and `archive_ext.deletion_certificate`: archived partitions whose end was announced, and what was deleted.
//!
//! An end comes by the clock, never by a rehearsal's `archive_ext.now` alone: what is deleted does not come back.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// An archived partition that is older than the policy's `expire_after`.
#[derive(Debug)]
pub struct Expiring {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// Qualified name.
    pub name: String,
    /// Its foreign table.
    pub foreign_table: pg_sys::Oid,
    /// Storage of its objects.
    pub storage: String,
    /// `expire_after`, and when it was over.
    pub reason: String,
    /// Whether its end was announced.
    pub is_announced: bool,
    /// Whether the time since then is over.
    pub is_over: bool,
    /// The legal holds on it.
    pub held_for: Option<String>,
    /// Whether its local copy is still kept.
    pub has_local_copy: bool,
}

const NOW: &str = "least($2, clock_timestamp())";

/// The archived partitions of `source` that have expired by `now`. Rows that were archived one by one do not.
pub fn expired(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<Expiring>> {
    let sql = format!(
        "SELECT p.id, format('%I.%I', p.schema_name, p.partition_name), p.foreign_table::oid, p.storage::text,
                format('archived %s, and expire_after %s is over', to_char(p.archived_at, 'YYYY-MM-DD'), a.expire_after),
                e.partition_id IS NOT NULL, coalesce(e.delete_after <= {NOW}, false),
                (SELECT string_agg(h.reason, '; ' ORDER BY h.id) FROM archive_ext.legal_hold h
                 WHERE h.partition_id = p.id AND h.released_at IS NULL),
                p.local_copy IS NOT NULL
         FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         JOIN archive_ext.archive_policy a ON a.source = m.source AND a.enabled
         LEFT JOIN archive_ext.expiry e ON e.partition_id = p.id AND e.policy_changed_at = a.changed_at
         WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND NOT p.row_set AND p.foreign_table IS NOT NULL
           AND p.storage IS NOT NULL AND p.archived_at + a.expire_after <= {NOW}
         ORDER BY p.archived_at, p.id"
    );
    user::elevated(|| {
        spi::rows(&sql, &[source.into(), now.into()], |row| {
            Ok(Expiring {
                id: row.need(1)?,
                name: row.need(2)?,
                foreign_table: row.need(3)?,
                storage: row.need(4)?,
                reason: row.need(5)?,
                is_announced: row.need(6)?,
                is_over: row.need(7)?,
                held_for: row.get(8)?,
                has_local_copy: row.need(9)?,
            })
        })
    })
}

/// Announces the end of a partition, by the policy as it is; when it will be. Once the policy was changed it is to be announced anew.
pub fn announce(partition: i64, grace_seconds: i32) -> Result<String> {
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.expiry (partition_id, announced_at, delete_after, policy_changed_at)
             SELECT p.id, c.now, c.now + make_interval(secs => $2), a.changed_at
             FROM (SELECT clock_timestamp() AS now) c CROSS JOIN archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             JOIN archive_ext.archive_policy a ON a.source = m.source WHERE p.id = $1
             ON CONFLICT (partition_id) DO UPDATE SET announced_at = excluded.announced_at, delete_after = excluded.delete_after,
               policy_changed_at = excluded.policy_changed_at
             RETURNING to_char(delete_after AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
            &[partition.into(), f64::from(grace_seconds).into()],
            |row| row.need(1),
        )
    })
}

/// Takes back what was announced of partitions of `source` that have not expired any more, or came back; their names.
pub fn take_back(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<String>> {
    let sql = format!(
        "DELETE FROM archive_ext.expiry e USING archive_ext.partition p, archive_ext.managed_table m
         WHERE p.id = e.partition_id AND m.id = p.managed_table AND m.source = $1::oid
           AND NOT (p.status = 'ARCHIVED' AND EXISTS (
             SELECT FROM archive_ext.archive_policy a
             WHERE a.source = m.source AND a.enabled AND p.archived_at + a.expire_after <= {NOW}))
         RETURNING format('%I.%I', p.schema_name, p.partition_name)"
    );
    user::elevated(|| spi::writing_rows(&sql, &[source.into(), now.into()], |row| row.need(1)))
}

/// The partition is no more: its objects are to be deleted, and the certificate says which. The id of that.
pub fn withdraw(partition: i64, location: &str) -> Result<i64> {
    let by = user::name_of(user::current());
    user::elevated(|| {
        let certificate = spi::one(
            "INSERT INTO archive_ext.deletion_certificate
               (source, table_name, partition_name, storage, location, archived_at, rows, bytes, digest, expire_after, policy_owner,
                announced_at, withdrawn_by, objects, manifests)
             SELECT m.source, m.source::text, format('%I.%I', p.schema_name, p.partition_name), p.storage, $2, p.archived_at, p.rows,
                    p.archived_bytes, p.digest, a.expire_after, a.owner, e.announced_at, $3::name,
                    (SELECT coalesce(jsonb_agg(jsonb_build_object('key', o.key, 'bytes', o.bytes, 'rows', o.rows, 'sha256', o.sha256,
                            'digest', o.digest) ORDER BY o.key), '[]')
                     FROM (SELECT DISTINCT ON (key) * FROM archive_ext.object WHERE partition_id = p.id ORDER BY key, version DESC) o),
                    ARRAY(SELECT regexp_replace(p.manifest_key, '\\.v\\d+\\.json$', '.v' || v.version || '.json')
                          FROM (SELECT DISTINCT version FROM archive_ext.object WHERE partition_id = p.id
                                UNION SELECT p.version) v ORDER BY v.version)
             FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             JOIN archive_ext.archive_policy a ON a.source = m.source
             JOIN archive_ext.expiry e ON e.partition_id = p.id
             WHERE p.id = $1 RETURNING id",
            &[partition.into(), location.into(), by.as_str().into()],
            |row| row.need::<i64>(1),
        )?;
        for sql in [
            "DELETE FROM archive_ext.expiry WHERE partition_id = $1",
            // What was counted of its months would be taken for lost.
            "DELETE FROM archive_ext.month_count c USING archive_ext.partition p, archive_ext.managed_table m
             WHERE p.id = $1 AND m.id = p.managed_table AND c.source = m.source
               AND c.month >= CASE WHEN p.lower_bound ~ '^\\d{4,}-\\d\\d-\\d\\d' THEN date_trunc('month', p.lower_bound::timestamptz)::date
                              ELSE '-infinity' END
               AND c.month < CASE WHEN p.upper_bound ~ '^\\d{4,}-\\d\\d-\\d\\d' THEN p.upper_bound::timestamptz ELSE 'infinity' END",
            "UPDATE archive_ext.partition
             SET status = 'WARM', foreign_table = NULL, hot_table = NULL, label = NULL, keep_until = NULL, removal_time = NULL,
                 status_since = clock_timestamp(), superseded_at = clock_timestamp(), superseded_by = '{}'
             WHERE id = $1",
        ] {
            spi::execute(sql, &[partition.into()])?;
        }
        Ok(certificate)
    })
}

/// What is still to be deleted for a certificate.
#[derive(Debug)]
pub struct Remaining {
    /// The storage.
    pub storage: String,
    /// Where it was when the partition was withdrawn.
    pub location: String,
    /// The partition, while the catalog has it.
    pub partition_name: String,
    /// Keys, manifests first: an object that is gone must not be named by one.
    pub keys: Vec<String>,
}

/// What a certificate names.
pub fn remaining(certificate: i64) -> Result<Option<Remaining>> {
    user::elevated(|| {
        spi::optional(
            "SELECT storage::text, location, partition_name,
                    manifests || ARRAY(SELECT o ->> 'key' FROM jsonb_array_elements(objects) o)
             FROM archive_ext.deletion_certificate WHERE id = $1 AND deleted_at IS NULL",
            &[certificate.into()],
            |row| {
                Ok(Remaining {
                    storage: row.need(1)?,
                    location: row.need(2)?,
                    partition_name: row.need(3)?,
                    keys: row.need(4)?,
                })
            },
        )
    })
}

/// All that the certificate names is gone.
pub fn certify(certificate: i64, versions: u64, kept: &[String]) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.deletion_certificate
             SET deleted_at = clock_timestamp(), deleted_versions = $2, kept = $3 WHERE id = $1",
            &[certificate.into(), (versions as i64).into(), kept.to_vec().into()],
        )
        .map(drop)
    })
}
