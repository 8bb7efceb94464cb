//! One object while it is written, of whatever format, and what is told of it afterwards.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::ArrayRef;
use bytes::Bytes;

use super::digest::Digest;
use super::encode::{ColumnBatch, EncodedBatch};
use super::extremes::Extremes;
use super::format::ObjectFormat;
use super::key_filter::Keys;
use super::ndjson::NdjsonFile;
use super::options::{ObjectSummary, WriterOptions};
use super::parquet_file::ParquetFile;
use crate::schema::TableSchema;
use crate::{Error, ErrorKind, Result};

/// What differs between the objects of a partition. It only ever grows, so that objects are not cut again and again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// Positions of the columns that have a sidecar.
    pub(super) sidecars: BTreeSet<usize>,
    /// Positions of the columns with a value larger than a batch. Dictionary, statistics and bloom filter would each
    /// copy such a value, so these columns do without.
    pub(super) wide: BTreeSet<usize>,
}

impl Shape {
    /// Whether an object of this shape can take a batch of `other`.
    pub(super) fn covers(&self, other: &Shape) -> bool {
        other.sidecars.is_subset(&self.sidecars) && other.wide.is_subset(&self.wide)
    }

    /// The shape that covers both.
    pub(super) fn union(&self, other: &Shape) -> Shape {
        Shape { sidecars: &self.sidecars | &other.sidecars, wide: &self.wide | &other.wide }
    }
}

/// One batch, ready for an object.
#[derive(Debug)]
pub(super) struct Batch {
    pub(super) rows: usize,
    /// Bytes of the values before encoding.
    pub(super) bytes: usize,
    /// Bytes of memory that it takes until it is encoded, about.
    pub(super) memory: usize,
    pub(super) encoded: Encoded,
    pub(super) shape: Shape,
    pub(super) nulls: Vec<u64>,
    pub(super) keys: Keys,
}

/// Rows in the form that their object's format wants.
#[derive(Debug)]
pub(super) enum Encoded {
    /// Columns, which are hashed when they are encoded.
    Columns(ColumnBatch),
    /// Lines, and the digest of their rows.
    Lines(Vec<u8>, Digest),
}

/// The object being written.
pub(super) struct ObjectWriter {
    schema: Arc<TableSchema>,
    file: File,
    shape: Shape,
    keys: Keys,
    filter_fields: Vec<i32>,
    summary: ObjectSummary,
}

enum File {
    /// Begun with its first batch, whose values tell how the columns are encoded.
    NoParquetYet,
    Parquet(Box<ParquetFile>),
    Ndjson(NdjsonFile),
}

impl ObjectWriter {
    /// Begins an object.
    pub(super) fn new(schema: Arc<TableSchema>, opts: &WriterOptions, shape: Shape, ordinal: u32) -> Self {
        let file = match opts.format {
            ObjectFormat::Parquet => File::NoParquetYet,
            ObjectFormat::NdjsonGz => File::Ndjson(NdjsonFile::new(true)),
            ObjectFormat::Ndjson => File::Ndjson(NdjsonFile::new(false)),
        };
        let summary = ObjectSummary {
            ordinal,
            rows: 0,
            bytes: 0,
            sha256: String::new(),
            digest: empty_digest(&schema),
            row_groups: 0,
            null_counts: schema.fields.iter().map(|field| (field.id, 0)).collect(),
            sidecars: Vec::new(),
            key_filter: None,
        };
        let mut filter_fields = opts.filter_fields.clone();
        filter_fields.sort_unstable();
        Self { schema, file, shape, keys: Keys::default(), filter_fields, summary }
    }

    /// Number of the object.
    pub(super) fn ordinal(&self) -> u32 {
        self.summary.ordinal
    }

    /// Whether it can take a batch of `shape`. Each line has the sidecars that it needs.
    pub(super) fn takes(&self, shape: &Shape) -> bool {
        matches!(self.file, File::Ndjson(_)) || self.shape.covers(shape)
    }

