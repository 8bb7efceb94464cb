//! PostgreSQL values to Parquet, or lines of JSON, and back, with row digests and pruning. No I/O of its own: the caller supplies an
//! [`ObjectSink`] to write to and a [`RangeReader`] to read from.

mod background;
mod bind;
mod canonical;
mod checksum;
mod decode;
mod digest;
mod encode;
mod extremes;
mod fetch;
mod footer;
mod format;
mod guard;
pub mod jsonb_disk;
mod key_filter;
mod layout;
mod ndjson;
mod numeric;
pub mod numeric_disk;
mod object;
mod options;
mod order;
mod outlier;
mod parquet_file;
mod parquet_reader;
mod pipeline;
mod plain_column;
mod predicate;
mod prune;
mod reader;
mod reserve;
mod rows;
mod sequence;
mod share;
mod sidecar;
mod sink;
mod stats;
mod value;
mod writer;

#[cfg(test)]
mod tests;

pub use background::Background;
pub use checksum::{sha256_of, sha256_of_bytes, sha256_while};
pub use decode::{Decoded, DecodedBatch};
pub use digest::{DIGEST_ALGORITHM, Digest, RowHasher};
pub use extremes::{Extremes, LONGEST_EXTREME};
pub use format::ObjectFormat;
pub use key_filter::{KEY_FILTER_FORMAT, KeyFilter, KeyHash, block_may_hold, can_filter, equality_fields, wanted_keys};
pub use numeric::{Digits, Numeric, NumericBuf, NumericSign};
pub use options::{ObjectSink, ObjectSummary, WriterOptions};
pub use order::{bytes_prefix, float_order};
pub use predicate::{CompareOp, Predicate, Scalar, Test, TextOrder};
pub use prune::{is_pruned_by_equality, is_pruned_by_order};
pub use reader::{ObjectReader, RangeReader, ReadMetrics, Recorded, ScanOptions};
pub use sequence::Flushed;
pub use share::{ClaimRows, SharedPosition};
pub use sidecar::Sidecar;
pub use value::{ArrayValue, IntervalValue, Value};
pub use writer::{Appended, PartitionWriter};
