//! Progress of a running job: shared memory for other sessions when preloaded, notices otherwise.

use std::time::{Duration, Instant};

use pgrx::{Uuid, pg_sys};

use crate::guc;
use crate::pg::{background, interrupts, shmem};

/// Phase of a run as the progress view shows it; the order is that of [`shmem::PHASES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Guards are being committed.
    Freezing,
    /// Rows are written to objects.
    Exporting,
    /// Objects are read back.
    Verifying,
    /// Catalog changes under the parent's lock.
    Swapping,
    /// Rows are loaded from objects.
    Loading,
    /// Indexes and constraints are built.
    Indexing,
}

/// Publishes the progress of one job until dropped.
#[derive(Debug)]
pub struct Progress {
    slot: shmem::ProgressSlot,
    name: String,
    begun: Instant,
    last_notice: Instant,
    interval: Option<Duration>,
}

impl Progress {
    /// Progress of `job` on the partition `name` with about `rows_total` rows.
    pub fn new(job: Uuid, relation: pg_sys::Oid, name: &str, rows_total: u64) -> Self {
        let slot = shmem::ProgressSlot {
            pid: std::process::id().cast_signed(),
            database: background::my_database().to_u32(),
            relation: relation.to_u32(),
            job: *job.as_bytes(),
            rows_total,
            ..shmem::ProgressSlot::default()
        };
        let now = Instant::now();
        // Preloaded, the view is there and notices would only repeat it.
        let interval = if shmem::preloaded() { None } else { guc::progress_interval() };
        Self { slot, name: name.to_owned(), begun: now, last_notice: now, interval }
    }

    /// Begins a phase.
    pub fn phase(&mut self, phase: Phase) {
        self.slot.phase = phase as u8;
        self.slot.rows = 0;
        self.slot.bytes = 0;
        self.slot.phase_started = crate::pg::clock::now();
        self.begun = Instant::now();
        shmem::publish(&self.slot);
    }

    /// Sets the number of rows, once it is known exactly.
    pub fn rows_total(&mut self, rows: u64) {
        self.slot.rows_total = rows;
    }

    /// Reports rows and bytes done in this phase.
    pub fn tick(&mut self, rows: u64, bytes: u64) {
        interrupts::check_in_wait();
        self.slot.rows = rows;
        self.slot.bytes = bytes;
        shmem::publish(&self.slot);
        if self.interval.is_some_and(|interval| self.last_notice.elapsed() >= interval) {
            self.last_notice = Instant::now();
            self.notice();
        }
    }

    fn notice(&self) {
        let seconds = self.begun.elapsed().as_secs_f64().max(0.001);
        let phase = shmem::PHASES.get(usize::from(self.slot.phase)).copied().unwrap_or_default();
        let rows = self.slot.rows;
        let rate = rows as f64 / seconds;
        let percent = match self.slot.rows_total {
            0 => String::new(),
            total => format!(" ({:.0} %)", (100.0 * rows as f64 / total as f64).min(100.0)),
        };
        crate::pg::server_text::notice!(
            "{phase} {}: {rows} rows{percent}, {} MB, {rate:.0} rows/s",
            self.name,
            self.slot.bytes >> 20
        );
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        shmem::clear();
    }
}
