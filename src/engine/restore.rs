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
use crate::export::{self, ExportSource};
use crate::partition::{discover, freeze};
use crate::pg::guc::GucNest;
use crate::pg::load::BulkLoader;
use crate::pg::relation::LockMode;
use crate::pg::row::RowBuffer;
use crate::pg::{interrupts, spi, user, xact};

/// Rows between two progress reports.
const TICK_ROWS: u64 = 4096;

/// Creates the table, loads and checks every row, builds indexes and the rest; the table and its number of rows.
pub fn restore(known: &Known, job: Uuid) -> Result<(pg_sys::Oid, u64)> {
    let owner = discover::owner(known.source)?;
    let (Some(storage_name), Some(key)) = (&known.storage, &known.manifest_key) else {
        return Err(no_objects(known));
    };
    let store = storage::open_for(storage_name, owner)?;
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
    let table = create_table(known, &manifest.ddl, &name, owner)?;
    let mut progress = Progress::new(job, table, &name, manifest.rows);
    let rows = load(known, &store, &manifest, table, &mut progress)?;
    progress.phase(Phase::Indexing);
    user::as_user(owner, || decorate(known, &manifest.ddl, &name))?;
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
fn create_table(known: &Known, ddl: &Ddl, name: &str, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
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
    user::as_user(owner, || {
        ddl.defaults.iter().chain(&ddl.storage_parameters).try_for_each(|sql| spi::execute(sql, &[]).map(drop))
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
    let source = ExportSource::open(table, known.source, LockMode::AccessExclusive)?;
    let source = source.arranged_as(&manifest.schema).ok_or_else(columns_changed)?;
    let columns: Vec<i32> = source.schema.fields.iter().map(|field| field.id).collect();
    let _text = GucNest::lossless_text();
    let mut loader = BulkLoader::begin(&source.relation);
    let mut buffer = RowBuffer::new(source.relation.attribute_count());
    let mut rows = 0;
    for object in &manifest.objects {
        let options = ScanOptions { columns: columns.clone(), ..ScanOptions::default() };
        let mut reader =
            ObjectReader::open(store.reader(&object.key, object.bytes), object.bytes, &manifest.schema, options)?;
        let mut hasher = RowHasher::new(&manifest.schema);
        while let Some(batch) = reader.next_batch()? {
            for at in 0..batch.rows() {
                interrupts::check();
                loader.add(&mut buffer, |buffer| {
                    for (column, io) in source.io.iter().enumerate() {
                        io.write(&batch.get(column, at)?, buffer)?;
                    }
                    export::hash_row(&source, &mut hasher, &buffer.row())
                })?;
                rows += 1;
                if u64::is_multiple_of(rows, TICK_ROWS) {
                    progress.tick(rows, object.bytes);
                }
            }
        }
        check_digest(object, &hasher)?;
    }
    let loaded = loader.finish();
    xact::command_counter_increment();
    Ok(loaded)
}

fn columns_changed() -> Error {
    Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, "the table's columns changed since the partition was archived")
        .detail("Columns were added, dropped, renamed or got another type.")
        .hint("The archived rows can still be read from the archive; undo the change to reattach the partition.")
}

fn check_digest(object: &archive_core::manifest::ManifestObject, hasher: &RowHasher) -> Result<()> {
    if hasher.digest() == object.digest {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("archive object \"{}\" is not what was archived", object.key),
    )
    .detail("The digest of its rows differs from the manifest's.")
    .hint("Nothing was changed. Restore the object from a copy or an older version of the bucket."))
}

/// Indexes after the load, constraints, the bounds CHECK, statistics, triggers, comments and grants.
fn decorate(known: &Known, ddl: &Ddl, name: &str) -> Result<()> {
    for sql in ddl.indexes.iter().chain(&ddl.constraints).map(|item| item.sql.as_str()) {
        interrupts::check();
        spi::execute(sql, &[])?;
    }
    let condition = bounds_condition(known)?;
    spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {} CHECK ({condition})", freeze::BOUNDS_CHECK), &[])?;
    let triggers = ddl.triggers.iter().map(|item| &item.sql);
    for sql in ddl.statistics.iter().chain(triggers).chain(&ddl.comments).chain(&ddl.grants) {
        spi::execute(sql, &[])?;
    }
    Ok(())
}

/// The partition constraint that ATTACH will want, taken from the foreign table that holds the place now.
pub fn bounds_condition(known: &Known) -> Result<String> {
    let Some(foreign_table) = known.foreign_table else { return Err(no_objects(known)) };
    user::elevated(|| spi::one("SELECT pg_get_partition_constraintdef($1)", &[foreign_table.into()], |row| row.need(1)))
}
