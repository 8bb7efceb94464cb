//! The rows that ANALYZE asked for.

use pgrx::pg_sys;

use super::relation::Relation;
use super::row::RowBuffer;

/// The array ANALYZE gave, being filled.
#[derive(Debug)]
pub struct SampleRows {
    rows: *mut pg_sys::HeapTuple,
    capacity: usize,
    used: usize,
}

impl SampleRows {
    /// # Safety
    /// `rows` has room for `capacity` tuples and outlives this value.
    pub unsafe fn new(rows: *mut pg_sys::HeapTuple, capacity: i32) -> Self {
        Self { rows, capacity: usize::try_from(capacity).unwrap_or_default(), used: 0 }
    }

    /// Rows wanted at most.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows there.
    pub fn len(&self) -> usize {
        self.used
    }

    /// Adds a copy of the row, in the current memory context.
    pub fn push(&mut self, relation: &Relation, row: &RowBuffer) {
        if self.used == self.capacity {
            return;
        }
        let (values, nulls) = row.parts();
        // SAFETY: the row has one entry for each attribute; the array has room. Tuple forming reads both arrays only.
        unsafe {
            let tuple =
                pg_sys::heap_form_tuple(relation.tupdesc(), values.as_ptr().cast_mut(), nulls.as_ptr().cast_mut());
            *self.rows.add(self.used) = tuple;
        }
        self.used += 1;
    }
}
