//! Partitions of several tables that were archived together, because the rows of one reference those of another.

use serde::{Deserialize, Serialize};

/// The family of a partition: the same in the manifest of every member.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Family {
    /// `<schema>.<table>/<partition>` of the partition that was archived with its children.
    pub id: String,
    /// The members, children before their parents, that partition last.
    pub members: Vec<FamilyMember>,
}

/// One member.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FamilyMember {
    /// Schema of the partitioned table.
    pub schema: String,
    /// The partitioned table.
    pub table: String,
    /// Schema of the partition.
    pub partition_schema: String,
    /// The partition.
    pub partition: String,
    /// The foreign keys through which its table is a child within the family.
    #[serde(default)]
    pub parents: Vec<FamilyKey>,
}

/// A foreign key of a child table.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct FamilyKey {
    /// Schema of the referenced table.
    pub schema: String,
    /// The referenced table.
    pub table: String,
    /// Name of the constraint on the child.
    pub foreign_key: String,
}
