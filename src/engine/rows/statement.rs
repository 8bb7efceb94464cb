//! One batch: rows are chosen and locked, then they and their children get the new label in one statement.

use std::collections::BTreeMap;
use std::fmt::Write;

use archive_core::lifecycle::{Label, Moment, Status};
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::family::{Follower, Follows};
use super::filter;
use super::plan::Plan;
use super::tally::Tally;
use crate::catalog;
use crate::catalog::partition::Local;
use crate::catalog::row_policy;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::labels::{self, LabelTable};
use crate::partition::{discover, locks, swap};
use crate::pg::{spi, user, xact};

/// What a batch did.
#[derive(Debug)]
pub enum Outcome {
    /// No row matches any more.
    Nothing,
    /// Partitions that were missing are made; the plan is out of date, and no row has moved yet.
    Made,
    /// Rows moved, and whether they were the last that matched. The clause is not asked again then: one that looks at the
    /// table itself could go on matching others.
    Moved(Tally, bool),
}

/// Moves at most `limit` rows, children not counted.
///
/// Locks: the rows, and those of their children. Each wait is bounded by `archive_ext.lock_timeout` (55P03).
pub fn batch(plan: &Plan, limit: i64) -> Result<Outcome> {
    if plan.sources.is_empty() {
        return Ok(Outcome::Nothing);
    }
    let groups = choose(plan, limit)?;
    if groups.is_empty() {
        return Ok(Outcome::Nothing);
    }
    if make_missing(plan, &groups)? {
        return Ok(Outcome::Made);
    }
    let last = (groups.values().map(Vec::len).sum::<usize>() as i64) < limit;
    let mut moved = Tally::default();
    for (group, rows) in groups {
        moved.add(move_group(plan, &group, rows)?);
    }
    Ok(Outcome::Moved(moved, last))
}

/// Rows of one table file that have one label and get another.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Group {
    leaf: u32,
    from: String,
    to: String,
}

struct Chosen {
    leaf: pg_sys::Oid,
    ctid: String,
    value: String,
    at: Option<String>,
}

/// Locks rows and finds out their new labels. The lock makes the places good for the next statement: nobody else can
/// change these rows, nor give them children, until this transaction ends.
fn choose(plan: &Plan, limit: i64) -> Result<Groups> {
    let (root, name) = (plan.table.qualified(), quote_identifier(&plan.table.name));
    let column = quote_identifier(&plan.table.column);
    let at = plan.time_expression()?.map_or_else(
        || "NULL".to_owned(),
        |time| format!("pg_catalog.to_char(({time})::pg_catalog.timestamptz, 'YYYY-MM-DD HH24 AD')"),
    );
    let query = format!(
        "SELECT {name}.tableoid, {name}.ctid::pg_catalog.text, {name}.{column}::pg_catalog.text, {at}::pg_catalog.text \
         FROM {root} WHERE {name}.{column} OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.text[]) AND {} \
         LIMIT {limit} FOR UPDATE OF {name}",
        filter::condition(plan)
    );
    let choose = || {
        let args = [plan.sources.clone().into(), plan.request.removal_time.as_deref().into()];
        let chosen = spi::writing_rows(&query, &args, |row| {
            Ok(Chosen { leaf: row.need(1)?, ctid: row.need(2)?, value: row.need(3)?, at: row.get(4)? })
        })?;
        grouped(plan, chosen)
    };
    // Rows stay locked only when nothing is missing: a session that waits for one of them may hold a lock on the table
    // that making a partition needs.
    let nothing_missing =
        |groups: &Result<Groups>| groups.as_ref().is_ok_and(|groups| missing(plan, groups).is_empty());
    as_caller_if(plan, choose, nothing_missing)
}

/// Places of rows.
type Groups = BTreeMap<Group, Vec<String>>;

