//! Transactions with old snapshots. A partition that is attached is there for every query from then on, but its rows are not
//! for a snapshot that is older than the transaction which wrote them: such a query would read less than there is.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{background, spi, user};

/// The transactions that had a snapshot at some moment. Snapshots taken later see what was committed by then.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Held {
    /// Virtual transaction ids.
    transactions: Vec<String>,
    /// A snapshot whose oldest running transaction is younger than this was taken later.
    oldest: String,
}

/// Sessions of this database whose snapshots matter: VACUUM reads no rows for anybody, nor do our own workers, but for those
/// that do jobs.
const READERS: &str = "pg_locks l JOIN pg_stat_activity a ON a.pid = l.pid
    WHERE l.locktype = 'virtualxid' AND l.granted AND l.pid <> pg_backend_pid() AND a.datname = current_database()
      AND a.backend_xmin IS NOT NULL
      AND a.backend_type NOT IN ('autovacuum worker', 'archive_ext settler', 'archive_ext freezer', 'archive_ext scanner')
      AND NOT EXISTS (SELECT FROM pg_stat_progress_vacuum v WHERE v.pid = l.pid)";

/// The transactions that have a snapshot now.
pub fn held() -> Result<Held> {
    look_anew()?;
    user::elevated(|| {
        spi::one(
            &format!(
                "SELECT ARRAY(SELECT l.virtualxid FROM {READERS}), pg_snapshot_xmin(pg_current_snapshot())::xid::text"
            ),
            &[],
            |row| Ok(Held { transactions: row.need(1)?, oldest: row.need(2)? }),
        )
    })
}

/// Waits, at most `archive_ext.lock_timeout`, until none of these transactions has a snapshot of then any more; `what` may not
/// happen before. Else it fails naming them (55P03).
pub fn wait_for(held: &Held, what: &str) -> Result<()> {
    let timeout = guc::lock_timeout_ms();
    let begun = Instant::now();
    loop {
        let left = remaining(held)?;
        if left.is_empty() {
            return Ok(());
        }
        if begun.elapsed() >= Duration::from_millis(u64::try_from(timeout).unwrap_or(0)) {
            return Err(Error::new(
                SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
                format!("older snapshots were still in use after {timeout} ms, before {what}"),
            )
            .detail(left.join(" "))
            .hint(
                "They would read fewer rows than there are. Nothing was changed. Run it again when these have finished, \
                 or raise archive_ext.lock_timeout.",
            ));
        }
        background::pause(Duration::from_millis(20));
    }
}

/// Those that still have one, as sentences; at most five.
fn remaining(held: &Held) -> Result<Vec<String>> {
    if held.transactions.is_empty() {
        return Ok(Vec::new());
    }
    look_anew()?;
    user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT format('Process %s (user %s, %s, transaction began %s) has an older snapshot.', l.pid,
                               coalesce(a.usename::text, '?'), coalesce(a.state, a.backend_type),
                               coalesce(to_char(a.xact_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '?'))
                 FROM {READERS} AND l.virtualxid = ANY ($1) AND age(a.backend_xmin) >= age($2::xid)
                 ORDER BY a.xact_start LIMIT 5"
            ),
            &[held.transactions.clone().into(), held.oldest.as_str().into()],
            |row| row.need(1),
        )
    })
}

/// `pg_stat_activity` stays as a transaction saw it first.
fn look_anew() -> Result<()> {
    user::elevated(|| spi::execute("SELECT pg_stat_clear_snapshot()", &[]))?;
    Ok(())
}
