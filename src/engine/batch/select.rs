//! Choosing the rows of a batch: by key order, locked before they are read, so that what is deleted later is what was read.

use std::collections::{BTreeMap, HashSet};

use archive_core::lifecycle::Moment;
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};

use super::columns::KeyColumn;
use super::mode::Mode;
use super::pace;
use super::plan::{Locked, Plan, Referenced};
use super::references::Reference;
use crate::engine::{rows, where_clause};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::Leaf;
use crate::partition::swap;
use crate::pg::guc::GucNest;
use crate::pg::tuple_id::TupleId;
use crate::pg::{spi, user};

/// A row of the batch, which this transaction has locked.
#[derive(Debug, Clone)]
pub struct Chosen {
    /// The relation that stores it.
    pub relation: pg_sys::Oid,
    /// Its place there.
    pub place: TupleId,
    /// Its key, each column as text.
    pub key: Vec<String>,
    /// Its time, to the hour.
    pub at: Option<Moment>,
}

impl Chosen {
    /// Where it is, as [`referenced`] and [`places`] print it.
    pub fn address(&self) -> (u32, String) {
        (self.relation.to_u32(), self.place.to_string())
    }
}

/// Locks the next rows behind `checkpoint`. Locked rows do not change until this transaction ends; those that are to be deleted
/// get no references either.
pub fn next(plan: &Plan, checkpoint: &[String]) -> Result<Vec<Chosen>> {
    let strength = if plan.mode == Mode::Delete { "UPDATE" } else { "NO KEY UPDATE" };
    let locking = match plan.request.locked {
        Locked::Skip => " SKIP LOCKED",
        Locked::Wait => "",
    };
    let query = format!("{} FOR {strength} OF {}{locking}", rows_behind(plan, checkpoint), alias(plan));
    let _settings = plain_keys(swap::patient());
    user::own_sql(user::current(), || spi::writing_rows(&query, &[], chosen))
}

/// The rows that the next batch would have, without locking them.
pub fn look(plan: &Plan, checkpoint: &[String]) -> Result<Vec<Chosen>> {
    let _settings = plain_keys(GucNest::new());
    user::own_sql(user::current(), || spi::rows(&rows_behind(plan, checkpoint), &[], chosen))
}

/// Keys are printed so that every session reads them alike. The order of day and month, and the time zone, stay the user's: the clause
/// may depend on them.
pub fn plain_keys(settings: GucNest) -> GucNest {
    settings.set(c"datestyle", "ISO").set(c"intervalstyle", "postgres").set(c"extra_float_digits", "1")
}

/// A row of what [`places_and_keys`] selects.
pub fn chosen(row: &spi::Row<'_>) -> Result<Chosen> {
    let place = row.need::<String>(2)?;
    let place = TupleId::parse(&place)
        .ok_or_else(|| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, format!("a row has the place {place}")))?;
    let at = row.get::<String>(4)?;
    Ok(Chosen { relation: row.need(1)?, place, key: row.need(3)?, at: at.as_deref().and_then(rows::moment) })
}

fn alias(plan: &Plan) -> String {
    quote_identifier(&plan.table.name).to_string()
}

fn column(plan: &Plan, name: &str) -> String {
    format!("{}.{}", alias(plan), quote_identifier(name))
}

fn rows_behind(plan: &Plan, checkpoint: &[String]) -> String {
    let key: Vec<_> = plan.key.iter().map(|key| column(plan, &key.name)).collect();
    let at = plan.time.as_ref().map_or_else(
        || "NULL".to_owned(),
        |time| format!("pg_catalog.to_char({}::pg_catalog.timestamptz, 'YYYY-MM-DD HH24 AD')", column(plan, time)),
    );
    let mut conditions = vec![eligible(plan)];
    conditions.extend(behind(&plan.key, &key, checkpoint));
    if plan.request.referenced == Referenced::Skip {
        conditions.extend(plan.references.iter().map(Reference::absent));
    }
    format!(
        "{} WHERE {} ORDER BY {} LIMIT {}",
        places_and_keys(&plan.table, &key, &at, &[]),
        conditions.join(" AND "),
        key.join(", "),
        plan.request.batch_rows
    )
}

/// `SELECT … FROM` the table: what [`chosen`] reads, and `more`. `key` are the columns of the key, `at` the hour of the row's time, as
/// SQL.
pub fn places_and_keys(table: &Leaf, key: &[String], at: &str, more: &[String]) -> String {
    let alias = quote_identifier(&table.name);
    let texts: Vec<_> = key.iter().map(|key| format!("{key}::pg_catalog.text")).collect();
    format!(
        "SELECT {alias}.tableoid, {alias}.ctid::pg_catalog.text, ARRAY[{}]::pg_catalog.text[], {at}::pg_catalog.text{} FROM {}",
        texts.join(", "),
        more.iter().map(|more| format!(", {more}")).collect::<String>(),
        table.qualified()
    )
}

/// Which rows are to be archived, wherever the checkpoint is.
fn eligible(plan: &Plan) -> String {
    let clause = where_clause::condition(plan.request.clause.as_deref());
    let clause = match &plan.marker {
        Some(marker) => format!("{} AND {clause}", marker.live(&alias(plan))),
        None => clause,
    };
    match (&plan.time, &plan.request.archive_before) {
        (Some(time), Some(before)) => {
            let before = quote_literal(before.as_str());
            format!("{} < {before}::pg_catalog.timestamptz AND {clause}", column(plan, time))
        }
        _ => clause,
    }
}

