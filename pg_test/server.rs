//! What `src/pg` makes of the server: waits and the write-ahead log.
#![allow(clippy::unwrap_used)] // A test fails by panicking.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;

    use crate::error::{Error, SqlState};
    use crate::pg::{lock, wal};
    use crate::pg_test::storage::{run, text};

    #[pg_test]
    fn only_a_wait_that_is_over_is_none() {
        let fails = |code| move || Err::<(), _>(Error::new(code, "it fails"));
        assert_eq!(lock::within(100, || Ok(1)).unwrap(), Some(1));
        assert_eq!(lock::within(100, fails(SqlState::ERRCODE_LOCK_NOT_AVAILABLE)).unwrap(), None);
        for code in [SqlState::ERRCODE_T_R_DEADLOCK_DETECTED, SqlState::ERRCODE_OUT_OF_MEMORY] {
            assert_eq!(lock::within(100, fails(code)).unwrap_err().sqlstate(), code);
        }
        // The setting is what it was, whatever came of it.
        assert_eq!(text("SELECT current_setting('lock_timeout')"), "0");
    }

    /// Writes a message of so many bytes and flushes it; whether the next record comes right behind the header of a page.
    fn flushed(bytes: &str) -> bool {
        let written = text(&format!("SELECT pg_logical_emit_message(false, '', repeat('x', {bytes}))::text"));
        wal::flush();
        assert_eq!(text(&format!("SELECT (pg_current_wal_flush_lsn() >= '{written}')::text")), "true");
        text("SELECT ((pg_current_wal_insert_lsn() - '0/0') % 8192 = 24)::text") == "true"
    }

    /// Where a page or a segment begins, nothing is written yet that could be flushed.
    #[pg_test]
    fn the_log_is_flushed_wherever_its_last_record_ends() {
        for _ in 0..3 {
            flushed("1");
            run("SELECT pg_switch_wal()");
            wal::flush();
        }
        // Others write meanwhile, so it is tried until one ends with its page.
        let left = "8192 - (pg_current_wal_insert_lsn() - '0/0')::int8 % 8192";
        let hit = (0..2000).any(|turn| {
            flushed(&format!("CASE WHEN {left} < 400 THEN 600 ELSE 1 END"));
            flushed(&format!("({left})::int - 100 + 8 * {}", turn % 20))
        });
        assert!(hit, "no record ended with its page");
    }
}
