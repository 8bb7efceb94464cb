//! Ed25519 signatures of manifests (RFC 8032).

use std::path::Path;

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};
use aws_smithy_types::base64;
use rustls_pki_types::PrivatePkcs8KeyDer;
use rustls_pki_types::pem::PemObject;
use serde::{Deserialize, Serialize};

use crate::store::read_private;
use crate::{Error, ErrorKind, Result};

const ALGORITHM: &str = "ed25519";

/// What a document is signed with, and the signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signature {
    /// `ed25519`.
    pub algorithm: String,
    /// The public key: 32 bytes, base64.
    pub public_key: String,
    /// 64 bytes, base64: of the stored document with an empty text in this place.
    pub value: String,
}

impl Signature {
    /// Whether these bytes, which hold this signature, were signed with its key.
    pub fn is_of(&self, document: &[u8]) -> bool {
        let (Some(key), Some(value)) = (bytes(&self.public_key, 32), bytes(&self.value, 64)) else { return false };
        let Some(signed) = without(document, self.value.as_bytes()) else { return false };
        self.algorithm == ALGORITHM && UnparsedPublicKey::new(&ED25519, key).verify(&signed, &value).is_ok()
    }
}

/// Whether this is a public key as signatures name it: 32 bytes, base64.
pub fn is_public_key(text: &str) -> bool {
    bytes(text, 32).is_some()
}

/// So many bytes in base64; nothing longer is looked at.
fn bytes(text: &str, length: usize) -> Option<Vec<u8>> {
    let is_long = text.len() == length.div_ceil(3) * 4;
    is_long.then(|| base64::decode(text).ok()).flatten().filter(|bytes| bytes.len() == length)
}

/// The document without the one place where `value` stands; `None` where there is none, or another.
fn without(document: &[u8], value: &[u8]) -> Option<Vec<u8>> {
    if value.is_empty() {
        return None;
    }
    let mut places = document.windows(value.len()).enumerate().filter(|(_, window)| *window == value);
    let (at, _) = places.next()?;
    if places.next().is_some() {
        return None;
    }
    let after = document.get(at + value.len()..)?;
    Some([document.get(..at)?, after].concat())
}

/// A private key.
pub struct SigningKey {
    pair: Ed25519KeyPair,
}

impl std::fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "SigningKey {{ public_key: {} }}", self.public_key())
    }
}

impl SigningKey {
    /// Reads what `openssl genpkey -algorithm ed25519` writes: PKCS #8, PEM. Only its owner may be able to read the file.
    ///
    /// Errors: 58P01 when there is none, 28000 when others can read it, 22023 when it holds no such key.
    pub fn read(path: &Path) -> Result<Self> {
        let pem = read_private("key file", path).map_err(|error| match error.kind() {
            ErrorKind::NotFound => error.hint(
                "Put the key there, or take the option signing_key off the server: then manifests are not signed.",
            ),
            _ => error,
        })?;
        Self::from_pem(&pem).ok_or_else(|| {
            Error::new(ErrorKind::InvalidParameter, format!("key file \"{}\" holds no Ed25519 key", path.display()))
                .hint("openssl genpkey -algorithm ed25519 -out FILE makes one.")
        })
    }

    fn from_pem(pem: &str) -> Option<Self> {
        let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).ok()?;
        Ed25519KeyPair::from_pkcs8(der.secret_pkcs8_der()).ok().map(|pair| Self { pair })
    }

    /// The public half: 32 bytes, base64.
    pub fn public_key(&self) -> String {
        base64::encode(self.pair.public_key().as_ref())
    }

    /// The signature that a document has while it is signed.
    pub(super) fn unsigned(&self) -> Signature {
        Signature { algorithm: ALGORITHM.to_owned(), public_key: self.public_key(), value: String::new() }
    }

    pub(super) fn sign(&self, document: &[u8]) -> Signature {
        Signature { value: base64::encode(self.pair.sign(document).as_ref()), ..self.unsigned() }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    /// The first key of RFC 8032, section 7.1, as openssl writes it.
    pub(in super::super) const PEM: &str = "-----BEGIN PRIVATE KEY-----\n\
        MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
        -----END PRIVATE KEY-----\n";

    pub(in super::super) fn key() -> SigningKey {
        SigningKey::from_pem(PEM).unwrap()
    }

    #[test]
    fn a_key_of_openssl_has_the_public_half_of_the_rfc() {
        let hex: String =
            base64::decode(key().public_key()).unwrap().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        assert!(!format!("{:?}", key()).contains("nWGx"));
        assert!(is_public_key(&key().public_key()) && !is_public_key("AAAA") && !is_public_key("?"));
    }

    #[test]
    fn a_key_file_is_read_where_only_its_owner_can() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("key.pem");
        std::fs::write(&path, PEM).unwrap();
        let readable = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        readable(0o640);
        assert_eq!(SigningKey::read(&path).unwrap_err().kind(), ErrorKind::PermissionDenied);
        readable(0o600);
        assert_eq!(SigningKey::read(&path).unwrap().public_key(), key().public_key());
        std::fs::write(&path, "not a key").unwrap();
        assert_eq!(SigningKey::read(&path).unwrap_err().kind(), ErrorKind::InvalidParameter);
        assert_eq!(SigningKey::read(&path.join("x")).unwrap_err().kind(), ErrorKind::PermissionDenied);
        assert_eq!(SigningKey::read(&directory.path().join("none")).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_value_that_stands_twice_is_no_signature() {
        assert_eq!(without(b"a12b", b"12").as_deref(), Some(&b"ab"[..]));
        assert_eq!(without(b"a12b12", b"12"), None);
        assert_eq!(without(b"ab", b"12"), None);
        assert_eq!(without(b"ab", b""), None);
    }
}
