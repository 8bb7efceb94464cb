//! `explain_lifecycle`, `lifecycle_map`: what will happen and why, without touching anything.

use archive_core::lifecycle::{Kind, Status};
use archive_core::policy::{Fate, NextStep, Place, Planned, Waiting, draw, instant};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::labels;
use super::outlook::{Outlook, kind};
use super::{hold, window};
use crate::catalog;
use crate::catalog::observed::{ArchivedLeaf, Leaf, RUN_LIFECYCLE};
use crate::catalog::policy::TablePolicy;
use crate::engine::{batch, throttle, verification};
use crate::error::{Error, Result, SqlState};
use crate::partition::locks;
use crate::pg::{spi, user};

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
    let steps = label_steps(&table, &outlook);
    let said: Vec<_> = lines.iter().map(|(at, _)| *at).collect();
    for (at, leaf) in outlook.leaves.iter().enumerate().filter(|(at, _)| !said.contains(at)) {
        let line = match &steps {
            Ok(steps) => match steps.iter().find(|step| step.leaf == at) {
                Some(step) => explain_step(leaf, step, &doers)?,
                None => explain_ageless(leaf, outlook.kind, &doers),
            },
            // Why no rows can move, which is what whoever asks wants to know.
            Err(error) => Explained {
                freed_by: error.hint_text().map(str::to_owned),
                ..explained(leaf, error.message().to_owned())
            },
        };
        lines.push((at, line));
    }
    lines.sort_by_key(|(at, _)| *at);
    let mut fates = verification::fates(&table, outlook.now)?;
    let mut archived = Vec::new();
    for place in catalog::observed::archived(source)? {
        let fate = fates.iter().position(|(one, _)| one.name == place.name).map(|at| fates.swap_remove(at).1);
        let ends = table.policy.expire_after.and(place.expires_at);
        archived.push(match fate.unwrap_or(Fate::Settled) {
            Fate::Settled if ends.is_some() => explain_end(place, &doers)?,
            // Its objects are verified and moved one after the other, and there will always be more.
            Fate::Later(step) if place.by_rows && ends.is_some_and(|end| end <= step.at) => explain_end(place, &doers)?,
            fate => explain_archived(place, fate, &doers)?,
        });
    }
    let rows = (outlook.kind == Kind::Plain).then(|| explain_rows(&table, &doers)).transpose()?;
    Ok(archived.into_iter().chain(lines.into_iter().map(|(_, line)| line)).chain(rows).collect())
}

/// A partition in the storage: it may have to be verified again, or have a local copy that goes.
fn explain_archived(place: ArchivedLeaf, fate: Fate, doers: &Doers) -> Result<Explained> {
    let line = Explained {
        partition: place.name,
        status: Status::Archived.as_str(),
        label: place.label,
        next: None,
        when: None,
        reason: "it is in the storage".to_owned(),
        blocked_by: None,
        freed_by: Some(if place.by_rows { "restore_rows" } else { "reattach_partition" }.to_owned()),
    };
    let next = |step: &NextStep| Some(step.action.operation().to_owned());
    Ok(match fate {
        Fate::Settled => line,
        Fate::Due(step) => Explained {
            next: next(&step),
            when: Some(timestamp(doers.when)?),
            freed_by: Some(if doers.opens.is_some() { "the window".to_owned() } else { doers.names() }),
            reason: doers.reason(&step.reason),
            ..line
        },
        Fate::Later(step) => Explained {
            next: next(&step),
            when: Some(timestamp(step.at)?),
            reason: step.reason,
            freed_by: Some("time".to_owned()),
            ..line
        },
        Fate::Held(held) if held.freed_by == RUN_LIFECYCLE => {
            Explained { reason: doers.reason(&held.reason), freed_by: Some(doers.names()), ..line }
        }
        Fate::Held(held) => Explained { reason: held.reason, freed_by: Some(held.freed_by), ..line },
    })
}

/// A partition in the storage that will be deleted.
fn explain_end(place: ArchivedLeaf, doers: &Doers) -> Result<Explained> {
    let ArchivedLeaf { expires_at, delete_after, held_for, given_up, by_rows, .. } = place.clone();
    let line = explain_archived(place, Fate::Settled, doers)?;
    let Some(ends) = expires_at else { return Ok(line) };
    let (when, reason) = match delete_after {
        Some(at) if by_rows => (at, "objects of it have expired, and will be deleted"),
        Some(at) => (at, "it has expired, and all its objects will be deleted"),
        None if by_rows => (ends, "it will be announced that its oldest objects will be deleted: expire_after"),
        None => (ends, "it will be announced that its objects will be deleted: expire_after"),
    };
    if let Some(status) = given_up {
        return Ok(Explained {
            reason: format!("{reason}; but the job that was to do it is {status}"),
            freed_by: Some("retry_job".to_owned()),
            ..line
        });
    }
    let (reason, freed_by) = match held_for {
        Some(why) => (format!("{reason}; not while it is under a legal hold: {why}"), "legal_hold(partition, false)"),
        None => (reason.to_owned(), "time; another expire_after, or a legal hold, keeps it"),
    };
    Ok(Explained {
        next: Some("expire".to_owned()),
        when: Some(timestamp(when)?),
        reason,
        freed_by: Some(freed_by.to_owned()),
        ..line
    })
}

