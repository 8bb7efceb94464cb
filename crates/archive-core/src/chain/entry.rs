//! What a stored document says about the chain, whatever kind of manifest it is.

use serde::Deserialize;

use super::{Link, Removed, Signature};
use crate::codec::sha256_of_bytes;

/// Whose signature a document has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signed {
    /// None.
    Not,
    /// That of the owner of this public key.
    By(String),
    /// One that is not of this document.
    Wrongly,
}

/// A stored manifest or removal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key, and the SHA-256 of its bytes.
    pub link: Link,
    /// The links before it; `None` in a manifest that is older than the chain, and in what is none.
    pub previous: Option<Vec<Link>>,
    /// Of a removal, what it says is gone.
    pub removed: Vec<Removed>,
    /// Whether it is signed.
    pub signed: Signed,
}

impl Entry {
    /// Reads a document. What is no JSON, or names what cannot be, is an entry that says nothing: its hash tells that it was altered.
    pub fn of(key: &str, document: &[u8]) -> Self {
        #[derive(Default, Deserialize)]
        struct Said {
            previous: Option<Vec<Link>>,
            #[serde(default)]
            removed: Vec<Removed>,
            signature: Option<Signature>,
        }
        let mut said: Said = serde_json::from_slice(document).unwrap_or_default();
        let well_formed = said.previous.is_some()
            && said.previous.iter().flatten().all(Link::is_well_formed)
            && said.removed.iter().all(Removed::is_well_formed);
        if !well_formed {
            (said.previous, said.removed) = (None, Vec::new());
        }
        let signed = match said.signature {
            None => Signed::Not,
            Some(signature) if signature.is_of(document) => Signed::By(signature.public_key),
            Some(_) => Signed::Wrongly,
        };
        let link = Link { key: key.to_owned(), sha256: sha256_of_bytes(document) };
        Self { link, previous: said.previous, removed: said.removed, signed }
    }

    /// The links that it names: those before it, and before what it says is gone.
    pub fn named(&self) -> impl Iterator<Item = &Link> {
        self.previous.iter().flatten().chain(self.removed.iter().flat_map(|removed| &removed.previous))
    }

    /// The links that it says are gone.
    pub fn gone(&self) -> impl Iterator<Item = Link> {
        self.removed.iter().map(Removed::link)
    }
}
