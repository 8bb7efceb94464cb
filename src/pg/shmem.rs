//! The progress slots in shared memory, there only when the library was preloaded.

use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::lwlock::PgLwLock;
use pgrx::pg_sys;
use pgrx::shmem::PGRXSharedMemory;
use pgrx::{pg_guard, pg_shmem_init};

/// Runs that can show progress at the same time.
const SLOTS: usize = 64;

/// One running job as another session sees it.
#[derive(Debug, Clone, Copy, Default)]
pub struct ProgressSlot {
    /// Backend that runs it; 0 for a free slot.
    pub pid: i32,
    /// Its database.
    pub database: u32,
    /// The partition.
    pub relation: u32,
    /// The job's id.
    pub job: [u8; 16],
    /// Phase as an index into [`PHASES`].
    pub phase: u8,
    /// Rows done in this phase.
    pub rows: u64,
    /// Rows expected.
    pub rows_total: u64,
    /// Bytes written to or read from the storage.
    pub bytes: u64,
    /// When the phase began, microseconds since 2000-01-01 UTC.
    pub phase_started: i64,
}

/// What `phase` counts.
pub const PHASES: [&str; 6] = ["freezing", "exporting", "verifying", "swapping", "loading", "indexing"];

#[derive(Debug, Clone, Copy)]
struct Table([ProgressSlot; SLOTS]);

impl Default for Table {
    fn default() -> Self {
        Self([ProgressSlot::default(); SLOTS])
    }
}

// SAFETY: plain old data without pointers.
unsafe impl PGRXSharedMemory for Table {}

// SAFETY: the only lock of this name.
static PROGRESS: PgLwLock<Table> = unsafe { PgLwLock::new(c"archive_ext_progress") };
static PRELOADED: AtomicBool = AtomicBool::new(false);

/// Asks for the shared memory, and registers the launcher, when called from `shared_preload_libraries`.
pub fn register() {
    // SAFETY: reads a postmaster-local flag in _PG_init.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        pg_shmem_init!(PROGRESS = Table::default());
        PRELOADED.store(true, Ordering::Relaxed);
        super::worker_table::register();
        super::background::register_launcher();
    }
}

/// Whether the slots exist.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// Claims or updates this backend's slot. Without a free slot, or not preloaded, it does nothing.
pub fn publish(slot: &ProgressSlot) {
    if !preloaded() {
        return;
    }
    clear_at_exit();
    let mut table = PROGRESS.exclusive();
    let mine = table.0.iter().position(|s| s.pid == slot.pid).or_else(|| table.0.iter().position(|s| s.pid == 0));
    if let Some(entry) = mine.and_then(|index| table.0.get_mut(index)) {
        *entry = *slot;
    }
}

/// Frees this backend's slot.
pub fn clear() {
    if preloaded() {
        let pid = std::process::id().cast_signed();
        for slot in PROGRESS.exclusive().0.iter_mut().filter(|slot| slot.pid == pid) {
            *slot = ProgressSlot::default();
        }
    }
}

/// The slots of `database` in use.
pub fn running(database: u32) -> Vec<ProgressSlot> {
    if !preloaded() {
        return Vec::new();
    }
    PROGRESS.share().0.iter().filter(|slot| slot.pid != 0 && slot.database == database).copied().collect()
}

fn clear_at_exit() {
    static HOOKED: AtomicBool = AtomicBool::new(false);
    if !HOOKED.swap(true, Ordering::Relaxed) {
        // SAFETY: a static callback, registered once per backend.
        unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::null()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    clear();
}
