//! `plan_archive`, `explain_lifecycle`, `lifecycle_map`: what will happen and why, without touching anything.

use archive_core::lifecycle::{Kind, Status};
use archive_core::policy::{Action, Place, Planned, Waiting, draw, instant};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::outlook::{Outlook, kind};
use super::{hold, window};
use crate::catalog;
use crate::catalog::observed::{Leaf, RUN_LIFECYCLE};
use crate::catalog::policy::TablePolicy;
use crate::engine::throttle;
use crate::error::{Error, Result, SqlState};
use crate::guc;
use crate::partition::locks;
use crate::pg::{spi, user};

/// Something that will happen.
#[derive(Debug)]
pub struct Coming {
    /// The managed table.
    pub table: pg_sys::Oid,
    /// The partitions, or the table.
    pub subject: String,
    /// What happens: an operation.
    pub action: &'static str,
    /// When: not before this.
    pub starts: Option<TimestampWithTimeZone>,
    /// Rows by the planner's statistics.
    pub rows: Option<i64>,
    /// Bytes it takes now.
    pub local_bytes: Option<i64>,
    /// Objects it will take, estimated from the table's earlier archives.
    pub objects: Option<i32>,
    /// Bytes of these.
    pub archived_bytes: Option<i64>,
    /// Bytes that become free in the database, once the local copy is dropped.
    pub bytes_freed: Option<i64>,
    /// Locks, for people.
    pub locks: &'static str,
    /// Why.
    pub reason: String,
}

/// What the policies of the caller's tables will do: what is due, then what time alone will make due, in its order.
pub fn plan(source: Option<pg_sys::Oid>) -> Result<Vec<Coming>> {
    if let Some(source) = source {
        check_visible(source)?;
    }
    let mut coming = Vec::new();
    for table in visible(source)? {
        let outlook = Outlook::of(&table)?;
        let opens = opening(&table, outlook.now)?;
        let ratio = catalog::observed::compression_ratio(table.source)?;
        let due = outlook.core.due.iter();
        let due = due.map(|planned| plan_due(&table, &outlook, planned, opens, ratio)).collect::<Result<Vec<_>>>()?;
        let later = outlook.core.waiting.iter().filter_map(|waiting| plan_later(&table, &outlook, waiting, ratio));
        let mut later = later.collect::<Result<Vec<_>>>()?;
        later.sort_by_key(|one| one.starts.map(pg_sys::TimestampTz::from));
        coming.extend(due);
        coming.extend(later);
    }
    Ok(coming)
}

fn plan_due(
    table: &TablePolicy,
    outlook: &Outlook,
    planned: &Planned,
    opens: i64,
    ratio: Option<f64>,
) -> Result<Coming> {
    let leaves: Vec<_> = planned.partitions.iter().filter_map(|at| outlook.leaves.get(*at)).collect();
    let names: Vec<_> = leaves.iter().map(|leaf| leaf.observed.name.as_str()).collect();
    let subject = if names.is_empty() { table.name.clone() } else { names.join(", ") };
    let estimate = Estimate::of(&leaves, matches!(planned.action, Action::Archive | Action::Rearchive), ratio);
    let starts = timestamp(opens)?;
    Ok(estimate.coming(table, subject, planned.action.operation(), Some(starts), planned.reason.clone()))
}

fn plan_later(table: &TablePolicy, outlook: &Outlook, waiting: &Waiting, ratio: Option<f64>) -> Option<Result<Coming>> {
    let (leaf, next, until) = (outlook.leaves.get(waiting.partition)?, waiting.next?, waiting.until?);
    let action = match next {
        Status::Archived => "archive",
        Status::Warm => "warm",
        Status::Hot | Status::Live => "hot",
    };
    let estimate = Estimate::of(&[leaf], next == Status::Archived, ratio);
    let coming =
        |starts| estimate.coming(table, leaf.observed.name.clone(), action, Some(starts), waiting.reason.clone());
    Some(timestamp(until).map(coming))
}

