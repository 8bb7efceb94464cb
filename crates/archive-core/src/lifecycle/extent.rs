//! Which rows a partition takes, as far as two partition trees that age together can compare it.

use std::collections::{BTreeMap, BTreeSet};

/// What one key column of a partition may hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// `[lower, upper)` by the rank of the bounds among all that are compared; MINVALUE and MAXVALUE are the ends of `i64`.
    Range(i64, i64),
    /// The values of a LIST partition; `None` is NULL.
    List(BTreeSet<Option<String>>),
}

impl Axis {
    fn within(&self, outer: &Self) -> bool {
        match (self, outer) {
            (Self::Range(lower, upper), Self::Range(from, to)) => from <= lower && upper <= to,
            (Self::List(values), Self::List(outer)) => values.is_subset(outer),
            _ => false,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Range(lower, upper), Self::Range(from, to)) => from < upper && lower < to,
            (Self::List(values), Self::List(others)) => !values.is_disjoint(others),
            _ => true,
        }
    }
}

/// What all key columns of a partition may hold, over every level of its tree.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extent {
    axes: BTreeMap<String, Axis>,
}

impl Extent {
    /// Narrows `column`; a column may be the key of several levels.
    pub fn narrow(&mut self, column: &str, axis: Axis) {
        let narrowed = match (self.axes.remove(column), axis) {
            (Some(Axis::Range(lower, upper)), Axis::Range(from, to)) => Axis::Range(lower.max(from), upper.min(to)),
            (Some(Axis::List(values)), Axis::List(others)) => {
                Axis::List(values.intersection(&others).cloned().collect())
            }
            (_, axis) => axis,
        };
        self.axes.insert(column.to_owned(), narrowed);
    }

    /// The key columns.
    pub fn columns(&self) -> impl Iterator<Item = &str> {
        self.axes.keys().map(String::as_str)
    }

    /// The only key column that is partitioned as `column` of `other` is.
    pub fn only_like(&self, other: &Self, column: &str) -> Option<&str> {
        let wanted = std::mem::discriminant(other.axes.get(column)?);
        let mut alike = self.axes.iter().filter(|(_, axis)| std::mem::discriminant(*axis) == wanted);
        match (alike.next(), alike.next()) {
            (Some((name, _)), None) => Some(name),
            _ => None,
        }
    }

    /// The same extent with other names of its columns; a column without a new name keeps its own.
    #[must_use]
    pub fn renamed(&self, name: impl Fn(&str) -> Option<String>) -> Self {
        let axes =
            self.axes.iter().map(|(column, axis)| (name(column).unwrap_or_else(|| column.clone()), axis.clone()));
        Self { axes: axes.collect() }
    }

    /// Whether every row of this extent is in `outer`, too: it may have further columns.
    pub fn within(&self, outer: &Self) -> bool {
        !outer.axes.is_empty()
            && outer.axes.iter().all(|(column, axis)| self.axes.get(column).is_some_and(|own| own.within(axis)))
    }

    /// Whether a row could be in both.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.axes.iter().all(|(column, axis)| other.axes.get(column).is_none_or(|others| axis.overlaps(others)))
    }
}

/// The values of a LIST bound, `FOR VALUES IN ('a', NULL)`, as PostgreSQL prints them; `None` for other bounds.
pub fn list_bound(bounds: &str) -> Option<BTreeSet<Option<String>>> {
    let list = bounds.strip_prefix("FOR VALUES IN (")?.strip_suffix(')')?;
    let (mut values, mut rest) = (BTreeSet::new(), list);
    while !rest.is_empty() {
        let (value, after) = next_value(rest)?;
        values.insert(value);
        rest = after.strip_prefix(", ").unwrap_or(after);
    }
    Some(values)
}

