//! The lifecycle: statuses, labels of partitions, and the archive job's state machine. Pure.

mod bound;
pub mod calendar;
mod compaction;
mod extent;
mod job;
pub mod key;
mod kind;
mod label;
mod local_label;
pub mod name_pattern;
mod pass;
mod period;
mod relabel;
mod selection;
mod status;
mod taken;
mod throttle;
pub mod transition;

pub use bound::{list_values, range_bounds, range_lists};
pub use compaction::{SmallObject, Threshold, next_group};
pub use extent::{Axis, Extent, list_bound};
pub use job::{Event, Observed, Phase, Step, next, resume};
pub use key::{Epoch, IdKind, TimeKey};
pub use kind::Kind;
pub use label::Label;
pub use local_label::{Level, local_labels};
pub use pass::{Next, Pass};
pub use period::{Granularity, Moment, Period};
pub use relabel::{Granularities, partition_name, relabel};
pub(crate) use selection::glob;
pub use selection::{Patterns, Selection};
pub use status::Status;
pub use taken::{Taken, TakenRows};
pub use throttle::{Hold, Limits, Meter, Pressure, TokenBucket, decide};
