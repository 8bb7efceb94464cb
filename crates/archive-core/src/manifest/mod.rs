//! The JSON that describes one archived partition; with the objects it names it is enough to restore the table.

mod batch;
mod columns;
mod context;
mod ddl;
mod family;
mod model;
mod rebuild;
mod rewrite;
mod validate;

pub use batch::BatchManifest;
pub use columns::{CastSettings, Fill, MappedColumn, TypeStep};
pub use context::{ArchiveRelations, CollationFact, DatabaseFacts, Extension, Level, Root, Sequence};
pub use ddl::{Ddl, Identity, NamedDdl};
pub use family::{Family, FamilyKey, FamilyMember};
pub use model::{ColumnRange, MANIFEST_FORMAT, Manifest, ManifestObject, Source};
pub use rewrite::{Imported, Unsettled};

#[cfg(test)]
mod tests;
