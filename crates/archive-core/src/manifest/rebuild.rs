//! What an import takes from a manifest to make the empty partitioned table again.

use super::context::{Extension, Root};
use super::ddl::Ddl;
use super::family::{FamilyKey, FamilyMember};
use super::model::{Manifest, Source};
use crate::naming;

/// How the statements begin that an import makes itself, from names alone, because they need more rights than an owner
/// has.
const SCHEMA: &str = "CREATE SCHEMA IF NOT EXISTS ";
const EXTENSION: &str = "CREATE EXTENSION IF NOT EXISTS ";

impl Extension {
    /// The statement that installs it.
    pub fn create(&self) -> String {
        let schema = match self.schema.as_str() {
            "" | "pg_catalog" => String::new(),
            schema => format!(" SCHEMA {}", naming::quote_ident(schema)),
        };
        format!("{EXTENSION}{}{schema}", naming::quote_ident(&self.name))
    }
}

impl Manifest {
    /// Types, collations and sequences: the prerequisites that the tables' owner can make.
    pub fn own_prerequisites(&self) -> impl Iterator<Item = &str> {
        let all = self.ddl.prerequisites.iter().map(String::as_str);
        all.filter(|sql| !sql.starts_with(SCHEMA) && !sql.starts_with(EXTENSION))
    }

    /// The schemas that the tables, types and sequences are in.
    pub fn schemas(&self) -> Vec<String> {
        let levels = self.root.iter().flat_map(|root| root.levels.iter().map(|level| level.schema.clone()));
        let extensions = self.extensions.iter().map(|extension| extension.schema.clone());
        let named = self.ddl.prerequisites.iter().filter_map(|sql| unquoted(sql.strip_prefix(SCHEMA)?));
        let mut all = vec![self.source.schema.clone(), self.source.partition_schema.clone()];
        for schema in levels.chain(extensions).chain(named) {
            if !schema.is_empty() && schema != "pg_catalog" && !all.contains(&schema) {
                all.push(schema);
            }
        }
        all.dedup();
        all
    }

    /// The foreign keys through which the table aged with others: as recorded with the table, in manifests of older versions
    /// as far as its family tells. `None` where it was archived alone by such a version.
    pub fn managed_parents(&self) -> Option<&[FamilyKey]> {
        if let Some(parents) = self.root.as_ref().and_then(|root| root.parents.as_deref()) {
            return Some(parents);
        }
        let own = |member: &&FamilyMember| (&member.schema, &member.table) == (&self.source.schema, &self.source.table);
        self.family.as_ref()?.members.iter().find(own).map(|member| member.parents.as_slice())
    }

    /// The root as recorded, or what a manifest of format 1 tells of it: columns, defaults and the key of the
    /// partition's parent. A table that is not partitioned is its own root, without a key.
    pub fn root_or_derived(&self) -> Option<Root> {
        match (&self.root, &self.source.partition_key) {
            (Some(root), _) => Some(root.clone()),
            (None, Some(_)) => derived(self),
            (None, None) => {
                Some(Root { partition_key: String::new(), ddl: self.ddl.clone(), levels: Vec::new(), parents: None })
            }
        }
    }
}

/// An identifier as `quote_ident()` prints it.
fn unquoted(identifier: &str) -> Option<String> {
    let identifier = identifier.trim_end_matches(';').trim();
    match identifier.strip_prefix('"') {
        Some(rest) => rest.strip_suffix('"').map(|name| name.replace("\"\"", "\"")),
        None => Some(identifier.to_owned()),
    }
}

fn derived(manifest: &Manifest) -> Option<Root> {
    let Source { schema, table, partition_key, .. } = &manifest.source;
    let partition_key = partition_key.clone()?;
    let body = &manifest.ddl.create_table[manifest.ddl.create_table.find(" (\n")?..];
    let old = manifest.ddl.create_table.strip_suffix(body)?.strip_prefix("CREATE TABLE ")?;
    let name = format!("{}.{}", naming::quote_ident(schema), naming::quote_ident(table));
    let (before, after) = (format!("ALTER TABLE {old} "), format!("ALTER TABLE {name} "));
    let renamed = |sql: &String| sql.strip_prefix(&before).map(|rest| format!("{after}{rest}"));
    let ddl = Ddl {
        create_table: format!("CREATE TABLE {name}{body} PARTITION BY {partition_key}"),
        defaults: manifest.ddl.defaults.iter().filter_map(renamed).collect(),
        owner: manifest.ddl.owner.clone(),
        ..Ddl::default()
    };
    Some(Root { partition_key, ddl, levels: Vec::new(), parents: None })
}
