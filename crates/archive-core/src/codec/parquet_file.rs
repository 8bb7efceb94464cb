//! One Parquet object while it is written.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, new_null_array};
use arrow::datatypes::{DataType, Field as ArrowField, Schema, SchemaRef};
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowWriterOptions;
use parquet::basic::{Compression, Encoding, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterPropertiesBuilder, WriterVersion};
use parquet::schema::types::ColumnPath;

use super::digest::{DIGEST_ALGORITHM, Digest};
use super::layout::Layout;
use super::object::Shape;
use super::options::WriterOptions;
use super::sink::ChunkBuffer;
use crate::schema::{Field, PgType, Storage, TableSchema, sidecar_field};
use crate::{Error, ErrorKind, Result};

/// Key-value metadata: the columns as JSON.
pub(super) const SCHEMA_KEY: &str = "archive_ext.schema";
/// Key-value metadata: version of how columns and sidecars are laid out.
pub(super) const FORMAT_KEY: &str = "archive_ext.format";
/// Key-value metadata: digest of the rows as JSON.
const DIGEST_KEY: &str = "archive_ext.digest";
/// Key-value metadata: what the digest was computed by.
const ALGORITHM_KEY: &str = "archive_ext.digest_algorithm";
/// The layout that is written.
pub(super) const FORMAT: &str = "1";

/// Encoded bytes of a row group that wait in memory at most: they are there twice when it ends, and pages of [`PAGE_BYTES`] leave gaps.
const MAX_ENCODED: usize = 24 << 20;
/// Rows per data page at most.
const PAGE_ROWS: usize = 20_000;
/// Bytes of a data page before it is compressed, about. From 128 kB on memory comes from the system and goes back to it, page by page of
/// the file: encoding took a third longer with the usual 1 MiB.
const PAGE_BYTES: usize = 96 << 10;
/// Rows between two looks at the size of the page, in columns with NULLs; in others a look comes with each batch.
const WRITE_ROWS: usize = 1024;
/// Memory of all bloom filters together, about.
const BLOOM_BUDGET: u64 = 16 << 20;
const BLOOM_FPP: f64 = 0.01;

/// The object being written.
pub(super) struct ParquetFile {
    writer: ArrowWriter<ChunkBuffer>,
    arrow: SchemaRef,
    shape: Shape,
    group_rows: usize,
    group_bytes: usize,
}

/// Last chunks, size, SHA-256, row groups.
type Finished = (Vec<Bytes>, u64, String, u32);

impl ParquetFile {
    /// Begins an object, whose values are like those of `first`, its first batch.
    pub(super) fn new(schema: &TableSchema, opts: &WriterOptions, shape: Shape, first: &[ArrayRef]) -> Result<Self> {
        let arrow = Arc::new(arrow_schema(schema, &shape));
        let layouts: Vec<_> = first.iter().map(|array| Layout::of(array.as_ref())).collect();
        let properties = properties(schema, opts, &shape, &layouts)?;
        let options = ArrowWriterOptions::new().with_properties(properties).with_skip_arrow_metadata(true);
        let writer = ArrowWriter::try_new_with_options(ChunkBuffer::default(), Arc::clone(&arrow), options);
        Ok(Self { writer: writer.map_err(not_written)?, arrow, shape, group_rows: 0, group_bytes: 0 })
    }

    /// Bytes written and bytes encoded that wait for the end of the row group.
    pub(super) fn size(&self) -> u64 {
        self.written() + self.writer.in_progress_size() as u64
    }

    /// Bytes written.
    pub(super) fn written(&self) -> u64 {
        self.writer.bytes_written() as u64
    }

    /// Adds rows of so many bytes before encoding; a row group ends within them where it is full.
    pub(super) fn write(
        &mut self,
        rows: usize,
        bytes: usize,
        columns: Vec<ArrayRef>,
        sidecars: Vec<(usize, ArrayRef)>,
        opts: &WriterOptions,
    ) -> Result<()> {
        let mut rest = Some(self.record(rows, columns, sidecars)?);
        while let Some(record) = rest.take() {
            let room = opts.row_group_rows.saturating_sub(self.group_rows).max(1).min(record.num_rows());
            rest = (room < record.num_rows()).then(|| record.slice(room, record.num_rows() - room));
            self.writer.write(&record.slice(0, room)).map_err(not_written)?;
            drop(record);
            self.group_rows += room;
            self.group_bytes += bytes / rows.max(1) * room;
            self.end_full_group(opts)?;
        }
        Ok(())
    }

