//! Which status may follow which.

use super::Status;
use crate::error::{Error, ErrorKind, Result};

/// The statuses that may follow `from`.
pub fn legal(from: Status) -> &'static [Status] {
    match from {
        Status::Live => &[Status::Hot, Status::Warm, Status::Archived],
        Status::Hot => &[Status::Warm, Status::Archived],
        Status::Warm => &[Status::Archived],
        Status::Archived => &[Status::Warm],
    }
}

/// Refuses a move that is not legal, naming those that are.
pub fn check(from: Status, to: Status) -> Result<()> {
    if legal(from).contains(&to) {
        return Ok(());
    }
    let names: Vec<_> = legal(from).iter().map(|status| status.as_str()).collect();
    Err(Error::new(ErrorKind::InvalidState, format!("cannot go from {from} to {to}"))
        .hint(format!("From {from} the next status is {}.", names.join(" or "))))
}
