//! How busy the cluster is, as PostgreSQL's views tell. Read elevated: what others do is hidden from ordinary roles.

use std::time::Duration;

use crate::error::Result;
use crate::pg::{spi, user};

/// How far the slowest receiver of WAL is behind, in time and in bytes; `None` where none is, or none tells. `standbys`: only
/// those whose `application_name` is one of these count; of none, all do.
pub fn replication_lag(standbys: &[String]) -> Result<(Option<Duration>, Option<u64>)> {
    user::elevated(|| {
        spi::one(
            "SELECT extract(epoch FROM max(replay_lag))::float8,
                    max(pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn))::int8
             FROM pg_stat_replication WHERE state <> 'backup' AND (application_name = ANY ($1) OR $1 = '{}'::text[])",
            &[standbys.to_vec().into()],
            |row| {
                let seconds = row.get::<f64>(1)?.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
                Ok((seconds, row.get::<i64>(2)?.and_then(|bytes| u64::try_from(bytes).ok())))
            },
        )
    })
}

/// Bytes of WAL written since the cluster was made.
pub fn wal_written() -> Result<u64> {
    user::elevated(|| {
        spi::one("SELECT pg_wal_lsn_diff(pg_current_wal_lsn(), '0/0')::int8", &[], |row| {
            Ok(u64::try_from(row.need::<i64>(1)?).unwrap_or_default())
        })
    })
}

/// Transactions by which the oldest snapshot of another session, of a slot or of a prepared transaction is behind.
pub fn oldest_xmin_age() -> Result<Option<u64>> {
    user::elevated(|| {
        spi::one(
            "SELECT max(age(x))::int8 FROM (
                 SELECT unnest(ARRAY[backend_xmin, backend_xid]) FROM pg_stat_activity WHERE pid <> pg_backend_pid()
                 UNION ALL SELECT unnest(ARRAY[xmin, catalog_xmin]) FROM pg_replication_slots
                 UNION ALL SELECT transaction FROM pg_prepared_xacts) AS held (x)",
            &[],
            |row| Ok(row.get::<i64>(1)?.and_then(|age| u64::try_from(age).ok())),
        )
    })
}

/// Other sessions that wait for locks.
pub fn lock_waits() -> Result<u64> {
    user::elevated(|| {
        spi::one(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pid <> pg_backend_pid()",
            &[],
            |row| Ok(row.need::<i64>(1)?.unsigned_abs()),
        )
    })
}
