//! `archive_ext.object`: the Parquet objects of archived partitions.

use archive_core::manifest::ColumnRange;
use pgrx::JsonB;

use crate::error::Result;
use crate::pg::{spi, user};

/// One object, with what pruning needs to know about it.
#[derive(Debug, Clone)]
pub struct ArchivedObject {
    /// Position among the partition's objects.
    pub ordinal: i32,
    /// Key below the storage's prefix.
    pub key: String,
    /// Size in bytes.
    pub bytes: u64,
    /// Rows in it.
    pub rows: u64,
    /// Lowest and highest value of each ordered column.
    pub ranges: Vec<ColumnRange>,
    /// NULLs per field id.
    pub null_counts: Vec<(i32, u64)>,
}

/// The objects of a version of a partition, in order.
pub fn of_partition(partition: i64, version: i32) -> Result<Vec<ArchivedObject>> {
    user::elevated(|| {
        spi::rows(
            "SELECT ordinal, key, bytes, rows, ranges, null_counts
             FROM archive_ext.object WHERE partition_id = $1 AND version = $2 ORDER BY ordinal",
            &[partition.into(), version.into()],
            |row| {
                Ok(ArchivedObject {
                    ordinal: row.need(1)?,
                    key: row.need(2)?,
                    bytes: row.need::<i64>(3)?.unsigned_abs(),
                    rows: row.need::<i64>(4)?.unsigned_abs(),
                    ranges: serde_json::from_value(row.need::<JsonB>(5)?.0)?,
                    null_counts: serde_json::from_value(row.need::<JsonB>(6)?.0)?,
                })
            },
        )
    })
}