fn grouped(plan: &Plan, chosen: Vec<Chosen>) -> Result<Groups> {
    let mut groups = Groups::new();
    for row in chosen {
        let to = new_value(plan, &row)?;
        groups.entry(Group { leaf: row.leaf.to_u32(), from: row.value, to }).or_default().push(row.ctid);
    }
    Ok(groups)
}

/// The new label of a row, as the partitions spell it.
fn new_value(plan: &Plan, row: &Chosen) -> Result<String> {
    let at = row.at.as_deref().and_then(moment);
    let label = plan.relabel(row.value.parse()?, at).ok_or_else(|| no_label(plan, row))?;
    Ok(plan.table.value_of(&label).map_or_else(|| label.to_string(), str::to_owned))
}

/// Reads what the query prints; BC and infinity have no label.
pub fn moment(text: &str) -> Option<Moment> {
    let text = text.strip_suffix(" AD")?;
    let mut parts = text.split(['-', ' ']);
    let year = parts.next()?.parse().ok()?;
    let mut small = || parts.next()?.parse::<u8>().ok();
    Moment::new(year, small()?, small()?, small()?, 0, 0)
}

fn no_label(plan: &Plan, row: &Chosen) -> Error {
    let root = plan.table.qualified();
    let removal = quote_identifier(plan.removal.as_deref().unwrap_or("removal_time"));
    match (&row.at, plan.request.to) {
        (None, Status::Archived) => Error::new(
            SqlState::ERRCODE_NULL_VALUE_NOT_ALLOWED,
            format!("rows of \"{root}\" have no finite {removal}, which decides where ARCHIVED rows go"),
        )
        .detail(format!("At least one matching row of {} has NULL or infinity there.", row.value))
        .hint("Pass removal_time to give all of them one, or set it by an UPDATE first."),
        (at, to) => Error::new(
            SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW,
            format!("rows of \"{root}\" have a time that has no {to} label: {}", at.as_deref().unwrap_or("NULL")),
        )
        .hint("Labels have the years 0001 to 9999."),
    }
}

/// The label values that tables lack a partition for.
fn missing<'a>(plan: &'a Plan, groups: &'a Groups) -> Vec<(&'a LabelTable, &'a str)> {
    let mut values: Vec<_> = groups.keys().map(|group| group.to.as_str()).collect();
    values.sort_unstable();
    values.dedup();
    let followers = plan.followers.iter().filter_map(|follower| follower.partitioned.as_ref());
    let tables = std::iter::once(&plan.table).chain(followers);
    let pairs = tables.flat_map(|table| values.iter().map(move |value| (table, *value)));
    pairs.filter(|(table, value)| table.partition_of(value).is_none()).collect()
}

/// Makes the partitions that rows of these labels need, on the table and on the followers; whether any was missing.
fn make_missing(plan: &Plan, groups: &Groups) -> Result<bool> {
    let missing = missing(plan, groups);
    for (table, value) in &missing {
        refuse_archived(table, value)?;
        make(plan, table, value)?;
    }
    Ok(!missing.is_empty())
}

fn make(plan: &Plan, table: &LabelTable, value: &str) -> Result<()> {
    if !user::has_privileges_of(table.owner) {
        return Err(Error::new(
            SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE,
            format!("must be owner of table {}", table.qualified()),
        )
        .detail(format!("It has no partition for {value} yet, and its rows would move there.")));
    }
    let Some(partition) = labels::create(table, value, plan.tablespace())? else { return Ok(()) };
    note_status(plan, table, partition, value)
}

/// The catalog's row of a new partition. Rows that wait for their archive run are local still: WARM, by its tiers.
fn note_status(plan: &Plan, table: &LabelTable, partition: pg_sys::Oid, value: &str) -> Result<()> {
    let managed = match table.oid == plan.table.oid {
        true => Some(plan.managed_table()?),
        false => catalog::managed_table::of_source(table.oid)?.map(|managed| managed.id),
    };
    let (Some(managed_table), Some(leaf)) = (managed, discover::leaf(partition)?) else { return Ok(()) };
    let status = match plan.request.to {
        Status::Archived => Status::Warm,
        status => status,
    };
    catalog::partition::set_local(
        &Local {
            managed_table,
            hot_table: partition,
            schema: &leaf.schema,
            name: &leaf.name,
            parent: table.oid,
            bounds: leaf.bounds.as_deref().unwrap_or_default(),
            lower_bound: None,
            upper_bound: None,
        },
        status,
        value,
        None,
    )?;
    Ok(())
}

