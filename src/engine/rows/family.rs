//! The tables whose rows follow those of a table: its registered children, theirs, and whatever a cascade takes along.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::partition::labels::LabelTable;
use crate::pg::{spi, user};

/// How the rows of a child get their new label.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follows {
    /// The statement that moves the parent's rows moves them.
    InStatement,
    /// ON UPDATE CASCADE moves them; the statement counts them.
    ByCascade,
}

/// A table whose rows follow.
#[derive(Debug, Clone)]
pub struct Follower {
    /// Qualified name.
    pub qualified: String,
    /// Bare name, quoted: what columns are qualified with.
    pub name: String,
    /// How.
    pub follows: Follows,
    /// Which table before it in the list it follows, from 1; 0 is the table at the top.
    pub parent: usize,
    /// Its label column, quoted.
    pub label_column: String,
    /// The other columns of the foreign key: on the child, the operator, on the parent; quoted.
    pub join: Vec<(String, String, String)>,
    /// Set when it is itself partitioned by the label.
    pub partitioned: Option<LabelTable>,
}

/// All followers, parents before children. Refused: foreign keys ON UPDATE RESTRICT, SET NULL or SET DEFAULT, a table that
/// two ways lead to (0A000), a registered child of another owner (42501); on PostgreSQL 14 any foreign key that references
/// the table.
pub fn of(table: &LabelTable) -> Result<Vec<Follower>> {
    let mut found: Vec<Follower> = Vec::new();
    let mut seen = vec![table.oid];
    let mut open = vec![(table.oid, table.column.clone(), 0)];
    while let Some((parent, column, at)) = open.pop() {
        for key in keys(parent)? {
            refuse_on_14(&key)?;
            let Some(follower) = follower(&key, parent, &column, at)? else { continue };
            if seen.contains(&key.child) {
                return Err(twice(&key, &follower.qualified));
            }
            seen.push(key.child);
            let column = key.child_column_of(&column).unwrap_or_default().to_owned();
            found.push(follower);
            open.push((key.child, column, found.len()));
        }
    }
    Ok(found)
}

/// A foreign key that references a table.
struct Key {
    child: pg_sys::Oid,
    name: String,
    action: String,
    registered: bool,
    columns: Vec<String>,
    operators: Vec<String>,
    referenced: Vec<String>,
}

impl Key {
    fn child_column_of(&self, parent_column: &str) -> Option<&str> {
        let at = self.referenced.iter().position(|column| column == parent_column)?;
        self.columns.get(at).map(String::as_str)
    }
}

fn keys(parent: pg_sys::Oid) -> Result<Vec<Key>> {
    let registered = catalog::child_table::of(parent)?;
    let is_registered = |child, name: &str| registered.iter().any(|r| r.child == child && r.foreign_key == name);
    user::elevated(|| {
        spi::rows(
            "SELECT k.conrelid, k.conname::text, k.confupdtype::text,
                    ARRAY(SELECT a.attname::text FROM unnest(k.conkey) WITH ORDINALITY u(n, o)
                          JOIN pg_attribute a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o),
                    ARRAY(SELECT format('OPERATOR(%I.%s)', n.nspname, p.oprname)
                          FROM unnest(k.conpfeqop) WITH ORDINALITY u(op, o) JOIN pg_operator p ON p.oid = u.op
                          JOIN pg_namespace n ON n.oid = p.oprnamespace ORDER BY u.o),
                    ARRAY(SELECT a.attname::text FROM unnest(k.confkey) WITH ORDINALITY u(n, o)
                          JOIN pg_attribute a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o)
             FROM pg_constraint k WHERE k.contype = 'f' AND k.confrelid = $1 AND k.conparentid = 0
             ORDER BY k.conrelid, k.conname",
            &[parent.into()],
            |row| {
                let (child, name) = (row.need(1)?, row.need::<String>(2)?);
                Ok(Key {
                    registered: is_registered(child, &name),
                    child,
                    name,
                    action: row.need(3)?,
                    columns: row.need(4)?,
                    operators: row.need(5)?,
                    referenced: row.need(6)?,
                })
            },
        )
    })
}

