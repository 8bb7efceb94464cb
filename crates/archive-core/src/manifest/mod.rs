//! The JSON that describes one archived partition; with the objects it names it is enough to restore the table.

mod ddl;
mod model;
mod validate;

pub use ddl::{Ddl, Identity, NamedDdl};
pub use model::{ColumnRange, MANIFEST_FORMAT, Manifest, ManifestObject, Source};

#[cfg(test)]
mod tests;
