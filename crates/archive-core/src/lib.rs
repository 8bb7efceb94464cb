//! The pure part of archive_ext: lifecycle, names, types, the Parquet codec, manifests and object stores.
//! Nothing here knows PostgreSQL's C API; everything is tested without a server.

pub mod audit;
pub mod codec;
mod error;
pub mod lifecycle;
pub mod manifest;
pub mod naming;
pub mod policy;
pub mod schema;
pub mod store;

pub use error::{Error, ErrorKind, Result};
