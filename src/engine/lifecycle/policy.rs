//! Policies: set, cleared, exported, imported.

use archive_core::lifecycle::{Granularity, Kind};
use archive_core::policy::{
    Change, Column, Document, Entry, FORMAT, Facts, Finding, Policy, Target, Window, advise, advise_lock, changes,
    validate,
};
use archive_core::store::ObjectLock;
use pgrx::pg_sys;

use super::outlook::kind;
use super::window::zone_is_known;
use crate::catalog;
use crate::engine::reading;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::{check, discover};
use crate::pg::user::{self, UserGuard};
use crate::pg::{clock, spi};

/// Changes the settings of a table's policy that are set in `changes`, and removes those named in `clear`. Its jobs run
/// as the current user from now on, or as the table's owner where the user only administers it. Everything wrong with the
/// result is told at once (22023). Only the table's owner and administrators may (42501), for tables that are no partitions (42809) and not static (55000).
pub fn set_policy(source: pg_sys::Oid, changes: &Policy, clear: &[String]) -> Result<()> {
    let by = user::name_of(user::current());
    let _owner = check_source(source)?;
    check::not_static(source)?;
    catalog::policy::lock(source)?;
    let before = catalog::policy::of(source)?;
    let after = with_zone(before.changed(changes, clear)?)?;
    let findings = find_faults(source, &before, &after)?;
    if !findings.is_empty() {
        let name = catalog::qualified_name(source)?;
        return Err(refused(&format!("the policy of \"{name}\" would not work"), &findings));
    }
    warn(source, &after)?;
    save(source, &before, &after, &by)
}

/// Writes a policy. Sessions that read by lifecycle learn the labels anew where those follow from its settings.
fn save(source: pg_sys::Oid, before: &Policy, after: &Policy, by: &str) -> Result<()> {
    catalog::policy::save(source, after, by)?;
    if before.key_epoch != after.key_epoch {
        reading::changed(source);
    }
    catalog::queue::withdraw(source)
}

/// What works otherwise than it looks.
fn warn(source: pg_sys::Oid, policy: &Policy) -> Result<()> {
    let locked = target(policy)?.map_or_else(Vec::new, |target| advise_lock(policy, &target, clock::unix_now()));
    let found = advice(source, policy)?
        .into_iter()
        .chain(without_classes(policy)?)
        .chain(with_remnants(source, policy)?)
        .chain(locked);
    for advice in found {
        crate::pg::server_text::warning!("policy of \"{}\": {advice}", catalog::qualified_name(source)?);
    }
    Ok(())
}

/// `expire_after` waits as long as archived rows have something in the table that would stand for rows that are nowhere.
fn with_remnants(source: pg_sys::Oid, policy: &Policy) -> Result<Option<Finding>> {
    let Some(marker) = catalog::remnant::of(source)?.filter(|_| policy.expire_after.is_some()) else { return Ok(None) };
    Ok(Some(Finding {
        setting: "expire_after",
        problem: format!(
            "archived rows left something in the table, as column \"{}\" tells: nothing of them expires",
            marker.column
        ),
        remedy: "purge_marked() deletes marked rows; stubs stay, and so does their archive".to_owned(),
    }))
}

/// `glacier_after` waits for ever where the storage has no classes.
fn without_classes(policy: &Policy) -> Result<Option<Finding>> {
    let finding =
        |problem: String, remedy: &str| Finding { setting: "glacier_after", problem, remedy: remedy.to_owned() };
    if policy.glacier_after.is_none() {
        return Ok(None);
    }
    let storage = policy.storage.clone().or_else(guc::default_storage);
    Ok(match storage {
        Some(name) if !catalog::policy::has_classes(&name)? => {
            let problem = format!("storage \"{name}\" is a directory, which has no storage classes: nothing moves");
            Some(finding(problem, "name an S3 storage, or clear glacier_after"))
        }
        _ => None,
    })
}

/// How new objects are locked, as far as that is known: by the policy, the storage, or both.
pub(super) fn lock(policy: &Policy) -> Result<Option<ObjectLock>> {
    let Some(target) = target(policy)? else { return Ok(None) };
    Ok(target.options.locking(policy.object_lock()?, clock::unix_now()).ok().and_then(|options| options.object_lock))
}

