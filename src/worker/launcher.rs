//! The launcher: one process for the cluster, connected to the shared catalogs only. It runs no SQL.

use std::time::{Duration, Instant};

use pgrx::prelude::*;

use crate::guc;
use crate::pg::memory::MemoryContext;
use crate::pg::server_text::warning;
use crate::pg::worker_table::{self, State};
use crate::pg::{background, databases};

/// How long the launcher waits for a scanner before it goes on with the next database.
const SCAN_LIMIT: Duration = Duration::from_secs(30);
/// Shortest time between two rounds, even when somebody waits for a worker.
const SHORTEST_NAP: Duration = Duration::from_secs(1);

/// Entry point of the launcher.
#[allow(unsafe_code)]
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn archive_ext_launcher(_argument: pg_sys::Datum) {
    background::connect_shared();
    worker_table::begin_launcher();
    let mut first = 0;
    loop {
        let begun = Instant::now();
        if guc::worker_enabled() {
            worker_table::show(State::Scanning, None, "");
            failpoint!("launcher_round");
            round(first);
            first = first.wrapping_add(1);
            worker_table::show(State::Idle, None, "");
        } else {
            worker_table::show(State::Disabled, None, "archive_ext.worker_enabled is off");
        }
        nap(begun);
    }
}

/// One look into each database; another one is the first each time, so that none is always served last.
fn round(first: usize) {
    worker_table::begin_round();
    let mut databases = databases::connectable();
    if !databases.is_empty() {
        let first = first % databases.len();
        databases.rotate_left(first);
    }
    let memory = MemoryContext::new(c"archive_ext launcher");
    memory.within(|| databases.into_iter().for_each(scan));
}

/// Has a scanner look into one database, and waits until it is gone.
fn scan(database: pg_sys::Oid) {
    let me = std::process::id().cast_signed();
    let argument = database.to_u32();
    let Some(scanner) = background::start_for(me, "archive_ext scanner", "archive_ext_scanner", argument) else {
        warning!("archive_ext has no free background worker slot to look for due work; raise max_worker_processes");
        return;
    };
    let begun = Instant::now();
    while !background::has_ended(&scanner) && begun.elapsed() < SCAN_LIMIT {
        background::rest(Duration::from_millis(200));
        end_if_told();
    }
}

/// Waits for the next round. It comes early when a worker ended for which others wait, or when SIGHUP enabled us.
fn nap(begun: Instant) {
    let enabled = guc::worker_enabled();
    loop {
        end_if_told();
        background::reload_settings();
        let (passed, naptime) = (begun.elapsed(), guc::naptime());
        let called = worker_table::crowded() && worker_table::has_room(guc::max_workers());
        if passed >= naptime || (called && passed >= SHORTEST_NAP) || enabled != guc::worker_enabled() {
            return;
        }
        let rest = if called { SHORTEST_NAP } else { naptime };
        background::rest(rest.saturating_sub(passed));
    }
}

fn end_if_told() {
    if background::told_to_end() {
        background::exit();
    }
}
