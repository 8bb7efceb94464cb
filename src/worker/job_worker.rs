//! The job worker: does what is due for one owner in one database, one step per transaction, with that owner as its
//! session user. So a user's function that says RESET ROLE finds itself who it was.

use std::time::Duration;

use pgrx::Uuid;
use pgrx::prelude::*;

use super::transaction;
use crate::catalog;
use crate::engine::{clock, lifecycle, throttle};
use crate::error::Result;
use crate::guc;
use crate::pg::background;
use crate::pg::server_text::{log, warning};
use crate::pg::worker_table::{self, State};

/// How often a job that waits looks whether it may go on.
const LOOK: Duration = Duration::from_secs(1);

/// Entry point of the job worker; the argument is its place in shared memory.
#[allow(unsafe_code)]
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn archive_ext_worker(argument: pg_sys::Datum) {
    let Some((database, role)) = worker_table::take(argument.value()) else { return };
    background::connect_as(database, Some(role));
    worker_table::show(State::Scheduling, None, "");
    match transaction("archive_ext: looking for policies", tables) {
        Ok(tables) => {
            tables.iter().for_each(|table| schedule(*table));
            work(&tables);
        }
        Err(error) => warning!("archive_ext could not look for policies: {}", error.message()),
    }
}

/// The tables to work for; none when the extension was dropped meanwhile.
fn tables() -> Result<Vec<pg_sys::Oid>> {
    if catalog::extension_installed()? {
        catalog::policy_owner::tables_of_current(clock::now()?)
    } else {
        Ok(Vec::new())
    }
}

/// Makes jobs for what is due; what was scheduled before is done even if this fails.
fn schedule(table: pg_sys::Oid) {
    if let Err(error) = transaction("archive_ext: scheduling", || lifecycle::schedule(Some(table))) {
        warning!("archive_ext could not schedule: {}", error.message());
    }
}

/// Job after job until none is due, the cluster is busy, or others wait for this place.
fn work(tables: &[pg_sys::Oid]) {
    loop {
        background::reload_settings();
        if let Some(reason) = held() {
            log!("archive_ext begins no job: {reason}");
            return;
        }
        match transaction("archive_ext: looking for a job", || next_job(tables)) {
            Ok(Some(job)) => {
                failpoint!("worker_took_job");
                run(job);
            }
            Ok(None) => return,
            Err(error) => {
                warning!("archive_ext could not take up a job: {}", error.message());
                return;
            }
        }
        if worker_table::crowded() || !guc::worker_enabled() {
            return;
        }
        worker_table::show(State::Scheduling, None, "");
    }
}

fn next_job(tables: &[pg_sys::Oid]) -> Result<Option<Uuid>> {
    for table in tables {
        if let Some(job) = lifecycle::next_job(Some(*table))? {
            return Ok(Some(job));
        }
    }
    Ok(None)
}

fn run(job: Uuid) {
    let activity = format!("archive_ext: job {job}");
    worker_table::show(State::Working, Some(*job.as_bytes()), "");
    loop {
        match transaction(&activity, || lifecycle::step(job)) {
            Ok((true, _)) => failpoint!("worker_step_committed"),
            Ok((false, _)) => {
                failpoint!("worker_job_committed");
                return;
            }
            Err(error) => {
                failpoint!("worker_step_failed");
                if let Err(worse) = transaction(&activity, || lifecycle::failed(job, &error)) {
                    warning!("archive_ext could not note that job {job} failed: {}", worse.message());
                }
                return;
            }
        }
        background::reload_settings();
        wait_for_calm(job);
    }
}

/// Between two steps: waits as long as the cluster is busy.
fn wait_for_calm(job: Uuid) {
    let mut waits = false;
    while let Some(reason) = held() {
        if !waits {
            log!("archive_ext job {job} waits: {reason}");
        }
        waits = true;
        worker_table::show(State::Throttled, Some(*job.as_bytes()), &reason);
        background::rest(LOOK);
        background::reload_settings();
    }
    if waits {
        log!("archive_ext job {job} goes on");
        worker_table::show(State::Working, Some(*job.as_bytes()), "");
    }
}

/// Why jobs wait. A look that fails holds nothing up.
fn held() -> Option<String> {
    transaction("archive_ext: looking whether the cluster is busy", throttle::hold)
        .unwrap_or_default()
        .map(|hold| hold.to_string())
}
