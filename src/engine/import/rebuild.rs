//! The hot side of an import: schemas, extensions, types, the empty partitioned table.

use archive_core::manifest::Manifest;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::relate::Deferred;
use super::survey::Table;
use super::{Action, Line, attempt, told};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::pg::{interrupts, spi, user, xact};

/// Characters of a statement that a warning shows.
const SHOWN: usize = 120;

/// Schemas on which the owner got CREATE for the time of the import.
#[derive(Debug)]
pub(super) struct Granted(Vec<String>);

/// Makes the schemas that are missing, and lets the owner create in all of them until [`revoke`].
pub(super) fn prepare_schemas(table: &Table, owner: pg_sys::Oid, lines: &mut Vec<Line>) -> Result<Granted> {
    let mut schemas: Vec<String> = table.partitions.iter().flat_map(|found| found.manifest.schemas()).collect();
    schemas.sort();
    schemas.dedup();
    let role = quote_identifier(user::name_of(owner));
    let mut granted = Vec::new();
    for schema in schemas {
        let quoted = quote_identifier(&schema);
        let made = attempt(|| {
            user::as_user(user::current(), || {
                if !exists(&schema)? {
                    spi::execute(&format!("CREATE SCHEMA {quoted} AUTHORIZATION {role}"), &[])?;
                }
                if may_create(&schema, owner)? {
                    return Ok(false);
                }
                spi::execute(&format!("GRANT USAGE, CREATE ON SCHEMA {quoted} TO {role}"), &[])?;
                Ok(true)
            })
        });
        match made {
            Ok(true) => granted.push(schema),
            Ok(false) => {}
            Err(error) => lines.push(Line::about(schema, Action::Warning, told(&error))),
        }
    }
    Ok(Granted(granted))
}

/// Takes back what [`prepare_schemas`] granted; USAGE stays, or the owner could not reach the tables.
pub(super) fn revoke(granted: &Granted, owner: pg_sys::Oid) -> Result<()> {
    let role = quote_identifier(user::name_of(owner));
    user::as_user(user::current(), || {
        granted.0.iter().try_for_each(|schema| {
            let schema = quote_identifier(schema);
            spi::execute(&format!("REVOKE CREATE ON SCHEMA {schema} FROM {role}"), &[]).map(drop)
        })
    })
}

fn exists(schema: &str) -> Result<bool> {
    spi::one("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1::name)", &[schema.into()], |row| row.need(1))
}

fn may_create(schema: &str, role: pg_sys::Oid) -> Result<bool> {
    spi::one(
        "SELECT has_schema_privilege($2::oid, n.oid, 'USAGE') AND has_schema_privilege($2::oid, n.oid, 'CREATE')
         FROM pg_namespace n WHERE n.nspname = $1::name",
        &[schema.into(), role.into()],
        |row| row.need(1),
    )
}

/// The hot root: the one that is there if it fits, else made from the newest manifest. A dry run leaves sequences alone:
/// what they were set to would stay.
pub(super) fn ensure_root<'a>(
    table: &'a Table,
    owner: pg_sys::Oid,
    dry_run: bool,
    lines: &mut Vec<Line>,
    deferred: &mut Vec<Deferred<'a>>,
) -> Result<pg_sys::Oid> {
    if let Some(root) = discover::find_relation(&table.schema, &table.name)? {
        check_kind(table, root)?;
        check_key(table, root)?;
        return Ok(root);
    }
    let Some(newest) = table.partitions.first().map(|found| &found.manifest) else { return Err(not_made(table)) };
    create_prerequisites(table, newest, owner, lines);
    let ddl = &table.root.ddl;
    run_statement(owner, &ddl.create_table)?;
    xact::command_counter_increment();
    let root = discover::find_relation(&table.schema, &table.name)?.ok_or_else(|| not_made(table))?;
    check_kind(table, root)?;
    let rest = ddl.defaults.iter().chain(&ddl.storage_parameters).map(String::as_str).chain(ddl.structure());
    for sql in rest {
        match attempt(|| run_statement(owner, sql)) {
            Ok(()) => {}
            // A foreign key to a table that comes later.
            Err(error) if error.sqlstate() == SqlState::ERRCODE_UNDEFINED_TABLE => {
                deferred.push(Deferred { table, owner, sql });
            }
            Err(error) => lines.push(failed(table, sql, &error)),
        }
        interrupts::check();
    }
    restrict_and_grant(table, owner, lines);
    if !dry_run {
        for sequence in &newest.sequences {
            try_statement(table, owner, &sequence.sql, lines);
        }
    }
    let detail = match table.root.partition_key.as_str() {
        "" => "made".to_owned(),
        key => format!("made, partitioned by {key}"),
    };
    lines.push(Line::about(table.name(), Action::Table, detail));
    Ok(root)
}

