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
    pub copies: Vec<Expected>,
    /// Public keys whose signatures are wanted.
    pub public_keys: Vec<String>,
    /// Whether they are wanted of all that is stored, and not only of what was written since there is a key.
    pub all_signed: bool,
}

/// What is wrong with a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Problem {
    /// Its bytes are not those that were written.
    Altered,
    /// It is not there, and nothing says that it was deleted.
    Missing,
    /// It is not there, and what says that it was deleted is not on record, and not signed.
    Unconfirmed,
    /// It has no signature, or one that is not its own or of another key.
    Unsigned,
}

impl Problem {
    /// The word in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Altered => "altered",
            Self::Missing => "missing",
            Self::Unconfirmed => "unconfirmed",
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
/// Where there is a record, nobody but it can say that what is on it was deleted, and only links on it, and those that these name, can say
/// that something must be there. Where signatures are wanted of all, what has none says nothing.
pub fn check(stored: &[Entry], recorded: &Recorded) -> Vec<Finding> {
    let known = Known::of(stored, recorded);
    let gone = known.gone();
    let doubtful: HashMap<Link, &str> =
        stored.iter().flat_map(|entry| entry.gone().map(|link| (link, entry.link.key.as_str()))).collect();
    let mut findings = BTreeSet::new();
    for (link, witness) in known.witnessed() {
        let found = known.stored.get(link.key.as_str()).map(|entry| entry.link.sha256.as_str());
        let is_gone = if witness == Witness::Record { known.is_removed(link) } else { gone.contains(link) };
        if found == Some(link.sha256.as_str()) || is_gone {
            continue;
        }
        let claim = doubtful.get(link).copied();
        let problem = match (found, claim) {
            (Some(_), _) => Problem::Altered,
            (None, Some(_)) => Problem::Unconfirmed,
            (None, None) => Problem::Missing,
        };
        findings.insert(Finding { key: link.key.clone(), problem, detail: told(witness, found, claim) });
    }
    findings.extend(stored.iter().filter_map(|entry| known.unsigned(entry)));
    findings.into_iter().collect()
}

/// What is stored, and what is known of it.
struct Known<'a> {
    recorded: &'a Recorded,
    stored: BTreeMap<&'a str, &'a Entry>,
    on_record: HashMap<&'a Link, &'a Expected>,
    copies: HashMap<&'a Link, &'a Expected>,
    /// The stored links that count.
    trusted: HashSet<&'a Link>,
}

impl<'a> Known<'a> {
    fn of(stored: &'a [Entry], recorded: &'a Recorded) -> Self {
        let by_link = |expected: &'a [Expected]| expected.iter().map(|one| (&one.link, one)).collect();
        let mut known = Self {
            recorded,
            stored: stored.iter().map(|entry| (entry.link.key.as_str(), entry)).collect(),
            on_record: by_link(&recorded.links),
            copies: by_link(&recorded.copies),
            trusted: HashSet::new(),
        };
        known.trusted = known.find_trusted();
        known
    }

    fn is_signed(&self, entry: &Entry) -> bool {
        matches!(&entry.signed, Signed::By(key) if self.recorded.public_keys.contains(key))
    }

    fn find_trusted(&self) -> HashSet<&'a Link> {
        let alone = self.on_record.is_empty() && self.copies.is_empty();
        let counts = |entry: &Entry| {
            (alone && (self.is_signed(entry) || !self.recorded.all_signed)) || self.on_record.contains_key(&entry.link)
        };
        let mut open: Vec<&Entry> = self.stored.values().copied().filter(|entry| counts(entry)).collect();
        let mut trusted: HashSet<&Link> = open.iter().map(|entry| &entry.link).collect();
        while let Some(entry) = open.pop() {
            let found = |link: &Link| self.stored.get(link.key.as_str()).copied().filter(|found| found.link == *link);
            open.extend(entry.named().filter_map(found).filter(|found| trusted.insert(&found.link)));
        }
        trusted
    }

    fn trusted(&self) -> impl Iterator<Item = &'a Entry> {
        self.stored.values().copied().filter(|entry| self.trusted.contains(&entry.link))
    }

    /// What those say is gone that count, or that signed it.
    fn gone(&self) -> HashSet<Link> {
        let says = |entry: &&&Entry| self.trusted.contains(&entry.link) || self.is_signed(entry);
        self.stored.values().filter(says).flat_map(|entry| entry.gone()).collect()
    }

    fn is_removed(&self, link: &Link) -> bool {
        self.on_record.get(link).is_some_and(|expected| expected.removed)
    }

    /// The links that must be there, each with one who says so; the record counts most.
    fn witnessed(&self) -> BTreeMap<&'a Link, Witness<'a>> {
        let expected = self.recorded.links.iter().chain(&self.recorded.copies);
        let mut witnessed: BTreeMap<_, _> = expected.map(|expected| (&expected.link, Witness::Record)).collect();
        for entry in self.trusted() {
            let witness = Witness::Link(&entry.link.key);
            for link in entry.named() {
                let known = witnessed.entry(link).or_insert(witness);
                *known = witness.min(*known);
            }
        }
        witnessed
    }

    /// What was written before there was a key has no signature, and what a run left that was rolled back says nothing.
    fn unsigned(&self, entry: &Entry) -> Option<Finding> {
        let expected = self.on_record.get(&entry.link).or_else(|| self.copies.get(&entry.link));
        let wanted = match self.copies.get(&entry.link).and_then(|copy| copy.public_key.as_ref()) {
            Some(key) => std::slice::from_ref(key),
            None => &self.recorded.public_keys,
        };
        let is_excused = match expected {
            Some(expected) => expected.public_key.is_none(),
            None => entry.previous.is_none() || !self.trusted.contains(&entry.link),
        };
        let detail = match &entry.signed {
            Signed::Wrongly => "Its signature is not of these bytes.".to_owned(),
            _ if wanted.is_empty() || (is_excused && !self.recorded.all_signed) => return None,
            Signed::By(key) if wanted.contains(key) => return None,
            Signed::By(key) => format!("It is signed with another key, {key}."),
            Signed::Not => "It has no signature.".to_owned(),
        };
        Some(Finding { key: entry.link.key.clone(), problem: Problem::Unsigned, detail })
    }
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
            " \"{key}\" says that it was deleted, and nothing on record says the same: a deletion is under way, the next one will note that it was interrupted, or somebody else wrote that."
        )
    });
    [by, now, claim.unwrap_or_default()].concat()
}

/// The links that no other names: the last of the chain, and what runs left that were rolled back.
pub fn unnamed(stored: &[Entry]) -> Vec<&Link> {
    let named: HashSet<&Link> = stored.iter().flat_map(Entry::named).collect();
    let gone: HashSet<Link> = stored.iter().flat_map(Entry::gone).collect();
    let is_last =
        |entry: &&Entry| entry.previous.is_some() && !named.contains(&entry.link) && !gone.contains(&entry.link);
    stored.iter().filter(is_last).map(|entry| &entry.link).collect()
}
