//! The pure part of archive_ext: lifecycle, names, types, the Parquet codec, manifests and object stores.
//! Nothing here knows PostgreSQL's C API; everything is tested without a server.

pub mod audit;
pub mod chain;
pub mod codec;
mod error;
#[cfg(any(test, feature = "fuzzing"))]
#[allow(clippy::expect_used, clippy::unwrap_used, clippy::panic, reason = "a fuzzer reports by panicking")]
pub mod fuzz;
pub mod lifecycle;
pub mod manifest;
pub mod naming;
pub mod policy;
pub mod schema;
pub mod store;

pub use error::{Error, ErrorKind, Result};