/// What it costs and brings.
struct Estimate {
    rows: Option<i64>,
    local: Option<i64>,
    archived: Option<i64>,
    freed: Option<i64>,
}

impl Estimate {
    fn of(leaves: &[&Leaf], to_storage: bool, ratio: Option<f64>) -> Self {
        if leaves.is_empty() {
            return Self { rows: None, local: None, archived: None, freed: None };
        }
        let local = leaves.iter().map(|leaf| leaf.observed.bytes).sum::<u64>().cast_signed();
        let rows = leaves.iter().map(|leaf| leaf.rows).sum::<Option<i64>>();
        let archived = ratio.filter(|_| to_storage).map(|ratio| (local as f64 / ratio) as i64);
        Self { rows, local: Some(local), archived, freed: Some(if to_storage { local } else { 0 }) }
    }

    fn coming(
        self,
        table: &TablePolicy,
        subject: String,
        action: &'static str,
        starts: Option<TimestampWithTimeZone>,
        reason: String,
    ) -> Coming {
        let object = i64::try_from(guc::object_bytes()).unwrap_or(i64::MAX).max(1);
        let objects = self.archived.and_then(|bytes| i32::try_from(bytes / object + 1).ok());
        Coming {
            table: table.source,
            subject,
            action,
            starts,
            rows: self.rows,
            local_bytes: self.local,
            objects,
            archived_bytes: self.archived,
            bytes_freed: self.freed,
            locks: locks_of(action),
            reason,
        }
    }
}

fn locks_of(operation: &str) -> &'static str {
    match operation {
        "premake" => "ACCESS EXCLUSIVE on the table for an instant",
        "drain" => "ACCESS EXCLUSIVE on the table and its DEFAULT partition while the rows move",
        "hot" => "SHARE UPDATE EXCLUSIVE on the partition; ACCESS EXCLUSIVE on it while it moves to another tablespace",
        "warm" => {
            "no writes to the partition from then on; ACCESS EXCLUSIVE on it while it moves to another tablespace"
        }
        "merge" | "split" => "no writes to the partitions meanwhile; ACCESS EXCLUSIVE on the table for an instant",
        "archive" => "no writes to the partition meanwhile; ACCESS EXCLUSIVE on the table for an instant",
        _ => "",
    }
}

/// One partition explained.
#[derive(Debug)]
pub struct Explained {
    /// Qualified name.
    pub partition: String,
    /// LIVE, HOT, WARM or ARCHIVED.
    pub status: &'static str,
    /// Its label, once it has one.
    pub label: Option<String>,
    /// What comes next.
    pub next: Option<String>,
    /// When, if that is known.
    pub when: Option<TimestampWithTimeZone>,
    /// Why, or why it waits.
    pub reason: String,
    /// Sessions that hold locks on it.
    pub blocked_by: Option<String>,
    /// What ends the wait.
    pub freed_by: Option<String>,
}

/// Each partition of a table: its state, what comes next and when, why it waits, who is in the way, what frees it.
pub fn explain(source: pg_sys::Oid) -> Result<Vec<Explained>> {
    check_visible(source)?;
    let table = table(source)?;
    let outlook = Outlook::of(&table)?;
    let doers = Doers::now(opening(&table, outlook.now)?, outlook.now)?;
    let mut lines: Vec<(usize, Explained)> = Vec::new();
    for planned in &outlook.core.due {
        for at in &planned.partitions {
            if let Some(leaf) = outlook.leaves.get(*at) {
                lines.push((*at, explain_due(leaf, planned, &doers)?));
            }
        }
    }
    for waiting in &outlook.core.waiting {
        if let Some(leaf) = outlook.leaves.get(waiting.partition) {
            lines.push((waiting.partition, explain_waiting(leaf, waiting, &doers)?));
        }
    }
    if outlook.core.due.is_empty() && outlook.core.waiting.is_empty() {
        lines.extend(outlook.leaves.iter().map(|leaf| explain_ageless(leaf, outlook.kind)).enumerate());
    }
    lines.sort_by_key(|(at, _)| *at);
    let by_rows = outlook.kind.is_archived_by_rows();
    let archived = catalog::observed::archived(source)?.into_iter().map(|place| Explained {
        partition: place.name,
        status: Status::Archived.as_str(),
        label: place.label,
        next: None,
        when: None,
        reason: "it is in the storage".to_owned(),
        blocked_by: None,
        freed_by: (!by_rows).then(|| "reattach_partition".to_owned()),
    });
    Ok(archived.chain(lines.into_iter().map(|(_, line)| line)).collect())
}

