//! What is in the storages as the second and third phase of archiving see it: partitions and row sets, their objects, their local
//! copies, and when these things are due.

use archive_core::codec::Digest;
use archive_core::lifecycle::{Label, Moment};
use archive_core::manifest::ManifestObject;
use archive_core::policy::{Age, Held, Stored};
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::{JsonB, pg_sys};

use super::observed::{HELD, RUN_LIFECYCLE, micros};
use super::policy::{Policy, TablePolicy};
use super::{tier, time_key};
use crate::error::Result;
use crate::guc;
use crate::pg::{spi, user};

/// An archived partition, or a row set.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// The hot table at the root.
    pub source: pg_sys::Oid,
    /// Qualified name.
    pub name: String,
    /// The foreign table that reads it.
    pub foreign_table: Option<pg_sys::Oid>,
    /// The local copy, while it is kept.
    pub local_copy: Option<pg_sys::Oid>,
    /// Storage of its objects.
    pub storage: String,
    /// Version of its objects.
    pub version: i32,
    /// Its manifest.
    pub manifest_key: String,
    /// The manifest of the last batch, of a row set.
    pub last_batch: Option<String>,
    /// Whether it is a row set.
    pub row_set: bool,
    /// Digest of all its rows.
    pub digest: Digest,
}

/// As in `catalog::partition`: the name must be that of a local copy, too.
pub(super) const LOCAL_COPY: &str = "(SELECT c.oid FROM pg_class c WHERE c.oid = p.local_copy::oid AND c.relkind = 'r'
    AND starts_with(c.relname, p.partition_name || '__local_'))";

const SOURCES: &str = "archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
    JOIN pg_class s ON s.oid = m.source::oid";

fn subjects(condition: &str, given: &[DatumWithOid<'_>]) -> Result<Vec<Subject>> {
    let sql = format!(
        "SELECT p.id, s.oid, format('%I.%I', p.schema_name, p.partition_name),
                (SELECT c.oid FROM pg_class c WHERE c.oid = p.foreign_table::oid), {LOCAL_COPY}, p.storage::text, p.version,
                p.manifest_key, p.last_batch, p.row_set, p.digest
         FROM {SOURCES} WHERE p.status = 'ARCHIVED' AND p.storage IS NOT NULL AND p.manifest_key IS NOT NULL AND {condition}
         ORDER BY p.lower_bound, p.id"
    );
    user::elevated(|| {
        spi::rows(&sql, given, |row| {
            Ok(Subject {
                id: row.need(1)?,
                source: row.need(2)?,
                name: row.need(3)?,
                foreign_table: row.get(4)?,
                local_copy: row.get(5)?,
                storage: row.need(6)?,
                version: row.need(7)?,
                manifest_key: row.need(8)?,
                last_batch: row.get(9)?,
                row_set: row.need(10)?,
                digest: serde_json::from_value(row.need::<JsonB>(11)?.0)?,
            })
        })
    })
}

/// Everything that is archived of the hot table `source`, oldest first.
pub fn of_table(source: pg_sys::Oid) -> Result<Vec<Subject>> {
    subjects("s.oid = $1", &[source.into()])
}

/// The archived partition or row set with this id.
pub fn find(id: i64) -> Result<Option<Subject>> {
    Ok(subjects("p.id = $1", &[id.into()])?.into_iter().next())
}

/// What `relation` stands for: all of a table, if it is a hot table, its archive parent or its view; a partition or row set, if it
/// is its foreign table or local copy.
pub fn of_relation(relation: pg_sys::Oid) -> Result<Vec<Subject>> {
    subjects(
        "$1 IN (m.source::oid, m.archive_table::oid, m.all_view::oid, p.foreign_table::oid, p.local_copy::oid)",
        &[relation.into()],
    )
}

/// Whether `relation` is a hot table, or its archive.
pub fn is_managed(relation: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.managed_table m
                            WHERE $1 IN (m.source::oid, m.archive_table::oid, m.all_view::oid))",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// The archived partitions and row sets with this name; `schema` narrows them down.
pub fn named(schema: Option<&str>, name: &str) -> Result<Vec<Subject>> {
    subjects("p.partition_name = $2::name AND ($1 IS NULL OR p.schema_name = $1::name)", &[schema.into(), name.into()])
}

/// An object as it was archived.
#[derive(Debug, Clone)]
pub struct StoredObject {
    /// Its id.
    pub id: i64,
    /// Key, size and digests.
    pub object: ManifestObject,
    /// What the store called its content when that was verified last.
    pub etag: Option<String>,
    /// Whether it must be restored before it can be read.
    pub is_frozen: bool,
}

/// The objects of an archived partition or row set, in order.
pub fn objects(subject: &Subject) -> Result<Vec<StoredObject>> {
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT id, jsonb_build_object('key', key, 'bytes', bytes, 'rows', rows, 'sha256', sha256, 'digest', digest,
                          'row_groups', row_groups, 'null_counts', null_counts, 'sidecars', sidecars, 'ranges', '[]'::jsonb), etag, {}
                 FROM archive_ext.object o WHERE partition_id = $1 AND version = $2 ORDER BY ordinal",
                tier::is_unreadable("o")
            ),
            &[subject.id.into(), subject.version.into()],
            |row| {
                Ok(StoredObject {
                    id: row.need(1)?,
                    object: serde_json::from_value(row.need::<JsonB>(2)?.0)?,
                    etag: row.get(3)?,
                    is_frozen: row.need(4)?,
                })
            },
        )
    })
}

