//! `archive_ext.archive_policy`: what a table's owner decided about how it ages.

pub use archive_core::policy::Policy;
use pgrx::{JsonB, pg_sys};

use crate::error::Result;
use crate::pg::{spi, user};

/// SQL for the settings of policy `p` as JSON that [`Policy`] reads.
const SETTINGS: &str = "jsonb_strip_nulls(jsonb_build_object(
    'enabled', p.enabled, 'hot_after', p.hot_after::text, 'warm_after', p.warm_after::text,
    'archive_after', p.archive_after::text, 'glacier_after', p.glacier_after::text, 'glacier_class', p.glacier_class, 'expire_after', p.expire_after::text,
    'verify_after', p.verify_after::text, 'drop_after', p.drop_after::text, 'max_hot_bytes', p.max_hot_bytes,
    'idle_for', p.idle_for::text, 'live_granularity', p.live_granularity, 'hot_granularity', p.hot_granularity,
    'warm_granularity', p.warm_granularity, 'archive_granularity', p.archive_granularity, 'premake', p.premake,
    'storage', p.storage, 'copy_storage', p.copy_storage, 'object_lock', p.object_lock, 'format', p.format, 'compression', p.compression, 'hot_tablespace', p.hot_tablespace,
    'warm_tablespace', p.warm_tablespace, 'maintenance_window', p.maintenance_window, 'removal_column', p.removal_column,
    'time_column', p.time_column, 'key_kind', p.key_kind,
    'key_epoch', to_char(p.key_epoch AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI:SS.MS') || '+00',
    'max_attempts', p.max_attempts, 'archive_schema', p.archive_schema, 'archive_name', p.archive_name))";

/// A policy and the table it is for.
#[derive(Debug, Clone)]
pub struct TablePolicy {
    /// The table.
    pub source: pg_sys::Oid,
    /// `schema.table`.
    pub name: String,
    /// Its settings.
    pub policy: Policy,
}

/// The policy of `source`, or an empty one.
pub fn of(source: pg_sys::Oid) -> Result<Policy> {
    Ok(find(source)?.unwrap_or_default())
}

/// The policy of `source`, if it has one.
pub fn find(source: pg_sys::Oid) -> Result<Option<Policy>> {
    let settings = user::elevated(|| {
        spi::optional(
            &format!("SELECT {SETTINGS} FROM archive_ext.archive_policy p WHERE source = $1::oid"),
            &[source.into()],
            |row| row.need::<JsonB>(1),
        )
    })?;
    Ok(settings.map(|settings| serde_json::from_value(settings.0)).transpose()?)
}

/// The policies of tables that exist and whose owner the current user may act as, by name; of `source` alone if given.
pub fn mine(source: Option<pg_sys::Oid>) -> Result<Vec<TablePolicy>> {
    let me = user::current();
    let found = user::elevated(|| {
        spi::rows(
            &format!(
                "SELECT c.oid, format('%I.%I', n.nspname, c.relname), {SETTINGS}
                 FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source::oid
                 JOIN pg_namespace n ON n.oid = c.relnamespace
                 WHERE pg_has_role($1, c.relowner, 'USAGE') AND ($2 IS NULL OR c.oid = $2) ORDER BY 2"
            ),
            &[me.into(), source.into()],
            |row| Ok((row.need(1)?, row.need::<String>(2)?, row.need::<JsonB>(3)?)),
        )
    })?;
    let policy = |(source, name, settings): (_, _, JsonB)| {
        Ok(TablePolicy { source, name, policy: serde_json::from_value(settings.0)? })
    };
    found.into_iter().map(policy).collect()
}

/// Keeps others from changing the policy of `source` until the transaction ends.
pub fn lock(source: pg_sys::Oid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('archive_ext policy ' || $1::text, 0))",
            &[source.into()],
        )
    })?;
    Ok(())
}

