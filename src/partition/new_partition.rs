//! Tables that are to become partitions.

use pgrx::pg_sys;
use pgrx::spi::{quote_literal, quote_qualified_identifier};

use super::discover::{self, Leaf};
use super::{ageing, swap};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user, xact};

/// `FOR VALUES FROM ('…') TO ('…')`.
pub fn range_clause(lower: &str, upper: &str) -> String {
    format!("FOR VALUES FROM ({}) TO ({})", quote_literal(lower), quote_literal(upper))
}

/// What is to be made.
#[derive(Debug)]
pub struct Draft<'a> {
    /// The table that it is or will be a partition of.
    pub parent: pg_sys::Oid,
    /// Its schema.
    pub schema: &'a str,
    /// Its name.
    pub name: &'a str,
    /// FOR VALUES clause.
    pub bounds: &'a str,
    /// Whose it will be.
    pub owner: pg_sys::Oid,
    /// The partition whose sub-partitions it gets, where they have any.
    pub template: Option<&'a Leaf>,
    /// Tablespace; `None` for what PostgreSQL would choose.
    pub tablespace: Option<&'a str>,
}

impl Draft<'_> {
    /// `schema.name`, quoted where needed.
    pub fn qualified(&self) -> String {
        quote_qualified_identifier(self.schema, self.name)
    }
}

/// Refuses a name that is taken (42P07).
pub fn check_name(schema: &str, name: &str) -> Result<()> {
    if discover::find_relation(schema, name)?.is_none() {
        return Ok(());
    }
    let name = quote_qualified_identifier(schema, name);
    Err(Error::new(SqlState::ERRCODE_DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
        .hint("Rename or drop it, or choose another name for the new partition."))
}

/// `CREATE TABLE … PARTITION OF`: attached at once. Locks: ACCESS EXCLUSIVE on the parent, for an instant, bounded.
pub fn create_attached(draft: &Draft<'_>) -> Result<pg_sys::Oid> {
    check_name(draft.schema, draft.name)?;
    let _bounded = swap::bounded();
    let parent = catalog::qualified_name(draft.parent)?;
    create(draft, &format!("PARTITION OF {parent} {}", draft.bounds))
}

/// A table like the parent beside it: columns, defaults, CHECKs, statistics, no index and no identity, which the parent has.
pub fn create_detached(draft: &Draft<'_>) -> Result<pg_sys::Oid> {
    check_name(draft.schema, draft.name)?;
    let parent = catalog::qualified_name(draft.parent)?;
    create(draft, &format!("(LIKE {parent} INCLUDING ALL EXCLUDING IDENTITY EXCLUDING INDEXES)"))
}

fn create(draft: &Draft<'_>, how: &str) -> Result<pg_sys::Oid> {
    let name = draft.qualified();
    let template = draft.template.filter(|template| template.kind == 'p');
    let key = template.map(|template| discover::partition_key(template.oid)).transpose()?;
    let tail = key.map(|key| format!(" PARTITION BY {key}")).unwrap_or_default();
    let tablespace = match draft.tablespace {
        Some(tablespace) => {
            ageing::find_tablespace(tablespace, draft.owner)?;
            format!(" TABLESPACE {}", pgrx::spi::quote_identifier(tablespace))
        }
        None => String::new(),
    };
    user::as_user(draft.owner, || spi::execute(&format!("CREATE TABLE {name} {how}{tail}{tablespace}"), &[]))?;
    xact::command_counter_increment();
    let made = discover::find_relation(draft.schema, draft.name)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation \"{name}\" was not created")))?;
    match template {
        Some(template) => create_below(draft, template, made),
        None => Ok(()),
    }?;
    Ok(made)
}

/// The sub-partitions of `template` once more, below the new partition.
fn create_below(draft: &Draft<'_>, template: &Leaf, made: pg_sys::Oid) -> Result<()> {
    for (at, child) in discover::children(template.oid)?.iter().enumerate() {
        if child.strategy == Some('r') {
            return Err(Error::new(
                SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
                format!("\"{}\" has sub-partitions by RANGE", template.qualified()),
            )
            .detail("Their bounds would be others in a new partition.")
            .hint("Create the partition by hand, then make the ones below it by premake_partitions(…) on it."));
        }
        let name = match child.name.strip_prefix(&template.name) {
            Some(rest) => format!("{}{rest}", draft.name),
            None => format!("{}_{at}", draft.name),
        };
        let below = Draft {
            parent: made,
            schema: draft.schema,
            name: &name,
            bounds: child.bounds.as_deref().unwrap_or_default(),
            owner: draft.owner,
            template: Some(child),
            tablespace: None,
        };
        create_attached(&below)?;
    }
    Ok(())
}

/// The partition constraint of these bounds below `parent`, as ATTACH will want it proven: taken from a scratch table that
/// nobody else sees.
pub fn condition(parent: pg_sys::Oid, schema: &str, bounds: &str) -> Result<String> {
    let (key, like) = (discover::partition_key(parent)?, catalog::qualified_name(parent)?);
    let xid = xact::top_transaction_id();
    let (above, below) = (format!("archive_ext_range_{xid}"), format!("archive_ext_part_{xid}"));
    let scratch = quote_qualified_identifier(schema, &above);
    let part = quote_qualified_identifier(schema, &below);
    let owner = discover::owner(parent)?;
    user::as_user(owner, || {
        spi::execute(&format!("CREATE TABLE {scratch} (LIKE {like}) PARTITION BY {key}"), &[])?;
        spi::execute(&format!("CREATE TABLE {part} PARTITION OF {scratch} {bounds}"), &[])
    })?;
    xact::command_counter_increment();
    let own = match discover::find_relation(schema, &below)? {
        Some(oid) => constraint(oid)?,
        None => None,
    };
    user::as_user(owner, || spi::execute(&format!("DROP TABLE {scratch}"), &[]))?;
    let parts: Vec<_> = [own, constraint(parent)?].into_iter().flatten().map(|part| format!("({part})")).collect();
    Ok(parts.join(" AND "))
}

fn constraint(table: pg_sys::Oid) -> Result<Option<String>> {
    user::elevated(|| spi::one("SELECT pg_get_partition_constraintdef($1)", &[table.into()], |row| row.get(1)))
}
