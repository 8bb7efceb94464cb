//! New partitions beside those that are there, and beside a DEFAULT partition that may hold their rows.

use pgrx::pg_sys;

use crate::engine::archive;
use crate::error::Result;
use crate::partition::discover::Leaf;
use crate::partition::new_partition::{self, Draft};
use crate::partition::{default_rows, locks, swap};
use crate::pg::relation::LockMode;
use crate::pg::xact;
use crate::worker::freezer;

/// One partition to be made.
#[derive(Debug)]
pub struct New {
    /// Its name, in the schema of its parent.
    pub name: String,
    /// FOR VALUES clause.
    pub bounds: String,
}

/// Makes the partitions; each with the number of rows that it took from the DEFAULT partition.
///
/// Locks: ACCESS EXCLUSIVE on the parent for the catalog changes at the end. With a DEFAULT partition its rows are moved
/// before; a CHECK keeps further ones out of it, so that their writers fail meanwhile instead of waiting (23514).
pub fn place(parent: &Leaf, template: Option<&Leaf>, new: &[New]) -> Result<Vec<(pg_sys::Oid, u64)>> {
    let drafts: Vec<_> = new.iter().map(|new| draft(parent, template, new)).collect();
    match default_rows::of_parent(parent.oid)? {
        Some(default) if !drafts.is_empty() => beside_default(parent, default, &drafts),
        _ => {
            locks::acquire_all(&locks::strongest(concerned(parent)?))?;
            drafts.iter().map(|draft| Ok((new_partition::create_attached(draft)?, 0))).collect()
        }
    }
}

fn draft<'a>(parent: &'a Leaf, template: Option<&'a Leaf>, new: &'a New) -> Draft<'a> {
    Draft {
        parent: parent.oid,
        schema: &parent.schema,
        name: &new.name,
        bounds: &new.bounds,
        owner: parent.owner,
        template,
        tablespace: None,
    }
}

fn beside_default(parent: &Leaf, default: pg_sys::Oid, drafts: &[Draft<'_>]) -> Result<Vec<(pg_sys::Oid, u64)>> {
    let mut ranges = Vec::with_capacity(drafts.len());
    for draft in drafts {
        new_partition::check_name(draft.schema, draft.name)?;
        ranges.push(new_partition::condition(parent.oid, draft.schema, draft.bounds)?);
    }
    let all: Vec<_> = ranges.iter().map(|range| format!("({range})")).collect();
    keep_out(default, &all.join(" OR "))?;
    let mut tables = Vec::with_capacity(drafts.len());
    for (draft, range) in drafts.iter().zip(ranges) {
        tables.push((range, new_partition::create_detached(draft)?));
    }
    let moved = default_rows::settle_all(default, &tables)?;
    for (draft, (_, table)) in drafts.iter().zip(&tables) {
        swap::complete_indexes(parent.oid, *table, draft.schema, draft.bounds)?;
    }
    let new = tables.iter().map(|(_, table)| (*table, LockMode::AccessExclusive));
    let wanted = locks::strongest(concerned(parent)?.into_iter().chain(new).collect());
    if moved.iter().any(|rows| *rows > 0) {
        locks::acquire_all_after_moving(&wanted)?;
    } else {
        locks::acquire_all(&wanted)?;
    }
    archive::note_swap(parent.oid);
    for draft in drafts {
        swap::attach(parent.oid, &draft.qualified(), draft.bounds)?;
    }
    xact::command_counter_increment();
    default_rows::admit(default, xact::top_transaction_id())?;
    Ok(tables.into_iter().map(|(_, table)| table).zip(moved).collect())
}

/// What CREATE TABLE PARTITION OF and ATTACH lock besides the new tables.
fn concerned(parent: &Leaf) -> Result<Vec<(pg_sys::Oid, LockMode)>> {
    swap::concerned(parent.root.unwrap_or(parent.oid), parent.oid, None, LockMode::ShareRowExclusive)
}

/// A committed CHECK keeps `condition` out of the DEFAULT partition until this transaction ends; where this transaction has a
/// lock on it already, one of its own, since a worker would wait for that.
pub fn keep_out(default: pg_sys::Oid, condition: &str) -> Result<()> {
    if !locks::held_here(default)?.is_empty() {
        return default_rows::exclude(default, condition, xact::top_transaction_id());
    }
    let exclude = Some(freezer::Exclude { default_partition: default.to_u32(), condition: condition.to_owned() });
    freezer::freeze(&freezer::Order::of_this_transaction(Vec::new(), exclude))?;
    xact::command_counter_increment();
    Ok(())
}
