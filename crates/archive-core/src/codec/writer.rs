//! Writes the rows of a partition into one or more objects.

use std::sync::Arc;

use super::background::Background;
use super::digest::RowHasher;
use super::encode::ColumnBuffer;
use super::format::ObjectFormat;
use super::key_filter::KeyHasher;
use super::ndjson::LineBuffer;
use super::object::{Batch, Encoded, Shape};
use super::options::{ObjectSink, ObjectSummary, WriterOptions};
use super::pipeline::Pipeline;
use super::sequence::{Event, Flushed, ObjectSequence};
use super::value::Value;
use crate::schema::TableSchema;
use crate::{Error, ErrorKind, Result};

/// Whether a value went into its native column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Appended {
    /// It did, or it is NULL.
    Stored,
    /// The native column cannot hold it: [`PartitionWriter::append_text`] must follow with its text output.
    NeedsText,
}

/// Writes rows value by value: [`append`](Self::append) for each column in schema order, then
/// [`end_row`](Self::end_row), and [`flush`](Self::flush) when the batch is full. Memory is bounded by the options, not by the number of rows.
pub struct PartitionWriter<S> {
    schema: Arc<TableSchema>,
    opts: Arc<WriterOptions>,
    background: Option<Background>,
    sink: S,
    keys: Option<KeyHasher>,
    encoder: Encoder,
    pending: Pending,
    /// From the first batch on.
    pipeline: Option<Pipeline>,
    /// Bytes of memory that a row takes besides those of its values.
    row_overhead: usize,
    done: Vec<ObjectSummary>,
    rows: u64,
    appended_bytes: u64,
    done_bytes: u64,
    /// Bytes of the current object, as known last.
    object_bytes: u64,
}

/// The batch that is being filled.
#[derive(Debug, Default)]
struct Pending {
    rows: usize,
    bytes: usize,
    nulls: Vec<u64>,
    shape: Shape,
    /// The column whose value comes next.
    next: usize,
    /// The column whose text is owed.
    owed: Option<usize>,
}

impl Pending {
    fn new(columns: usize) -> Self {
        Self { nulls: vec![0; columns], ..Self::default() }
    }
}

/// The rows of the batch in the form of their format.
#[derive(Debug)]
enum Encoder {
    /// Their values are hashed when the batch is encoded.
    Columns(ColumnBuffer),
    Lines(LineBuffer, RowHasher),
}

impl Encoder {
    fn new(schema: &TableSchema, format: ObjectFormat) -> Result<Self> {
        Ok(match format {
            ObjectFormat::Parquet => Self::Columns(ColumnBuffer::new(schema)?),
            ObjectFormat::NdjsonGz | ObjectFormat::Ndjson => {
                Self::Lines(LineBuffer::new(schema)?, RowHasher::new(schema))
            }
        })
    }

    /// The next value of a row. `false` for an outlier, which is NULL in its place.
    #[inline(always)]
    fn append(&mut self, column: usize, value: Option<&Value<'_>>) -> Result<bool> {
        match self {
            Self::Columns(columns) => columns.append(column, value),
            Self::Lines(lines, hasher) => {
                hasher.column(column, value);
                lines.append(column, value)
            }
        }
    }

    fn append_text(&mut self, row: usize, column: usize, text: &str) -> Result<()> {
        match self {
            Self::Columns(columns) => columns.append_text(row, column, text),
            Self::Lines(lines, _) => lines.append_text(column, text),
        }
    }

    fn end_row(&mut self) {
        if let Self::Lines(lines, hasher) = self {
            lines.end_row();
            hasher.end_row();
        }
    }

    fn take(&mut self, rows: usize) -> Result<Encoded> {
        Ok(match self {
            Self::Columns(columns) => Encoded::Columns(columns.take(rows)?),
            Self::Lines(lines, hasher) => Encoded::Lines(lines.take(), hasher.take()),
        })
    }
}

