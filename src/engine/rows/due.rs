//! Which rows of a lifecycle-partitioned table are due for the next status.

use archive_core::lifecycle::{Kind, Label, Status};
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::{Value, json};

use super::plan::{Plan, Request};
use crate::catalog::row_policy;
use crate::engine::clock;
use crate::error::Result;
use crate::partition::discover;
use crate::partition::labels::LabelTable;
use crate::pg::{spi, user};

/// Rows that are due: what a job of operation `rows` needs as its request.
#[derive(Debug, Clone)]
pub struct Due {
    /// The partition the rows are in.
    pub partition: pg_sys::Oid,
    /// Its label.
    pub label: String,
    /// The status they are due for.
    pub to: Status,
    /// Why, in words for the DBA.
    pub reason: String,
    /// The job's request: labels, where, status, reason.
    pub request: Value,
}

/// What is due in `source` now, by its policy and the clock; empty for tables of another kind and without a policy.
///
/// LIVE and HOT rows are due when the end of their label's period is older than `hot_after` or `warm_after`, rows of a label
/// without a period when their own time is; WARM rows when their removal time has passed, whatever the ages. Periods end
/// on the session's calendar. Locks: ACCESS SHARE on the partitions; each is looked at for one row that is due.
pub fn due(source: pg_sys::Oid) -> Result<Vec<Due>> {
    if discover::kind(source)? != Kind::Lifecycle {
        return Ok(Vec::new());
    }
    let Some(table) = LabelTable::of(source)? else { return Ok(Vec::new()) };
    let mut found = Vec::new();
    for partition in &table.partitions {
        for value in &partition.values {
            let Ok(label) = value.parse::<Label>() else { continue };
            for candidate in candidates(&table, value, label)? {
                if exists(&table, value, candidate.clause.as_deref())? {
                    found.push(candidate.due(partition.oid, value));
                    break;
                }
            }
        }
    }
    Ok(found)
}

/// Rows that time alone will make due.
#[derive(Debug, Clone)]
pub struct Coming {
    /// The partition the rows are in.
    pub partition: pg_sys::Oid,
    /// The status they will be due for.
    pub to: Status,
    /// Whether all rows of the label will be.
    pub whole: bool,
    /// When the first of them will be, in microseconds since 2000-01-01 UTC.
    pub at: i64,
    /// Why.
    pub reason: String,
}

/// What time alone will make due next in `source`, by its policy: for each label that which comes first.
pub fn coming(source: pg_sys::Oid) -> Result<Vec<Coming>> {
    let mut found = Vec::new();
    if discover::kind(source)? != Kind::Lifecycle {
        return Ok(found);
    }
    let Some(table) = LabelTable::of(source)? else { return Ok(found) };
    for partition in &table.partitions {
        for value in &partition.values {
            let Ok(label) = value.parse::<Label>() else { continue };
            let next: &[Status] = match label.status {
                Status::Live => &[Status::Hot, Status::Warm],
                Status::Hot => &[Status::Warm],
                Status::Warm => &[Status::Archived],
                Status::Archived => &[],
            };
            let mut first: Option<Coming> = None;
            for to in next {
                let one = match to {
                    Status::Archived => removed_later(&table, partition.oid, value)?,
                    _ => aged_later(&table, partition.oid, value, label, *to)?,
                };
                first = first.into_iter().chain(one).min_by_key(|one| one.at);
            }
            found.extend(first);
        }
    }
    Ok(found)
}

/// When the removal time of the first WARM rows comes.
fn removed_later(table: &LabelTable, partition: pg_sys::Oid, value: &str) -> Result<Option<Coming>> {
    let Some(column) = plan(table, value, Status::Archived)?.removal else { return Ok(None) };
    let time = format!("{}::pg_catalog.timestamptz", quote_identifier(&column));
    let at = earliest(table, value, &time, &text_of_now()?, "0")?;
    Ok(at.map(|at| Coming {
        partition,
        to: Status::Archived,
        whole: false,
        at,
        reason: format!("{column} of the first rows in {value} is not yet over"),
    }))
}

/// When LIVE and HOT rows are old enough.
fn aged_later(
    table: &LabelTable,
    partition: pg_sys::Oid,
    value: &str,
    label: Label,
    to: Status,
) -> Result<Option<Coming>> {
    let Some(age) = row_policy::age(table.oid, to)? else { return Ok(None) };
    let Some(before) = row_policy::due_before(table.oid, to, clock::now()?)? else { return Ok(None) };
    let setting = if to == Status::Hot { "hot_after" } else { "warm_after" };
    let Some(period) = label.period else {
        let plan = plan(table, value, to)?;
        let Some(column) = plan.time_column() else { return Ok(None) };
        let at = earliest(table, value, &column.time_of(&quote_identifier(&column.name)), &before, &age)?;
        let reason = format!("{} of the first rows in {value} is not yet older than {setting} {age}", column.name);
        return Ok(at.map(|at| Coming { partition, to, whole: false, at, reason }));
    };
    let Some(end) = period.end() else { return Ok(None) };
    let end = format!("{:04}-{:02}-{:02} {:02}:00", end.year, end.month, end.day, end.hour);
    // In the session's time zone, so not elevated.
    let (at, ahead) = spi::one(
        "SELECT ((extract(epoch FROM $1::pg_catalog.timestamptz OPERATOR(pg_catalog.+) $2::pg_catalog.interval)
                  OPERATOR(pg_catalog.-) 946684800) OPERATOR(pg_catalog.*) 1000000)::pg_catalog.int8,
                $1::pg_catalog.timestamptz OPERATOR(pg_catalog.>) $3::pg_catalog.timestamptz",
        &[end.as_str().into(), age.as_str().into(), before.as_str().into()],
        |row| Ok((row.need::<i64>(1)?, row.need::<bool>(2)?)),
    )?;
    let reason = format!("{value} is not yet older than {setting} {age}");
    let some = ahead && exists(table, value, None)?;
    Ok(some.then_some(Coming { partition, to, whole: true, at, reason }))
}

