//! What stays of rows that are in the archive: they are marked, or become stubs.

use archive_core::manifest::ManifestObject;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};

use super::mode::{ARCHIVE_KEY, ARCHIVE_TIER, ARCHIVED_AT, Mode, Offload};
use super::plan::Plan;
use super::row_set;
use super::select::{self, Chosen};
use crate::catalog::{self, remnant};
use crate::error::{Error, Result, SqlState};
use crate::partition::locks;
use crate::partition::remnant_guard::{self, Lifted};
use crate::partition::{all_view, discover};
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, user};

/// Makes the table ready for remnants: the guards, its archive, its marker, and the view that leaves remnants out.
///
/// Locks: SHARE ROW EXCLUSIVE on the table, where [`guard`] has not been called in an earlier transaction. Errors: 55000 when rows
/// have the mark that are in no archive.
pub fn prepare(plan: &Plan) -> Result<()> {
    let Some(marker) = plan.mode.marker() else { return Ok(()) };
    remnant_guard::guard(plan.root, &marker)?;
    if remnant::of(plan.root)?.is_some() {
        return Ok(());
    }
    refuse_marked(plan, &marker)?;
    let (managed, _) = row_set::ensure_archive(plan)?;
    remnant::set(managed, &marker)?;
    refresh_view(plan.root)
}

/// Puts the guards on the table: from then on nobody else marks rows, and looking for marked ones needs no lock.
///
/// Locks: SHARE ROW EXCLUSIVE on the table, the first time. Errors: as [`prepare`].
pub fn guard(plan: &Plan) -> Result<()> {
    match plan.mode.marker() {
        Some(marker) if remnant::of(plan.root)?.is_none() => {
            refuse_marked(plan, &marker)?;
            remnant_guard::guard(plan.root, &marker)
        }
        _ => Ok(()),
    }
}

/// The table has a marker, or none any more: the view leaves other rows out.
fn refresh_view(source: pg_sys::Oid) -> Result<()> {
    match catalog::managed_table::of_source(source)?.map(|managed| (managed.archive_table, managed.all_view)) {
        Some((Some(archive), Some(view))) => all_view::refresh(source, archive, view),
        _ => Ok(()),
    }
}

/// Rows that have the mark already are not in the archive, and would be read nowhere.
fn refuse_marked(plan: &Plan, marker: &remnant::Marker) -> Result<()> {
    let name = catalog::qualified_name(plan.root)?;
    let query = format!("SELECT pg_catalog.count(*) FROM {name} AS hot WHERE {}", marker.remnant("hot"));
    // Rows that a policy hides count as well.
    let _all = GucNest::new().set(c"row_security", "off");
    let rows = user::own_sql(user::current(), || spi::one(&query, &[], |row| row.need::<i64>(1)))?;
    if rows == 0 {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{rows} rows of \"{name}\" have \"{}\" set and are in no archive", marker.column),
    )
    .hint("Name another mark_column, or reset the column in these rows first."))
}

/// Lets the table's rows be without a marker again: guards and marker go.
///
/// Locks: ACCESS EXCLUSIVE on the table. Errors: 42501 unless the caller owns the table, 55000 while rows are marked.
pub fn forget_marker(source: pg_sys::Oid) -> Result<()> {
    let name = catalog::qualified_name(source)?;
    if !user::has_privileges_of(discover::owner(source)?) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    let managed = catalog::managed_table::of_source(source)?;
    let (Some(managed), Some(marker)) = (managed, remnant::of(source)?) else {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("no column of \"{name}\" tells which rows are in the archive"),
        ));
    };
    locks::acquire(source, &name, LockMode::AccessExclusive)?;
    if remnant_guard::has_remnants(source, &marker)? {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("rows of \"{name}\" are told by \"{}\" to be in the archive", marker.column),
        )
        .hint("restore_rows brings them back, purge_marked deletes marked ones."));
    }
    remnant_guard::drop_guards(source)?;
    catalog::remnant::forget(managed.id)?;
    refresh_view(source)
}

/// Marks the rows, or makes stubs of them. `objects` hold them in their order. Triggers run, with the rights of the caller.
///
/// Errors: 55000 when a trigger, rule or policy kept rows from it.
pub fn keep(plan: &Plan, chosen: &[Chosen], objects: &[ManifestObject]) -> Result<()> {
    let _ours = Lifted::of(select::places(chosen).into_keys().map(pg_sys::Oid::from).collect());
    let mut rest = chosen;
    let mut changed = 0;
    for object in objects {
        let (rows, behind) = rest.split_at(rest.len().min(usize::try_from(object.rows).unwrap_or(usize::MAX)));
        rest = behind;
        changed += change(plan, rows, &assignments(plan, &object.key))?;
    }
    if changed == chosen.len() {
        return Ok(());
    }
    let table = plan.table.qualified();
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("{changed} of {} archived rows of \"{table}\" could be changed", chosen.len()),
    )
    .detail(
        "A BEFORE UPDATE trigger, a rule or a row security policy kept the others as they are. Nothing was changed.",
    )
    .hint("Let the table's owner change these rows, or leave them out by the where_clause."))
}

