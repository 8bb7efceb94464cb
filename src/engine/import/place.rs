//! The archive side of an import: a partition's foreign table and its rows in the catalog, as an archive run leaves them.

use archive_core::lifecycle::{Status, range_bounds};
use archive_core::manifest::{Level, Manifest, MappedColumn};
use archive_core::naming;
use pgrx::pg_sys;
use pgrx::spi::quote_qualified_identifier;

use super::survey::Found;
use super::{Action, Line, Options, rebuild};
use crate::catalog;
use crate::catalog::managed_table;
use crate::catalog::partition::{Archived, Placed};
use crate::catalog::row_set;
use crate::engine::drift;
use crate::engine::period::{self, Span};
use crate::error::{Error, Result, SqlState};
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::{discover, row_set as foreign, swap};
use crate::pg::{spi, user, xact};

/// Whether the catalog has the partition, and what is to be said about that.
pub(super) fn known(found: &Found, root: pg_sys::Oid) -> Result<Option<Option<String>>> {
    let source = &found.manifest.source;
    if source.bounds.is_none() {
        return Ok(row_set::exists(root, &source.partition)?.then_some(None));
    }
    let Some(known) = catalog::partition::find(root, &source.partition_schema, &source.partition)? else {
        return Ok(None);
    };
    if let Some(successors) = catalog::partition::superseded_by(known.id)? {
        let became = match successors.is_empty() {
            true => "it has expired; archive_ext.deletions tells when its objects go".to_owned(),
            false => format!("it was merged or split; its rows are in {successors}"),
        };
        return Ok(Some(Some(became)));
    }
    let version = known.version.cast_unsigned();
    Ok(Some(if known.status != "ARCHIVED" {
        Some(format!("it was reattached and is {}", known.status))
    } else if version < found.manifest.version {
        Some(format!("the catalog has version {version}: another database wrote a newer one"))
    } else {
        None
    }))
}

/// Imports one partition; the name of its foreign table.
///
/// `columns` is the table's map as its newest manifest has it.
pub(super) fn import(
    found: &Found,
    root: pg_sys::Oid,
    columns: &[MappedColumn],
    options: &Options,
    warnings: &mut Vec<Line>,
) -> Result<String> {
    let manifest = &found.manifest;
    let owner = discover::owner(root)?;
    let Some(bounds) = &manifest.source.bounds else { return import_row_set(found, root, columns, options) };
    let parent = ensure_levels(manifest, root, owner)?;
    check_hot_side((&manifest.source.partition_schema, &manifest.source.partition), parent, bounds, owner)?;
    let names = archive_names(manifest, root)?;
    archive_tree::check_schema(&names.schema, owner)?;
    archive_tree::check_names(root, &names, &manifest.source.partition, &manifest.source.partition)?;
    let (managed, mirror) = archive_tree::ensure(root, parent, &names)?;
    let span = Span::of_bounds(parent, bounds)?;
    let (lower, upper) = range_bounds(bounds);
    let archived = Archived {
        managed_table: managed.id,
        parent,
        lower_bound: lower.as_deref(),
        upper_bound: upper.as_deref(),
        label: &period::label(Status::Archived, span),
        storage: &options.storage,
        manifest_key: &found.key,
        manifest,
        local_bytes: manifest.source.local_bytes,
    };
    let id = catalog::partition::reserve(&archived)?;
    let place = swap::Place {
        schema: &manifest.source.partition_schema,
        name: &manifest.source.partition,
        bounds,
        owner,
        readers_of: root,
    };
    let foreign_table = swap::put_foreign(&place, mirror, &names.schema, &options.storage, id)?;
    register(root, id, &archived, foreign_table, columns, options)?;
    row_set::import_manifests(id, &options.storage, &found.batches)?;
    record_event(found, root, options)?;
    if let Some(warning) = other_columns(found, foreign_table)? {
        warnings.push(warning);
    }
    catalog::qualified_name(foreign_table)
}

/// Imports a row set; the name of its foreign table. Rows that are in the hot table may be in the archive, too: nobody can
/// tell, so there must be none (P1).
fn import_row_set(found: &Found, root: pg_sys::Oid, columns: &[MappedColumn], options: &Options) -> Result<String> {
    let manifest = &found.manifest;
    let (owner, hot) = (discover::owner(root)?, catalog::qualified_name(root)?);
    let has_rows = user::as_user(owner, || {
        spi::one(&format!("SELECT EXISTS (SELECT FROM {hot})"), &[], |row| row.need::<bool>(1))
    })?;
    if has_rows {
        return Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("table {hot} has rows"))
            .detail("Some of them may be in the archive already, as they were archived one by one.")
            .hint("Import into an empty table, then load the rows that are missing."));
    }
    let names = archive_names(manifest, root)?;
    archive_tree::check_schema(&names.schema, owner)?;
    let name = &manifest.source.partition;
    archive_tree::check_names(root, &names, name, name)?;
    let (managed, archive) = archive_tree::ensure(root, root, &names)?;
    let id = row_set::create(managed.id, root, None, &options.storage, &found.key, manifest)?;
    let empty = row_set::newest(managed.id, None)?.filter(|set| set.id == id);
    if let Some(set) = empty {
        let chain = row_set::Chain {
            manifests: &found.batches,
            last: found.last_batch.as_deref(),
            unsettled: found.unsettled.as_ref(),
        };
        row_set::import(&set, &manifest.objects, &manifest.digest, chain)?;
    }
    let foreign_table = foreign::put_foreign(
        &foreign::Place { source: root, archive, names: &names, name, storage: &options.storage },
        id,
    )?;
    row_set::set_foreign_table(id, foreign_table)?;
    catalog::partition::set_imported(id, youngest(manifest), options.verify)?;
    drift::adopt(root, columns)?;
    record_event(found, root, options)?;
    catalog::qualified_name(foreign_table)
}

