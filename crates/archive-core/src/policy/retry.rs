//! When a job that failed is tried again, and what may follow what in a job's life.

use crate::error::{Error, ErrorKind, Result};
use std::fmt;
use std::str::FromStr;

const FIRST: u64 = 30;

/// The longest wait after a failure, in seconds.
pub const LONGEST_BACKOFF_SECONDS: u64 = 3_600;

/// Seconds after which a job whose lock was held by others is tried again; that is no failure.
pub const LOCK_RETRY_SECONDS: u64 = 10;

/// Seconds to wait after failed attempt `attempt` (from 1): half a minute, doubling, at most an hour.
pub fn backoff_seconds(attempt: u32) -> u64 {
    let doublings = attempt.saturating_sub(1).min(16);
    (FIRST << doublings).min(LONGEST_BACKOFF_SECONDS)
}

/// Where a job is in its life, as `archival_job.status` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobStatus {
    /// Waits for somebody to take it up.
    Pending,
    /// A session works on it.
    Running,
    /// A person stopped it for a while.
    Paused,
    /// Over, well.
    Completed,
    /// Given up.
    Failed,
    /// Ended by a person.
    Cancelled,
}

/// What happens to a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JobEvent {
    /// A session takes it up.
    Claimed,
    /// Its last step is done.
    Finished,
    /// A step failed and will be tried again; or its session is gone; or its window closed.
    PutBack,
    /// A step failed for the last time.
    GivenUp,
    /// `pause_job`.
    Paused,
    /// `resume_job`.
    Resumed,
    /// `cancel_job`.
    Cancelled,
    /// `retry_job`.
    Retried,
}

impl JobStatus {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Pending, Self::Running, Self::Paused, Self::Completed, Self::Failed, Self::Cancelled];

    /// The name stored in the catalog.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether the job keeps others from working on its partition.
    pub const fn is_unfinished(self) -> bool {
        matches!(self, Self::Pending | Self::Running | Self::Paused)
    }

    /// The status after an event, or `InvalidState` where it cannot happen.
    pub fn after(self, event: JobEvent) -> Result<Self> {
        match (self, event) {
            (Self::Pending, JobEvent::Claimed) => Ok(Self::Running),
            (Self::Running, JobEvent::Finished) => Ok(Self::Completed),
            (Self::Running, JobEvent::PutBack) => Ok(Self::Pending),
            (Self::Running, JobEvent::GivenUp) => Ok(Self::Failed),
            (Self::Pending | Self::Running, JobEvent::Paused) => Ok(Self::Paused),
            (Self::Paused, JobEvent::Resumed) => Ok(Self::Pending),
            (Self::Pending | Self::Running | Self::Paused, JobEvent::Cancelled) => Ok(Self::Cancelled),
            (Self::Failed | Self::Cancelled, JobEvent::Retried) => Ok(Self::Pending),
            _ => Err(refused(self, event)),
        }
    }
}

fn refused(status: JobStatus, event: JobEvent) -> Error {
    let verb = match event {
        JobEvent::Claimed => "taken up",
        JobEvent::Finished => "finished",
        JobEvent::PutBack => "put back",
        JobEvent::GivenUp => "given up",
        JobEvent::Paused => "paused",
        JobEvent::Resumed => "resumed",
        JobEvent::Cancelled => "cancelled",
        JobEvent::Retried => "retried",
    };
    let error = Error::new(ErrorKind::InvalidState, format!("a job that is {status} cannot be {verb}"));
    match status {
        JobStatus::Pending => error.hint("It runs by itself when it is due; pause_job and cancel_job stop it."),
        JobStatus::Running => error.hint("pause_job and cancel_job stop it."),
        JobStatus::Paused => error.hint("resume_job lets it go on, cancel_job ends it."),
        JobStatus::Completed => error.hint("It is over; reattach_partition brings an archived partition back."),
        JobStatus::Failed | JobStatus::Cancelled => error.hint("retry_job starts it again."),
    }
}

impl fmt::Display for JobStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobStatus {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let found = Self::ALL.into_iter().find(|status| status.as_str() == text);
        found.ok_or_else(|| Error::new(ErrorKind::InvalidParameter, format!("unknown job status \"{text}\"")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const EVENTS: [JobEvent; 8] = [
        JobEvent::Claimed,
        JobEvent::Finished,
        JobEvent::PutBack,
        JobEvent::GivenUp,
        JobEvent::Paused,
        JobEvent::Resumed,
        JobEvent::Cancelled,
        JobEvent::Retried,
    ];

    #[test]
    fn delays_double_up_to_an_hour() {
        assert_eq!([1, 2, 3, 7, 8, 9, u32::MAX].map(backoff_seconds), [30, 60, 120, 1_920, 3_600, 3_600, 3_600]);
    }

    #[test]
    fn a_completed_job_stays_completed() {
        assert!(EVENTS.iter().all(|event| JobStatus::Completed.after(*event).is_err()));
    }

    #[test]
    fn whatever_is_stopped_can_be_started_again() {
        for stopped in [JobStatus::Paused, JobStatus::Failed, JobStatus::Cancelled] {
            let again = EVENTS.iter().filter_map(|event| stopped.after(*event).ok());
            assert!(again.into_iter().any(|status| status == JobStatus::Pending), "{stopped}");
        }
    }

    #[test]
    fn every_refusal_has_a_remedy() {
        for status in JobStatus::ALL {
            assert_eq!(status.to_string().parse::<JobStatus>().unwrap(), status);
            for error in EVENTS.iter().filter_map(|event| status.after(*event).err()) {
                assert!(error.hint_text().is_some(), "{error}");
            }
        }
    }

    proptest! {
        #[test]
        fn only_a_claim_starts_a_job(events in proptest::collection::vec(0usize..EVENTS.len(), 0..40)) {
            let mut status = JobStatus::Pending;
            for event in events.into_iter().map(|which| EVENTS[which]) {
                if let Ok(next) = status.after(event) {
                    prop_assert_eq!(next == JobStatus::Running, event == JobEvent::Claimed);
                    status = next;
                }
            }
        }
    }
}
