//! The foreign tables over row sets: inheritance children of `archive.<table>`, or its partitions where the rows are those of a
//! hot partition.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::archive_tree::{self, ArchiveNames};
use super::{access, discover, swap};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Where the foreign table of a row set goes.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The hot table.
    pub source: pg_sys::Oid,
    /// The archive relation right above.
    pub archive: pg_sys::Oid,
    /// The names of the archive.
    pub names: &'a ArchiveNames,
    /// The name that the foreign table gets.
    pub name: &'a str,
    /// Its storage.
    pub storage: &'a str,
}

/// Makes the foreign table of row set `id`. It is read through the archive parent, whose grants and policies follow the hot
/// table's; nobody but the owner reads it by its own name.
pub fn put_foreign(place: &Place<'_>, id: i64) -> Result<pg_sys::Oid> {
    let parent = catalog::qualified_name(place.archive)?;
    place.create(id, &format!("() INHERITS ({parent})"), &[])
}

/// The same for the row set of a partition with these bounds: a partition of the archive parent, which needs SHARE UPDATE
/// EXCLUSIVE there. Readers of the hot partition may read it.
pub fn put_partition(place: &Place<'_>, id: i64, bounds: &str, hot: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let parent = catalog::qualified_name(place.archive)?;
    let columns: Vec<_> = discover::attributes(place.archive)?
        .iter()
        .map(|column| {
            let not_null = if column.not_null { " NOT NULL" } else { "" };
            format!("{} {}{not_null}", quote_identifier(&column.name), column.full_type())
        })
        .collect();
    let attach = format!("ALTER TABLE {parent} ATTACH PARTITION {} {bounds}", place.qualified());
    let table = place.create(id, &format!("({})", columns.join(", ")), &[attach])?;
    if !discover::leaf(hot)?.is_some_and(|hot| hot.row_security) {
        archive_tree::copy_select_grants(hot, &place.qualified(), discover::owner(place.source)?)?;
    }
    Ok(table)
}

impl Place<'_> {
    fn qualified(&self) -> String {
        quote_qualified_identifier(self.names.schema.as_str(), self.name)
    }

    fn create(&self, id: i64, shape: &str, then: &[String]) -> Result<pg_sys::Oid> {
        let _bounded = swap::bounded();
        let (hot, owner) = (catalog::qualified_name(self.source)?, discover::owner(self.source)?);
        let foreign = self.qualified();
        let server = quote_identifier(self.storage);
        let comment = quote_literal(format!("Archived rows of {hot} (archive_ext)"));
        let statements = [
            format!("CREATE FOREIGN TABLE {foreign} {shape} SERVER {server} OPTIONS (partition_id '{id}')"),
            format!("COMMENT ON FOREIGN TABLE {foreign} IS {comment}"),
        ];
        user::as_user(owner, || statements.iter().chain(then).try_for_each(|sql| spi::execute(sql, &[]).map(drop)))?;
        access::close(&foreign, owner)?;
        discover::find_relation(&self.names.schema, self.name)?.ok_or_else(|| {
            Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("foreign table {foreign} was not created"))
        })
    }
}
