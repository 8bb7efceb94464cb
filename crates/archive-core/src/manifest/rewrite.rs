//! Manifests of objects that stand for earlier objects of their row set: merged, or without rows that went back to the table.

use std::collections::{HashMap, HashSet};

use serde::{Deserialize, Serialize};

use super::{BatchManifest, ManifestObject};

/// What an import takes a row set for, of the chain of its manifests.
#[derive(Debug, PartialEq, Eq)]
pub struct Imported<'a> {
    /// The objects.
    pub objects: Vec<&'a ManifestObject>,
    /// How many manifests of the chain the next one comes after.
    pub length: usize,
    /// What the next one must say besides, since those after `length` are followed by nothing then.
    pub unsettled: Option<Unsettled>,
    /// Rows that may have gone back to the table with the last transaction, and are among the objects all the same.
    pub unsure: u64,
}

/// Objects of a row set that no manifest in its chain names, and keys of those that are not its any more, though no manifest says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// The objects.
    pub objects: Vec<ManifestObject>,
    /// The keys.
    pub replaces: Vec<String>,
}

impl BatchManifest {
    /// The manifest of objects that stand for those with the keys `replaces`, of which `restored` rows are in the table again.
    #[must_use]
    pub fn replacing(self, replaces: Vec<String>, restored: u64) -> Self {
        Self { replaces, restored, ..self }
    }

    /// The manifest as an import reads it: each object says when its rows were archived.
    #[must_use]
    pub fn dated(mut self) -> Self {
        for object in &mut self.objects {
            object.archived_at.get_or_insert_with(|| self.created_at.clone());
        }
        self
    }