impl<S: ObjectSink> PartitionWriter<S> {
    /// A writer of rows of `schema`.
    pub fn new(schema: TableSchema, opts: WriterOptions, sink: S) -> Result<Self> {
        check_options(&opts)?;
        check_schema(&schema)?;
        Ok(Self {
            keys: KeyHasher::new(&schema, &opts.filter_fields),
            encoder: Encoder::new(&schema, opts.format)?,
            pending: Pending::new(schema.fields.len()),
            row_overhead: schema.fields.iter().map(|field| ColumnBuffer::cell_overhead(&field.pg_type)).sum(),
            schema: Arc::new(schema),
            opts: Arc::new(opts),
            background: None,
            sink,
            pipeline: None,
            done: Vec::new(),
            rows: 0,
            appended_bytes: 0,
            done_bytes: 0,
            object_bytes: 0,
        })
    }

    /// Batches are encoded there while the rows of the next ones come in; those that wait for it have the bytes of two at most.
    #[must_use]
    pub fn encoding_in(self, background: Background) -> Self {
        Self { background: Some(background), ..self }
    }

    /// The next value of the row. It is hashed too, before any conversion.
    #[inline(always)]
    pub fn append(&mut self, column: usize, value: Option<&Value<'_>>) -> Result<Appended> {
        let in_order = column == self.pending.next && self.pending.owed.is_none();
        if !in_order || column >= self.schema.fields.len() {
            return Err(out_of_order());
        }
        let stored = self.encoder.append(column, value)?;
        if let Some(keys) = &mut self.keys {
            keys.column(column, value);
        }
        self.pending.next += 1;
        match value {
            None => add_null(&mut self.pending.nulls, column),
            Some(value) if stored => self.note_size(column, value.size()),
            Some(_) => {
                self.pending.owed = Some(column);
                return Ok(Appended::NeedsText);
            }
        }
        Ok(Appended::Stored)
    }

    /// The PostgreSQL text output of the value that was just refused with [`Appended::NeedsText`].
    pub fn append_text(&mut self, column: usize, text: &str) -> Result<()> {
        if self.pending.owed.take() != Some(column) {
            return Err(out_of_order());
        }
        self.encoder.append_text(self.pending.rows, column, text)?;
        self.pending.shape.sidecars.insert(column);
        self.note_size(column, text.len());
        Ok(())
    }

    #[inline(always)]
    fn note_size(&mut self, column: usize, size: usize) {
        self.pending.bytes += size;
        self.appended_bytes += size as u64;
        if size > self.opts.batch_bytes {
            self.pending.shape.wide.insert(column);
        }
    }

    /// The row is complete. When that [fills the batch](Self::is_full), [`Self::flush`] comes before the next row; what
    /// the row's values borrowed can be freed first.
    pub fn end_row(&mut self) -> Result<()> {
        if self.pending.next != self.schema.fields.len() || self.pending.owed.is_some() {
            return Err(out_of_order());
        }
        self.encoder.end_row();
        if let Some(keys) = &mut self.keys {
            keys.end_row();
        }
        self.rows += 1;
        self.pending.next = 0;
        self.pending.rows += 1;
        Ok(())
    }

    /// Whether the batch is full.
    pub fn is_full(&self) -> bool {
        // Small row groups end with a batch, and so with an object.
        let rows = self.opts.batch_rows.min(self.opts.row_group_rows);
        self.pending.rows >= rows || self.pending_memory() >= self.opts.batch_bytes
    }

    fn pending_memory(&self) -> usize {
        self.pending.bytes + self.pending.rows * self.row_overhead
    }

    /// Hands the pending rows to their object, and what is complete of objects to the sink. The batches that are in their objects by
    /// now, in order. With or without a background the same batches go to the same objects.
    pub fn flush(&mut self) -> Result<Vec<Flushed>> {
        let batch = self.take_batch()?;
        // A value larger than a batch is to be gone from memory before the next one comes.
        let (memory, alone) = (batch.memory, batch.bytes >= 2 * self.opts.batch_bytes);
        let mut flushed = Vec::new();
        self.wait_for_room(memory, &mut flushed)?;
        self.pipeline()?.put(batch)?;
        if alone {
            self.wait_for_room(memory, &mut flushed)?;
        }
        while let Some(event) = self.pipeline()?.take()? {
            self.note(event, &mut flushed)?;
        }
        Ok(flushed)
    }

