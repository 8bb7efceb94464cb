//! Objects of row sets that are replaced by others: merged, or without rows that went back to the table.

use archive_core::codec::{Digest, KeyFilter};
use archive_core::lifecycle::SmallObject;
use archive_core::manifest::ManifestObject;
use pgrx::{JsonB, pg_sys};

use super::row_set::{self, RowSet, VERSION};
use super::{key_filter, partition};
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// SQL over object `o` of table `m`: it may be merged with others. One that moved to an archive class would have to be paid for, and one
/// that is to be deleted would live as long as the youngest.
const MERGES: &str = "o.storage_class IS NULL AND NOT EXISTS (
    SELECT FROM archive_ext.archive_policy a WHERE a.source = m.source AND a.enabled AND o.archived_at + a.expire_after <= clock_timestamp())";

/// The objects of a row set that are smaller than `bytes`, by month. The months are those of the field `time`, in UTC; without
/// it, or without a range of it, an object has none. Those in archive classes, and what has expired, are left alone.
pub fn small_objects(set: i64, time: Option<i32>, bytes: u64) -> Result<Vec<SmallObject>> {
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT o.id, o.bytes,
                    (SELECT substring(r ->> 'min' FROM '^\\d{{4}}-\\d{{2}}') FROM jsonb_array_elements(o.ranges) r
                     WHERE (r ->> 'field_id')::int = $2 AND r ->> 'min' !~ 'BC$') AS month
             FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
             JOIN archive_ext.managed_table m ON m.id = p.managed_table
             WHERE o.partition_id = $1 AND o.bytes < $3 AND {MERGES} ORDER BY month NULLS FIRST, o.ordinal"
            ),
            &[set.into(), time.into(), i64::try_from(bytes).unwrap_or(i64::MAX).into()],
            |row| Ok(SmallObject { id: row.need(1)?, bytes: row.need::<i64>(2)?.unsigned_abs(), month: row.get(3)? }),
        )
    })
}

/// How many objects smaller than `bytes` the row sets of a table have.
pub fn count_small(source: pg_sys::Oid, bytes: u64) -> Result<i64> {
    user::elevated(|| {
        spi::one(
            &format!(
                "SELECT count(*) FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id
             JOIN archive_ext.managed_table m ON m.id = p.managed_table
             WHERE m.source = $1::oid AND p.row_set AND o.bytes < $2 AND {MERGES}"
            ),
            &[source.into(), i64::try_from(bytes).unwrap_or(i64::MAX).into()],
            |row| row.need(1),
        )
    })
}

/// Id and rows of every object of a row set as committed now, in the order in which queries count rows.
pub fn sizes(set: i64) -> Result<Vec<(i64, u64)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT id, rows FROM archive_ext.object WHERE partition_id = $1 AND version = $2 ORDER BY ordinal",
            &[set.into(), VERSION.into()],
            |row| Ok((row.need(1)?, row.need::<i64>(2)?.unsigned_abs())),
        )
    })
}

/// An object with its id in the catalog.
#[derive(Debug)]
pub struct Numbered {
    /// The id.
    pub id: i64,
    /// What its manifest says.
    pub object: ManifestObject,
}

/// The objects of a row set with these ids, in order.
///
/// Errors: 40001 when one of them is gone.
pub fn objects(set: &RowSet, ids: &[i64]) -> Result<Vec<Numbered>> {
    let sql =
        "SELECT id, jsonb_build_object('key', key, 'bytes', bytes, 'rows', rows, 'sha256', sha256, 'digest', digest,
                  'row_groups', row_groups, 'null_counts', null_counts, 'sidecars', sidecars, 'ranges', ranges,
                  'archived_at', to_char(archived_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'))
         FROM archive_ext.object WHERE id = ANY ($1) ORDER BY ordinal";
    let found = user::elevated(|| {
        spi::rows(sql, &[ids.to_vec().into()], |row| {
            Ok(Numbered { id: row.need(1)?, object: serde_json::from_value(row.need::<JsonB>(2)?.0)? })
        })
    })?;
    if found.len() == ids.len() { Ok(found) } else { Err(changed(&set.name)) }
}

/// What takes the place of some objects of a row set.
#[derive(Debug)]
pub struct Replacement<'a> {
    /// The objects that go.
    pub gone: &'a [Numbered],
    /// The verified objects that come.
    pub objects: &'a [ManifestObject],
    /// The key filter of each of these, where it has one.
    pub filters: &'a [Option<KeyFilter>],
    /// Digest of the rows that are in the archive no more.
    pub left: &'a Digest,
    /// Digest of the rows that are new in it.
    pub added: &'a Digest,
    /// Key of the manifest that says so.
    pub manifest: &'a str,
}

/// Puts objects in the place of others; the caller has locked the row set. Readers with older snapshots still see the old ones,
/// so these stay in the storage, and `archive_ext.replaced_object` tells which they are.
///
/// Errors: 40001 when one of the objects that go is gone already.
pub fn replace(set: &RowSet, with: &Replacement<'_>) -> Result<()> {
    let mut digest = set.digest.clone();
    digest.remove(with.left);
    digest.merge(with.added);
    user::elevated(|| {
        let first = spi::one(
            "SELECT coalesce(max(ordinal) + 1, 0) FROM archive_ext.object WHERE partition_id = $1 AND version = $2",
            &[set.id.into(), VERSION.into()],
            |row| row.need(1),
        )?;
        take_out(set, with)?;
        partition::insert_objects((set.id, &set.storage), VERSION, first, with.objects)?;
        row_set::record_manifest(set, with.manifest, with.left.rows > 0)?;
        key_filter::insert(set.id, VERSION, first, with.filters)?;
        spi::execute(
            "UPDATE archive_ext.partition
             SET rows = rows - $2, digest = $3, last_batch = $4, archived_bytes = archived_bytes + $5,
                 verified_at = clock_timestamp(), verified_level = 'content'
             WHERE id = $1",
            &[
                set.id.into(),
                (with.left.rows.cast_signed() - with.added.rows.cast_signed()).into(),
                JsonB(serde_json::to_value(&digest)?).into(),
                with.manifest.into(),
                with.grown_by().into(),
            ],
        )
    })?;
    Ok(())
}

impl Replacement<'_> {
    fn grown_by(&self) -> i64 {
        let gone: u64 = self.gone.iter().map(|gone| gone.object.bytes).sum();
        let come: u64 = self.objects.iter().map(|object| object.bytes).sum();
        come.cast_signed() - gone.cast_signed()
    }
}

fn take_out(set: &RowSet, with: &Replacement<'_>) -> Result<()> {
    let ids: Vec<i64> = with.gone.iter().map(|object| object.id).collect();
    let gone = spi::execute(
        "WITH gone AS (DELETE FROM archive_ext.object WHERE partition_id = $1 AND id = ANY ($2) RETURNING key, bytes, archived_at)
         INSERT INTO archive_ext.replaced_object (storage, key, bytes, replaced_by, archived_at)
         SELECT $3::name, key, bytes, $4, archived_at FROM gone RETURNING 1",
        &[set.id.into(), ids.into(), set.storage.as_str().into(), with.manifest.into()],
    )?;
    if gone == with.gone.len() as u64 {
        return Ok(());
    }
    Err(changed(&set.name))
}

/// The error for objects that another session replaced first.
fn changed(name: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
        format!("another session has replaced objects of \"{name}\" meanwhile"),
    )
    .hint("Nothing was changed. Run it again.")
}
