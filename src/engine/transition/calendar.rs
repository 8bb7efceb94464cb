//! The calendar by which a RANGE table is partitioned: its key, its partitions as ranges, and bounds for new ones.

use archive_core::lifecycle::calendar::Range;
use archive_core::lifecycle::key::{self, Epoch, TimeKey};
use archive_core::lifecycle::{Granularity, Moment, range_bounds};
use pgrx::pg_sys;

use crate::catalog;
use crate::catalog::time_key;
use crate::engine::{clock, period};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::pg::{spi, user};

/// What the partition key tells the time by.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Key {
    Date,
    Timestamp,
    /// Periods begin at midnight of this zone.
    TimestampTz(String),
    /// Version 7: milliseconds since 1970, then the digits that all bounds end with.
    Uuid(String),
    /// Milliseconds since the policy's epoch, then 22 bits.
    Snowflake(Epoch),
}

/// The time partitions of a table.
#[derive(Debug)]
pub struct Calendar {
    key: Key,
    /// Name of the key column.
    pub column: String,
    /// Its type.
    pub type_sql: String,
    /// The table.
    pub source: Leaf,
    /// Ranges of its partitions; `Moment::MIN` and `MAX` for no bound.
    pub taken: Vec<Range>,
    /// The partition with the highest finite upper bound, and its lower bound.
    pub newest: Option<(Leaf, Moment)>,
    /// Length of new partitions.
    pub granularity: Granularity,
}

impl Calendar {
    /// The calendar of `source`. Errors: 0A000 where the key does not tell the time, 55000 where its bounds are on no calendar or
    /// nothing says how long partitions are.
    pub fn of(source: Leaf, granularity: Option<&str>) -> Result<Self> {
        let (column, type_sql) = key_column(&source)?;
        let wanted: Option<Granularity> = granularity.map(str::parse).transpose()?;
        let partitions: Vec<_> = discover::children(source.oid)?
            .into_iter()
            .filter(|leaf| leaf.bounds.as_deref() != Some("DEFAULT"))
            .collect();
        let bounds: Vec<_> =
            partitions.iter().map(|leaf| range_bounds(leaf.bounds.as_deref().unwrap_or_default())).collect();
        let (key, taken) = on_calendar(&source, &type_sql, &bounds, wanted)?;
        let newest = (0..taken.len())
            .filter(|at| taken[*at].1 != Moment::MAX && taken[*at].0 != Moment::MIN)
            .max_by_key(|at| taken[*at].1);
        let found = newest.and_then(|at| Granularity::between(taken[at].0, taken[at].1));
        let Some(granularity) = wanted.or(found) else {
            return Err(Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("nothing says how long the partitions of \"{}\" are", source.qualified()),
            )
            .hint("Create the first partition by hand, or set live_granularity in the table's policy."));
        };
        let newest = newest.map(|at| (partitions[at].clone(), taken[at].0));
        Ok(Self { key, column, type_sql, source, taken, newest, granularity })
    }

    /// Now on this calendar.
    pub fn now(&self) -> Result<Moment> {
        let zone = match &self.key {
            Key::TimestampTz(zone) => zone.clone(),
            Key::Uuid(_) | Key::Snowflake(_) => "UTC".to_owned(),
            Key::Date | Key::Timestamp => period::session_zone()?,
        };
        period::moment_of(clock::now()?, &zone)?.ok_or_else(|| {
            Error::new(SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW, "labels exist for the years 1 to 9999 only")
        })
    }

    /// A value of the key, as text in UTC, on this calendar; `None` for what is on none.
    pub fn moment(&self, value: &str) -> Result<Option<Moment>> {
        self.key.moment(value)
    }

    /// A moment as a bound.
    pub fn bound(&self, at: Moment) -> Result<String> {
        Ok(match &self.key {
            Key::Date => period::text(at)[..10].to_owned(),
            Key::Timestamp => period::text(at),
            Key::TimestampTz(zone) => period::bound_in(at, zone)?,
            Key::Uuid(tail) => key::uuid_at(at, tail).ok_or_else(|| out_of_reach(at))?,
            Key::Snowflake(epoch) => epoch.id_at(at).ok_or_else(|| out_of_reach(at))?.to_string(),
        })
    }
}

impl Key {
    fn moment(&self, value: &str) -> Result<Option<Moment>> {
        match self {
            Self::Date | Self::Timestamp => period::moment_in(value, "UTC"),
            Self::TimestampTz(zone) => period::moment_in(value, zone),
            Self::Uuid(_) => Ok(TimeKey::Uuid.moment(value)),
            Self::Snowflake(epoch) => Ok(TimeKey::Snowflake(*epoch).moment(value)),
        }
    }
}

