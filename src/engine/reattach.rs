//! `reattach_partition`: from the local copy in no time, else from the objects.

use archive_core::lifecycle::Status;
use pgrx::pg_sys;
use pgrx::spi::quote_qualified_identifier;

use super::archive;
use super::drift;
use super::family;
use super::glacier;
use super::period;
use super::restore;
use super::transition;
use crate::catalog;
use crate::catalog::job::NewJob;
use crate::catalog::partition::{Known, Reattached};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Attribute, Leaf};
use crate::partition::{adapt, check, default_rows, foreign_key, freeze, locks, remnant_guard, swap};
use crate::pg::columns;
use crate::pg::guc::GucNest;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::{spi, user, xact};
use crate::shape::{Archived, Difference};
use crate::worker::freezer;

/// How a partition comes back.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// After how many seconds it should be archived again.
    pub keep_for_seconds: Option<i64>,
    /// WARM, or HOT.
    pub status: Status,
    /// Whether rows can be changed: a WARM partition that can is one to be corrected.
    pub writable: bool,
    /// What to do with rows of its range in the DEFAULT partition.
    pub move_late_rows: bool,
}

/// Puts an archived partition back under its hot parent and returns it.
///
/// Locks: the new table's own while it loads; ACCESS EXCLUSIVE on the parent, the local copy and the archive parent for
/// the catalog changes at the end, until the transaction commits. The objects stay.
pub fn reattach(name: &str, options: Options) -> Result<pg_sys::Oid> {
    check::transaction("reattach_partition")?;
    let _bounded = swap::bounded();
    let known = find(name)?;
    family::refuse_without_parent(&known, &[])?;
    let mut back = reattach_all(vec![known], options)?;
    back.pop().ok_or_else(|| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "nothing was reattached"))
}

/// The same, but for one that is in a frozen storage class: its objects are asked for, and a job brings it back. `None` then.
pub fn reattach_or_wait(name: &str, options: Options) -> Result<Option<pg_sys::Oid>> {
    let known = find(name)?;
    check_owner(&known)?;
    if glacier::reattach_later(&known, options)? {
        return Ok(None);
    }
    reattach(name, options).map(Some)
}

/// Puts several partitions back in this order, which must have parents before children: all are loaded before the first
/// is attached.
pub fn reattach_all(partitions: Vec<Known>, options: Options) -> Result<Vec<pg_sys::Oid>> {
    let sources: Vec<_> = partitions.iter().map(|known| known.source).collect();
    let loaded = partitions
        .into_iter()
        .map(|known| {
            let parents = catalog::child_table::parents(known.source)?;
            let parents = parents.into_iter().map(|key| key.parent).filter(|parent| sources.contains(parent));
            load(known, &parents.collect::<Vec<_>>())
        })
        .collect::<Result<Vec<_>>>()?;
    failpoint!("reattach_loaded");
    let defaults = keep_ranges_out_of_defaults(&loaded, options)?;
    for one in &loaded {
        swap::finalize_pending(one.known.parent)?;
    }
    lock_all(&loaded)?;
    failpoint!("reattach_locked");
    for one in &loaded {
        archive::note_swap(one.known.parent);
        swap_back(&one.known, one.table)?;
    }
    for default in defaults {
        default_rows::admit(default, xact::top_transaction_id())?;
    }
    loaded.into_iter().map(|one| settle(one, options)).collect()
}

/// A partition whose table is ready to be attached.
struct Loaded {
    known: Known,
    job: pgrx::Uuid,
    table: pg_sys::Oid,
    /// Restored from objects; `None` from the local copy.
    rows: Option<u64>,
    differences: Vec<Difference>,
    archive_parent: pg_sys::Oid,
}

/// Everything that takes time. Foreign keys to `later`, tables whose partitions are attached first, are left to ATTACH.
fn load(known: Known, later: &[pg_sys::Oid]) -> Result<Loaded> {
    check_owner(&known)?;
    let known = claim(&known)?;
    drift::sync(known.source)?;
    // ALTER TABLE changes the table and what the catalog knows of its columns together. What is compared with them now is attached to
    // tables of these columns below, which keep the lock from then on.
    let _still = locks::hold_still(known.parent)?;
    let (differences, usable) = differences(&known)?;
    let job = start_job(&known)?;
    let (table, rows) = match known.local_copy.filter(|_| usable) {
        Some(local_copy) => {
            adapt_local_copy(&known, local_copy, &differences)?;
            (local_copy, None)
        }
        None => {
            catalog::frozen::refuse(known.id)?;
            archive::refuse_second_swap(
                "Commit first. reattach_family brings back a partition with those of its children.",
            )?;
            let (table, rows) = restore::restore(&known, job, &differences, later)?;
            (table, Some(rows))
        }
    };
    adapt::adopt_constraints(known.parent, table)?;
    differences.iter().for_each(|difference| crate::pg::server_text::notice!("{}", difference.describe()));
    let archive_parent = make_ready(&known, table)?;
    Ok(Loaded { known, job, table, rows, differences, archive_parent })
}