/// What a foreign key makes of its table; `None` when it is left to PostgreSQL. That refuses to move rows that the key
/// holds, or has the cascade move them, as their owner: a query of ours would run that owner's row-level security as the
/// caller.
fn follower(key: &Key, parent: pg_sys::Oid, column: &str, at: usize) -> Result<Option<Follower>> {
    let follows = match (key.action.as_str(), key.registered) {
        ("c", _) if !user::has_privileges_of(discover::owner(key.child)?) => return Ok(None),
        ("c", _) => Follows::ByCascade,
        ("a", true) if !user::has_privileges_of(discover::owner(key.child)?) => return Err(of_another_owner(key)?),
        ("a", true) => Follows::InStatement,
        ("n" | "d", _) | (_, true) => return Err(action_refused(key, parent)?),
        _ => return Ok(None),
    };
    let (schema, name) = discover::schema_and_name(key.child)?;
    let Some(label_column) = key.child_column_of(column) else { return Err(action_refused(key, parent)?) };
    let join = key.columns.iter().zip(&key.operators).zip(&key.referenced);
    let join = join.filter(|((_, _), referenced)| *referenced != column);
    Ok(Some(Follower {
        qualified: quote_qualified_identifier(schema.as_str(), name.as_str()),
        name: quote_identifier(name),
        follows,
        parent: at,
        label_column: quote_identifier(label_column),
        join: join
            .map(|((column, operator), referenced)| {
                (quote_identifier(column), operator.clone(), quote_identifier(referenced))
            })
            .collect(),
        partitioned: LabelTable::of(key.child)?.filter(|table| table.column == label_column),
    }))
}

/// Both tables had one owner when the child was added; its triggers and policies would run as the caller.
fn of_another_owner(key: &Key) -> Result<Error> {
    let child = catalog::qualified_name(key.child)?;
    Ok(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {child}"))
        .detail(format!("Its rows move along, by foreign key \"{}\".", key.name))
        .hint("Have its owner give it back or call drop_child_table, or move the rows as a role that may act for both owners."))
}

fn action_refused(key: &Key, parent: pg_sys::Oid) -> Result<Error> {
    let (child, parent) = (catalog::qualified_name(key.child)?, catalog::qualified_name(parent)?);
    let action = match key.action.as_str() {
        "r" => "RESTRICT",
        "n" => "SET NULL",
        "d" => "SET DEFAULT",
        _ => "NO ACTION",
    };
    let constraint = quote_identifier(&key.name);
    Ok(Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("rows of \"{parent}\" cannot move: foreign key \"{}\" of \"{child}\" is ON UPDATE {action}", key.name),
    )
    .detail("Rows that move get another label in the referenced key; the referencing rows must get it in the same statement.")
    .hint(format!(
        "ALTER TABLE {child} DROP CONSTRAINT {constraint}, ADD CONSTRAINT {constraint} FOREIGN KEY ({}) REFERENCES {parent} ({}) ON UPDATE CASCADE; or NO ACTION.",
        key.columns.join(", "),
        key.referenced.join(", "),
    )))
}

fn twice(key: &Key, child: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("two foreign keys lead to rows of \"{child}\" that would move along"),
    )
    .detail(format!(
        "Foreign key \"{}\" is the second; a row can get its new label only once in a statement.",
        key.name
    ))
    .hint(format!(
        "SELECT drop_child_table(…) for one of them, or make one of the foreign keys of {child} not include the label."
    ))
}

#[cfg(feature = "pg14")]
fn refuse_on_14(key: &Key) -> Result<()> {
    Err(Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("foreign key \"{}\" references rows that would move", key.name),
    )
    .detail(
        "PostgreSQL 14 takes the move of a row to another partition for a DELETE as far as foreign keys are concerned.",
    )
    .hint("Upgrade to PostgreSQL 15 or later, or drop the foreign key."))
}

#[cfg(not(feature = "pg14"))]
#[allow(clippy::unnecessary_wraps)]
fn refuse_on_14(_: &Key) -> Result<()> {
    Ok(())
}