/// Ids of so many percent of the objects of a table's archive that can be read now, at least of one, drawn by lot.
pub fn sample(source: pg_sys::Oid, percent: f64) -> Result<Vec<i64>> {
    let sql = format!(
        "WITH o AS (SELECT o.id FROM {SOURCES} JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
                    WHERE s.oid = $1 AND p.status = 'ARCHIVED' AND NOT {unreadable})
         SELECT id FROM o ORDER BY random()
         LIMIT greatest(1, ceil((SELECT count(*) FROM o) * least($2, 100) / 100))::bigint",
        unreadable = tier::is_unreadable("o")
    );
    user::elevated(|| spi::rows(&sql, &[source.into(), percent.into()], |row| row.need(1)))
}

/// Ids of the objects of a row set, from `after` on, that have been in the storage for as long as the policy's `verify_after` says, or
/// the setting, and were not verified since. What cannot be read now is not.
pub fn due_objects(row_set: &Subject, now: TimestampWithTimeZone, after: i64) -> Result<Vec<i64>> {
    let verify_after = f64::from(guc::verify_after_seconds());
    let sql = format!(
        "SELECT o.id FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
         JOIN archive_ext.managed_table m ON m.id = p.managed_table
         LEFT JOIN archive_ext.archive_policy a ON a.source = m.source
         WHERE p.id = $1 AND o.version = p.version AND o.id > $2 AND o.verified_at IS NULL AND NOT {}
           AND o.uploaded_at + coalesce(a.verify_after, make_interval(secs => $3)) <= $4
         ORDER BY o.id",
        tier::is_unreadable("o")
    );
    user::elevated(|| {
        spi::rows(&sql, &[row_set.id.into(), after.into(), verify_after.into(), now.into()], |row| row.need(1))
    })
}

/// Remembers that an object was just read and found equal, and what the store calls its content.
pub fn set_verified_object(id: i64, etag: Option<&str>, version_id: Option<&str>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object SET etag = $2, version_id = $3, verified_at = clock_timestamp() WHERE id = $1",
            &[id.into(), etag.into(), version_id.into()],
        )
        .map(drop)
    })
}

/// Notes that a version was verified, unless another took its place meanwhile; when.
pub fn set_verified(subject: &Subject, level: &str) -> Result<Option<TimestampWithTimeZone>> {
    user::elevated(|| {
        let found = spi::writing_rows(
            "UPDATE archive_ext.partition SET verified_at = clock_timestamp(), verified_level = $3,
               reverified_at = CASE WHEN $3 = 'checksum' THEN reverified_at ELSE clock_timestamp() END
             WHERE id = $1 AND version = $2 AND status = 'ARCHIVED' RETURNING verified_at",
            &[subject.id.into(), subject.version.into(), level.into()],
            |row| row.get(1),
        )?;
        Ok(found.into_iter().next().flatten())
    })
}

