//! The lifecycle: statuses, labels of partitions, and the archive job's state machine. Pure.

mod bound;
pub mod calendar;
mod job;
mod kind;
mod label;
pub mod name_pattern;
mod period;
mod status;
pub mod transition;

pub use bound::{range_bounds, range_lists};
pub use job::{Event, Observed, Phase, Step, next, resume};
pub use kind::Kind;
pub use label::{Label, matches_pattern};
pub use period::{Granularity, Moment, Period};
pub use status::Status;