/// Who does what is due, and what keeps them from it now.
struct Doers {
    /// When the maintenance window is open next, if it is closed.
    opens: Option<i64>,
    /// When that is, or now.
    when: i64,
    /// Why no worker does anything.
    no_worker: Option<String>,
    /// Why jobs wait for other sessions.
    throttled: Option<String>,
}

impl Doers {
    fn now(opens: i64, now: i64) -> Result<Self> {
        Ok(Self {
            opens: Some(opens).filter(|opens| *opens > now),
            when: opens,
            no_worker: hold::worker_hold()?,
            throttled: throttle::hold()?.map(|hold| throttle::told(&hold)),
        })
    }

    /// A reason to act, and what keeps anybody from acting now.
    fn reason(&self, reason: &str) -> String {
        match (self.opens, &self.throttled) {
            (Some(opens), _) => format!("{reason}; its maintenance window is closed until {}", instant(opens)),
            (None, Some(throttled)) => format!("{reason}; jobs wait: {throttled}"),
            (None, None) => reason.to_owned(),
        }
    }

    fn names(&self) -> String {
        match &self.no_worker {
            Some(why) => format!("{RUN_LIFECYCLE}; no worker does it: {why}"),
            None => format!("the worker, or {RUN_LIFECYCLE}"),
        }
    }
}

fn explain_due(leaf: &Leaf, planned: &Planned, doers: &Doers) -> Result<Explained> {
    Ok(Explained {
        next: Some(planned.action.operation().to_owned()),
        when: Some(timestamp(doers.when)?),
        blocked_by: blockers(leaf)?,
        freed_by: Some(if doers.opens.is_some() { "the window".to_owned() } else { doers.names() }),
        ..explained(leaf, doers.reason(&planned.reason))
    })
}

fn explain_waiting(leaf: &Leaf, waiting: &Waiting, doers: &Doers) -> Result<Explained> {
    let to_be_done = waiting.freed_by.as_deref() == Some(RUN_LIFECYCLE);
    let reason = match (leaf.observed.held.is_some(), doers.opens.is_some() || to_be_done) {
        (true, true) => doers.reason(&waiting.reason),
        _ => waiting.reason.clone(),
    };
    let freed_by = match to_be_done {
        true => Some(doers.names()),
        false => waiting.freed_by.clone().or_else(|| waiting.until.map(|_| "time".to_owned())),
    };
    Ok(Explained {
        next: waiting.next.map(|status| status.as_str().to_owned()),
        when: waiting.until.map(timestamp).transpose()?,
        blocked_by: if leaf.observed.held.is_some() { blockers(leaf)? } else { None },
        freed_by,
        ..explained(leaf, reason)
    })
}

fn explain_ageless(leaf: &Leaf, kind: Kind) -> Explained {
    let (reason, freed_by) = match kind {
        Kind::Lifecycle => ("its rows move one by one", "set_lifecycle_where"),
        Kind::Hash => ("hash partitions have no age", "set_lifecycle_where"),
        Kind::Static => ("the table is static", "unregister_static_table"),
        Kind::Time | Kind::List | Kind::Plain => ("its bounds tell no time", "archive_partition"),
    };
    Explained { freed_by: Some(freed_by.to_owned()), ..explained(leaf, reason.to_owned()) }
}