/// A second partition of a label whose first is in the storage could never be archived beside it.
fn refuse_archived(table: &LabelTable, value: &str) -> Result<()> {
    let Ok(label) = value.parse::<Label>() else { return Ok(()) };
    for (schema, name, bounds) in row_policy::archived_bounds(table.oid)? {
        let values = archive_core::lifecycle::list_values(&bounds);
        if values.iter().any(|taken| taken.parse::<Label>().is_ok_and(|taken| taken == label)) {
            let partition = quote_qualified_identifier(schema, name);
            return Err(Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("the partition for {value} is already archived: \"{partition}\""),
            )
            .detail("Rows that join it must be archived together with it.")
            .hint(format!(
                "SELECT reattach_partition('{partition}', writable => true); move the rows, then archive it again."
            )));
        }
    }
    Ok(())
}

fn move_group(plan: &Plan, group: &Group, rows: Vec<String>) -> Result<Tally> {
    let chosen = rows.len() as u64;
    let sql = move_statement(plan);
    let leaf = pg_sys::Oid::from(group.leaf);
    let counts = as_caller(plan, || {
        spi::writing_rows(
            &sql,
            &[
                group.from.as_str().into(),
                group.to.as_str().into(),
                leaf.into(),
                rows.clone().into(),
                plan.request.removal_time.as_deref().into(),
            ],
            |row| Ok((row.need::<i32>(1)?, row.need::<i64>(2)?.unsigned_abs())),
        )
    })?;
    let count = |at: usize| counts.iter().find(|(which, _)| *which as usize == at).map_or(0, |(_, count)| *count);
    if count(0) != chosen {
        return Err(kept_by_trigger(plan, group, chosen, count(0)));
    }
    let children = plan.followers.iter().enumerate().map(|(at, child)| (child.qualified.clone(), count(at + 1)));
    Ok(Tally::group(&group.from, &group.to, chosen, children.collect()))
}

fn kept_by_trigger(plan: &Plan, group: &Group, chosen: u64, moved: u64) -> Error {
    Error::new(
        SqlState::ERRCODE_TRIGGERED_DATA_CHANGE_VIOLATION,
        format!(
            "{} of {chosen} rows of \"{}\" did not go to {}",
            chosen - moved.min(chosen),
            plan.table.qualified(),
            group.to
        ),
    )
    .detail("A trigger of the table skipped their UPDATE or gave them another label.")
    .hint("Let the trigger return NEW as it is when only the label changes, or exclude these rows by the where_clause.")
}

/// Which row of the counts, and name of the query, belongs to the table at the top and each follower.
fn query_name(at: usize) -> String {
    quote_identifier(format!("archive_ext {at}"))
}

