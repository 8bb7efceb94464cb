//! `plan_archive`: what will happen, when, and what that costs and brings; nothing is touched.

use archive_core::lifecycle::{Kind, Status};
use archive_core::policy::{Action, Fate, NextStep, Planned, Prices, Waiting, splits_into};
use archive_core::store::ObjectLock;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::outlook::Outlook;
use super::show::{check_visible, opening, table, timestamp};
use super::{labels, policy};
use crate::catalog;
use crate::catalog::archived::Ageing;
use crate::catalog::observed::{ArchivedLeaf, Leaf};
use crate::catalog::policy::TablePolicy;
use crate::engine::{batch, rewrite, verification};
use crate::error::Result;
use crate::guc;

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
    /// Rows by the planner's statistics; of what is archived, as counted.
    pub rows: Option<i64>,
    /// Bytes it takes now.
    pub local_bytes: Option<i64>,
    /// Objects it will take, estimated from the table's earlier archives.
    pub objects: Option<i32>,
    /// Bytes of these.
    pub archived_bytes: Option<i64>,
    /// Bytes that become free in the database, once the local copy is dropped.
    pub bytes_freed: Option<i64>,
    /// What that saves each month, in the currency of `archive_ext.storage_price`.
    pub saved_per_month: Option<f64>,
    /// Locks, for people.
    pub locks: &'static str,
    /// Why.
    pub reason: String,
    /// What else there is to know.
    pub note: Option<String>,
}

/// What the policies of the caller's tables will do: what is due, then what time alone will make due, in its order.
pub fn plan(source: Option<pg_sys::Oid>) -> Result<Vec<Coming>> {
    let tables = match source {
        Some(source) => {
            check_visible(source)?;
            vec![table(source)?]
        }
        None => [catalog::policy::mine(None)?, catalog::archived::mine_without_policy(None)?].concat(),
    };
    let mut coming = Vec::new();
    for table in tables {
        let outlook = Outlook::of(&table)?;
        let storage = table.policy.storage.clone().or_else(guc::default_storage);
        let ratio = catalog::observed::compression_ratio(table.source)?;
        let prices = catalog::price::of_storage(storage.as_deref())?;
        let lock = policy::lock(&table.policy)?;
        coming.extend(Planner { table: &table, outlook: &outlook, ratio, prices, lock }.all()?);
    }
    Ok(coming)
}

/// What is known of one table.
struct Planner<'a> {
    table: &'a TablePolicy,
    outlook: &'a Outlook,
    /// How many times smaller its archive is.
    ratio: Option<f64>,
    prices: Prices,
    /// How the store locks what is written.
    lock: Option<ObjectLock>,
}

