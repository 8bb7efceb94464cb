//! The one table of types: which PostgreSQL types can be archived and what they become in Arrow and Parquet.

mod arrow_type;
mod document;
mod pg_type;
mod table;

pub use arrow_type::{Storage, sidecar_field};
pub use document::types_document;
pub use pg_type::{Attribute, PgType};
pub use table::{EnumType, Field, SIDECAR_ID_BASE, TableSchema};
