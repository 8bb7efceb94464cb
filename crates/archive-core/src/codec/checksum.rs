//! The checksum of a whole object: statistics and indexes included, which row digests do not see.

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::reader::RangeReader;
use crate::Result;

/// Bytes read at a time.
const CHUNK: u64 = 8 << 20;

/// SHA-256 of every byte of an object, hexadecimal, read in bounded pieces.
pub fn sha256_of(reader: &mut impl RangeReader) -> Result<String> {
    sha256_while(reader, &mut |_| Ok(()))
}

/// The same while each piece is given to `take`, in order.
pub fn sha256_while(reader: &mut impl RangeReader, take: &mut dyn FnMut(Bytes) -> Result<()>) -> Result<String> {
    let mut hasher = Sha256::new();
    let mut at = 0;
    while at < reader.len() {
        let end = (at + CHUNK).min(reader.len());
        for bytes in reader.read_ranges(std::slice::from_ref(&(at..end)))? {
            hasher.update(&bytes);
            take(bytes)?;
        }
        at = end;
    }
    Ok(hexadecimal(hasher))
}

/// SHA-256 of bytes, hexadecimal.
pub fn sha256_of_bytes(bytes: &[u8]) -> String {
    hexadecimal(Sha256::new_with_prefix(bytes))
}

fn hexadecimal(hasher: Sha256) -> String {
    hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}
