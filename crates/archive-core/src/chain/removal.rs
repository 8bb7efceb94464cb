//! The record of manifests that were deleted by right.

use serde::{Deserialize, Serialize};

use super::{Chained, Link, Signature};

/// Where removals are in a storage.
pub const REMOVAL_PREFIX: &str = "_archive_ext/removed/";

const FORMAT: u32 = 1;

/// Written before the manifests it names are deleted. It stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removal {
    /// Format of the record.
    pub format: u32,
    /// When it was written, RFC 3339.
    pub created_at: String,
    /// Why.
    pub reason: String,
    /// The manifests that go.
    pub removed: Vec<Removed>,
    /// The links before it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous: Option<Vec<Link>>,
    /// The signature, where the storage has a key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<Signature>,
}

/// A manifest that goes: those that it named are named from here from then on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Its key.
    pub key: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
    /// The links before it.
    pub previous: Vec<Link>,
}

impl Removed {
    /// The manifest as a link.
    pub fn link(&self) -> Link {
        Link { key: self.key.clone(), sha256: self.sha256.clone() }
    }

    pub(super) fn is_well_formed(&self) -> bool {
        self.link().is_well_formed() && self.previous.iter().all(Link::is_well_formed)
    }
}

impl Removal {
    /// The removal of these manifests.
    pub fn new(created_at: String, reason: &str, removed: Vec<Removed>) -> Self {
        Self { format: FORMAT, created_at, reason: reason.to_owned(), removed, previous: None, signature: None }
    }
}

impl Chained for Removal {
    fn ends(&mut self) -> (&mut Option<Vec<Link>>, &mut Option<Signature>) {
        (&mut self.previous, &mut self.signature)
    }
}

/// The key of a removal of this time and content: they are listed in the order in which they were written.
pub fn removal_key(created_at: &str, sha256: &str) -> String {
    let stamp: String = created_at.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("{REMOVAL_PREFIX}{stamp}.{}.json", sha256.get(..16).unwrap_or(sha256))
}