/// When the first row of a label whose time is after `after` is so much older.
fn earliest(table: &LabelTable, value: &str, time: &str, after: &str, age: &str) -> Result<Option<i64>> {
    let (root, column) = (table.qualified(), quote_identifier(&table.column));
    let query = format!(
        "SELECT ((extract(epoch FROM min({time}) + $1::interval) - 946684800) * 1000000)::bigint FROM {root}
         WHERE {column} = {} AND isfinite({time}) AND {time} > $2::timestamptz",
        quote_literal(value)
    );
    user::as_user(table.owner, || spi::one(&query, &[age.into(), after.into()], |row| row.get(1)))
}

/// Rows of a label that are due where the clause holds.
struct Candidate {
    to: Status,
    clause: Option<String>,
    reason: String,
}

impl Candidate {
    fn due(self, partition: pg_sys::Oid, value: &str) -> Due {
        let request = json!({
            "labels": [value], "where": self.clause, "status": self.to.as_str(), "reason": self.reason,
        });
        Due { partition, label: value.to_owned(), to: self.to, reason: self.reason, request }
    }
}

/// What rows of a label may be due for, farthest first: those that are due for WARM need not become HOT before.
fn candidates(table: &LabelTable, value: &str, label: Label) -> Result<Vec<Candidate>> {
    let next: &[Status] = match label.status {
        Status::Live => &[Status::Warm, Status::Hot],
        Status::Hot => &[Status::Warm],
        Status::Warm => return Ok(removal(table, value)?.into_iter().collect()),
        Status::Archived => &[],
    };
    let mut found = Vec::new();
    for to in next {
        found.extend(aged(table, value, label, *to)?);
    }
    Ok(found)
}

fn plan(table: &LabelTable, value: &str, to: Status) -> Result<Plan> {
    Plan::of(&Request {
        source: table.oid,
        clause: None,
        labels: Some(vec![value.to_owned()]),
        to,
        removal_time: None,
        reason: String::new(),
        keep_keys: false,
    })
}

/// WARM rows whose removal time has passed.
fn removal(table: &LabelTable, value: &str) -> Result<Option<Candidate>> {
    let Some(column) = plan(table, value, Status::Archived)?.removal else { return Ok(None) };
    let now = text_of_now()?;
    Ok(Some(Candidate {
        to: Status::Archived,
        clause: Some(not_after(&format!("{}::pg_catalog.timestamptz", quote_identifier(&column)), &now)),
        reason: format!("{column} of rows in {value} is not after {now}"),
    }))
}

/// LIVE and HOT rows that are old enough.
fn aged(table: &LabelTable, value: &str, label: Label, to: Status) -> Result<Option<Candidate>> {
    let Some(before) = row_policy::due_before(table.oid, to, clock::now()?)? else { return Ok(None) };
    let age = if to == Status::Hot { "hot_after" } else { "warm_after" };
    let Some(period) = label.period else {
        let plan = plan(table, value, to)?;
        let Some(column) = plan.time_column() else { return Ok(None) };
        return Ok(Some(Candidate {
            to,
            clause: Some(not_after(&column.time_of(&quote_identifier(&column.name)), &before)),
            reason: format!("{} of rows in {value} is not after {before}, now less {age}", column.name),
        }));
    };
    let Some(end) = period.end() else { return Ok(None) };
    let end = format!("{:04}-{:02}-{:02} {:02}:00", end.year, end.month, end.day, end.hour);
    // In the session's time zone, so not elevated.
    let ended = spi::one(
        "SELECT $1::pg_catalog.timestamptz OPERATOR(pg_catalog.<=) $2::pg_catalog.timestamptz",
        &[end.as_str().into(), before.as_str().into()],
        |row| row.need::<bool>(1),
    )?;
    Ok(ended.then(|| Candidate { to, clause: None, reason: format!("{value} ended by {before}, now less {age}") }))
}

fn not_after(expression: &str, time: &str) -> String {
    format!("{expression} OPERATOR(pg_catalog.<=) {}::pg_catalog.timestamptz", quote_literal(time))
}

fn text_of_now() -> Result<String> {
    let now = clock::now()?;
    user::elevated(|| spi::one("SELECT $1::text", &[now.into()], |row| row.need(1)))
}

/// Whether a row is due. Run as the owner, whose casts and row security the move itself would meet.
fn exists(table: &LabelTable, value: &str, clause: Option<&str>) -> Result<bool> {
    let (root, column) = (table.qualified(), quote_identifier(&table.column));
    let query = format!(
        "SELECT EXISTS (SELECT FROM {root} WHERE {column} = {} AND {})",
        quote_literal(value),
        clause.unwrap_or("true")
    );
    user::as_user(table.owner, || spi::one(&query, &[], |row| row.need(1)))
}
