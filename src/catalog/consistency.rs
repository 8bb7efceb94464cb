//! Where the catalog and the relations of this database disagree, for tables that the current user may act as the owner of.

use pgrx::{Uuid, pg_sys};

use crate::error::Result;
use crate::pg::{spi, user};

/// A row of the catalog whose relation is not what it should be.
#[derive(Debug)]
pub struct Partition {
    /// Catalog id.
    pub id: i64,
    /// The hot table; it may be gone.
    pub source: pg_sys::Oid,
    /// Immediate hot parent.
    pub parent: pg_sys::Oid,
    /// Hot schema.
    pub schema: String,
    /// Name.
    pub name: String,
    /// FOR VALUES clause.
    pub bounds: String,
    /// Storage of its objects.
    pub storage: Option<String>,
    /// Version of its objects.
    pub version: i32,
    /// Whether it is a row set.
    pub row_set: bool,
}

impl Partition {
    /// `schema.name`, quoted where needed.
    pub fn qualified(&self) -> String {
        pgrx::spi::quote_qualified_identifier(&self.schema, &self.name)
    }
}

/// Rows of tables that are gone only superusers see: there is no owner.
fn partitions(condition: &str) -> Result<Vec<Partition>> {
    let (me, all) = (user::current(), user::is_superuser());
    let sql = format!(
        "SELECT p.id, m.source::oid, p.parent::oid, p.schema_name::text, p.partition_name::text, p.bounds, p.storage::text,
                p.version, p.row_set
         FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         LEFT JOIN pg_class c ON c.oid = m.source::oid
         WHERE ($2 OR pg_has_role($1, c.relowner, 'USAGE')) AND {condition} ORDER BY p.id"
    );
    user::elevated(|| {
        spi::rows(&sql, &[me.into(), all.into()], |row| {
            Ok(Partition {
                id: row.need(1)?,
                source: row.need(2)?,
                parent: row.need(3)?,
                schema: row.need(4)?,
                name: row.need(5)?,
                bounds: row.need(6)?,
                storage: row.get(7)?,
                version: row.need(8)?,
                row_set: row.need(9)?,
            })
        })
    })
}

/// Archived partitions and row sets whose foreign table does not exist.
pub fn without_foreign_table() -> Result<Vec<Partition>> {
    partitions(
        "p.status = 'ARCHIVED' AND p.columns IS NOT NULL
         AND NOT EXISTS (SELECT FROM pg_foreign_table f WHERE f.ftrelid = p.foreign_table::oid
                         AND f.ftoptions = ARRAY['partition_id=' || p.id])",
    )
}

/// Archived partitions whose local copy is noted and does not exist.
pub fn without_local_copy() -> Result<Vec<Partition>> {
    partitions(
        "p.local_copy IS NOT NULL AND NOT EXISTS (SELECT FROM pg_class l WHERE l.oid = p.local_copy::oid AND l.relkind = 'r'
                                                  AND starts_with(l.relname, p.partition_name || '__local_'))",
    )
}

/// Partitions in the hot table, once archived, that do not exist.
pub fn without_hot_table() -> Result<Vec<Partition>> {
    partitions(
        "p.status <> 'ARCHIVED' AND p.version > 0 AND p.superseded_at IS NULL AND p.hot_table IS NOT NULL
         AND NOT EXISTS (SELECT FROM pg_class h WHERE h.oid = p.hot_table::oid)",
    )
}

/// Archived partitions of which the hot table has one in the same place: their rows are read twice.
pub fn attached_twice() -> Result<Vec<Partition>> {
    partitions(
        "p.status = 'ARCHIVED' AND NOT p.row_set
         AND EXISTS (SELECT FROM pg_inherits i JOIN pg_class h ON h.oid = i.inhrelid
                     WHERE i.inhparent = p.parent::oid AND pg_get_expr(h.relpartbound, h.oid) = p.bounds)",
    )
}

/// Foreign tables of `archive_fdw` that no row of the catalog names.
pub fn unregistered_foreign_tables() -> Result<Vec<String>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            "SELECT format('%I.%I', n.nspname, c.relname)
             FROM pg_foreign_table f JOIN pg_foreign_server s ON s.oid = f.ftserver
             JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw AND w.fdwname = 'archive_fdw'
             JOIN pg_class c ON c.oid = f.ftrelid JOIN pg_namespace n ON n.oid = c.relnamespace
             WHERE pg_has_role($1, c.relowner, 'USAGE')
               AND NOT EXISTS (SELECT FROM archive_ext.partition p WHERE p.foreign_table::oid = f.ftrelid) ORDER BY 1",
            &[me.into()],
            |row| row.need(1),
        )
    })
}

/// A job that runs as the catalog says, and whose session is gone.
#[derive(Debug)]
pub struct LostJob {
    /// Its id.
    pub id: Uuid,
    /// The partition.
    pub partition: String,
    /// Whether the worker, or `run_lifecycle`, takes it up again.
    pub scheduled: bool,
    /// Whether a function was to do all of it: nobody can go on with it.
    pub by_function: bool,
}

