//! An open relation with its lock.

use pgrx::pg_sys;

/// Table lock levels, weakest first (PostgreSQL's lockdefs.h).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(i32)]
pub enum LockMode {
    /// ACCESS SHARE: what SELECT takes.
    AccessShare = 1,
    /// ROW EXCLUSIVE: what DELETE takes.
    RowExclusive = 3,
    /// SHARE UPDATE EXCLUSIVE: what VACUUM takes; conflicts with itself and every schema change.
    ShareUpdateExclusive = 4,
    /// SHARE ROW EXCLUSIVE: what CREATE TRIGGER takes.
    ShareRowExclusive = 6,
    /// ACCESS EXCLUSIVE: conflicts with everything.
    AccessExclusive = 8,
}

/// A relation held open. The lock stays until the end of the transaction, but for a peek.
#[derive(Debug)]
pub struct Relation {
    relation: pg_sys::Relation,
    release: LockToRelease,
}

/// `relation_close`'s lock mode: 0 keeps the lock.
type LockToRelease = i32;

impl Relation {
    /// Opens any relation; `None` when it was dropped.
    pub fn open(oid: pg_sys::Oid, lock: LockMode) -> Option<Self> {
        // SAFETY: try_relation_open returns NULL for a relation that is gone.
        let relation = unsafe { pg_sys::try_relation_open(oid, lock as i32) };
        // Not then_some: that would make one of NULL, too, and drop it.
        (!relation.is_null()).then(|| Self { relation, release: pg_sys::NoLock as i32 })
    }

    /// Opens a relation to look at it: ACCESS SHARE, given back on drop.
    pub fn peek(oid: pg_sys::Oid) -> Option<Self> {
        let mut relation = Self::open(oid, LockMode::AccessShare)?;
        relation.release = LockMode::AccessShare as i32;
        Some(relation)
    }

    pub(super) fn as_ptr(&self) -> pg_sys::Relation {
        self.relation
    }

    fn form(&self) -> &pg_sys::FormData_pg_class {
        // SAFETY: rd_rel of an open relation is valid while it is open.
        unsafe { &*(*self.relation).rd_rel }
    }

    /// The relation's OID.
    pub fn oid(&self) -> pg_sys::Oid {
        // SAFETY: open relation.
        unsafe { (*self.relation).rd_id }
    }

    /// Who owns it.
    pub fn owner(&self) -> pg_sys::Oid {
        self.form().relowner
    }

    /// Whether this transaction made it, so that nobody else can see it before the commit.
    pub fn is_made_here(&self) -> bool {
        const NO_SUBTRANSACTION: pg_sys::SubTransactionId = 0;
        // SAFETY: open relation.
        unsafe { (*self.relation).rd_createSubid != NO_SUBTRANSACTION }
    }

    /// Its unqualified name.
    pub fn name(&self) -> String {
        // SAFETY: relname is a NUL-terminated NameData.
        unsafe { super::server_text::of_c_string(self.form().relname.data.as_ptr()) }
    }

    /// The row type.
    pub(super) fn tupdesc(&self) -> pg_sys::TupleDesc {
        // SAFETY: open relation.
        unsafe { (*self.relation).rd_att }
    }

    /// Number of attributes, dropped ones included.
    pub fn attribute_count(&self) -> usize {
        // SAFETY: the tuple descriptor of an open relation is valid.
        unsafe { (*self.tupdesc()).natts as usize }
    }
}

/// Has this backend make its list of the partitions of a table, if it has none: of thousands that takes milliseconds, which are better
/// spent before the table is locked. Nothing where somebody holds the table in ACCESS EXCLUSIVE mode, or it is not partitioned.
pub fn list_partitions(table: pg_sys::Oid) {
    let lock = LockMode::AccessShare as i32;
    // SAFETY: the lock is held while the relation is open, and given back by what opened it; the list lives with the relation.
    unsafe {
        if !pg_sys::ConditionalLockRelationOid(table, lock) {
            return;
        }
        let relation = pg_sys::try_relation_open(table, pg_sys::NoLock as i32);
        if relation.is_null() {
            pg_sys::UnlockRelationOid(table, lock);
            return;
        }
        if (*(*relation).rd_rel).relkind == pg_sys::RELKIND_PARTITIONED_TABLE as i8 {
            pg_sys::RelationGetPartitionDesc(relation, true);
        }
        pg_sys::relation_close(relation, lock);
    }
}

impl Drop for Relation {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            // SAFETY: opened by `open` or `peek`, which says whether the lock is given back.
            unsafe { pg_sys::relation_close(self.relation, self.release) }
        }
    }
}
