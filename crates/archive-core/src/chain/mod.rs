//! The chain of manifests: each carries the hash of the one before, so that none can be altered, taken away or moved without another
//! saying so. What is deleted by right is named by a *removal*, which is a link like any other. Links that were written at the same time
//! name the same one before them, and the next names all of these.

mod check;
mod entry;
mod removal;
mod signature;

pub use check::{Expected, Finding, Problem, Recorded, check, unnamed};
pub use entry::{Entry, Signed};
pub use removal::{REMOVAL_PREFIX, Removal, Removed, removal_key};
pub use signature::{Signature, SigningKey, is_public_key};

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::codec::sha256_of_bytes;
use crate::store::validate_key;
use crate::{Error, ErrorKind, Result};

/// A manifest or a removal, by what it is called and what it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Link {
    /// Its key.
    pub key: String,
    /// SHA-256 of its bytes, hexadecimal.
    pub sha256: String,
}

impl Link {
    /// Whether it can be the key and the hash of something stored.
    fn is_well_formed(&self) -> bool {
        let is_hash = self.sha256.len() == 64 && self.sha256.bytes().all(|byte| byte.is_ascii_hexdigit());
        is_hash && validate_key(&self.key).is_ok()
    }
}

/// A document that is a link of the chain.
pub trait Chained: Serialize {
    /// Where it names those before it, and where it is signed.
    fn ends(&mut self) -> (&mut Option<Vec<Link>>, &mut Option<Signature>);
}

/// A document as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sealed {
    /// The JSON.
    pub json: Bytes,
    /// Its SHA-256, hexadecimal.
    pub sha256: String,
    /// The links before it.
    pub previous: Vec<Link>,
    /// The public key that it is signed with.
    pub public_key: Option<String>,
}

/// Has a document name those before it, signs it where there is a key, and writes it down. What is signed is the document as it is stored,
/// but with an empty value of the signature.
pub fn seal<T: Chained>(document: &mut T, previous: Vec<Link>, key: Option<&SigningKey>) -> Result<Sealed> {
    let (before, signature) = document.ends();
    *before = Some(previous.clone());
    *signature = key.map(SigningKey::unsigned);
    let mut json = to_json(document)?;
    if let Some(key) = key {
        *document.ends().1 = Some(key.sign(json.as_bytes()));
        json = to_json(document)?;
    }
    let sha256 = sha256_of_bytes(json.as_bytes());
    Ok(Sealed { json: json.into(), sha256, previous, public_key: key.map(SigningKey::public_key) })
}

/// A document as JSON for people and programs.
pub(crate) fn to_json<T: Serialize>(document: &T) -> Result<String> {
    serde_json::to_string_pretty(document)
        .map_err(|error| Error::new(ErrorKind::Internal, "could not write the manifest as JSON").source(error))
}

#[cfg(test)]
mod tests;
