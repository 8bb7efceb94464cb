//! `archive_ext.managed_table`: the hot tables and where their archive is.

use archive_core::lifecycle::Kind;
use pgrx::pg_sys;

use crate::error::Result;
use crate::pg::{spi, user};

/// A managed table.
#[derive(Debug, Clone)]
pub struct ManagedTable {
    /// Its id.
    pub id: i64,
    /// How it ages.
    pub kind: Kind,
    /// Why it is never archived, when its kind is static.
    pub static_reason: Option<String>,
    /// Schema of the archive relations.
    pub archive_schema: String,
    /// Name of the archive parent; the view is this name with `_all`.
    pub archive_name: String,
    /// The archive parent, once made.
    pub archive_table: Option<pg_sys::Oid>,
    /// The view, once made.
    pub all_view: Option<pg_sys::Oid>,
}

const COLUMNS: &str = "id, kind, static_reason, archive_schema::text, archive_name::text,
    (SELECT c.oid FROM pg_class c WHERE c.oid = archive_table::oid),
    (SELECT c.oid FROM pg_class c WHERE c.oid = all_view::oid)";

fn managed_table(row: &spi::Row<'_>) -> Result<ManagedTable> {
    Ok(ManagedTable {
        id: row.need(1)?,
        kind: row.need::<String>(2)?.parse()?,
        static_reason: row.get(3)?,
        archive_schema: row.need(4)?,
        archive_name: row.need(5)?,
        archive_table: row.get(6)?,
        all_view: row.get(7)?,
    })
}

/// The managed table whose hot table is `source`.
pub fn of_source(source: pg_sys::Oid) -> Result<Option<ManagedTable>> {
    user::elevated(|| {
        let sql = format!("SELECT {COLUMNS} FROM archive_ext.managed_table WHERE source = $1::oid");
        spi::optional(&sql, &[source.into()], managed_table)
    })
}

/// The hot table that uses these archive names already. One that was dropped uses them as long as its archive is there.
pub fn source_of_archive(schema: &str, name: &str) -> Result<Option<pg_sys::Oid>> {
    user::elevated(|| {
        spi::optional(
            "SELECT source::oid FROM archive_ext.managed_table m
             WHERE archive_schema = $1::name AND archive_name = $2::name
               AND EXISTS (SELECT FROM pg_class c WHERE c.oid IN (m.source::oid, m.archive_table::oid))",
            &[schema.into(), name.into()],
            |row| row.need(1),
        )
    })
}

/// The managed tables of which the command that just ran dropped something, by hot table, and whether that still is there.
/// Within a `sql_drop` event trigger only.
pub fn touched_by_drop() -> Result<Vec<(pg_sys::Oid, bool)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT m.source::oid, EXISTS (SELECT FROM pg_class c WHERE c.oid = m.source::oid)
             FROM archive_ext.managed_table m
             WHERE m.archive_table IS NOT NULL AND EXISTS (
               SELECT FROM pg_event_trigger_dropped_objects() d
               WHERE d.classid = 'pg_class'::regclass
                 AND NOT (d.original AND d.objid = m.all_view::oid)
                 AND d.objid IN (m.source::oid, m.archive_table::oid, m.all_view::oid))
             ORDER BY m.id",
            &[],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// The hot tables with an archive in these schemas.
pub fn sources_in(schemas: &[String]) -> Result<Vec<pg_sys::Oid>> {
    user::elevated(|| {
        spi::rows(
            "SELECT c.oid FROM archive_ext.managed_table m JOIN pg_class c ON c.oid = m.source::oid
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname::text = ANY ($1)",
            &[schemas.to_vec().into()],
            |row| row.need(1),
        )
    })
}

/// Registers `source`, or returns what is registered. A registered row is not touched: calls that archive partitions of
/// one table must not wait for each other here.
pub fn register(source: pg_sys::Oid, kind: Kind, schema: &str, name: &str) -> Result<ManagedTable> {
    if let Some(managed) = of_source(source)? {
        return Ok(managed);
    }
    user::elevated(|| {
        let sql = format!(
            "INSERT INTO archive_ext.managed_table AS m (source, archive_schema, archive_name, kind)
             VALUES ($1::oid, $2::name, $3::name, $4)
             ON CONFLICT (source) DO UPDATE SET source = excluded.source RETURNING {COLUMNS}"
        );
        spi::one(&sql, &[source.into(), schema.into(), name.into(), kind.as_str().into()], managed_table)
    })
}

/// Notes the archive parent and the view.
pub fn set_archive(id: i64, archive_table: pg_sys::Oid, all_view: Option<pg_sys::Oid>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.managed_table SET archive_table = $2::oid, all_view = $3::oid
             WHERE id = $1 AND (archive_table, all_view) IS DISTINCT FROM ($2::oid::regclass, $3::oid::regclass)",
            &[id.into(), archive_table.into(), all_view.into()],
        )
    })?;
    Ok(())
}

/// Makes a registered table static, with the reason, or gives it its kind back.
pub fn set_kind(id: i64, kind: Kind, static_reason: Option<&str>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.managed_table SET kind = $2, static_reason = $3 WHERE id = $1",
            &[id.into(), kind.as_str().into(), static_reason.into()],
        )
    })?;
    Ok(())
}
