//! The scanner: a moment in one database to see whether it has the extension, and for whom there may be work.
//!
//! It is the bootstrap superuser's and runs fixed statements on our own tables only.

use pgrx::prelude::*;

use super::transaction;
use crate::catalog;
use crate::engine::{clock, storage};
use crate::error::Result;
use crate::guc;
use crate::pg::server_text::{log, warning};
use crate::pg::worker_table::{self, Place};
use crate::pg::{background, guc as settings};

/// Entry point of the scanner; the argument is the database.
#[allow(unsafe_code)]
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn archive_ext_scanner(argument: pg_sys::Datum) {
    let database = pg_sys::Oid::from(argument.value() as u32);
    background::connect_as(database, None);
    // ALTER EXTENSION may hold our tables: then there is always another round.
    settings::override_setting(c"lock_timeout", c"1s");
    failpoint!("scanner_begins");
    match transaction("archive_ext: looking for policies", owners) {
        Ok(owners) => owners.into_iter().for_each(|owner| start(database, owner)),
        Err(error) => warning!("archive_ext could not look for due work: {}", error.message()),
    }
}

fn owners() -> Result<Vec<pg_sys::Oid>> {
    if !catalog::extension_installed()? {
        return Ok(Vec::new());
    }
    let owners = catalog::policy_owner::all(clock::now()?)?;
    if owners.is_empty() {
        return Ok(Vec::new());
    }
    if let Some(reason) = storage::copied()? {
        log!("archive_ext starts no jobs in this database: {reason}");
        return Ok(Vec::new());
    }
    let (able, unable): (Vec<_>, Vec<_>) =
        owners.into_iter().partition(|owner| owner.can_login || background::ANY_ROLE_CONNECTS);
    for owner in unable {
        warning!(
            "archive_ext cannot work for role \"{}\", the owner of a policy: it may not log in; let a role that may, \
             and that is a member of it, call set_archive_policy",
            owner.name
        );
    }
    Ok(able.into_iter().map(|owner| owner.role).collect())
}

fn start(database: pg_sys::Oid, owner: pg_sys::Oid) {
    failpoint!("scanner_starts_worker");
    let Place::Reserved(index) = worker_table::reserve(database, owner, guc::max_workers()) else { return };
    let launcher = worker_table::launcher().unwrap_or_default();
    if background::start_for(launcher, "archive_ext worker", "archive_ext_worker", index as u32).is_none() {
        worker_table::release(index);
        warning!("archive_ext has no free background worker slot for due jobs; raise max_worker_processes");
    }
}