/// Policies, comments, grants. Without one of its policies the table might show more rows than it did, so nobody but the
/// owner may read it then.
fn restrict_and_grant(table: &Table, owner: pg_sys::Oid, lines: &mut Vec<Line>) {
    let ddl = &table.root.ddl;
    let run = |list: &[String], lines: &mut Vec<Line>| {
        // All are run, also after a failure.
        list.iter().filter(|sql| !try_statement(table, owner, sql, lines)).count() == 0
    };
    let restricted = run(&ddl.policies, lines);
    run(&ddl.comments, lines);
    if restricted {
        run(&ddl.grants, lines);
    } else if !ddl.grants.is_empty() {
        let detail = format!("its {} grants were not run, because row security is not complete", ddl.grants.len());
        lines.push(Line::about(table.name(), Action::Warning, detail));
    }
}

fn not_made(table: &Table) -> Error {
    Error::new(
        SqlState::ERRCODE_DATA_CORRUPTED,
        format!("the manifest's statement did not make table {}", table.name()),
    )
}

fn wrong(table: &Table, what: &str) -> Error {
    Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("{} {what}", table.name()))
}

fn check_kind(table: &Table, root: pg_sys::Oid) -> Result<()> {
    match discover::leaf(root)? {
        Some(leaf) if leaf.kind == 'p' && leaf.parent.is_none() => Ok(()),
        Some(leaf) if leaf.kind == 'r' && leaf.parent.is_none() && table.root.partition_key.is_empty() => Ok(()),
        _ if table.root.partition_key.is_empty() => Err(wrong(table, "exists and is not an ordinary table")),
        _ => Err(wrong(table, "exists and is not the root of a partition tree")),
    }
}

/// With another key, bounds would mean other rows, and queries would miss some (P9).
fn check_key(table: &Table, root: pg_sys::Oid) -> Result<()> {
    if table.root.partition_key.is_empty() && discover::leaf(root)?.is_some_and(|leaf| leaf.kind == 'r') {
        return Ok(());
    }
    let key = discover::partition_key(root)?;
    if key == table.root.partition_key {
        return Ok(());
    }
    Err(wrong(table, "is partitioned otherwise")
        .detail(format!("It is partitioned by {key}, in the archive by {}.", table.root.partition_key)))
}

/// Extensions as the caller, from their names; the rest as the owner. What fails is reported: the table may do without.
fn create_prerequisites(table: &Table, manifest: &Manifest, owner: pg_sys::Oid, lines: &mut Vec<Line>) {
    for extension in &manifest.extensions {
        try_statement(table, user::current(), &extension.create(), lines);
    }
    for sql in manifest.own_prerequisites() {
        try_statement(table, owner, sql, lines);
    }
}

/// Runs a statement of a manifest as `role`; whether it went well.
pub(super) fn try_statement(table: &Table, role: pg_sys::Oid, sql: &str, lines: &mut Vec<Line>) -> bool {
    interrupts::check();
    let Err(error) = attempt(|| run_statement(role, sql)) else { return true };
    lines.push(failed(table, sql, &error));
    false
}

fn failed(table: &Table, sql: &str, error: &Error) -> Line {
    let mut shown: String = sql.chars().take(SHOWN).collect();
    if shown.len() < sql.len() {
        shown.push('…');
    }
    Line::about(table.name(), Action::Warning, format!("{}: {shown}", told(error)))
}

/// Runs one statement of a manifest as `role`.
pub(super) fn run_statement(role: pg_sys::Oid, sql: &str) -> Result<()> {
    user::as_user(role, || spi::execute(sql, &[]).map(drop))
}