/// Everything that the catalog learns about an imported partition is written here, and nowhere else. The table's columns
/// get the map of the manifest written last. Where it has none, they get the field ids of the partition that is imported
/// first, which is the one archived last: older ones follow the same ids under the names that the columns had then.
fn register(
    root: pg_sys::Oid,
    id: i64,
    archived: &Archived<'_>,
    foreign_table: pg_sys::Oid,
    columns: &[MappedColumn],
    options: &Options,
) -> Result<()> {
    let placed = Placed { foreign_table, local_copy: None, keep_seconds: 0 };
    catalog::partition::set_archived(id, archived, &placed)?;
    catalog::partition::set_imported(id, youngest(archived.manifest), options.verify)?;
    drift::adopt(root, columns)
}

/// When the last of the rows was archived: those of a row set came batch by batch.
fn youngest(manifest: &Manifest) -> &str {
    let objects = manifest.objects.iter().filter_map(|object| object.archived_at.as_deref());
    objects.chain([manifest.created_at.as_str()]).max().unwrap_or_default()
}

fn record_event(found: &Found, root: pg_sys::Oid, options: &Options) -> Result<()> {
    let manifest = &found.manifest;
    let details = serde_json::json!({
        "storage": options.storage, "manifest": found.key, "version": manifest.version, "rows": manifest.rows,
        "bytes": manifest.bytes, "system_identifier": manifest.system_identifier,
        "database": manifest.source.database,
    });
    catalog::event::record(root, &found.name(), "imported", "ARCHIVED", None, details)
}

/// The registered names, else those of the database that archived, as long as both its own are free.
fn archive_names(manifest: &Manifest, root: pg_sys::Oid) -> Result<ArchiveNames> {
    let policy = catalog::policy::of(root)?;
    let chosen = policy.archive_schema.is_some() || policy.archive_name.is_some();
    match &manifest.archive {
        Some(archive) if !chosen && managed_table::of_source(root)?.is_none() => Ok(ArchiveNames {
            schema: archive.schema.clone(),
            table: archive.table.clone(),
            view: naming::all_view_name(&archive.table)?,
        }),
        _ => ArchiveNames::of(root, &manifest.source.table, &policy),
    }
}

/// The partitioned tables between root and partition; the partition's parent.
fn ensure_levels(manifest: &Manifest, root: pg_sys::Oid, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
    let levels = manifest.root.as_ref().map_or(&[][..], |recorded| &recorded.levels);
    levels.iter().try_fold(root, |above, level| ensure_level(above, level, owner))
}

fn ensure_level(above: pg_sys::Oid, level: &Level, owner: pg_sys::Oid) -> Result<pg_sys::Oid> {
    if discover::find_relation(&level.schema, &level.name)?.is_none() {
        let _bounded = swap::bounded();
        rebuild::run_statement(owner, &level.sql)?;
        xact::command_counter_increment();
    }
    let taken = |what: String| {
        Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("relation {}.{} {what}", level.schema, level.name))
    };
    let Some(oid) = discover::find_relation(&level.schema, &level.name)? else {
        return Err(taken("was not made by the manifest's statement".to_owned()));
    };
    match discover::leaf(oid)? {
        Some(found)
            if found.kind == 'p' && found.parent == Some(above) && found.bounds.as_deref() == Some(&level.bounds) =>
        {
            Ok(oid)
        }
        _ => Err(taken(format!("is not the partition of its parent {}", level.bounds))),
    }
}

/// Rows must not be readable twice (P1): no hot partition may have the range, nor rows of it in the DEFAULT partition.
/// PostgreSQL tells, by making a partition in the place that is taken back again.
pub fn check_hot_side(
    (schema, name): (&str, &str),
    parent: pg_sys::Oid,
    bounds: &str,
    owner: pg_sys::Oid,
) -> Result<()> {
    if discover::find_relation(schema, name)?.is_some() {
        let name = quote_qualified_identifier(schema, name);
        return Err(Error::new(SqlState::ERRCODE_DUPLICATE_TABLE, format!("relation \"{name}\" exists")));
    }
    let (root_schema, _) = discover::schema_and_name(parent)?;
    let probe = quote_qualified_identifier(root_schema.as_str(), "archive_ext_import_probe");
    let parent = catalog::qualified_name(parent)?;
    let sql = format!("CREATE TABLE {probe} PARTITION OF {parent} {bounds}");
    let _bounded = swap::bounded();
    xact::rolled_back(|| user::as_user(owner, || spi::execute(&sql, &[]).map(drop)))
}

/// Columns that a query cannot read, because the table that is there has others.
fn other_columns(found: &Found, foreign_table: pg_sys::Oid) -> Result<Option<Line>> {
    let columns = user::elevated(|| {
        spi::rows(
            "SELECT attname::text, format_type(atttypid, atttypmod) FROM pg_attribute
             WHERE attrelid = $1 AND attnum > 0 AND NOT attisdropped",
            &[foreign_table.into()],
            |row| Ok((row.need::<String>(1)?, row.need::<String>(2)?)),
        )
    })?;
    let fields = &found.manifest.schema.fields;
    let differs = |(name, sql): &&(String, String)| {
        fields.iter().find(|field| field.name == *name).is_none_or(|field| field.type_sql != *sql)
    };
    let names: Vec<_> = columns.iter().filter(differs).map(|(name, _)| name.as_str()).collect();
    Ok((!names.is_empty()).then(|| {
        Line::about(found.name(), Action::Warning, format!("columns differ from the archive's: {}", names.join(", ")))
    }))
}
