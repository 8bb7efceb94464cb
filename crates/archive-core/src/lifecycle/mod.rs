//! The lifecycle: statuses, labels of partitions, and the archive job's state machine. Pure.

mod bound;
mod job;
mod kind;
mod label;
mod period;
mod status;
mod throttle;

pub use bound::range_bounds;
pub use job::{Event, Observed, Phase, Step, next, resume};
pub use kind::Kind;
pub use label::{Label, matches_pattern};
pub use period::{Granularity, Moment, Period};
pub use status::Status;
pub use throttle::{Hold, Limits, Meter, Pressure, TokenBucket, decide};