/// Changes the rows; how many of them now are what they are to be: a trigger may have changed something besides.
fn change(plan: &Plan, rows: &[Chosen], assignments: &str) -> Result<usize> {
    let Some(marker) = plan.mode.marker() else { return Ok(0) };
    let (table, name) = (plan.table.qualified(), quote_identifier(&plan.table.name));
    let as_wanted = match plan.mode {
        Mode::Mark(_) => format!("{} AND {}", marker.remnant(&name), unchanged(plan, &marker)?),
        _ => marker.remnant(&name),
    };
    let mut changed = 0;
    for (relation, places) in select::places(rows) {
        let of = |alias: &str| {
            format!(
                "{alias}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
                 AND {alias}.tableoid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid"
            )
        };
        let query = format!(
            "UPDATE {table} SET {assignments} FROM {table} AS {BEFORE} WHERE {} AND {} \
             AND {BEFORE}.ctid OPERATOR(pg_catalog.=) {name}.ctid RETURNING {as_wanted}",
            of(&name),
            of(BEFORE)
        );
        let found =
            user::own_sql(user::current(), || spi::writing_rows(&query, &[places.into()], |row| row.get::<bool>(1)))?;
        changed += found.into_iter().filter(|as_wanted| *as_wanted == Some(true)).count();
    }
    Ok(changed)
}

/// What a statement calls the row before it changed.
const BEFORE: &str = "archive_ext_b";

/// That a marked row has the values that it had, but for the mark: `purge_marked` compares them with the archive.
fn unchanged(plan: &Plan, marker: &remnant::Marker) -> Result<String> {
    let name = quote_identifier(&plan.table.name);
    let columns = discover::attributes(plan.table.oid)?;
    let same =
        columns.iter().filter(|column| column.name != marker.column && column.generated.is_empty()).map(|column| {
            let column = quote_identifier(&column.name);
            format!("{name}.{column}::pg_catalog.text IS NOT DISTINCT FROM {BEFORE}.{column}::pg_catalog.text")
        });
    Ok(same.collect::<Vec<_>>().join(" AND "))
}

fn assignments(plan: &Plan, object: &str) -> String {
    match &plan.mode {
        Mode::Delete => String::new(),
        Mode::Mark(column) => format!("{} = true", quote_identifier(column)),
        Mode::Offload(offload) => offload_assignments(offload, object, &quote_identifier(&plan.table.name)),
    }
}

/// Characters of the payload whose words are indexed: a tsvector holds 1 MB at most.
const SEARCHED_CHARACTERS: u32 = 200_000;

fn offload_assignments(Offload { payload, search }: &Offload, object: &str, name: &str) -> String {
    let mut assignments: Vec<_> = payload.iter().map(|column| format!("{} = NULL", quote_identifier(column))).collect();
    assignments.push(format!("{ARCHIVED_AT} = pg_catalog.clock_timestamp()"));
    assignments.push(format!("{ARCHIVE_TIER} = 'cold'"));
    assignments.push(format!("{ARCHIVE_KEY} = {}", quote_literal(object)));
    if let Some((column, config)) = search {
        let texts: Vec<_> =
            payload.iter().map(|column| format!("{name}.{}::pg_catalog.text", quote_identifier(column))).collect();
        assignments.push(format!(
            "{} = pg_catalog.to_tsvector({}::pg_catalog.regconfig, \
             pg_catalog.\"left\"(pg_catalog.concat_ws(' ', {}), {SEARCHED_CHARACTERS}))",
            quote_identifier(column),
            quote_literal(config),
            texts.join(", ")
        ));
    }
    assignments.join(", ")
}

/// Says which index spares a search for rows to archive the marked ones, where none does.
pub fn advise_index(plan: &Plan) -> Result<()> {
    // A partition of which stubs stay gets few rows more.
    let Some(marker) = plan.mode.marker().filter(|_| plan.table.parent.is_none()) else { return Ok(()) };
    let indexed = user::elevated(|| {
        spi::one(
            "SELECT EXISTS (SELECT FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attname = $2::name
                            WHERE i.indrelid = $1 AND i.indpred IS NOT NULL
                              AND EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass
                                          AND d.objid = i.indexrelid AND d.refobjid = i.indrelid AND d.refobjsubid = a.attnum))",
            &[plan.table.oid.into(), marker.column.as_str().into()],
            |row| row.need::<bool>(1),
        )
    })?;
    if !indexed {
        let table = plan.table.qualified();
        let key: Vec<_> = plan.key.iter().map(|key| quote_identifier(&key.name)).collect();
        let live = marker.live(&quote_identifier(&plan.table.name));
        crate::pg::server_text::notice!(
            "an index spares later runs the rows that are archived: CREATE INDEX ON {table} ({}) WHERE {live}",
            key.join(", ")
        );
    }
    Ok(())
}
