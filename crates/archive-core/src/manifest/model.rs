//! What a manifest holds.

use serde::{Deserialize, Serialize};

use super::columns::MappedColumn;
use super::context::{ArchiveRelations, CollationFact, DatabaseFacts, Extension, Root, Sequence};
use super::ddl::Ddl;
use super::family::Family;
use crate::chain::{Chained, Link, Signature, to_json};
use crate::codec::{Digest, ObjectSummary, Recorded};
use crate::schema::TableSchema;
use crate::{Error, ErrorKind, Result};

/// The newest manifest format this code reads, and the one it writes.
pub const MANIFEST_FORMAT: u32 = 2;

/// One archived partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Format of the manifest.
    pub format: u32,
    /// Where the rows come from.
    pub source: Source,
    /// Version of this export of the partition, from 1.
    pub version: u32,
    /// When the export was made, RFC 3339.
    pub created_at: String,
    /// `server_version` of the source.
    pub server_version: String,
    /// Encoding of the source database.
    pub database_encoding: String,
    /// Version of the extension that wrote it.
    pub extension_version: String,
    /// System identifier of the source cluster.
    pub system_identifier: String,
    /// Columns.
    pub schema: TableSchema,
    /// Name of the digest algorithm.
    #[serde(default = "default_algorithm")]
    pub digest_algorithm: String,
    /// Digest over all objects.
    pub digest: Digest,
    /// Rows of all objects.
    pub rows: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// The objects in order.
    pub objects: Vec<ManifestObject>,
    /// SQL to make the table again.
    pub ddl: Ddl,
    /// The source database. Since format 2, as all that follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub database: Option<DatabaseFacts>,
    /// Collations of the columns, and the database's.
    #[serde(default)]
    pub collations: Vec<CollationFact>,
    /// Extensions that have types of the columns.
    #[serde(default)]
    pub extensions: Vec<Extension>,
    /// Sequences of defaults and identity columns, with their state.
    #[serde(default)]
    pub sequences: Vec<Sequence>,
    /// The partitioned table.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<Root>,
    /// Where its archive was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archive: Option<ArchiveRelations>,
    /// The table's columns, dropped ones included; empty for the first partition of a table, and from older versions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub column_map: Vec<MappedColumn>,
    /// The partitions it was archived with; `None` when it was archived alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub family: Option<Family>,
    /// The manifests before it in the chain of its storage; `None` when it is older than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Vec<Link>>,
    /// The signature, where the storage has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Chained for Manifest {
    fn ends(&mut self) -> (&mut Option<Vec<Link>>, &mut Option<Signature>) {
        (&mut self.previous, &mut self.signature)
    }
}

/// Where the rows come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Source {
    /// Database name.
    #[serde(default)]
    pub database: String,
    /// Schema of the partitioned table.
    pub schema: String,
    /// The partitioned table.
    pub table: String,
    /// Schema of the partition.
    pub partition_schema: String,
    /// The partition.
    pub partition: String,
    /// `FOR VALUES …`; `None` for a batch of a plain table.
    pub bounds: Option<String>,
    /// `pg_get_partkeydef()` of the partition's parent.
    pub partition_key: Option<String>,
    /// Heap, TOAST and indexes of the partition in bytes; since format 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub local_bytes: Option<u64>,
}

/// One object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManifestObject {
    /// Key within the storage.
    pub key: String,
    /// Size.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// SHA-256 of the bytes, hexadecimal.
    pub sha256: String,
    /// Digest of the rows.
    pub digest: Digest,
    /// Row groups.
    pub row_groups: u32,
    /// (field id, NULLs) per column.
    pub null_counts: Vec<(i32, u64)>,
    /// Field ids of columns that have a sidecar.
    pub sidecars: Vec<i32>,
    /// Smallest and largest value per column where an order is known.
    pub ranges: Vec<ColumnRange>,
    /// When the youngest of its rows was archived, RFC 3339; where nothing is said, with the manifest that names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub archived_at: Option<String>,
}

/// Smallest and largest value of a column in an object, in the order of the type's default btree operator class.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ColumnRange {
    /// The column.
    pub field_id: i32,
    /// Smallest value, PostgreSQL text.
    pub min: String,
    /// Largest value, PostgreSQL text.
    pub max: String,
    /// Collation of the order; `None` for types without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Version of the collation when the range was computed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation_version: Option<String>,
}

/// That of the first manifests, which did not name it.
fn default_algorithm() -> String {
    "xxh3-128-sum.v1".to_owned()
}

impl ManifestObject {
    /// The entry of an object that was written.
    pub fn new(key: String, summary: &ObjectSummary, ranges: Vec<ColumnRange>) -> Self {
        Self {
            key,
            bytes: summary.bytes,
            rows: summary.rows,
            sha256: summary.sha256.clone(),
            digest: summary.digest.clone(),
            row_groups: summary.row_groups,
            null_counts: summary.null_counts.clone(),
            sidecars: summary.sidecars.clone(),
            ranges,
            archived_at: None,
        }
    }

    /// The object, written of the rows of others: it is as old as the youngest of these, so that nothing of it expires too soon. One of
    /// which nobody knows its age makes it new.
    #[must_use]
    pub fn made_of<'a>(self, others: impl IntoIterator<Item = &'a Self>) -> Self {
        let ages: Option<Vec<&String>> = others.into_iter().map(|other| other.archived_at.as_ref()).collect();
        let youngest = ages.and_then(|ages| ages.into_iter().max().cloned());
        Self { archived_at: youngest, ..self }
    }

    /// What a reader is told of it. Errors: corrupt when its key tells no format.
    pub fn recorded(&self) -> Result<Recorded<'_>> {
        Recorded::of(&self.key, self.bytes, self.rows, &self.sha256)
    }
}

impl Manifest {
    /// The manifest as JSON for people and programs.
    pub fn to_json(&self) -> Result<String> {
        to_json(self)
    }

    /// Reads and validates a manifest.
    pub fn from_json(json: &str) -> Result<Self> {
        check_format(json)?;
        let manifest: Manifest = serde_json::from_str(json).map_err(not_a_manifest)?;
        manifest.validate()?;
        Ok(manifest)
    }
}

/// The format first: a newer one may have any other member.
fn check_format(json: &str) -> Result<()> {
    #[derive(Deserialize)]
    struct Format {
        format: u32,
    }
    let Format { format } = serde_json::from_str(json).map_err(not_a_manifest)?;
    if format == 0 || format > MANIFEST_FORMAT {
        return Err(Error::new(ErrorKind::Unsupported, format!("manifest has format {format}"))
            .detail(format!("This version of archive_ext reads formats 1 to {MANIFEST_FORMAT}."))
            .hint("Update the extension to the version that wrote the manifest."));
    }
    Ok(())
}

fn not_a_manifest(error: serde_json::Error) -> Error {
    Error::new(ErrorKind::Corrupt, "object is not a manifest of archive_ext").source(error)
}
