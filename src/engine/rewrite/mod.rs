//! Objects that are written anew: of row sets small ones merged, and those of which rows go back to the table; of row sets and
//! partitions those of which rows are erased or corrected. What has expired leaves a row set the same way.
//!
//! New objects are written and read back first; then, in one commit, the catalog names them in the place of the old ones. Readers
//! read the list of objects by the snapshot by which they read the table, so none misses a row or sees it twice. What a rewrite
//! leaves that rolled back nothing names.

mod archived;
mod compact;
mod due;
mod erase;
mod insert;
mod job;
mod matched;
mod partition;
mod purge;
mod read;
mod request;
mod restore;
mod swap;
mod update;
mod without;

pub use compact::compact;
pub use due::due;
pub use erase::{Erased, Wish, erase};
pub use job::{begin, step};
pub use purge::{queue as queue_purge, settle, step as purge_step};
pub use read::rows;
pub use request::{Request, time_field};
pub use restore::{Conflict, restore};
pub use swap::take_out;
pub use update::update;