/// A table that is not partitioned: its rows leave it one by one.
fn explain_rows(table: &TablePolicy, doers: &Doers) -> Result<Explained> {
    let line = |reason: String| Explained {
        partition: table.name.clone(),
        status: Status::Live.as_str(),
        label: None,
        next: None,
        when: None,
        reason,
        blocked_by: None,
        freed_by: None,
    };
    Ok(match batch::due(table.source) {
        Ok(Some(due)) if due.some => Explained {
            next: Some("batch".to_owned()),
            when: Some(timestamp(doers.when)?),
            freed_by: Some(if doers.opens.is_some() { "the window".to_owned() } else { doers.names() }),
            ..line(doers.reason(&due.reason))
        },
        Ok(Some(due)) => {
            Explained { freed_by: Some("time".to_owned()), ..line(format!("of no row holds: {}", due.reason)) }
        }
        Ok(None) => Explained {
            freed_by: Some("set_archive_policy".to_owned()),
            ..line("no policy says at which age its rows are archived".to_owned())
        },
        Err(error) => Explained { freed_by: error.hint_text().map(str::to_owned), ..line(error.message().to_owned()) },
    })
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
    due_now(leaf, planned.action.operation(), &planned.reason, doers)
}

/// What is next for the rows of a label, or for its partition.
fn explain_step(leaf: &Leaf, step: &labels::Step, doers: &Doers) -> Result<Explained> {
    let Some(starts) = step.starts else { return due_now(leaf, step.operation, &step.reason, doers) };
    Ok(Explained {
        next: Some(step.to.as_str().to_owned()),
        when: Some(timestamp(starts)?),
        freed_by: Some("time".to_owned()),
        ..explained(leaf, step.reason.clone())
    })
}

fn due_now(leaf: &Leaf, operation: &str, reason: &str, doers: &Doers) -> Result<Explained> {
    Ok(Explained {
        next: Some(operation.to_owned()),
        when: Some(timestamp(doers.when)?),
        blocked_by: blockers(leaf)?,
        freed_by: Some(if doers.opens.is_some() { "the window".to_owned() } else { doers.names() }),
        ..explained(leaf, doers.reason(reason))
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

/// The steps of a lifecycle-partitioned table; none for others.
fn label_steps(table: &TablePolicy, outlook: &Outlook) -> Result<Vec<labels::Step>> {
    match outlook.kind {
        Kind::Lifecycle => labels::steps(table, outlook),
        _ => Ok(Vec::new()),
    }
}

fn explain_ageless(leaf: &Leaf, kind: Kind, doers: &Doers) -> Explained {
    if let Some(held) = &leaf.observed.held {
        let to_be_done = held.freed_by == RUN_LIFECYCLE;
        let freed_by = if to_be_done { doers.names() } else { held.freed_by.clone() };
        let reason = if to_be_done { doers.reason(&held.reason) } else { held.reason.clone() };
        return Explained { freed_by: Some(freed_by), ..explained(leaf, reason) };
    }
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
                format!("{status} from {}", day(until))
            }
            _ => waiting.reason.clone(),
        };
    }
    for step in label_steps(&table, &outlook).unwrap_or_default().iter().rev() {
        next[step.leaf] = match step.starts {
            Some(starts) => format!("{} from {}", step.to, day(starts)),
            None => format!("{} is due", step.operation),
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

fn day(micros: i64) -> String {
    instant(micros).split(' ').next().unwrap_or_default().to_owned()
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
pub(super) fn opening(table: &TablePolicy, now: i64) -> Result<i64> {
    let minutes = window::state(table.policy.maintenance_window.as_deref())?.opens_in();
    Ok(now + i64::from(minutes) * 60_000_000)
}

pub(super) fn timestamp(micros: i64) -> Result<TimestampWithTimeZone> {
    user::elevated(|| {
        spi::one(
            "SELECT timestamptz '2000-01-01 00:00+00' + make_interval(secs => $1::float8 / 1000000)",
            &[micros.into()],
            |row| row.need(1),
        )
    })
}

/// Refuses who may not SELECT from the table (42501).
pub(super) fn check_visible(source: pg_sys::Oid) -> Result<()> {
    if catalog::may_see(source)? {
        return Ok(());
    }
    let name = catalog::qualified_name(source)?;
    Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("permission denied for table {name}"))
        .hint("It takes SELECT on the table, or membership in archive_ext_reader."))
}

/// A table with its policy, or with an empty one.
pub(super) fn table(source: pg_sys::Oid) -> Result<TablePolicy> {
    kind(source)?;
    Ok(TablePolicy { source, name: catalog::qualified_name(source)?, policy: catalog::policy::of(source)? })
}
