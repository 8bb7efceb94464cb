//! Objects that cannot have the key that a query asks for, by the filters in the catalog. They are asked after the ranges, about the
//! objects that are left, and only where the query names a whole key. Every doubt is a yes (P9).

use std::collections::HashSet;

use archive_core::codec::{Predicate, equality_fields, wanted_keys};

use super::archive::Archive;
use super::estimates::KnownArchive;
use super::pushdown::{Condition, ConditionTest, Strategy};
use crate::catalog::key_filter;
use crate::catalog::object::ArchivedObject;
use crate::error::Result;

/// What a scan knows about the filters of its objects.
#[derive(Debug, Default)]
pub(super) struct KeyFilters {
    /// The keys that objects have filters of, by field ids; looked up when first asked.
    keys: Option<Vec<Vec<i32>>>,
    /// Objects that the last look ruled out.
    pub(super) skipped: usize,
}

impl KeyFilters {
    /// Leaves those of `files`, positions in `objects`, that may have a row that meets the predicates.
    pub(super) fn surviving(
        &mut self,
        files: Vec<usize>,
        objects: &[ArchivedObject],
        archive: &Archive,
        predicates: &[Predicate],
    ) -> Result<Vec<usize>> {
        self.skipped = 0;
        let fields = equality_fields(predicates);
        if files.is_empty() || fields.is_empty() {
            return Ok(files);
        }
        let ids: Vec<i64> = files.iter().filter_map(|position| Some(objects.get(*position)?.id)).collect();
        let keys = match self.keys.take() {
            Some(keys) => keys,
            // Of all: with other values other objects are left.
            None => key_filter::keys_of(&objects.iter().map(|object| object.id).collect::<Vec<_>>())?,
        };
        let mut absent = HashSet::new();
        for key in &keys {
            absent.extend(without(&ids, key, archive, predicates)?);
        }
        self.keys = Some(keys);
        self.skipped = absent.len();
        let left = |position: &usize| objects.get(*position).is_none_or(|object| !absent.contains(&object.id));
        Ok(files.into_iter().filter(left).collect())
    }
}

/// The objects that have no row with a key, over these fields, that the predicates ask for.
fn without(objects: &[i64], key: &[i32], archive: &Archive, predicates: &[Predicate]) -> Result<Vec<i64>> {
    let schema = &archive.partition.schema;
    let fields: Option<Vec<_>> = key.iter().map(|id| Some((*id, &schema.field(*id)?.pg_type))).collect();
    match fields.and_then(|fields| wanted_keys(&fields, predicates)) {
        Some(wanted) => key_filter::without(objects, key, &wanted),
        None => Ok(Vec::new()),
    }
}

/// How many keys of an array are expected before it is known.
const TYPICAL_ARRAY: u64 = 10;

/// A lookup of single keys, as the planner expects it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookup {
    /// Keys that are looked for: about as many objects are read.
    pub(super) keys: u64,
    /// Rows of each object.
    pub(super) rows_each: u64,
}

/// What conditions look for, if key filters will be asked about it; `None` when they will not. For the planner: it must not take a
/// lookup for a scan of all objects.
pub(super) fn lookup(known: &KnownArchive, conditions: &[Condition]) -> Result<Option<Lookup>> {
    let archive = known.archive();
    let mut asked: Vec<(i32, u64)> = Vec::new();
    for condition in conditions {
        let values = match &condition.test {
            ConditionTest::Compare(Strategy::Eq, _) => 1,
            ConditionTest::AnyOf(_) => TYPICAL_ARRAY,
            _ => continue,
        };
        let field = archive.column(condition.attribute).and_then(|column| archive.field(column));
        asked.extend(field.map(|field| (field.id, values)));
    }
    if asked.is_empty() {
        return Ok(None);
    }
    let newest = known.newest_filter()?;
    Ok(newest.and_then(|(key, rows_each)| {
        let values_of = |id: &i32| asked.iter().filter(|(field, _)| field == id).map(|(_, values)| *values).min();
        let keys = key.iter().map(values_of).product::<Option<u64>>()?;
        Some(Lookup { keys, rows_each: (*rows_each).max(1) })
    }))
}
