//! What a request means for a table: which labels its rows may come from, and which they get.

use archive_core::lifecycle::{Kind, Label, Moment, Status, TimeKey, relabel, transition};
use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_qualified_identifier};

use super::family::{self, Follower};
use crate::catalog;
use crate::catalog::row_policy::{self, RowPolicy};
use crate::engine::{clock, managed};
use crate::error::{Error, Result, SqlState};
use crate::partition::labels::LabelTable;
use crate::partition::{check, discover};
use crate::pg::{spi, user};

/// Which rows shall get which status.
#[derive(Debug, Clone)]
pub struct Request {
    /// The table.
    pub source: pg_sys::Oid,
    /// One boolean expression over the table, from the user; `None` for all rows.
    pub clause: Option<String>,
    /// Only rows with these labels.
    pub labels: Option<Vec<String>>,
    /// The new status.
    pub to: Status,
    /// Written into the removal column of the rows, and for ARCHIVED decides their label. ISO text with an offset.
    pub removal_time: Option<String>,
    /// Why, for the events.
    pub reason: String,
    /// Whether rows that leave the table leave a stub with their keys.
    pub keep_keys: bool,
}

/// A request with everything looked up that it needs.
#[derive(Debug)]
pub struct Plan {
    /// The request.
    pub request: Request,
    /// The table.
    pub table: LabelTable,
    /// The tables whose rows follow.
    pub followers: Vec<Follower>,
    /// Labels that rows are moved from.
    pub sources: Vec<String>,
    /// Labels that rows must not be moved from.
    pub illegal: Vec<String>,
    /// Column for the removal time.
    pub removal: Option<String>,
    policy: RowPolicy,
    time: Option<TimeColumn>,
}

/// A column that tells a row's own time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeColumn {
    /// Its name.
    pub name: String,
    key: TimeKey,
}

impl TimeColumn {
    /// The time as an SQL expression over `column`, which is how the column is called there.
    pub fn time_of(&self, column: &str) -> String {
        match self.key {
            TimeKey::Time => format!("{column}::pg_catalog.timestamptz"),
            TimeKey::Uuid => format!(
                "pg_catalog.to_timestamp(pg_catalog.concat('x', pg_catalog.substr(pg_catalog.replace({column}::pg_catalog.text, \
                 '-', ''), 1, 12))::pg_catalog.bit(48)::pg_catalog.int8::pg_catalog.float8 OPERATOR(pg_catalog./) 1000)"
            ),
            TimeKey::Snowflake(epoch) => format!(
                "pg_catalog.to_timestamp((({column} OPERATOR(pg_catalog.>>) 22) OPERATOR(pg_catalog.+) \
                 '{}'::pg_catalog.int8)::pg_catalog.float8 OPERATOR(pg_catalog./) 1000)",
                epoch.unix_millis()
            ),
        }
    }
}

impl Plan {
    /// Looks everything up, and refuses what cannot be: tables of another kind (42809, 0A000), static ones (55000), those
    /// of another owner (42501).
    pub fn of(request: &Request) -> Result<Self> {
        let table = table(request.source)?;
        let policy = row_policy::of(table.oid)?;
        let columns = TimeColumns::of(&table, &policy)?;
        if request.removal_time.is_some() && columns.removal.is_none() {
            return Err(no_removal_column(&table));
        }
        let (sources, illegal) = split_labels(&table, request)?;
        Ok(Self {
            followers: family::of(&table)?,
            request: request.clone(),
            sources,
            illegal,
            removal: columns.removal,
            time: columns.time,
            policy,
            table,
        })
    }

    /// The label of rows with label `present` in the new status.
    pub fn relabel(&self, present: Label, at: Option<Moment>) -> Option<Label> {
        relabel(present, self.request.to, &self.policy.granularities, at)
    }

