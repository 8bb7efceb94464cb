//! Partitions made ahead of time, and the DEFAULT partition emptied into partitions of their own.

use archive_core::lifecycle::calendar::{self as periods, Range};
use archive_core::lifecycle::{Granularity, Moment, Status, name_pattern};
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::calendar::{self, Calendar};
use super::place::{self, New};
use crate::catalog;
use crate::catalog::event::Transition;
use crate::engine::managed;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::partition::{check, default_rows};
use crate::pg::guc::GucNest;
use crate::pg::{interrupts, spi, user, xact};

/// Coming partitions where neither call nor policy says how many.
const AHEAD: i32 = 3;
/// As many partitions are made in one call at most.
const MOST: usize = 1_000;

/// Makes what is missing of the present period and of the `ahead` coming ones; the new partitions in order.
///
/// Rows that a DEFAULT partition caught for them are moved along. Locks: see [`place::place`]. Errors: 0A000 for keys that do not
/// tell the time, 22023 for a negative `ahead`, 42P07 for names that are taken.
pub fn premake(source: pg_sys::Oid, ahead: Option<i32>) -> Result<Vec<pg_sys::Oid>> {
    check::transaction("premake_partitions")?;
    let table = calendar::source(source)?;
    let ahead = ahead.or(catalog::policy::of(table.root.unwrap_or(source))?.premake).unwrap_or(AHEAD);
    let ahead = u32::try_from(ahead).ok().filter(|ahead| *ahead as usize <= MOST).ok_or_else(|| {
        Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, format!("ahead must be between 0 and {MOST}"))
    })?;
    let calendar = calendar_of(source)?;
    let missing = periods::coming(&calendar.taken, calendar.now()?, calendar.granularity, ahead);
    let adverb = calendar.granularity.adverb();
    let made = make(&calendar, &missing, "premade", &format!("{adverb} partitions are made ahead of their time"))?;
    Ok(made.into_iter().map(|(partition, _)| partition).collect())
}

/// Moves the rows that the DEFAULT partition of `source` caught into partitions of their periods, which are made; how many.
/// Rows without a time, or with an infinite one, stay.
pub fn drain_default(source: pg_sys::Oid) -> Result<u64> {
    check::transaction("drain_default")?;
    let calendar = calendar_of(source)?;
    let Some(default) = default_rows::of_parent(source)? else { return Ok(0) };
    let missing = caught(&calendar, default)?;
    Ok(make(&calendar, &missing, "drained", "the DEFAULT partition held rows of its period")?
        .into_iter()
        .map(|(_, rows)| rows)
        .sum())
}

fn root(calendar: &Calendar) -> pg_sys::Oid {
    calendar.source.root.unwrap_or(calendar.source.oid)
}

fn calendar_of(source: pg_sys::Oid) -> Result<Calendar> {
    let table = calendar::source(source)?;
    let policy = catalog::policy::of(table.root.unwrap_or(source))?;
    Calendar::of(table, policy.live_granularity.as_deref())
}

/// The missing periods of which the DEFAULT partition holds rows.
fn caught(calendar: &Calendar, default: pg_sys::Oid) -> Result<Vec<Range>> {
    let (mut found, mut after): (Vec<Range>, Option<String>) = (Vec::new(), None);
    while let Some(value) = next_value(calendar, default, after.as_deref())? {
        interrupts::check();
        let Some(at) = calendar.moment(&value)? else { break };
        let anchor = calendar.newest.as_ref().map(|(_, lower)| *lower);
        let Some(period) = periods::period_of(at, calendar.granularity, anchor) else { break };
        let free =
            periods::uncovered(period, &calendar.taken).into_iter().find(|(lower, upper)| *lower <= at && at < *upper);
        let Some(range) = free else { break };
        let end = calendar.bound(range.1);
        if end.is_err() || calendar.bound(range.0).is_err() {
            // No id begins or ends such a period: its rows stay, those behind it are drained.
            match end {
                Ok(end) => after = Some(end),
                Err(_) => break,
            }
            continue;
        }
        found.push(range);
        if found.len() == MOST {
            crate::pg::server_text::notice!("only the first {MOST} periods are drained; call it again for the others");
            break;
        }
        after = Some(calendar.bound(range.1)?);
    }
    Ok(found)
}

/// The lowest value of the key in the DEFAULT partition from `after` on, as text in UTC.
fn next_value(calendar: &Calendar, default: pg_sys::Oid, after: Option<&str>) -> Result<Option<String>> {
    let (table, column) = (catalog::qualified_name(default)?, quote_identifier(&calendar.column));
    let type_sql = &calendar.type_sql;
    // Only uuids of version 7 begin with their time.
    let sensible = match type_sql.as_str() {
        "uuid" => format!("substr({column}::text, 15, 1) = '7'"),
        "bigint" => format!("{column} IS NOT NULL"),
        _ => format!("isfinite({column})"),
    };
    let look = || {
        let _text = GucNest::lossless_text();
        spi::optional(
            &format!(
                "SELECT {column}::text FROM {table}
                 WHERE {sensible} AND ($1 IS NULL OR {column} >= $1::{type_sql}) ORDER BY {column} LIMIT 1"
            ),
            &[after.into()],
            |row| row.need(1),
        )
    };
    // Keeps no lock: with one the rows could not be kept out by the freezer, only by a lock on all of the partition.
    xact::rolled_back(|| user::as_user(user::current(), look))
}

/// Makes the partitions of these ranges and writes it down.
fn make(calendar: &Calendar, missing: &[Range], event: &str, reason: &str) -> Result<Vec<(pg_sys::Oid, u64)>> {
    let new = missing.iter().map(|range| new(calendar, *range)).collect::<Result<Vec<_>>>()?;
    if new.is_empty() {
        return Ok(Vec::new());
    }
    let made = place::place(&calendar.source, calendar.newest.as_ref().map(|(leaf, _)| leaf), &new)?;
    managed::ensure(root(calendar))?;
    for (partition, rows) in &made {
        let name = catalog::qualified_name(*partition)?;
        if *rows > 0 {
            crate::pg::server_text::notice!("moved {rows} rows of the DEFAULT partition into {name}");
        }
        catalog::event::record_transition(&Transition {
            table: root(calendar),
            partition: &name,
            event,
            from: None,
            to: Some(Status::Live),
            reason,
            job: None,
            details: serde_json::json!({ "rows_from_default": rows }),
        })?;
    }
    Ok(made)
}

fn new(calendar: &Calendar, (lower, upper): Range) -> Result<New> {
    let bounds = crate::partition::new_partition::range_clause(&calendar.bound(lower)?, &calendar.bound(upper)?);
    Ok(New { name: name(calendar, lower)?, bounds })
}

/// `<table>_<day>`, for a piece of a period.
pub(super) fn name_of_day(calendar: &Calendar, lower: Moment) -> String {
    name_pattern::of_table(&calendar.source.name, lower, Granularity::Day)
}

/// After the newest partition's name, else `<table>_<period>`.
pub(super) fn name(calendar: &Calendar, lower: Moment) -> Result<String> {
    let granularity = calendar.granularity;
    let like = calendar
        .newest
        .as_ref()
        .and_then(|(newest, begins)| name_pattern::like_example(&newest.name, *begins, lower, granularity))
        .filter(|name| name.len() <= archive_core::naming::MAX_IDENTIFIER);
    if let Some(name) = like
        && discover::find_relation(&calendar.source.schema, &name)?.is_none()
    {
        return Ok(name);
    }
    Ok(name_pattern::of_table(&calendar.source.name, lower, granularity))
}
