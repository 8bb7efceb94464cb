//! Runs Parquet's decoding of bytes that nobody vouches for. No callback of ours runs inside, so a panic there is
//! caught and becomes what it means: the bytes are corrupt.

use std::panic::{AssertUnwindSafe, catch_unwind};

use parquet::errors::ParquetError;

use crate::{Error, ErrorKind, Result};

/// The result of `decode`; errors and panics become [`ErrorKind::Corrupt`]. What `decode` borrowed must not be used
/// again after an error.
pub(super) fn guarded<T>(decode: impl FnOnce() -> Result<T, ParquetError>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(decode)) {
        Ok(result) => result.map_err(|error| unreadable().source(error)),
        Err(_) => Err(unreadable().detail("The Parquet decoder gave up on the bytes.")),
    }
}

fn unreadable() -> Error {
    corrupt("object cannot be decoded as Parquet")
}

/// An error about the contents of an object.
pub(super) fn corrupt(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, message)
}
