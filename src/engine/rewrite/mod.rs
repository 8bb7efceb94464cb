//! Objects of row sets that are written anew: small ones merged, and those of which rows go back to the table.
//!
//! New objects are written and read back first; then, in one commit, the catalog names them in the place of the old ones. Readers
//! read the list of objects by the snapshot by which they read the table, so none misses a row or sees it twice. What a rewrite
//! leaves that rolled back nothing names.

mod archived;
mod compact;
mod due;
mod insert;
mod job;
mod read;
mod request;
mod restore;
mod swap;
mod without;

pub use compact::compact;
pub use due::due;
pub use job::{begin, step};
pub use read::rows;
pub use request::Request;
pub use restore::{Conflict, restore};
