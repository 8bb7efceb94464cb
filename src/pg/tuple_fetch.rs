//! Rows of a table by their places.

use pgrx::pg_sys;

use super::interrupts;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::Row;
use super::snapshot::LatestSnapshot;
use super::tuple_id::TupleId;

/// Fetches rows one by one. Detoasted values live in a context that is reset for each row.
#[derive(Debug)]
pub struct TupleFetch<'a> {
    relation: &'a Relation,
    snapshot: &'a LatestSnapshot,
    slot: *mut pg_sys::TupleTableSlot,
    shaped: Option<Shaped>,
    memory: MemoryContext,
}

/// A partition whose columns stand in another order than its parent's.
#[derive(Debug)]
struct Shaped {
    map: *mut pg_sys::TupleConversionMap,
    slot: *mut pg_sys::TupleTableSlot,
}

impl<'a> TupleFetch<'a> {
    /// Rows of `relation` that are visible in `snapshot`, in the shape of `like`: itself, or its partitioned table.
    pub fn begin(relation: &'a Relation, like: &Relation, snapshot: &'a LatestSnapshot) -> Self {
        // SAFETY: both relations are open; what is made here lives in the current memory context until dropped.
        let (slot, shaped) = unsafe {
            let slot = pg_sys::table_slot_create(relation.as_ptr(), std::ptr::null_mut());
            let wanted = (*like.as_ptr()).rd_att;
            let map = pg_sys::convert_tuples_by_name((*relation.as_ptr()).rd_att, wanted);
            let shaped = (!map.is_null()).then(|| Shaped {
                map,
                slot: pg_sys::MakeSingleTupleTableSlot(wanted, &raw const pg_sys::TTSOpsVirtual),
            });
            (slot, shaped)
        };
        Self { relation, snapshot, slot, shaped, memory: MemoryContext::new(c"archive_ext row") }
    }

    /// Calls `visit` with the row at `place`; `None` where no visible row is. Interrupts are checked for each row.
    pub fn row<T>(&mut self, place: TupleId, visit: impl FnOnce(Row<'_>) -> T) -> Option<T> {
        interrupts::check();
        self.memory.reset();
        let mut pointer = place.pointer();
        // SAFETY: relation, snapshot and slots are live; after slot_getallattrs tts_values and tts_isnull hold natts entries.
        let row = unsafe {
            let found = pg_sys::table_tuple_fetch_row_version(
                self.relation.as_ptr(),
                &raw mut pointer,
                self.snapshot.as_ptr(),
                self.slot,
            );
            if !found {
                return None;
            }
            let slot = match &self.shaped {
                Some(shaped) => pg_sys::execute_attr_map_slot((*shaped.map).attrMap, self.slot, shaped.slot),
                None => self.slot,
            };
            pg_sys::slot_getallattrs(slot);
            let natts = (*(*slot).tts_tupleDescriptor).natts as usize;
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

impl Drop for TupleFetch<'_> {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created in `begin`; on an error the resource owner releases the buffer pin.
            unsafe {
                if let Some(shaped) = &self.shaped {
                    pg_sys::ExecDropSingleTupleTableSlot(shaped.slot);
                    pg_sys::free_conversion_map(shaped.map);
                }
                pg_sys::ExecDropSingleTupleTableSlot(self.slot);
            }
        }
    }
}
