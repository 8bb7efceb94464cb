//! A second storage for what a policy archives: each object is written there and read back before rows may leave the table; what the first
//! storage cannot give is read from it, and restored from it.

mod copy;
mod job;
mod repair;

pub use copy::{Item, delete, delete_or_warn, ensure, make, manifests, wanted};
pub use job::{schedule, step};
pub use repair::repair;
