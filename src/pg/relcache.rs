//! What is remembered about relations, and when it must be forgotten.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;

use pgrx::{IntoDatum, direct_function_call, pg_guard, pg_sys};

thread_local! {
    static WATCHED: RefCell<HashSet<u32>> = RefCell::new(HashSet::new());
    static GENERATION: Cell<u64> = const { Cell::new(0) };
    static REGISTERED: Cell<bool> = const { Cell::new(false) };
}

/// A number that changes when one of the watched relations may have changed. What was found out under another number is
/// to be forgotten.
pub fn generation() -> u64 {
    GENERATION.get()
}

/// Watches a relation until the next change of the generation.
pub fn watch(relation: pg_sys::Oid) {
    if !REGISTERED.replace(true) {
        // SAFETY: a static callback, registered once per backend.
        unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(invalidated), pg_sys::Datum::null()) }
    }
    WATCHED.with_borrow_mut(|watched| watched.insert(relation.to_u32()));
}

#[pg_guard]
unsafe extern "C-unwind" fn invalidated(_argument: pg_sys::Datum, relation: pg_sys::Oid) {
    WATCHED.with(|watched| {
        let Ok(mut watched) = watched.try_borrow_mut() else {
            GENERATION.set(GENERATION.get() + 1);
            return;
        };
        if relation == pg_sys::InvalidOid || watched.contains(&relation.to_u32()) {
            GENERATION.set(GENERATION.get() + 1);
            watched.clear();
        }
    });
}

/// Makes every session forget what it knows and has planned about a relation, when this transaction commits; a relation
/// that is gone is passed over.
pub fn invalidate(relation: pg_sys::Oid) {
    // SAFETY: catalog lookups; the relation exists when the message about it is queued.
    unsafe {
        if exists(relation) {
            pg_sys::CacheInvalidateRelcacheByRelid(relation);
        }
    }
}

fn exists(relation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup; 0 stands for a relation that is gone.
    unsafe { pg_sys::get_rel_relkind(relation) != 0 }
}

/// Whether a relation is a partition.
pub fn is_partition(relation: pg_sys::Oid) -> bool {
    // SAFETY: a syscache lookup.
    unsafe { pg_sys::get_rel_relispartition(relation) }
}

/// The root of the partition tree that a relation belongs to; `None` outside of one.
pub fn partition_root(relation: pg_sys::Oid) -> Option<pg_sys::Oid> {
    // SAFETY: the function takes one OID, returns one or NULL.
    unsafe { direct_function_call(pg_sys::pg_partition_root, &[relation.into_datum()]) }
}

/// Unqualified name of a relation; `None` when it is gone.
pub fn name(relation: pg_sys::Oid) -> Option<String> {
    // SAFETY: a syscache lookup; the result is NULL or a palloc'd C string.
    unsafe {
        let name = pg_sys::get_rel_name(relation);
        (!name.is_null()).then(|| super::server_text::of_c_string(name))
    }
}

/// Whether the current user may SELECT from a relation, or from one of its columns.
pub fn may_select(relation: pg_sys::Oid) -> bool {
    let mode = pg_sys::AclMode::from(pg_sys::ACL_SELECT);
    // SAFETY: catalog lookups for a relation that is locked by the query being planned.
    unsafe {
        let user = pg_sys::GetUserId();
        pg_sys::pg_class_aclcheck(relation, user, mode) == pg_sys::AclResult::ACLCHECK_OK
            || pg_sys::pg_attribute_aclcheck_all(relation, user, mode, pg_sys::AclMaskHow::ACLMASK_ANY)
                == pg_sys::AclResult::ACLCHECK_OK
    }
}

/// Whether an extension of this name is in the database.
pub fn has_extension(name: &std::ffi::CStr) -> bool {
    // SAFETY: a catalog lookup; with missing_ok an unknown extension is InvalidOid.
    unsafe { pg_sys::get_extension_oid(name.as_ptr(), true) != pg_sys::InvalidOid }
}
