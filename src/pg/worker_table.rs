//! What the launcher and the job workers tell about themselves in shared memory; there only when preloaded.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use pgrx::lwlock::PgLwLock;
use pgrx::shmem::PGRXSharedMemory;
use pgrx::{pg_guard, pg_shmem_init, pg_sys};

/// Job workers that can exist at the same time: the upper bound of `archive_ext.max_workers`.
pub const MAX_WORKERS: usize = 32;
/// Bytes kept of [`WorkerSlot::detail`].
const DETAIL: usize = 200;
/// A worker that did not start within this time never will: microseconds. Either way: the clock may have been set back meanwhile.
const START_LIMIT: i64 = 30_000_000;

/// What a worker is at, as an index into [`STATES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// Asked for, not running yet.
    Starting,
    /// The launcher between two rounds.
    Idle,
    /// The launcher on its round through the databases.
    Scanning,
    /// The launcher while `archive_ext.worker_enabled` is off.
    Disabled,
    /// A job worker looking for what is due.
    Scheduling,
    /// A job worker in a job.
    Working,
    /// A job worker in a job, waiting because the cluster is busy.
    Throttled,
}

/// What [`State`] is called.
pub const STATES: [&str; 7] = ["starting", "idle", "scanning", "disabled", "scheduling", "working", "throttled"];

/// One process.
#[derive(Debug, Clone, Copy)]
pub struct WorkerSlot {
    used: bool,
    /// Its process id; 0 until it runs.
    pub pid: i32,
    /// Its database; 0 for the launcher.
    pub database: u32,
    /// Its session user; 0 for the launcher.
    pub role: u32,
    /// See [`State`].
    pub state: u8,
    /// Id of its job, if it has one.
    pub job: Option<[u8; 16]>,
    /// Since when it is in this state: microseconds since 2000-01-01 UTC.
    pub since: i64,
    detail: [u8; DETAIL],
    detail_length: u8,
}

impl WorkerSlot {
    const EMPTY: Self = Self {
        used: false,
        pid: 0,
        database: 0,
        role: 0,
        state: State::Starting as u8,
        job: None,
        since: 0,
        detail: [0; DETAIL],
        detail_length: 0,
    };

    /// Why it waits.
    pub fn detail(&self) -> String {
        let text = self.detail.get(..usize::from(self.detail_length)).unwrap_or_default();
        String::from_utf8_lossy(text).into_owned()
    }

    fn show(&mut self, state: State, job: Option<[u8; 16]>, detail: &str) {
        if self.state != state as u8 || self.job != job {
            self.since = super::clock::now();
        }
        (self.state, self.job) = (state as u8, job);
        let mut end = detail.len().min(DETAIL);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        if let (Some(to), Some(from)) = (self.detail.get_mut(..end), detail.as_bytes().get(..end)) {
            to.copy_from_slice(from);
        }
        self.detail_length = end as u8;
    }
}

#[derive(Debug, Clone, Copy)]
struct Table {
    launcher: WorkerSlot,
    workers: [WorkerSlot; MAX_WORKERS],
    /// Somebody found no place on the launcher's last round.
    crowded: bool,
}

impl Default for Table {
    fn default() -> Self {
        Self { launcher: WorkerSlot::EMPTY, workers: [WorkerSlot::EMPTY; MAX_WORKERS], crowded: false }
    }
}

// SAFETY: plain old data without pointers.
unsafe impl PGRXSharedMemory for Table {}

// SAFETY: the only lock of this name.
static TABLE: PgLwLock<Table> = unsafe { PgLwLock::new(c"archive_ext_workers") };
static PRELOADED: AtomicBool = AtomicBool::new(false);
/// This process's slot: its index plus one, `LAUNCHER`, or 0.
static MINE: AtomicUsize = AtomicUsize::new(0);
const LAUNCHER: usize = usize::MAX;

/// Asks for the shared memory; called while the library is preloaded.
pub fn register() {
    pg_shmem_init!(TABLE = Table::default());
    PRELOADED.store(true, Ordering::Relaxed);
}

/// Whether there can be workers.
pub fn preloaded() -> bool {
    PRELOADED.load(Ordering::Relaxed)
}

/// What became of a wish for a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// This slot is the new worker's.
    Reserved(usize),
    /// One is at work for this role in this database.
    Taken,
    /// As many as allowed are at work; the launcher looks again when one of them ends.
    Full,
}

