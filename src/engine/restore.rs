//! Loads a partition from its objects into a table of its own, ready to be attached.

use archive_core::codec::{ObjectReader, RowHasher, ScanOptions};
use archive_core::manifest::{Ddl, Manifest};
use pgrx::spi::{quote_identifier, quote_qualified_identifier};
use pgrx::{Uuid, pg_sys};

use super::manifest;
use super::progress::{Phase, Progress};
use super::storage;
use crate::catalog;
use crate::catalog::partition::Known;
use crate::error::{Error, Result, SqlState};
use crate::partition::{adapt, discover, foreign_key, freeze, locks};
use crate::pg::columns;
use crate::pg::datum;
use crate::pg::guc::GucNest;
use crate::pg::load::BulkLoader;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::reshape::Reshaper;
use crate::pg::row::RowBuffer;
use crate::pg::tuple_id::TupleId;
use crate::pg::{interrupts, spi, user, xact};
use crate::shape::{Archived, Builder, Difference, Volatile};

/// Rows between two progress reports.
const TICK_ROWS: u64 = 4096;

/// Creates the table in the shape that its parent has now, loads and checks every row, builds indexes and the rest; the
/// table and its number of rows. Foreign keys to the tables `later` are left to ATTACH: their rows are not back yet.
pub fn restore(
    known: &Known,
    job: Uuid,
    differences: &[Difference],
    later: &[pg_sys::Oid],
) -> Result<(pg_sys::Oid, u64)> {
    let owner = discover::owner(known.source)?;
    let (Some(storage_name), Some(key)) = (&known.storage, &known.manifest_key) else {
        return Err(no_objects(known));
    };
    let store = storage::open_for(storage_name, owner)?;
    let copies = catalog::object_copy::storage_of(known.id)?;
    let second = copies.and_then(|copies| storage::open_for(&copies, owner).ok());
    let store = second.map_or_else(|| store.clone(), |second| store.clone().with_fallback(&second));
    let manifest = manifest::load(&store, key)?;
    if !catalog::partition::recorded_as(known.id, &manifest)? {
        return Err(Error::new(
            SqlState::ERRCODE_DATA_CORRUPTED,
            format!("manifest \"{key}\" is not what was archived"),
        )
        .detail("Its digest, columns or DDL differ from those in the archive catalog.")
        .hint("Nothing was changed. Restore the object from a copy or an older version of the bucket."));
    }
    let name = quote_qualified_identifier(&known.schema_name, &known.partition_name);
    let owner = recorded_owner(&manifest.ddl).unwrap_or(owner);
    let table = create_table(known, &name, owner)?;
    failpoint!("restore_created");
    let mut progress = Progress::new(job, table, &name, manifest.rows);
    let rows = load(known, &store, &manifest, table, &mut progress)?;
    progress.phase(Phase::Indexing);
    let later = later.iter().map(|oid| Ok(format!(" REFERENCES {}(", catalog::qualified_name(*oid)?)));
    let mut ddl = manifest.ddl;
    for reference in later.collect::<Result<Vec<_>>>()? {
        ddl.constraints.retain(|constraint| !constraint.sql.contains(&reference));
    }
    decorate(known, &ddl, table, owner, differences)?;
    failpoint!("restore_decorated");
    Ok((table, rows))
}

/// The partition's owner when it was archived, if that role still exists and the caller may act for it.
fn recorded_owner(ddl: &Ddl) -> Option<pg_sys::Oid> {
    user::find(&ddl.owner).filter(|role| user::has_privileges_of(*role))
}

fn no_objects(known: &Known) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("the catalog knows no objects of partition \"{}.{}\"", known.schema_name, known.partition_name),
    )
    .hint("Look for its manifest in the storage.")
}

/// The table has the parent's columns as they are now, so that ATTACH takes it.
fn create_table(known: &Known, name: &str, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
    if discover::find_relation(&known.schema_name, &known.partition_name)?.is_some() {
        return Err(Error::new(SqlState::ERRCODE_DUPLICATE_TABLE, format!("relation \"{name}\" already exists"))
            .hint("Rename or drop it, then reattach the partition."));
    }
    let parent = crate::catalog::qualified_name(known.parent)?;
    user::as_user(user::current(), || {
        spi::execute(&format!("CREATE TABLE {name} (LIKE {parent} INCLUDING GENERATED INCLUDING STORAGE)"), &[])?;
        let role = quote_identifier(user::name_of(owner));
        spi::execute(&format!("ALTER TABLE {name} OWNER TO {role}"), &[])
    })?;
    xact::command_counter_increment();
    discover::find_relation(&known.schema_name, &known.partition_name)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation \"{name}\" was not created")))
}

