//! Which partitions of two trees hold rows of the same time or label, by their bounds on every level (P10).

use std::collections::HashMap;

use archive_core::lifecycle::{Axis, Extent, list_bound, range_bounds};
use pgrx::{JsonB, pg_sys};

use super::discover;
use super::foreign_key::ForeignKey;
use crate::error::{Error, Result, SqlState};
use crate::pg::guc::GucNest;
use crate::pg::{spi, user};

/// A place in a partition tree: where a partition is, or was before it was archived.
#[derive(Debug, Clone)]
pub struct Place {
    /// The partition, or what stands for it.
    pub relation: pg_sys::Oid,
    /// Its immediate parent.
    pub parent: pg_sys::Oid,
    /// `FOR VALUES …` or `DEFAULT`.
    pub bounds: String,
}

/// The leaves of a partitioned table, DEFAULT partitions included. Keeps no locks.
pub fn leaves(root: pg_sys::Oid) -> Result<Vec<Place>> {
    discover::look(|| {
        spi::rows(
            "SELECT t.relid::oid, i.inhparent, pg_get_expr(c.relpartbound, c.oid)
             FROM pg_partition_tree($1::oid) t JOIN pg_class c ON c.oid = t.relid
             JOIN pg_inherits i ON i.inhrelid = t.relid
             WHERE t.isleaf AND c.relkind = 'r' AND c.relpartbound IS NOT NULL ORDER BY c.oid",
            &[root.into()],
            |row| Ok(Place { relation: row.need(1)?, parent: row.need(2)?, bounds: row.need(3)? }),
        )
    })
}

/// One level above a place: how its parent is partitioned, and which part is its.
#[derive(Debug, Clone)]
struct Level {
    place: usize,
    strategy: String,
    keys: i32,
    column: Option<String>,
    key_type: String,
    bounds: String,
}

fn levels(places: &[Place]) -> Result<Vec<Level>> {
    let asked: Vec<_> = places.iter().map(|place| serde_json::json!([place.parent.to_u32(), place.bounds])).collect();
    user::elevated(|| {
        spi::rows(
            "SELECT (u.i - 1)::int4, k.partstrat::text, k.partnatts::int4, a.attname::text,
                    coalesce(format_type(a.atttypid, a.atttypmod), '')
                      || coalesce((SELECT format(' COLLATE %I.%I', n.nspname, c.collname) FROM pg_collation c
                                   JOIN pg_namespace n ON n.oid = c.collnamespace WHERE c.oid = k.partcollation[0]), ''),
                    l.bounds
             FROM jsonb_array_elements($1) WITH ORDINALITY u(place, i)
             CROSS JOIN LATERAL (
               SELECT (u.place ->> 0)::oid AS parent, u.place ->> 1 AS bounds
               UNION ALL
               SELECT h.inhparent, pg_get_expr(c.relpartbound, c.oid)
               FROM pg_partition_ancestors((u.place ->> 0)::oid::regclass) t JOIN pg_class c ON c.oid = t.relid
               JOIN pg_inherits h ON h.inhrelid = t.relid) l
             JOIN pg_partitioned_table k ON k.partrelid = l.parent
             LEFT JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]",
            &[JsonB(asked.into()).into()],
            |row| {
                Ok(Level {
                    place: usize::try_from(row.need::<i32>(1)?).unwrap_or_default(),
                    strategy: row.need(2)?,
                    keys: row.need(3)?,
                    column: row.get(4)?,
                    key_type: row.need(5)?,
                    bounds: row.need(6)?,
                })
            },
        )
    })
}

/// The extents of places in a parent's and a child's tree, comparable with each other: both have the parent's columns.
/// A place that is DEFAULT on any level has none.
#[derive(Debug)]
pub struct Extents {
    /// Of the parent's places, in their order.
    pub parent: Vec<Option<Extent>>,
    /// Of the child's places, in their order.
    pub child: Vec<Option<Extent>>,
}

/// Computes the extents of both trees' places. Errors (0A000): a key that cannot be compared, and why.
pub fn compare(parent: &[Place], child: &[Place], key: &ForeignKey) -> Result<Extents> {
    let (above, below) = (levels(parent)?, levels(child)?);
    let ranks = ranks(above.iter().chain(&below))?;
    let parent = extents(parent.len(), &above, &ranks)?;
    let child = extents(child.len(), &below, &ranks)?;
    let sample = parent.iter().flatten().next().cloned();
    let child =
        child.into_iter().map(|extent| extent.map(|extent| in_columns_of(sample.as_ref(), &extent, key))).collect();
    Ok(Extents { parent, child })
}

