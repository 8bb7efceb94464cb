//! Which objects may hold rows that meet the conditions, by the ranges in the catalog. Every doubt is a yes (P9).

use std::cmp::Ordering;
use std::collections::HashMap;

use archive_core::codec::CompareOp;
use archive_core::manifest::ColumnRange;
use pgrx::pg_sys;

use super::archive::Archive;
use super::pushdown::{Bound, Condition};
use crate::catalog::{self, object::ArchivedObject};
use crate::pg::columns::{self, Column};
use crate::pg::constant::{Comparator, Constant};
use crate::pg::guc::GucNest;

/// What the catalog says about the columns of the conditions, parsed once in the memory of the query.
#[derive(Debug)]
pub(super) struct FilePruner {
    comparators: Vec<Option<Comparator>>,
    files: Vec<Vec<Facts>>,
}

/// One column of one object.
#[derive(Debug)]
pub(super) struct Facts {
    /// Its lowest and highest value.
    pub(super) range: Option<(Constant, Constant)>,
    has_nulls: Option<bool>,
    /// Whether it has any.
    pub(super) has_values: Option<bool>,
}

impl FilePruner {
    /// Facts about each of `files` for each of `conditions`. Keeps values in the current memory context.
    pub(super) fn new(archive: &Archive, conditions: &[Condition], files: &[ArchivedObject]) -> Self {
        let _settings = GucNest::lossless_text();
        let mut versions = HashMap::new();
        let columns: Vec<Option<RangedColumn>> =
            conditions.iter().map(|condition| RangedColumn::of_condition(archive, condition, &mut versions)).collect();
        let facts = |file: &ArchivedObject| {
            let facts =
                columns.iter().map(|column| column.as_ref().map_or(Facts::UNKNOWN, |column| column.facts(file)));
            facts.collect()
        };
        let files = files.iter().map(facts).collect();
        let comparators = conditions.iter().map(comparator).collect();
        Self { comparators, files }
    }

    /// Positions of the objects that may hold a row for which all bounds hold.
    pub(super) fn surviving(&self, bounds: &[Bound]) -> Vec<usize> {
        let survives = |facts: &[Facts]| {
            let mut tests = facts.iter().zip(bounds).zip(&self.comparators);
            tests.all(|((facts, bound), comparator)| facts.may_meet(bound, comparator.as_ref()))
        };
        self.files.iter().enumerate().filter(|(_, facts)| survives(facts)).map(|(position, _)| position).collect()
    }
}

/// The fields that pruning by conditions on these attributes looks at.
pub(super) fn fields(archive: &Archive, attributes: impl Iterator<Item = i16>) -> Vec<i32> {
    let field = |attribute: i16| archive.field(archive.column(attribute)?).map(|field| field.id);
    let mut fields: Vec<_> = attributes.filter_map(field).collect();
    fields.sort_unstable();
    fields.dedup();
    fields
}

fn comparator(condition: &Condition) -> Option<Comparator> {
    let operand = condition.operand()?;
    let [family, left, right, collation] =
        [operand.family, operand.column_type, operand.compared_type(), operand.collation].map(pg_sys::Oid::from);
    Comparator::new(family, left, right, collation)
}

/// A column, as the catalog knows it.
pub(super) struct RangedColumn {
    field_id: i32,
    type_oid: pg_sys::Oid,
    /// Name and current version of the collation in which ranges must have been computed; `None`: none will do.
    order: Option<(Option<String>, Option<String>)>,
    /// Whether this database computed them. Collations of the same name and version order otherwise elsewhere.
    here: bool,
}

/// The versions of collations that were asked for.
pub(super) type Versions = HashMap<pg_sys::Oid, Option<String>>;

impl RangedColumn {
    fn of_condition(archive: &Archive, condition: &Condition, versions: &mut Versions) -> Option<Self> {
        let column = archive.column(condition.attribute)?;
        let compared = condition.operand().is_some_and(|operand| operand.collation == column.collation.to_u32());
        let mut ranged = Self::new(archive, column, versions)?;
        ranged.order = ranged.order.filter(|_| compared);
        Some(ranged)
    }

