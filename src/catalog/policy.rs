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

/// The owner of a policy.
#[derive(Debug)]
pub struct Owner {
    /// The role.
    pub role: pg_sys::Oid,
    /// Its name.
    pub name: String,
    /// Whether it may log in.
    pub can_login: bool,
}

/// Everybody for whom there may be work: the owners of enabled policies of tables that exist.
pub fn owners() -> Result<Vec<Owner>> {
    user::elevated(|| {
        spi::rows(
            "SELECT r.oid, r.rolname::text, r.rolcanlogin FROM pg_roles r
             WHERE r.rolname IN (
                 SELECT p.owner FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source WHERE p.enabled)
             ORDER BY r.oid",
            &[],
            |row| Ok(Owner { role: row.need(1)?, name: row.need(2)?, can_login: row.need(3)? }),
        )
    })
}

/// The tables with an enabled policy that the current user set. Not those of roles that it is a member of: a superuser's
/// worker does nothing for others.
pub fn set_by_me() -> Result<Vec<pg_sys::Oid>> {
    let me = user::name_of(user::current());
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid FROM archive_ext.archive_policy p JOIN pg_class c ON c.oid = p.source
             WHERE p.enabled AND p.owner = $1::name ORDER BY c.oid",
            &[me.as_str().into()],
            |row| row.need(1),
        )
    })
}