/// The child's extent under the parent's column names: through the foreign key, else the same name, else the only column
/// that is partitioned in the same way.
fn in_columns_of(parent: Option<&Extent>, child: &Extent, key: &ForeignKey) -> Extent {
    let Some(parent) = parent else { return child.clone() };
    let mut names = HashMap::new();
    for column in parent.columns() {
        let own = key
            .child_column(column)
            .filter(|own| child.columns().any(|name| name == *own))
            .or_else(|| child.columns().find(|name| *name == column))
            .or_else(|| child.only_like(parent, column));
        if let Some(own) = own {
            names.insert(own.to_owned(), column.to_owned());
        }
    }
    child.renamed(|own| names.get(own).cloned())
}

/// The rank of every RANGE bound, by type: the type's own order, whatever it is.
fn ranks<'a>(levels: impl Iterator<Item = &'a Level>) -> Result<HashMap<(String, String), i64>> {
    let mut bounds: HashMap<&str, Vec<String>> = HashMap::new();
    for level in levels.filter(|level| level.strategy == "r") {
        let (lower, upper) = range_bounds(&level.bounds);
        bounds.entry(&level.key_type).or_default().extend(lower.into_iter().chain(upper));
    }
    let mut ranks = HashMap::new();
    for (key_type, mut texts) in bounds {
        texts.sort_unstable();
        texts.dedup();
        for (text, rank) in ranked(key_type, texts)? {
            ranks.insert((key_type.to_owned(), text), rank);
        }
    }
    Ok(ranks)
}

fn ranked(key_type: &str, texts: Vec<String>) -> Result<Vec<(String, i64)>> {
    let (plain, collate) = match key_type.split_once(" COLLATE ") {
        Some((plain, collation)) => (plain, format!(" COLLATE {collation}")),
        None => (key_type, String::new()),
    };
    // The bounds were printed under these settings; a user's type runs with the caller's rights.
    user::as_user(user::current(), || {
        let _text = GucNest::lossless_text();
        spi::rows(
            &format!("SELECT b, dense_rank() OVER (ORDER BY b::{plain}{collate}) FROM jsonb_array_elements_text($1) b"),
            &[JsonB(texts.into()).into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

fn extents(places: usize, levels: &[Level], ranks: &HashMap<(String, String), i64>) -> Result<Vec<Option<Extent>>> {
    let mut extents = vec![Some(Extent::default()); places];
    for level in levels {
        let Some(slot) = extents.get_mut(level.place) else { continue };
        match axis(level, ranks)? {
            Some((column, axis)) => slot.iter_mut().for_each(|extent| extent.narrow(column, axis.clone())),
            None if level.strategy == "h" => {}
            None => *slot = None,
        }
    }
    Ok(extents)
}

/// The column and what the level says about it; `None` for DEFAULT and HASH.
fn axis<'a>(level: &'a Level, ranks: &HashMap<(String, String), i64>) -> Result<Option<(&'a str, Axis)>> {
    if level.strategy == "h" || level.bounds == "DEFAULT" {
        return Ok(None);
    }
    let Some(column) = level.column.as_deref().filter(|_| level.keys == 1) else {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            "tables partitioned by several columns or an expression cannot be compared",
        )
        .hint("Partition parent and child by one column each, such as the time."));
    };
    if level.strategy == "l" {
        return Ok(list_bound(&level.bounds).map(|values| (column, Axis::List(values))));
    }
    let rank = |bound: Option<String>, without| match bound {
        Some(text) => ranks.get(&(level.key_type.clone(), text)).copied().unwrap_or(without),
        None => without,
    };
    let (lower, upper) = range_bounds(&level.bounds);
    Ok(Some((column, Axis::Range(rank(lower, i64::MIN), rank(upper, i64::MAX)))))
}

/// The types of the RANGE columns of a tree, so that one can see whether two trees can be compared.
pub fn range_types(places: &[Place]) -> Result<Vec<String>> {
    let mut types: Vec<_> =
        levels(places)?.into_iter().filter(|level| level.strategy == "r").map(|level| level.key_type).collect();
    types.sort_unstable();
    types.dedup();
    Ok(types)
}
