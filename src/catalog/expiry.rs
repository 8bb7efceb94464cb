//! `archive_ext.expiry` and `archive_ext.deletion_certificate`: archived partitions whose end was announced, and what was deleted.
//!
//! An end comes by the clock, never by a rehearsal's `archive_ext.now` alone: what is deleted does not come back.

use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::archived::LOCAL_COPY;
use super::hold::HELD_FOR;
use super::row_expiry;
use crate::error::Result;
use crate::pg::{spi, user};

/// An archived partition that is older than the policy's `expire_after`, or a row set of which objects are.
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
    /// Whether the job that was to delete it failed or was cancelled, since the policy is what it is: `retry_job` begins it again.
    pub is_given_up: bool,
    /// Of a row set: it is about the objects that were archived up to then.
    pub archived_until: Option<TimestampWithTimeZone>,
}

/// SQL over partition `p` and policy `a`: how the last job that was to delete it ended, if it was given up.
pub(super) const GIVEN_UP: &str = "(SELECT g.status FROM (
      SELECT j.status, j.completed_at FROM archive_ext.archival_job j
      WHERE j.operation = 'expire' AND j.table_name = a.source AND (j.request ->> 'id')::bigint = p.id
      ORDER BY j.started_at DESC LIMIT 1) g
    WHERE g.status IN ('failed', 'cancelled') AND g.completed_at > a.changed_at)";

/// SQL over partition `p`, policy `a` and announcement `e`: whether it is about this archive, by this policy.
pub(super) const ANNOUNCED: &str = "e.partition_id = p.id AND e.policy_changed_at = a.changed_at
    AND CASE WHEN p.row_set THEN e.archived_until IS NOT NULL ELSE e.announced_at > p.archived_at END";

pub(super) const NOW: &str = "least($2, clock_timestamp())";

/// The archived partitions of `source` that have expired by `now`, and the row sets of which objects have.
pub fn expired(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<Expiring>> {
    let mut found = partitions(source, now)?;
    found.extend(row_expiry::expired(source, now)?);
    Ok(found)
}

fn partitions(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<Expiring>> {
    let sql = format!(
        "SELECT p.id, format('%I.%I', p.schema_name, p.partition_name), p.foreign_table::oid, p.storage::text,
                format('archived %s, and expire_after %s is over', to_char(p.archived_at, 'YYYY-MM-DD'), a.expire_after),
                e.partition_id IS NOT NULL, coalesce(e.delete_after <= {NOW}, false),
                {HELD_FOR}, {LOCAL_COPY} IS NOT NULL, {GIVEN_UP} IS NOT NULL, NULL::timestamptz
         FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         JOIN archive_ext.archive_policy a ON a.source = m.source AND a.enabled
         LEFT JOIN archive_ext.expiry e ON {ANNOUNCED}
         WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND NOT p.row_set AND p.foreign_table IS NOT NULL
           AND p.storage IS NOT NULL AND p.archived_at + a.expire_after <= {NOW}
         ORDER BY p.archived_at, p.id"
    );
    user::elevated(|| spi::rows(&sql, &[source.into(), now.into()], expiring))
}

pub(super) fn expiring(row: &spi::Row<'_>) -> Result<Expiring> {
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
        is_given_up: row.need(10)?,
        archived_until: row.get(11)?,
    })
}

/// Announces the end of a partition, or of the objects of a row set, by the policy as it is; when it will be. Once the policy was changed
/// it is to be announced anew.
pub fn announce(one: &Expiring, grace_seconds: i32) -> Result<String> {
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.expiry (partition_id, announced_at, delete_after, policy_changed_at, archived_until)
             SELECT p.id, c.now, c.now + make_interval(secs => $2), a.changed_at, $3
             FROM (SELECT clock_timestamp() AS now) c CROSS JOIN archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             JOIN archive_ext.archive_policy a ON a.source = m.source WHERE p.id = $1
             ON CONFLICT (partition_id) DO UPDATE SET announced_at = excluded.announced_at, delete_after = excluded.delete_after,
               policy_changed_at = excluded.policy_changed_at, archived_until = excluded.archived_until
             RETURNING to_char(delete_after AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')",
            &[one.id.into(), f64::from(grace_seconds).into(), one.archived_until.into()],
            |row| row.need(1),
        )
    })
}

