//! Objects in memory, and helpers that write and read whole tables.

use std::ops::Range;

use bytes::Bytes;

use super::own::{Own, Row, canonical, sidecar_text};
use crate::Result;
use crate::codec::*;
use crate::schema::TableSchema;

/// Objects by ordinal.
#[derive(Debug, Default)]
pub(super) struct Memory {
    pub(super) objects: Vec<Vec<u8>>,
    pub(super) largest_write: usize,
}

impl ObjectSink for Memory {
    fn begin(&mut self, ordinal: u32) -> Result<()> {
        assert_eq!(ordinal as usize, self.objects.len());
        self.objects.push(Vec::new());
        Ok(())
    }
    fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.largest_write = self.largest_write.max(bytes.len());
        self.objects.last_mut().unwrap().extend_from_slice(&bytes);
        Ok(())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

/// One object in memory that counts requests.
#[derive(Debug)]
pub(super) struct Object {
    pub(super) bytes: Bytes,
    pub(super) requests: usize,
    pub(super) read: u64,
}

impl Object {
    pub(super) fn new(bytes: impl Into<Bytes>) -> Self {
        Self { bytes: bytes.into(), requests: 0, read: 0 }
    }
}

impl RangeReader for Object {
    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        self.requests += ranges.len();
        self.read += ranges.iter().map(|r| r.end - r.start).sum::<u64>();
        Ok(ranges.iter().map(|r| self.bytes.slice(r.start as usize..r.end as usize)).collect())
    }
}

/// Small bounds, so that few rows make several batches, pages and row groups.
pub(super) fn tiny() -> WriterOptions {
    WriterOptions { batch_rows: 3, row_group_rows: 7, ..WriterOptions::default() }
}

/// An object, and what is recorded of it.
#[derive(Debug, Clone)]
pub(super) struct Stored {
    pub(super) bytes: Bytes,
    pub(super) recorded: Recorded<'static>,
}

impl Stored {
    pub(super) fn new(bytes: impl Into<Bytes>, format: ObjectFormat, rows: u64) -> Self {
        let bytes = bytes.into();
        Self {
            recorded: Recorded { key: "t/o", format, bytes: bytes.len() as u64, rows: Some(rows), sha256: None },
            bytes,
        }
    }

    /// Other bytes in its place.
    pub(super) fn with(&self, bytes: impl Into<Bytes>) -> Self {
        Self::new(bytes, self.recorded.format, self.recorded.rows.unwrap_or(0))
    }
}

pub(super) struct Written {
    pub(super) objects: Vec<Stored>,
    pub(super) summaries: Vec<ObjectSummary>,
    /// Object of each row, from what `flush` reported.
    pub(super) homes: Vec<u32>,
    /// The extremes of each batch, as they look.
    pub(super) extremes: Vec<String>,
}

pub(super) fn append(writer: &mut PartitionWriter<Memory>, row: &[Option<Own>]) -> Vec<Flushed> {
    for (i, cell) in row.iter().enumerate() {
        let appended = writer.append(i, cell.as_ref().map(Own::value).as_ref()).unwrap();
        if appended == Appended::NeedsText {
            writer.append_text(i, &sidecar_text(cell.as_ref().unwrap())).unwrap();
        }
    }
    writer.end_row().unwrap();
    if writer.is_full() { writer.flush().unwrap() } else { Vec::new() }
}

/// Writes the rows; with batches encoded by another thread the same comes of it.
pub(super) fn write(schema: &TableSchema, opts: WriterOptions, rows: &[Row]) -> Written {
    let opts = WriterOptions { range_fields: schema.fields.iter().map(|field| field.id).collect(), ..opts };
    let writer = || PartitionWriter::new(schema.clone(), opts.clone(), Memory::default()).unwrap();
    let (here, there) =
        (write_with(writer(), opts.format, rows), write_with(writer().encoding_in(thread()), opts.format, rows));
    assert_eq!(here.homes, there.homes);
    assert_eq!(here.extremes, there.extremes);
    assert_eq!(here.summaries, there.summaries);
    here
}

fn thread() -> Background {
    let spawn = |task: Box<dyn FnOnce() + Send>| {
        std::thread::spawn(task);
        Ok(())
    };
    Background::new(spawn, || ())
}

pub(super) fn write_with(mut writer: PartitionWriter<Memory>, format: ObjectFormat, rows: &[Row]) -> Written {
    let (mut homes, mut extremes) = (Vec::new(), Vec::new());
    let mut note = |flushed: Vec<Flushed>| {
        for Flushed { ordinal, rows, extremes: found } in flushed {
            homes.extend(std::iter::repeat_n(ordinal, rows));
            extremes.push(format!("{found:?}"));
        }
    };
    for row in rows {
        note(append(&mut writer, row));
    }
    assert_eq!(writer.rows(), rows.len() as u64);
    let (summaries, flushed, sink) = writer.finish().unwrap();
    note(flushed);
    let objects = sink.objects.into_iter().zip(&summaries);
    let objects = objects.map(|(bytes, summary)| Stored::new(bytes, format, summary.rows)).collect();
    Written { objects, summaries, homes, extremes }
}

pub(super) fn scan_all(schema: &TableSchema) -> ScanOptions {
    ScanOptions { columns: schema.fields.iter().map(|field| field.id).collect(), ..ScanOptions::default() }
}

/// The cells of an object in canonical form.
pub(super) fn read(
    schema: &TableSchema,
    stored: &Stored,
    opts: ScanOptions,
) -> Result<(Vec<Vec<Vec<u8>>>, ReadMetrics)> {
    let columns = opts.columns.len();
    let mut reader = ObjectReader::open(Object::new(stored.bytes.clone()), stored.recorded, schema, opts)?;
    let mut rows = Vec::new();
    while let Some(batch) = reader.next_batch()? {
        for row in 0..batch.rows() {
            let cells = (0..columns).map(|column| {
                let cell = canonical(&batch.get(column, row)?);
                assert_eq!(batch.visit(column, row, canonical)?, cell);
                Ok(cell)
            });
            rows.push(cells.collect::<Result<Vec<_>>>()?);
        }
    }
    Ok((rows, reader.metrics()))
}
