//! PostgreSQL's external sort over whole rows: within `maintenance_work_mem`, then in temporary files.

use pgrx::pg_sys;

use super::columns::Column;
use super::foreign_scan::fill_slot;
use super::interrupts;
use super::memory::MemoryContext;
use super::relation::Relation;
use super::row::{Row, RowBuffer};
use crate::error::{Error, Result, SqlState};

/// Takes rows in any order and gives them back sorted, NULLs last.
#[derive(Debug)]
pub struct RowSort {
    state: *mut pg_sys::Tuplesortstate,
    input: *mut pg_sys::TupleTableSlot,
    output: *mut pg_sys::TupleTableSlot,
    memory: MemoryContext,
}

impl RowSort {
    /// Begins a sort of rows of `relation` by these columns, each in the default order of its type.
    ///
    /// Errors: 42883 for a column whose type has no order.
    pub fn begin(relation: &Relation, by: &[&Column]) -> Result<Self> {
        let operators = by.iter().map(|column| less_than(column)).collect::<Result<Vec<_>>>()?;
        let collations: Vec<_> = by.iter().map(|column| column.collation).collect();
        let numbers: Vec<_> = by.iter().map(|column| column.index as pg_sys::AttrNumber + 1).collect();
        // SAFETY: the copied descriptor and the slots live in the current memory context; the sort copies the arrays.
        unsafe {
            let descriptor = pg_sys::CreateTupleDescCopy(relation.tupdesc());
            Ok(Self {
                state: begin_heap(descriptor, numbers, operators, collations),
                input: pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsVirtual),
                output: pg_sys::MakeSingleTupleTableSlot(descriptor, &raw const pg_sys::TTSOpsMinimalTuple),
                memory: MemoryContext::new(c"archive_ext sorted row"),
            })
        }
    }

    /// Adds a copy of a row.
    pub fn put(&mut self, row: &RowBuffer) {
        // SAFETY: the slot is virtual and as wide as the relation; the sort copies what is in it.
        unsafe {
            fill_slot(self.input, row);
            pg_sys::tuplesort_puttupleslot(self.state, self.input);
            pg_sys::ExecClearTuple(self.input);
        }
    }

    /// Sorts: from here on rows are only taken. Long sorts check for interrupts.
    pub fn sort(&mut self) {
        // SAFETY: the state is live, and this is called once, after the last row.
        unsafe { pg_sys::tuplesort_performsort(self.state) }
    }

    /// Goes to the next row; whether there is one.
    pub fn advance(&mut self) -> bool {
        interrupts::check();
        self.memory.reset();
        // SAFETY: the state is sorted; the slot takes the sort's tuple, which lives until the next call.
        unsafe {
            let found = pg_sys::tuplesort_gettupleslot(self.state, true, false, self.output, std::ptr::null_mut());
            if found {
                pg_sys::slot_getallattrs(self.output);
            }
            found
        }
    }

    /// Calls `visit` with the row that [`Self::advance`] went to, in memory that is freed with the next one.
    pub fn visit<T>(&self, visit: impl FnOnce(Row<'_>) -> T) -> T {
        // SAFETY: after slot_getallattrs tts_values and tts_isnull hold natts entries.
        let row = unsafe {
            let slot = &*self.output;
            let natts = (*slot.tts_tupleDescriptor).natts as usize;
            Row::new(
                std::slice::from_raw_parts(slot.tts_values, natts),
                std::slice::from_raw_parts(slot.tts_isnull, natts),
            )
        };
        self.memory.within(|| visit(row))
    }
}

impl Drop for RowSort {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: created in `begin`; on an error the memory context and the resource owner free them.
            unsafe {
                pg_sys::ExecDropSingleTupleTableSlot(self.input);
                pg_sys::ExecDropSingleTupleTableSlot(self.output);
                pg_sys::tuplesort_end(self.state);
            }
        }
    }
}

fn less_than(column: &Column) -> Result<pg_sys::Oid> {
    // SAFETY: lookup_type_cache returns an entry that lives as long as the backend.
    let operator = unsafe { (*pg_sys::lookup_type_cache(column.type_oid, pg_sys::TYPECACHE_LT_OPR as i32)).lt_opr };
    if operator != pg_sys::InvalidOid {
        return Ok(operator);
    }
    Err(Error::new(
        SqlState::ERRCODE_UNDEFINED_FUNCTION,
        format!("rows cannot be sorted by column \"{}\": its type has no order", column.name),
    ))
}

/// # Safety
/// `descriptor` lives as long as the sort.
unsafe fn begin_heap(
    descriptor: pg_sys::TupleDesc,
    mut numbers: Vec<pg_sys::AttrNumber>,
    mut operators: Vec<pg_sys::Oid>,
    mut collations: Vec<pg_sys::Oid>,
) -> *mut pg_sys::Tuplesortstate {
    let mut nulls_first = vec![false; numbers.len()];
    #[cfg(feature = "pg14")]
    let no_options = false;
    #[cfg(not(feature = "pg14"))]
    let no_options = pg_sys::TUPLESORT_NONE as i32;
    // SAFETY: by the caller's promise; the arrays have one entry for each column.
    unsafe {
        pg_sys::tuplesort_begin_heap(
            descriptor,
            numbers.len() as i32,
            numbers.as_mut_ptr(),
            operators.as_mut_ptr(),
            collations.as_mut_ptr(),
            nulls_first.as_mut_ptr(),
            pg_sys::maintenance_work_mem,
            std::ptr::null_mut(),
            no_options,
        )
    }
}
