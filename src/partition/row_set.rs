//! The foreign tables over row sets: inheritance children of `archive.<table>`.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::archive_tree::ArchiveNames;
use super::{access, discover, swap};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// Makes the foreign table of row set `id` of the hot table `source`. It is read through the archive parent, whose grants and
/// policies follow the hot table's; nobody but the owner reads it by its own name.
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
    discover::find_relation(&names.schema, name)?.ok_or_else(|| {
        Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("foreign table {foreign} was not created"))
    })
}
