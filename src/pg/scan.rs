//! A sequential scan over a table's rows through the table access method.

use pgrx::pg_sys;

use super::interrupts;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::Row;
use super::snapshot::LatestSnapshot;

/// Visible rows in physical order. Detoasted values live in a context that is reset for each row.
#[derive(Debug)]
pub struct TableScan<'a> {
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    memory: MemoryContext,
    _relation: &'a Relation,
    _snapshot: &'a LatestSnapshot,
}

impl<'a> TableScan<'a> {
    /// Begins a scan of `relation` under `snapshot`. Never synchronized with other scans: it starts at block 0, so two
    /// scans of a frozen table return its rows in the same order.
    pub fn begin(relation: &'a Relation, snapshot: &'a LatestSnapshot) -> Self {
        // SAFETY: relation and snapshot outlive the scan by the borrow.
        let (scan, slot) = unsafe {
            (
                pg_sys::table_beginscan_strat(
                    relation.as_ptr(),
                    snapshot.as_ptr(),
                    0,
                    std::ptr::null_mut(),
                    true,
                    false,
                ),
                pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut()),
            )
        };
        Self { scan, slot, memory: MemoryContext::new(c"archive_ext row"), _relation: relation, _snapshot: snapshot }
    }

    /// Calls `visit` with the next row; `None` after the last. Interrupts are checked for each row.
    pub fn next_row<T>(&mut self, visit: impl FnOnce(Row<'_>) -> T) -> Option<T> {
        interrupts::check();
        self.memory.reset();
        // SAFETY: scan and slot are live; after slot_getallattrs tts_values and tts_isnull hold natts entries.
        let row = unsafe {
            if !pg_sys::table_scan_getnextslot(self.scan, pg_sys::ScanDirection::ForwardScanDirection, self.slot) {
                return None;
            }
            pg_sys::slot_getallattrs(self.slot);
            let natts = (*(*self.slot).tts_tupleDescriptor).natts as usize;
            Row::new(
                std::slice::from_raw_parts((*self.slot).tts_values, natts),
                std::slice::from_raw_parts((*self.slot).tts_isnull, natts),
            )
        };
        Some(self.memory.within(|| visit(row)))
    }

    /// Frees what the last row's values took.
    pub fn release_row(&mut self) {
        self.memory.reset();
    }
}

impl Drop for TableScan<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created in `begin`; on an error the resource owner releases the buffer pins.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
                pg_sys::table_endscan(self.scan);
            }
        }
    }
}
