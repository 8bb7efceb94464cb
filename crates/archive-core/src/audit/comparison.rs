//! One pass over a listing, in whatever order it comes, against the keys that the catalog names.

use std::collections::HashMap;

use crate::naming::KeyName;
use crate::store::ObjectMeta;

/// What the catalog says about a key.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expected {
    /// Its size, of an object.
    pub bytes: Option<u64>,
    /// What the store said when it was last found to be right.
    pub etag: Option<String>,
    /// Seconds since 1970 at which the catalog got it: it was written before.
    pub named_at: Option<i64>,
    /// Seconds since 1970 at which others took its place; `None` while it is needed.
    pub replaced_at: Option<i64>,
    /// The partition it belongs to.
    pub partition: Option<i64>,
    /// Whether something still reads what was replaced, or would have to.
    pub held: bool,
}

impl Expected {
    /// Whether queries and imports need it.
    pub fn is_needed(&self) -> bool {
        self.replaced_at.is_none()
    }
}

/// What one listed key is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Seen {
    /// What the catalog says.
    Same,
    /// Named by the catalog, with another size.
    Resized(Expected),
    /// Written again, as it seems: whether it is the same the listing cannot tell.
    Rewritten(Expected),
    /// Others took its place.
    Replaced(Expected),
    /// One of our keys, and the catalog does not name it.
    Orphan,
    /// The owner marker or a probe.
    Own,
    /// No key of ours.
    Foreign,
}

/// The keys that the catalog names and that were not listed yet.
#[derive(Debug, Default)]
pub struct Comparison {
    expected: HashMap<String, Expected>,
}

impl Comparison {
    /// Adds a key that the catalog names. A key that several versions have is needed if one of them is, and else since the last of them
    /// was replaced.
    pub fn expect(&mut self, key: String, expected: Expected) {
        let known = self.expected.entry(key).or_insert_with(|| expected.clone());
        let later = match (known.replaced_at, expected.replaced_at) {
            (Some(known), Some(other)) => other > known,
            (known, other) => known.is_some() && other.is_none(),
        };
        let held = known.held || expected.held;
        if later {
            *known = expected;
        }
        known.held = held;
    }

    /// What a listed key is; it is not missing from then on.
    pub fn see(&mut self, object: &ObjectMeta) -> Seen {
        match self.expected.remove(&object.key) {
            Some(expected) => compare(object, expected),
            None => match KeyName::of(&object.key) {
                KeyName::Own => Seen::Own,
                // It stays, as those who wrote it know.
                KeyName::Removal => Seen::Same,
                KeyName::Foreign => Seen::Foreign,
                _ => Seen::Orphan,
            },
        }
    }

    /// What was not listed, in order of keys.
    pub fn unseen(self) -> Vec<(String, Expected)> {
        let mut unseen: Vec<_> = self.expected.into_iter().collect();
        unseen.sort_by(|one, other| one.0.cmp(&other.0));
        unseen
    }
}

