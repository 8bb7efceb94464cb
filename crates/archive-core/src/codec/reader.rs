//! Reads one object, of whatever format.

use std::ops::Range;
use std::rc::Rc;

use bytes::Bytes;

use super::checksum::sha256_of;
use super::decode::DecodedBatch;
use super::format::ObjectFormat;
use super::guard::corrupt;
use super::ndjson::NdjsonReader;
use super::parquet_reader::ParquetReader;
use super::predicate::Predicate;
use super::rows;
use super::share::ClaimRows;
use crate::schema::TableSchema;
use crate::{Error, ErrorKind, Result};

const DEFAULT_BATCH_BYTES: usize = 8 << 20;
const DEFAULT_BATCH_ROWS: usize = 8192;

/// Where the bytes of an object come from. Calls may block and may unwind (a cancelled query).
pub trait RangeReader {
    /// Size of the object.
    fn len(&self) -> u64;
    /// Whether the object has no bytes.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// The bytes of each range, in order. Ranges are ascending and do not overlap.
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>>;
}

/// What to read.
#[derive(Debug, Clone, Default)]
pub struct ScanOptions {
    /// Field ids of the columns to decode; none for `count(*)`.
    pub columns: Vec<i32>,
    /// Tests that every wanted row passes. Rows that do not pass may come too.
    pub predicates: Vec<Predicate>,
    /// Decoded bytes per batch, about; 0 for the default of 8 MiB.
    pub batch_bytes: usize,
    /// Rows per batch at most; 0 for the default of 8192.
    pub max_batch_rows: usize,
    /// Only these rows of the object (a sample).
    pub row_ranges: Option<Vec<Range<u64>>>,
    /// Where several readers share the object: which of its row groups are this one's.
    pub share: Option<Rc<dyn ClaimRows>>,
}

/// What a scan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ReadMetrics {
    /// Row groups read.
    pub row_groups_read: u64,
    /// Row groups skipped by statistics, page index or bloom filter.
    pub row_groups_skipped: u64,
    /// Of these, by a bloom filter.
    pub row_groups_skipped_by_bloom: u64,
    /// Rows of the row groups that were read, skipped by the page index.
    pub rows_skipped_by_page_index: u64,
    /// Rows decoded.
    pub rows_read: u64,
}

/// What was recorded of an object when it was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Recorded<'a> {
    /// Its key, which errors name.
    pub key: &'a str,
    /// Its format.
    pub format: ObjectFormat,
    /// Its size.
    pub bytes: u64,
    /// Its rows, if that is known.
    pub rows: Option<u64>,
    /// SHA-256 of its bytes, hexadecimal, if that is known. Some values are archived as their bytes in PostgreSQL's memory; a
    /// forged one could crash the server, so the object is proven to be the one that was written before any of them is handed out.
    pub sha256: Option<&'a str>,
}

impl<'a> Recorded<'a> {
    /// What the catalog or a manifest says of an object. Errors: corrupt when its key tells no format.
    pub fn of(key: &'a str, bytes: u64, rows: u64, sha256: &'a str) -> Result<Self> {
        Ok(Self { key, format: ObjectFormat::of_key(key)?, bytes, rows: Some(rows), sha256: Some(sha256) })
    }
}

/// Reads one object; see the module.
pub struct ObjectReader<R> {
    key: String,
    /// Until it is proven.
    sha256: Option<String>,
    /// A column's values are bytes in memory.
    has_images: bool,
    inner: Inner<R>,
}

enum Inner<R> {
    Parquet(Box<ParquetReader<R>>),
    Ndjson(Box<NdjsonReader<R>>),
}

impl<R: RangeReader> ObjectReader<R> {
    /// Opens an object of the columns of `schema`. Errors: corrupt when it is not the one that was recorded, which for lines is
    /// known when the last of them was read.
    pub fn open(reader: R, recorded: Recorded<'_>, schema: &TableSchema, opts: ScanOptions) -> Result<Self> {
        let is_image = |id: &i32| schema.field(*id).is_some_and(|field| field.pg_type.is_image());
        let has_images = opts.columns.iter().any(is_image);
        let inner = Inner::open(reader, recorded, schema, opts).map_err(|error| named(error, recorded.key))?;
        Ok(Self { key: recorded.key.to_owned(), sha256: recorded.sha256.map(str::to_owned), has_images, inner })
    }