    /// The time that decides a row's label where its present label does not, as an SQL expression over the table; `None`
    /// when no label of these needs it. `$2` is the request's removal time.
    pub fn time_expression(&self) -> Result<Option<String>> {
        let known = |value: &String| value.parse().is_ok_and(|label| self.relabel(label, None).is_some());
        if self.sources.iter().all(known) {
            return Ok(None);
        }
        let column = |name: &str| format!("{}.{}", quote_identifier(&self.table.name), quote_identifier(name));
        if self.request.to == Status::Archived {
            if self.request.removal_time.is_some() {
                return Ok(Some("$2::pg_catalog.timestamptz".to_owned()));
            }
            let removal = self.removal.as_deref().ok_or_else(|| no_removal_column(&self.table))?;
            return Ok(Some(column(removal)));
        }
        let now = user::elevated(|| {
            spi::one("SELECT quote_literal($1)", &[clock::now()?.into()], |row| row.need::<String>(1))
        })?;
        let now = format!("{now}::pg_catalog.timestamptz");
        Ok(Some(match &self.time {
            Some(time) => format!("COALESCE({}, {now})", time.time_of(&column(&time.name))),
            None => now,
        }))
    }

    /// The column with a row's own time.
    pub fn time_column(&self) -> Option<&TimeColumn> {
        self.time.as_ref()
    }

    /// The table's id in the catalog; it is registered now if it was not.
    pub fn managed_table(&self) -> Result<i64> {
        Ok(managed::ensure(self.table.oid)?.id)
    }

    /// Tablespace for partitions of the new status.
    pub fn tablespace(&self) -> Option<&str> {
        match self.request.to {
            Status::Hot => self.policy.hot_tablespace.as_deref(),
            Status::Warm | Status::Archived => self.policy.warm_tablespace.as_deref(),
            Status::Live => None,
        }
    }

    /// Qualified name of the partition that takes `value`; of the DEFAULT partition, or the table, where none does.
    pub fn partition_name(&self, value: &str) -> String {
        let partition = self.table.partition_of(value).or_else(|| self.table.default_partition());
        partition.map_or_else(
            || self.table.qualified(),
            |partition| quote_qualified_identifier(partition.schema.as_str(), partition.name.as_str()),
        )
    }
}

/// The table, or why its rows cannot be moved.
fn table(source: pg_sys::Oid) -> Result<LabelTable> {
    let name = catalog::qualified_name(source)?;
    let Some(relation) = discover::leaf(source)? else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("table \"{name}\" does not exist")));
    };
    if let Some(root) = relation.root.filter(|root| *root != source) {
        let root = catalog::qualified_name(root)?;
        return Err(Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" is a partition"))
            .hint(format!("Name its table, \"{root}\", and the rows by their lifecycle label or anything else.")));
    }
    if !user::has_privileges_of(relation.owner) {
        return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
    }
    check::not_static(source)?;
    let kind = discover::kind(source)?;
    match LabelTable::of(source)? {
        Some(table) if kind == Kind::Lifecycle => Ok(table),
        _ => Err(other_kind(&name, kind)),
    }
}

fn other_kind(name: &str, kind: Kind) -> Error {
    let (what, hint) = match kind {
        Kind::Time => (
            "is partitioned by RANGE",
            format!("Its partitions age as a whole: SELECT set_lifecycle(partition, status) for each partition of {name}."),
        ),
        Kind::Hash => (
            "is partitioned by hash",
            "Its rows have no age: set_lifecycle_where(…, 'ARCHIVED') takes them to the archive, restore_rows() brings them back.".to_owned(),
        ),
        Kind::List | Kind::Lifecycle => (
            "is not partitioned by lifecycle labels",
            "Rows move in tables PARTITION BY LIST (lifecycle_status), whose partitions are FOR VALUES IN ('LIVE_202412') and the like.".to_owned(),
        ),
        Kind::Plain | Kind::Static => (
            "is not partitioned",
            "Rows move in tables PARTITION BY LIST (lifecycle_status), a text column of labels such as LIVE_202412.".to_owned(),
        ),
    };
    Error::new(
        SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
        format!("rows of \"{name}\" cannot change their status: it {what}"),
    )
    .hint(hint)
}

