//! An export or a read-back holds SHARE UPDATE EXCLUSIVE on its partition for as long as it takes. Readers and writers do not
//! notice; ALTER TABLE of the whole table does, and while it waits it keeps all of them from the table. So it goes first, as
//! with autovacuum.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::interrupts::{self, Looking};
use crate::pg::{spi, user};

/// How often the work looks whom it holds up.
const EVERY: Duration = Duration::from_millis(500);

/// Until this is dropped, long work on `partition` ends (55P03) when somebody waits for it for whom readers or writers wait.
pub fn while_working(partition: pg_sys::Oid, name: &str) -> Looking {
    let (name, looked) = (name.to_owned(), Cell::new(Instant::now()));
    interrupts::also(move || {
        if looked.get().elapsed() >= EVERY {
            refuse(partition, &name).or_raise();
            looked.set(Instant::now());
        }
    })
}

fn refuse(partition: pg_sys::Oid, name: &str) -> Result<()> {
    let held_up = held_up(partition)?;
    if held_up.is_empty() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
        format!("the work on partition \"{name}\" gave way to another session"),
    )
    .detail(held_up.join(" "))
    .hint("Nothing was changed. Run it again when that has finished."))
}

/// Who waits for a lock on the partition behind which readers queue, or holds one above it that keeps readers or writers out, as
/// sentences; at most five.
fn held_up(partition: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT format('Process %s (user %s) waits for %s on it.', w.pid, coalesce(a.usename::text, '?'), w.mode)
             FROM pg_locks w LEFT JOIN pg_stat_activity a USING (pid)
             WHERE w.locktype = 'relation' AND w.relation = $1 AND NOT w.granted
               AND w.database = (SELECT oid FROM pg_database WHERE datname = current_database())
               AND (w.mode = 'AccessExclusiveLock'
                    OR EXISTS (SELECT FROM pg_locks h
                               WHERE h.pid = w.pid AND h.granted AND h.locktype = 'relation' AND h.database = w.database
                                 AND h.relation IN (SELECT relid FROM pg_partition_ancestors($1))
                                 AND h.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')))
             ORDER BY w.pid LIMIT 5",
            &[partition.into()],
            |row| row.need(1),
        )
    })
}
