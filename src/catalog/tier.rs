//! Where the rows of partitions are: the column `tier` of `archive_ext.partition`, and the storage classes of their objects.

use archive_core::store::FROZEN_CLASSES;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::observed::micros;
use crate::error::Result;
use crate::pg::{spi, user};

/// The tier whose objects are in an archive class.
pub const GLACIER: &str = "glacier";

/// SQL over object `o`: whether it must be restored before it can be read.
pub(super) fn is_frozen(object: &str) -> String {
    let classes: Vec<_> = FROZEN_CLASSES.iter().map(|class| format!("'{class}'")).collect();
    format!("coalesce({object}.storage_class IN ({}), false)", classes.join(", "))
}

/// SQL over object `o`: whether it cannot be read now.
pub(super) fn is_unreadable(object: &str) -> String {
    format!("({} AND NOT coalesce({object}.restored_until > clock_timestamp(), false))", is_frozen(object))
}

/// SQL: whether the storage with this name has storage classes.
pub(super) fn has_classes(storage: &str) -> String {
    format!(
        "EXISTS (SELECT FROM pg_foreign_server f JOIN pg_foreign_data_wrapper w ON w.oid = f.srvfdw,
                      pg_options_to_table(f.srvoptions) o
                 WHERE w.fdwname = 'archive_fdw' AND f.srvname = {storage} AND o.option_name = 'location' AND o.option_value LIKE 's3:%')"
    )
}

/// Whether an object is in a frozen class.
pub fn is_in_frozen_class(storage: &str, key: &str) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM archive_ext.object o WHERE o.storage = $1::name AND o.key = $2 AND {})",
        is_frozen("o")
    );
    user::elevated(|| spi::one(&sql, &[storage.into(), key.into()], |row| row.need(1)))
}

/// Whether anything of a hot table is in glacier.
pub fn any_in_glacier(source: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
                            JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
                            WHERE m.source = $1::oid AND p.status = 'ARCHIVED' AND o.storage_class IS NOT NULL)",
            &[source.into()],
            |row| row.need(1),
        )
    })
}

/// The tier of a relation that stores or reads rows: `hot` when the catalog does not know it.
pub fn of_relation(relation: pg_sys::Oid) -> Result<String> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT tier FROM archive_ext.partition WHERE $1 IN (hot_table::oid, foreign_table::oid)
             ORDER BY superseded_at DESC NULLS FIRST LIMIT 1",
            &[relation.into()],
            |row| row.need(1),
        )
    })?;
    Ok(found.unwrap_or_else(|| "hot".to_owned()))
}

/// An object that is to move to another class.
#[derive(Debug)]
pub struct Movable {
    /// Below the storage's prefix.
    pub key: String,
    /// Its size.
    pub bytes: u64,
    /// SHA-256 of all its bytes.
    pub sha256: String,
}

/// The objects of a version of a partition that are not of this class, nor of a frozen one, in order.
pub fn movable(partition: i64, version: i32, class: &str) -> Result<Vec<Movable>> {
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT key, bytes, sha256 FROM archive_ext.object o
                 WHERE partition_id = $1 AND version = $2 AND storage_class IS DISTINCT FROM $3 AND NOT {} ORDER BY ordinal",
                is_frozen("o")
            ),
            &[partition.into(), version.into(), class.into()],
            movable_row,
        )
    })
}

/// SQL over object `o` of a row set: whether rows of it may be of these times, by the range of the field `time`. A bound that is no time
/// is beyond every time.
pub(super) fn may_be_of(time: &str, times: &str) -> String {
    let moment = |bound: &str| {
        format!(
            "CASE WHEN r ->> '{bound}' !~ 'BC$' THEN
               substring(r ->> '{bound}' FROM '^\\d{{4}}-\\d\\d-\\d\\d(?: \\d\\d:\\d\\d:\\d\\d(?:\\.\\d+)?)?')::timestamp AT TIME ZONE 'UTC' END"
        )
    };
    format!(
        "NOT EXISTS (SELECT FROM jsonb_array_elements(o.ranges) r WHERE (r ->> 'field_id')::int = {time}
                     AND NOT tstzrange({}, {}, '[]') && {times})",
        moment("min"),
        moment("max")
    )
}

/// SQL over object `o` of a row set and policy `a`, in UTC: when it moves to an archive class. `glacier_after` counts from the end of the
/// range of field `$2`, which has the times of the rows; without it, or one that ends in time, from their archiving.
const MOVES_AT: &str = "(coalesce((
      SELECT substring(r ->> 'max' FROM '^\\d{4}-\\d\\d-\\d\\d(?: \\d\\d:\\d\\d:\\d\\d(?:\\.\\d+)?)?')::timestamp
             + CASE WHEN r ->> 'max' ~ ':' THEN interval '0' ELSE interval '1 day' END
      FROM jsonb_array_elements(o.ranges) r WHERE (r ->> 'field_id')::int = $2 AND r ->> 'max' !~ 'BC$'
    ), o.archived_at AT TIME ZONE 'UTC') + a.glacier_after)";