/// `WITH parent AS (UPDATE … RETURNING key), child AS (UPDATE … FROM parent …) SELECT counts`. Parameters: label before,
/// label after, table file, places of the rows, removal time.
fn move_statement(plan: &Plan) -> String {
    let (root, name) = (plan.table.qualified(), quote_identifier(&plan.table.name));
    let column = quote_identifier(&plan.table.column);
    let removal = match (&plan.request.removal_time, &plan.removal) {
        (Some(_), Some(removal)) => format!(", {} = $5::pg_catalog.timestamptz", quote_identifier(removal)),
        _ => String::new(),
    };
    let mut sql = format!(
        "WITH {} AS (UPDATE {root} SET {column} = $2{removal} \
         WHERE {name}.{column} OPERATOR(pg_catalog.=) $1 AND {name}.tableoid OPERATOR(pg_catalog.=) $3 \
         AND {name}.ctid OPERATOR(pg_catalog.=) ANY ($4::pg_catalog.text[]::pg_catalog.tid[]) \
         RETURNING {name}.{column}::pg_catalog.text OPERATOR(pg_catalog.=) $2 AS \"archive_ext moved\"{})",
        query_name(0),
        keys_for(plan, 0, &name)
    );
    let mut counts = format!("SELECT 0, pg_catalog.count(*) FROM {0} WHERE {0}.\"archive_ext moved\"", query_name(0));
    for (at, follower) in plan.followers.iter().enumerate() {
        let _ = write!(sql, ", {} AS ({})", query_name(at + 1), follow(plan, follower, at + 1));
        let _ = write!(counts, " UNION ALL SELECT {}, pg_catalog.count(*) FROM {}", at + 1, query_name(at + 1));
    }
    format!("{sql} {counts}")
}

/// The part of a follower. What a cascade moves is counted as the statement's snapshot sees it, before the cascade.
fn follow(plan: &Plan, follower: &Follower, at: usize) -> String {
    let (table, name, column) = (&follower.qualified, &follower.name, &follower.label_column);
    let parent = query_name(follower.parent);
    let mut joined = format!("{name}.{column} OPERATOR(pg_catalog.=) $1");
    for (own, operator, referenced) in &follower.join {
        let _ = write!(joined, " AND {parent}.{referenced} {operator} {name}.{own}");
    }
    let keys = keys_for(plan, at, name);
    match follower.follows {
        Follows::InStatement => {
            format!("UPDATE {table} SET {column} = $2 FROM {parent} WHERE {joined} RETURNING 1{keys}")
        }
        Follows::ByCascade => format!("SELECT 1{keys} FROM {table}, {parent} WHERE {joined}"),
    }
}

/// The columns that followers of the table at `at` join with.
fn keys_for(plan: &Plan, at: usize, name: &str) -> String {
    let followers = plan.followers.iter().filter(|follower| follower.parent == at);
    let mut columns: Vec<_> =
        followers.flat_map(|follower| follower.join.iter().map(|(_, _, column)| column)).collect();
    columns.sort();
    columns.dedup();
    columns.iter().fold(String::new(), |mut sql, column| {
        let _ = write!(sql, ", {name}.{column}");
        sql
    })
}

/// Runs a statement of the request with the caller's rights and bounded waits. Errors of locks and foreign keys get a
/// remedy.
fn as_caller<T>(plan: &Plan, work: impl FnOnce() -> Result<T>) -> Result<T> {
    as_caller_if(plan, work, |_| true)
}

/// The same; what it did, and the locks it took, are kept only if `keep` says so.
fn as_caller_if<T>(plan: &Plan, work: impl FnOnce() -> Result<T>, keep: impl FnOnce(&Result<T>) -> bool) -> Result<T> {
    let statement = || {
        let _bounded = swap::patient();
        user::own_sql(user::current(), work)
    };
    let outcome = xact::subtransaction_if(statement, keep);
    let caught = match outcome {
        Ok(done) => return done,
        Err(caught) => caught,
    };
    match caught.sqlstate {
        SqlState::ERRCODE_LOCK_NOT_AVAILABLE => {
            Err(locks::not_available(plan.table.oid, &plan.table.qualified(), guc::lock_timeout_ms())?)
        }
        SqlState::ERRCODE_FOREIGN_KEY_VIOLATION | SqlState::ERRCODE_RESTRICT_VIOLATION if caught.hint.is_none() => {
            let root = plan.table.qualified();
            Err(Error::from(caught).hint(format!(
                "SELECT add_child_table('{root}', child) makes referencing rows move along; so does ON UPDATE CASCADE."
            )))
        }
        _ => Err(caught.into()),
    }
}
