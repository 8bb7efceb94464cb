//! Policies: how a table ages, whether that makes sense, and what is due now. Pure; times are microseconds since
//! 2000-01-01 UTC, computed by PostgreSQL.

mod age;
mod check;
mod cost;
mod document;
mod due;
mod early;
mod lock;
mod map;
mod model;
mod retry;
mod stored;
mod window;

pub use age::Age;
pub use check::{Column, Facts, Finding, advise, validate};
pub use cost::Prices;
pub use document::{Change, Document, Entry, FORMAT, changes};
pub use due::{
    Access, Action, Held, Observed, Outlook, Planned, Table, Waiting, brought_back, due, instant, is_over, splits_into,
};
pub use early::{Early, archived_before_merge};
pub use lock::{Target, advise_lock};
pub use map::{Place, draw, size};
pub use model::{DEFAULT_ATTEMPTS, DEFAULT_GLACIER_CLASS, Policy};
pub use retry::{JobEvent, JobStatus, LOCK_RETRY_SECONDS, LONGEST_BACKOFF_SECONDS, backoff_seconds};
pub use stored::{Fate, NextStep, Stored, stored};
pub use window::{WEEK, Window};
