//! The archive job: what may follow what, and where to go on after a crash.
//!
//! [`next`] keeps the recorded phase honest. [`resume`] decides from what is observed in the catalog and the storage,
//! never from memory: the phase only tells whether the job is over.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

/// How far a job got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Accepted; nothing done.
    Planned,
    /// The guard against writes is committed.
    Frozen,
    /// Every object and the manifest are in the storage.
    Exported,
    /// The objects were read back and equal the rows.
    Verified,
    /// The archived partition is attached and the local one detached.
    Swapped,
    /// Over: the local copy is dropped or its time is recorded.
    Done,
    /// Stopped by an error; may be retried.
    Failed,
    /// Stopped by a person; may be retried.
    Cancelled,
}

impl Phase {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Planned,
        Self::Frozen,
        Self::Exported,
        Self::Verified,
        Self::Swapped,
        Self::Done,
        Self::Failed,
        Self::Cancelled,
    ];

    /// The name stored in the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Planned => "planned",
            Self::Frozen => "frozen",
            Self::Exported => "exported",
            Self::Verified => "verified",
            Self::Swapped => "swapped",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing happens any more unless somebody retries.
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Done | Self::Failed | Self::Cancelled)
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Phase {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|phase| phase.as_str() == text);
        found.ok_or_else(|| Error::new(ErrorKind::InvalidParameter, format!("unknown job phase \"{text}\"")))
    }
}

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Event {
    /// The guard was committed.
    GuardCommitted,
    /// The manifest was written, after all objects.
    ManifestWritten,
    /// The read-back equals the rows.
    ReadBackEqual,
    /// The partition changed since the export, or its guard was gone: export again.
    PartitionChanged,
    /// DETACH and ATTACH committed.
    SwapCommitted,
    /// The local copy is dropped, or the time of its drop recorded.
    Finished,
    /// An error ended the run; a read-back that differs is one.
    Failed,
    /// A person stopped it.
    Cancelled,
    /// A person or the worker starts it again.
    Retried,
}

impl Event {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::GuardCommitted,
        Self::ManifestWritten,
        Self::ReadBackEqual,
        Self::PartitionChanged,
        Self::SwapCommitted,
        Self::Finished,
        Self::Failed,
        Self::Cancelled,
        Self::Retried,
    ];
}

/// The phase after an event, or `InvalidState` when the event cannot happen there.
pub fn next(phase: Phase, event: Event) -> Result<Phase> {
    match (phase, event) {
        (Phase::Planned, Event::GuardCommitted) => Ok(Phase::Frozen),
        (Phase::Frozen, Event::ManifestWritten) => Ok(Phase::Exported),
        (Phase::Exported, Event::ReadBackEqual) => Ok(Phase::Verified),
        (Phase::Verified, Event::SwapCommitted) => Ok(Phase::Swapped),
        (Phase::Swapped, Event::Finished) => Ok(Phase::Done),
        (Phase::Frozen | Phase::Exported | Phase::Verified, Event::PartitionChanged) => Ok(Phase::Planned),
        (phase, Event::Failed) if !phase.is_over() => Ok(Phase::Failed),
        (Phase::Planned | Phase::Frozen | Phase::Exported | Phase::Verified, Event::Cancelled) => Ok(Phase::Cancelled),
        (Phase::Failed | Phase::Cancelled, Event::Retried) => Ok(Phase::Planned),
        _ => Err(not_allowed(phase, event)),
    }
}

fn not_allowed(phase: Phase, event: Event) -> Error {
    let error = Error::new(ErrorKind::InvalidState, format!("a job that is {phase} cannot take the event {event:?}"));
    match (phase, event) {
        (Phase::Swapped | Phase::Done, Event::Cancelled) => {
            error.hint("The partition is archived; reattach_partition brings it back.")
        }
        _ => error,
    }
}

/// What the catalog and the storage show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Observed {
    /// The local relation exists, attached or not.
    pub local_exists: bool,
    /// The local relation is a partition of the hot table.
    pub local_attached: bool,
    /// The archived foreign table of this job is a partition of the archive parent.
    pub archive_attached: bool,
    /// The job's guards are on the relation, all ENABLE ALWAYS.
    pub guard_present: bool,
    /// The relation is as it was when exported: same storage, same columns, no rewrite, and the very guards that were
    /// on it then (by OID). Guards that were removed and put back prove nothing: rows may have changed in between.
    pub unchanged_since_export: bool,
    /// Objects of the job's version in the storage.
    pub objects_uploaded: u32,
    /// The manifest of the job's version is in the storage.
    pub manifest_present: bool,
    /// A read-back of exactly this version is recorded as equal.
    pub verified: bool,
    /// The local copy is to be dropped now.
    pub drop_due: bool,
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Step {
    /// Commit the guard.
    Freeze,
    /// Export into a version that has no manifest: the job's own when it has none yet, else a new one.
    Export {
        /// The job's version has a manifest that no longer describes the partition.
        new_version: bool,
    },
    /// Read the objects back and compare.
    Verify,
    /// Detach and attach.
    Swap,
    /// Drop the local copy, then record the end.
    DropLocal,
    /// Record the end.
    Finish,
    /// The job is over without a swap: remove its guard.
    LiftGuard,
    /// Nothing is left to do.
    Nothing,
    /// Somebody changed what the job relies on; it must fail, and this is why.
    Stop(&'static str),
}

/// The next step of a job, from what is observed. Doing it, observing and asking again always ends.
pub fn resume(phase: Phase, seen: &Observed) -> Step {
    match (phase, seen.archive_attached) {
        (Phase::Done, _) => Step::Nothing,
        (_, true) => after_swap(seen),
        (Phase::Failed | Phase::Cancelled, false) if seen.guard_present => Step::LiftGuard,
        (Phase::Failed | Phase::Cancelled, false) => Step::Nothing,
        (Phase::Swapped, false) => Step::Stop("the archived partition was detached after the swap"),
        (_, false) => before_swap(seen),
    }
}

fn after_swap(seen: &Observed) -> Step {
    if seen.local_attached {
        return Step::Stop("the partition is attached to both the hot and the archived table");
    }
    if seen.local_exists && seen.drop_due { Step::DropLocal } else { Step::Finish }
}

fn before_swap(seen: &Observed) -> Step {
    if !seen.local_exists {
        return Step::Stop("the partition was dropped");
    }
    if !seen.local_attached {
        return Step::Stop("the partition was detached by somebody else");
    }
    match (seen.guard_present, seen.manifest_present, seen.unchanged_since_export, seen.verified) {
        (false, ..) => Step::Freeze,
        (true, false, ..) => Step::Export { new_version: false },
        (true, true, false, _) => Step::Export { new_version: true },
        (true, true, true, false) => Step::Verify,
        (true, true, true, true) => Step::Swap,
    }
}

#[cfg(test)]
mod tests;