fn explained(leaf: &Leaf, reason: String) -> Explained {
    Explained {
        partition: leaf.observed.name.clone(),
        status: leaf.observed.status.as_str(),
        label: leaf.label.clone(),
        next: None,
        when: None,
        reason,
        blocked_by: None,
        freed_by: None,
    }
}

fn blockers(leaf: &Leaf) -> Result<Option<String>> {
    let blockers = locks::blockers(leaf.oid)?;
    Ok((!blockers.is_empty()).then(|| blockers.join(" ")))
}

/// A table's partitions by tier and size, as lines of text.
pub fn map(source: pg_sys::Oid) -> Result<Vec<String>> {
    check_visible(source)?;
    let table = table(source)?;
    let outlook = Outlook::of(&table)?;
    let mut next: Vec<String> = outlook.leaves.iter().map(|_| String::new()).collect();
    for planned in &outlook.core.due {
        for at in &planned.partitions {
            next[*at] = format!("{} is due", planned.action.operation());
        }
    }
    for waiting in &outlook.core.waiting {
        next[waiting.partition] = match (waiting.next, waiting.until) {
            (Some(status), Some(until)) => {
                format!("{status} from {}", instant(until).split(' ').next().unwrap_or_default())
            }
            _ => waiting.reason.clone(),
        };
    }
    let archived = catalog::observed::archived(source)?.into_iter().map(|place| Place {
        name: bare(&place.name),
        status: Status::Archived,
        range: range(place.lower.as_deref(), place.upper.as_deref(), None),
        bytes: place.bytes.unsigned_abs(),
        next: place.storage.map_or_else(String::new, |storage| format!("in {storage}")),
    });
    let local = outlook.leaves.iter().zip(next).map(|(leaf, next)| Place {
        name: bare(&leaf.observed.name),
        status: leaf.observed.status,
        range: range(leaf.lower.as_deref(), leaf.observed.upper.as_deref(), leaf.bounds.as_deref()),
        bytes: leaf.observed.bytes,
        next,
    });
    Ok(draw(&table.name, &archived.chain(local).collect::<Vec<_>>()))
}

/// The name without its schema.
fn bare(name: &str) -> String {
    name.split_once('.').map_or(name, |(_, bare)| bare).to_owned()
}

fn range(lower: Option<&str>, upper: Option<&str>, bounds: Option<&str>) -> String {
    match (lower, upper) {
        (Some(lower), Some(upper)) => format!("{lower} to {upper}"),
        (None, Some(upper)) => format!("until {upper}"),
        (Some(lower), None) => format!("from {lower}"),
        (None, None) => bounds.unwrap_or_default().trim_start_matches("FOR VALUES ").to_owned(),
    }
}

/// When the window of a table is open next; now if it is.
fn opening(table: &TablePolicy, now: i64) -> Result<i64> {
    let minutes = window::state(table.policy.maintenance_window.as_deref())?.opens_in();
    Ok(now + i64::from(minutes) * 60_000_000)
}

fn timestamp(micros: i64) -> Result<TimestampWithTimeZone> {
    user::elevated(|| {
        spi::one(
            "SELECT timestamptz '2000-01-01 00:00+00' + make_interval(secs => $1::float8 / 1000000)",
            &[micros.into()],
            |row| row.need(1),
        )
    })
}

/// Refuses who may not SELECT from the table (42501).
fn check_visible(source: pg_sys::Oid) -> Result<()> {
    if catalog::may_select(source)? {
        return Ok(());
    }
    let name = catalog::qualified_name(source)?;
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for table {name}"))
        .hint("It takes SELECT on the table."))
}

fn visible(source: Option<pg_sys::Oid>) -> Result<Vec<TablePolicy>> {
    match source {
        Some(source) => Ok(vec![table(source)?]),
        None => catalog::policy::mine(None),
    }
}

/// A table with its policy, or with an empty one.
fn table(source: pg_sys::Oid) -> Result<TablePolicy> {
    kind(source)?;
    Ok(TablePolicy { source, name: catalog::qualified_name(source)?, policy: catalog::policy::of(source)? })
}
