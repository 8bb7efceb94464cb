//! Everything that makes a call be refused before it starts, each with what to do (P5, P6, DESIGN §5).

use std::time::{Duration, Instant};

use archive_core::lifecycle::Kind;
use pgrx::pg_sys;

use super::discover::{self, InboundKey, Leaf};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::pg::guc::GucNest;
use crate::pg::{spi, user, xact};

/// Refuses transactions that keep an old snapshot (25001).
pub fn transaction(verb: &str) -> Result<()> {
    if !xact::keeps_one_snapshot() {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_ACTIVE_SQL_TRANSACTION,
        format!("{verb} cannot run in a REPEATABLE READ or SERIALIZABLE transaction"),
    )
    .detail("Its snapshot may be older than rows that were committed before the partition was frozen.")
    .hint("Run it in a READ COMMITTED transaction."))
}

/// The partition `oid`, or why it cannot be archived.
pub fn archivable(oid: pg_sys::Oid) -> Result<Leaf> {
    let Some(leaf) = discover::leaf(oid)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", oid.to_u32()),
        ));
    };
    not_archived_already(&leaf)?;
    not_static(leaf.root.unwrap_or(oid))?;
    no_stubs(&leaf)?;
    kind(&leaf)?;
    position(&leaf)?;
    access(&leaf)?;
    Ok(leaf)
}

fn not_archived_already(leaf: &Leaf) -> Result<()> {
    let Some(known) = catalog::partition::of_archive_relation(leaf.oid)? else { return Ok(()) };
    let name = pgrx::spi::quote_qualified_identifier(&known.schema_name, &known.partition_name);
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("partition \"{name}\" is already archived"),
    )
    .hint(format!("SELECT reattach_partition('{name}') puts it back.")))
}

/// Refuses partitions whose rows are stubs (55000): the rows themselves are in the archive, in the same place.
pub fn no_stubs(leaf: &Leaf) -> Result<()> {
    let Some(set) = catalog::row_set::of_partition(leaf.oid)?.filter(|set| set.rows > 0) else { return Ok(()) };
    let table = catalog::qualified_name(leaf.root.unwrap_or(leaf.oid))?;
    let archived = catalog::qualified_name(set.foreign_table)?;
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("partition \"{}\" holds stubs of archived rows", leaf.qualified()),
    )
    .detail(format!("{} rows are in {archived}.", set.rows))
    .hint(format!("SELECT restore_rows('{table}', '…') brings them back first.")))
}

/// Refuses tables that somebody registered as static (55000), with the reason they gave.
pub fn not_static(root: pg_sys::Oid) -> Result<()> {
    let Some(managed) = catalog::managed_table::of_source(root)?.filter(|managed| managed.kind == Kind::Static) else {
        return Ok(());
    };
    let name = catalog::qualified_name(root)?;
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("\"{name}\" is registered as static and is never archived"),
    )
    .detail(managed.static_reason.unwrap_or_else(|| "No reason was given.".to_owned()))
    .hint(format!("SELECT unregister_static_table('{name}') lets it age.")))
}

fn kind(leaf: &Leaf) -> Result<()> {
    let name = leaf.qualified();
    let wrong = |what: &str| Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" {what}"));
    match leaf.kind {
        'r' => {}
        'p' => {
            let leaves = discover::leaves_below(leaf.oid, 3)?;
            let error = wrong("is a partitioned table, not a leaf partition");
            return Err(if leaves.is_empty() {
                error.hint("It has no partitions yet.")
            } else {
                error.hint(format!("Archive its leaves, one or several: {}.", leaves.join(", ")))
            });
        }
        'f' => return Err(wrong("is a foreign table").hint("Only partitions stored in this database can be archived.")),
        _ => return Err(wrong("is not a table").hint("Name a leaf partition of a partitioned table.")),
    }
    match leaf.persistence {
        't' => {
            Err(wrong("is a temporary table").hint("Temporary partitions end with their session and are not archived."))
        }
        'u' => Err(Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, format!("\"{name}\" is an unlogged table"))
            .detail("A crash would empty the local copy while the archive keeps its rows.")
            .hint(format!("ALTER TABLE {name} SET LOGGED;"))),
        _ => Ok(()),
    }
}

