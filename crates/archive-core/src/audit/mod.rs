//! What a storage holds against what the catalog names, and when what nobody needs may go. Pure: the caller lists the one
//! and reads the other.

mod comparison;
mod retention;

pub use comparison::{Comparison, Expected, Seen};
pub use retention::Retention;
