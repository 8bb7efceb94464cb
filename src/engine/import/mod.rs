//! `import_archive`: catalog, hot roots and foreign tables rebuilt from nothing but a storage (P3).
//!
//! The SQL that manifests hold comes from the bucket. It runs as the owner of the tables under
//! `SECURITY_RESTRICTED_OPERATION`; only schemas and extensions are made with the caller's rights, from their names.

mod place;
mod rebuild;
mod relate;
mod survey;

pub use place::check_hot_side;

use archive_core::manifest::{FamilyKey, MappedColumn};
use archive_core::naming;
use archive_core::store::{BlockingStore, GLACIER_CLASSES, ObjectMeta};
use pgrx::pg_sys;
use pgrx::spi::quote_qualified_identifier;

use crate::catalog;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::guc::GucNest;
use crate::pg::server_text::warning;
use crate::pg::{interrupts, spi, user, xact};
use relate::Deferred;
use survey::{Found, Listed, Table};

/// The arguments of `import_archive`.
#[derive(Debug)]
pub struct Options {
    /// Where to import from.
    pub storage: String,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// LIKE pattern over `schema.table`.
    pub tables: Option<String>,
    /// Who owns what is made, instead of the recorded owners.
    pub owner: Option<String>,
    /// Whether to read all objects and compare their SHA-256.
    pub verify: bool,
}

/// What one line of the result tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// The partitioned table was made.
    Table,
    /// The table ages with another one again.
    Child,
    /// The partition is queryable now.
    Import,
    /// The catalog has it already.
    Known,
    /// Something is in its place; it was left alone.
    Conflict,
    /// It could not be imported.
    Failed,
    /// Objects are missing or damaged.
    Incomplete,
    /// A manifest that cannot be read; an older version may have been taken instead.
    Unreadable,
    /// Something optional did not work.
    Warning,
}

impl Action {
    /// The word in the result.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Table => "table",
            Self::Child => "child",
            Self::Import => "import",
            Self::Known => "known",
            Self::Conflict => "conflict",
            Self::Failed => "failed",
            Self::Incomplete => "incomplete",
            Self::Unreadable => "unreadable",
            Self::Warning => "warning",
        }
    }
}

/// One line of the result.
#[derive(Debug)]
pub struct Line {
    /// The partition, or the table or manifest that the line is about.
    pub partition: String,
    /// What was done.
    pub action: Action,
    /// Rows of the partition.
    pub rows: Option<u64>,
    /// Bytes of its objects.
    pub bytes: Option<u64>,
    /// Version of its manifest.
    pub version: Option<u32>,
    /// More about it.
    pub detail: Option<String>,
}

impl Line {
    /// A line about anything that is not a partition.
    fn about(name: impl Into<String>, action: Action, detail: impl Into<String>) -> Self {
        Self { partition: name.into(), action, rows: None, bytes: None, version: None, detail: Some(detail.into()) }
    }

    fn of(found: &Found, action: Action, detail: Option<String>) -> Self {
        let manifest = &found.manifest;
        Self {
            partition: found.name(),
            action,
            rows: Some(manifest.rows),
            bytes: Some(manifest.bytes),
            version: Some(manifest.version),
            detail,
        }
    }
}

/// Imports what the storage holds. A dry run does the same and takes it back, so that it tells just what would happen.
pub fn run(options: &Options) -> Result<Vec<Line>> {
    if !user::is_superuser() {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, "must be superuser to import an archive")
            .detail("Manifests hold SQL that is run, like a dump."));
    }
    catalog::storage::options(&options.storage)?;
    let store = catalog::storage::open(&options.storage, user::current())?;
    let (tables, mut lines) = survey::survey(&store, options)?;
    let _quiet = GucNest::new().set(c"client_min_messages", "warning");
    let mut import = || {
        let mut deferred = Vec::new();
        for table in &tables {
            import_table(table, options, &store, &mut lines, &mut deferred)?;
        }
        relate::run_deferred(&deferred, &mut lines);
        relate::register_children(&tables, &mut lines)
    };
    if options.dry_run { xact::rolled_back(import) } else { import() }?;
    // Of some tables alone there is no chain: other manifests come between.
    if !options.dry_run && options.tables.is_none() {
        learn_chain(options, &store, &mut lines)?;
    }
    report_losses(&lines);
    Ok(lines)
}

