//! archive_ext: moves ageing PostgreSQL data to Parquet archives that stay queryable, restorable and proven equal.
//!
//! The layers, each calling only those below it (ARCHITECTURE.md): `api` and `worker`, `engine`, then `catalog`,
//! `partition` and `export`, then `pg`; `fdw` stands beside `engine`. Unsafe code lives in `pg` and C entry points.
#![deny(unsafe_code)]

#[macro_use]
mod failpoint;

mod api;
mod catalog;
mod engine;
mod error;
mod export;
mod fdw;
mod guc;
mod partition;
mod pg;
mod schema_sql;
mod shape;
mod worker;

pgrx::pg_module_magic!(name, version);

/// Registers the settings, the planner's hooks and, when preloaded, the shared memory of the progress view.
#[allow(unsafe_code)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    guc::register();
    #[cfg(feature = "failpoints")]
    failpoint::register();
    pg::shmem::register();
    pg::limited_plans::install(engine::reading::LIMIT);
    pg::executor_start::install(fdw::refuse_frozen);
}

#[cfg(any(test, feature = "pg_test"))]
#[path = "../pg_test/mod.rs"]
pub mod pg_test;
