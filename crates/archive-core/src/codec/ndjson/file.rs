//! One object of lines while it is written.

use std::io::{self, Write as _};

use bytes::Bytes;
use flate2::{Compression, GzBuilder, write::GzEncoder};

use crate::codec::sink::ChunkBuffer;
use crate::{Error, ErrorKind, Result};

/// What lines are written to.
pub(in crate::codec) enum NdjsonFile {
    /// Compressed.
    Gzip(Box<GzEncoder<ChunkBuffer>>),
    /// As they are.
    Plain(ChunkBuffer),
}

impl NdjsonFile {
    /// Begins an object, compressed or not. The same lines always give the same bytes: no time is written into the header.
    pub(in crate::codec) fn new(compressed: bool) -> Self {
        match compressed {
            true => {
                let encoder = GzBuilder::new().mtime(0).write(ChunkBuffer::default(), Compression::default());
                Self::Gzip(Box::new(encoder))
            }
            false => Self::Plain(ChunkBuffer::default()),
        }
    }

    fn buffer(&mut self) -> &mut ChunkBuffer {
        match self {
            Self::Gzip(encoder) => encoder.get_mut(),
            Self::Plain(buffer) => buffer,
        }
    }

    /// Bytes written so far; the compressor holds some back.
    pub(in crate::codec) fn written(&self) -> u64 {
        match self {
            Self::Gzip(encoder) => encoder.get_ref().bytes(),
            Self::Plain(buffer) => buffer.bytes(),
        }
    }

    /// Adds lines.
    pub(in crate::codec) fn write(&mut self, lines: &[u8]) -> Result<()> {
        match self {
            Self::Gzip(encoder) => encoder.write_all(lines),
            Self::Plain(buffer) => buffer.write_all(lines),
        }
        .map_err(not_written)
    }

    /// The chunks that are ready for the sink.
    pub(in crate::codec) fn take_chunks(&mut self) -> Vec<Bytes> {
        self.buffer().take_full()
    }

    /// Ends the object: its last chunks, its size and its SHA-256.
    pub(in crate::codec) fn finish(self) -> Result<(Vec<Bytes>, u64, String)> {
        let mut buffer = match self {
            Self::Gzip(encoder) => encoder.finish().map_err(not_written)?,
            Self::Plain(buffer) => buffer,
        };
        let mut chunks = buffer.take_full();
        chunks.extend(buffer.take_rest());
        Ok((chunks, buffer.bytes(), buffer.sha256()))
    }
}

fn not_written(error: io::Error) -> Error {
    Error::new(ErrorKind::Internal, "could not write rows as lines of JSON").source(error)
}
