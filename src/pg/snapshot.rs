//! Snapshots taken at the moment of the call, never the transaction's.

use pgrx::pg_sys;

/// The latest snapshot, registered and active until dropped. Taken after the freeze, it sees every committed row.
#[derive(Debug)]
pub struct LatestSnapshot {
    snapshot: pg_sys::Snapshot,
}

impl LatestSnapshot {
    /// Takes and registers it.
    pub fn take() -> Self {
        // SAFETY: inside a transaction; Drop undoes both in reverse order, an abort does it on error.
        unsafe {
            let snapshot = pg_sys::RegisterSnapshot(pg_sys::GetLatestSnapshot());
            pg_sys::PushActiveSnapshot(snapshot);
            Self { snapshot }
        }
    }

    pub(super) fn as_ptr(&self) -> pg_sys::Snapshot {
        self.snapshot
    }
}

impl Drop for LatestSnapshot {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: undoes `take`.
            unsafe {
                pg_sys::PopActiveSnapshot();
                pg_sys::UnregisterSnapshot(self.snapshot);
            }
        }
    }
}
