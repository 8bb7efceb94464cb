//! `archive_ext.column_map`: which archived field each column of a managed table is now, and how rows that were archived
//! before the column existed are filled.

use pgrx::{JsonB, pg_sys};
use serde::{Deserialize, Serialize};

pub use archive_core::manifest::{CastSettings, Fill, MappedColumn, TypeStep};

use crate::error::Result;
use crate::pg::{background, spi, user};

/// All columns of a managed table, dropped ones included.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ColumnMap {
    /// The columns by field id.
    pub columns: Vec<MappedColumn>,
}

impl ColumnMap {
    /// The column of this name.
    pub fn named(&self, name: &str) -> Option<&MappedColumn> {
        self.columns.iter().find(|column| column.name.as_deref() == Some(name))
    }

    /// The column with this field id.
    pub fn field(&self, id: i32) -> Option<&MappedColumn> {
        self.columns.iter().find(|column| column.field_id == id)
    }

    /// Nothing was archived yet.
    pub fn is_empty(&self) -> bool {
        self.columns.is_empty()
    }

    /// Type OIDs of another database mean other types here, or none: of columns that came from there, names decide.
    #[must_use]
    pub fn known_here(mut self) -> Self {
        let here = format!("{}/", background::database_identity());
        for column in self.columns.iter_mut().filter(|column| !column.root.starts_with(&here)) {
            column.types.iter_mut().for_each(|step| step.oid = 0);
        }
        self
    }

    /// The field id of the column of this name.
    pub fn id_of(&self, name: &str) -> Option<i32> {
        self.named(name).map(|column| column.field_id)
    }
}

/// SQL for the map of a managed table as JSON; what reads it calls [`ColumnMap::known_here`].
pub fn as_json(managed_table: &str) -> String {
    format!(
        "SELECT coalesce(jsonb_agg(jsonb_build_object('field_id', field_id, 'name', column_name,
                'former_name', former_name, 'attnum', attnum, 'root', root_identity, 'types', types,
                'fill', CASE WHEN fill_kind = 'constant' THEN jsonb_build_object('kind', fill_kind, 'text', fill_text)
                        ELSE jsonb_build_object('kind', fill_kind) END) ORDER BY field_id), '[]')
         FROM archive_ext.column_map m WHERE m.managed_table = {managed_table}"
    )
}

/// The map of a managed table; empty before its first archive.
pub fn load(managed_table: i64) -> Result<ColumnMap> {
    let json = user::elevated(|| spi::one(&as_json("$1"), &[managed_table.into()], |row| row.need::<JsonB>(1)))?;
    Ok(serde_json::from_value::<ColumnMap>(json.0)?.known_here())
}

/// The map of the managed table with this root; empty when it is not managed.
pub fn of_source(source: pg_sys::Oid) -> Result<ColumnMap> {
    match super::managed_table::of_source(source)? {
        Some(managed) => load(managed.id),
        None => Ok(ColumnMap::default()),
    }
}

/// Takes over the map of another database: attribute numbers and OIDs mean nothing here, so names tell which column is
/// which until the next look at the table.
pub fn adopt(managed_table: i64, columns: &[MappedColumn]) -> Result<()> {
    columns.iter().try_for_each(|column| {
        let mut column = MappedColumn { attnum: None, root: String::new(), ..column.clone() };
        column.types.iter_mut().for_each(|step| step.oid = 0);
        save(managed_table, &column)
    })
}

/// Writes a column, new or changed.
pub fn save(managed_table: i64, column: &MappedColumn) -> Result<()> {
    let (kind, text) = match &column.fill {
        Fill::None => ("none", None),
        Fill::Constant(text) => ("constant", Some(text.as_str())),
        Fill::Volatile => ("volatile", None),
        Fill::Generated => ("generated", None),
    };
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.column_map AS m (managed_table, field_id, column_name, former_name, attnum,
                    root_identity, types, fill_kind, fill_text)
             VALUES ($1, $2, $3::name, $4::name, $5, $6, $7, $8, $9)
             ON CONFLICT (managed_table, field_id) DO UPDATE
               SET column_name = excluded.column_name, former_name = excluded.former_name, attnum = excluded.attnum,
                   root_identity = excluded.root_identity, types = excluded.types,
                   dropped_at = CASE WHEN excluded.column_name IS NULL
                                THEN coalesce(m.dropped_at, clock_timestamp()) END",
            &[
                managed_table.into(),
                column.field_id.into(),
                column.name.as_deref().into(),
                column.former_name.as_str().into(),
                column.attnum.into(),
                column.root.as_str().into(),
                JsonB(serde_json::to_value(&column.types)?).into(),
                kind.into(),
                text.into(),
            ],
        )
    })?;
    Ok(())
}

/// What tells a relation from every other, so that attribute numbers are not taken for those of another: a dump and
/// restore numbers them anew.
pub fn identity(relation: pg_sys::Oid) -> String {
    format!("{}/{}", background::database_identity(), relation.to_u32())
}

/// The settings that casts may depend on, as the session has them.
pub fn session_settings() -> Result<CastSettings> {
    spi::one(
        "SELECT pg_catalog.current_setting('TimeZone'), pg_catalog.current_setting('DateStyle'),
                pg_catalog.current_setting('IntervalStyle')",
        &[],
        |row| Ok(CastSettings { time_zone: row.need(1)?, date_style: row.need(2)?, interval_style: row.need(3)? }),
    )
}

/// The value that ALTER TABLE … ADD COLUMN filled the rows of the hot partitions with, where one has kept it without
/// being rewritten, and whether there is any hot partition with rows to fill.
pub fn filled_with(source: pg_sys::Oid, column: &str) -> Result<(Option<String>, bool)> {
    user::elevated(|| {
        spi::one(
            "SELECT (SELECT (a.attmissingval::text::text[])[1] FROM pg_partition_tree($1::oid) t
                     JOIN pg_attribute a ON a.attrelid = t.relid AND a.attname = $2::name
                     WHERE t.isleaf AND a.atthasmissing LIMIT 1),
                    EXISTS (SELECT FROM pg_partition_tree($1::oid) t JOIN pg_class c ON c.oid = t.relid
                            WHERE c.relkind = 'r')",
            &[source.into(), column.into()],
            |row| Ok((row.get(1)?, row.need(2)?)),
        )
    })
}
