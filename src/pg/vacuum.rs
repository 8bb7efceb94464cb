//! VACUUM from a background worker. It commits transactions of its own, so no function can call it.

use std::ffi::CString;

use pgrx::pg_sys;

/// `VACUUM (FREEZE, SKIP_LOCKED) name`, outside any transaction. An error ends the process; a lock that others hold is not
/// waited for.
pub fn freeze(name: &str) {
    let Ok(sql) = super::server_text::statement(&format!("VACUUM (FREEZE, SKIP_LOCKED) {name}")) else { return };
    let sql: CString = sql;
    // SAFETY: as a backend does for a VACUUM at the top level: the parse tree lives in a context that outlasts the
    // transactions that VACUUM begins and ends, and a transaction is open before and after it.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        let context = pg_sys::AllocSetContextCreateInternal(
            pg_sys::TopMemoryContext,
            c"archive_ext vacuum".as_ptr(),
            pg_sys::ALLOCSET_DEFAULT_MINSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_INITSIZE as usize,
            pg_sys::ALLOCSET_DEFAULT_MAXSIZE as usize,
        );
        pg_sys::MemoryContextSwitchTo(context);
        let trees = pg_sys::pg_parse_query(sql.as_ptr());
        let raw = (*(*trees).elements).ptr_value.cast::<pg_sys::RawStmt>();
        let state = pg_sys::make_parsestate(std::ptr::null_mut());
        (*state).p_sourcetext = sql.as_ptr();
        pg_sys::ExecVacuum(state, (*raw).stmt.cast::<pg_sys::VacuumStmt>(), true);
        pg_sys::CommitTransactionCommand();
        pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        pg_sys::MemoryContextDelete(context);
    }
}
