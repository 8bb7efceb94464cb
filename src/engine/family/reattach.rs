//! A family comes back: parents before children, in one transaction, every foreign key checked again by ATTACH.

use pgrx::pg_sys;
use pgrx::spi::quote_qualified_identifier;

use super::members;
use crate::catalog;
use crate::catalog::partition::Known;
use crate::engine::reattach::{self, Options};
use crate::error::{Error, Result, SqlState};
use crate::partition::check;
use crate::partition::extent::Place;

/// Puts an archived partition and the archived partitions of its children back, parents first; the hot partitions.
///
/// Locks: as `reattach_partition` for each; the locks of all swaps are taken together, until commit. Errors: 55000 when a
/// parent of one of them stays archived.
pub fn reattach(name: &str, options: Options) -> Result<Vec<pg_sys::Oid>> {
    check::transaction("reattach_family")?;
    let _bounded = crate::partition::swap::bounded();
    let mut family = vec![reattach::find(name)?];
    let mut at = 0;
    while let Some(known) = family.get(at) {
        let children = archived_children(known)?;
        for child in children {
            // Behind all of its parents, also where it has several.
            if let Some(earlier) = family.iter().position(|member| member.id == child.id) {
                if earlier > at {
                    continue;
                }
                family.remove(earlier);
                at -= 1;
            }
            family.push(child);
        }
        at += 1;
    }
    let ids: Vec<_> = family.iter().map(|known| known.id).collect();
    for known in &family {
        refuse_without_parent(known, &ids)?;
    }
    reattach::reattach_all(family, options)
}

/// The archived partitions of direct children that lie within the archived partition.
fn archived_children(known: &Known) -> Result<Vec<Known>> {
    let mut children = Vec::new();
    for edge in catalog::child_table::of(known.source)? {
        let Some(key) = members::foreign_key(&edge)? else { continue };
        let archived = catalog::partition::archived_of(edge.child)?;
        let places: Vec<_> = archived.iter().map(place).collect();
        let within = members::within(&place(known), &places, &key)?;
        children.extend(archived.into_iter().enumerate().filter(|(at, _)| within.contains(at)).map(|(_, child)| child));
    }
    Ok(children)
}

fn place(known: &Known) -> Place {
    Place { relation: known.source, parent: known.parent, bounds: known.bounds.clone() }
}

/// The archived partition of a managed parent that holds the rows which those of `known` reference.
fn archived_parent(known: &Known, others: &[i64]) -> Result<Option<(Known, String)>> {
    for edge in catalog::child_table::parents(known.source)? {
        let Some(key) = members::foreign_key(&edge)? else { continue };
        for parent in catalog::partition::archived_of(edge.parent)? {
            if !others.contains(&parent.id) && !members::within(&place(&parent), &[place(known)], &key)?.is_empty() {
                return Ok(Some((parent, edge.foreign_key)));
            }
        }
    }
    Ok(None)
}

/// Refuses to bring back rows whose parents stay archived (55000): ATTACH would find their foreign key violated.
pub fn refuse_without_parent(known: &Known, others: &[i64]) -> Result<()> {
    let Some((parent, key)) = archived_parent(known, others)? else { return Ok(()) };
    let own = quote_qualified_identifier(&known.schema_name, &known.partition_name);
    let parent = quote_qualified_identifier(&parent.schema_name, &parent.partition_name);
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the rows that \"{own}\" references are archived in \"{parent}\""),
    )
    .detail(format!("Foreign key \"{key}\" would be violated: a parent comes back before its children."))
    .hint(format!("SELECT reattach_family('{parent}') brings both back.")))
}