fn position(leaf: &Leaf) -> Result<()> {
    let name = leaf.qualified();
    let (Some(_), Some(bounds)) = (leaf.parent, &leaf.bounds) else {
        return Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not a partition"))
            .hint("Name a leaf of a table that is partitioned by RANGE or LIST."));
    };
    if leaf.detach_pending {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partition \"{name}\" has a pending DETACH CONCURRENTLY"),
        )
        .hint("Finish it with ALTER TABLE … DETACH PARTITION … FINALIZE, attach it again, then archive it."));
    }
    if bounds == "DEFAULT" {
        return Err(Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, format!("\"{name}\" is a DEFAULT partition"))
            .detail("Its rows belong to no range, and new rows may arrive at any time.")
            .hint("Create partitions for its rows, move them there, and archive those."));
    }
    if leaf.strategy == Some('h') {
        return Err(Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, format!("\"{name}\" is a hash partition"))
            .detail("Hash partitions have no age: each holds rows of every time.")
            .hint("Partition the table by RANGE or LIST to archive it partition by partition."));
    }
    Ok(())
}

/// Refuses callers who may not act as the owners of both partition and table (42501). The table's owner.
pub fn ownership(leaf: &Leaf) -> Result<pg_sys::Oid> {
    let root_owner = leaf.root.map_or(Ok(leaf.owner), discover::owner)?;
    if user::has_privileges_of(leaf.owner) && user::has_privileges_of(root_owner) {
        return Ok(root_owner);
    }
    let name = leaf.qualified();
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}"))
        .hint("Archiving needs the owner of the partition and of its partitioned table, or a member of that role."))
}

/// The same, and refuses tables whose partition is somebody else's (55000).
pub fn access(leaf: &Leaf) -> Result<()> {
    let root_owner = ownership(leaf)?;
    let name = leaf.qualified();
    if leaf.owner != root_owner {
        let role = user::name_of(root_owner);
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partition \"{name}\" and its partitioned table have different owners"),
        )
        .hint(format!("ALTER TABLE {name} OWNER TO {};", pgrx::spi::quote_identifier(role))));
    }
    Ok(())
}

/// Runs DETACH's own foreign key check ahead of time: no row may reference the partition, and the check must be
/// quick enough to run under the parent's lock (P6). The time it took is the estimate. Rows of `family` are gone by then.
pub fn inbound_foreign_keys(leaf: &Leaf, family: &[pg_sys::Oid]) -> Result<Duration> {
    let begun = Instant::now();
    for key in discover::inbound_keys(leaf.oid)? {
        if referenced_by(leaf, &key, family)? {
            return Err(Error::new(
                SqlState::ERRCODE_FOREIGN_KEY_VIOLATION,
                format!("rows of {} reference partition \"{}\"", key.table, leaf.qualified()),
            )
            .detail(format!("Foreign key \"{}\" would be violated without the partition.", key.constraint))
            .hint(way_out(leaf, &key)?));
        }
    }
    let estimate = begun.elapsed();
    match guc::max_swap_time() {
        Some(limit) if estimate > limit => Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!(
                "swapping \"{}\" would hold the parent's lock for about {} ms",
                leaf.qualified(),
                estimate.as_millis()
            ),
        )
        .detail(format!(
            "PostgreSQL checks inbound foreign keys under that lock; archive_ext.max_swap_time is {} ms.",
            limit.as_millis()
        ))
        .hint("Index the referencing columns, or raise archive_ext.max_swap_time (0 forces it).")),
        _ => Ok(estimate),
    }
}

fn referenced_by(leaf: &Leaf, key: &InboundKey, family: &[pg_sys::Oid]) -> Result<bool> {
    for (relation, name) in discover::storing(key.relation)? {
        let sql = format!("SELECT EXISTS (SELECT {})", key.rows_from(&name));
        if !family.contains(&relation) && probe(leaf, || spi::one(&sql, &[], |row| row.need::<bool>(1)))? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Runs a query with the owner's rights and keeps none of its locks. Partitions that cannot hold such rows by their bounds
/// are not read.
pub fn probe<T>(leaf: &Leaf, query: impl FnOnce() -> Result<T>) -> Result<T> {
    xact::rolled_back(|| {
        user::as_user(leaf.owner, || {
            let _exclusion = GucNest::new().set(c"constraint_exclusion", "on");
            query()
        })
    })
}

fn way_out(leaf: &Leaf, key: &InboundKey) -> Result<String> {
    let children = catalog::child_table::of(leaf.root.unwrap_or(leaf.oid))?;
    Ok(if children.iter().any(|child| child.child == key.relation) {
        format!("SELECT * FROM archive_family('{}') archives it with its children.", leaf.qualified())
    } else {
        "Archive or delete the referencing rows first, or drop the foreign key.".to_owned()
    })
}