/// Writes all settings of the policy of `source`, as `by` set them. Its jobs run as the current user from now on.
pub fn save(source: pg_sys::Oid, policy: &Policy, by: &str) -> Result<()> {
    let actor = user::name_of(user::current());
    let settings = JsonB(policy.settings().into());
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archive_policy AS p
               (source, owner, changed_by, enabled, hot_after, warm_after, archive_after, glacier_after, glacier_class, expire_after,
                verify_after, drop_after, max_hot_bytes, idle_for, live_granularity, hot_granularity, warm_granularity,
                archive_granularity, premake, storage, copy_storage, object_lock, format, compression, hot_tablespace, warm_tablespace,
                maintenance_window, removal_column, time_column, key_kind, key_epoch, max_attempts, archive_schema, archive_name)
             SELECT $1::oid, $2::name, $4::name, coalesce(s.enabled, true), s.hot_after, s.warm_after, s.archive_after,
                    s.glacier_after, s.glacier_class, s.expire_after, s.verify_after, s.drop_after, s.max_hot_bytes, s.idle_for,
                    s.live_granularity, s.hot_granularity, s.warm_granularity, s.archive_granularity, s.premake, s.storage, s.copy_storage, s.object_lock,
                    s.format, s.compression, s.hot_tablespace, s.warm_tablespace, s.maintenance_window, s.removal_column,
                    s.time_column, s.key_kind, s.key_epoch, coalesce(s.max_attempts, 5), s.archive_schema, s.archive_name
             FROM jsonb_populate_record(NULL::archive_ext.archive_policy, $3) s
             ON CONFLICT (source) DO UPDATE SET
               (owner, changed_by, enabled, hot_after, warm_after, archive_after, glacier_after, glacier_class, expire_after,
                verify_after, drop_after, max_hot_bytes, idle_for, live_granularity, hot_granularity, warm_granularity,
                archive_granularity, premake, storage, copy_storage, object_lock, format, compression, hot_tablespace, warm_tablespace,
                maintenance_window, removal_column, time_column, key_kind, key_epoch, max_attempts, archive_schema, archive_name, changed_at) =
               (excluded.owner, excluded.changed_by, excluded.enabled, excluded.hot_after, excluded.warm_after,
                excluded.archive_after, excluded.glacier_after, excluded.glacier_class, excluded.expire_after, excluded.verify_after,
                excluded.drop_after, excluded.max_hot_bytes, excluded.idle_for, excluded.live_granularity,
                excluded.hot_granularity, excluded.warm_granularity, excluded.archive_granularity, excluded.premake,
                excluded.storage, excluded.copy_storage, excluded.object_lock, excluded.format, excluded.compression, excluded.hot_tablespace, excluded.warm_tablespace,
                excluded.maintenance_window, excluded.removal_column, excluded.time_column, excluded.key_kind,
                excluded.key_epoch, excluded.max_attempts, excluded.archive_schema,
                excluded.archive_name, now())",
            &[source.into(), actor.as_str().into(), settings.into(), by.into()],
        )
    })?;
    Ok(())
}

/// Removes the policy of `source`; whether there was one.
pub fn drop(source: pg_sys::Oid) -> Result<bool> {
    let removed = user::elevated(|| {
        spi::execute("DELETE FROM archive_ext.archive_policy WHERE source = $1::oid", &[source.into()])
    })?;
    Ok(removed > 0)
}

/// Notes that somebody looked whether something is due; once an hour is enough for the alert that nobody does.
pub fn note_check(source: pg_sys::Oid) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archive_policy SET checked_at = clock_timestamp()
             WHERE source = $1::oid AND (checked_at IS NULL OR checked_at < clock_timestamp() - interval '1 hour')",
            &[source.into()],
        )
    })?;
    Ok(())
}

/// Names of the storages that exist.
pub fn storages() -> Result<Vec<String>> {
    names(
        "SELECT s.srvname::text FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw
         WHERE w.fdwname = 'archive_fdw' ORDER BY 1",
    )
}

/// Names of the tablespaces that exist.
pub fn tablespaces() -> Result<Vec<String>> {
    names("SELECT spcname::text FROM pg_tablespace WHERE spcname <> 'pg_global' ORDER BY 1")
}

fn names(sql: &str) -> Result<Vec<String>> {
    user::elevated(|| spi::rows(sql, &[], |row| row.need(1)))
}

/// Whether a storage has storage classes: S3 does, a directory does not.
pub fn has_classes(storage: &str) -> Result<bool> {
    let sql = format!("SELECT {}", super::tier::has_classes("$1::name"));
    user::elevated(|| spi::one(&sql, &[storage.into()], |row| row.need(1)))
}

/// The type of a column of `source`, and whether it holds times; `None` when there is no such column.
pub fn column_type(source: pg_sys::Oid, column: &str) -> Result<Option<(String, bool)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT format_type(a.atttypid, NULL), a.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
             FROM pg_attribute a WHERE a.attrelid = $1 AND a.attname = $2::name AND a.attnum > 0 AND NOT a.attisdropped",
            &[source.into(), column.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// The first column of the partition key and its type; `None` for expressions and for what is not partitioned.
pub fn key_column(source: pg_sys::Oid) -> Result<Option<(String, String)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT a.attname::text, format_type(a.atttypid, NULL)
             FROM pg_partitioned_table k JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
             WHERE k.partrelid = $1",
            &[source.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}
