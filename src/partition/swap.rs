//! The catalog changes under the parent's lock: DETACH and ATTACH in one transaction, no I/O (P6).

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal, quote_qualified_identifier};

use super::discover::{self, Leaf};
use super::{access, archive_tree, default_rows, foreign_key, locks, snapshots};
use crate::catalog;
use crate::catalog::event::Transition;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{lock, spi, user};

/// Bounds the waits of statements until it is dropped: by `archive_ext.lock_timeout`, and so that they end before anybody is told to
/// be deadlocked. What is to be waited for longer is locked beforehand, by [`locks::acquire_all`].
pub fn bounded() -> GucNest {
    GucNest::new().set(c"lock_timeout", &lock::brief_wait_ms().min(guc::lock_timeout_ms()).to_string())
}

/// `archive_ext.lock_timeout` for every lock until it is dropped: for statements that wait for rows.
pub fn patient() -> GucNest {
    GucNest::new().set(c"lock_timeout", &guc::lock_timeout_ms().to_string())
}

/// Finishes DETACH CONCURRENTLY runs that somebody left pending on `parent`, and says so, also as an event.
///
/// Locks: ACCESS EXCLUSIVE on such a partition, SHARE UPDATE EXCLUSIVE on the parent. Like the DETACH it waits for older snapshots,
/// which may still read the partition through its parent: `archive_ext.lock_timeout` at most, and before any lock of a swap is
/// taken. Errors: 55P03 naming who is in the way.
pub fn finalize_pending(parent: pg_sys::Oid) -> Result<()> {
    let pending = user::elevated(|| {
        spi::rows(
            "SELECT inhrelid FROM pg_inherits WHERE inhparent = $1 AND inhdetachpending",
            &[parent.into()],
            |row| row.need::<pg_sys::Oid>(1),
        )
    })?;
    let name = catalog::qualified_name(parent)?;
    for partition in pending {
        finalize(&name, partition, &catalog::qualified_name(partition)?)?;
        catalog::event::record_transition(&Transition {
            table: discover::leaf(parent)?.and_then(|leaf| leaf.root).unwrap_or(parent),
            partition: &catalog::qualified_name(partition)?,
            event: "finalized",
            from: None,
            to: None,
            reason: "its DETACH CONCURRENTLY was left pending",
            job: None,
            details: serde_json::json!({ "parent": name }),
        })?;
    }
    Ok(())
}

fn finalize(parent: &str, partition: pg_sys::Oid, name: &str) -> Result<()> {
    let what = format!("the pending DETACH CONCURRENTLY of {name} from {parent} is finished");
    snapshots::wait_for(&snapshots::held()?, &what)?;
    locks::acquire(partition, name, LockMode::AccessExclusive)?;
    crate::pg::server_text::notice!("finishing the pending DETACH CONCURRENTLY of {name} from {parent}");
    let _bounded = bounded();
    user::as_user(user::current(), || {
        spi::execute(&format!("ALTER TABLE {parent} DETACH PARTITION {name} FINALIZE"), &[])
    })?;
    Ok(())
}

/// Detaches the hot partition and moves it into the archive schema as `local_copy`, or drops it.
///
/// The locks of [`concerned`] are held. Returns the local copy.
pub fn take_out(leaf: &Leaf, archive_schema: &str, local_copy: &str, keep: bool) -> Result<Option<pg_sys::Oid>> {
    let _bounded = bounded();
    let Some(parent) = leaf.parent else { return Err(vanished(&leaf.qualified())) };
    let parent = catalog::qualified_name(parent)?;
    let name = leaf.qualified();
    user::as_user(user::current(), || {
        spi::execute(&format!("ALTER TABLE {parent} DETACH PARTITION {name}"), &[])?;
        failpoint!("swap_detached");
        if !keep {
            spi::execute(&format!("DROP TABLE {name}"), &[])?;
            failpoint!("swap_local_dropped");
            return Ok(0);
        }
        release_parents(leaf, &name)?;
        let local = quote_identifier(local_copy);
        spi::execute(&format!("ALTER TABLE {name} RENAME TO {local}"), &[])
    })?;
    if !keep {
        return Ok(None);
    }
    let renamed = quote_qualified_identifier(leaf.schema.as_str(), local_copy);
    let schema = quote_identifier(archive_schema);
    user::as_user(leaf.owner, || spi::execute(&format!("ALTER TABLE {renamed} SET SCHEMA {schema}"), &[]))?;
    Ok(Some(leaf.oid))
}