/// The chain of the manifests goes on as it is found.
fn learn_chain(options: &Options, store: &BlockingStore, lines: &mut Vec<Line>) -> Result<()> {
    let learnt = super::chain::learn(&options.storage, store)?;
    lines.extend(learnt.left_out.into_iter().map(|(key, why)| Line::about(key, Action::Warning, why)));
    if learnt.absent > 0 {
        let what = format!(
            "{} manifests that others name are not there, or were altered: that is not told again",
            learnt.absent
        );
        lines.push(Line::about(format!("chain of {}", options.storage), Action::Warning, what));
    }
    Ok(())
}

fn report_losses(lines: &[Line]) {
    let lost = |line: &&Line| matches!(line.action, Action::Conflict | Action::Failed | Action::Incomplete);
    let count = lines.iter().filter(lost).count();
    if count > 0 {
        warning!("{count} partitions are not imported; the column detail tells why");
    }
}

/// Runs `work` in a subtransaction: an error leaves nothing of it behind.
fn attempt<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    Ok(xact::subtransaction(|| work().or_raise())?)
}

/// Message, DETAIL and HINT of an error in one line.
fn told(error: &Error) -> String {
    [Some(error.message()), error.detail_text(), error.hint_text()].into_iter().flatten().collect::<Vec<_>>().join("; ")
}

fn import_table<'a>(
    table: &'a Table,
    options: &Options,
    store: &BlockingStore,
    lines: &mut Vec<Line>,
    deferred: &mut Vec<Deferred<'a>>,
) -> Result<()> {
    let owner = owner(table, options, lines)?;
    let granted = rebuild::prepare_schemas(table, owner, lines)?;
    let root = attempt(|| rebuild::ensure_root(table, owner, options.dry_run, lines, deferred));
    match root {
        Ok(root) => {
            warn_of_credentials(options, table, owner, lines);
            warn_of_encoding(table, lines)?;
            // Row sets are numbered as they were made: batches go to the last.
            let by_rows = |found: &&Found| found.manifest.source.bounds.is_none();
            let partitions = table.partitions.iter().filter(|found| !by_rows(found));
            let found: Vec<_> = partitions.chain(table.partitions.iter().filter(by_rows).rev()).collect();
            import_partitions(table, root, &found, options, store, lines)?;
        }
        Err(error) => {
            let action = refusal(&error);
            lines.extend(table.partitions.iter().map(|found| Line::of(found, action, Some(told(&error)))));
        }
    }
    rebuild::revoke(&granted, owner)
}

/// The role that gets the table: as asked for, else as recorded, else the caller.
fn owner(table: &Table, options: &Options, lines: &mut Vec<Line>) -> Result<pg_sys::Oid> {
    if let Some(name) = &options.owner {
        return user::find(name)
            .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("role \"{name}\" does not exist")));
    }
    let recorded = table.root.ddl.owner.as_str();
    if let Some(role) = user::find(recorded) {
        return Ok(role);
    }
    let me = user::name_of(user::current());
    lines.push(Line::about(
        table.name(),
        Action::Warning,
        format!("its owner \"{recorded}\" does not exist; what is made belongs to \"{me}\""),
    ));
    Ok(user::current())
}

/// Queries will read with the owner's rights on the storage.
fn warn_of_credentials(options: &Options, table: &Table, owner: pg_sys::Oid, lines: &mut Vec<Line>) {
    if let Err(error) = attempt(|| super::storage::open_for(&options.storage, owner).map(drop)) {
        lines.push(Line::about(table.name(), Action::Warning, told(&error)));
    }
}

/// The objects are UTF-8; only text that UTF-8 cannot hold is in the encoding of the database that archived.
fn warn_of_encoding(table: &Table, lines: &mut Vec<Line>) -> Result<()> {
    let here = spi::one("SELECT pg_catalog.getdatabaseencoding()::text", &[], |row| row.need::<String>(1))?;
    let other = table.partitions.iter().map(|found| &found.manifest.database_encoding).find(|other| **other != here);
    if let Some(other) = other {
        let detail = format!("it was archived in encoding {other}; this database has {here}");
        lines.push(Line::about(table.name(), Action::Warning, detail));
    }
    Ok(())
}

