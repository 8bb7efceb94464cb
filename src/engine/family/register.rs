//! Which tables are managed children, and whether a table can be one.

use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::child_table::{self, ChildTable};
use crate::error::{Error, Result, SqlState};
use crate::partition::extent;
use crate::partition::foreign_key::{self, ForeignKey};
use crate::partition::{check, discover};
use crate::pg::user;

/// A table that references another, and whether it can be a managed child.
#[derive(Debug)]
pub struct Discovered {
    /// The foreign key.
    pub key: ForeignKey,
    /// Whether it was added.
    pub managed: bool,
    /// Why it cannot be a managed child.
    pub reason: Option<String>,
}

/// The tables that reference `parent`.
pub fn discover(parent: pg_sys::Oid) -> Result<Vec<Discovered>> {
    check_exists(parent)?;
    let added = child_table::of(parent)?;
    let mut found = Vec::new();
    for key in foreign_key::referencing(parent)? {
        let edge = edge(&key);
        let reason = usable(&key).err().map(|error| match error.detail_text() {
            Some(detail) => format!("{}: {}", error.message(), detail),
            None => error.message().to_owned(),
        });
        found.push(Discovered { managed: added.contains(&edge), key, reason });
    }
    Ok(found)
}

/// Makes `child` a managed child of `parent`; the name of the foreign key. Locks: none.
///
/// Errors: 42704 no such foreign key; 42725 several, and none named; 42501 for tables of others; 42P17, 42809 or 0A000
/// when the child cannot age with the parent, and why.
pub fn add(parent: pg_sys::Oid, child: pg_sys::Oid, name: Option<&str>) -> Result<String> {
    check_exists(parent)?;
    check_exists(child)?;
    let key = choose(parent, child, name)?;
    usable(&key)?;
    child_table::add(&edge(&key))?;
    Ok(key.name)
}

/// Lets `child` age on its own again; whether it was a managed child. Only the owner of one of the tables may (42501).
pub fn remove(parent: pg_sys::Oid, child: pg_sys::Oid) -> Result<bool> {
    for table in [parent, child] {
        if discover::leaf(table)?.is_some() {
            must_own(table)?;
        }
    }
    child_table::remove(parent, child)
}

fn edge(key: &ForeignKey) -> ChildTable {
    ChildTable { parent: key.parent, child: key.child, foreign_key: key.name.clone() }
}

fn check_exists(table: pg_sys::Oid) -> Result<()> {
    if discover::leaf(table)?.is_some() {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation with OID {} does not exist", table.to_u32())))
}

fn choose(parent: pg_sys::Oid, child: pg_sys::Oid, name: Option<&str>) -> Result<ForeignKey> {
    let (of, to) = (catalog::qualified_name(child)?, catalog::qualified_name(parent)?);
    let mut keys = foreign_key::referencing(parent)?;
    keys.retain(|key| key.child == child);
    let names: Vec<_> = keys.iter().map(|key| key.name.clone()).collect();
    if let Some(name) = name {
        keys.retain(|key| key.name == name);
    }
    let undefined = |message: String| Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, message);
    match (keys.len(), name) {
        (1, _) => Ok(keys.remove(0)),
        (0, Some(name)) if !names.is_empty() => {
            Err(undefined(format!("\"{of}\" has no foreign key \"{name}\" that references \"{to}\""))
                .hint(format!("It has: {}.", names.join(", "))))
        }
        (0, _) => Err(undefined(format!("\"{of}\" has no foreign key that references \"{to}\""))
            .hint("Only a foreign key of the whole table tells which rows belong to which.")),
        _ => Err(Error::new(
            SqlState::ERRCODE_AMBIGUOUS_PARAMETER,
            format!("\"{of}\" has {} foreign keys that reference \"{to}\"", keys.len()),
        )
        .hint(format!("Name one of them: {}.", names.join(", ")))),
    }
}

/// Why a table cannot be a managed child through this key.
fn usable(key: &ForeignKey) -> Result<()> {
    for table in [key.parent, key.child] {
        must_own(table)?;
        check::not_static(table)?;
    }
    partitioned(key)?;
    actions(key)?;
    acyclic(key)?;
    in_step(key)
}

