//! Background workers. Each step they do is the engine's.
//!
//! The launcher runs when the library is preloaded. It is connected to no database; each `archive_ext.naptime` it starts
//! a scanner in one database after the other, which is gone as soon as it knows which owners have policies there. For
//! each owner the scanner starts a job worker, whose session user is that owner, and which ends when nothing is due.
//! So nobody waits for an idle worker: not DROP DATABASE, DROP EXTENSION or ALTER EXTENSION.

pub mod freezer;
mod job_worker;
mod launcher;
mod scanner;
pub mod settler;

use crate::error::{Error, OrRaise, Result};
use crate::pg::background;
use crate::pg::lock::giving_way;

/// Runs `work` in a transaction of its own, and tells what went wrong after it was rolled back.
fn transaction<T>(activity: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    background::caught_transaction(activity, || giving_way(work).or_raise()).map_err(Error::from)
}
