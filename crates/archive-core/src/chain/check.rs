//! Whether what is stored is the chain that was written.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Entry, Link, Signed};

/// A link that somebody has a record of: the catalog, or who noted the last one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    /// The link.
    pub link: Link,
    /// Whether it was deleted by right.
    pub removed: bool,
    /// The public key that it was signed with.
    pub public_key: Option<String>,
}

/// What is known of a chain besides what is stored.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Recorded {
    /// The links on record; without any, what is stored is compared with itself.
    pub links: Vec<Expected>,
    /// Links of the chain of another storage that have copies here: what they name need not be here.
    pub copies: Vec<Link>,
    /// Public keys whose signatures are wanted: then what has none of them is a finding.
    pub public_keys: Vec<String>,
}

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// Its bytes are not those that were written.
    Altered,
    /// It is not there, and no removal of the chain says that it was deleted.
    Missing,
    /// It has no signature, or one that is not its own or of another key.
    Unsigned,
}

impl Problem {
    /// The word in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Unsigned => "unsigned",
        }
    }
}

/// A link with which something is wrong.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Its key.
    pub key: String,
    /// What.
    pub problem: Problem,
    /// By what that is known.
    pub detail: String,
}

/// Who says that a link must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Witness<'a> {
    Record,
    Link(&'a str),
}

/// Compares what is stored with what is on record and with what it says of itself; the findings in order of keys.
///
/// Where there is a record, only links count that are on it, that those name, or that are signed with a wanted key: nobody else can say
/// that something was deleted.
pub fn check(stored: &[Entry], recorded: &Recorded) -> Vec<Finding> {
    let by_key: BTreeMap<&str, &Entry> = stored.iter().map(|entry| (entry.link.key.as_str(), entry)).collect();
    let on_record: HashMap<&Link, &Expected> =
        recorded.links.iter().map(|expected| (&expected.link, expected)).collect();
    let trusted = trusted(&by_key, &on_record, recorded);
    let mut gone: HashSet<Link> = trusted.iter().flat_map(|entry| entry.gone()).collect();
    gone.extend(recorded.links.iter().filter(|expected| expected.removed).map(|expected| expected.link.clone()));
    let doubtful: HashMap<Link, &str> =
        stored.iter().flat_map(|entry| entry.gone().map(|link| (link, entry.link.key.as_str()))).collect();
    let mut findings = BTreeSet::new();
    for (link, witness) in witnessed(&trusted, recorded) {
        let found = by_key.get(link.key.as_str()).map(|entry| entry.link.sha256.as_str());
        if found == Some(link.sha256.as_str()) || gone.contains(link) {
            continue;
        }
        let problem = if found.is_some() { Problem::Altered } else { Problem::Missing };
        let detail = told(witness, found, doubtful.get(link).copied());
        findings.insert(Finding { key: link.key.clone(), problem, detail });
    }
    let unsigned = |entry: &Entry| unsigned(entry, on_record.get(&entry.link).copied(), &recorded.public_keys);
    findings.extend(stored.iter().filter_map(unsigned));
    findings.into_iter().collect()
}

/// The stored links that count.
fn trusted<'a>(
    stored: &BTreeMap<&str, &'a Entry>,
    on_record: &HashMap<&Link, &Expected>,
    recorded: &Recorded,
) -> Vec<&'a Entry> {
    let counts = |entry: &Entry| {
        let alone = on_record.is_empty() && recorded.copies.is_empty();
        let is_signed = matches!(&entry.signed, Signed::By(key) if recorded.public_keys.contains(key));
        // Beside copies there may be some that a run left which was rolled back: signed, but no part of a chain here.
        alone || on_record.contains_key(&entry.link) || (is_signed && recorded.copies.is_empty())
    };
    let mut open: Vec<&Entry> = stored.values().copied().filter(|entry| counts(entry)).collect();
    let mut seen: HashSet<&Link> = open.iter().map(|entry| &entry.link).collect();
    let mut trusted = Vec::new();
    while let Some(entry) = open.pop() {
        trusted.push(entry);
        let named = entry.named().filter_map(|link| stored.get(link.key.as_str()).filter(|found| found.link == *link));
        open.extend(named.filter(|found| seen.insert(&found.link)));
    }
    trusted
}

/// The links that must be there, each with one who says so; the record counts most.
fn witnessed<'a>(trusted: &[&'a Entry], recorded: &'a Recorded) -> BTreeMap<&'a Link, Witness<'a>> {
    let expected = recorded.links.iter().filter(|expected| !expected.removed);
    let expected = expected.map(|expected| &expected.link).chain(&recorded.copies);
    let mut witnessed: BTreeMap<_, _> = expected.map(|link| (link, Witness::Record)).collect();
    for entry in trusted {
        let witness = Witness::Link(&entry.link.key);
        for link in entry.named() {
            let known = witnessed.entry(link).or_insert(witness);
            *known = witness.min(*known);
        }
    }
    witnessed
}

fn told(witness: Witness<'_>, found: Option<&str>, doubtful: Option<&str>) -> String {
    let by = match witness {
        Witness::Record => "It is on record".to_owned(),
        Witness::Link(key) => format!("\"{key}\" names it"),
    };
    let now = match found {
        Some(sha256) => format!(" with another SHA-256 than {sha256}."),
        None => ", and it is not there.".to_owned(),
    };
    let claim = doubtful.map(|key| {
        format!(
            " \"{key}\" says that it was deleted, but is not on record itself: a deletion is under way, or somebody else wrote that."
        )
    });
    [by, now, claim.unwrap_or_default()].concat()
}

/// What was written before there was a key has no signature, and the record says so.
fn unsigned(entry: &Entry, on_record: Option<&Expected>, wanted: &[String]) -> Option<Finding> {
    let was_unsigned = on_record.is_some_and(|expected| expected.public_key.is_none());
    let detail = match &entry.signed {
        Signed::Wrongly => "Its signature is not of these bytes.".to_owned(),
        Signed::By(key) if wanted.is_empty() || wanted.contains(key) => return None,
        Signed::By(key) => format!("It is signed with another key, {key}."),
        Signed::Not if wanted.is_empty() || entry.previous.is_none() || was_unsigned => return None,
        Signed::Not => "It has no signature.".to_owned(),
    };
    Some(Finding { key: entry.link.key.clone(), problem: Problem::Unsigned, detail })
}

/// The links that no other names: the last of the chain, and what runs left that were rolled back.
pub fn unnamed(stored: &[Entry]) -> Vec<&Link> {
    let named: HashSet<&Link> = stored.iter().flat_map(Entry::named).collect();
    let gone: HashSet<Link> = stored.iter().flat_map(Entry::gone).collect();
    let is_last =
        |entry: &&Entry| entry.previous.is_some() && !named.contains(&entry.link) && !gone.contains(&entry.link);
    stored.iter().filter(is_last).map(|entry| &entry.link).collect()
}