/// The only key column and its type.
fn key_column(source: &Leaf) -> Result<(String, String)> {
    let name = source.qualified();
    let key = discover::partition_key(source.oid)?;
    let column = user::elevated(|| {
        spi::optional(
            "SELECT a.attname::text, format_type(a.atttypid, NULL) FROM pg_partitioned_table k
             JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0]
             WHERE k.partrelid = $1 AND k.partnatts = 1 AND k.partstrat = 'r'",
            &[source.oid.into()],
            |row| Ok((row.need(1)?, row.need(2)?)),
        )
    })?;
    column.ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            format!("coming partitions of \"{name}\" cannot be told from its key"),
        )
        .detail(format!("It is partitioned by {key}; needed is RANGE over one column."))
        .hint("Create its partitions by hand.")
    })
}

/// The key, and its bounds on its calendar.
#[allow(clippy::type_complexity)]
fn on_calendar(
    source: &Leaf,
    type_sql: &str,
    bounds: &[(Option<String>, Option<String>)],
    wanted: Option<Granularity>,
) -> Result<(Key, Vec<Range>)> {
    let some = bounds.iter().find_map(|(lower, upper)| lower.clone().or_else(|| upper.clone()));
    let candidates = match type_sql {
        "date" => vec![Key::Date],
        "timestamp without time zone" => vec![Key::Timestamp],
        "timestamp with time zone" => {
            vec![Key::TimestampTz(period::session_zone()?), Key::TimestampTz("UTC".to_owned())]
        }
        "uuid" => {
            let tail = some.as_deref().map_or(key::ZERO_TAIL, key::uuid_tail);
            vec![Key::Uuid(tail.to_owned())]
        }
        other => match time_key::of(source.oid)? {
            Some(TimeKey::Snowflake(epoch)) => vec![Key::Snowflake(epoch)],
            _ => return Err(no_time(source, other)),
        },
    };
    for key in candidates {
        let ranges = bounds.iter().map(|bound| range(&key, bound)).collect::<Result<Option<Vec<_>>>>()?;
        let Some(ranges) = ranges else { continue };
        if ranges.iter().all(|range| fits(*range, wanted)) {
            return Ok((key, ranges));
        }
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the partitions of \"{}\" begin at no midnight", source.qualified()),
    )
    .detail("Neither in the session's time zone nor in UTC are their bounds those of hours, days, weeks, months, quarters or years.")
    .hint("SET TimeZone to the one in which they were made, or create the next partition by hand."))
}

fn range(key: &Key, (lower, upper): &(Option<String>, Option<String>)) -> Result<Option<Range>> {
    let moment = |bound: &Option<String>, none| match bound {
        Some(text) if text.ends_with("infinity") => Ok(Some(none)),
        // No snowflake is below.
        Some(text) if matches!(key, Key::Snowflake(_)) && text == "0" => Ok(Some(none)),
        Some(text) => key.moment(text),
        None => Ok(Some(none)),
    };
    Ok(match (moment(lower, Moment::MIN)?, moment(upper, Moment::MAX)?) {
        (Some(lower), Some(upper)) => Some((lower, upper)),
        _ => None,
    })
}

/// Whether the bounds are such as a calendar has: whole hours for hourly partitions, midnights for longer ones.
fn fits((lower, upper): Range, wanted: Option<Granularity>) -> bool {
    if lower == Moment::MIN || upper == Moment::MAX {
        return true;
    }
    let own = Granularity::between(lower, upper);
    let begins = |granularity: Granularity| lower.begins(granularity) && upper.begins(granularity);
    let fine = own.is_some_and(|own| begins(own.min(Granularity::Day)));
    // Where the policy wants other lengths from now on, they must be able to go on from here.
    fine || wanted.is_some_and(begins)
}

fn no_time(source: &Leaf, type_sql: &str) -> Error {
    let (reason, hint) = match type_sql {
        "bigint" => (
            "Since when a snowflake id counts, and whether the numbers are such ids at all, nobody can tell from them.",
            "set_archive_policy(…, key_kind => 'snowflake', key_epoch => '…') says it. Else create the partitions by hand.",
        ),
        _ => (
            "Needed is a date, a timestamp, a uuid of version 7, or a bigint with snowflake ids.",
            "Create its partitions by hand.",
        ),
    };
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("the key of \"{}\" does not tell the time: it is {type_sql}", source.qualified()),
    )
    .detail(reason)
    .hint(hint)
}

fn out_of_reach(at: Moment) -> Error {
    Error::new(
        SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW,
        format!("there are no ids of {:04}-{:02}-{:02}", at.year, at.month, at.day),
    )
    .detail("A snowflake has 41 bits for the milliseconds since its epoch, which is 69 years; a uuid begins in 1970.")
}

/// The table, if partitions of it can be made: one of the caller's that is partitioned by RANGE.
pub fn source(source: pg_sys::Oid) -> Result<Leaf> {
    let name = catalog::qualified_name(source)?;
    let table = discover::leaf(source)?.filter(|table| table.kind == 'p').ok_or_else(|| {
        Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is not a partitioned table"))
            .hint("Name a table that is partitioned by RANGE on a time.")
    })?;
    if !user::has_privileges_of(table.owner) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    crate::partition::check::not_static(table.root.unwrap_or(source))?;
    Ok(table)
}