/// That a row comes behind the checkpoint in the order of the key, whose columns `expressions` are.
pub fn behind(key: &[KeyColumn], expressions: &[String], checkpoint: &[String]) -> Option<String> {
    if checkpoint.len() != key.len() {
        return None;
    }
    let values = checkpoint.iter().zip(key);
    let values: Vec<_> =
        values.map(|(text, key)| format!("{}::{}", quote_literal(text.as_str()), key.type_sql)).collect();
    Some(format!("({}) > ({})", expressions.join(", "), values.join(", ")))
}

/// About how many rows are to be archived, as the planner estimates.
pub fn estimated(plan: &Plan) -> Result<u64> {
    let query = format!("EXPLAIN SELECT FROM {} WHERE {}", plan.table.qualified(), eligible(plan));
    let lines = user::own_sql(user::current(), || spi::writing_rows(&query, &[], |row| row.need::<String>(1)))?;
    Ok(lines.first().and_then(|line| pace::planned_rows(line)).unwrap_or(0))
}

/// Whether rows are left that are to be archived and that nothing references: somebody else has locked them.
pub fn anything_left(plan: &Plan) -> Result<bool> {
    let mut conditions = vec![eligible(plan)];
    if plan.request.referenced != Referenced::Cascade {
        conditions.extend(plan.references.iter().map(Reference::absent));
    }
    let query = format!("SELECT EXISTS (SELECT FROM {} WHERE {})", plan.table.qualified(), conditions.join(" AND "));
    user::own_sql(user::current(), || spi::one(&query, &[], |row| row.need(1)))
}

/// Rows that are to be archived but referenced, for each foreign key that holds some.
pub fn held_back(plan: &Plan) -> Result<Vec<(String, String, i64)>> {
    let mut held = Vec::new();
    for reference in &plan.references {
        let query = format!(
            "SELECT pg_catalog.count(*) FROM {} WHERE {} AND {}",
            plan.table.qualified(),
            eligible(plan),
            reference.condition
        );
        let rows = user::own_sql(user::current(), || spi::one(&query, &[], |row| row.need::<i64>(1)))?;
        if rows > 0 {
            held.push((reference.table.clone(), reference.constraint.clone(), rows));
        }
    }
    Ok(held)
}

/// Leaves out the rows that something references by now. Which rows to lock was decided by an older snapshot; now that they are
/// locked, nothing more can reference them.
///
/// Errors: 23503 where such rows are to be refused.
pub fn without_referenced(plan: &Plan, chosen: Vec<Chosen>) -> Result<Vec<Chosen>> {
    if plan.request.referenced == Referenced::Cascade {
        return Ok(chosen);
    }
    let referenced = referenced(&plan.table, &plan.references, &chosen)?;
    if let (Referenced::Refuse, Some((reference, _))) = (plan.request.referenced, referenced.first()) {
        return Err(referenced_by(plan, &reference.table, &reference.constraint, referenced.len()));
    }
    let held: HashSet<_> = referenced.into_iter().map(|(_, address)| address).collect();
    Ok(chosen.into_iter().filter(|row| !held.contains(&row.address())).collect())
}

/// Those of the rows that something references by now, by their addresses, and what does.
pub fn referenced<'a>(
    table: &Leaf,
    references: &'a [Reference],
    chosen: &[Chosen],
) -> Result<Vec<(&'a Reference, (u32, String))>> {
    let alias = quote_identifier(&table.name);
    let mut referenced = Vec::new();
    for reference in references {
        for (relation, places) in places(chosen) {
            let query = format!(
                "SELECT {alias}.ctid::pg_catalog.text FROM {} WHERE {alias}.ctid OPERATOR(pg_catalog.=) ANY ($1::pg_catalog.tid[]) \
                 AND {alias}.tableoid OPERATOR(pg_catalog.=) {relation}::pg_catalog.oid AND {}",
                table.qualified(),
                reference.condition,
            );
            let found = user::own_sql(user::current(), || {
                spi::writing_rows(&query, &[places.into()], |row| row.need::<String>(1))
            })?;
            referenced.extend(found.into_iter().map(|place| (reference, (relation, place))));
        }
    }
    Ok(referenced)
}

/// The places of rows, by the relation that stores them.
pub fn places(chosen: &[Chosen]) -> BTreeMap<u32, Vec<String>> {
    let mut places: BTreeMap<u32, Vec<String>> = BTreeMap::new();
    for row in chosen {
        places.entry(row.relation.to_u32()).or_default().push(row.place.to_string());
    }
    places
}

/// Refuses a request of which a row is referenced, before anything is locked (23503).
pub fn refuse_referenced(plan: &Plan) -> Result<()> {
    if plan.request.referenced != Referenced::Refuse {
        return Ok(());
    }
    match held_back(plan)?.into_iter().next() {
        None => Ok(()),
        Some((table, constraint, rows)) => {
            Err(referenced_by(plan, &table, &constraint, usize::try_from(rows).unwrap_or_default()))
        }
    }
}

fn referenced_by(plan: &Plan, table: &str, constraint: &str, rows: usize) -> Error {
    Error::new(
        SqlState::ERRCODE_FOREIGN_KEY_VIOLATION,
        format!("{rows} rows of \"{}\" are referenced by rows of {table}", plan.table.qualified()),
    )
    .detail(format!("Foreign key \"{constraint}\" would be violated without them."))
    .hint("Archive or delete the referencing rows first, or leave these rows out by the where_clause.")
}