/// Where new objects go, as far as the policy and this session know.
fn target(policy: &Policy) -> Result<Option<Target>> {
    let Some(name) = policy.storage.clone().or_else(guc::default_storage) else { return Ok(None) };
    match catalog::storage::options(&name) {
        Ok(options) => Ok(Some(Target { name, options })),
        // What is wrong with the name is told of the setting.
        Err(error) if error.sqlstate() == SqlState::ERRCODE_UNDEFINED_OBJECT => Ok(None),
        Err(error) => Err(error),
    }
}

fn advice(source: pg_sys::Oid, policy: &Policy) -> Result<Option<Finding>> {
    if policy.warm_granularity.is_none() || kind(source)? != Kind::Time {
        return Ok(None);
    }
    let planned = policy.live_granularity.as_deref().and_then(Granularity::named);
    let length = match planned {
        Some(length) => Some(length),
        None => {
            let spans = catalog::observed::leaves(source)?.into_iter().rev().find_map(|leaf| leaf.observed.span);
            spans.and_then(|(lower, upper)| Granularity::between(lower, upper))
        }
    };
    Ok(advise(policy, length))
}

/// Removes a table's policy and the jobs it made that nobody has begun; whether there was one.
pub fn clear_policy(source: pg_sys::Oid) -> Result<bool> {
    let _owner = check_source(source)?;
    catalog::policy::lock(source)?;
    catalog::queue::withdraw(source)?;
    if catalog::policy::of(source)?.key_epoch.is_some() {
        reading::changed(source);
    }
    catalog::policy::drop(source)
}

fn refused(message: &str, findings: &[Finding]) -> Error {
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, message).detail(lines.join("\n")).hint("Nothing was changed.")
}

/// Who may set a policy acts as the table's owner from then on, unless he may act as the owner anyway.
fn check_source(source: pg_sys::Oid) -> Result<Option<UserGuard>> {
    let name = catalog::qualified_name(source)?;
    let Some(table) = discover::leaf(source)? else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("table {name} does not exist")));
    };
    if !user::may_administer(table.owner) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    let wrong = |what: &str| Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" {what}"));
    match (table.kind, table.root) {
        (_, Some(root)) => {
            let root = catalog::qualified_name(root)?;
            Err(wrong("is a partition").hint(format!("Policies belong to the root of the tree: \"{root}\".")))
        }
        ('p' | 'r', None) if table.persistence == 'p' => Ok(user::stand_in_for(table.owner)),
        ('p' | 'r', None) => Err(wrong("is temporary or unlogged").hint("Such tables are not archived.")),
        _ => Err(wrong("is not a table").hint("Policies are for partitioned and plain tables.")),
    }
}

/// A window without a zone is meant in the zone of the session that sets it, and says so from then on: the worker's may
/// be another.
fn with_zone(policy: Policy) -> Result<Policy> {
    let window = policy.maintenance_window.as_deref().and_then(|text| text.parse::<Window>().ok());
    let Some(window) = window else { return Ok(policy) };
    let zone = match &window.zone {
        Some(zone) => zone.clone(),
        None => spi::one("SELECT pg_catalog.current_setting('TimeZone')", &[], |row| row.need(1))?,
    };
    let window = window.in_zone(zone);
    Ok(Policy { maintenance_window: Some(window.to_string()), ..policy })
}

fn find_faults(source: pg_sys::Oid, before: &Policy, after: &Policy) -> Result<Vec<Finding>> {
    let mut findings = validate(after, &facts(source, after)?);
    let renamed = (&before.archive_schema, &before.archive_name) != (&after.archive_schema, &after.archive_name);
    if renamed && catalog::managed_table::of_source(source)?.is_some_and(|managed| managed.archive_table.is_some()) {
        findings.push(Finding {
            setting: "archive_name",
            problem: "archive_schema and archive_name cannot change once partitions are archived".to_owned(),
            remedy: "set them before the first one is".to_owned(),
        });
    }
    Ok(findings)
}

