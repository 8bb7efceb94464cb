//! What keeps a family from being archived, all of it, before anything starts.

use pgrx::pg_sys;

use super::members::members;
use crate::catalog;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::partition::check;
use crate::partition::discover::{self, InboundKey, Leaf};
use crate::pg::{spi, xact};

/// One thing that stands in the way.
#[derive(Debug, Clone)]
pub struct Blocker {
    /// The relation that it is about.
    pub relation: pg_sys::Oid,
    /// Its name.
    pub name: String,
    /// What is wrong, without a full stop.
    pub reason: String,
    /// How many rows are concerned, where rows are.
    pub rows: Option<i64>,
    /// What to do about it.
    pub remedy: String,
    /// The member that rows of other tables reference: a stub of each of its rows would satisfy them.
    pub referenced: Option<pg_sys::Oid>,
}

/// Everything that keeps the partition and its children from being archived; nothing is changed. Rows that reference the
/// family from outside are counted.
pub fn blockers(partition: pg_sys::Oid) -> Result<Vec<Blocker>> {
    let mut blockers = Vec::new();
    let members = members(partition)?;
    for member in &members {
        match check::archivable(*member) {
            Ok(leaf) => {
                blockers.extend(lost_keys(&leaf)?);
                blockers.extend(references(&leaf, &members)?);
            }
            Err(error) => {
                // What has left stubs can leave more of them.
                let stubs = catalog::row_set::of_partition(*member)?.filter(|set| set.rows > 0);
                blockers.push(Blocker { referenced: stubs.map(|_| *member), ..refused(*member, &error)? });
            }
        }
    }
    Ok(blockers)
}

fn refused(member: pg_sys::Oid, error: &Error) -> Result<Blocker> {
    let name = catalog::qualified_name(member)?;
    let reason = match error.detail_text() {
        Some(detail) => format!("{} ({})", error.message(), detail.trim_end_matches('.')),
        None => error.message().to_owned(),
    };
    Ok(Blocker {
        relation: member,
        name,
        reason,
        rows: None,
        remedy: error.hint_text().unwrap_or_default().to_owned(),
        referenced: None,
    })
}

/// Children whose foreign key was dropped since: nothing says which of their rows belong.
fn lost_keys(leaf: &Leaf) -> Result<Vec<Blocker>> {
    let mut lost = Vec::new();
    for edge in catalog::child_table::of(leaf.root.unwrap_or(leaf.oid))? {
        if super::members::foreign_key(&edge)?.is_none() {
            let (parent, name) = (catalog::qualified_name(edge.parent)?, catalog::qualified_name(edge.child)?);
            lost.push(Blocker {
                relation: edge.child,
                reason: format!("its foreign key \"{}\" to \"{parent}\" does not exist any more", edge.foreign_key),
                rows: None,
                referenced: None,
                remedy: format!("SELECT drop_child_table('{parent}', '{name}');"),
                name,
            });
        }
    }
    Ok(lost)
}

/// Rows that stay and reference a member.
fn references(leaf: &Leaf, members: &[pg_sys::Oid]) -> Result<Vec<Blocker>> {
    let mut blockers = Vec::new();
    for key in discover::inbound_keys(leaf.oid)? {
        for (relation, name) in discover::storing(key.relation)? {
            if members.contains(&relation) {
                continue;
            }
            let rows = count(leaf, &key, &name)?;
            if rows != Some(0) {
                blockers.push(reference(leaf, &key, (relation, name), rows)?);
            }
        }
    }
    Ok(blockers)
}

/// `None` when the owner of the referenced table may not read the referencing one.
fn count(leaf: &Leaf, key: &InboundKey, storing: &str) -> Result<Option<i64>> {
    let sql = format!("SELECT count(*) {}", key.rows_from(storing));
    let counted =
        xact::subtransaction(|| check::probe(leaf, || spi::one(&sql, &[], |row| row.need::<i64>(1))).or_raise());
    match counted {
        Ok(rows) => Ok(Some(rows)),
        Err(caught) if caught.sqlstate == SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE => Ok(None),
        Err(caught) => Err(caught.into()),
    }
}

fn reference(
    leaf: &Leaf,
    key: &InboundKey,
    (relation, name): (pg_sys::Oid, String),
    rows: Option<i64>,
) -> Result<Blocker> {
    let root = leaf.root.unwrap_or(leaf.oid);
    let (parent, member) = (catalog::qualified_name(root)?, leaf.qualified());
    let managed = catalog::child_table::of(root)?.iter().any(|edge| edge.child == key.relation);
    let constraint = &key.constraint;
    let (reason, remedy) = if rows.is_none() {
        let owner = pgrx::spi::quote_identifier(crate::pg::user::name_of(leaf.owner));
        (
            format!("the owner of \"{member}\" may not see whether rows reference it (foreign key \"{constraint}\")"),
            format!("GRANT SELECT ON {name} TO {owner}; or drop the foreign key."),
        )
    } else if managed {
        (
            format!(
                "rows reference \"{member}\" (foreign key \"{constraint}\"), but the bounds of this partition do not lie within its bounds"
            ),
            "Move these rows to a partition with the bounds of the one they reference, or delete them.".to_owned(),
        )
    } else {
        let table = &key.table;
        (
            format!("rows of a table that is no managed child reference \"{member}\" (foreign key \"{constraint}\")"),
            format!(
                "SELECT add_child_table('{parent}', '{table}') if it is partitioned in step; else delete these rows, \
                 ALTER TABLE {table} DROP CONSTRAINT {}, or leave stubs of the rows by keep_keys => true.",
                pgrx::spi::quote_identifier(constraint)
            ),
        )
    };
    let referenced = (rows.is_some() && !managed).then_some(leaf.oid);
    Ok(Blocker { relation, name, reason, rows, remedy, referenced })
}
