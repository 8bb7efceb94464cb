//! The columns of an archived table, as they are recorded in files and manifests.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use super::PgType;

/// The field id of a sidecar column is its column's id plus this.
pub const SIDECAR_ID_BASE: i32 = 1_000_000;

/// One column.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Field {
    /// Parquet field id; stable over renames (the attribute number).
    pub id: i32,
    /// Column name.
    pub name: String,
    /// How it is stored.
    pub pg_type: PgType,
    /// `format_type()` of the column.
    pub type_sql: String,
    /// The column's collation, schema-qualified and quoted; `None` for types without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Whether the column is NOT NULL.
    pub not_null: bool,
}

impl Field {
    /// The field id of the column's sidecar.
    pub fn sidecar_id(&self) -> i32 {
        SIDECAR_ID_BASE.saturating_add(self.id)
    }
}

/// The columns in order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct TableSchema {
    /// The columns.
    pub fields: Vec<Field>,
    /// `<system identifier>/<database OID>` of the database in which OIDs in the rows and in [`Self::enums`] mean
    /// something.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<String>,
    /// The enum types that occur in the columns, wherever nested, with their labels when the rows were archived.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub enums: Vec<EnumType>,
}

/// An enum type. A label may be renamed later; the OID of its value stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnumType {
    /// OID of the type.
    pub oid: u32,
    /// `format_type()` of it.
    pub name: String,
    /// OID and label of each value, in the order of the type.
    pub labels: Vec<(u32, String)>,
}

impl TableSchema {
    /// Columns without enums.
    pub fn new(fields: Vec<Field>) -> Self {
        Self { fields, ..Self::default() }
    }

    /// The column with this id.
    pub fn field(&self, id: i32) -> Option<&Field> {
        self.fields.iter().find(|field| field.id == id)
    }

    /// The position of the column with this id.
    pub fn position(&self, id: i32) -> Option<usize> {
        self.fields.iter().position(|field| field.id == id)
    }

    /// The names of the sidecar columns, one per column in order: `<column>__pg`, with underscores appended until no
    /// user column and no earlier sidecar has the name.
    pub fn sidecar_names(&self) -> Vec<String> {
        let mut taken: HashSet<String> = self.fields.iter().map(|field| field.name.clone()).collect();
        self.fields.iter().map(|field| free_name(format!("{}__pg", field.name), &mut taken)).collect()
    }
}

fn free_name(mut name: String, taken: &mut HashSet<String>) -> String {
    while !taken.insert(name.clone()) {
        name.push('_');
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema(names: &[&str]) -> TableSchema {
        let field = |(i, name): (usize, &&str)| Field {
            id: i as i32 + 1,
            name: (*name).to_owned(),
            pg_type: PgType::Int4,
            type_sql: "integer".into(),
            collation: None,
            not_null: false,
        };
        TableSchema::new(names.iter().enumerate().map(field).collect())
    }

    #[test]
    fn sidecar_names_avoid_user_columns() {
        assert_eq!(schema(&["a", "b"]).sidecar_names(), ["a__pg", "b__pg"]);
        assert_eq!(schema(&["a", "a__pg", "a__pg_"]).sidecar_names(), ["a__pg__", "a__pg__pg", "a__pg___pg"]);
    }

    #[test]
    fn sidecar_ids_are_far_from_column_ids() {
        assert_eq!(schema(&["a"]).fields[0].sidecar_id(), 1_000_001);
    }
}