    fn wait_for_room(&mut self, memory: usize, flushed: &mut Vec<Flushed>) -> Result<()> {
        let most = 2 * self.opts.batch_bytes - 1;
        while !self.pipeline()?.has_room(memory, most) {
            let event = self.pipeline()?.wait()?;
            self.note(event, flushed)?;
        }
        Ok(())
    }

    fn pipeline(&mut self) -> Result<&mut Pipeline> {
        let pipeline = match self.pipeline.take() {
            Some(pipeline) => pipeline,
            None => {
                let objects = ObjectSequence::new(Arc::clone(&self.schema), Arc::clone(&self.opts));
                Pipeline::new(objects, self.background.as_ref())?
            }
        };
        Ok(self.pipeline.insert(pipeline))
    }

    /// Has the sink do what an event says.
    fn note(&mut self, event: Event, flushed: &mut Vec<Flushed>) -> Result<()> {
        match event {
            Event::Begun(ordinal) => self.sink.begin(ordinal)?,
            Event::Chunk(chunk) => self.sink.write(chunk)?,
            Event::Flushed(batch, written) => {
                self.object_bytes = written;
                flushed.push(batch);
            }
            Event::Finished(summary) => {
                self.sink.finish()?;
                self.object_bytes = 0;
                self.done_bytes += summary.bytes;
                self.done.push(*summary);
            }
            Event::Ended => {}
        }
        Ok(())
    }

    fn take_batch(&mut self) -> Result<Batch> {
        let memory = self.pending_memory();
        let pending = std::mem::replace(&mut self.pending, Pending::new(self.schema.fields.len()));
        Ok(Batch {
            rows: pending.rows,
            bytes: pending.bytes,
            memory,
            encoded: self.encoder.take(pending.rows)?,
            shape: pending.shape,
            nulls: pending.nulls,
            keys: self.keys.as_mut().map(KeyHasher::take).unwrap_or_default(),
        })
    }

    /// Completes the last object; with the batches that went to it since. A partition without rows gives one object without rows.
    pub fn finish(mut self) -> Result<(Vec<ObjectSummary>, Vec<Flushed>, S)> {
        if self.pending.next != 0 || self.pending.owed.is_some() {
            return Err(out_of_order());
        }
        let mut flushed = if self.pending.rows > 0 { self.flush()? } else { Vec::new() };
        self.pipeline()?.finish()?;
        loop {
            match self.pipeline()?.wait()? {
                Event::Ended => return Ok((self.done, flushed, self.sink)),
                event => self.note(event, &mut flushed)?,
            }
        }
    }

    /// Complete rows so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of the values that were appended so far.
    pub fn bytes_appended(&self) -> u64 {
        self.appended_bytes
    }

    /// Bytes encoded so far; the row group in progress counts when it is complete.
    pub fn bytes_written(&self) -> u64 {
        self.done_bytes + self.object_bytes
    }

    /// Objects that are complete.
    pub fn finished_objects(&self) -> &[ObjectSummary] {
        &self.done
    }
}

fn add_null(nulls: &mut [u64], column: usize) {
    if let Some(count) = nulls.get_mut(column) {
        *count += 1;
    }
}

fn check_options(opts: &WriterOptions) -> Result<()> {
    let bounds = [opts.row_group_rows, opts.row_group_bytes, opts.batch_rows, opts.batch_bytes];
    if opts.object_bytes == 0 || bounds.contains(&0) {
        return Err(Error::new(
            ErrorKind::InvalidParameter,
            "sizes of batches, row groups and objects must be positive",
        ));
    }
    Ok(())
}

/// Parquet counts rows by their columns.
fn check_schema(schema: &TableSchema) -> Result<()> {
    if schema.fields.is_empty() {
        return Err(Error::new(ErrorKind::Unsupported, "a table without columns cannot be archived"));
    }
    Ok(())
}

fn out_of_order() -> Error {
    Error::new(ErrorKind::Internal, "values were not appended in the order of the columns")
}
