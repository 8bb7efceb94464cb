//! `verify_chain`: what is stored, against the chain as it was written.

use std::collections::BTreeSet;

use archive_core::chain::{Entry, Finding, Link, Recorded, check, unnamed};
use archive_core::store::BlockingStore;

use super::{learn, read};
use crate::catalog::{chain, storage};
use crate::error::{Error, Result};
use crate::partition::check;
use crate::pg::server_text::{notice, warning};
use crate::pg::user;

/// The arguments of `verify_chain`.
#[derive(Debug)]
pub struct Options {
    /// The storage.
    pub storage: String,
    /// Whose signatures are wanted; by default of those keys that are on record.
    pub public_keys: Vec<String>,
}

/// Reads every manifest and removal of a storage, and compares them with what they say of each other and with what the catalog has on
/// record; nothing is written.
///
/// Errors: 42501 for others than superusers, administrators and the foreign server's owner, 25001 in REPEATABLE READ and SERIALIZABLE, and
/// those of the storage.
pub fn verify(options: &Options) -> Result<Vec<Finding>> {
    let name = options.storage.as_str();
    storage::check_administers(name)?;
    check::transaction("verifying a chain of manifests")?;
    let store = storage::open(name, user::current())?;
    let mut looked = look(options, &store)?;
    if !looked.findings.is_empty() {
        looked.look_again(options, &store)?;
    }
    tell(name, &looked);
    Ok(looked.findings)
}

struct Looked {
    recorded: Recorded,
    stored: Vec<Entry>,
    findings: Vec<Finding>,
}

impl Looked {
    /// What was deleted between the record and the listing is on record by now, and what was replaced is there.
    fn look_again(&mut self, options: &Options, store: &BlockingStore) -> Result<()> {
        let found: BTreeSet<String> = self.findings.iter().map(|finding| finding.key.clone()).collect();
        self.recorded = recorded(options, store)?;
        self.stored.retain(|entry| !found.contains(&entry.link.key));
        self.stored.extend(read_all(store, found)?);
        self.findings = check(&self.stored, &self.recorded);
        Ok(())
    }
}

/// The record is read first: what is written meanwhile is not on it, and missed by nobody.
fn look(options: &Options, store: &BlockingStore) -> Result<Looked> {
    let recorded = recorded(options, store)?;
    let stored = read_all(store, learn::links(store)?)?;
    let findings = check(&stored, &recorded);
    Ok(Looked { recorded, stored, findings })
}

/// Reads links, but for those that are not there.
fn read_all(store: &BlockingStore, keys: impl IntoIterator<Item = String>) -> Result<Vec<Entry>> {
    keys.into_iter().filter_map(|key| read(store, &key).transpose()).collect()
}

fn recorded(options: &Options, store: &BlockingStore) -> Result<Recorded> {
    let name = options.storage.as_str();
    let links = chain::all(name, store)?;
    let all_signed = !options.public_keys.is_empty();
    let mut public_keys = options.public_keys.clone();
    if !all_signed {
        public_keys.extend(links.iter().filter_map(|link| link.public_key.clone()));
        public_keys.extend(own_key(name));
        public_keys.sort();
        public_keys.dedup();
    }
    Ok(Recorded { links, copies: chain::copies(name)?, public_keys, all_signed })
}

/// The public half of the storage's key, where there is one and this host has it: the record has those that were used.
fn own_key(name: &str) -> Option<String> {
    match storage::signing_key(name) {
        Ok(key) => key.map(|key| key.public_key()),
        Err(error) => {
            notice!("signatures are compared with the keys on record: {}", error.message());
            None
        }
    }
}

fn tell(name: &str, looked: &Looked) {
    let Looked { recorded, stored, findings } = looked;
    let links = stored.iter().filter(|entry| entry.previous.is_some()).count();
    let removed = recorded.links.iter().filter(|expected| expected.removed).count();
    let last = unnamed(stored).into_iter().map(|Link { key, sha256 }| format!("{key} {sha256}"));
    notice!(
        "storage \"{name}\": {links} links of the chain are stored, {} are on record, {removed} of these deleted by right; the last: {}",
        recorded.links.len(),
        Some(last.collect::<Vec<_>>().join(", ")).filter(|last| !last.is_empty()).unwrap_or_else(|| "none".to_owned())
    );
    if !findings.is_empty() {
        warning!("the chain of manifests of storage \"{name}\" is not what was written: {} findings", findings.len());
    }
}

/// The public keys of an argument, each 32 bytes in base64 (22023).
pub fn public_keys(given: Vec<String>) -> Result<Vec<String>> {
    match given.iter().find(|key| !archive_core::chain::is_public_key(key)) {
        None => Ok(given),
        Some(key) => Err(Error::new(
            crate::error::SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
            format!("\"{key}\" is not a public key"),
        )
        .hint("It is 32 bytes in base64, as check_storage shows them.")),
    }
}