fn next_value(list: &str) -> Option<(Option<String>, &str)> {
    let Some(quoted) = list.strip_prefix('\'') else {
        let end = list.find(", ").unwrap_or(list.len());
        let (word, rest) = list.split_at(end);
        return Some(((word != "NULL").then(|| word.to_owned()), rest));
    };
    let mut from = 0;
    loop {
        let end = from + quoted.get(from..)?.find('\'')?;
        match quoted.get(end + 1..) {
            Some(rest) if rest.starts_with('\'') => from = end + 2,
            rest => return Some((Some(quoted.get(..end)?.replace("''", "'")), rest?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn range(column: &str, lower: i64, upper: i64) -> Extent {
        let mut extent = Extent::default();
        extent.narrow(column, Axis::Range(lower, upper));
        extent
    }

    fn list(values: &[&str]) -> Axis {
        Axis::List(values.iter().map(|value| Some((*value).to_owned())).collect())
    }

    #[test]
    fn days_lie_within_their_month() {
        let month = range("day", 1, 32);
        assert!(range("day", 1, 2).within(&month) && range("day", 31, 32).within(&month) && month.within(&month));
        assert!(!range("day", 31, 33).within(&month) && !month.within(&range("day", 1, 2)));
        assert!(!range("day", 32, 33).overlaps(&month) && range("day", 31, 33).overlaps(&month));
        assert!(!range("other", 1, 2).within(&month), "nothing is known of its days");
        assert!(range("other", 1, 2).overlaps(&month));
    }

    #[test]
    fn levels_narrow_each_other() {
        let mut extent = range("day", 1, 366);
        extent.narrow("day", Axis::Range(32, 400));
        extent.narrow("region", list(&["eu", "us"]));
        extent.narrow("region", list(&["eu"]));
        assert!(extent.within(&range("day", 32, 366)));
        let mut wanted = range("day", 32, 366);
        wanted.narrow("region", list(&["eu"]));
        assert_eq!(extent, wanted);
    }

    #[test]
    fn columns_are_found_by_another_name() {
        let (mut orders, lines) = (range("created_at", 1, 2), range("order_time", 1, 2));
        assert_eq!(lines.only_like(&orders, "created_at"), Some("order_time"));
        orders.narrow("region", list(&["eu"]));
        assert_eq!(lines.only_like(&orders, "region"), None);
        assert!(lines.renamed(|_| Some("created_at".to_owned())).within(&range("created_at", 1, 2)));
    }

    #[test]
    fn an_extent_without_keys_holds_nothing_for_sure() {
        assert!(!range("day", 1, 2).within(&Extent::default()));
    }

    #[test]
    fn list_bounds_are_read() {
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(list_bound("FOR VALUES IN (2022)"), Some([some("2022")].into()));
        assert_eq!(list_bound("FOR VALUES IN ('eu', NULL)"), Some([some("eu"), None].into()));
        assert_eq!(list_bound("FOR VALUES IN ('it''s, so', 'b')"), Some([some("it's, so"), some("b")].into()));
        assert_eq!(list_bound("FOR VALUES IN ('''')"), Some([some("'")].into()));
        assert_eq!(list_bound("FOR VALUES FROM (1) TO (2)"), None);
        assert_eq!(list_bound("DEFAULT"), None);
    }

    proptest! {
        #[test]
        fn printed_list_bounds_come_back(values in prop::collection::btree_set("[a-z', ()]{0,8}", 1..5)) {
            let printed: Vec<_> = values.iter().map(|value| format!("'{}'", value.replace('\'', "''"))).collect();
            let read = list_bound(&format!("FOR VALUES IN ({})", printed.join(", ")));
            prop_assert_eq!(read, Some(values.into_iter().map(Some).collect()));
        }

        #[test]
        fn what_lies_within_overlaps(a in -9i64..9, b in 1i64..9, c in -9i64..9, d in 1i64..9) {
            let (inner, outer) = (range("t", a, a + b), range("t", c, c + d));
            prop_assert!(!inner.within(&outer) || inner.overlaps(&outer));
            prop_assert_eq!(inner.overlaps(&outer), outer.overlaps(&inner));
            prop_assert_eq!(inner.within(&outer) && outer.within(&inner), inner == outer);
        }
    }
}