/// A local copy of a managed child lets go of its parents' rows, which are archived after it: DETACH leaves it foreign keys
/// of its own, and ATTACH gives it its parent's again.
fn release_parents(leaf: &Leaf, name: &str) -> Result<()> {
    let parents: Vec<_> =
        catalog::child_table::parents(leaf.root.unwrap_or(leaf.oid))?.into_iter().map(|key| key.parent).collect();
    if parents.is_empty() {
        return Ok(());
    }
    for key in foreign_key::own(leaf.oid, &parents)? {
        spi::execute(&format!("ALTER TABLE {name} DROP CONSTRAINT {}", quote_identifier(key)), &[])?;
    }
    Ok(())
}

/// What DETACH and ATTACH of a partition below `parent` lock, in this order: the trees that it references as a managed
/// child, the parent, the tables that reference it, its DEFAULT partition, the partition, and the tables that it references
/// otherwise. The last ones in mode `referenced`: triggers for the key come or go there, and dropping a table with foreign
/// keys takes more than attaching and detaching it.
pub fn concerned(
    root: pg_sys::Oid,
    parent: pg_sys::Oid,
    partition: Option<pg_sys::Oid>,
    referenced: LockMode,
) -> Result<Vec<(pg_sys::Oid, LockMode)>> {
    let mut exclusive = Vec::new();
    // A new partition takes less on what it references, below.
    for key in partition.map_or_else(|| Ok(Vec::new()), |_| catalog::child_table::parents(root))? {
        exclusive.extend(discover::tree(key.parent)?);
    }
    exclusive.push(parent);
    for key in partition.map_or_else(|| Ok(Vec::new()), discover::inbound_keys)? {
        exclusive.push(key.relation);
    }
    exclusive.extend(default_rows::of_parent(parent)?);
    exclusive.extend(partition);
    let mut concerned: Vec<_> = exclusive.into_iter().map(|oid| (oid, LockMode::AccessExclusive)).collect();
    for table in [parent, root] {
        let referencing = foreign_key::referencing(table)?;
        concerned.extend(referencing.into_iter().map(|key| (key.child, LockMode::ShareRowExclusive)));
    }
    let tables: Vec<_> = partition.into_iter().chain([parent]).collect();
    concerned.extend(foreign_key::referenced_by(&tables)?.into_iter().map(|oid| (oid, referenced)));
    Ok(concerned)
}

/// Drops tables that are no partitions any more, or not yet: all locks that it takes are had first, or none.
pub fn drop_detached(tables: &[Leaf]) -> Result<()> {
    let oids: Vec<_> = tables.iter().map(|table| table.oid).collect();
    let concerned = oids.iter().copied().chain(foreign_key::referenced_by(&oids)?);
    let wanted = concerned.map(|oid| (oid, LockMode::AccessExclusive)).collect();
    locks::acquire_all(&locks::strongest(wanted))?;
    for table in tables {
        // They were looked at before the locks were had.
        let now = discover::leaf(table.oid)?.filter(|now| now.parent.is_none() && now.qualified() == table.qualified());
        let table = now.ok_or_else(|| became_another(&table.qualified()))?;
        user::as_user(table.owner, || spi::execute(&format!("DROP TABLE {}", table.qualified()), &[]))?;
    }
    Ok(())
}

fn became_another(name: &str) -> Error {
    Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("table \"{name}\" was renamed, attached or dropped meanwhile"))
        .hint("Nothing was dropped. Run it again.")
}

fn vanished(name: &str) -> Error {
    Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("partition \"{name}\" is no longer attached"))
}

/// The place that a foreign table takes in the archive tree.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// Hot schema of the partition.
    pub schema: &'a str,
    /// Its name, which the foreign table gets.
    pub name: &'a str,
    /// `FOR VALUES …`.
    pub bounds: &'a str,
    /// Owner of the foreign table.
    pub owner: pg_sys::Oid,
    /// The table whose readers may read it.
    pub readers_of: pg_sys::Oid,
}

impl<'a> Place<'a> {
    /// The place of a partition that is still there.
    pub fn of(leaf: &'a Leaf) -> Self {
        Self {
            schema: &leaf.schema,
            name: &leaf.name,
            bounds: leaf.bounds.as_deref().unwrap_or_default(),
            owner: leaf.owner,
            readers_of: leaf.oid,
        }
    }

    fn qualified(&self) -> String {
        quote_qualified_identifier(self.schema, self.name)
    }
}

