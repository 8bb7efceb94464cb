//! Where the rows of partitions are: the column `tier` of `archive_ext.partition`.

use pgrx::pg_sys;

use crate::error::{Error, Result, SqlState};
use crate::pg::xact::Caught;
use crate::pg::{spi, user};

/// The tier whose objects cannot be read before they were restored.
pub const GLACIER: &str = "glacier";
/// The verb that restores them, which the refusal names.
const REQUEST: &str = "request_restore";

/// The refusal to read an archived partition that is in glacier (55000).
pub fn in_glacier(partition: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("archived partition {partition} is in a glacier storage class"),
    )
    .detail("Its objects can be read only after they were restored, which takes from minutes to days.")
    .hint(format!("Call {REQUEST}('{partition}'), and read again when that is done."))
}

/// Whether what was caught is [`in_glacier`].
pub fn is_in_glacier(caught: &Caught) -> bool {
    caught.sqlstate == SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE
        && caught.hint.as_ref().is_some_and(|hint| hint.contains(REQUEST))
}

/// Whether anything of a hot table is in glacier.
pub fn any_in_glacier(source: pg_sys::Oid) -> Result<bool> {
    user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
                            WHERE m.source = $1::oid AND p.tier = $2)",
            &[source.into(), GLACIER.into()],
            |row| row.need(1),
        )
    })
}

/// The tier of a relation that stores or reads rows: `hot` when the catalog does not know it.
pub fn of_relation(relation: pg_sys::Oid) -> Result<String> {
    let found = user::elevated(|| {
        spi::optional(
            "SELECT tier FROM archive_ext.partition WHERE $1 IN (hot_table::oid, foreign_table::oid)
             ORDER BY superseded_at DESC NULLS FIRST LIMIT 1",
            &[relation.into()],
            |row| row.need(1),
        )
    })?;
    Ok(found.unwrap_or_else(|| "hot".to_owned()))
}