    /// A column as it is compared by default; `None` where archived values are not those of the column.
    pub(super) fn new(archive: &Archive, column: &Column, versions: &mut Versions) -> Option<Self> {
        let field_id = archive.field(column)?.id;
        let order = range_order(column, field_id, versions);
        Some(Self { field_id, type_oid: column.type_oid, order, here: archive.is_of_this_database() })
    }

    /// What is known of it in an object. Keeps values in the current memory context.
    pub(super) fn facts(&self, file: &ArchivedObject) -> Facts {
        let nulls = file.null_counts.iter().find(|(id, _)| *id == self.field_id).map(|(_, nulls)| *nulls);
        let range = file.ranges.iter().find(|range| range.field_id == self.field_id);
        Facts {
            range: range.filter(|range| self.trusts(range)).and_then(|range| self.parse(range)),
            has_nulls: nulls.map(|nulls| nulls > 0),
            has_values: nulls.map(|nulls| nulls < file.rows),
        }
    }

    fn trusts(&self, range: &ColumnRange) -> bool {
        match &self.order {
            None => false,
            Some((None, _)) => range.collation.is_none(),
            Some((collation, Some(version))) => {
                let same = range.collation == *collation && range.collation_version.as_ref() == Some(version);
                // Byte order has no version and is the same everywhere.
                same && (version.is_empty() || self.here)
            }
            Some((Some(_), None)) => false,
        }
    }

    fn parse(&self, range: &ColumnRange) -> Option<(Constant, Constant)> {
        Constant::parse(self.type_oid, &range.min).zip(Constant::parse(self.type_oid, &range.max))
    }
}

fn range_order(column: &Column, field_id: i32, versions: &mut Versions) -> Option<(Option<String>, Option<String>)> {
    let collation = columns::field(column, field_id).ok()?.collation;
    let version = match collation {
        None => None,
        Some(_) => {
            let known = versions.entry(column.collation);
            known.or_insert_with(|| catalog::collation_version(column.collation)).clone()
        }
    };
    Some((collation, version))
}

impl Facts {
    const UNKNOWN: Self = Self { range: None, has_nulls: None, has_values: None };

    fn may_meet(&self, bound: &Bound, comparator: Option<&Comparator>) -> bool {
        match bound {
            Bound::IsNull => self.has_nulls != Some(false),
            _ if self.has_values == Some(false) => false,
            Bound::IsNotNull | Bound::Strict => true,
            Bound::Compare(tests) => self
                .with_range(comparator, |range| tests.iter().all(|(op, constant)| range.may_compare(*op, *constant))),
            Bound::AnyOf(constants) => self.with_range(comparator, |range| {
                constants.iter().any(|constant| range.may_compare(CompareOp::Eq, *constant))
            }),
        }
    }

    fn with_range(&self, comparator: Option<&Comparator>, test: impl Fn(Range<'_>) -> bool) -> bool {
        match (self.range, comparator) {
            (Some((min, max)), Some(comparator)) => test(Range { min, max, comparator }),
            _ => true,
        }
    }
}

struct Range<'a> {
    min: Constant,
    max: Constant,
    comparator: &'a Comparator,
}

impl Range<'_> {
    fn may_compare(&self, op: CompareOp, constant: Constant) -> bool {
        let min = || self.comparator.compare(self.min, constant);
        let max = || self.comparator.compare(self.max, constant);
        match op {
            CompareOp::Lt => min() == Ordering::Less,
            CompareOp::Le => min() != Ordering::Greater,
            CompareOp::Eq => min() != Ordering::Greater && max() != Ordering::Less,
            CompareOp::Ge => max() != Ordering::Less,
            CompareOp::Gt => max() == Ordering::Greater,
        }
    }
}
