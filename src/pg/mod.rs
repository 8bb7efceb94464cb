//! The only folder with unsafe code: small RAII wrappers over PostgreSQL's C API, and every version difference.
//!
//! Everything here must run on the backend's main thread (P11).
#![allow(unsafe_code)]

mod aggregates;
pub mod arena;
pub mod args;
pub mod background;
pub mod cast;
pub mod clause;
pub mod clock;
pub mod columns;
pub mod compare;
pub mod constant;
pub mod databases;
pub mod datum;
pub mod encoding;
pub mod event_trigger;
pub mod explain;
pub mod expr;
pub mod expression;
pub mod foreign;
pub mod foreign_scan;
pub mod guc;
pub mod interrupts;
pub mod io;
pub mod kept_plans;
pub mod key_arg;
pub mod limited_plans;
pub mod load;
pub mod lock;
pub mod mailbox;
pub mod memory;
pub mod move_rows;
pub mod parallel_scan;
pub mod planner;
pub mod relation;
pub mod relcache;
pub mod reshape;
pub mod row;
pub mod row_expr;
pub mod row_version;
pub mod sample;
pub mod scan;
pub mod server_text;
pub mod shmem;
pub mod snapshot;
pub mod sort;
pub mod spi;
pub mod trigger;
pub mod tuple_fetch;
pub mod tuple_id;
pub mod user;
pub mod vacuum;
mod varlena;
pub mod wal;
pub mod worker_table;
pub mod xact;
