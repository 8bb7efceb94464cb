//! Which version of a row there is, without a query: looked up through the primary key, as catalog rows are.

use std::ffi::CStr;

use pgrx::pg_sys;

use super::tuple_id::TupleId;

/// A version of a row: another one of the same row never equals it, but for wraparound within one page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowVersion {
    inserted_by: pg_sys::TransactionId,
    place: TupleId,
}

const SCHEMA: &CStr = c"archive_ext";

/// The version that is committed now of the row with this id, in a table of ours whose first column is its primary key, of type
/// `bigint`. `None` without such a row.
pub fn committed(table: &CStr, primary_key: &CStr, id: i64) -> Option<RowVersion> {
    // SAFETY: catalog lookups; the scan is closed before the table, and an error releases both. Without a snapshot of its own a
    // scan like this takes the latest.
    unsafe {
        let schema = pg_sys::get_namespace_oid(SCHEMA.as_ptr(), true);
        let table = pg_sys::get_relname_relid(table.as_ptr(), schema);
        let index = pg_sys::get_relname_relid(primary_key.as_ptr(), schema);
        if table == pg_sys::InvalidOid || index == pg_sys::InvalidOid {
            return None;
        }
        let lock = pg_sys::AccessShareLock as pg_sys::LOCKMODE;
        let relation = pg_sys::table_open(table, lock);
        let mut key = pg_sys::ScanKeyData::default();
        let equals = pg_sys::BTEqualStrategyNumber as pg_sys::StrategyNumber;
        pg_sys::ScanKeyInit(&mut key, 1, equals, pg_sys::F_INT8EQ.into(), pg_sys::Datum::from(id));
        let scan = pg_sys::systable_beginscan(relation, index, true, std::ptr::null_mut(), 1, &mut key);
        let found = pg_sys::systable_getnext(scan).as_ref().and_then(|tuple| {
            let header = tuple.t_data.as_ref()?;
            Some(RowVersion { inserted_by: header.t_choice.t_heap.t_xmin, place: TupleId::of(tuple.t_self) })
        });
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
        found
    }
}