fn no_removal_column(table: &LabelTable) -> Error {
    let name = table.qualified();
    Error::new(SqlState::ERRCODE_UNDEFINED_COLUMN, format!("\"{name}\" has no column for a removal time")).hint(
        format!(
            "ALTER TABLE {name} ADD COLUMN removal_time timestamptz; or name another in the policy's removal_column."
        ),
    )
}

/// The labels from which rows go to the new status, and those from which they must not. Rows that have it are left alone.
fn split_labels(table: &LabelTable, request: &Request) -> Result<(Vec<String>, Vec<String>)> {
    let (mut sources, mut illegal) = (Vec::new(), Vec::new());
    let mut values: Vec<_> = table.partitions.iter().flat_map(|partition| partition.values.clone()).collect();
    values.extend(values_in_default(table)?);
    for value in values {
        if request.labels.as_ref().is_some_and(|wanted| !wanted.contains(&value)) {
            continue;
        }
        match value.parse::<Label>() {
            Ok(label) if label.status == request.to => {}
            Ok(label) if transition::check(label.status, request.to).is_ok() => sources.push(value),
            _ => illegal.push(value),
        }
    }
    Ok((sources, illegal))
}

/// The labels of the rows that the DEFAULT partition caught.
fn values_in_default(table: &LabelTable) -> Result<Vec<String>> {
    let Some(default) = table.default_partition() else { return Ok(Vec::new()) };
    let name = quote_qualified_identifier(default.schema.as_str(), default.name.as_str());
    let column = quote_identifier(&table.column);
    user::as_user(table.owner, || {
        spi::rows(
            &format!("SELECT DISTINCT {column}::text FROM {name} WHERE {column} IS NOT NULL ORDER BY 1"),
            &[],
            |row| row.need(1),
        )
    })
}

/// The columns that hold times.
struct TimeColumns {
    removal: Option<String>,
    time: Option<TimeColumn>,
}

impl TimeColumns {
    /// The policy's columns (42703 when they do not exist or hold no time; ids that begin with one do). Without a policy `removal_time`, and as the
    /// row's own time the first NOT NULL column of a date or timestamp, else the first of these at all.
    fn of(table: &LabelTable, policy: &RowPolicy) -> Result<Self> {
        let columns = discover::attributes(table.oid)?;
        let times: Vec<_> = columns.iter().filter(|column| is_time(column.type_oid)).collect();
        let missing = |setting: &str, name: &str, what: &str| {
            let table = table.qualified();
            let message = format!("the policy's {setting} \"{name}\" is no {what} column of \"{table}\"");
            Err(Error::new(SqlState::ERRCODE_UNDEFINED_COLUMN, message))
        };
        let usual = || times.iter().find(|column| column.name == "removal_time").map(|column| column.name.clone());
        let removal = match &policy.removal_column {
            Some(name) if times.iter().any(|column| column.name == *name) => Some(name.clone()),
            Some(name) => return missing("removal_column", name, "date or timestamp"),
            None => usual(),
        };
        let own = || times.iter().filter(|column| Some(&column.name) != removal.as_ref());
        let time = match &policy.time_column {
            Some(name) => {
                let column = columns.iter().find(|column| column.name == *name);
                match column.and_then(|column| TimeKey::of_type(&column.type_sql, policy.key_epoch)) {
                    Some(key) => Some(TimeColumn { name: name.clone(), key }),
                    None => return missing("time_column", name, "date, timestamp or id"),
                }
            }
            None => own()
                .find(|column| column.not_null)
                .or_else(|| own().next())
                .map(|column| TimeColumn { name: column.name.clone(), key: TimeKey::Time }),
        };
        Ok(Self { removal, time })
    }
}

fn is_time(type_oid: pg_sys::Oid) -> bool {
    [pg_sys::DATEOID, pg_sys::TIMESTAMPOID, pg_sys::TIMESTAMPTZOID].contains(&type_oid)
}
