//! `archive_ext.child_table`: tables whose rows age with those of a parent.

use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// A child of a managed table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChildTable {
    /// The referenced table.
    pub parent: pg_sys::Oid,
    /// The referencing table.
    pub child: pg_sys::Oid,
    /// Name of the foreign key on the child.
    pub foreign_key: String,
}

/// The children of `parent`, in the order they were added.
pub fn of(parent: pg_sys::Oid) -> Result<Vec<ChildTable>> {
    user::elevated(|| {
        spi::rows(
            "SELECT parent::oid, child::oid, foreign_key::text FROM archive_ext.child_table t
             WHERE parent = $1::oid AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.child::oid)
             ORDER BY added_at, child::oid, foreign_key",
            &[parent.into()],
            child_table,
        )
    })
}

/// The parents of `child`.
pub fn parents(child: pg_sys::Oid) -> Result<Vec<ChildTable>> {
    user::elevated(|| {
        spi::rows(
            "SELECT parent::oid, child::oid, foreign_key::text FROM archive_ext.child_table t
             WHERE child = $1::oid AND EXISTS (SELECT FROM pg_class c WHERE c.oid = t.parent::oid)
             ORDER BY added_at, parent::oid, foreign_key",
            &[child.into()],
            child_table,
        )
    })
}

fn child_table(row: &spi::Row<'_>) -> Result<ChildTable> {
    Ok(ChildTable { parent: row.need(1)?, child: row.need(2)?, foreign_key: row.need(3)? })
}

/// Adds a child; whether it was new.
pub fn add(child: &ChildTable) -> Result<bool> {
    let actor = user::name_of(user::current());
    let added = user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.child_table (parent, child, foreign_key, added_by)
             VALUES ($1::oid, $2::oid, $3::name, $4::name) ON CONFLICT DO NOTHING",
            &[child.parent.into(), child.child.into(), child.foreign_key.as_str().into(), actor.as_str().into()],
        )
    })?;
    Ok(added > 0)
}

/// Removes a child; whether it was there.
pub fn remove(parent: pg_sys::Oid, child: pg_sys::Oid) -> Result<bool> {
    let removed = user::elevated(|| {
        spi::execute(
            "DELETE FROM archive_ext.child_table WHERE parent = $1::oid AND child = $2::oid",
            &[parent.into(), child.into()],
        )
    })?;
    Ok(removed > 0)
}
