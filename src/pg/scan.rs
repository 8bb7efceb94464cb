//! A sequential scan over a table's rows through the table access method.

use pgrx::pg_sys;

use super::interrupts;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::Row;
use super::snapshot::LatestSnapshot;
use super::tuple_id::TupleId;
use crate::error::{Error, SqlState};

unsafe extern "C-unwind" {
    /// As PostgreSQL exports it. pgrx's own has a guard of its own, as each of its functions: a guard a row is enough.
    fn slot_getsomeattrs_int(slot: *mut pg_sys::TupleTableSlot, attnum: i32);
}

/// `scan_getnextslot` of a table access method, or the same for ranges of places.
type NextSlot = unsafe extern "C-unwind" fn(
    pg_sys::TableScanDesc,
    pg_sys::ScanDirection::Type,
    *mut pg_sys::TupleTableSlot,
) -> bool;

/// Visible rows in physical order. Detoasted values live in a context that is reset for each row.
#[derive(Debug)]
pub struct TableScan<'a> {
    scan: pg_sys::TableScanDesc,
    slot: *mut pg_sys::TupleTableSlot,
    memory: MemoryContext,
    next_slot: NextSlot,
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
        let next_slot = function(relation, |methods| methods.scan_getnextslot);
        Self { scan, slot, memory, next_slot, _relation: relation, _snapshot: snapshot }
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
        let next_slot = function(relation, |methods| methods.scan_getnextslot_tidrange);
        Self { scan, slot, memory, next_slot, _relation: relation, _snapshot: snapshot }
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
        // SAFETY: scan and slot are live and of one relation, whose access method the functions are; after the attributes were
        // asked for tts_values and tts_isnull hold natts entries. Nothing that needs to be dropped is within the guard.
        let row = unsafe {
            let (scan, slot, next_slot) = (self.scan, self.slot, self.next_slot);
            let natts = (*(*slot).tts_tupleDescriptor).natts;
            let found = pg_sys::ffi::pg_guard_ffi_boundary(|| {
                let found = next_slot(scan, pg_sys::ScanDirection::ForwardScanDirection, slot);
                if found && i32::from((*slot).tts_nvalid) < natts {
                    slot_getsomeattrs_int(slot, natts);
                }
                found
            });
            if !found {
                return None;
            }
            let natts = natts as usize;
            Row::new(
                std::slice::from_raw_parts((*slot).tts_values, natts),
                std::slice::from_raw_parts((*slot).tts_isnull, natts),
            )
        };
        Some(self.memory.within(|| visit(row)))
    }

    /// Frees what the last row's values took.
    pub fn release_row(&mut self) {
        self.memory.reset();
    }
}

/// A function of the table's access method (0A000 where it has none).
fn function(relation: &Relation, of: impl Fn(&pg_sys::TableAmRoutine) -> Option<NextSlot>) -> NextSlot {
    // SAFETY: an open relation with storage has an access method.
    let methods = unsafe { &*(*relation.as_ptr()).rd_tableam };
    of(methods).unwrap_or_else(|| {
        let message = "the table's access method does not scan ranges of rows";
        Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, message).raise()
    })
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
