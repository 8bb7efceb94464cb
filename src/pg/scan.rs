//! A sequential scan over a table's rows through the table access method.

use pgrx::pg_sys;

use super::interrupts;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::Row;
use super::snapshot::LatestSnapshot;
use super::tuple_id::TupleId;

/// Visible rows in physical order. Detoasted values live in a context that is reset for each row.
#[derive(Debug)]
pub struct TableScan<'a> {
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    memory: MemoryContext,
    in_range: bool,
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
        let memory = MemoryContext::new(c"archive_ext row");
        Self { scan, slot, memory, in_range: false, _relation: relation, _snapshot: snapshot }
    }

    /// Begins a scan of the rows from `from` up to, but without, `to`. Only where [`Self::has_ranges`].
    pub fn begin_range(relation: &'a Relation, snapshot: &'a LatestSnapshot, from: TupleId, to: TupleId) -> Self {
        let (mut first, mut last) = (from.pointer(), to.before().pointer());
        // SAFETY: as in `begin`; the bounds are copied.
        let (scan, slot) = unsafe {
            (
                pg_sys::table_beginscan_tidrange(relation.as_ptr(), snapshot.as_ptr(), &raw mut first, &raw mut last),
                pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut()),
            )
        };
        let memory = MemoryContext::new(c"archive_ext row");
        Self { scan, slot, memory, in_range: true, _relation: relation, _snapshot: snapshot }
    }

    /// Whether the table's access method scans ranges of places; the heap does.
    pub fn has_ranges(relation: &Relation) -> bool {
        // SAFETY: an open relation with storage has an access method.
        unsafe { (*(*relation.as_ptr()).rd_tableam).scan_set_tidrange.is_some() }
    }

    /// Where the row is that [`Self::next_row`] visited last.
    pub fn place(&self) -> TupleId {
        // SAFETY: the slot is live.
        TupleId::of(unsafe { (*self.slot).tts_tid })
    }

    /// Calls `visit` with the next row; `None` after the last. Interrupts are checked for each row.
    pub fn next_row<T>(&mut self, visit: impl FnOnce(Row<'_>) -> T) -> Option<T> {
        interrupts::check();
        self.memory.reset();
        // SAFETY: scan and slot are live; after slot_getallattrs tts_values and tts_isnull hold natts entries.
        let row = unsafe {
            let forward = pg_sys::ScanDirection::ForwardScanDirection;
            let found = if self.in_range {
                pg_sys::table_scan_getnextslot_tidrange(self.scan, forward, self.slot)
            } else {
                pg_sys::table_scan_getnextslot(self.scan, forward, self.slot)
            };
            if !found {
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
