//! The manifest of one batch of rows. What its objects have in common, the table and its columns, is in the manifest of the
//! row set that it belongs to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::model::{MANIFEST_FORMAT, ManifestObject};
use super::validate::check_algorithm;
use crate::chain::{Chained, Link, Signature, to_json};
use crate::codec::{DIGEST_ALGORITHM, Digest};
use crate::store::validate_key;
use crate::{Error, ErrorKind, Result};

/// A batch of rows of a table that is archived row by row.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchManifest {
    /// Format of the manifest.
    pub format: u32,
    /// Key of the row set's manifest.
    pub set: String,
    /// The job.
    pub job: String,
    /// Number of the batch within the job.
    pub number: u32,
    /// When it was archived, RFC 3339.
    pub created_at: String,
    /// Name of the digest algorithm.
    pub digest_algorithm: String,
    /// Digest over all objects.
    pub digest: Digest,
    /// Rows of all objects.
    pub rows: u64,
    /// Bytes of all objects.
    pub bytes: u64,
    /// The objects in order.
    pub objects: Vec<ManifestObject>,
    /// Key of the manifest of the batch that the row set got before this one. What an attempt left that rolled back is
    /// followed by nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// Keys of objects of the row set that `objects` stand for from now on: merged, or without rows that went back to the table.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub replaces: Vec<String>,
    /// Rows of the replaced objects that went back to the table.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub restored: u64,
    /// What tells the transaction that wrote it from the one before: those of one were all committed, or none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transaction: Option<String>,
    /// The manifests before it in the chain of its storage; `None` when it is older than that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Vec<Link>>,
    /// The signature, where the storage has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

impl Chained for BatchManifest {
    fn ends(&mut self) -> (&mut Option<Vec<Link>>, &mut Option<Signature>) {
        (&mut self.previous, &mut self.signature)
    }
}

fn is_zero(rows: &u64) -> bool {
    *rows == 0
}

impl BatchManifest {
    /// The manifest of a batch in the row set with the manifest `set`; `job` is the one that archives it, and its number there.
    pub fn new(
        set: &str,
        (job, number): (&str, u32),
        created_at: String,
        digest: Digest,
        objects: Vec<ManifestObject>,
        after: Option<String>,
    ) -> Self {
        Self {
            format: MANIFEST_FORMAT,
            set: set.to_owned(),
            job: job.to_owned(),
            number,
            after,
            replaces: Vec::new(),
            restored: 0,
            transaction: None,
            previous: None,
            signature: None,
            created_at,
            digest_algorithm: DIGEST_ALGORITHM.to_owned(),
            rows: objects.iter().map(|object| object.rows).sum(),
            bytes: objects.iter().map(|object| object.bytes).sum(),
            digest,
            objects,
        }
    }

    /// The manifest, written by this transaction.
    #[must_use]
    pub fn written_by(self, transaction: String) -> Self {
        Self { transaction: Some(transaction), ..self }
    }

    /// The manifest as JSON.
    pub fn to_json(&self) -> Result<String> {
        to_json(self)
    }

    /// Reads a manifest and checks that its parts add up.
    pub fn from_json(json: &str) -> Result<Self> {
        let manifest: Self = serde_json::from_str(json).map_err(|error| {
            Error::new(ErrorKind::Corrupt, "object is not a manifest of a batch of archive_ext").source(error)
        })?;
        manifest.validate()?;
        Ok(manifest)
    }

    /// The keys of the batches of a row set, oldest first: each is the newest of those that follow the one before. Others were rolled
    /// back: a manifest is written while its row set is locked, so none that is committed is older than one that comes after the
    /// same. Whether the last were committed, the storage alone cannot tell.
    ///
    /// Errors: the key of a batch that is missing.
    pub fn chain(batches: &BTreeMap<String, Self>) -> std::result::Result<Vec<&str>, String> {
        let mut following: BTreeMap<Option<&str>, (&str, &Self)> = BTreeMap::new();
        for (key, batch) in batches {
            let newest = following.entry(batch.after.as_deref()).or_insert((key, batch));
            if newest.1.created_at < batch.created_at {
                *newest = (key, batch);
            }
        }
        let (mut chain, mut last, mut seen) = (Vec::new(), None, BTreeSet::new());
        let mut at = following.get(&None);
        while let Some((key, batch)) = at.filter(|(key, _)| seen.insert(*key)) {
            chain.push(*key);
            last = Some(batch.created_at.as_str());
            at = following.get(&Some(*key));
        }
        // One that follows nothing that is there, and came later, says that something is missing.
        let is_later = |batch: &&Self| last.is_none_or(|last| batch.created_at.as_str() > last);
        let missing = batches
            .values()
            .filter(is_later)
            .find_map(|batch| batch.after.as_ref().filter(|before| !batches.contains_key(before.as_str())));
        missing.map_or(Ok(chain), |missing| Err(missing.clone()))
    }