    /// The objects of a row set, whose batches these are, oldest first: each that no later batch replaced, in the order written.
    ///
    /// Errors: the key of an object that is replaced but was never there.
    pub fn objects<'a>(chain: impl IntoIterator<Item = &'a Self>) -> Result<Vec<&'a ManifestObject>, String> {
        let mut objects: Vec<Option<&ManifestObject>> = Vec::new();
        let mut places: HashMap<&str, usize> = HashMap::new();
        for batch in chain {
            for key in &batch.replaces {
                let place = places.remove(key.as_str()).and_then(|place| objects.get_mut(place));
                *place.ok_or_else(|| key.clone())? = None;
            }
            for object in &batch.objects {
                places.insert(&object.key, objects.len());
                objects.push(Some(object));
            }
        }
        Ok(objects.into_iter().flatten().collect())
    }

    /// What an import takes the row set for, without what the last transaction took out of the archive.
    ///
    /// Errors: the key of an object that is replaced but was never there.
    pub fn imported<'a>(chain: &[&'a Self]) -> Result<Imported<'a>, String> {
        let (kept, unsure) = Self::without_unsure(chain.to_vec());
        let length = chain.iter().zip(&kept).take_while(|(one, other)| std::ptr::eq(**one, **other)).count();
        let objects = Self::objects(kept.iter().copied())?;
        let before = Self::objects(chain.iter().take(length).copied())?;
        let without = |some: &[&'a ManifestObject], others: &[&ManifestObject]| -> Vec<&'a ManifestObject> {
            let keys: HashSet<_> = others.iter().map(|object| object.key.as_str()).collect();
            some.iter().filter(|object| !keys.contains(object.key.as_str())).copied().collect()
        };
        let unsettled = Unsettled {
            objects: without(&objects, &before).into_iter().cloned().collect(),
            replaces: without(&before, &objects).into_iter().map(|object| object.key.clone()).collect(),
        };
        let unsettled = (kept.len() > length).then_some(unsettled);
        Ok(Imported { objects, length, unsettled, unsure })
    }

    /// The chain without what its last transaction took out of the archive, and how many rows these are: whether it was committed
    /// the storage cannot tell, and rows that are in the archive once too often can be found, but none that are nowhere.
    fn without_unsure(chain: Vec<&Self>) -> (Vec<&Self>, u64) {
        let last = chain.last().map(|last| last.transaction.clone());
        let count = chain.len();
        let sure = match &last {
            Some(Some(_)) => {
                chain.iter().rposition(|batch| Some(&batch.transaction) != last.as_ref()).map_or(0, |at| at + 1)
            }
            _ => count.saturating_sub(1),
        };
        let (mut kept, mut restored, mut gone) = (chain, 0, HashSet::new());
        for batch in kept.split_off(sure) {
            if batch.restored > 0 || batch.replaces.iter().any(|key| gone.contains(key.as_str())) {
                restored += batch.restored;
                gone.extend(batch.objects.iter().map(|object| object.key.as_str()));
            } else {
                kept.push(batch);
            }
        }
        (kept, restored)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::Digest;

    fn object(key: &str, rows: u64) -> ManifestObject {
        ManifestObject {
            key: key.to_owned(),
            bytes: 10 * rows,
            rows,
            sha256: String::new(),
            digest: Digest { rows, ..Digest::default() },
            row_groups: 1,
            null_counts: Vec::new(),
            sidecars: Vec::new(),
            ranges: Vec::new(),
            archived_at: None,
        }
    }

    fn batch(objects: &[(&str, u64)], replaces: &[&str], restored: u64) -> BatchManifest {
        let objects: Vec<_> = objects.iter().map(|(key, rows)| object(key, *rows)).collect();
        let digest = Digest { rows: objects.iter().map(|object| object.rows).sum(), ..Digest::default() };
        BatchManifest::new("set", ("job", 1), String::new(), digest, objects, None)
            .replacing(replaces.iter().map(|key| (*key).to_owned()).collect(), restored)
    }

    fn keys(chain: &[BatchManifest]) -> Result<Vec<&str>, String> {
        Ok(BatchManifest::objects(chain)?.iter().map(|object| object.key.as_str()).collect())
    }

    #[test]
    fn what_was_replaced_is_not_there() {
        let chain = [
            batch(&[("a", 1), ("b", 2)], &[], 0),
            batch(&[("c", 3)], &[], 0),
            batch(&[("ac", 4)], &["a", "c"], 0),
            batch(&[("d", 1)], &[], 0),
            batch(&[], &["d"], 1),
        ];
        assert_eq!(keys(&chain), Ok(vec!["b", "ac"]));
        assert_eq!(keys(&chain[..3]), Ok(vec!["b", "ac"]));
        assert_eq!(keys(&chain[..2]), Ok(vec!["a", "b", "c"]));
    }

    #[test]
    fn what_was_never_there_cannot_be_replaced() {
        assert_eq!(keys(&[batch(&[("b", 1)], &["a"], 0)]), Err("a".to_owned()));
        let twice = [batch(&[("a", 1)], &[], 0), batch(&[("b", 1)], &["a"], 0), batch(&[("c", 1)], &["a"], 0)];
        assert_eq!(keys(&twice), Err("a".to_owned()));
    }

    #[test]
    fn rows_may_have_gone_back_only_where_something_followed() {
        let chain = [batch(&[("a", 2)], &[], 0), batch(&[("b", 1)], &["a"], 1), batch(&[("c", 1)], &[], 0)];
        let all: Vec<_> = chain.iter().collect();
        assert_eq!(BatchManifest::without_unsure(all.clone()), (all.clone(), 0));
        assert_eq!(BatchManifest::without_unsure(all[..2].to_vec()), (all[..1].to_vec(), 1));
        assert_eq!(BatchManifest::without_unsure(Vec::new()), (Vec::new(), 0));
    }

    #[test]
    fn all_that_one_transaction_took_out_is_unsure() {
        let by = |batch: BatchManifest, transaction: &str| batch.written_by(transaction.to_owned());
        let chain = [
            by(batch(&[("a", 3)], &[], 0), "1"),
            by(batch(&[("b", 2)], &["a"], 1), "2"),
            by(batch(&[("c", 1)], &["b"], 1), "2"),
            by(batch(&[("d", 5)], &[], 0), "2"),
            by(batch(&[("cd", 6)], &["c", "d"], 0), "2"),
        ];
        let all: Vec<_> = chain.iter().collect();
        assert_eq!(BatchManifest::without_unsure(all.clone()), (vec![all[0], all[3]], 2));
        assert_eq!(BatchManifest::without_unsure(all[..1].to_vec()), (all[..1].to_vec(), 0));
    }

    /// Objects, length, and what is unsettled, as text.
    fn told(chain: &[BatchManifest]) -> (String, usize, String) {
        let chain: Vec<_> = chain.iter().collect();
        let imported = BatchManifest::imported(&chain).unwrap();
        let keys = |objects: Vec<&ManifestObject>| objects.iter().map(|o| o.key.as_str()).collect::<Vec<_>>().join(" ");
        let unsettled = imported.unsettled.map(|unsettled| {
            format!("+ {} - {}", keys(unsettled.objects.iter().collect()), unsettled.replaces.join(" "))
        });
        (keys(imported.objects), imported.length, unsettled.unwrap_or_default())
    }

    fn is(objects: &str, length: usize, unsettled: &str) -> (String, usize, String) {
        (objects.to_owned(), length, unsettled.to_owned())
    }

    #[test]
    fn the_next_manifest_comes_after_what_is_sure_and_says_the_rest() {
        let by = |batch: BatchManifest, transaction: &str| batch.written_by(transaction.to_owned());
        let (a, back) = (by(batch(&[("a", 3)], &[], 0), "1"), by(batch(&[("b", 2)], &["a"], 1), "2"));
        let (d, after) = (by(batch(&[("d", 5)], &[], 0), "2"), by(batch(&[("e", 1)], &[], 0), "3"));
        assert_eq!(told(&[]), is("", 0, ""));
        assert_eq!(told(std::slice::from_ref(&a)), is("a", 1, ""));
        assert_eq!(told(&[a.clone(), back.clone()]), is("a", 1, ""));
        assert_eq!(told(&[a.clone(), back.clone(), d.clone()]), is("a d", 1, "+ d - "));
        assert_eq!(told(&[a.clone(), back.clone(), d.clone(), after]), is("b d e", 4, ""));
        let first = by(batch(&[("a", 3)], &[], 0), "2");
        assert_eq!(told(&[first, back.clone(), d]), is("a d", 1, "+ d - "));
        let merged = [a, by(batch(&[("c", 3)], &[], 0), "1"), back, by(batch(&[("cd", 8)], &["c"], 0), "2")];
        assert_eq!(told(&merged), is("a cd", 2, "+ cd - c"));
    }

    #[test]
    fn what_an_import_kept_is_there_after_the_next_manifest() {
        let by = |batch: BatchManifest, transaction: &str| batch.written_by(transaction.to_owned());
        let chain = [
            by(batch(&[("a", 3)], &[], 0), "1"),
            by(batch(&[("b", 2)], &["a"], 1), "2"),
            by(batch(&[("d", 5)], &[], 0), "2"),
        ];
        let imported = BatchManifest::imported(&chain.iter().collect::<Vec<_>>()).unwrap();
        let Unsettled { objects, replaces } = imported.unsettled.unwrap();
        let settling = BatchManifest { objects, ..batch(&[], &[], 0) }.replacing(replaces, 0);
        let next = [&chain[0], &settling, &by(batch(&[("ad", 8)], &["a", "d"], 0), "3")];
        assert_eq!(BatchManifest::objects(next[..2].iter().copied()).unwrap(), imported.objects);
        assert_eq!(BatchManifest::objects(next).unwrap().len(), 1);
    }

    #[test]
    fn what_is_written_anew_is_as_old_as_its_youngest_rows() {
        let archived =
            |key: &str, at: Option<&str>| ManifestObject { archived_at: at.map(str::to_owned), ..object(key, 1) };
        let (old, young) = (archived("a", Some("2020-01-01T00:00:00Z")), archived("b", Some("2024-06-01T00:00:00Z")));
        let at = |others: &[&ManifestObject]| object("c", 2).made_of(others.iter().copied()).archived_at;
        assert_eq!(at(&[&old, &young]).as_deref(), Some("2024-06-01T00:00:00Z"));
        assert_eq!(at(&[&old]).as_deref(), Some("2020-01-01T00:00:00Z"));
        assert_eq!(at(&[&old, &archived("d", None)]), None, "nobody knows");
        assert_eq!(at(&[]), None);
    }

    #[test]
    fn an_import_knows_when_rows_were_archived() {
        let mut merge = batch(&[("a", 1), ("b", 2)], &[], 0);
        merge.created_at = "2024-06-01T00:00:00Z".to_owned();
        merge.objects[0].archived_at = Some("2020-01-01T00:00:00Z".to_owned());
        let ages: Vec<_> = merge.dated().objects.into_iter().map(|object| object.archived_at).collect();
        assert_eq!(ages, [Some("2020-01-01T00:00:00Z".to_owned()), Some("2024-06-01T00:00:00Z".to_owned())]);
    }

    #[test]
    fn what_has_expired_is_gone_once_something_followed() {
        let by = |batch: BatchManifest, transaction: &str| batch.written_by(transaction.to_owned());
        let chain = [
            by(batch(&[("a", 3)], &[], 0), "1"),
            by(batch(&[("b", 2)], &[], 0), "2"),
            by(batch(&[], &["a"], 3), "3"),
            by(batch(&[], &[], 0), "4"),
        ];
        assert_eq!(told(&chain[..3]), is("a b", 2, ""), "it may have been rolled back");
        assert_eq!(told(&chain), is("b", 4, ""));
    }

    #[test]
    fn a_rewrite_comes_back_as_it_was() {
        let rewrite = batch(&[("b", 1)], &["a"], 1);
        assert_eq!(BatchManifest::from_json(&rewrite.to_json().unwrap()).unwrap(), rewrite);
        let plain = batch(&[("b", 1)], &[], 0).to_json().unwrap();
        assert!(!plain.contains("replaces") && !plain.contains("restored"));
    }
}