    /// The next rows, `None` at the end.
    pub fn next_batch(&mut self) -> Result<Option<DecodedBatch>> {
        self.next_proven().map_err(|error| named(error, &self.key))
    }

    fn next_proven(&mut self) -> Result<Option<DecodedBatch>> {
        let batch = match &mut self.inner {
            Inner::Parquet(reader) => reader.next_batch()?,
            Inner::Ndjson(reader) => reader.next_batch()?,
        };
        let images = |batch: &DecodedBatch| self.has_images || batch.has_images();
        if self.sha256.is_some() && batch.as_ref().is_some_and(images) {
            self.prove()?;
        }
        Ok(batch)
    }

    /// Reads the whole object, once, if it is known what it should be.
    fn prove(&mut self) -> Result<()> {
        let Some(expected) = self.sha256.clone() else { return Ok(()) };
        let found = match &mut self.inner {
            Inner::Parquet(reader) => sha256_of(reader.reader_mut())?,
            Inner::Ndjson(reader) => sha256_of(reader.reader_mut())?,
        };
        if found.eq_ignore_ascii_case(&expected) {
            self.sha256 = None;
            return Ok(());
        }
        Err(corrupt("object has other bytes than recorded").detail(format!("Its SHA-256 is {found}, not {expected}.")))
    }

    /// What was done so far.
    pub fn metrics(&self) -> ReadMetrics {
        match &self.inner {
            Inner::Parquet(reader) => reader.metrics(),
            Inner::Ndjson(reader) => reader.metrics(),
        }
    }

    /// The source of bytes.
    pub fn reader(&self) -> &R {
        match &self.inner {
            Inner::Parquet(reader) => reader.reader(),
            Inner::Ndjson(reader) => reader.reader(),
        }
    }
}

impl<R: RangeReader> Inner<R> {
    fn open(reader: R, recorded: Recorded<'_>, schema: &TableSchema, opts: ScanOptions) -> Result<Self> {
        if reader.len() != recorded.bytes {
            return Err(corrupt("object has another size than recorded").detail(format!(
                "It has {} bytes, and {} were recorded.",
                reader.len(),
                recorded.bytes
            )));
        }
        let opts = with_defaults(opts);
        Ok(match recorded.format {
            ObjectFormat::Parquet => {
                let reader = ParquetReader::open(reader, recorded.bytes, schema, opts)?;
                check_rows(reader.num_rows(), recorded.rows)?;
                Self::Parquet(Box::new(reader))
            }
            ObjectFormat::NdjsonGz | ObjectFormat::Ndjson => {
                Self::Ndjson(Box::new(NdjsonReader::open(reader, recorded, schema, opts)?))
            }
        })
    }
}

/// What is wrong with the bytes of an object is said with its key; the storage's own errors name it already.
fn named(error: Error, key: &str) -> Error {
    if error.kind() != ErrorKind::Corrupt || error.message().contains(key) {
        return error;
    }
    let mut detail = error.message().to_owned();
    if let Some(first) = detail.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    detail.push('.');
    if let Some(more) = error.detail_text() {
        detail = format!("{detail} {more}");
    }
    corrupt(format!("archive object \"{key}\" is not what was written")).detail(detail)
}

/// Whether an object has the rows that were recorded of it (corrupt otherwise).
pub(super) fn check_rows(found: u64, recorded: Option<u64>) -> Result<()> {
    let Some(recorded) = recorded.filter(|recorded| *recorded != found) else { return Ok(()) };
    Err(corrupt("object holds another number of rows than recorded")
        .detail(format!("It holds {found} rows, and {recorded} were recorded.")))
}

/// The error about a column that is asked for and that the schema lacks.
pub(super) fn no_such_field(id: i32) -> Error {
    Error::new(ErrorKind::Internal, format!("no column has field id {id}"))
}

fn with_defaults(mut opts: ScanOptions) -> ScanOptions {
    if opts.batch_bytes == 0 {
        opts.batch_bytes = DEFAULT_BATCH_BYTES;
    }
    if opts.max_batch_rows == 0 {
        opts.max_batch_rows = DEFAULT_BATCH_ROWS;
    }
    opts.row_ranges = opts.row_ranges.map(rows::normalize);
    opts
}
