//! The objects of a partition, one after the other, made of the batches that come.

use std::sync::Arc;

use bytes::Bytes;

use super::extremes::Extremes;
use super::object::{Batch, ObjectWriter, Shape};
use super::options::{ObjectSummary, WriterOptions};
use crate::schema::TableSchema;
use crate::{Error, ErrorKind, Result};

/// A batch is in its object.
#[derive(Debug)]
pub struct Flushed {
    /// The object that holds the rows of the batch.
    pub ordinal: u32,
    /// Rows of the batch.
    pub rows: usize,
    /// The extremes of the columns that were [asked for](WriterOptions::range_fields) and have a value. What went into a sidecar is not among
    /// them.
    pub extremes: Vec<Extremes>,
}

/// What becomes of the batches, in order.
#[derive(Debug)]
pub(super) enum Event {
    /// An object begins.
    Begun(u32),
    /// The next bytes of the object.
    Chunk(Bytes),
    /// A batch is in the object, of which so many bytes are written by now.
    Flushed(Flushed, u64),
    /// The object is complete.
    Finished(Box<ObjectSummary>),
    /// All objects are.
    Ended,
}

/// Takes events; an error means that nobody wants them any more.
pub(super) type Tell<'a> = &'a mut dyn FnMut(Event) -> Result<()>;

/// The object that is being written, and what the next ones need to know of those before.
pub(super) struct ObjectSequence {
    schema: Arc<TableSchema>,
    opts: Arc<WriterOptions>,
    shape: Shape,
    object: Option<ObjectWriter>,
    /// Objects begun so far.
    begun: u32,
}

impl ObjectSequence {
    /// No objects yet.
    pub(super) fn new(schema: Arc<TableSchema>, opts: Arc<WriterOptions>) -> Self {
        Self { schema, opts, shape: Shape::default(), object: None, begun: 0 }
    }

    /// Adds a batch to the current object, or to a new one where that lacks a column that the batch needs.
    pub(super) fn write(&mut self, batch: Batch, tell: Tell<'_>) -> Result<()> {
        self.make_room(&batch.shape, tell)?;
        let mut object = match self.object.take() {
            Some(object) => object,
            None => self.begin(tell)?,
        };
        let (ordinal, rows) = (object.ordinal(), batch.rows);
        let extremes = object.write(batch, &self.opts)?;
        for chunk in object.take_chunks() {
            tell(Event::Chunk(chunk))?;
        }
        tell(Event::Flushed(Flushed { ordinal, rows, extremes }, object.written()))?;
        let full = object.size() >= self.opts.object_bytes;
        self.object = Some(object);
        if full { self.finish_object(tell) } else { Ok(()) }
    }

    /// Completes the last object. Without any rows there is one object without rows.
    pub(super) fn finish(&mut self, tell: Tell<'_>) -> Result<()> {
        if self.begun == 0 {
            self.object = Some(self.begin(tell)?);
        }
        self.finish_object(tell)?;
        tell(Event::Ended)
    }

    fn make_room(&mut self, shape: &Shape, tell: Tell<'_>) -> Result<()> {
        self.shape = self.shape.union(shape);
        match &self.object {
            Some(object) if !object.takes(shape) => self.finish_object(tell),
            _ => Ok(()),
        }
    }

    fn begin(&mut self, tell: Tell<'_>) -> Result<ObjectWriter> {
        let ordinal = self.begun;
        let next = ordinal.checked_add(1);
        self.begun = next.ok_or_else(|| Error::new(ErrorKind::Internal, "too many objects"))?;
        tell(Event::Begun(ordinal))?;
        Ok(ObjectWriter::new(Arc::clone(&self.schema), &self.opts, self.shape.clone(), ordinal))
    }

    fn finish_object(&mut self, tell: Tell<'_>) -> Result<()> {
        let Some(object) = self.object.take() else { return Ok(()) };
        let (chunks, summary) = object.finish(&self.opts)?;
        for chunk in chunks {
            tell(Event::Chunk(chunk))?;
        }
        tell(Event::Finished(Box::new(summary)))
    }
}