impl Planner<'_> {
    fn all(&self) -> Result<Vec<Coming>> {
        let opens = opening(self.table, self.outlook.now)?;
        let mut due = self.outlook.core.due.iter().map(|one| self.due(one, opens)).collect::<Result<Vec<_>>>()?;
        let waiting = self.outlook.core.waiting.iter();
        let mut later = waiting.filter_map(|one| self.later(one)).collect::<Result<Vec<_>>>()?;
        if self.outlook.kind == Kind::Lifecycle {
            let steps = labels::steps(self.table, self.outlook).unwrap_or_else(|error| {
                let name = &self.table.name;
                crate::pg::server_text::warning!("rows of {name} cannot move: {}", error.message());
                Vec::new()
            });
            for step in steps {
                let starts = timestamp(step.starts.unwrap_or(opens))?;
                let one = self.rows(&step, starts);
                if step.starts.is_none() { due.push(one) } else { later.push(one) }
            }
        }
        let rows = (self.outlook.kind == Kind::Plain).then(|| batch::due(self.table.source)).transpose();
        let rows = rows.unwrap_or_else(|error| {
            let name = &self.table.name;
            crate::pg::server_text::warning!("rows of {name} cannot be archived: {}", error.message());
            None
        });
        if let Some(rows) = rows.flatten().filter(|rows| rows.some) {
            due.push(self.of(&[], self.table.name.clone(), "batch", timestamp(opens)?, rows.reason));
        }
        let merge = (self.outlook.kind == Kind::Plain).then(|| rewrite::due(self.table.source)).transpose()?;
        if let Some(merge) = merge.flatten() {
            due.push(self.of(&[], self.table.name.clone(), "compact", timestamp(opens)?, merge.reason));
        }
        for (one, fate) in verification::fates(self.table, self.outlook.now)? {
            match fate {
                Fate::Due(step) => due.push(self.stored(&one, step, opens)?),
                Fate::Later(step) => {
                    let at = step.at;
                    later.push(self.stored(&one, step, at)?);
                }
                Fate::Held(_) | Fate::Settled => {}
            }
        }
        if self.table.policy.is_enabled() {
            for leaf in catalog::observed::archived(self.table.source)? {
                later.extend(self.archived(&leaf)?);
            }
        }
        later.sort_by_key(|one| one.starts.map(pg_sys::TimestampTz::from));
        due.extend(later);
        Ok(due)
    }

    fn due(&self, planned: &Planned, opens: i64) -> Result<Coming> {
        let leaves: Vec<_> = planned.partitions.iter().filter_map(|at| self.outlook.leaves.get(*at)).collect();
        let names: Vec<_> = leaves.iter().map(|leaf| leaf.observed.name.as_str()).collect();
        let subject = if names.is_empty() { self.table.name.clone() } else { names.join(", ") };
        let one = self.of(&leaves, subject, planned.action.operation(), timestamp(opens)?, planned.reason.clone());
        Ok(match &planned.action {
            Action::Split(granularity) => Coming { note: Some(then_archived(granularity.as_str())), ..one },
            _ => one,
        })
    }

    fn later(&self, waiting: &Waiting) -> Option<Result<Coming>> {
        let (leaf, next, until) = (self.outlook.leaves.get(waiting.partition)?, waiting.next?, waiting.until?);
        let pieces = splits_into(&self.table.policy, &leaf.observed)
            .filter(|_| next == Status::Archived && !leaf.observed.reattached);
        let action = match next {
            Status::Archived if pieces.is_some() => "split",
            Status::Archived => "archive",
            Status::Warm => "warm",
            Status::Hot | Status::Live => "hot",
        };
        let subject = leaf.observed.name.clone();
        let note = pieces.map(|granularity| then_archived(granularity.as_str()));
        let coming = |starts| Coming { note, ..self.of(&[leaf], subject, action, starts, waiting.reason.clone()) };
        Some(timestamp(until).map(coming))
    }

    /// Rows of a label, or the partition of one whose period is over.
    fn rows(&self, step: &labels::Step, starts: TimestampWithTimeZone) -> Coming {
        let leaf = self.outlook.leaves.get(step.leaf);
        let subject = leaf.map_or_else(|| self.table.name.clone(), |leaf| leaf.observed.name.clone());
        let leaves: Vec<_> = leaf.into_iter().collect();
        let one = self.of(&leaves, subject, step.operation, starts, step.reason.clone());
        match step.operation {
            // Some of the partition's rows, or all: who would count them?
            "rows" => Coming {
                rows: one.rows.filter(|_| step.whole),
                local_bytes: one.local_bytes.filter(|_| step.whole),
                note: Some(format!("its rows become {}", step.to)),
                ..one
            },
            _ => one,
        }
    }

    /// The second or third phase of an archived partition.
    fn stored(&self, one: &Ageing, step: NextStep, starts: i64) -> Result<Coming> {
        let action = step.action.operation();
        let freed = if step.action == Action::DropLocal { one.local_bytes } else { None };
        Ok(Coming {
            table: self.table.source,
            subject: one.name.clone(),
            action,
            starts: Some(timestamp(starts)?),
            rows: one.rows,
            local_bytes: one.local_bytes,
            objects: one.objects,
            archived_bytes: one.archived_bytes,
            bytes_freed: Some(freed.unwrap_or(0)),
            saved_per_month: self.saved_by_moving(one, step.action)?,
            locks: locks_of(action),
            reason: step.reason,
            note: None,
        })
    }

    fn saved_by_moving(&self, one: &Ageing, action: Action) -> Result<Option<f64>> {
        let (Action::Glacier, Some(storage), Some(bytes)) = (action, &one.storage, one.archived_bytes) else {
            return Ok(None);
        };
        let there = catalog::price::of_class(storage, self.table.policy.glacier_class())?;
        Ok(self.prices.saved_by_moving(bytes, there))
    }

    /// When the objects of an archived partition are deleted.
    fn archived(&self, leaf: &ArchivedLeaf) -> Result<Option<Coming>> {
        let Some((age, at)) = self.table.policy.expire_after.zip(leaf.expires_at) else { return Ok(None) };
        // Not before what was announced, and not before it was.
        let end = leaf.delete_after.unwrap_or(at + grace_micros()).max(at);
        let saved = match leaf.held_for {
            None => self.prices.saved_by_expiring(leaf.ending.bytes),
            Some(_) => None,
        };
        let what = if leaf.by_rows { "each object" } else { "it" };
        Ok(Some(Coming {
            table: self.table.source,
            subject: leaf.name.clone(),
            action: "expire",
            starts: Some(timestamp(end)?),
            rows: leaf.ending.rows,
            local_bytes: None,
            objects: leaf.ending.objects,
            archived_bytes: Some(leaf.ending.bytes),
            bytes_freed: Some(0),
            saved_per_month: saved,
            locks: locks_of("expire"),
            reason: format!("expire_after {age} counts from the time {what} was archived"),
            note: note_of(leaf),
        }))
    }

    fn of(
        &self,
        leaves: &[&Leaf],
        subject: String,
        action: &'static str,
        starts: TimestampWithTimeZone,
        reason: String,
    ) -> Coming {
        let to_storage = action == "archive";
        let known = !leaves.is_empty();
        let local = leaves.iter().map(|leaf| leaf.observed.bytes).sum::<u64>().cast_signed();
        let archived = self.ratio.filter(|_| to_storage && known).map(|ratio| (local as f64 / ratio) as i64);
        let object = i64::try_from(guc::object_bytes()).unwrap_or(i64::MAX).max(1);
        Coming {
            table: self.table.source,
            subject,
            action,
            starts: Some(starts),
            rows: leaves.iter().map(|leaf| leaf.rows).sum::<Option<i64>>().filter(|_| known),
            local_bytes: known.then_some(local),
            objects: archived.and_then(|bytes| i32::try_from(bytes / object + 1).ok()),
            archived_bytes: archived,
            bytes_freed: known.then_some(if to_storage { local } else { 0 }),
            saved_per_month: archived.and_then(|bytes| self.prices.saved_by_archiving(local, bytes)),
            locks: locks_of(action),
            reason,
            note: self.lock.filter(|_| matches!(action, "archive" | "batch" | "compact")).map(locked),
        }
    }
}

