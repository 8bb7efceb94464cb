//! The write-ahead log.

use std::mem::size_of;

use pgrx::pg_sys;

/// Makes what is visible durable: with `synchronous_commit = off` others see a commit before it is in the log on disk.
pub fn flush() {
    // SAFETY: reads shared memory and waits until the log is written so far.
    unsafe { pg_sys::XLogFlush(end_of_record(pg_sys::GetXLogInsertRecPtr())) }
}

/// Where the last record ends. At the end of a page the place of the next one is behind the header of the page that follows, which
/// nobody has written yet: the log cannot be flushed so far.
fn end_of_record(next: u64) -> u64 {
    // SAFETY: reads a setting that is fixed when the cluster is made.
    let segment = u64::from(unsafe { pg_sys::wal_segment_size }.unsigned_abs());
    let header = match next % segment < u64::from(pg_sys::XLOG_BLCKSZ) {
        true => size_of::<pg_sys::XLogLongPageHeaderData>(),
        false => size_of::<pg_sys::XLogPageHeaderData>(),
    } as u64;
    if next % u64::from(pg_sys::XLOG_BLCKSZ) == header { next - header } else { next }
}