/// Takes back what was announced of partitions of `source` that have not expired any more, or came back, and of row sets of which nothing
/// is left that it was about; their names.
pub fn take_back(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<Vec<String>> {
    let sql = format!(
        "DELETE FROM archive_ext.expiry e USING archive_ext.partition p, archive_ext.managed_table m
         WHERE p.id = e.partition_id AND m.id = p.managed_table AND m.source = $1::oid
           AND NOT (p.status = 'ARCHIVED' AND EXISTS (
             SELECT FROM archive_ext.archive_policy a
             WHERE a.source = m.source AND a.enabled
               AND CASE WHEN p.row_set THEN EXISTS (SELECT FROM {} AND o.archived_at <= e.archived_until)
                        ELSE p.archived_at + a.expire_after <= {NOW} END))
         RETURNING format('%I.%I', p.schema_name, p.partition_name)",
        row_expiry::over(NOW)
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
             SELECT m.source, (SELECT format('%I.%I', n.nspname, k.relname) FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
                               WHERE k.oid = m.source::oid), format('%I.%I', p.schema_name, p.partition_name), p.storage, $2, p.archived_at, p.rows,
                    p.archived_bytes, p.digest, a.expire_after, a.owner, e.announced_at, $3::name,
                    (SELECT coalesce(jsonb_agg(jsonb_build_object('key', o.key, 'bytes', o.bytes, 'rows', o.rows, 'sha256', o.sha256,
                            'digest', o.digest) ORDER BY o.key), '[]')
                     FROM (SELECT DISTINCT ON (key) * FROM archive_ext.object WHERE partition_id = p.id AND storage = p.storage
                           ORDER BY key, version DESC) o),
                    ARRAY(SELECT regexp_replace(p.manifest_key, '\\.v\\d+\\.json$', '.v' || v.version || '.json')
                          FROM (SELECT DISTINCT version FROM archive_ext.object WHERE partition_id = p.id AND storage = p.storage
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
            // What was counted of its months would be taken for lost: its rows where it is within a month, all archived ones where it has
            // whole months; where its bounds do not tell, rows that are missing already stay missing, and of the others the archived count no more.
            "UPDATE archive_ext.month_count c
             SET recorded = greatest(c.recorded - CASE WHEN b.single THEN p.rows ELSE c.archived END, 0),
                 archived = greatest(c.archived - CASE WHEN b.single THEN p.rows ELSE c.archived END, 0)
             FROM archive_ext.partition p
             JOIN archive_ext.managed_table m ON m.id = p.managed_table
             CROSS JOIN LATERAL (
               SELECT CASE WHEN p.lower_bound ~ '^\\d{4}-\\d\\d-\\d\\d( |$)' THEN p.lower_bound::timestamptz END,
                      CASE WHEN p.upper_bound ~ '^\\d{4}-\\d\\d-\\d\\d( |$)' THEN p.upper_bound::timestamptz END) r (first, last)
             CROSS JOIN LATERAL (
               SELECT date_trunc('month', r.first) = date_trunc('month', r.last - interval '1 microsecond')) b (single)
             WHERE p.id = $1 AND c.source = m.source
               AND CASE WHEN r.first IS NULL OR r.last IS NULL THEN c.missing_since IS NULL AND c.archived > 0
                        ELSE c.month >= date_trunc('month', r.first)::date AND c.month < r.last END",
            "UPDATE archive_ext.partition
             SET status = 'WARM', foreign_table = NULL, hot_table = NULL, label = NULL, keep_until = NULL, removal_time = NULL,
                 manifest_key = NULL, status_since = clock_timestamp(), superseded_at = clock_timestamp(), superseded_by = '{}'
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
    /// Of objects of a row set: whether it is certain for imports that they left it.
    pub is_settled: bool,
    /// Whether a transaction runs that began before that.
    pub is_read: bool,
}

/// What a certificate names.
pub fn remaining(certificate: i64) -> Result<Option<Remaining>> {
    user::elevated(|| {
        spi::optional(
            "SELECT storage::text, location, partition_name,
                    manifests || ARRAY(SELECT o ->> 'key' FROM jsonb_array_elements(objects) o) || replaced, settled_at IS NOT NULL,
                    EXISTS (SELECT FROM pg_stat_activity a WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()
                              AND a.xact_start < coalesce(settled_at, clock_timestamp()))
             FROM archive_ext.deletion_certificate WHERE id = $1 AND deleted_at IS NULL",
            &[certificate.into()],
            |row| {
                Ok(Remaining {
                    storage: row.need(1)?,
                    location: row.need(2)?,
                    partition_name: row.need(3)?,
                    keys: row.need(4)?,
                    is_settled: row.need(5)?,
                    is_read: row.need(6)?,
                })
            },
        )
    })
}

/// Which of these keys something else needs: another partition, here or in a storage that may be the same place, or the partition itself,
/// if it was archived again.
pub fn needed(partition: i64, storage: &str, keys: &[String]) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT k.key FROM unnest($3::text[]) AS k (key)
             WHERE EXISTS (SELECT FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
                           WHERE o.key = k.key AND CASE WHEN p.id = $1 THEN p.status = 'ARCHIVED' AND o.version = p.version
                                                        ELSE o.storage <> $2::name OR o.version = p.version AND p.superseded_at IS NULL END)
                OR EXISTS (SELECT FROM archive_ext.partition p WHERE p.manifest_key = k.key AND (p.id <> $1 OR p.status = 'ARCHIVED'))
                OR EXISTS (SELECT FROM archive_ext.batch_manifest b WHERE b.key = k.key)
                OR EXISTS (SELECT FROM archive_ext.replaced_object r WHERE r.storage <> $2::name AND r.key = k.key)",
            &[partition.into(), storage.into(), keys.to_vec().into()],
            |row| row.need(1),
        )
    })
}

/// So many versions more are gone.
pub fn note_deleted(certificate: i64, versions: u64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.deletion_certificate SET deleted_versions = coalesce(deleted_versions, 0) + $2 WHERE id = $1",
            &[certificate.into(), (versions as i64).into()],
        )
        .map(drop)
    })
}

/// All that the certificate names is gone, but for what is kept.
pub fn certify(certificate: i64, partition: i64, gone: &[String], kept: &[String]) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.object o USING archive_ext.deletion_certificate c
             WHERE c.id = $1 AND o.partition_id = $2 AND o.storage = c.storage AND o.key = ANY ($3)",
            &[certificate.into(), partition.into(), gone.to_vec().into()],
        )?;
        for table in ["object_position", "replaced_object"] {
            let sql = format!(
                "DELETE FROM archive_ext.{table} o USING archive_ext.deletion_certificate c
                 WHERE c.id = $1 AND o.storage = c.storage AND o.key = ANY ($2)"
            );
            spi::execute(&sql, &[certificate.into(), gone.to_vec().into()])?;
        }
        spi::execute(
            "UPDATE archive_ext.deletion_certificate SET deleted_at = clock_timestamp(), kept = $2 WHERE id = $1",
            &[certificate.into(), kept.to_vec().into()],
        )
        .map(drop)
    })
}