/// A place for a worker of `role` in `database`, when fewer than `limit` are at work.
pub fn reserve(database: pg_sys::Oid, role: pg_sys::Oid, limit: usize) -> Place {
    let (database, role) = (database.to_u32(), role.to_u32());
    let now = super::clock::now();
    let mut table = TABLE.exclusive();
    for slot in table.workers.iter_mut().filter(|slot| slot.pid == 0 && (now - slot.since).abs() > START_LIMIT) {
        *slot = WorkerSlot::EMPTY;
    }
    if table.workers.iter().any(|slot| slot.used && slot.database == database && slot.role == role) {
        return Place::Taken;
    }
    let at_work = table.workers.iter().filter(|slot| slot.used).count();
    match table.workers.iter().position(|slot| !slot.used).filter(|_| at_work < limit) {
        Some(index) => {
            table.workers[index] = WorkerSlot { used: true, database, role, since: now, ..WorkerSlot::EMPTY };
            Place::Reserved(index)
        }
        None => {
            table.crowded = true;
            Place::Full
        }
    }
}

/// Gives a reserved place back: its worker could not be started.
pub fn release(index: usize) {
    if let Some(slot) = TABLE.exclusive().workers.get_mut(index) {
        *slot = WorkerSlot::EMPTY;
    }
}

/// The new worker takes its place until it ends: database and role to work for. `None` when it came too late.
pub fn take(index: usize) -> Option<(pg_sys::Oid, pg_sys::Oid)> {
    clear_at_exit();
    let mut table = TABLE.exclusive();
    let slot = table.workers.get_mut(index).filter(|slot| slot.used && slot.pid == 0)?;
    slot.pid = std::process::id().cast_signed();
    MINE.store(index + 1, Ordering::Relaxed);
    Some((slot.database.into(), slot.role.into()))
}

/// The launcher takes its place.
pub fn begin_launcher() {
    clear_at_exit();
    MINE.store(LAUNCHER, Ordering::Relaxed);
    let pid = std::process::id().cast_signed();
    TABLE.exclusive().launcher = WorkerSlot { used: true, pid, ..WorkerSlot::EMPTY };
}

/// Tells what this worker is at. Nothing in a process that is none.
pub fn show(state: State, job: Option<[u8; 16]>, detail: &str) {
    match MINE.load(Ordering::Relaxed) {
        0 => {}
        LAUNCHER => TABLE.exclusive().launcher.show(state, job, detail),
        mine => {
            if let Some(slot) = TABLE.exclusive().workers.get_mut(mine - 1) {
                slot.show(state, job, detail);
            }
        }
    }
}

/// Whether this process is a job worker.
pub fn is_worker() -> bool {
    !matches!(MINE.load(Ordering::Relaxed), 0 | LAUNCHER)
}

/// Whether somebody waits for a place.
pub fn crowded() -> bool {
    TABLE.share().crowded
}

/// A round begins: who finds no place is counted anew.
pub fn begin_round() {
    TABLE.exclusive().crowded = false;
}

/// Whether fewer than `limit` workers are at work.
pub fn has_room(limit: usize) -> bool {
    TABLE.share().workers.iter().filter(|slot| slot.used).count() < limit
}

/// Process id of the launcher; `None` while there is none.
pub fn launcher() -> Option<i32> {
    preloaded().then(|| TABLE.share().launcher).filter(|slot| slot.used).map(|slot| slot.pid)
}

/// Every process: the launcher first.
pub fn all() -> Vec<WorkerSlot> {
    if !preloaded() {
        return Vec::new();
    }
    let table = *TABLE.share();
    std::iter::once(table.launcher).chain(table.workers).filter(|slot| slot.used).collect()
}

fn clear_at_exit() {
    // SAFETY: a static callback, registered once per process: only launcher and workers come here, once.
    unsafe { pg_sys::before_shmem_exit(Some(on_exit), pg_sys::Datum::null()) };
}

#[pg_guard]
unsafe extern "C-unwind" fn on_exit(_code: std::ffi::c_int, _arg: pg_sys::Datum) {
    match MINE.swap(0, Ordering::Relaxed) {
        0 => {}
        LAUNCHER => TABLE.exclusive().launcher = WorkerSlot::EMPTY,
        mine => release(mine - 1),
    }
}