    /// The batch with all columns of the object; sidecars without a value are NULL.
    fn record(&self, rows: usize, mut columns: Vec<ArrayRef>, sidecars: Vec<(usize, ArrayRef)>) -> Result<RecordBatch> {
        for position in &self.shape.sidecars {
            let sidecar = sidecars.iter().find(|(i, _)| i == position).map(|(_, array)| Arc::clone(array));
            columns.push(sidecar.unwrap_or_else(|| new_null_array(&DataType::Utf8, rows)));
        }
        let options = arrow::array::RecordBatchOptions::new().with_row_count(Some(rows));
        RecordBatch::try_new_with_options(Arc::clone(&self.arrow), columns, &options)
            .map_err(|error| Error::new(ErrorKind::Internal, "could not build a batch of rows").source(error))
    }

    fn end_full_group(&mut self, opts: &WriterOptions) -> Result<()> {
        let full = self.group_rows >= opts.row_group_rows
            || self.group_bytes >= opts.row_group_bytes
            || self.writer.in_progress_size() >= MAX_ENCODED
            || self.writer.memory_size() >= MAX_ENCODED + 2 * usize::try_from(BLOOM_BUDGET).unwrap_or(0);
        if full {
            (self.group_rows, self.group_bytes) = (0, 0);
            self.writer.flush().map_err(not_written)?;
        }
        Ok(())
    }

    /// The chunks that are ready for the sink.
    pub(super) fn take_chunks(&mut self) -> Vec<Bytes> {
        self.writer.inner_mut().take_full()
    }

    /// Writes the footer, with the digest of all rows.
    pub(super) fn finish(mut self, digest: &Digest) -> Result<Finished> {
        let digest = serde_json::to_string(digest)
            .map_err(|error| Error::new(ErrorKind::Internal, "could not write a digest as JSON").source(error))?;
        self.writer.append_key_value_metadata(KeyValue::new(DIGEST_KEY.to_owned(), digest));
        self.writer.append_key_value_metadata(KeyValue::new(ALGORITHM_KEY.to_owned(), DIGEST_ALGORITHM.to_owned()));
        let metadata = self.writer.finish().map_err(not_written)?;
        let buffer = self.writer.inner_mut();
        let mut chunks = buffer.take_full();
        chunks.extend(buffer.take_rest());
        let row_groups = u32::try_from(metadata.num_row_groups()).unwrap_or(u32::MAX);
        Ok((chunks, buffer.bytes(), buffer.sha256(), row_groups))
    }
}

/// The native columns in order, then the sidecars.
fn arrow_schema(schema: &TableSchema, shape: &Shape) -> Schema {
    let names = schema.sidecar_names();
    let native = schema.fields.iter().map(|field| field.pg_type.arrow(&field.name, field.id));
    let sidecars =
        shape.sidecars.iter().filter_map(|i| Some(sidecar_field(names.get(*i)?, schema.fields.get(*i)?.sidecar_id())));
    Schema::new(native.chain(sidecars).collect::<Vec<ArrowField>>())
}

fn properties(
    schema: &TableSchema,
    opts: &WriterOptions,
    shape: &Shape,
    layouts: &[Layout],
) -> Result<WriterProperties> {
    let level = ZstdLevel::try_new(opts.compression_level).map_err(|error| {
        Error::new(ErrorKind::InvalidParameter, format!("invalid zstd level {}", opts.compression_level)).source(error)
    })?;
    let builder = WriterProperties::builder()
        .set_compression(Compression::ZSTD(level))
        .set_created_by(opts.created_by.clone())
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_write_batch_size(opts.batch_rows.min(WRITE_ROWS))
        .set_data_page_row_count_limit(opts.batch_rows.saturating_mul(2).min(PAGE_ROWS))
        .set_data_page_size_limit(PAGE_BYTES)
        .set_max_row_group_row_count(None)
        .set_max_row_group_bytes(None)
        .set_key_value_metadata(Some(key_values(schema)?));
    let builder = encodings(bloom_filters(builder, schema, opts, layouts), schema, layouts);
    Ok(wide_columns(builder, schema, shape).build())
}

/// Without a dictionary columns have the encoding of their layout, also where a dictionary is given up.
fn encodings(
    mut builder: WriterPropertiesBuilder,
    schema: &TableSchema,
    layouts: &[Layout],
) -> WriterPropertiesBuilder {
    for (field, layout) in schema.fields.iter().zip(layouts) {
        let encoding = match layout {
            Layout::Dictionary => continue,
            Layout::Differences | Layout::Ordered => Encoding::DELTA_BINARY_PACKED,
            Layout::Plain => Encoding::PLAIN,
        };
        let path = native_path(field);
        builder = builder.set_column_dictionary_enabled(path.clone(), false).set_column_encoding(path, encoding);
    }
    builder
}

