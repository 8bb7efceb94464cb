//! The foreign tables over row sets: inheritance children of `archive.<table>`.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::archive_tree::ArchiveNames;
use super::{access, archive_tree, discover, swap};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Makes the foreign table of row set `id` of the hot table `source`, with the readers that the table has.
pub fn put_foreign(
    source: pg_sys::Oid,
    archive: pg_sys::Oid,
    names: &ArchiveNames,
    name: &str,
    storage: &str,
    id: i64,
) -> Result<pg_sys::Oid> {
    let _bounded = swap::bounded();
    let (parent, hot, owner) =
        (catalog::qualified_name(archive)?, catalog::qualified_name(source)?, discover::owner(source)?);
    let foreign = quote_qualified_identifier(names.schema.as_str(), name);
    let server = quote_identifier(storage);
    let comment = quote_literal(format!("Archived rows of {hot} (archive_ext)"));
    user::as_user(owner, || {
        spi::execute(
            &format!(
                "CREATE FOREIGN TABLE {foreign} () INHERITS ({parent}) SERVER {server} OPTIONS (partition_id '{id}')"
            ),
            &[],
        )?;
        spi::execute(&format!("COMMENT ON FOREIGN TABLE {foreign} IS {comment}"), &[])
    })?;
    access::close(&foreign, owner)?;
    // A foreign table has no policies: it is read through the archive parent, which has those of the hot table.
    if !discover::leaf(source)?.is_some_and(|readers| readers.row_security) {
        archive_tree::copy_select_grants(source, &foreign, owner)?;
    }
    discover::find_relation(&names.schema, name)?.ok_or_else(|| {
        Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("foreign table {foreign} was not created"))
    })
}
