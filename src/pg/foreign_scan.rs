//! The executor's node of a foreign scan, and the state that hangs on it.

use std::ffi::CStr;
use std::marker::PhantomData;

use pgrx::{PgMemoryContexts, pg_sys};

use super::expr::Expressions;
use super::foreign::{list_pointers, string_value};
use super::row::RowBuffer;
use super::tuple_id::TupleId;

/// A node whose state, once kept, is a `T`. The query's memory owns the state, so an error anywhere frees it.
#[derive(Debug)]
pub struct ScanNode<T> {
    node: *mut pg_sys::ForeignScanState,
    state: PhantomData<T>,
}

impl<T> ScanNode<T> {
    /// # Safety
    /// `node` comes from an executor callback that is running, and its state is NULL or was kept as a `T`.
    pub unsafe fn new(node: *mut pg_sys::ForeignScanState) -> Self {
        Self { node, state: PhantomData }
    }

    /// The scanned relation.
    pub fn relation(&self) -> pg_sys::Oid {
        // SAFETY: ss_currentRelation of a base relation scan is open while the node lives.
        unsafe { (*(*self.node).ss.ss_currentRelation).rd_id }
    }

    fn plan(&self) -> &pg_sys::ForeignScan {
        // SAFETY: the plan node of a ForeignScanState is a ForeignScan.
        unsafe { &*(*self.node).ss.ps.plan.cast::<pg_sys::ForeignScan>() }
    }

    /// The text that the plan carries.
    pub fn plan_data(&self) -> String {
        // SAFETY: the plan's fdw_private holds one String node, made in BaseRel::plan.
        unsafe {
            match list_pointers::<pg_sys::Node>(self.plan().fdw_private).first() {
                Some(node) => CStr::from_ptr(string_value(*node)).to_string_lossy().into_owned(),
                None => String::new(),
            }
        }
    }

    /// Makes the plan's expressions ready. Called in BeginForeignScan.
    pub fn prepare_expressions(&self) -> Expressions {
        // SAFETY: the node is live; fdw_exprs is a list of expressions.
        unsafe { Expressions::prepare(self.node, list_pointers(self.plan().fdw_exprs)) }
    }

    /// Gives the node its state. Called in BeginForeignScan, once.
    pub fn keep(&mut self, state: T) {
        // SAFETY: the query context lives until the executor has ended or was aborted.
        unsafe {
            let context = (*(*self.node).ss.ps.state).es_query_cxt;
            (*self.node).fdw_state = PgMemoryContexts::For(context).leak_and_drop_on_delete(state).cast();
        }
    }

    /// Whether the processes of a parallel query share the scan.
    pub fn is_shared(&self) -> bool {
        self.plan().scan.plan.parallel_aware
    }

    /// Whether EXPLAIN ANALYZE, or something like it, counts what the node does.
    pub fn is_instrumented(&self) -> bool {
        // SAFETY: a live node.
        unsafe { !(*self.node).ss.ps.instrument.is_null() }
    }

    /// Runs `work` in the memory of the query, as BeginForeignScan is.
    pub fn in_query_memory<R>(&self, work: impl FnOnce() -> R) -> R {
        // SAFETY: as in `keep`; when an error leaves `work` the transaction's abort sets the memory to allocate from.
        unsafe {
            let before = pg_sys::MemoryContextSwitchTo((*(*self.node).ss.ps.state).es_query_cxt);
            let result = work();
            pg_sys::MemoryContextSwitchTo(before);
            result
        }
    }

    /// The state, if it was kept.
    pub fn state(&mut self) -> Option<&mut T> {
        // SAFETY: NULL or a T by the promise of `new`; callbacks of one node never run inside each other.
        unsafe { (*self.node).fdw_state.cast::<T>().as_mut() }
    }

    /// Puts a row into the node's slot, or leaves it empty, and returns the slot. The row's values live in the per-tuple
    /// memory. `place` is the row's `ctid`, where the query asks for it.
    pub fn slot(&self, row: Option<&RowBuffer>, place: Option<TupleId>) -> *mut pg_sys::TupleTableSlot {
        // SAFETY: the slot of a live node.
        unsafe {
            let slot = (*self.node).ss.ss_ScanTupleSlot;
            match row {
                Some(row) => fill_slot(slot, row),
                None => drop(pg_sys::ExecClearTuple(slot)),
            }
            if let Some(place) = place {
                (*slot).tts_tid = place.pointer();
            }
            slot
        }
    }
}

/// Puts a row into a virtual slot, which borrows its values.
///
/// # Safety
/// `slot` is live and virtual.
pub(super) unsafe fn fill_slot(slot: *mut pg_sys::TupleTableSlot, row: &RowBuffer) {
    // SAFETY: the slot has as many entries as its relation has attributes; no more are copied.
    unsafe {
        // A slot that owns nothing is cleared and stored to by these assignments alone: that of a scan is made for heap tuples, but
        // holds one only where it owns it.
        if u32::from((*slot).tts_flags) & pg_sys::TTS_FLAG_SHOULDFREE != 0 {
            pg_sys::ExecClearTuple(slot);
        }
        let (values, nulls) = row.parts();
        let count = values.len().min((*(*slot).tts_tupleDescriptor).natts as usize);
        std::ptr::copy_nonoverlapping(values.as_ptr(), (*slot).tts_values, count);
        std::ptr::copy_nonoverlapping(nulls.as_ptr(), (*slot).tts_isnull, count);
        store_virtual(slot);
    }
}

/// What `ExecStoreVirtualTuple` does.
///
/// # Safety
/// `slot` is live and empty, or holds no tuple and owns nothing; its values and flags are set.
pub(super) unsafe fn store_virtual(slot: *mut pg_sys::TupleTableSlot) {
    // SAFETY: by the caller's promise.
    unsafe {
        (*slot).tts_flags &= !(pg_sys::TTS_FLAG_EMPTY as u16);
        (*slot).tts_nvalid = (*(*slot).tts_tupleDescriptor).natts as i16;
    }
}

/// Whether the plan is only explained, not run.
pub fn explain_only(flags: i32) -> bool {
    flags & pg_sys::EXEC_FLAG_EXPLAIN_ONLY as i32 != 0
}
