//! Telling people: `NOTIFY archive_ext` with a JSON payload, and a WARNING, which goes to the log. Anybody may LISTEN, so
//! the payload says which job and what kind of error, and leaves the error's text to `archive_ext.jobs`.

use super::window;
use crate::catalog;
use crate::catalog::alert::Standing;
use crate::catalog::queue::Steered;
use crate::error::Result;
use crate::pg::server_text::warning;
use crate::pg::spi;

/// What to tell.
#[derive(Debug)]
pub enum Alert<'a> {
    /// A step failed and will be tried again.
    Failed {
        /// SQLSTATE.
        code: &'a str,
        /// Failures so far.
        attempts: i32,
        /// When it is tried again.
        retry_in_seconds: i64,
        /// The error, for the log.
        text: &'a str,
    },
    /// A job was given up.
    GivenUp {
        /// SQLSTATE.
        code: &'a str,
        /// Failures.
        attempts: i32,
        /// The error, for the log.
        text: &'a str,
    },
}

/// What a read-back that differs is reported with.
const CORRUPT: &str = "XX001";

/// Sends the alert when the transaction commits.
pub fn send(job: &Steered, alert: &Alert<'_>) -> Result<()> {
    let (event, code, attempts, retry) = match alert {
        Alert::Failed { code, attempts, retry_in_seconds, .. } => ("failed", *code, *attempts, Some(*retry_in_seconds)),
        Alert::GivenUp { code, attempts, .. } => ("given_up", *code, *attempts, None),
    };
    let event = if code == CORRUPT { "verification_failed" } else { event };
    let payload = serde_json::json!({
        "event": event, "job_id": job.id.to_string(), "operation": job.operation, "table": job.table_name,
        "partition": job.partition_name, "sqlstate": code, "attempts": attempts, "max_attempts": job.max_attempts,
        "retry_in_seconds": retry, "given_up": retry.is_none(),
    });
    spi::one("SELECT pg_catalog.pg_notify('archive_ext', $1)::text", &[payload.to_string().as_str().into()], |_| {
        Ok(())
    })?;
    log(job, alert);
    Ok(())
}

fn log(job: &Steered, alert: &Alert<'_>) {
    let (operation, partition) = (&job.operation, &job.partition_name);
    match alert {
        Alert::Failed { attempts, retry_in_seconds, text, .. } => warning!(
            "archive_ext: {operation} of {partition} failed (attempt {attempts} of {}), next in {retry_in_seconds} s: {text}",
            job.max_attempts
        ),
        Alert::GivenUp { attempts, text, .. } => warning!(
            "archive_ext: {operation} of {partition} is given up after {attempts} attempts, retry_job('{}') starts it again: {text}",
            job.id
        ),
    }
}

/// What is wrong with the tables that the current user may SELECT from.
pub fn standing() -> Result<Vec<Standing>> {
    let mut standing = catalog::alert::of_jobs()?;
    standing.extend(catalog::alert::of_policies()?);
    standing.extend(catalog::alert::of_local_copies()?);
    standing.extend(catalog::alert::of_promises()?);
    standing.extend(catalog::month_count::missing()?);
    for waiting in catalog::alert::unfinished()? {
        standing.extend(late(waiting)?);
    }
    Ok(standing)
}

/// A job that its window was too short for, or that nobody took up for a day.
fn late(waiting: catalog::alert::Unfinished) -> Result<Option<Standing>> {
    let state = window::state(waiting.window.as_deref())?;
    let passed = state.closed_since().is_some_and(|minutes| waiting.age_minutes > i64::from(minutes));
    let detail = match (&waiting.window, waiting.suspended) {
        (Some(window), true) => format!("its window {window} closed before it was done"),
        (Some(window), false) if passed => format!("its window {window} passed without it"),
        (None, _) if waiting.age_minutes > 24 * 60 => "nobody has done it for a day".to_owned(),
        _ => return Ok(None),
    };
    Ok(Some(Standing {
        alert: "late".to_owned(),
        table: waiting.table,
        partition: Some(waiting.partition),
        job: Some(waiting.job),
        since: waiting.since,
        detail,
        remedy: "A longer window, fewer partitions in it, or more workers; explain_lifecycle tells what is in the way."
            .to_owned(),
    }))
}
