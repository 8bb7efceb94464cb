//! Who writes to a storage now, and which objects runs that are not done may still come to need.
//!
//! What a run has written is in the catalog when it commits, and not before. So that nothing of it is taken for garbage, each run
//! holds an advisory lock on the family of keys that it may write or take up again (`archive_core::naming::KeyName::family`), from before
//! its first look at the storage to the end of its transaction; whoever removes objects holds it too, while it looks into the catalog and
//! removes them. Between the transactions of a job its row says that it is not done.

use std::collections::HashSet;

use archive_core::naming::{self, KeyName};
use archive_core::store::BlockingStore;
use pgrx::Uuid;

use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::{lock, spi, user};

const WRITES: &str = "hashtextextended('archive_ext writes to ' || $1, 0)";
const FAMILY: &str = "hashtextextended('archive_ext ' || $1, 0)";

/// Notes, to the end of the transaction, that it writes to a storage: unfinished uploads may be its own.
pub fn enter(store: &BlockingStore) -> Result<()> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::execute(&format!("SELECT pg_advisory_xact_lock_shared({WRITES})"), &[location.as_str().into()])
    })?;
    Ok(())
}

/// When the oldest of the other transactions that write to the storage began, in seconds since 1970.
pub fn oldest(store: &BlockingStore) -> Result<Option<i64>> {
    let location = store.location().to_string();
    user::elevated(|| {
        spi::one(
            &format!(
                "SELECT floor(extract(epoch FROM min(coalesce(a.xact_start, 'epoch'))))::bigint
                 FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
                 WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted AND l.pid IS DISTINCT FROM pg_backend_pid()
                   AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                   AND ((l.classid::bigint << 32) | l.objid::bigint) = {WRITES}"
            ),
            &[location.as_str().into()],
            |row| row.get(1),
        )
    })
}

/// Keeps the objects of a family from being removed, to the end of the transaction; waits for a removal that is under way,
/// `archive_ext.lock_timeout` at most (55006).
pub fn hold_family(family: &str) -> Result<()> {
    let waited = lock::within(guc::lock_timeout_ms(), || {
        user::elevated(|| spi::execute(&format!("SELECT pg_advisory_xact_lock({FAMILY})"), &[family.into()]))
    })?;
    waited.map(drop).ok_or_else(|| {
        Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("another session works on the objects of \"{family}\""))
            .hint("It archives a partition of this name, or removes garbage. Run it again.")
    })
}

/// Takes the same lock if nobody has it.
pub fn try_hold_family(family: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one(&format!("SELECT pg_try_advisory_xact_lock({FAMILY})"), &[family.into()], |row| row.need(1))
    })
}

/// The families of jobs that are not done, as committed now.
pub fn unfinished_families() -> Result<HashSet<String>> {
    let jobs = user::elevated(|| {
        spi::rows(
            "SELECT j.job_id, n.nspname::text, c.relname::text, p.relname::text, j.progress ->> 'manifest'
             FROM archive_ext.archival_job j LEFT JOIN pg_class c ON c.oid = j.table_name::oid
             LEFT JOIN pg_namespace n ON n.oid = c.relnamespace LEFT JOIN pg_class p ON p.oid = j.partition::oid
             WHERE j.status IN ('pending', 'running', 'paused')",
            &[],
            |row| {
                let names = (row.get::<String>(2)?, row.get::<String>(3)?, row.get::<String>(4)?);
                Ok((row.need::<Uuid>(1)?, names, row.get::<String>(5)?))
            },
        )
    })?;
    let mut families = HashSet::new();
    for (id, names, manifest) in jobs {
        families.insert(naming::job_family(&id.to_string()));
        families.extend(manifest.and_then(|key| KeyName::of(&key).family()));
        if let (Some(schema), Some(table), Some(partition)) = names {
            let table = naming::table_prefix(&schema, &table);
            families.insert(naming::version_family(table.trim_end_matches('/'), &naming::encode_ident(&partition)));
        }
    }
    Ok(families)
}