/// Imports partitions of one table. What was listed may be gone by now, as garbage. So all that is new is held first, as by those who
/// write it; then the table is listed again.
fn import_partitions(
    table: &Table,
    root: pg_sys::Oid,
    found: &[&Found],
    options: &Options,
    store: &BlockingStore,
    lines: &mut Vec<Line>,
) -> Result<()> {
    let held: Vec<_> = found.iter().map(|found| (*found, hold_if_new(found, root))).collect();
    let prefix = naming::table_prefix(&table.schema, &table.name);
    let listing = if held.iter().any(|(_, line)| line.is_none()) { store.list(&prefix)? } else { Vec::new() };
    let listed = Listed::of(&prefix, &listing);
    for (found, line) in held {
        let line = line.unwrap_or_else(|| {
            let columns = table.column_map();
            import_partition(
                found,
                |version| survey::missing(version, &listed, store, options.verify),
                lines,
                |version, warnings| place::import(version, root, columns, options, warnings),
            )
        });
        lines.push(line);
    }
    let classes: Vec<_> = listing.iter().filter_map(in_archive_class).collect();
    catalog::tier::learn_classes(&options.storage, &classes)
}

/// The key and class of an object that is in an archive class.
fn in_archive_class(object: &ObjectMeta) -> Option<(&str, &str)> {
    let class = object.storage_class.as_deref().filter(|class| GLACIER_CLASSES.contains(class))?;
    Some((object.key.as_str(), class))
}

/// Holds what a partition may be imported from to the end of the transaction; why it is not imported, if so.
fn hold_if_new(found: &Found, root: pg_sys::Oid) -> Option<Line> {
    let best = found.best();
    let known = attempt(|| {
        let known = place::known(best, root)?;
        if known.is_none() {
            found.families().iter().try_for_each(|family| catalog::writers::hold_family(family))?;
        }
        Ok(known)
    });
    match known {
        Ok(known) => known.map(|detail| Line::of(best, Action::Known, detail)),
        Err(error) => Some(Line::of(best, Action::Failed, Some(told(&error)))),
    }
}

/// Imports the newest version that is complete.
fn import_partition(
    found: &Found,
    missing: impl Fn(&Found) -> Option<String>,
    lines: &mut Vec<Line>,
    import: impl FnOnce(&Found, &mut Vec<Line>) -> Result<String>,
) -> Line {
    let mut passed_over = Vec::new();
    for version in found.versions() {
        interrupts::check();
        match missing(version) {
            Some(why) => passed_over.push((version.manifest.version, why)),
            None => return import_version(version, passed_over, lines, import),
        }
    }
    Line::of(found, Action::Incomplete, passed_over.into_iter().next().map(|(_, why)| why))
}

fn import_version(
    version: &Found,
    passed_over: Vec<(u32, String)>,
    lines: &mut Vec<Line>,
    import: impl FnOnce(&Found, &mut Vec<Line>) -> Result<String>,
) -> Line {
    let mut warnings = Vec::new();
    let imported = attempt(|| import(version, &mut warnings));
    lines.append(&mut warnings);
    match imported {
        Ok(foreign_table) => {
            for (newer, why) in passed_over {
                let (name, older) = (version.name(), version.manifest.version);
                warning!("version {newer} of {name} is not complete; version {older} is imported in its place");
                let what = format!("version {newer} is not complete, version {older} is imported as it was: {why}");
                lines.push(Line::about(name, Action::Warning, what));
            }
            Line::of(version, Action::Import, Some(foreign_table))
        }
        Err(error) => Line::of(version, refusal(&error), Some(told(&error))),
    }
}

/// Whether an error means that something else is in the place, or that the work failed.
fn refusal(error: &Error) -> Action {
    match error.sqlstate() {
        SqlState::ERRCODE_DUPLICATE_TABLE
        | SqlState::ERRCODE_DUPLICATE_OBJECT
        | SqlState::ERRCODE_INVALID_OBJECT_DEFINITION
        | SqlState::ERRCODE_CHECK_VIOLATION
        | SqlState::ERRCODE_WRONG_OBJECT_TYPE => Action::Conflict,
        _ => Action::Failed,
    }
}

impl Found {
    fn name(&self) -> String {
        quote_qualified_identifier(&self.manifest.source.partition_schema, &self.manifest.source.partition)
    }
}

impl Table {
    /// The foreign keys through which it aged with other tables, as the newest manifest has them that knows.
    fn managed_parents(&self) -> &[FamilyKey] {
        self.partitions.iter().find_map(|found| found.manifest.managed_parents()).unwrap_or_default()
    }

    /// The columns as the manifest written last has them; older ones do not know the newest.
    fn column_map(&self) -> &[MappedColumn] {
        self.partitions.first().map_or(&[], |newest| &newest.manifest.column_map)
    }

    fn name(&self) -> String {
        quote_qualified_identifier(&self.schema, &self.name)
    }
}