fn locked(lock: ObjectLock) -> String {
    format!("the storage locks the objects when they are written: {lock}")
}

fn then_archived(granularity: &str) -> String {
    format!("it becomes one partition for each {granularity}, which are archived then")
}

fn grace_micros() -> i64 {
    i64::from(guc::expire_grace_seconds()) * 1_000_000
}

fn note_of(leaf: &ArchivedLeaf) -> Option<String> {
    match &leaf.held_for {
        Some(reason) => Some(format!("not while it is under a legal hold: {reason}")),
        None if leaf.delete_after.is_some() => {
            Some("announced: every version of its objects will be deleted".to_owned())
        }
        None => Some(
            "it is announced first, and every version of its objects deleted after archive_ext.expire_grace".to_owned(),
        ),
    }
}

fn locks_of(operation: &str) -> &'static str {
    match operation {
        "premake" => "ACCESS EXCLUSIVE on the table for an instant",
        "drain" => {
            "no more such rows into the DEFAULT partition meanwhile; ACCESS EXCLUSIVE on the table for an instant"
        }
        "hot" => "SHARE UPDATE EXCLUSIVE on the partition; ACCESS EXCLUSIVE on it while it moves to another tablespace",
        "warm" => {
            "no writes to the partition from then on; ACCESS EXCLUSIVE on it while it moves to another tablespace"
        }
        "merge" | "split" => "no writes to the partitions meanwhile; ACCESS EXCLUSIVE on the table for an instant",
        "archive" => "no writes to the partition meanwhile; ACCESS EXCLUSIVE on the table for an instant",
        "rows" => {
            "row locks on the rows that move, batch by batch; SHARE UPDATE EXCLUSIVE on the table where a partition is made"
        }
        "compact" => "ACCESS SHARE on the table",
        "verify" => "ACCESS SHARE on the archived partition",
        "drop_local" => "no writes to the local copy meanwhile; ACCESS EXCLUSIVE on it for an instant",
        "batch" => "row locks on the rows of a batch until it is in the storage; ROW EXCLUSIVE on the table",
        _ => "none",
    }
}