fn key_values(schema: &TableSchema) -> Result<Vec<KeyValue>> {
    let json = serde_json::to_string(schema)
        .map_err(|error| Error::new(ErrorKind::Internal, "could not write the columns as JSON").source(error))?;
    Ok(vec![KeyValue::new(FORMAT_KEY.to_owned(), FORMAT.to_owned()), KeyValue::new(SCHEMA_KEY.to_owned(), json)])
}

/// Where values go up or down, the page index tells where one is, in fewer bytes than a filter that says whether it is there.
fn bloom_filters(
    mut builder: WriterPropertiesBuilder,
    schema: &TableSchema,
    opts: &WriterOptions,
    layouts: &[Layout],
) -> WriterPropertiesBuilder {
    let is_ordered = |at: usize| layouts.get(at) == Some(&Layout::Ordered);
    let wanted = |field: &Field| opts.bloom_fields.contains(&field.id) && can_bloom(&field.pg_type);
    let fields = schema.fields.iter().enumerate().filter(|(at, field)| wanted(field) && !is_ordered(*at));
    let fields: Vec<&Field> = fields.map(|(_, field)| field).collect();
    let share = BLOOM_BUDGET / (fields.len() as u64).max(1);
    // Some ten bits per distinct value at this rate of false positives.
    let distinct = (opts.row_group_rows as u64).min(share * 8 / 10).max(64);
    for field in fields {
        builder = builder
            .set_column_bloom_filter_enabled(native_path(field), true)
            .set_column_bloom_filter_fpp(native_path(field), BLOOM_FPP)
            .set_column_bloom_filter_max_ndv(native_path(field), distinct);
    }
    builder
}

/// Types whose equality is that of the bytes that Parquet hashes.
pub(super) fn can_bloom(pg_type: &PgType) -> bool {
    match pg_type {
        PgType::Numeric { .. } => pg_type.storage() != Storage::NumericText,
        PgType::Int2
        | PgType::Int4
        | PgType::Int8
        | PgType::Float4
        | PgType::Float8
        | PgType::Text
        | PgType::Varchar
        | PgType::Bytea
        | PgType::Date
        | PgType::Time
        | PgType::Timestamp
        | PgType::TimestampTz
        | PgType::Uuid
        | PgType::Enum => true,
        _ => false,
    }
}

fn wide_columns(mut builder: WriterPropertiesBuilder, schema: &TableSchema, shape: &Shape) -> WriterPropertiesBuilder {
    if !shape.wide.is_empty() {
        // Version 2 data pages are compressed from where they were encoded, without one more copy.
        builder = builder.set_writer_version(WriterVersion::PARQUET_2_0).set_encoding(Encoding::PLAIN);
    }
    let names = schema.sidecar_names();
    for position in &shape.wide {
        let Some((field, sidecar)) = schema.fields.get(*position).zip(names.get(*position)) else { continue };
        let native = leaf_paths(&field.pg_type.arrow(&field.name, field.id));
        for path in native.into_iter().chain([vec![sidecar.clone()]]).map(ColumnPath::new) {
            builder = builder
                .set_column_dictionary_enabled(path.clone(), false)
                .set_column_encoding(path.clone(), Encoding::PLAIN)
                .set_column_statistics_enabled(path.clone(), EnabledStatistics::None)
                .set_column_bloom_filter_enabled(path, false);
        }
    }
    builder
}

/// The path of a scalar column.
fn native_path(field: &Field) -> ColumnPath {
    ColumnPath::new(vec![field.name.clone()])
}

/// The paths of the leaves of a field, as Parquet names them.
fn leaf_paths(field: &ArrowField) -> Vec<Vec<String>> {
    let below = match field.data_type() {
        DataType::Struct(members) => members.iter().flat_map(|member| leaf_paths(member)).collect(),
        DataType::List(element) => {
            let mut paths = leaf_paths(element);
            paths.iter_mut().for_each(|path| path.insert(0, "list".to_owned()));
            paths
        }
        _ => vec![Vec::new()],
    };
    let prefixed = |path: Vec<String>| std::iter::once(field.name().clone()).chain(path).collect();
    below.into_iter().map(prefixed).collect()
}

fn not_written(error: ParquetError) -> Error {
    Error::new(ErrorKind::Internal, "could not encode rows as Parquet").source(error)
}
