//! How objects are written, where they go, and what is known about each afterwards.

use bytes::Bytes;

use super::digest::Digest;
use super::format::ObjectFormat;
use super::key_filter::KeyFilter;
use crate::Result;

/// Bounds and choices of a [`super::PartitionWriter`].
#[derive(Debug, Clone)]
pub struct WriterOptions {
    /// Format of the objects.
    pub format: ObjectFormat,
    /// Rows per row group at most.
    pub row_group_rows: usize,
    /// Uncompressed bytes of input per row group at most.
    pub row_group_bytes: usize,
    /// A new object is begun once this many bytes were written.
    pub object_bytes: u64,
    /// Rows handed to an object at a time.
    pub batch_rows: usize,
    /// Bytes handed to an object at a time, with what cells take besides their values; one value may be larger.
    pub batch_bytes: usize,
    /// zstd level.
    pub compression_level: i32,
    /// Columns that get a bloom filter, by field id; never columns with a nondeterministic collation.
    pub bloom_fields: Vec<i32>,
    /// Columns of the key of which each object gets a [`KeyFilter`], by field id; never with a nondeterministic collation.
    pub filter_fields: Vec<i32>,
    /// Columns of which each batch of a Parquet object tells its [`Extremes`](super::Extremes), by field id; text only where it sorts by
    /// its bytes.
    pub range_fields: Vec<i32>,
    /// `created_by` of the files.
    pub created_by: String,
}

impl Default for WriterOptions {
    fn default() -> Self {
        Self {
            format: ObjectFormat::Parquet,
            row_group_rows: 1_000_000,
            row_group_bytes: 128 << 20,
            object_bytes: 512 << 20,
            batch_rows: 8192,
            batch_bytes: 8 << 20,
            compression_level: 1,
            bloom_fields: Vec::new(),
            filter_fields: Vec::new(),
            range_fields: Vec::new(),
            created_by: concat!("archive_ext ", env!("CARGO_PKG_VERSION")).to_owned(),
        }
    }
}

/// Receives the bytes of one object after another. Calls may block and may unwind (a cancelled query): the writer that
/// calls is dropped then, and nothing outside it has to be put right.
pub trait ObjectSink {
    /// A new object begins.
    fn begin(&mut self, ordinal: u32) -> Result<()>;
    /// The next bytes of the current object.
    fn write(&mut self, bytes: Bytes) -> Result<()>;
    /// The current object is complete.
    fn finish(&mut self) -> Result<()>;
}

/// What was written into one object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectSummary {
    /// Number of the object within the partition, from 0.
    pub ordinal: u32,
    /// Rows.
    pub rows: u64,
    /// Size.
    pub bytes: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// Digest of the rows.
    pub digest: Digest,
    /// Row groups; lines have none.
    pub row_groups: u32,
    /// (field id, number of NULLs) per column in schema order; a value in a sidecar is not NULL.
    pub null_counts: Vec<(i32, u64)>,
    /// Field ids of the columns that have a sidecar in this object.
    pub sidecars: Vec<i32>,
    /// Filter of the keys, where one was asked for and can be had.
    pub key_filter: Option<KeyFilter>,
}