/// The partition as it is once nobody else archives it or brings it back (55006, 42704).
fn claim(known: &Known) -> Result<Known> {
    locks::claim_partition(&qualified(known))?;
    let now = catalog::partition::find(known.source, &known.schema_name, &known.partition_name)?;
    now.filter(|now| now.id == known.id && now.status == "ARCHIVED").ok_or_else(|| not_archived(&qualified(known)))
}

/// The table's name is free and it has every index; where the foreign table is.
fn make_ready(known: &Known, table: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let Some(foreign_table) = known.foreign_table else { return Err(vanished(known)) };
    if discover::find_relation(&known.schema_name, &known.partition_name)?.is_some_and(|other| other != table) {
        return Err(Error::new(
            SqlState::ERRCODE_DUPLICATE_TABLE,
            format!("relation \"{}\" already exists", qualified(known)),
        )
        .hint("Rename or drop it, then reattach the partition."));
    }
    refuse_marked(known, table)?;
    let (archive_schema, _) = discover::schema_and_name(foreign_table)?;
    swap::complete_indexes(known.parent, table, &archive_schema, &known.bounds)?;
    Ok(discover::leaf(foreign_table)?.and_then(|leaf| leaf.parent).unwrap_or(foreign_table))
}

/// Rows that were archived with a marker of the application's would be taken for remnants, and read nowhere (55000).
fn refuse_marked(known: &Known, table: pg_sys::Oid) -> Result<()> {
    let Some(marker) = catalog::remnant::of(known.source)? else { return Ok(()) };
    if !remnant_guard::has_remnants(table, &marker)? {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("rows of \"{}\" have \"{}\" set themselves", qualified(known), marker.column),
    )
    .detail("In the table it says that a row is in the archive.")
    .hint("Bring back or purge all rows that are marked, and SELECT forget_marker(table) first."))
}

/// As in an archive run: hot tables first, then archive parents.
fn lock_all(loaded: &[Loaded]) -> Result<()> {
    let mut wanted = Vec::new();
    for one in loaded {
        // A local copy whose rows were restored is dropped, with its foreign keys.
        let replaced = one.known.local_copy.filter(|copy| *copy != one.table);
        let referenced = if replaced.is_some() { LockMode::AccessExclusive } else { LockMode::ShareRowExclusive };
        wanted.extend(swap::concerned(one.known.source, one.known.parent, Some(one.table), referenced)?);
        let keys = foreign_key::referenced_by(&replaced.into_iter().collect::<Vec<_>>())?;
        wanted.extend(keys.into_iter().map(|oid| (oid, LockMode::AccessExclusive)));
    }
    wanted.extend(loaded.iter().map(|one| (one.archive_parent, LockMode::AccessExclusive)));
    locks::acquire_all(&locks::strongest(wanted))
}

/// What the catalog and the table's guards say from now on.
fn settle(loaded: Loaded, options: Options) -> Result<pg_sys::Oid> {
    let Loaded { known, job, table, rows, differences, .. } = loaded;
    let status = options.status;
    set_guards(table, &known, options.writable)?;
    let Some(leaf) = discover::leaf(table)? else { return Err(vanished(&known)) };
    let policy = catalog::policy::of(known.source)?;
    let label = period::label(status, transition::span_of(&leaf, status, &policy)?);
    let Options { writable, keep_for_seconds, .. } = options;
    let back = Reattached { hot_table: table, status, writable, label: &label, keep_for_seconds };
    catalog::partition::set_reattached(known.id, &back)?;
    catalog::job::complete(job, rows.unwrap_or(0))?;
    record_event(&known, job, &leaf, options, rows, &differences)?;
    failpoint!("reattach_recorded");
    Ok(table)
}

