//! The columns that decide which rows are taken, and in which order.

use archive_core::codec;
use archive_core::schema::Field;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use crate::catalog::row_policy;
use crate::error::{Error, Result, SqlState};
use crate::export::ExportSource;
use crate::partition::discover::{self, Leaf};
use crate::pg::columns::Column;
use crate::pg::{constant, spi, user};

/// A column of the key in whose order rows are taken.
#[derive(Debug, Clone)]
pub struct KeyColumn {
    /// Its name.
    pub name: String,
    /// Its type as SQL.
    pub type_sql: String,
}

/// The columns of the unique key that these are, or of the primary key, or of the first unique key without NULLs.
///
/// Errors: 55000 when the table has none, 42703 and 42P17 when the named columns are none.
pub fn key(table: &Leaf, named: Option<&[String]>) -> Result<Vec<KeyColumn>> {
    let keys = unique_keys(table.oid)?;
    let name = table.qualified();
    let Some(named) = named else {
        return keys.into_iter().next().ok_or_else(|| {
            Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("rows of \"{name}\" cannot be archived: it has no unique key"),
            )
            .detail("Rows are taken in the order of a key, and found again by it.")
            .hint(format!(
                "ALTER TABLE {name} ADD PRIMARY KEY (…); a UNIQUE constraint over NOT NULL columns will do as well."
            ))
        });
    };
    let attributes = discover::attributes(table.oid)?;
    if let Some(unknown) = named.iter().find(|column| !attributes.iter().any(|known| known.name == **column)) {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_COLUMN,
            format!("column \"{unknown}\" of \"{name}\" does not exist"),
        ));
    }
    let is_named =
        |key: &Vec<KeyColumn>| key.len() == named.len() && key.iter().all(|column| named.contains(&column.name));
    let mut found = keys.into_iter().find(is_named).ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_INVALID_OBJECT_DEFINITION,
            format!("({}) is no unique key of \"{name}\"", named.join(", ")),
        )
        .hint("order_key names all columns of a primary key, or of a unique index over NOT NULL columns.")
    })?;
    let place = |column: &KeyColumn| named.iter().position(|name| *name == column.name);
    found.sort_by_key(place);
    Ok(found)
}

/// Field ids of the key by which single rows are looked up, and of which objects get filters: the primary key, else the first
/// unique key. None where a column's equality is not that of its bytes.
pub fn filter_fields(table: &Leaf, source: &ExportSource) -> Result<Vec<i32>> {
    let key = key(table, None)?;
    let columns = source.columns.iter().zip(&source.schema.fields);
    let parts: Vec<_> = columns.filter(|(column, _)| key.iter().any(|part| part.name == column.name)).collect();
    let has_form = codec::can_filter(parts.iter().map(|(_, field)| &field.pg_type));
    let is_deterministic = |(column, _): &(&Column, &Field)| {
        column.collation == pg_sys::InvalidOid || constant::is_deterministic(column.collation)
    };
    let usable = has_form && parts.iter().all(is_deterministic);
    Ok(if usable { parts.iter().map(|(_, field)| field.id).collect() } else { Vec::new() })
}

/// The unique keys without NULLs, the primary key first.
fn unique_keys(table: pg_sys::Oid) -> Result<Vec<Vec<KeyColumn>>> {
    let columns = user::elevated(|| {
        spi::rows(
            "SELECT i.indexrelid, a.attname::text, format_type(a.atttypid, a.atttypmod)
             FROM pg_index i CROSS JOIN LATERAL unnest(i.indkey[0:i.indnkeyatts - 1]) WITH ORDINALITY k(attnum, place)
             JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
             WHERE i.indrelid = $1 AND i.indisunique AND i.indisvalid AND i.indimmediate AND i.indpred IS NULL
               AND i.indexprs IS NULL
               AND NOT EXISTS (SELECT FROM unnest(i.indkey[0:i.indnkeyatts - 1]) n(attnum) JOIN pg_attribute c
                               ON c.attrelid = i.indrelid AND c.attnum = n.attnum WHERE NOT c.attnotnull)
             ORDER BY i.indisprimary DESC, i.indnkeyatts, i.indexrelid, k.place",
            &[table.into()],
            |row| Ok((row.need::<pg_sys::Oid>(1)?, KeyColumn { name: row.need(2)?, type_sql: row.need(3)? })),
        )
    })?;
    Ok(discover::by_index(columns))
}

