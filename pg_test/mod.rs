//! What one rolled-back transaction can prove.

mod engine;
mod fdw;
mod server;
mod storage;

/// pgrx's hooks of the test cluster.
pub fn setup(_options: Vec<&str>) {}

/// Settings of the test cluster.
#[must_use]
pub fn postgresql_conf_options() -> Vec<&'static str> {
    vec!["shared_preload_libraries = 'archive_ext'", "max_worker_processes = 16"]
}
