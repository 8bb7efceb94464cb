//! What stays in a hot table of rows that are in its archive: rows that are marked, or stubs without their payload. One column of the
//! table, the marker, tells them from rows that are nowhere else.

use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::column_map;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// How rows stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Whole, with a boolean that is true.
    Marked,
    /// Without their payload, with the time at which it went.
    Stub,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Marked => "marked",
            Self::Stub => "stub",
        }
    }
}

/// The marker of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Marker {
    /// How its rows stay.
    pub kind: Kind,
    /// The column.
    pub column: String,
}

impl Marker {
    /// That a row of the relation called `alias` is nowhere else, as an SQL condition.
    pub fn live(&self, alias: &str) -> String {
        let column = quote_identifier(&self.column);
        match self.kind {
            Kind::Marked => format!("{alias}.{column} IS NOT TRUE"),
            Kind::Stub => format!("{alias}.{column} IS NULL"),
        }
    }

    /// That a row of the relation called `alias` is a remnant, as an SQL condition.
    pub fn remnant(&self, alias: &str) -> String {
        let column = quote_identifier(&self.column);
        match self.kind {
            Kind::Marked => format!("{alias}.{column} IS TRUE"),
            Kind::Stub => format!("{alias}.{column} IS NOT NULL"),
        }
    }
}

/// The marker of a hot table; `None` where archived rows leave it.
///
/// Errors: 2BP01 when the column is gone: remnants and other rows cannot be told apart.
pub fn of(source: pg_sys::Oid) -> Result<Option<Marker>> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT m.marker_kind, c.column_name::text, c.former_name::text FROM archive_ext.managed_table m
             JOIN archive_ext.column_map c ON c.managed_table = m.id AND c.field_id = m.marker_field
             WHERE m.source = $1::oid",
            &[source.into()],
            |row| Ok((row.need::<String>(1)?, row.get::<String>(2)?, row.need::<String>(3)?)),
        )
    })?;
    match found {
        None => Ok(None),
        Some((_, None, former)) => Err(lost(&former)),
        Some((kind, Some(column), _)) => {
            let kind = if kind == Kind::Marked.as_str() { Kind::Marked } else { Kind::Stub };
            Ok(Some(Marker { kind, column }))
        }
    }
}

fn lost(column: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST,
        format!("column \"{column}\" cannot be dropped: it tells which rows are in the archive"),
    )
    .hint("SELECT forget_marker(table) first, once no row is marked any more.")
}

/// Makes a column the marker of a managed table.
///
/// Errors: XX000 when the table's columns are not mapped yet.
pub fn set(managed_table: i64, marker: &Marker) -> Result<()> {
    let field = column_map::load(managed_table)?.id_of(&marker.column).ok_or_else(|| {
        Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("column \"{}\" is not mapped", marker.column))
    })?;
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.managed_table SET marker_kind = $2, marker_field = $3 WHERE id = $1",
            &[managed_table.into(), marker.kind.as_str().into(), field.into()],
        )
    })?;
    Ok(())
}

/// The managed table has no marker any more.
pub fn forget(managed_table: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.managed_table SET marker_kind = NULL, marker_field = NULL WHERE id = $1",
            &[managed_table.into()],
        )
    })?;
    Ok(())
}