fn facts(source: pg_sys::Oid, policy: &Policy) -> Result<Facts> {
    let kind = kind(source)?;
    let key = match kind {
        Kind::Time => catalog::policy::key_column(source)?,
        _ => None,
    };
    let (key_column, key_type) = key.map_or((None, "expression".to_owned()), |(column, of)| (Some(column), of));
    let removal_column = match &policy.removal_column {
        Some(column) => Some(match catalog::policy::column_type(source, column)? {
            Some((_, true)) => Column::Time,
            Some((other, false)) => Column::Other(other),
            None => Column::Missing,
        }),
        None => None,
    };
    Ok(Facts {
        kind,
        key_column,
        key_type,
        storages: catalog::policy::storages()?,
        target: target(policy)?,
        tablespaces: catalog::policy::tablespaces()?,
        removal_column,
        time_column_type: match &policy.time_column {
            Some(column) => catalog::policy::column_type(source, column)?.map(|(type_sql, _)| type_sql),
            None => None,
        },
        zone_known: policy.window().and_then(|window| window.zone).is_none_or(|zone| zone_is_known(&zone)),
    })
}

/// The policies of tables whose owner the current user may act as, for review and [`import`].
pub fn export(source: Option<pg_sys::Oid>) -> Result<serde_json::Value> {
    let entry = |table: catalog::policy::TablePolicy| Entry { table: table.name, policy: table.policy };
    let policies = catalog::policy::mine(source)?.into_iter().map(entry).collect();
    Ok(serde_json::to_value(Document { format: FORMAT, policies })?)
}

/// One line of what an import does or would do.
#[derive(Debug)]
pub struct Line {
    /// `schema.table`.
    pub table: String,
    /// `new`, `changed`, `same`, or in a dry run `refused`.
    pub action: &'static str,
    /// What changes; `None` for what concerns the whole policy.
    pub change: Option<Change>,
    /// Why it is refused.
    pub note: Option<String>,
}

/// Replaces the policies of the tables in a document; others are left as they are. A dry run tells what would change
/// and what would be refused; otherwise all are set, or none.
pub fn import(json: &serde_json::Value, dry_run: bool) -> Result<Vec<Line>> {
    let document = Document::from_json(json)?;
    let mut lines = Vec::new();
    for entry in document.policies {
        match import_one(&entry, dry_run) {
            Ok(more) => lines.extend(more),
            Err(error) if dry_run => lines.push(Line {
                table: entry.table,
                action: "refused",
                change: None,
                note: Some(
                    [Some(error.message()), error.detail_text()].into_iter().flatten().collect::<Vec<_>>().join("\n"),
                ),
            }),
            Err(error) => return Err(error),
        }
    }
    Ok(lines)
}

fn import_one(entry: &Entry, dry_run: bool) -> Result<Vec<Line>> {
    let (source, by) = (find_table(&entry.table)?, user::name_of(user::current()));
    let _owner = check_source(source)?;
    check::not_static(source)?;
    catalog::policy::lock(source)?;
    let before = catalog::policy::find(source)?;
    let after = with_zone(entry.policy.clone())?;
    let old = before.clone().unwrap_or_default();
    let findings = find_faults(source, &old, &after)?;
    if !findings.is_empty() {
        return Err(refused(&format!("the policy of \"{}\" would not work", entry.table), &findings));
    }
    // What is not in the document has its default: told as such, not as a change.
    let defaults =
        |policy: Policy| Policy { enabled: Some(policy.is_enabled()), max_attempts: Some(policy.attempts()), ..policy };
    let shown = if before.is_some() { defaults(old.clone()) } else { old.clone() };
    let differing = changes(&shown, &defaults(after.clone()));
    let action = match &before {
        None => "new",
        Some(_) if differing.is_empty() => "same",
        Some(_) => "changed",
    };
    warn(source, &after)?;
    if !dry_run && action != "same" {
        save(source, &old, &after, &by)?;
    }
    let line = |change| Line { table: entry.table.clone(), action, change, note: None };
    if differing.is_empty() {
        return Ok(vec![line(None)]);
    }
    Ok(differing.into_iter().map(|change| line(Some(change))).collect())
}

fn find_table(name: &str) -> Result<pg_sys::Oid> {
    let found = user::as_user(user::current(), || {
        spi::one("SELECT to_regclass($1)::oid", &[name.into()], |row| row.get::<pg_sys::Oid>(1))
    })?;
    found.ok_or_else(|| {
        Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("table \"{name}\" does not exist"))
            .hint("Create it first, or take it out of the document; names are written schema.table.")
    })
}
