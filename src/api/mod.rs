//! The SQL functions: arguments in, engine called, rows out.

pub mod archive;
mod batch;
mod chain;
mod compact;
mod consistency;
mod counts;
mod ddl;
mod erase;
mod family;
mod garbage;
mod glacier;
mod guard;
mod hold;
mod import;
mod lifecycle;
mod lookup;
mod object_locks;
mod policy;
pub mod progress;
mod reading;
mod reattach;
mod repair;
mod restore_rows;
mod rows;
pub mod show;
mod steps;
mod storage;
mod transition;
mod verification;
pub mod worker;

use pgrx::datum::Interval;

/// Seconds in an interval; a month counts 30 days and a day 24 hours, as in `extract(epoch …)` of short intervals.
fn seconds(interval: Interval) -> i64 {
    let days = i64::from(interval.months()) * 30 + i64::from(interval.days());
    days * 86_400 + interval.micros() / 1_000_000
}