/// Jobs whose session is gone.
pub fn lost_jobs() -> Result<Vec<LostJob>> {
    let (me, all) = (user::current(), user::is_superuser());
    user::elevated(|| {
        spi::rows(
            "SELECT j.job_id, j.partition_name, j.scheduled, NOT j.scheduled AND j.phase = 'frozen' AND j.progress IS NULL
             FROM archive_ext.archival_job j LEFT JOIN pg_class c ON c.oid = j.table_name::oid
             WHERE j.status = 'running' AND j.why_stopped IS NULL AND ($2 OR pg_has_role($1, c.relowner, 'USAGE'))
               AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = j.pid AND a.backend_start = j.pid_started)
             ORDER BY j.started_at",
            &[me.into(), all.into()],
            |row| {
                Ok(LostJob {
                    id: row.need(1)?,
                    partition: row.need(2)?,
                    scheduled: row.need(3)?,
                    by_function: row.need(4)?,
                })
            },
        )
    })
}

/// Hot partitions that refuse writes for a run, and no job of which says that there is one.
pub fn guarded_for_nobody(guard: &str) -> Result<Vec<(pg_sys::Oid, String)>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            r"SELECT c.oid, format('%I.%I', n.nspname, c.relname)
              FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid JOIN pg_namespace n ON n.oid = c.relnamespace
              WHERE t.tgname = $2 AND t.tgenabled = 'A' AND c.relispartition AND pg_has_role($1, c.relowner, 'USAGE')
                AND split_part(encode(t.tgargs, 'escape'), '\000', 1) IN ('archiving', 'rearranging')
                AND NOT EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.status IN ('pending', 'running', 'paused')
                                AND (j.partition::oid = c.oid OR j.request -> 'sources' @> to_jsonb(c.oid::bigint)))
                AND NOT EXISTS (SELECT FROM archive_ext.partition p WHERE p.hot_table::oid = c.oid AND p.status = 'WARM'
                                AND NOT p.writable)
              ORDER BY 2",
            &[me.into(), guard.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Managed tables that have an archive and no view over both.
pub fn without_view() -> Result<Vec<(pg_sys::Oid, String)>> {
    tables("NOT EXISTS (SELECT FROM pg_class v WHERE v.oid = m.all_view::oid)")
}

/// Managed tables whose archive, or whose column map, has other columns than they have.
pub fn with_other_columns() -> Result<Vec<(pg_sys::Oid, String)>> {
    const HOT: &str = "SELECT attname, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = m.source::oid AND attnum > 0 AND NOT attisdropped";
    const ARCHIVE: &str = "SELECT attname, atttypid, atttypmod FROM pg_attribute
        WHERE attrelid = m.archive_table::oid AND attnum > 0 AND NOT attisdropped";
    const MAP: &str = "SELECT column_name FROM archive_ext.column_map
        WHERE managed_table = m.id AND column_name IS NOT NULL";
    tables(&format!(
        "(EXISTS ({HOT} EXCEPT {ARCHIVE}) OR EXISTS ({ARCHIVE} EXCEPT {HOT})
          OR EXISTS ({MAP}) AND (EXISTS (SELECT attname FROM ({HOT}) h EXCEPT {MAP})
                                 OR EXISTS ({MAP} EXCEPT SELECT attname FROM ({HOT}) h)))"
    ))
}

fn tables(condition: &str) -> Result<Vec<(pg_sys::Oid, String)>> {
    let me = user::current();
    let sql = format!(
        "SELECT c.oid, format('%I.%I', n.nspname, c.relname)
         FROM archive_ext.managed_table m JOIN pg_class c ON c.oid = m.source::oid
         JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_class a ON a.oid = m.archive_table::oid
         WHERE pg_has_role($1, c.relowner, 'USAGE') AND {condition} ORDER BY 2"
    );
    user::elevated(|| spi::rows(&sql, &[me.into()], |row| Ok((row.need(1)?, row.need(2)?))))
}

/// The storages that archived partitions are in.
pub fn storages() -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT storage::text FROM archive_ext.partition WHERE storage IS NOT NULL
             UNION SELECT storage::text FROM archive_ext.storage_claim ORDER BY 1",
            &[],
            |row| row.need(1),
        )
    })
}

/// The catalog's version of the partition that a manifest key is of, whatever its version, and its status.
pub fn version_beside(key_without_version: &str, storage: &str) -> Result<Option<(i32, String)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT version, status::text FROM archive_ext.partition
             WHERE storage = $2::name AND regexp_replace(manifest_key, '\\.v\\d+\\.json$', '') = $1",
            &[key_without_version.into(), storage.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Notes that a partition has no local copy any more.
pub fn forget_local_copy(id: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.partition SET local_copy = NULL, local_copy_until = NULL WHERE id = $1",
            &[id.into()],
        )
    })?;
    Ok(())
}
