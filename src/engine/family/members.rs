//! Which partitions belong together: a child's partition belongs to that of its parent whose bounds hold its own.

use std::collections::HashSet;

use archive_core::manifest::{Family, FamilyKey, FamilyMember};
use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::child_table::ChildTable;
use crate::engine::plan::Plan;
use crate::error::Result;
use crate::partition::discover::{self, Leaf};
use crate::partition::extent::{self, Place};
use crate::partition::foreign_key::{self, ForeignKey};

/// The partition with the partitions of its managed children, and theirs: children before parents, the partition last;
/// just itself without children. What is archived already is not among them.
pub fn members(partition: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    let mut family = Walk::default();
    family.visit(partition)?;
    Ok(family.members)
}

#[derive(Default)]
struct Walk {
    seen: HashSet<pg_sys::Oid>,
    members: Vec<pg_sys::Oid>,
}

impl Walk {
    fn visit(&mut self, partition: pg_sys::Oid) -> Result<()> {
        if !self.seen.insert(partition) {
            return Ok(());
        }
        if let Some(leaf) = discover::leaf(partition)? {
            for child in children_of(&leaf)? {
                self.visit(child)?;
            }
        }
        self.members.push(partition);
        Ok(())
    }
}

/// The partitions of direct children that belong to the partition.
pub fn children(partition: pg_sys::Oid) -> Result<Vec<pg_sys::Oid>> {
    discover::leaf(partition)?.map_or_else(|| Ok(Vec::new()), |leaf| children_of(&leaf))
}

/// The partitions of the direct children whose bounds lie within those of the partition.
fn children_of(leaf: &Leaf) -> Result<Vec<pg_sys::Oid>> {
    let (Some(root), Some(place)) = (leaf.root, place(leaf)) else { return Ok(Vec::new()) };
    let mut children = Vec::new();
    for edge in catalog::child_table::of(root)? {
        let Some(key) = foreign_key(&edge)? else { continue };
        let leaves = extent::leaves(edge.child)?;
        for at in within(&place, &leaves, &key)? {
            children.extend(leaves.get(at).map(|leaf| leaf.relation));
        }
    }
    Ok(children)
}

/// The place of a leaf in its tree.
pub fn place(leaf: &Leaf) -> Option<Place> {
    Some(Place { relation: leaf.oid, parent: leaf.parent?, bounds: leaf.bounds.clone()? })
}

/// The foreign key of a registered child, unless it was dropped.
pub fn foreign_key(edge: &ChildTable) -> Result<Option<ForeignKey>> {
    foreign_key::find(edge.parent, edge.child, &edge.foreign_key)
}

/// Which of the child's places lie within the parent's place.
pub fn within(parent: &Place, children: &[Place], key: &ForeignKey) -> Result<Vec<usize>> {
    let extents = extent::compare(std::slice::from_ref(parent), children, key)?;
    let Some(Some(outer)) = extents.parent.first() else { return Ok(Vec::new()) };
    let inside = |extent: &Option<archive_core::lifecycle::Extent>| extent.as_ref().is_some_and(|e| e.within(outer));
    Ok(extents.child.iter().enumerate().filter(|(_, extent)| inside(extent)).map(|(at, _)| at).collect())
}

/// The family as its manifests name it; `None` for a partition without children.
pub fn describe(plans: &[Plan]) -> Result<Option<Family>> {
    let Some(head) = plans.last().filter(|_| plans.len() > 1) else { return Ok(None) };
    let roots: HashSet<_> = plans.iter().map(|plan| plan.root).collect();
    let mut members = Vec::with_capacity(plans.len());
    for plan in plans {
        let mut parents = Vec::new();
        for edge in catalog::child_table::parents(plan.root)? {
            if roots.contains(&edge.parent) {
                let (schema, table) = discover::schema_and_name(edge.parent)?;
                parents.push(FamilyKey { schema, table, foreign_key: edge.foreign_key });
            }
        }
        members.push(FamilyMember {
            schema: plan.root_name.0.clone(),
            table: plan.root_name.1.clone(),
            partition_schema: plan.leaf.schema.clone(),
            partition: plan.leaf.name.clone(),
            parents,
        });
    }
    let id = format!("{}.{}/{}", head.root_name.0, head.root_name.1, head.leaf.name);
    Ok(Some(Family { id, members }))
}