    fn validate(&self) -> Result<()> {
        if self.format == 0 || self.format > MANIFEST_FORMAT {
            return Err(Error::new(ErrorKind::Unsupported, "the manifest of a batch is of an unknown format")
                .hint("Update the extension to the version that wrote the manifest."));
        }
        check_algorithm(&self.digest_algorithm)?;
        self.objects.iter().try_for_each(|object| validate_key(&object.key))?;
        let rows = self.objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.rows));
        let bytes = self.objects.iter().fold(0u64, |sum, object| sum.saturating_add(object.bytes));
        if (rows, rows, bytes) == (self.rows, self.digest.rows, self.bytes) {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Corrupt, "the manifest of a batch does not agree with itself")
            .detail(format!("Its objects hold {rows} rows in {bytes} bytes, not {} in {}.", self.rows, self.bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::codec::RowHasher;
    use crate::schema::TableSchema;

    fn empty() -> BatchManifest {
        let schema = TableSchema { fields: Vec::new(), origin: None, enums: Vec::new() };
        let digest = RowHasher::new(&schema).digest();
        let created = "2024-01-01T00:00:00Z".to_owned();
        BatchManifest::new("s.t/_manifests/t_rows.v1.json", ("0123", 1), created, digest, Vec::new(), None)
    }

    fn batch(created_at: &str, after: Option<&str>) -> BatchManifest {
        BatchManifest { created_at: created_at.to_owned(), after: after.map(str::to_owned), ..empty() }
    }

    #[test]
    fn a_row_set_is_the_chain_that_ends_last() {
        let batches = BTreeMap::from([
            ("a".to_owned(), batch("2024-01-01", None)),
            ("rolled back".to_owned(), batch("2024-01-02", Some("a"))),
            ("b".to_owned(), batch("2024-01-03", Some("a"))),
            ("c".to_owned(), batch("2024-01-04", Some("b"))),
        ]);
        assert_eq!(BatchManifest::chain(&batches), Ok(vec!["a", "b", "c"]));
        assert_eq!(BatchManifest::chain(&BTreeMap::new()), Ok(Vec::new()));
    }

    #[test]
    fn an_attempt_that_rolled_back_may_be_longer_than_what_came_after() {
        let batches = BTreeMap::from([
            ("a".to_owned(), batch("2024-01-01", None)),
            ("r1".to_owned(), batch("2024-01-02", Some("a"))),
            ("r2".to_owned(), batch("2024-01-03", Some("r1"))),
            ("b".to_owned(), batch("2024-01-04", Some("a"))),
        ]);
        assert_eq!(BatchManifest::chain(&batches), Ok(vec!["a", "b"]));
    }

    #[test]
    fn a_missing_link_is_told() {
        let batches = BTreeMap::from([("c".to_owned(), batch("2024-01-04", Some("b")))]);
        assert_eq!(BatchManifest::chain(&batches), Err("b".to_owned()));
    }

    #[test]
    fn a_clock_that_went_back_loses_nothing() {
        let batches = BTreeMap::from([
            ("a".to_owned(), batch("2024-01-02", None)),
            ("b".to_owned(), batch("2024-01-01", Some("a"))),
        ]);
        assert_eq!(BatchManifest::chain(&batches), Ok(vec!["a", "b"]));
    }

    #[test]
    fn a_manifest_comes_back_as_it_was() {
        let json = empty().to_json().unwrap();
        assert!(!json.contains("after"));
        assert_eq!(BatchManifest::from_json(&json).unwrap(), empty());
    }

    #[test]
    fn what_does_not_add_up_is_refused() {
        let wrong = BatchManifest { rows: 1, ..empty() };
        assert_eq!(BatchManifest::from_json(&wrong.to_json().unwrap()).unwrap_err().kind(), ErrorKind::Corrupt);
        let newer = BatchManifest { format: MANIFEST_FORMAT + 1, ..empty() };
        assert_eq!(BatchManifest::from_json(&newer.to_json().unwrap()).unwrap_err().kind(), ErrorKind::Unsupported);
        assert_eq!(BatchManifest::from_json("{}").unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
