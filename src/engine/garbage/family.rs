//! Objects that nothing names, one family at a time, while no run can come to name them.

use std::collections::BTreeMap;

use archive_core::naming::KeyName;
use archive_core::store::ObjectMeta;

use crate::catalog::{named, writers};
use crate::error::Result;
use crate::pg::{interrupts, xact};

/// Objects of one family handled at a time: a run that waits for them waits no longer than this takes.
const AT_ONCE: usize = 50;

/// An object that may be garbage.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    /// As it was listed.
    pub(super) object: ObjectMeta,
    /// Since when it is not needed, in seconds since 1970; `None` for one that the catalog does not name.
    pub(super) replaced_at: Option<i64>,
}

impl Candidate {
    /// Whether the catalog does not name it at all.
    pub(super) fn is_orphan(&self) -> bool {
        self.replaced_at.is_none()
    }

    /// What its key says.
    pub(super) fn name(&self) -> KeyName<'_> {
        KeyName::of(&self.object.key)
    }
}

/// What keeps a family from being touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Busy {
    /// Another session may write these objects now.
    Session,
    /// A job that is not done may need them.
    Job,
}

impl Busy {
    /// Why, in results.
    pub(super) fn why(self) -> &'static str {
        match self {
            Self::Session => "another session works on it",
            Self::Job => "a job that is not done may need it",
        }
    }
}

/// Candidates by family, orphans apart, a few at a time, manifests first: an object that is gone must not be named by a manifest.
pub(super) fn groups(candidates: Vec<Candidate>) -> Vec<(String, Vec<Candidate>)> {
    let mut families: BTreeMap<(String, bool), Vec<Candidate>> = BTreeMap::new();
    for candidate in candidates {
        if let Some(family) = candidate.name().family() {
            families.entry((family, candidate.is_orphan())).or_default().push(candidate);
        }
    }
    let mut groups = Vec::with_capacity(families.len());
    for ((family, _), mut all) in families {
        all.sort_by_key(|candidate| !candidate.name().is_manifest());
        groups.extend(all.chunks(AT_ONCE).map(|some| (family.clone(), some.to_vec())));
    }
    groups
}

/// Runs `work` on those of a group that are still not needed, while the group's family is locked: a run that could name one of them has
/// either committed, so that the catalog names it, or not looked yet, and then finds it gone or waits. Locks are given back at the
/// end, and `work` must change nothing in the database.
pub(super) fn while_idle<T>(
    storage: &str,
    (family, group): (&str, Vec<Candidate>),
    work: impl FnOnce(Vec<Candidate>) -> Result<T>,
    busy: impl FnOnce(Busy, Vec<Candidate>) -> T,
) -> Result<T> {
    interrupts::check();
    xact::rolled_back(|| {
        if !writers::try_hold_family(family)? {
            return Ok(busy(Busy::Session, group));
        }
        // The number of a batch is not used twice; but a partition that was merged and split again may take up its last version.
        let may_need =
            |one: &Candidate| one.is_orphan() || matches!(one.name(), KeyName::Data(_) | KeyName::Manifest(_));
        if group.iter().any(may_need) && writers::unfinished_families()?.contains(family) {
            return Ok(busy(Busy::Job, group));
        }
        let keys: Vec<_> = group.iter().map(|candidate| candidate.object.key.clone()).collect();
        let named = named::of(storage, &keys)?;
        // What was not named and is now belongs to a run that committed, or was replaced just now.
        let is_garbage = |candidate: &Candidate| match named.get(&candidate.object.key) {
            None => true,
            Some(needed) => !needed && !candidate.is_orphan(),
        };
        work(group.into_iter().filter(is_garbage).collect())
    })
}
