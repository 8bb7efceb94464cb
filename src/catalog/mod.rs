//! The only SQL on archive_ext's own tables, and read-only queries on PostgreSQL's catalogs.
//!
//! Statements on our tables run elevated: they are fixed, and the search path is pinned.

pub mod alert;
pub mod archived;
pub mod batch_job;
pub mod chain;
pub mod child_table;
pub mod collation;
pub mod column_map;
pub mod compact_job;
pub mod consistency;
pub mod enums;
pub mod erasure;
pub mod event;
pub mod expiry;
pub mod finding;
pub mod frozen;
pub mod hold;
pub mod job;
pub mod key_filter;
pub mod managed_table;
pub mod month_count;
pub mod named;
pub mod object;
pub mod object_copy;
pub mod observed;
pub mod partition;
pub mod place;
pub mod policy;
pub mod policy_owner;
pub mod pressure;
pub mod price;
pub mod queue;
pub mod reading;
pub mod remnant;
pub mod restore_request;
pub mod rewrite;
pub mod row_expiry;
pub mod row_policy;
pub mod row_set;
pub mod storage;
pub mod tier;
pub mod time_key;
pub mod writers;

pub use collation::collation_version;
pub use enums::enums;

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// Whether this database has the extension.
pub fn extension_installed() -> Result<bool> {
    user::elevated(|| {
        spi::one("SELECT EXISTS (SELECT FROM pg_extension WHERE extname = 'archive_ext')", &[], |row| row.need(1))
    })
}

/// `schema.name` of a relation, quoted where needed; its OID as text when it is gone.
pub fn qualified_name(relation: pg_sys::Oid) -> Result<String> {
    user::elevated(|| {
        spi::one(
            "SELECT coalesce((SELECT format('%I.%I', n.nspname, c.relname)
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.oid = $1), $1::text)",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// Whether the current user may SELECT from a relation, all columns of it.
pub fn may_select(relation: pg_sys::Oid) -> Result<bool> {
    let me = user::current();
    user::elevated(|| {
        spi::one(
            "SELECT coalesce(has_table_privilege($1, $2, 'SELECT'), false)",
            &[me.into(), relation.into()],
            |row| row.need(1),
        )
    })
}

/// Whether the views show the current user what they hold of a table: who may SELECT from it, or reads all of them.
pub fn may_see(table: pg_sys::Oid) -> Result<bool> {
    Ok(user::reads_all_archives() || may_select(table)?)
}

/// Whether row-level security hides no row of `table` from the current user, or nothing that he could not undo: he may act
/// as its owner. Others are not shown errors, which quote rows, but for those who read all that the views hold.
pub fn sees_every_row(table: pg_sys::Oid) -> Result<bool> {
    if user::reads_all_archives() || !user::row_security_applies(table) {
        return Ok(true);
    }
    let owner = user::elevated(|| {
        spi::optional("SELECT relowner FROM pg_class WHERE oid = $1", &[table.into()], |row| row.need(1))
    })?;
    Ok(owner.is_some_and(user::has_privileges_of))
}