/// Creates the foreign table in the partition's place of the archive tree, with the partition's name and readers.
pub fn put_foreign(
    place: &Place<'_>,
    archive_parent: pg_sys::Oid,
    archive_schema: &str,
    storage: &str,
    partition_id: i64,
) -> Result<pg_sys::Oid> {
    let _bounded = bounded();
    let parent = catalog::qualified_name(archive_parent)?;
    let foreign = quote_qualified_identifier(archive_schema, place.name);
    let bounds = place.bounds;
    let server = quote_identifier(storage);
    let comment = quote_literal(format!("Archived partition {} (archive_ext)", place.qualified()));
    user::as_user(place.owner, || {
        spi::execute(
            &format!(
                "CREATE FOREIGN TABLE {foreign} PARTITION OF {parent} {bounds} SERVER {server} \
                 OPTIONS (partition_id '{partition_id}')"
            ),
            &[],
        )?;
        spi::execute(&format!("COMMENT ON FOREIGN TABLE {foreign} IS {comment}"), &[])
    })?;
    access::close(&foreign, place.owner)?;
    // A foreign table has no policies: it is read through the archive parent, which has those of the hot table.
    if !discover::leaf(place.readers_of)?.is_some_and(|readers| readers.row_security) {
        archive_tree::copy_select_grants(place.readers_of, &foreign, place.owner)?;
    }
    discover::find_relation(archive_schema, place.name)?.ok_or_else(|| vanished(&place.qualified()))
}

/// Drops the foreign table of a partition that is coming back. Its objects stay.
pub fn drop_foreign(foreign_table: pg_sys::Oid) -> Result<()> {
    let _bounded = bounded();
    let owner = discover::owner(foreign_table)?;
    let name = catalog::qualified_name(foreign_table)?;
    user::as_user(owner, || spi::execute(&format!("DROP FOREIGN TABLE {name}"), &[]))?;
    Ok(())
}

/// Drops a local copy that another table replaces.
pub fn drop_local_copy(local_copy: pg_sys::Oid) -> Result<()> {
    let _bounded = bounded();
    let (owner, name) = (discover::owner(local_copy)?, catalog::qualified_name(local_copy)?);
    user::as_user(owner, || spi::execute(&format!("DROP TABLE {name}"), &[]))?;
    Ok(())
}

/// Moves the local copy back to its schema and name.
pub fn restore_name(local_copy: pg_sys::Oid, schema: &str, name: &str) -> Result<()> {
    let _bounded = bounded();
    let owner = discover::owner(local_copy)?;
    let current = catalog::qualified_name(local_copy)?;
    let (_, current_name) = discover::schema_and_name(local_copy)?;
    user::as_user(user::current(), || {
        spi::execute(&format!("ALTER TABLE {current} SET SCHEMA {}", quote_identifier(schema)), &[])
    })?;
    let moved = quote_qualified_identifier(schema, &current_name);
    user::as_user(owner, || spi::execute(&format!("ALTER TABLE {moved} RENAME TO {}", quote_identifier(name)), &[]))?;
    Ok(())
}

/// Gives `table` every index that the hot parent has and it lacks, before any lock on the parent: an index added to the
/// parent meanwhile would else be built by ATTACH under the parent's lock. It is attached to a scratch table like the
/// parent, which nobody else sees, and detached again. Locks: ACCESS EXCLUSIVE on the table.
pub fn complete_indexes(parent: pg_sys::Oid, table: pg_sys::Oid, schema: &str, bounds: &str) -> Result<()> {
    let key = discover::partition_key(parent)?;
    let scratch = format!("archive_ext_scratch_{}", table.to_u32());
    let scratch = quote_qualified_identifier(schema, scratch.as_str());
    let (like, name) = (catalog::qualified_name(parent)?, catalog::qualified_name(table)?);
    user::as_user(discover::owner(table)?, || {
        for sql in [
            format!("CREATE TABLE {scratch} (LIKE {like} INCLUDING GENERATED INCLUDING INDEXES) PARTITION BY {key}"),
            format!("ALTER TABLE {scratch} ATTACH PARTITION {name} {bounds}"),
            format!("ALTER TABLE {scratch} DETACH PARTITION {name}"),
            format!("DROP TABLE {scratch}"),
        ] {
            spi::execute(&sql, &[])?;
        }
        Ok(())
    })
}

/// Attaches a table to the hot parent. Its bounds CHECK spares the scan.
pub fn attach(parent: pg_sys::Oid, table: &str, bounds: &str) -> Result<()> {
    let _bounded = bounded();
    let parent = catalog::qualified_name(parent)?;
    user::as_user(user::current(), || {
        spi::execute(&format!("ALTER TABLE {parent} ATTACH PARTITION {table} {bounds}"), &[])
    })?;
    Ok(())
}

/// Detaches a table from the hot parent, whose lock is held.
pub fn detach(parent: pg_sys::Oid, table: &str) -> Result<()> {
    let _bounded = bounded();
    let parent = catalog::qualified_name(parent)?;
    user::as_user(user::current(), || spi::execute(&format!("ALTER TABLE {parent} DETACH PARTITION {table}"), &[]))?;
    Ok(())
}