/// What became of the table's columns since the partition was archived, and whether its local copy can follow.
fn differences(known: &Known) -> Result<(Vec<Difference>, bool)> {
    let _path = GucNest::new().safe_search_path();
    let (Some(partition), Some(parent)) = (catalog::partition::archived(known.id)?, Relation::peek(known.parent))
    else {
        return Err(vanished(known));
    };
    let name = qualified(known);
    let archived =
        Archived { name: &name, schema: &partition.schema, map: &partition.map, archived_at: partition.archived_at };
    let differences = archived.differences(&columns::of_relation(&parent))?;
    let usable = match known.local_copy {
        Some(local_copy) => {
            let wanted = discover::attributes(known.parent)?;
            adapt::fits_without_rewrite(&differences, &wanted) && is_whole(local_copy, &archived, &wanted)?
        }
        None => false,
    };
    Ok((differences, usable))
}

/// Whether the local copy still has every column that was archived and is in the table, and ATTACH would take it: one may
/// have gone with its type, or have another collation in the parent by now, or be generated there and not here.
fn is_whole(local_copy: pg_sys::Oid, archived: &Archived<'_>, wanted: &[Attribute]) -> Result<bool> {
    let has = discover::attributes(local_copy)?;
    let dropped: Vec<_> = archived.dropped().map(|field| field.id).collect();
    let mut kept = archived.schema.fields.iter().filter(|field| !dropped.contains(&field.id));
    Ok(kept.all(|field| {
        let now = archived.map.field(field.id).and_then(|column| column.name.as_deref()).unwrap_or(&field.name);
        let wanted = wanted.iter().find(|column| column.name == now);
        has.iter().any(|column| {
            column.name == field.name
                && wanted.is_none_or(|wanted| column.collate == wanted.collate && column.generated == wanted.generated)
        })
    }))
}

/// The local copy gets the shape of its parent; nobody else sees it before it is attached.
fn adapt_local_copy(known: &Known, local_copy: pg_sys::Oid, differences: &[Difference]) -> Result<()> {
    if differences.is_empty() {
        return Ok(());
    }
    locks::acquire(local_copy, &catalog::qualified_name(local_copy)?, LockMode::AccessExclusive)?;
    adapt::local_copy(local_copy, known.parent, differences)
}

fn qualified(known: &Known) -> String {
    quote_qualified_identifier(&known.schema_name, &known.partition_name)
}

/// The archived partition that `name` means: the hot name or the archive's, with or without a schema.
pub fn find(name: &str) -> Result<Known> {
    let parts =
        user::elevated(|| spi::one("SELECT parse_ident($1)", &[name.into()], |row| row.need::<Vec<String>>(1)))?;
    let (schema, partition) = match parts.as_slice() {
        [partition] => (None, partition),
        [schema, partition] => (Some(schema.as_str()), partition),
        _ => return Err(not_archived(name)),
    };
    if let Some(known) = by_archive_name(schema, partition)? {
        return Ok(known);
    }
    let mut found = catalog::partition::find_by_name(schema, partition)?;
    found.retain(|known| known.status == "ARCHIVED");
    match found.len() {
        0 => Err(stubs_of(name)?.unwrap_or_else(|| not_archived(name))),
        1 => Ok(found.remove(0)),
        _ => Err(Error::new(SqlState::ERRCODE_AMBIGUOUS_PARAMETER, format!("partition name \"{name}\" is ambiguous"))
            .hint(format!("Qualify it: {}.", found.iter().map(qualified).collect::<Vec<_>>().join(", ")))),
    }
}

/// Why a partition that is there cannot be reattached: its rows left stubs.
fn stubs_of(name: &str) -> Result<Option<Error>> {
    let relation = user::own_sql(user::current(), || {
        spi::one("SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", &[name.into()], |row| row.get::<pg_sys::Oid>(1))
    })?;
    let leaf = relation.map(discover::leaf).transpose()?.flatten();
    Ok(leaf.and_then(|leaf| check::no_stubs(&leaf).err()))
}

fn by_archive_name(schema: Option<&str>, name: &str) -> Result<Option<Known>> {
    match schema.map(|schema| discover::find_relation(schema, name)).transpose()?.flatten() {
        Some(relation) => catalog::partition::of_archive_relation(relation),
        None => Ok(None),
    }
}

fn not_archived(name: &str) -> Error {
    Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("there is no archived partition \"{name}\""))
        .hint("archive_ext.partitions lists the archived partitions; name one as schema.partition.")
}

fn vanished(known: &Known) -> Error {
    Error::new(
        SqlState::ERRCODE_UNDEFINED_TABLE,
        format!("the relations of partition \"{}\" are gone", qualified(known)),
    )
}