    /// Bytes written and bytes encoded that wait for the end of the row group.
    pub(super) fn size(&self) -> u64 {
        match &self.file {
            File::NoParquetYet => 0,
            File::Parquet(file) => file.size(),
            File::Ndjson(file) => file.written(),
        }
    }

    /// Bytes written.
    pub(super) fn written(&self) -> u64 {
        match &self.file {
            File::NoParquetYet => 0,
            File::Parquet(file) => file.written(),
            File::Ndjson(file) => file.written(),
        }
    }

    /// Adds a batch, and tells the extremes of its columns that are wanted.
    pub(super) fn write(&mut self, batch: Batch, opts: &WriterOptions) -> Result<Vec<Extremes>> {
        let Batch { rows, bytes, encoded, shape, nulls, keys, memory: _ } = batch;
        let mut extremes = Vec::new();
        let digest = match encoded {
            Encoded::Columns(columns) => {
                let EncodedBatch { columns, sidecars, digest } = columns.encode()?;
                extremes = self.extremes(&columns, &opts.range_fields)?;
                self.parquet(&columns, opts)?.write(rows, bytes, columns, sidecars, opts)?;
                digest
            }
            Encoded::Lines(lines, digest) => match &mut self.file {
                File::Ndjson(file) => file.write(&lines).map(|()| digest)?,
                _ => return Err(wrong_format()),
            },
        };
        self.shape = self.shape.union(&shape);
        self.summary.rows += rows as u64;
        self.summary.digest.merge(&digest);
        self.keys.extend(keys);
        for ((_, total), nulls) in self.summary.null_counts.iter_mut().zip(nulls) {
            *total += nulls;
        }
        Ok(extremes)
    }

    fn extremes(&self, columns: &[ArrayRef], wanted: &[i32]) -> Result<Vec<Extremes>> {
        let columns = self.schema.fields.iter().zip(columns).filter(|(field, _)| wanted.contains(&field.id));
        columns.filter_map(|(field, column)| Extremes::of(field, column).transpose()).collect()
    }

    /// The Parquet file, begun if need be for values like those of `first`.
    fn parquet(&mut self, first: &[ArrayRef], opts: &WriterOptions) -> Result<&mut ParquetFile> {
        if let File::NoParquetYet = self.file {
            self.file = File::Parquet(Box::new(ParquetFile::new(&self.schema, opts, self.shape.clone(), first)?));
        }
        match &mut self.file {
            File::Parquet(file) => Ok(file),
            _ => Err(wrong_format()),
        }
    }

    /// The chunks that are ready for the sink.
    pub(super) fn take_chunks(&mut self) -> Vec<Bytes> {
        match &mut self.file {
            File::NoParquetYet => Vec::new(),
            File::Parquet(file) => file.take_chunks(),
            File::Ndjson(file) => file.take_chunks(),
        }
    }

    /// Ends the object; the last chunks and what was written.
    pub(super) fn finish(mut self, opts: &WriterOptions) -> Result<(Vec<Bytes>, ObjectSummary)> {
        if let File::NoParquetYet = self.file {
            self.parquet(&[], opts)?;
        }
        let mut summary = self.summary;
        let chunks;
        match self.file {
            File::NoParquetYet => return Err(wrong_format()),
            File::Parquet(file) => {
                (chunks, summary.bytes, summary.sha256, summary.row_groups) = file.finish(&summary.digest)?
            }
            File::Ndjson(file) => (chunks, summary.bytes, summary.sha256) = file.finish()?,
        }
        let id = |position: &usize| summary.null_counts.get(*position).map(|(id, _)| *id);
        summary.sidecars = self.shape.sidecars.iter().filter_map(id).collect();
        summary.key_filter = self.keys.filter(&self.filter_fields);
        Ok((chunks, summary))
    }
}

fn wrong_format() -> Error {
    Error::new(ErrorKind::Internal, "rows were encoded for another format")
}

fn empty_digest(schema: &TableSchema) -> Digest {
    Digest { rows: 0, sum: 0, columns: schema.fields.iter().map(|field| (field.id, 0)).collect() }
}