fn load(
    known: &Known,
    store: &archive_core::store::BlockingStore,
    manifest: &Manifest,
    table: pg_sys::Oid,
    progress: &mut Progress,
) -> Result<u64> {
    progress.phase(Phase::Loading);
    let map = catalog::column_map::load(known.managed_table)?;
    let name = quote_qualified_identifier(&known.schema_name, &known.partition_name);
    let archived = Archived { name: &name, schema: &manifest.schema, map: &map, archived_at: known.archived_at };
    admit_nulls(&archived, table)?;
    let Some(relation) = Relation::open(table, LockMode::AccessExclusive) else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("relation \"{name}\" was dropped")));
    };
    let (reshaper, complete) = reshaper(archived, &relation, known.source)?;
    // Functions of types and defaults of new columns are the owner's.
    let (loaded, positions) =
        user::as_user(relation.owner(), || load_objects(store, manifest, &relation, reshaper, complete, progress))?;
    note_positions(known, manifest, table, &positions)?;
    xact::command_counter_increment();
    Ok(loaded)
}

/// How many rows were loaded, and where the first of each object is.
fn load_objects(
    store: &archive_core::store::BlockingStore,
    manifest: &Manifest,
    relation: &Relation,
    mut reshaper: Reshaper,
    complete: bool,
    progress: &mut Progress,
) -> Result<(u64, Vec<Option<TupleId>>)> {
    // Some values are hashed as text.
    let _text = GucNest::lossless_text();
    let mut loader = BulkLoader::begin(relation);
    let mut buffer = RowBuffer::new(relation.attribute_count());
    let mut rows = 0;
    for object in &manifest.objects {
        loader.begin_segment();
        let options = ScanOptions { columns: reshaper.fields().to_vec(), ..ScanOptions::default() };
        let mut reader =
            ObjectReader::open(store.reader(&object.key, object.bytes), object.recorded()?, &manifest.schema, options)?;
        let mut hasher = RowHasher::new(&manifest.schema);
        while let Some(batch) = reader.next_batch()? {
            for at in 0..batch.rows() {
                interrupts::check();
                loader.add(&mut buffer, |buffer, arena| {
                    reshaper.decode(&batch, at, buffer, arena, complete.then_some(&mut hasher))
                })?;
                rows += 1;
                if u64::is_multiple_of(rows, TICK_ROWS) {
                    progress.tick(rows, object.bytes);
                }
            }
        }
        if complete {
            check_digest(object, &hasher)?;
        } else {
            check_bytes(object, store)?;
        }
        failpoint!("restore_object_loaded");
    }
    Ok(loader.finish())
}

/// Notes where each object's rows are now, so that archiving the partition again finds those that nobody changed.
fn note_positions(known: &Known, manifest: &Manifest, table: pg_sys::Oid, positions: &[Option<TupleId>]) -> Result<()> {
    let (Some(storage), Some(leaf)) = (&known.storage, discover::leaf(table)?) else { return Ok(()) };
    for (object, position) in manifest.objects.iter().zip(positions) {
        if let Some(first) = position {
            catalog::object::set_position(storage, &object.key, leaf.relfilenode, *first)?;
        }
    }
    Ok(())
}

/// A new column's NOT NULL is checked after the load.
fn admit_nulls(archived: &Archived<'_>, table: pg_sys::Oid) -> Result<()> {
    let Some(relation) = Relation::peek(table) else { return Ok(()) };
    let columns = columns::of_relation(&relation);
    drop(relation);
    let nullable = archived.nullable(&columns);
    let doubtful: Vec<_> =
        nullable.iter().filter(|column| column.not_null).map(|column| column.name.as_str()).collect();
    adapt::allow_null(table, &doubtful)
}