fn check_owner(known: &Known) -> Result<()> {
    if discover::leaf(known.source)?.is_none() || discover::leaf(known.parent)?.is_none() {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("the partitioned table of \"{}\" does not exist any more", qualified(known)),
        )
        .hint("Its manifest and objects in the storage are complete: restore it from there."));
    }
    if user::has_privileges_of(discover::owner(known.source)?) {
        return Ok(());
    }
    let table = catalog::qualified_name(known.source)?;
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {table}"))
        .hint("Reattaching needs the owner of the partitioned table, or a member of that role."))
}

fn start_job(known: &Known) -> Result<pgrx::Uuid> {
    let id = catalog::job::new_id()?;
    let name = qualified(known);
    let job = NewJob {
        operation: "reattach",
        table: known.source,
        partition_name: &name,
        partition: known.local_copy,
        storage: known.storage.as_deref().unwrap_or_default(),
        verify: "content",
        drop_local_seconds: None,
        phase: "loading",
    };
    catalog::job::start(id, &job, &user::name_of(user::current()), std::process::id().cast_signed())?;
    Ok(id)
}

/// With DEFAULT partitions: a committed CHECK keeps the ranges out of each, so that ATTACH need not scan it under the
/// parent's lock, and rows that are there already are refused or moved. The DEFAULT partitions.
fn keep_ranges_out_of_defaults(loaded: &[Loaded], options: Options) -> Result<Vec<pg_sys::Oid>> {
    let mut defaults: Vec<(pg_sys::Oid, Vec<String>, pg_sys::Oid)> = Vec::new();
    for one in loaded {
        let Some(default) = default_rows::of_parent(one.known.parent)? else { continue };
        let condition = format!("({})", restore::bounds_condition(&one.known)?);
        match defaults.iter_mut().find(|(oid, ..)| *oid == default) {
            Some((_, conditions, _)) => conditions.push(condition),
            None => defaults.push((default, vec![condition], one.table)),
        }
    }
    for (default, conditions, table) in &defaults {
        let condition = conditions.join(" OR ");
        let exclude = Some(freezer::Exclude { default_partition: default.to_u32(), condition: condition.clone() });
        freezer::freeze(&freezer::Order::of_this_transaction(Vec::new(), exclude))?;
        default_rows::settle(*default, &condition, *table, options.move_late_rows)?;
    }
    Ok(defaults.into_iter().map(|(default, ..)| default).collect())
}

/// DETACH of the foreign table and ATTACH of `table`, in one transaction under the locks of [`lock_all`].
fn swap_back(known: &Known, table: pg_sys::Oid) -> Result<()> {
    let Some(foreign_table) = known.foreign_table else { return Err(vanished(known)) };
    swap::drop_foreign(foreign_table)?;
    failpoint!("reattach_foreign_dropped");
    match known.local_copy {
        Some(local_copy) if local_copy == table => {
            swap::restore_name(table, &known.schema_name, &known.partition_name)?;
        }
        // Its rows were restored from the objects, in the shape that the table has now.
        Some(local_copy) => swap::drop_local_copy(local_copy)?,
        None => {}
    }
    failpoint!("reattach_named");
    swap::attach(known.parent, &qualified(known), &known.bounds)?;
    failpoint!("reattach_attached");
    xact::command_counter_increment();
    Ok(())
}

/// Read-only partitions keep guards and CHECK; writable ones, WARM or not, lose both.
fn set_guards(table: pg_sys::Oid, known: &Known, writable: bool) -> Result<()> {
    let name = qualified(known);
    let owner = discover::owner(table)?;
    if writable {
        freeze::lift_guards(table, &name, owner)?;
        return freeze::drop_bounds_check(table, &name, owner);
    }
    freeze::guard(table, &name, owner, freeze::Reason::ReadOnly)
}

fn record_event(
    known: &Known,
    job: pgrx::Uuid,
    leaf: &Leaf,
    options: Options,
    rows: Option<u64>,
    differences: &[Difference],
) -> Result<()> {
    let mut details = match rows {
        Some(rows) => serde_json::json!({ "from": "objects", "rows": rows, "version": known.version }),
        None => serde_json::json!({ "from": "local copy", "version": known.version }),
    };
    details["writable"] = options.writable.into();
    if !differences.is_empty() {
        details["columns"] = differences.iter().map(Difference::describe).collect();
    }
    catalog::event::record(known.source, &leaf.qualified(), "reattached", options.status.as_str(), Some(job), details)
}
