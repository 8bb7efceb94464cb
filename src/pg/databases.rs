//! The databases of the cluster, for a process that is connected to none.

use pgrx::pg_sys;

/// `datconnlimit` of a database whose DROP was interrupted.
const INVALID: i32 = -2;

/// Every database that takes connections and is no template, in the order of their creation.
///
/// Reads `pg_database` row by row, as autovacuum's launcher does: without a database there is no SQL. Takes ACCESS SHARE
/// on it for the moment.
pub fn connectable() -> Vec<pg_sys::Oid> {
    let mut found = Vec::new();
    // SAFETY: a catalog scan in a transaction of its own; each tuple is looked at before the next is fetched, and
    // FormData_pg_database is the fixed part that every row has. An error ends the process, and with it the scan.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let row = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            if row.datallowconn && !row.datistemplate && row.datconnlimit != INVALID {
                found.push(row.oid);
            }
        }
        pg_sys::heap_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as pg_sys::LOCKMODE);
        pg_sys::CommitTransactionCommand();
    }
    found.sort_by_key(|oid| oid.to_u32());
    found
}
