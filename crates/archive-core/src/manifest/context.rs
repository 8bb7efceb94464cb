//! What an empty database must have besides the partition itself, and where the partition came from (format 2).

use serde::{Deserialize, Serialize};

use super::ddl::Ddl;
use super::family::FamilyKey;

/// The source database when the export was made.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct DatabaseFacts {
    /// `server_encoding`.
    pub encoding: String,
    /// `lc_collate` of the database.
    pub collate: String,
    /// `lc_ctype` of the database.
    pub ctype: String,
    /// `TimeZone` of the session that archived; every time in the manifest and in the objects is UTC nevertheless.
    pub timezone: String,
    /// The write-ahead log's position after the export.
    pub lsn: String,
}

/// A collation that the columns use; `default` is the database's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct CollationFact {
    /// Qualified name.
    pub name: String,
    /// `libc`, `icu`, `builtin` or `default`.
    pub provider: String,
    /// Version that the provider reported: another one may order text differently.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
}

/// An extension that has types the columns use.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Extension {
    /// Its name.
    pub name: String,
    /// Schema it is in.
    pub schema: String,
    /// Its version.
    pub version: String,
}

/// A sequence behind a column's default or identity.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Sequence {
    /// Qualified name.
    pub name: String,
    /// Its `last_value`.
    pub last_value: i64,
    /// Its `is_called`.
    pub is_called: bool,
    /// `SELECT setval(…)` that brings a sequence up to this state, and never back.
    pub sql: String,
}

/// The partitioned table at the root, as an empty table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Root {
    /// `pg_get_partkeydef()`: `RANGE (created_at)`.
    pub partition_key: String,
    /// Its DDL. What it shares with the partition (types, sequences) is in the partition's prerequisites.
    pub ddl: Ddl,
    /// The partitioned tables between the root and the partition, topmost first.
    pub levels: Vec<Level>,
    /// The foreign keys through which it aged with other tables; `None` from versions that did not record them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parents: Option<Vec<FamilyKey>>,
}

/// A partitioned partition above the archived one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Level {
    /// Schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// `FOR VALUES …` within its parent.
    pub bounds: String,
    /// What it is partitioned by.
    pub partition_key: String,
    /// `CREATE TABLE … PARTITION OF …`.
    pub sql: String,
}

/// Where the archive relations were.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ArchiveRelations {
    /// Schema.
    pub schema: String,
    /// The archive parent; the view over hot and archived rows is this name with `_all`.
    pub table: String,
}
