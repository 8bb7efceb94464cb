//! The partition as the export reads it: its relation, columns and the schema of its archive.

use archive_core::schema::{PgType, TableSchema};
use pgrx::pg_sys;

use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::columns::{self, Column};
use crate::pg::datum::ColumnIo;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::{background, guc::GucNest, spi, user};

/// An open partition with what is needed to read its rows.
#[derive(Debug)]
pub struct ExportSource {
    /// The relation; its lock is kept to the end of the transaction.
    pub relation: Relation,
    /// Live columns in order.
    pub columns: Vec<Column>,
    /// Their fields in the archive, in the same order.
    pub schema: TableSchema,
    /// Their I/O, in the same order.
    pub io: Vec<ColumnIo>,
    /// Fields of the primary key that get bloom filters.
    pub key_fields: Vec<i32>,
}

impl ExportSource {
    /// Opens `partition` of the tree below `root`. Refuses columns whose type cannot be archived, naming them (0A000).
    pub fn open(partition: pg_sys::Oid, root: pg_sys::Oid, lock: LockMode) -> Result<Self> {
        Self::of(Relation::open(partition, lock), root)
    }

    /// The same with the columns in the order of their fields, so that tables whose columns stand in another order hash alike.
    pub fn in_field_order(self) -> Self {
        let Self { relation, columns, mut schema, io, key_fields } = self;
        let mut parts: Vec<_> = columns.into_iter().zip(schema.fields).zip(io).collect();
        parts.sort_by_key(|((_, field), _)| field.id);
        let (pairs, io): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        let (columns, fields): (Vec<_>, Vec<_>) = pairs.into_iter().unzip();
        schema.fields = fields;
        Self { relation, columns, schema, io, key_fields }
    }

    /// Rows as they were archived, of `schema` and with these columns, from the table `relation`: its I/O takes and gives archived
    /// values. The positions of the columns are those of the schema's fields.
    pub fn archived(
        relation: Relation,
        schema: TableSchema,
        columns: Vec<(Column, PgType)>,
        key_fields: Vec<i32>,
    ) -> Self {
        let _settings = GucNest::new().safe_search_path();
        let io = columns.iter().map(|(column, pg_type)| ColumnIo::archived(column, pg_type, &schema)).collect();
        let columns = columns.into_iter().map(|(column, _)| column).collect();
        Self { relation, columns, schema, io, key_fields }
    }

    /// The same for a look at it: no lock is kept.
    pub fn peek(partition: pg_sys::Oid, root: pg_sys::Oid) -> Result<Self> {
        Self::of(Relation::peek(partition), root)
    }

    /// Runs `work`, which reads or makes values of the rows: functions of their types, and checks of domains within, are its owner's
    /// affair, and run with the owner's rights (P8), whoever archives or verifies.
    pub fn as_owner<T>(&self, work: impl FnOnce() -> T) -> T {
        user::as_user(self.relation.owner(), work)
    }

    /// Attributes of its rows, dropped ones included.
    pub fn attributes(&self) -> usize {
        self.relation.attribute_count().max(self.columns.iter().map(|column| column.index + 1).max().unwrap_or(0))
    }

    fn of(relation: Option<Relation>, root: pg_sys::Oid) -> Result<Self> {
        let Some(relation) = relation else {
            return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the partition was dropped meanwhile"));
        };
        let partition = relation.oid();
        let _settings = GucNest::new().safe_search_path();
        let columns = columns::of_relation(&relation);
        let (map, numbers) = (catalog::column_map::of_source(root)?, field_ids(root)?);
        let number = |name: &str| numbers.iter().find(|(field, _)| field == name).map(|(_, number)| *number);
        let id = |name: &str| map.id_of(name).or_else(|| number(name));
        let fields = columns
            .iter()
            .map(|column| columns::field(column, id(&column.name).unwrap_or(column.index as i32 + 1)))
            .collect::<Result<Vec<_>>>()?;
        let io = columns.iter().zip(&fields).map(|(column, field)| ColumnIo::new(column, &field.pg_type)).collect();
        let key_names = primary_key(partition)?;
        let key_fields = fields
            .iter()
            .filter(|field| key_names.contains(&field.name) && has_bloom(&field.pg_type))
            .map(|field| field.id)
            .collect();
        let enums: Vec<_> = columns.iter().flat_map(columns::enums_within).collect();
        let schema =
            TableSchema { fields, origin: Some(background::database_identity()), enums: catalog::enums(&enums)? };
        Ok(Self { relation, columns, schema, io, key_fields })
    }
}

/// Equality of these types is equality of their Parquet bytes.
fn has_bloom(pg_type: &PgType) -> bool {
    matches!(pg_type, PgType::Int4 | PgType::Int8 | PgType::Uuid | PgType::Text | PgType::Varchar)
}

/// Before the first archive: a column's field id will be its attribute number in the root table.
fn field_ids(root: pg_sys::Oid) -> Result<Vec<(String, i32)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT attname::text, attnum::int4 FROM pg_attribute WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[root.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

fn primary_key(partition: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT a.attname::text FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)
             WHERE i.indrelid = $1 AND i.indisprimary",
            &[partition.into()],
            |row| row.need(1),
        )
    })
}
