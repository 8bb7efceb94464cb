//! Reads an object of lines from its begin to its end: nothing in it tells which lines to skip.

use std::io::{self, BufRead, BufReader, Read};

use bytes::Bytes;
use flate2::bufread::MultiGzDecoder;

use super::parse::LineParser;
use crate::codec::decode::DecodedBatch;
use crate::codec::format::ObjectFormat;
use crate::codec::guard::corrupt;
use crate::codec::reader::{RangeReader, ReadMetrics, Recorded, ScanOptions, check_rows};
use crate::schema::TableSchema;
use crate::{Error, Result};

/// Bytes asked of the source at a time.
const WINDOW: u64 = 4 << 20;
/// Room for decompressed bytes.
const LINE_BUFFER: usize = 64 << 10;
/// The longest line: two bytes for each of a value of one gigabyte, and as much again for the rest.
const MAX_LINE: u64 = 4 << 30;

/// Reads one object; see the module.
pub(in crate::codec) struct NdjsonReader<R> {
    lines: Lines<R>,
    parser: LineParser,
    /// Rows that were recorded.
    recorded: Option<u64>,
    opts: ScanOptions,
    line: Vec<u8>,
    /// Lines read so far.
    rows: u64,
    /// Another reader reads it.
    is_anothers: bool,
    metrics: ReadMetrics,
}

enum Lines<R> {
    Gzip(Box<BufReader<MultiGzDecoder<Source<R>>>>),
    Plain(Source<R>),
}

impl<R: RangeReader> NdjsonReader<R> {
    /// Begins to read; no request is made yet.
    pub(in crate::codec) fn open(
        reader: R,
        recorded: Recorded<'_>,
        schema: &TableSchema,
        opts: ScanOptions,
    ) -> Result<Self> {
        let parser = LineParser::new(schema, &opts.columns)?;
        let source = Source::new(reader);
        let lines = match recorded.format {
            ObjectFormat::NdjsonGz => {
                Lines::Gzip(Box::new(BufReader::with_capacity(LINE_BUFFER, MultiGzDecoder::new(source))))
            }
            ObjectFormat::Ndjson | ObjectFormat::Parquet => Lines::Plain(source),
        };
        Ok(Self {
            lines,
            parser,
            recorded: recorded.rows,
            opts,
            line: Vec::new(),
            rows: 0,
            is_anothers: false,
            metrics: ReadMetrics::default(),
        })
    }

    /// The next rows, `None` at the end. Errors: corrupt when the object ends before or after the rows that were recorded.
    pub(in crate::codec) fn next_batch(&mut self) -> Result<Option<DecodedBatch>> {
        // Taken as a whole, as it is read.
        if let Some(share) = self.opts.share.take()
            && !share.claim(0..self.recorded.unwrap_or(u64::MAX))
        {
            self.is_anothers = true;
        }
        if self.is_anothers {
            return Ok(None);
        }
        let (mut rows, mut cells, mut bytes) = (0, Vec::new(), 0);
        while rows < self.opts.max_batch_rows && bytes < self.opts.batch_bytes {
            if !self.next_line()? {
                check_rows(self.rows, self.recorded)?;
                break;
            }
            if !self.is_wanted(self.rows - 1) {
                continue;
            }
            rows += 1;
            if !self.parser.wants_nothing() {
                bytes += self.line.len();
                cells.push(self.parser.parse(&self.line)?);
            }
        }
        self.metrics.rows_read += rows as u64;
        Ok(match (rows, self.parser.wants_nothing()) {
            (0, _) => None,
            (_, true) => Some(DecodedBatch::empty(rows)),
            (_, false) => Some(DecodedBatch::of_lines(cells)),
        })
    }

    fn is_wanted(&self, row: u64) -> bool {
        self.opts.row_ranges.as_ref().is_none_or(|ranges| ranges.iter().any(|range| range.contains(&row)))
    }

    /// Reads the next line; `false` at the end. The last one ends with a newline, too, or it was cut off.
    fn next_line(&mut self) -> Result<bool> {
        self.line.clear();
        let read = match &mut self.lines {
            Lines::Gzip(lines) => lines.take(MAX_LINE).read_until(b'\n', &mut self.line),
            Lines::Plain(lines) => lines.take(MAX_LINE).read_until(b'\n', &mut self.line),
        };
        if read.map_err(not_read)? == 0 {
            return Ok(false);
        }
        if self.line.pop() != Some(b'\n') {
            return Err(corrupt("object ends within a line"));
        }
        self.rows += 1;
        // A line beyond what was recorded is no row.
        if self.recorded.is_some_and(|recorded| self.rows > recorded) {
            check_rows(self.rows, self.recorded)?;
        }
        Ok(true)
    }

    /// What was done so far.
    pub(in crate::codec) fn metrics(&self) -> ReadMetrics {
        self.metrics
    }

    /// The source of bytes.
    pub(in crate::codec) fn reader(&self) -> &R {
        match &self.lines {
            Lines::Gzip(lines) => &lines.get_ref().get_ref().reader,
            Lines::Plain(lines) => &lines.reader,
        }
    }

    /// The same, to read from.
    pub(in crate::codec) fn reader_mut(&mut self) -> &mut R {
        match &mut self.lines {
            Lines::Gzip(lines) => &mut lines.get_mut().get_mut().reader,
            Lines::Plain(lines) => &mut lines.reader,
        }
    }
}

/// The error of the source itself, or what the bytes say: that they are no gzip.
fn not_read(error: io::Error) -> Error {
    match error.downcast::<Error>() {
        Ok(own) => own,
        Err(error) => corrupt("object cannot be decompressed").source(error),
    }
}

/// The bytes of an object one window after the other.
struct Source<R> {
    reader: R,
    window: Bytes,
    next: u64,
}

impl<R: RangeReader> Source<R> {
    fn new(reader: R) -> Self {
        Self { reader, window: Bytes::new(), next: 0 }
    }
}

impl<R: RangeReader> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buf)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: RangeReader> BufRead for Source<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.window.is_empty() && self.next < self.reader.len() {
            // Freed before the next one is there.
            self.window = Bytes::new();
            let range = self.next..self.reader.len().min(self.next + WINDOW);
            let size = self.reader.len();
            let read = crate::codec::fetch::fetch(&mut self.reader, size, std::slice::from_ref(&range));
            self.window = read.map_err(io::Error::other)?.into_iter().next().unwrap_or_default();
            self.next = range.end;
        }
        Ok(&self.window)
    }

    fn consume(&mut self, amount: usize) {
        let _ = self.window.split_to(amount.min(self.window.len()));
    }
}
