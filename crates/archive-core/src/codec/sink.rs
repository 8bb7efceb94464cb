//! Collects what Parquet writes: hashes it, cuts it into chunks, and keeps them until they are handed to the sink.
//! Parquet never calls the sink itself, since a sink may unwind.

use std::io::{self, Write};
use std::mem;

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

/// Size of the chunks given to the sink: the usual part of a multipart upload.
const CHUNK: usize = 8 << 20;
/// First capacity of a chunk, so that small objects stay small. One that outgrows it gets all that a chunk may need, and is copied once.
const FIRST_CAPACITY: usize = 64 << 10;

/// The bytes of one object on their way to the sink.
#[derive(Debug, Default)]
pub(super) struct ChunkBuffer {
    current: Vec<u8>,
    full: Vec<Bytes>,
    hash: Sha256,
    bytes: u64,
}

impl ChunkBuffer {
    /// Bytes written so far.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The chunks that are complete.
    pub(super) fn take_full(&mut self) -> Vec<Bytes> {
        mem::take(&mut self.full)
    }

    /// The last, shorter chunk, when there is one.
    pub(super) fn take_rest(&mut self) -> Option<Bytes> {
        let rest = mem::take(&mut self.current);
        (!rest.is_empty()).then(|| Bytes::from(rest))
    }

    /// SHA-256 of everything written, hexadecimal.
    pub(super) fn sha256(&mut self) -> String {
        mem::take(&mut self.hash).finalize().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    fn put(&mut self, buf: &[u8]) {
        let needed = self.current.len() + buf.len();
        if needed > self.current.capacity() {
            let capacity = if needed <= FIRST_CAPACITY { FIRST_CAPACITY } else { CHUNK };
            self.current.reserve_exact(capacity - self.current.len());
        }
        self.current.extend_from_slice(buf);
        if self.current.len() == CHUNK {
            self.full.push(Bytes::from(mem::take(&mut self.current)));
        }
    }
}

impl Write for ChunkBuffer {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        self.hash.update(buf);
        self.bytes += buf.len() as u64;
        let mut rest = buf;
        while !rest.is_empty() {
            let (head, tail) = rest.split_at(rest.len().min(CHUNK - self.current.len()));
            self.put(head);
            rest = tail;
        }
        Ok(buf.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_join_to_what_was_written() {
        let data: Vec<u8> = (0..CHUNK + CHUNK / 2).map(|i| (i % 251) as u8).collect();
        let mut buffer = ChunkBuffer::default();
        for part in data.chunks(300_007) {
            buffer.write_all(part).unwrap();
        }
        let mut joined = buffer.take_full().concat();
        assert_eq!(joined.len(), CHUNK);
        joined.extend_from_slice(&buffer.take_rest().unwrap());
        assert_eq!((joined == data, buffer.bytes()), (true, data.len() as u64));
        assert_eq!(buffer.sha256(), format!("{:x}", Sha256::digest(&data)));
    }
}