/// SQL: the objects `o` of row set `$1` that move to class `$3`. Not before they were verified a second time, for what is frozen cannot
/// be; not what was found to be damaged, nor what is deleted before.
fn movable_rows() -> String {
    format!(
        "archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         JOIN archive_ext.archive_policy a ON a.source = m.source AND a.glacier_after IS NOT NULL
         JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
         WHERE p.id = $1 AND p.row_set AND p.status = 'ARCHIVED' AND o.verified_at IS NOT NULL
           AND o.storage_class IS DISTINCT FROM $3 AND NOT {}
           AND NOT EXISTS (SELECT FROM archive_ext.storage_finding f WHERE f.storage = o.storage AND f.key = o.key AND f.resolved_at IS NULL
                             AND f.kind IN ('missing', 'altered', 'unreadable'))
           AND coalesce({MOVES_AT} < o.archived_at AT TIME ZONE 'UTC' + a.expire_after
                        AND o.archived_at + a.expire_after > clock_timestamp(), true)",
        is_frozen("o")
    )
}

/// When the first of the objects of a row set moves to this class that can, by the field with the times of their rows.
pub fn next_of_rows(set: i64, time: Option<i32>, class: &str) -> Result<Option<i64>> {
    let sql = format!("SELECT min({}) FROM {}", micros(MOVES_AT), movable_rows());
    user::elevated(|| spi::one(&sql, &[set.into(), time.into(), class.into()], |row| row.get(1)))
}

/// The objects of a row set that are to move to this class by `now`, in order.
pub fn due_of_rows(set: i64, time: Option<i32>, class: &str, now: TimestampWithTimeZone) -> Result<Vec<Movable>> {
    let sql = format!(
        "SELECT o.key, o.bytes, o.sha256 FROM {} AND {MOVES_AT} <= $4 AT TIME ZONE 'UTC' ORDER BY o.ordinal",
        movable_rows()
    );
    user::elevated(|| spi::rows(&sql, &[set.into(), time.into(), class.into(), now.into()], movable_row))
}

fn movable_row(row: &spi::Row<'_>) -> Result<Movable> {
    Ok(Movable { key: row.need(1)?, bytes: row.need::<i64>(2)?.unsigned_abs(), sha256: row.need(3)? })
}

/// Notes the class of an object, whichever versions have it, and what the store calls it there.
pub fn set_class(
    storage: &str,
    key: &str,
    class: Option<&str>,
    etag: Option<&str>,
    version_id: Option<&str>,
) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object SET storage_class = $3, restored_until = NULL, etag = $4, version_id = $5
             WHERE storage = $1::name AND key = $2",
            &[storage.into(), key.into(), class.into(), etag.into(), version_id.into()],
        )
        .map(drop)
    })
}

/// An object was written anew: it has the storage's class.
pub fn forget_class(storage: &str, key: &str) -> Result<()> {
    set_class(storage, key, None, None, None)
}

/// All objects of a partition are in an archive class.
pub fn set_glacier(partition: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute("UPDATE archive_ext.partition SET tier = $2 WHERE id = $1", &[partition.into(), GLACIER.into()])
            .map(drop)
    })
}

/// Notes until when a restored copy of an object can be read, in seconds since 1970; or that there is none.
pub fn set_restored(object: i64, until: Option<i64>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object SET restored_until = to_timestamp($2) WHERE id = $1",
            &[object.into(), until.map(|until| until as f64).into()],
        )
        .map(drop)
    })
}

/// Objects of a storage are in these archive classes, as a listing of it shows.
pub fn learn_classes(storage: &str, found: &[(&str, &str)]) -> Result<()> {
    if found.is_empty() {
        return Ok(());
    }
    let keys: Vec<String> = found.iter().map(|(key, _)| (*key).to_owned()).collect();
    let classes: Vec<String> = found.iter().map(|(_, class)| (*class).to_owned()).collect();
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object o SET storage_class = c.class FROM unnest($2::text[], $3::text[]) c(key, class)
             WHERE o.storage = $1::name AND o.key = c.key",
            &[storage.into(), keys.clone().into(), classes.into()],
        )?;
        spi::execute(
            "UPDATE archive_ext.partition p SET tier = $3
             WHERE p.status = 'ARCHIVED' AND NOT p.row_set AND p.storage = $1::name
               AND p.id IN (SELECT o.partition_id FROM archive_ext.object o WHERE o.storage = $1::name AND o.key = ANY ($2))
               AND NOT EXISTS (SELECT FROM archive_ext.object o
                               WHERE o.partition_id = p.id AND o.version = p.version AND o.storage_class IS NULL)",
            &[storage.into(), keys.into(), GLACIER.into()],
        )
        .map(drop)
    })
}
