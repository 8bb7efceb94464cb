//! The archive parent follows the columns of the hot table. Its partitions are foreign tables, so nothing is rewritten.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::discover::{self, Attribute};
use super::locks;
use crate::catalog;
use crate::error::Result;
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, user};

/// What became of the columns that the archive parent has.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Changes {
    /// Dropped.
    pub dropped: Vec<String>,
    /// Renamed, from and to.
    pub renamed: Vec<(String, String)>,
}

/// Gives `archive` the columns of `source`. Never a default and never NOT NULL for what is new: archived rows may hold
/// NULL there.
///
/// Locks: ACCESS EXCLUSIVE on the archive parent and its partitions, each wait bounded.
pub fn columns(source: pg_sys::Oid, archive: pg_sys::Oid, changes: &Changes) -> Result<()> {
    let (hot, before) = (discover::attributes(source)?, discover::attributes(archive)?);
    if *changes == Changes::default() && in_step(&hot, &before) {
        return Ok(());
    }
    let name = catalog::qualified_name(archive)?;
    locks::acquire(archive, &name, LockMode::AccessExclusive)?;
    let _bounded = GucNest::new().set(c"lock_timeout", &guc::lock_timeout_ms().to_string());
    let has = |column: &str| before.iter().any(|attribute| attribute.name == column);
    let mut statements: Vec<String> =
        changes.dropped.iter().filter(|column| has(column)).map(|column| drop_column(&name, column)).collect();
    let renamed: Vec<_> = changes.renamed.iter().filter(|(from, _)| has(from)).cloned().collect();
    statements.extend(rename_columns("TABLE", &name, &renamed));
    let owner = discover::owner(archive)?;
    execute(owner, &statements)?;
    let now = discover::attributes(archive)?;
    execute(owner, &differences(&name, &hot, &now))?;
    let retyped: Vec<_> = hot
        .iter()
        .filter(|column| now.iter().any(|other| other.name == column.name && !other.same_type(column)))
        .collect();
    if retyped.is_empty() { Ok(()) } else { retype(archive, &name, owner, &retyped) }
}

fn in_step(hot: &[Attribute], archive: &[Attribute]) -> bool {
    let same = |column: &Attribute| {
        archive
            .iter()
            .any(|other| other.name == column.name && other.same_type(column) && (column.not_null || !other.not_null))
    };
    hot.len() == archive.len() && hot.iter().all(same)
}

fn execute(owner: pg_sys::Oid, statements: &[String]) -> Result<()> {
    user::as_user(owner, || statements.iter().try_for_each(|sql| spi::execute(sql, &[]).map(drop)))
}

fn drop_column(table: &str, column: &str) -> String {
    format!("ALTER TABLE {table} DROP COLUMN {}", quote_identifier(column))
}

/// Statements that rename columns, two of which may swap their names.
pub fn rename_columns(kind: &str, relation: &str, renamed: &[(String, String)]) -> Vec<String> {
    let rename = |from: &str, to: &str| {
        format!("ALTER {kind} {relation} RENAME COLUMN {} TO {}", quote_identifier(from), quote_identifier(to))
    };
    if let [(from, to)] = renamed {
        return vec![rename(from, to)];
    }
    let passing = |at: usize| format!("archive_ext renames {at}");
    let away = renamed.iter().enumerate().map(|(at, (from, _))| rename(from, &passing(at)));
    let home = renamed.iter().enumerate().map(|(at, (_, to))| rename(&passing(at), to));
    away.chain(home).collect()
}

/// Columns that are missing, and NOT NULLs that the hot table no longer has.
fn differences(name: &str, hot: &[Attribute], archive: &[Attribute]) -> Vec<String> {
    let mut statements = Vec::new();
    for column in hot {
        let quoted = quote_identifier(&column.name);
        match archive.iter().find(|other| other.name == column.name) {
            None => statements.push(format!("ALTER TABLE {name} ADD COLUMN {quoted} {}", column.full_type())),
            Some(other) if other.not_null && !column.not_null => {
                statements.push(format!("ALTER TABLE {name} ALTER COLUMN {quoted} DROP NOT NULL"));
            }
            Some(_) => {}
        }
    }
    statements
}

/// Changes types. A foreign partition takes no USING, and without one PostgreSQL wants a cast even where there are no
/// rows: so the partitions are taken off for a moment and changed by themselves.
fn retype(archive: pg_sys::Oid, name: &str, owner: pg_sys::Oid, columns: &[&Attribute]) -> Result<()> {
    let partitions = foreign_partitions(archive)?;
    let alter = |kind: &str, relation: &str, using: bool| {
        let commands: Vec<_> = columns
            .iter()
            .map(|column| {
                let (column, full, bare) = (quote_identifier(&column.name), column.full_type(), &column.type_sql);
                let using = if using { format!(" USING NULL::{bare}") } else { String::new() };
                format!("ALTER COLUMN {column} TYPE {full}{using}")
            })
            .collect();
        format!("ALTER {kind} {relation} {}", commands.join(", "))
    };
    let mut statements: Vec<_> = partitions.iter().map(|(_, off, _)| off.clone()).collect();
    statements.push(alter("TABLE", name, true));
    for (partition, _, on) in &partitions {
        statements.push(alter("FOREIGN TABLE", partition, false));
        statements.push(on.clone());
    }
    execute(owner, &statements)
}

/// Foreign tables below `archive`, partitions and inheritance children: the name, and what takes it off its parent and puts
/// it back.
fn foreign_partitions(archive: pg_sys::Oid) -> Result<Vec<(String, String, String)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT t.name, format(CASE WHEN t.bounds IS NULL THEN 'ALTER FOREIGN TABLE %s NO INHERIT %s'
                                   ELSE 'ALTER TABLE %2$s DETACH PARTITION %1$s' END, t.name, t.parent),
                    format(CASE WHEN t.bounds IS NULL THEN 'ALTER FOREIGN TABLE %s INHERIT %s'
                           ELSE 'ALTER TABLE %2$s ATTACH PARTITION %1$s %3$s' END, t.name, t.parent, t.bounds)
             FROM (WITH RECURSIVE below AS (
                     SELECT $1::oid AS relid, 0::oid AS parentrelid
                     UNION ALL
                     SELECT i.inhrelid, i.inhparent FROM pg_inherits i JOIN below b ON i.inhparent = b.relid)
                   SELECT c.oid, format('%I.%I', n.nspname, c.relname) AS name, pg_get_expr(c.relpartbound, c.oid) AS bounds,
                          format('%I.%I', pn.nspname, pc.relname) AS parent
                   FROM below t JOIN pg_class c ON c.oid = t.relid
                   JOIN pg_namespace n ON n.oid = c.relnamespace
                   JOIN pg_class pc ON pc.oid = t.parentrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
                   WHERE c.relkind = 'f') t
             ORDER BY t.oid",
            &[archive.into()],
            |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
        )
    })
}
