//! A storage directory for a test, and SQL in short.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use pgrx::prelude::*;

/// A storage directory that goes with the test.
pub struct Storage(pub PathBuf);

impl Storage {
    /// Makes it the default storage, under one name for all tests: those that archive wait for each other at the server, and
    /// not at the relations that they all make.
    pub fn create(settings: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("archive_ext_{}_{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let directory = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&directory).unwrap();
        run(&format!(
            "SET client_min_messages = error;
             CREATE SERVER fdw_cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{}');
             SET archive_ext.default_storage = 'fdw_cold';
             SET archive_ext.drop_after = 0;
             SET archive_ext.enable_catalog_answers = off;
             SET archive_ext.metadata_cache = 0;
             {settings}",
            directory.display()
        ));
        Self(directory)
    }

    /// Every file with this ending, in order.
    pub fn files(&self, ending: &str) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut directories = vec![self.0.clone()];
        while let Some(directory) = directories.pop() {
            for entry in std::fs::read_dir(directory).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    directories.push(path);
                } else if path.to_string_lossy().ends_with(ending) {
                    files.push(path);
                }
            }
        }
        files.sort();
        files
    }

    /// The only file with this ending.
    pub fn file(&self, ending: &str) -> PathBuf {
        let mut files = self.files(ending);
        assert_eq!(files.len(), 1, "{files:?}");
        files.remove(0)
    }
}

impl Drop for Storage {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Runs statements.
pub fn run(sql: &str) {
    Spi::run(sql).unwrap();
}

/// The text that a query returns, or an empty one.
pub fn text(sql: &str) -> String {
    Spi::get_one::<String>(sql).unwrap().unwrap_or_default()
}

/// The number that a query returns, or -1.
pub fn number(sql: &str) -> i64 {
    Spi::get_one::<i64>(sql).unwrap().unwrap_or(-1)
}
