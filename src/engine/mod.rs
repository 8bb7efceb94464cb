//! What the verbs do. One engine, two drivers: a function does every step in its caller's transaction, a procedure or
//! worker commits after each.

pub mod archive;
pub mod batch;
pub mod chain;
pub mod clock;
pub mod consistency;
pub mod copies;
pub mod counts;
pub mod drift;
mod expiry;
pub mod family;
pub mod garbage;
pub mod glacier;
pub mod hold;
pub mod import;
pub mod lifecycle;
pub mod lookup;
pub mod managed;
mod manifest;
pub mod object_locks;
mod period;
pub mod plan;
mod progress;
pub mod reading;
pub mod reattach;
mod restore;
mod reuse;
pub mod rewrite;
pub mod rows;
mod session;
pub mod steps;
pub mod storage;
pub mod throttle;
pub mod transition;
pub mod verification;
mod verify;
mod where_clause;