/// The local copy is no more.
pub fn forget_local_copy(id: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition SET local_copy = NULL, local_copy_until = NULL WHERE id = $1",
            &[id.into()],
        )
        .map(drop)
    })
}

/// An archived partition with what is to come for it.
#[derive(Debug)]
pub struct Ageing {
    /// Id in `archive_ext.partition`.
    pub id: i64,
    /// Qualified name.
    pub name: String,
    /// Its foreign table.
    pub foreign_table: pg_sys::Oid,
    /// Storage of its objects.
    pub storage: Option<String>,
    /// Rows.
    pub rows: Option<i64>,
    /// Objects.
    pub objects: Option<i32>,
    /// Bytes of these.
    pub archived_bytes: Option<i64>,
    /// Bytes that its local copy takes.
    pub local_bytes: Option<i64>,
    /// When its period is over, on the calendar.
    pub ended: Option<Moment>,
    /// Whether its objects can move to an archive class: they are in a storage that has classes, and those of a partition in none yet.
    pub is_movable: bool,
    /// When it is older than `expire_after`.
    pub expires_at: Option<i64>,
    /// What decides about it.
    pub stored: Stored,
}

/// When a partition is verified again: by the policy, then also without a local copy; else by the setting. A row set is as soon as it is
/// time for one of its objects.
fn verify_at() -> String {
    format!(
        "CASE WHEN p.tier = 'glacier' THEN NULL
        WHEN p.row_set THEN (SELECT min(o.uploaded_at) FROM archive_ext.object o
                             WHERE o.partition_id = p.id AND o.version = p.version AND o.verified_at IS NULL AND NOT {unreadable})
        WHEN p.reverified_at IS NULL AND (a.verify_after IS NOT NULL OR l.oid IS NOT NULL) THEN p.archived_at
        END + coalesce(a.verify_after, make_interval(secs => $4))",
        unreadable = tier::is_unreadable("o")
    )
}

/// The archived partitions of `source` for which something is to come, and with a policy its row sets: these have the second phase alone.
pub fn ageing(source: pg_sys::Oid) -> Result<Vec<Ageing>> {
    let sql = format!(
        "SELECT p.id, format('%I.%I', p.schema_name, p.partition_name), p.foreign_table::oid, p.storage::text, p.rows,
                (SELECT count(*)::int FROM archive_ext.object o WHERE o.partition_id = p.id AND o.version = p.version),
                p.archived_bytes, pg_total_relation_size(l.oid), {verify_at},
                coalesce(a.verify_after, justify_hours(make_interval(secs => $4)))::text,
                CASE WHEN l.oid IS NOT NULL THEN {drop_at} END, held.reason, held.freed_by, p.upper_bound, p.label,
                p.tier = 'cold' AND {has_classes}, {expires_at}, p.row_set
         FROM {SOURCES} LEFT JOIN archive_ext.archive_policy a ON a.source = m.source
         LEFT JOIN LATERAL (SELECT {LOCAL_COPY} AS oid) l ON true
         LEFT JOIN LATERAL (
           SELECT {HELD} FROM archive_ext.archival_job j
           WHERE j.partition = p.foreign_table AND j.operation IN ('verify', 'drop_local', 'glacier')
           ORDER BY j.status IN ('pending', 'running', 'paused') DESC, j.started_at DESC LIMIT 1
         ) held ON held.reason IS NOT NULL AND (held.unfinished OR a.changed_at IS NULL OR held.completed_at > a.changed_at)
         WHERE s.oid = $1 AND p.status = 'ARCHIVED' AND p.foreign_table IS NOT NULL
           AND CASE WHEN p.row_set THEN a.source IS NOT NULL
                    ELSE l.oid IS NOT NULL OR a.verify_after IS NOT NULL AND p.reverified_at IS NULL
                      OR a.glacier_after IS NOT NULL AND p.tier = 'cold' END
         ORDER BY p.lower_bound, p.id",
        verify_at = micros(&format!("({})", verify_at())),
        drop_at = micros("p.local_copy_until"),
        has_classes = tier::has_classes("p.storage"),
        expires_at = micros("(p.archived_at + a.expire_after)"),
    );
    let errors = super::sees_every_row(source)?;
    let key = time_key::of(source)?;
    let after = f64::from(guc::verify_after_seconds());
    user::elevated(|| {
        spi::rows(&sql, &[source.into(), errors.into(), RUN_LIFECYCLE.into(), after.into()], |row| {
            let held = row.get(12)?.zip(row.get(13)?).map(|(reason, freed_by)| Held { reason, freed_by });
            let verify_after: Age = row.need::<String>(10)?.parse()?;
            let upper = row.get::<String>(14)?.and_then(|bound| key?.moment(&bound));
            let label = row.get::<String>(15)?;
            let period = || label?.parse::<Label>().ok()?.period?.end();
            Ok(Ageing {
                id: row.need(1)?,
                name: row.need(2)?,
                foreign_table: row.need(3)?,
                storage: row.get(4)?,
                rows: row.get(5)?,
                objects: row.get(6)?,
                archived_bytes: row.get(7)?,
                local_bytes: row.get(8)?,
                ended: upper.or_else(period),
                is_movable: row.need(16)?,
                expires_at: row.get(17)?,
                stored: Stored {
                    verify_at: row.get(9)?,
                    verify_after,
                    drop_at: row.get(11)?,
                    glacier_at: None,
                    by_objects: row.need(18)?,
                    held,
                },
            })
        })
    })
}