/// The columns of unique indexes and of the partition key: others rely on them.
pub fn of_keys(table: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT a.attname::text FROM pg_attribute a
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
               AND (EXISTS (SELECT FROM pg_index i JOIN pg_depend d ON d.classid = 'pg_class'::regclass
                            AND d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum
                            WHERE i.indrelid = $1 AND (i.indisunique OR i.indisexclusion))
                 OR EXISTS (SELECT FROM pg_constraint k WHERE k.conrelid = $1 AND k.contype IN ('p', 'u', 'x')
                            AND a.attnum = ANY (k.conkey))
                 OR EXISTS (SELECT FROM pg_partition_ancestors($1) t JOIN pg_partitioned_table p ON p.partrelid = t.relid
                            JOIN pg_attribute k ON k.attrelid = t.relid AND k.attnum = ANY (p.partattrs)
                            WHERE k.attname = a.attname))",
            &[table.into()],
            |row| row.need(1),
        )
    })
}

/// The column with a row's time: as named, as the policy says, or the only one that can be it.
///
/// Errors: 42703 no such column, 42804 it is no time, 42702 several could be it.
pub fn time(table: &Leaf, named: Option<&str>) -> Result<String> {
    let known = time_columns(table.oid)?;
    let policy = row_policy::of(table.oid)?.time_column;
    let name = table.qualified();
    if let Some(column) = named.map(str::to_owned).or(policy) {
        if known.iter().any(|(known, _)| *known == column) {
            return Ok(column);
        }
        let exists = discover::attributes(table.oid)?.iter().any(|attribute| attribute.name == column);
        return Err(match exists {
            true => {
                Error::new(SqlState::ERRCODE_DATATYPE_MISMATCH, format!("column \"{column}\" of \"{name}\" is no time"))
                    .hint("time_column names a column of type date, timestamp or timestamptz.")
            }
            false => Error::new(
                SqlState::ERRCODE_UNDEFINED_COLUMN,
                format!("column \"{column}\" of \"{name}\" does not exist"),
            ),
        });
    }
    let required: Vec<_> = known.iter().filter(|(_, not_null)| *not_null).collect();
    match (required.as_slice(), known.as_slice()) {
        ([(only, _)], _) | ([], [(only, _)]) => Ok(only.clone()),
        (_, []) => Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_COLUMN,
            format!("\"{name}\" has no column with the time of its rows"),
        )
        .hint("Pass NULL as archive_before, and a where_clause that tells which rows to archive.")),
        _ => {
            let names: Vec<_> = known.iter().map(|(column, _)| quote_identifier(column)).collect();
            Err(Error::new(
                SqlState::ERRCODE_AMBIGUOUS_COLUMN,
                format!("several columns of \"{name}\" could be the time of its rows"),
            )
            .detail(format!("They are {}.", names.join(", ")))
            .hint("Name one: time_column => '…'."))
        }
    }
}

/// Columns of a date or time type, and whether they are NOT NULL.
fn time_columns(table: pg_sys::Oid) -> Result<Vec<(String, bool)>> {
    user::elevated(|| {
        spi::rows(
            "SELECT a.attname::text, a.attnotnull FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid
             WHERE a.attrelid = $1 AND a.attnum > 0 AND NOT a.attisdropped
               AND CASE WHEN t.typtype = 'd' THEN t.typbasetype ELSE t.oid END
                   IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
             ORDER BY a.attnum",
            &[table.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })
}

/// Whether other tables inherit from this one, which is no partitioned table.
pub fn has_heirs(table: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                            WHERE i.inhparent = $1 AND NOT c.relispartition)",
            &[table.into()],
            |row| row.need(1),
        )
    })
}
