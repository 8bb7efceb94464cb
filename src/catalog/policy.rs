//! `archive_ext.archive_policy`: what a table's owner decided about its archive.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// The policy of a table; absent settings fall back to the GUCs.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Storage for new archives.
    pub storage: Option<String>,
    /// How long local copies stay, in seconds.
    pub drop_after_seconds: Option<i64>,
    /// Schema of the archive relations.
    pub archive_schema: Option<String>,
    /// Name of the archive parent.
    pub archive_name: Option<String>,
}

/// The policy of `source`, or an empty one.
pub fn of(source: pg_sys::Oid) -> Result<Policy> {
    let policy = user::elevated(|| {
        spi::optional(
            "SELECT storage::text, extract(epoch FROM drop_after)::bigint, archive_schema::text, archive_name::text
             FROM archive_ext.archive_policy WHERE source = $1::oid",
            &[source.into()],
            |row| {
                Ok(Policy {
                    storage: row.get(1)?,
                    drop_after_seconds: row.get(2)?,
                    archive_schema: row.get(3)?,
                    archive_name: row.get(4)?,
                })
            },
        )
    })?;
    Ok(policy.unwrap_or_default())
}

/// Writes the policy of `source`; `None` keeps what was set.
pub fn set(source: pg_sys::Oid, policy: &Policy) -> Result<()> {
    let actor = user::name_of(user::current());
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archive_policy AS p
               (source, storage, drop_after, archive_schema, archive_name, changed_by)
             VALUES ($1::oid, $2::name, make_interval(secs => $3), $4::name, $5::name, $6::name)
             ON CONFLICT (source) DO UPDATE SET
               storage = coalesce(excluded.storage, p.storage),
               drop_after = coalesce(excluded.drop_after, p.drop_after),
               archive_schema = coalesce(excluded.archive_schema, p.archive_schema),
               archive_name = coalesce(excluded.archive_name, p.archive_name),
               changed_at = now(), changed_by = excluded.changed_by",
            &[
                source.into(),
                policy.storage.as_deref().into(),
                policy.drop_after_seconds.map(|s| s as f64).into(),
                policy.archive_schema.as_deref().into(),
                policy.archive_name.as_deref().into(),
                actor.as_str().into(),
            ],
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

/// What a policy says about partitions that are in the database.
#[derive(Debug, Clone, Default)]
pub struct Ageing {
    /// Tablespace of HOT partitions.
    pub hot_tablespace: Option<String>,
    /// Tablespace of WARM partitions.
    pub warm_tablespace: Option<String>,
    /// Granularity of new partitions.
    pub live_granularity: Option<String>,
    /// Granularity of HOT labels.
    pub hot_granularity: Option<String>,
    /// Granularity of WARM labels.
    pub warm_granularity: Option<String>,
    /// How many coming partitions there should be.
    pub premake: Option<i32>,
}

/// The part of the policy of `source` that is about partitions in the database.
pub fn ageing(source: pg_sys::Oid) -> Result<Ageing> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT hot_tablespace::text, warm_tablespace::text, live_granularity, hot_granularity, warm_granularity,
                    premake
             FROM archive_ext.archive_policy WHERE source = $1::oid",
            &[source.into()],
            |row| {
                Ok(Ageing {
                    hot_tablespace: row.get(1)?,
                    warm_tablespace: row.get(2)?,
                    live_granularity: row.get(3)?,
                    hot_granularity: row.get(4)?,
                    warm_granularity: row.get(5)?,
                    premake: row.get(6)?,
                })
            },
        )
    })?;
    Ok(found.unwrap_or_default())
}
