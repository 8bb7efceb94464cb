//! `archive_ext.object`: the objects of archived partitions.

use archive_core::codec::Recorded;
use archive_core::manifest::ColumnRange;
use pgrx::pg_sys;
use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::pg::tuple_id::TupleId;
use crate::pg::{spi, user};

/// SQL over object `o` of a partition: the key of the manifest of its version. Its name in the key is that of the partition when it was
/// archived.
pub(super) const MANIFEST_KEY: &str = r"split_part(o.key, '/', 1) || '/_manifests/'
    || regexp_replace(o.key, '^.*/([^/]+)\.v\d+\.\d+\.parquet$', '\1') || '.v' || o.version || '.json'";

/// One object, with what pruning needs to know about it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ArchivedObject {
    /// Its id, which no other object ever has.
    pub id: i64,
    /// Position among the partition's objects.
    pub ordinal: i32,
    /// Key below the storage's prefix.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// SHA-256 of all its bytes.
    pub sha256: String,
    /// Lowest and highest value of each ordered column.
    pub ranges: Vec<ColumnRange>,
    /// NULLs per field id.
    pub null_counts: Vec<(i32, u64)>,
    /// Its storage class, where that is not the storage's.
    #[serde(default)]
    pub class: Option<String>,
    /// Its storage class, if that must be restored to be read and no restored copy is there.
    #[serde(default)]
    pub frozen: Option<String>,
}

impl ArchivedObject {
    /// What a reader is told of it.
    pub fn recorded(&self) -> Result<Recorded<'_>> {
        Ok(Recorded::of(&self.key, self.bytes, self.rows, &self.sha256)?)
    }
}

/// The objects of a version of a partition, in order, as committed now; with what is known of these fields only.
pub fn of_partition(partition: i64, version: i32, fields: &[i32]) -> Result<Vec<ArchivedObject>> {
    let text =
        user::elevated(|| spi::latest_text(&format!("SELECT {}", as_json(fields)), &[partition, version.into()]))?;
    Ok(serde_json::from_str(text.as_deref().unwrap_or("[]"))?)
}

/// The objects of a row set and how many rows they hold, as the snapshot of the running query sees them: the hot table is
/// read by the same, and each row is in one of both.
pub fn of_row_set(partition: i64, version: i32, fields: &[i32]) -> Result<(Vec<ArchivedObject>, u64)> {
    #[derive(Deserialize)]
    struct Found {
        rows: u64,
        objects: Vec<ArchivedObject>,
    }
    let text = user::elevated(|| {
        let sql = format!(
            "SELECT json_build_object('rows', p.rows, 'objects', {}) FROM archive_ext.partition p WHERE p.id = $1",
            as_json(fields)
        );
        spi::active_text(&sql, &[partition, version.into()])
    })?;
    // The snapshot may be older than the row set.
    let Some(text) = text else { return Ok((Vec::new(), 0)) };
    let found: Found = serde_json::from_str(&text)?;
    Ok((found.objects, found.rows))
}

/// The objects of partition `$1` and version `$2`. Not jsonb: of 100,000 objects it takes four times as long, and of more it may be
/// larger than PostgreSQL lets it be.
fn as_json(fields: &[i32]) -> String {
    let frozen = super::tier::is_unreadable("o");
    let (ranges, null_counts) = (only("ranges", ".field_id", fields), only("null_counts", "[0]", fields));
    let known = format!(
        "'id', id, 'ordinal', ordinal, 'key', key, 'bytes', bytes, 'rows', rows, 'sha256', sha256,
         'ranges', {ranges}, 'null_counts', {null_counts}"
    );
    format!(
        "(SELECT coalesce(json_agg(CASE WHEN storage_class IS NULL THEN json_build_object({known})
                 ELSE json_build_object({known}, 'class', storage_class, 'frozen', CASE WHEN {frozen} THEN storage_class END)
                 END ORDER BY ordinal), '[]')
          FROM archive_ext.object o WHERE partition_id = $1 AND version = $2)"
    )
}

/// The elements of an array that are about one of `fields`, whose id is the member `id`. In lax mode elements that are arrays would
/// be unwrapped.
fn only(array: &str, id: &str, fields: &[i32]) -> String {
    let tests: Vec<_> = fields.iter().map(|field| format!("@{id} == {field}")).collect();
    match tests.is_empty() {
        true => "'[]'::json".to_owned(),
        false => format!("jsonb_path_query_array({array}, 'strict $[*] ? ({})')", tests.join(" || ")),
    }
}

/// Notes where the rows of an object begin in the heap with this file.
pub fn set_position(storage: &str, key: &str, heap_file: pg_sys::Oid, first: TupleId) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.object_position AS p (storage, key, heap_file, first_tid) VALUES ($1::name, $2, $3, $4)
             ON CONFLICT (storage, key) DO UPDATE SET heap_file = excluded.heap_file, first_tid = excluded.first_tid",
            &[storage.into(), key.into(), heap_file.into(), first.as_i64().into()],
        )
    })?;
    Ok(())
}

/// Where the rows of an object begin in the heap with this file, if that is known.
pub fn position(storage: &str, key: &str, heap_file: pg_sys::Oid) -> Result<Option<TupleId>> {
    user::elevated(|| {
        spi::optional(
            "SELECT first_tid FROM archive_ext.object_position WHERE storage = $1::name AND key = $2 AND heap_file = $3",
            &[storage.into(), key.into(), heap_file.into()],
            |row| Ok(TupleId::from_i64(row.need(1)?)),
        )
    })
}