fn compare(object: &ObjectMeta, expected: Expected) -> Seen {
    if !expected.is_needed() {
        return Seen::Replaced(expected);
    }
    if expected.bytes.is_some_and(|bytes| bytes != object.bytes) {
        return Seen::Resized(expected);
    }
    let rewritten = match (&expected.etag, object.tag()) {
        (Some(then), Some(now)) => *then != now,
        _ => matches!((expected.named_at, object.last_modified_unix), (Some(named), Some(written)) if written > named),
    };
    if rewritten { Seen::Rewritten(expected) } else { Seen::Same }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::naming::{data_key, manifest_key};
    use crate::store::Kept;
    use proptest::prelude::*;

    fn listed(key: &str, bytes: u64, etag: Option<&str>, written: i64) -> ObjectMeta {
        ObjectMeta {
            key: key.to_owned(),
            bytes,
            etag: etag.map(str::to_owned),
            version_id: None,
            last_modified_unix: Some(written),
            storage_class: None,
            restore: None,
            kept: Kept::default(),
        }
    }

    fn needed(bytes: u64) -> Expected {
        Expected { bytes: Some(bytes), named_at: Some(100), ..Expected::default() }
    }

    fn seen(expected: Expected, object: &ObjectMeta) -> Seen {
        let mut comparison = Comparison::default();
        comparison.expect(object.key.clone(), expected);
        comparison.see(object)
    }

    #[test]
    fn sizes_etags_and_times_tell_what_was_altered() {
        let key = data_key("s", "t", "p", None, 1, 0);
        assert_eq!(seen(needed(5), &listed(&key, 5, Some("a"), 100)), Seen::Same);
        assert!(matches!(seen(needed(5), &listed(&key, 6, Some("a"), 100)), Seen::Resized(_)));
        assert!(matches!(seen(needed(5), &listed(&key, 5, Some("a"), 101)), Seen::Rewritten(_)));
        let noted = Expected { etag: Some("a".to_owned()), ..needed(5) };
        assert_eq!(seen(noted.clone(), &listed(&key, 5, Some("a"), 101)), Seen::Same);
        assert!(matches!(seen(noted, &listed(&key, 5, Some("b"), 90)), Seen::Rewritten(_)));
        let directory = Expected { etag: Some("written 101".to_owned()), ..needed(5) };
        assert_eq!(seen(directory.clone(), &listed(&key, 5, None, 101)), Seen::Same);
        assert!(matches!(seen(directory, &listed(&key, 5, None, 102)), Seen::Rewritten(_)));
        let replaced = Expected { replaced_at: Some(7), ..needed(5) };
        assert!(matches!(seen(replaced, &listed(&key, 6, None, 101)), Seen::Replaced(_)));
    }

    #[test]
    fn a_key_is_needed_if_one_of_its_versions_is() {
        let old = |at| Expected { replaced_at: Some(at), ..Expected::default() };
        for order in [[old(1), needed(5), old(9)], [needed(5), old(9), old(1)], [old(9), old(1), needed(5)]] {
            let mut comparison = Comparison::default();
            order.into_iter().for_each(|expected| comparison.expect("k".to_owned(), expected));
            assert!(comparison.unseen()[0].1.is_needed());
        }
        let mut comparison = Comparison::default();
        [old(1), old(9), Expected { held: true, ..old(3) }]
            .into_iter()
            .for_each(|one| comparison.expect("k".to_owned(), one));
        let unseen = comparison.unseen();
        assert_eq!((unseen[0].1.replaced_at, unseen[0].1.held), (Some(9), true));
    }

    proptest! {
        /// Every key is told once: as named, as missing, or as what nobody names.
        #[test]
        fn nothing_is_passed_over(there in proptest::collection::btree_set(0u32..40, 0..40),
                                  named in proptest::collection::btree_set(0u32..40, 0..40)) {
            let mut comparison = Comparison::default();
            for number in &named {
                comparison.expect(data_key("s", "t", "p", None, 1, *number), needed(1));
            }
            for number in &there {
                let seen = comparison.see(&listed(&data_key("s", "t", "p", None, 1, *number), 1, None, 1));
                prop_assert_eq!(seen, if named.contains(number) { Seen::Same } else { Seen::Orphan });
            }
            prop_assert_eq!(comparison.see(&listed("s.t/x", 1, None, 1)), Seen::Foreign);
            prop_assert_eq!(comparison.see(&listed(&manifest_key("s", "t", "p", 1), 1, None, 1)), Seen::Orphan);
            let missing: Vec<_> = comparison.unseen().into_iter().map(|(key, _)| key).collect();
            let expected: Vec<_> = named.difference(&there).map(|number| data_key("s", "t", "p", None, 1, *number)).collect();
            prop_assert_eq!(missing, expected);
        }
    }
}
