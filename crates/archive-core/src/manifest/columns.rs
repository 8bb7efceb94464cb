//! Which archived field each column of the table was, and how its values came about.

use serde::{Deserialize, Serialize};

/// The settings under which a column was retyped; casts of dates and times to text depend on them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CastSettings {
    /// `TimeZone`
    pub time_zone: String,
    /// `DateStyle`
    pub date_style: String,
    /// `IntervalStyle`
    pub interval_style: String,
}

/// How rows archived before the column existed are filled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "text", rename_all = "lowercase")]
pub enum Fill {
    /// NULL.
    None,
    /// This value of the column's first type.
    Constant(String),
    /// Each row had its own value, which nobody knows before the partition is reattached.
    Volatile,
    /// Computed from the row's other columns.
    Generated,
}

/// One type that a column had, and how values of the type before it became values of this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TypeStep {
    /// Names it was known by as SQL, the present one last: types can be renamed.
    pub names: Vec<String>,
    /// Type OID; 0 where it is not known any more, after a dump and restore.
    pub oid: u32,
    /// Type modifier.
    pub typmod: i32,
    /// Explicit casts of the USING clause, before the cast to this type.
    #[serde(default)]
    pub casts: Vec<String>,
    /// USING was not a cast of the column: nobody can do the same to an archived value.
    #[serde(default)]
    pub by_expression: bool,
    /// The settings under which it was done.
    #[serde(default)]
    pub settings: CastSettings,
    /// When, in microseconds since 2000-01-01 UTC; 0 for the first type.
    pub since: i64,
}

/// A column of a managed table, or one it had.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MappedColumn {
    /// Its field in every archive.
    pub field_id: i32,
    /// Its name; `None` once it is dropped.
    pub name: Option<String>,
    /// The name it had last.
    pub former_name: String,
    /// Attribute number in the relation of `root`.
    pub attnum: Option<i32>,
    /// The relation that `attnum` belongs to.
    pub root: String,
    /// The types it had, the present one last.
    pub types: Vec<TypeStep>,
    /// How older rows are filled.
    pub fill: Fill,
}

impl MappedColumn {
    /// The position among its types of the one that an archived field has; `None` when it never had it.
    pub fn type_at(&self, type_sql: &str, archived_at: i64) -> Option<usize> {
        let known = |(_, step): &(usize, &TypeStep)| step.names.iter().any(|name| name == type_sql);
        let mut candidates = self.types.iter().enumerate().filter(known);
        let first = candidates.next()?.0;
        Some(candidates.rfind(|(_, step)| step.since <= archived_at).map_or(first, |(at, _)| at))
    }
}