/// SQL over table `m`: it has no policy, and by `now` something is to be verified or dropped, or a job for that waits; or, whatever its
/// policy says, what a person asked for waits. `$2` is
/// `archive_ext.verify_after`.
pub(super) fn has_due(now: &str) -> String {
    format!(
        "EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.table_name = m.source AND j.operation IN ('restore', 'reattach', 'erase')
                   AND (j.status = 'running' OR j.status = 'pending' AND (j.next_attempt_at IS NULL OR j.next_attempt_at <= {now})))
         OR EXISTS (SELECT FROM archive_ext.erasure e WHERE e.source = m.source AND e.deleted_at IS NULL AND e.delete_after <= {now}
                      AND NOT {held}
                      AND NOT EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.table_name = m.source AND j.operation = 'erase'
                                        AND j.status IN ('pending', 'running', 'paused')))
         OR NOT EXISTS (SELECT FROM archive_ext.archive_policy a WHERE a.source = m.source)
         AND (EXISTS (SELECT FROM archive_ext.partition p WHERE p.managed_table = m.id AND p.status = 'ARCHIVED' AND NOT p.row_set
                        AND {LOCAL_COPY} IS NOT NULL
                        AND (p.local_copy_until <= {now}
                             OR p.reverified_at IS NULL AND p.archived_at + make_interval(secs => $2) <= {now}))
              OR EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.table_name = m.source AND j.scheduled
                           AND j.operation IN ('verify', 'drop_local', 'expire', 'glacier', 'restore', 'reattach', 'erase')
                           AND (j.status = 'running' OR j.status = 'pending' AND (j.next_attempt_at IS NULL OR j.next_attempt_at <= {now}))))",
        held = super::erasure::HELD,
    )
}

/// Tables that have no policy and keep local copies, of owners whom the current user may act as; `source` alone if given.
pub fn mine_without_policy(source: Option<pg_sys::Oid>) -> Result<Vec<TablePolicy>> {
    let me = user::current();
    let sql = format!(
        "SELECT c.oid, format('%I.%I', n.nspname, c.relname) FROM archive_ext.managed_table m
         JOIN pg_class c ON c.oid = m.source::oid JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE pg_has_role($1, c.relowner, 'USAGE') AND ($2 IS NULL OR c.oid = $2)
           AND NOT EXISTS (SELECT FROM archive_ext.archive_policy a WHERE a.source = m.source)
           AND EXISTS (SELECT FROM archive_ext.partition p
                       WHERE p.managed_table = m.id AND p.status = 'ARCHIVED' AND {LOCAL_COPY} IS NOT NULL)
         ORDER BY 2"
    );
    user::elevated(|| {
        spi::rows(&sql, &[me.into(), source.into()], |row| {
            Ok(TablePolicy { source: row.need(1)?, name: row.need(2)?, policy: Policy::default() })
        })
    })
}
