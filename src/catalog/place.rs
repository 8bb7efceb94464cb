//! Whether a storage is the place where its objects are: somebody may alter the server, or give one place two names.

use archive_core::store::BlockingStore;

use super::storage;
use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// What the catalog knows against a place.
struct Look {
    /// The place.
    now: String,
    /// Where the archived partitions of the storage are instead, and how many.
    moved: Option<(String, i64)>,
    /// The storage that has claimed this place.
    other_name: Option<String>,
}

fn look(storage: &str, store: &BlockingStore) -> Result<Look> {
    let now = store.location().to_string();
    let (moved, count, other_name) = user::elevated(|| {
        spi::one(
            "SELECT m.location, m.partitions, o.storage::text
             FROM (VALUES (true)) AS one
             LEFT JOIN (SELECT c.location, count(*) AS partitions FROM archive_ext.storage_claim c
                        JOIN archive_ext.partition p ON p.storage = c.storage AND p.version > 0
                        WHERE c.storage = $1::name AND c.location <> $2 GROUP BY c.location) m ON true
             LEFT JOIN (SELECT storage FROM archive_ext.storage_claim
                        WHERE location = $2 AND storage <> $1::name LIMIT 1) o ON true",
            &[storage.into(), now.as_str().into()],
            |row| Ok((row.get::<String>(1)?, row.get::<i64>(2)?, row.get::<String>(3)?)),
        )
    })?;
    Ok(Look { now, moved: moved.zip(count), other_name })
}

/// A storage that is another place than where its archived partitions are (55000): it would hold half of the archive from then on.
pub fn refuse_moved(storage: &str, store: &BlockingStore) -> Result<()> {
    look(storage, store)?.refuse_moved(storage)
}

/// The same, and a place that another storage has claimed (55000): what is archived there is under the other name.
pub fn refuse_moved_or_renamed(storage: &str, store: &BlockingStore) -> Result<()> {
    let look = look(storage, store)?;
    look.refuse_moved(storage)?;
    look.refuse_second_name(storage)
}

impl Look {
    fn refuse_moved(&self, storage: &str) -> Result<()> {
        let Some((then, count)) = &self.moved else { return Ok(()) };
        let server = pgrx::spi::quote_identifier(storage);
        Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("storage \"{storage}\" is another place than its archived partitions"),
        )
        .detail(format!("{count} of them are in {then}, and its location is {} now.", self.now))
        .hint(format!(
            "ALTER SERVER {server} OPTIONS (SET location '{then}'); or copy all objects to the new place, then a superuser's \
             adopt_storage('{storage}') has it claimed there. For another place, create another server."
        )))
    }

    fn refuse_second_name(&self, storage: &str) -> Result<()> {
        let Some(other) = &self.other_name else { return Ok(()) };
        Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("storage \"{storage}\" is the same place as storage \"{other}\""),
        )
        .detail("The catalog knows its objects under that name.")
        .hint(format!("Use storage \"{other}\"; if the server was renamed, give it its name back.")))
    }
}

/// Refuses to rely on what a run has written when the storage is another place by now (55006, for the run may be done again). The
/// catalog does not name what was written yet, so nothing but the server's location can tell.
pub fn still_at(storage: &str, location: &str) -> Result<()> {
    let now = storage::options(storage)?.location.to_string();
    if now == location {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("storage \"{storage}\" was moved while rows were being archived"),
    )
    .detail(format!("They were written to {location}, and it is at {now} now."))
    .hint("Nothing was removed. Set the server's location again, or run it again to archive them there."))
}
