//! What becomes of a job after an error.

use archive_core::policy::{JobStatus, LOCK_RETRY_SECONDS, LONGEST_BACKOFF_SECONDS, backoff_seconds};
use pgrx::Uuid;

use super::alert::{self, Alert};
use super::{clock, find, steer, steps};
use crate::catalog;
use crate::catalog::queue::Steered;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::clock::unix_now;
use crate::pg::xact;

/// SQLSTATE that jobs carry whose backend went away.
const INTERRUPTED: &str = "57P01";

/// Puts a job back after an error of its step, to be tried again later, or gives it up; `true` when it was given up. A
/// lock that others hold, or a partition that another session works on, is no failure: it is tried again soon. A job
/// that somebody stopped meanwhile is left as it is. The caller commits.
pub fn failed(id: Uuid, error: &Error) -> Result<bool> {
    let job = steer::mine(id)?;
    if job.status != JobStatus::Running {
        return Ok(false);
    }
    let in_the_way = [
        SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
        SqlState::ERRCODE_OBJECT_IN_USE,
        SqlState::ERRCODE_T_R_DEADLOCK_DETECTED,
        SqlState::ERRCODE_T_R_SERIALIZATION_FAILURE,
    ];
    let code = code_of(error.sqlstate());
    let text = full_text(error);
    if in_the_way.contains(&error.sqlstate()) {
        catalog::queue::put_back(id, job.attempts, &text, &code, clock::now()?, LOCK_RETRY_SECONDS.cast_signed())?;
        return Ok(false);
    }
    again_or_give_up(&job, &text, &code, None)
}

/// Puts a job back whose step came upon an object that the store locks for a time: that is no failure, and it is tried again when the
/// time is over, or after the longest wait. What the step did before stays done.
pub fn or_when_unlocked(id: Uuid, done: Result<(bool, String)>) -> Result<(bool, String)> {
    let (error, until) = match done {
        Err(error) => match error.lasts_until() {
            Some(until) => (error, until),
            None => return Err(error),
        },
        done => return done,
    };
    let seconds = (until - unix_now()).clamp(1, LONGEST_BACKOFF_SECONDS.cast_signed());
    let code = code_of(error.sqlstate());
    catalog::queue::put_back(id, 0, &full_text(&error), &code, clock::now()?, seconds)?;
    Ok((false, "locked".to_owned()))
}

/// Puts a job back whose backend went away. It is taken up again at once.
pub(super) fn interrupted(id: Uuid) -> Result<()> {
    let text = "interrupted: the session that ran it is gone";
    again_or_give_up(&find(id)?, text, INTERRUPTED, Some(0)).map(drop)
}

fn again_or_give_up(job: &Steered, text: &str, code: &str, seconds: Option<i64>) -> Result<bool> {
    let attempts = job.attempts.saturating_add(1);
    if attempts < job.max_attempts {
        let seconds = seconds.unwrap_or_else(|| backoff_seconds(attempts.unsigned_abs()).cast_signed());
        catalog::queue::put_back(job.id, attempts, text, code, clock::now()?, seconds)?;
        alert::send(job, &Alert::Failed { code, attempts, retry_in_seconds: seconds, text })?;
        return Ok(false);
    }
    give_up(job, attempts, text, code)
}

/// Lifts the guards and ends the job. Where the guards cannot be lifted now, it is tried again soon.
fn give_up(job: &Steered, attempts: i32, text: &str, code: &str) -> Result<bool> {
    let times = if attempts == 1 { "1 attempt".to_owned() } else { format!("{attempts} attempts") };
    let reason = format!("given up after {times}: {text}");
    match xact::subtransaction(|| steps::cancel(job.id, JobStatus::Failed.as_str(), &reason).or_raise()) {
        Ok(_) => {
            catalog::queue::note_failure(job.id, attempts, code)?;
            alert::send(job, &Alert::GivenUp { code, attempts, text })?;
            Ok(true)
        }
        Err(caught) => {
            let text = format!("{text}; its guards could not be lifted yet: {}", caught.message);
            let seconds = LOCK_RETRY_SECONDS.cast_signed();
            catalog::queue::put_back(job.id, job.attempts, &text, code, clock::now()?, seconds)?;
            Ok(false)
        }
    }
}

fn full_text(error: &Error) -> String {
    match error.detail_text() {
        Some(detail) => format!("{} ({detail})", error.message()),
        None => error.message().to_owned(),
    }
}

/// The five characters of a SQLSTATE.
pub fn code_of(state: SqlState) -> String {
    let packed = state as i32;
    (0..5).map(|at| char::from(((packed >> (6 * at)) & 0x3F) as u8 + b'0')).collect()
}

/// The SQLSTATE of these five characters.
pub fn sqlstate_of(code: &str) -> SqlState {
    let packed =
        code.bytes().take(5).enumerate().map(|(at, byte)| i32::from(byte.wrapping_sub(b'0') & 0x3F) << (6 * at));
    SqlState::from(packed.sum::<i32>())
}
