//! `archive_fdw`: reads archived partitions. One file per phase.
//!
//! | phase | file |
//! | --- | --- |
//! | `CREATE SERVER`, `CREATE FOREIGN TABLE`, … | `options` |
//! | planning | `plan`, with `pushdown` (clauses → conditions), `prune` (conditions → objects) and `estimates`, which remembers archives |
//! | `EXPLAIN` | `explain` |
//! | parallel execution | `shared` |
//! | execution | `exec`, after `key_filter` ruled out more objects, reading through `source` and `pg::reshape`; `extremes` where the catalog has the answer |
//! | `ANALYZE` | `analyze` |
//! | `INSERT`, `UPDATE`, `DELETE`, `TRUNCATE` | `modify`: refused |
//!
//! `frozen` refuses queries that need objects which must be restored first. `archive` finds out which partition a foreign table stands for, `routine` holds the callbacks. What a plan carries is
//! text (`pushdown::PlanData`), so it can be copied, cached and sent to parallel workers.

mod analyze;
mod archive;
mod datetime;
mod estimates;
mod exec;
mod explain;
mod extremes;
mod frozen;
mod key_filter;
mod metadata_cache;
mod modify;
mod options;
mod plan;
mod prune;
mod pushdown;
mod routine;
mod shared;
mod source;

pub use routine::refuse_frozen;

use pgrx::{extension_sql, pg_extern, pg_sys};

use crate::error::OrRaise;
use crate::pg::foreign::FdwHandler;

/// The callbacks of `archive_fdw`.
#[pg_extern(schema = "archive_ext", parallel_safe)]
fn archive_fdw_handler() -> FdwHandler {
    FdwHandler::new(routine::fill)
}

/// Checks the options of servers, user mappings and foreign tables of `archive_fdw`.
#[pg_extern(schema = "archive_ext")]
fn archive_fdw_validator(options: Vec<String>, catalog: pg_sys::Oid) {
    options::validate(&options, catalog).or_raise();
}

extension_sql!(
    r#"
CREATE FOREIGN DATA WRAPPER archive_fdw
    HANDLER archive_ext.archive_fdw_handler VALIDATOR archive_ext.archive_fdw_validator;
"#,
    name = "fdw",
    requires = ["types", archive_fdw_handler, archive_fdw_validator]
);