/// What makes archived rows rows of the table, and whether every archived column is read as it was, so that the digest
/// can be compared. The fields are read in the order of the archive, as the digest has them.
fn reshaper(archived: Archived<'_>, relation: &Relation, source: pg_sys::Oid) -> Result<(Reshaper, bool)> {
    let _path = GucNest::new().safe_search_path();
    let mut builder = Builder::new(archived, relation, Some(source), Volatile::Evaluate);
    let complete = builder.read_all();
    builder.add_every_column()?;
    // Values that hold OIDs hash to something else in another database, and labels under another name.
    let same = datum::is_of_this_database(archived.schema) && catalog::enums::are_as_archived(&archived.schema.enums)?;
    Ok((builder.finish(), complete && same))
}

/// Where a column's type is gone, or in another database, rows cannot be hashed: then the object as a whole is.
fn check_bytes(
    object: &archive_core::manifest::ManifestObject,
    store: &archive_core::store::BlockingStore,
) -> Result<()> {
    let sha256 = archive_core::codec::sha256_of(&mut store.reader(&object.key, object.bytes))?;
    if sha256 == object.sha256 { Ok(()) } else { Err(not_what_was_archived(object)) }
}

fn check_digest(object: &archive_core::manifest::ManifestObject, hasher: &RowHasher) -> Result<()> {
    if hasher.digest() == object.digest { Ok(()) } else { Err(not_what_was_archived(object)) }
}

fn not_what_was_archived(object: &archive_core::manifest::ManifestObject) -> Error {
    Error::new(SqlState::ERRCODE_DATA_CORRUPTED, format!("archive object \"{}\" is not what was archived", object.key))
        .detail("The digest of its rows differs from the manifest's.")
        .hint("Nothing was changed. Restore the object from a copy or an older version of the bucket.")
}

fn plain(list: &[String]) -> Vec<&str> {
    list.iter().map(String::as_str).collect()
}

fn named(list: &[archive_core::manifest::NamedDdl]) -> Vec<&str> {
    list.iter().map(|item| item.sql.as_str()).collect()
}

/// Defaults, indexes after the load, constraints, the bounds CHECK, statistics, triggers, policies, comments and grants.
fn decorate(
    known: &Known,
    ddl: &Ddl,
    table: pg_sys::Oid,
    owner: pg_sys::Oid,
    differences: &[Difference],
) -> Result<()> {
    let (first, constraints) = recorded_statements(ddl);
    if differences.is_empty() {
        execute_all(owner, first)?;
        lock_referenced(known.parent)?;
        execute_all(owner, constraints)?;
    } else {
        lock_referenced(known.parent)?;
        adapt::under_former_names(table, differences, first.into_iter().chain(constraints))?;
        adapt::adopt_defaults(known.parent, table, differences)?;
    }
    let (name, condition) = (catalog::qualified_name(table)?, bounds_condition(known)?);
    user::as_user(owner, || {
        spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {} CHECK ({condition})", freeze::BOUNDS_CHECK), &[])
    })?;
    Ok(())
}

fn execute_all(owner: pg_sys::Oid, statements: Vec<&str>) -> Result<()> {
    user::as_user(owner, || {
        statements.into_iter().try_for_each(|sql| {
            interrupts::check();
            spi::execute(sql, &[]).map(drop)
        })
    })
}

/// What foreign keys of the partition will lock: all of it or none, and without a deadlock.
fn lock_referenced(parent: pg_sys::Oid) -> Result<()> {
    let referenced = foreign_key::referenced_by(&[parent])?;
    locks::acquire_all(&referenced.into_iter().map(|oid| (oid, LockMode::ShareRowExclusive)).collect::<Vec<_>>())
}

/// Up to the indexes, and from the constraints on.
fn recorded_statements(ddl: &Ddl) -> (Vec<&str>, Vec<&str>) {
    let first = [plain(&ddl.defaults), plain(&ddl.storage_parameters), named(&ddl.indexes)].concat();
    let then = [
        named(&ddl.constraints),
        plain(&ddl.statistics),
        named(&ddl.triggers),
        plain(&ddl.policies),
        plain(&ddl.comments),
        plain(&ddl.grants),
    ]
    .concat();
    (first, then)
}

/// The partition constraint that ATTACH will want, taken from the foreign table that holds the place now.
pub fn bounds_condition(known: &Known) -> Result<String> {
    let Some(foreign_table) = known.foreign_table else { return Err(no_objects(known)) };
    user::elevated(|| spi::one("SELECT pg_get_partition_constraintdef($1)", &[foreign_table.into()], |row| row.need(1)))
}
