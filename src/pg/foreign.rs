//! Foreign tables and the routine of their wrapper.

use std::path::PathBuf;

use pgrx::callconv::{BoxRet, FcInfo};
use pgrx::datum::Datum;
use pgrx::{PgBox, impl_sql_translatable, pg_sys};

use super::relation::Relation;

/// A `fdw_handler`: the table of a wrapper's callbacks.
#[derive(Debug)]
pub struct FdwHandler(*mut pg_sys::FdwRoutine);

impl_sql_translatable!(FdwHandler, "fdw_handler");

impl FdwHandler {
    /// A routine that `fill` completes.
    pub fn new(fill: impl FnOnce(&mut pg_sys::FdwRoutine)) -> Self {
        // SAFETY: alloc_node returns a zeroed node with the tag that belongs to the type.
        let mut routine = unsafe { PgBox::<pg_sys::FdwRoutine>::alloc_node(pg_sys::NodeTag::T_FdwRoutine) };
        fill(&mut routine);
        Self(routine.into_pg())
    }
}

// SAFETY: fdw_handler is a pseudo-type whose datum is a pointer to a palloc'd FdwRoutine.
unsafe impl BoxRet for FdwHandler {
    unsafe fn box_into<'fcx>(self, fcinfo: &mut FcInfo<'fcx>) -> Datum<'fcx> {
        // SAFETY: the datum is of the declared type.
        unsafe { fcinfo.return_raw_datum(pg_sys::Datum::from(self.0)) }
    }
}

/// The pointers of a list, in order; none for the empty list.
///
/// # Safety
/// `list` is NULL or a live list of pointers to `T`.
pub(super) unsafe fn list_pointers<T>(list: *const pg_sys::List) -> Vec<*mut T> {
    if list.is_null() {
        return Vec::new();
    }
    // SAFETY: the elements array of a pointer list holds `length` pointer cells.
    unsafe { (0..(*list).length as usize).map(|i| (*(*list).elements.add(i)).ptr_value.cast()).collect() }
}

/// Text of a String node, a Value node before PostgreSQL 15.
///
/// # Safety
/// `node` is a String node.
pub(super) unsafe fn string_value(node: *mut pg_sys::Node) -> *const std::ffi::c_char {
    #[cfg(feature = "pg14")]
    // SAFETY: by the caller's promise.
    unsafe {
        (*node.cast::<pg_sys::Value>()).val.str_
    }
    #[cfg(not(feature = "pg14"))]
    // SAFETY: by the caller's promise.
    unsafe {
        (*node.cast::<pg_sys::String>()).sval
    }
}

/// The options of a foreign table.
pub fn table_options(table: pg_sys::Oid) -> Vec<(String, String)> {
    // SAFETY: GetForeignTable raises an error for anything but a foreign table; its options are DefElems.
    unsafe {
        let options = list_pointers::<pg_sys::DefElem>((*pg_sys::GetForeignTable(table)).options);
        options.into_iter().map(|option| (text((*option).defname), text(pg_sys::defGetString(option)))).collect()
    }
}

/// # Safety
/// `text` is NULL or a NUL-terminated string.
pub(super) unsafe fn text(text: *const std::ffi::c_char) -> String {
    if text.is_null() {
        return String::new();
    }
    // SAFETY: by the caller's promise.
    unsafe { super::server_text::of_c_string(text) }
}

/// The role that owns `relation`.
pub fn owner(relation: &Relation) -> pg_sys::Oid {
    // SAFETY: rd_rel of an open relation is valid while it is open.
    unsafe { (*(*relation.as_ptr()).rd_rel).relowner }
}

/// The cluster's data directory.
pub fn data_directory() -> PathBuf {
    // SAFETY: DataDir is set before any backend starts and never changes.
    PathBuf::from(unsafe { text(pg_sys::DataDir) })
}
