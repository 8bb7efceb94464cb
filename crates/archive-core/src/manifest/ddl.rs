//! The SQL that makes the partition again as a table of its own, in the order in which it is replayed.

use serde::{Deserialize, Serialize};

/// Complete SQL statements, each ended by a semicolon. [`Ddl::statements`] gives them in replay order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Ddl {
    /// Types and schemas the table needs (`CREATE TYPE … AS ENUM`), guarded so that they may exist.
    pub prerequisites: Vec<String>,
    /// `CREATE TABLE` with columns, types, collations, NOT NULL, generated columns and storage parameters.
    pub create_table: String,
    /// `ALTER TABLE … SET DEFAULT`.
    pub defaults: Vec<String>,
    /// Identity columns; added after the load.
    pub identity: Vec<Identity>,
    /// Generated columns by name, with their expression (part of `create_table`).
    pub generated: Vec<NamedDdl>,
    /// Storage parameters, per-column storage and compression.
    pub storage_parameters: Vec<String>,
    /// `CREATE INDEX`, after the load.
    pub indexes: Vec<NamedDdl>,
    /// `ALTER TABLE … ADD CONSTRAINT`, after the indexes.
    pub constraints: Vec<NamedDdl>,
    /// `CREATE STATISTICS` and `ALTER COLUMN … SET STATISTICS`.
    pub statistics: Vec<String>,
    /// `CREATE TRIGGER`.
    pub triggers: Vec<NamedDdl>,
    /// Row level security: `CREATE POLICY` and `ENABLE ROW LEVEL SECURITY`.
    pub policies: Vec<String>,
    /// `COMMENT ON`.
    pub comments: Vec<String>,
    /// Name of the owner.
    pub owner: String,
    /// `GRANT` statements.
    pub grants: Vec<String>,
}

/// A statement that makes a named thing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NamedDdl {
    /// Name of the thing.
    pub name: String,
    /// The statement.
    pub sql: String,
}

/// An identity column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The column.
    pub column: String,
    /// `ALTER TABLE … ADD GENERATED …`.
    pub sql: String,
}

fn named(list: &[NamedDdl]) -> impl Iterator<Item = &str> {
    list.iter().map(|item| item.sql.as_str())
}

impl Ddl {
    /// What must run before the rows are loaded.
    pub fn before_load(&self) -> impl Iterator<Item = &str> {
        let first = self.prerequisites.iter().chain(std::iter::once(&self.create_table));
        first.chain(&self.defaults).chain(&self.storage_parameters).map(String::as_str).filter(|sql| !sql.is_empty())
    }

    /// What runs after the rows were loaded.
    pub fn after_load(&self) -> impl Iterator<Item = &str> {
        let rest = self.policies.iter().chain(&self.comments).chain(&self.grants).map(String::as_str);
        self.structure().chain(rest)
    }

    /// What runs after the rows were loaded, up to the policies.
    pub fn structure(&self) -> impl Iterator<Item = &str> {
        let identity = self.identity.iter().map(|identity| identity.sql.as_str());
        identity
            .chain(named(&self.indexes))
            .chain(named(&self.constraints))
            .chain(self.statistics.iter().map(String::as_str))
            .chain(named(&self.triggers))
    }

    /// Every statement in replay order; the load goes between [`Ddl::before_load`] and [`Ddl::after_load`].
    pub fn statements(&self) -> impl Iterator<Item = &str> {
        self.before_load().chain(self.after_load())
    }
}
