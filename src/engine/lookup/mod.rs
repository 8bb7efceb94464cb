//! One row by its key, wherever it is: in the table, or in the archive.
//!
//! The rows are sought by the caller's own queries: privileges, row security and column grants are those of SQL.

mod key;

use pgrx::pg_sys;

use crate::catalog::{frozen, managed_table, remnant, tier};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::pg::key_arg::Key;
use crate::pg::{spi, xact};

/// The row with this key as jsonb; `None` when there is none.
///
/// Locks: ACCESS SHARE on the table and its archive. Errors: those of [`tier`], and 55000 when the row may be in a glacier
/// storage class.
pub fn record(source: pg_sys::Oid, key: &Key) -> Result<Option<String>> {
    search(source, key, "pg_catalog.to_jsonb(t.*)", |row| row.need(1))
}

/// Where the row with this key is: `hot`, `warm`, `cold`, `glacier`; `None` when it is nowhere.
///
/// Errors: 42809 what is no table, 55000 a table without unique key, 42703 and 42P17 when the key names no unique key, 22023 when it is
/// no key at all, 22004 when a part of it is NULL, others when a value is none of its column's type.
pub fn tier(source: pg_sys::Oid, key: &Key) -> Result<Option<String>> {
    let look = || search(source, key, "t.tableoid::pg_catalog.text", |row| row.need::<String>(1));
    let found = if tier::any_in_glacier(source)? {
        match xact::subtransaction(look) {
            Ok(found) => found?,
            Err(caught) if frozen::is_refusal(&caught) => return Ok(Some(tier::GLACIER.to_owned())),
            Err(caught) => return Err(caught.into()),
        }
    } else {
        look()?
    };
    let relation = found.and_then(|text| text.parse::<u32>().ok());
    relation.map(|relation| tier::of_relation(pg_sys::Oid::from(relation))).transpose()
}

/// Seeks the row in the table, and if it is not there, in the table and the archive by one statement: a row that moves between
/// the two meanwhile is in one of them.
fn search(
    source: pg_sys::Oid,
    key: &Key,
    wanted: &str,
    read: impl Fn(&spi::Row<'_>) -> Result<String>,
) -> Result<Option<String>> {
    let table = table(source)?;
    let condition = key::condition(&table, key)?;
    let select = |relation: &str| format!("SELECT {wanted} AS found FROM {relation} t WHERE {condition}");
    let first = |query: String| {
        let query = format!("SELECT rows.found::pg_catalog.text FROM ({query}) rows LIMIT 1");
        spi::optional(&query, &[], |row| read(row))
    };
    // Of what stays of an archived row, the archive has the whole.
    let live = remnant::of(source)?.map_or_else(String::new, |marker| format!(" AND {}", marker.live("t")));
    let hot = format!("{}{live}", select(&table.qualified()));
    if let Some(found) = first(hot.clone())? {
        return Ok(Some(found));
    }
    let Some(archive) = managed_table::of_source(source)?.and_then(|managed| managed.archive_table) else {
        return Ok(None);
    };
    let archive = crate::catalog::qualified_name(archive)?;
    first(format!("{hot} UNION ALL {}", select(&archive)))
}

/// The table whose rows are looked up.
fn table(source: pg_sys::Oid) -> Result<Leaf> {
    let Some(table) = discover::leaf(source)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", source.to_u32()),
        ));
    };
    let wrong = |what: &str, remedy: String| {
        let message = format!("\"{}\" {what}", table.qualified());
        Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, message).hint(remedy))
    };
    if let Some(root) = table.root.filter(|root| *root != source) {
        return wrong("is a partition", format!("Name its table, \"{}\".", crate::catalog::qualified_name(root)?));
    }
    match table.kind {
        'r' | 'p' => Ok(table),
        _ => wrong("is not a table", "Name the table whose rows were archived.".to_owned()),
    }
}