fn must_own(table: pg_sys::Oid) -> Result<()> {
    if user::has_privileges_of(discover::owner(table)?) {
        return Ok(());
    }
    let name = catalog::qualified_name(table)?;
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}"))
        .hint("Parent and child are archived by one role: it must own both, or be a member of their owners."))
}

fn partitioned(key: &ForeignKey) -> Result<()> {
    for table in [key.parent, key.child] {
        let name = catalog::qualified_name(table)?;
        let wrong = |what: &str| {
            Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" {what}"))
                .hint("Parent and child must both be partitioned, by the same time or label."))
        };
        match discover::leaf(table)? {
            Some(leaf) if leaf.parent.is_some() => return wrong("is a partition, not the table at the root"),
            Some(leaf) if leaf.kind == 'p' => {}
            _ => return wrong("is not a partitioned table"),
        }
    }
    Ok(())
}

fn actions(key: &ForeignKey) -> Result<()> {
    for (event, action) in [("UPDATE", &key.on_update), ("DELETE", &key.on_delete)] {
        let refused = match action.as_str() {
            "NO ACTION" | "CASCADE" => continue,
            "RESTRICT" => "RESTRICT is checked at once, so parent and child can never move in one statement.",
            _ => "Moving a row of the parent would change rows of the child.",
        };
        let message = format!("foreign key \"{}\" is ON {event} {action}", key.name);
        return Err(Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, message)
            .detail(refused)
            .hint("Make it NO ACTION or CASCADE."));
    }
    if key.validated {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("foreign key \"{}\" is not validated", key.name),
    )
    .hint("ALTER TABLE … VALIDATE CONSTRAINT first."))
}

fn acyclic(key: &ForeignKey) -> Result<()> {
    let mut above = vec![key.parent];
    let mut at = 0;
    while let Some(table) = above.get(at).copied() {
        if table == key.child {
            let (child, parent) = (catalog::qualified_name(key.child)?, catalog::qualified_name(key.parent)?);
            return Err(Error::new(
                SqlState::ERRCODE_INVALID_OBJECT_DEFINITION,
                format!("\"{child}\" cannot be a child of \"{parent}\""),
            )
            .detail(if key.child == key.parent {
                "It references itself, so there is no order of child before parent.".to_owned()
            } else {
                format!("\"{parent}\" is a child of \"{child}\", directly or through others.")
            }));
        }
        for edge in child_table::parents(table)? {
            if !above.contains(&edge.parent) {
                above.push(edge.parent);
            }
        }
        at += 1;
    }
    Ok(())
}

/// Every partition of the child lies within one of the parent, or beside all of them.
fn in_step(key: &ForeignKey) -> Result<()> {
    let (parents, children) = (extent::leaves(key.parent)?, extent::leaves(key.child)?);
    let (parent, child) = (catalog::qualified_name(key.parent)?, catalog::qualified_name(key.child)?);
    let apart = |detail: String| {
        Error::new(
            SqlState::ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("\"{child}\" is not partitioned in step with \"{parent}\""),
        )
        .detail(detail)
        .hint("Each partition of the child must have the bounds of one of the parent, or lie within them.")
    };
    let (above, below) = (extent::range_types(&parents)?, extent::range_types(&children)?);
    if !above.is_empty() && !below.is_empty() && above != below {
        return Err(apart(format!("Its key has type {}, the parent's {}.", below.join(", "), above.join(", "))));
    }
    let extents = extent::compare(&parents, &children, key)?;
    for (place, own) in children.iter().zip(&extents.child) {
        let Some(own) = own else { continue };
        for (other, outer) in parents.iter().zip(&extents.parent) {
            let Some(outer) = outer else { continue };
            if own.overlaps(outer) && !own.within(outer) {
                let (name, beyond) =
                    (catalog::qualified_name(place.relation)?, catalog::qualified_name(other.relation)?);
                return Err(apart(format!("The bounds of \"{name}\" reach beyond those of \"{beyond}\".")));
            }
        }
    }
    Ok(())
}
