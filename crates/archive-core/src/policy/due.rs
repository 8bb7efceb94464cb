//! What is due now: from a policy and its partitions to an ordered list of actions, each with a reason; and for the
//! partitions that wait, why and until when.

use super::{Age, Early, Policy, archived_before_merge};
use crate::lifecycle::{Granularity, Moment, Period, Status};
use std::collections::BTreeMap;

const MICROS_PER_SECOND: i64 = 1_000_000;
const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// What is known of when a partition was read or written last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Not after this time.
    At(i64),
    /// The statistics were reset, or not looked at for long enough.
    Unknown,
}

/// One partition that is in the database.
#[derive(Debug, Clone)]
pub struct Observed {
    /// Qualified name.
    pub name: String,
    /// Its status.
    pub status: Status,
    /// The bounds on the calendar, where they tell times.
    pub span: Option<(Moment, Moment)>,
    /// Upper bound as text, for messages.
    pub upper: Option<String>,
    /// When the upper bound passes.
    pub ends_at: Option<i64>,
    /// When it is older than `hot_after`.
    pub hot_at: Option<i64>,
    /// When it is older than `warm_after`.
    pub warm_at: Option<i64>,
    /// When it is older than `archive_after`.
    pub archive_at: Option<i64>,
    /// Heap, TOAST and indexes in bytes.
    pub bytes: u64,
    /// When it was read or written last.
    pub access: Access,
    /// It was brought back from the archive.
    pub reattached: bool,
    /// Until when it stays, having been brought back.
    pub keep_until: Option<i64>,
    /// A job has it, or had it and was given up or cancelled.
    pub held: Option<Held>,
}

/// A job keeps a partition from anything else.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// What the job is doing, or why it ended.
    pub reason: String,
    /// What ends that.
    pub freed_by: String,
}

/// What is known of the table beside its partitions.
#[derive(Debug, Clone, Default)]
pub struct Table {
    /// LIVE partitions that begin after now.
    pub coming: u32,
    /// A DEFAULT partition, and whether it holds rows.
    pub default_partition: Option<(String, bool)>,
    /// When rows of the DEFAULT partition were last found to have no place to go.
    pub drained_in_vain_at: Option<i64>,
    /// An unfinished job makes or drains partitions.
    pub busy: Option<String>,
}

/// Something to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make partitions ahead of time.
    Premake,
    /// Move the rows of the DEFAULT partition to partitions of their own.
    Drain,
    /// Becomes HOT.
    Hot,
    /// Becomes WARM.
    Warm,
    /// Several become one WARM partition of this period.
    Merge(Period),
    /// One becomes several of this length, which are archived then.
    Split(Granularity),
    /// Goes to the storage.
    Archive,
    /// Goes back to the storage: the time for which it was brought back is over.
    Rearchive,
    /// What is in the storage is read back a second time.
    Verify,
    /// The local copy of what is in the storage goes, once that was read back.
    DropLocal,
    /// What is in the storage moves to an archive class.
    Glacier,
}

impl Action {
    /// `archival_job.operation` of the job that does it.
    pub const fn operation(&self) -> &'static str {
        match self {
            Self::Premake => "premake",
            Self::Drain => "drain",
            Self::Hot => "hot",
            Self::Warm => "warm",
            Self::Merge(_) => "merge",
            Self::Split(_) => "split",
            Self::Archive | Self::Rearchive => "archive",
            Self::Verify => "verify",
            Self::DropLocal => "drop_local",
            Self::Glacier => "glacier",
        }
    }

    const fn rank(&self) -> u8 {
        match self {
            Self::Premake => 0,
            Self::Drain => 1,
            Self::Hot => 2,
            Self::Warm => 3,
            Self::Merge(_) => 4,
            Self::Split(_) => 5,
            Self::Archive => 6,
            Self::Rearchive => 7,
            Self::Verify => 8,
            Self::DropLocal => 9,
            Self::Glacier => 10,
        }
    }
}

/// An action that is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// What to do.
    pub action: Action,
    /// Which partitions, as indexes; none for what concerns the table.
    pub partitions: Vec<usize>,
    /// Why, for people.
    pub reason: String,
    /// Since when it is due.
    pub since: i64,
}

/// A partition for which nothing is due.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// Its index.
    pub partition: usize,
    /// What it will become.
    pub next: Option<Status>,
    /// Why it waits.
    pub reason: String,
    /// What ends the wait other than time.
    pub freed_by: Option<String>,
    /// Until when, if time is all it takes.
    pub until: Option<i64>,
}

/// What is due and what waits; every partition is in exactly one of the two.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outlook {
    /// What is due: what concerns the table, then the steps from HOT to the storage, the oldest partitions first.
    pub due: Vec<Planned>,
    /// The others.
    pub waiting: Vec<Waiting>,
}

/// The outlook at `now`.
pub fn due(policy: &Policy, table: &Table, partitions: &[Observed], now: i64) -> Outlook {
    let mut outlook = Outlook::default();
    if policy.is_enabled() {
        outlook.table(policy, table, now);
    }
    let mut decisions: Vec<Decision> = partitions.iter().map(|one| decide(policy, one, now)).collect();
    by_size(policy, partitions, &mut decisions, now);
    merge(policy, partitions, &mut decisions, &mut outlook);
    for (index, decision) in decisions.into_iter().enumerate() {
        match decision {
            Decision::Do { action, reason, since } => {
                outlook.due.push(Planned { action, partitions: vec![index], reason, since });
            }
            Decision::Wait(waiting) => outlook.waiting.push(Waiting { partition: index, ..waiting }),
            Decision::Merged => {}
        }
    }
    outlook.due.sort_by_key(|planned| {
        let oldest = planned.partitions.iter().filter_map(|index| partitions[*index].ends_at).min();
        (planned.action.rank(), oldest, planned.partitions.first().copied())
    });
    outlook
}

/// The outlook at `now` of a table whose partitions have no age: what was brought back goes again when its time is over.
pub fn brought_back(policy: &Policy, partitions: &[Observed], now: i64) -> Outlook {
    let mut outlook = Outlook::default();
    for (index, one) in partitions.iter().enumerate().filter(|(_, one)| one.reattached || one.keep_until.is_some()) {
        match decide(policy, one, now) {
            Decision::Do { action, reason, since } => {
                outlook.due.push(Planned { action, partitions: vec![index], reason, since });
            }
            Decision::Wait(waiting) => outlook.waiting.push(Waiting { partition: index, ..waiting }),
            Decision::Merged => {}
        }
    }
    outlook
}

enum Decision {
    Do {
        action: Action,
        reason: String,
        since: i64,
    },
    Wait(Waiting),
    /// Part of a merge that is due.
    Merged,
}

impl Decision {
    fn wait(next: Option<Status>, reason: impl Into<String>, until: Option<i64>) -> Self {
        Self::Wait(Waiting { partition: 0, next, reason: reason.into(), freed_by: None, until })
    }

    fn freed_by(self, what: impl Into<String>) -> Self {
        match self {
            Self::Wait(waiting) => Self::Wait(Waiting { freed_by: Some(what.into()), ..waiting }),
            other => other,
        }
    }
}

impl Outlook {
    fn table(&mut self, policy: &Policy, table: &Table, now: i64) {
        if table.busy.is_some() {
            return;
        }
        let wanted = policy.premake.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        if table.coming < wanted {
            let reason = format!("{} of {wanted} coming partitions exist", table.coming);
            self.due.push(Planned { action: Action::Premake, partitions: Vec::new(), reason, since: now });
        }
        let in_vain = table.drained_in_vain_at.is_some_and(|at| now - at < MICROS_PER_DAY);
        if let (Some((name, true)), true, false) = (&table.default_partition, wanted > 0, in_vain) {
            let reason = format!("DEFAULT partition {name} caught rows");
            self.due.push(Planned { action: Action::Drain, partitions: Vec::new(), reason, since: now });
        }
    }
}

/// What age says about one partition.
fn decide(policy: &Policy, one: &Observed, now: i64) -> Decision {
    if let Some(held) = &one.held {
        return Decision::wait(None, held.reason.clone(), None).freed_by(held.freed_by.clone());
    }
    if !policy.is_enabled() {
        return Decision::wait(None, "the policy is not enabled", None)
            .freed_by("set_archive_policy(…, enabled => true)");
    }
    if let Some(decision) = reattached(one, now) {
        return decision;
    }
    let Some(ends_at) = one.ends_at else {
        return Decision::wait(None, "its upper bound tells no time", None)
            .freed_by("set_lifecycle, archive_partition");
    };
    let steps = [
        (Status::Archived, one.archive_at, "archive_after", policy.archive_after),
        (Status::Warm, one.warm_at, "warm_after", policy.warm_after),
        (Status::Hot, one.hot_at, "hot_after", policy.hot_after),
    ];
    let reached = steps.iter().find(|(_, at, ..)| at.is_some_and(|at| at <= now && ends_at <= now));
    if let Some((status, Some(at), name, Some(age))) = reached
        && *status > one.status
    {
        return idle(policy, one, *status, now).unwrap_or_else(|| {
            let upper = one.upper.as_deref().unwrap_or_default();
            let reason = format!("upper bound {upper} is older than {name} {age}");
            Decision::Do { action: action_for(policy, one, *status), reason, since: *at }
        });
    }
    let coming = steps.iter().rev().find(|(status, at, ..)| *status > one.status && at.is_some_and(|at| at > now));
    match coming {
        Some((status, at, name, Some(age))) => {
            let upper = one.upper.as_deref().unwrap_or_default();
            Decision::wait(Some(*status), format!("upper bound {upper} is not yet older than {name} {age}"), *at)
        }
        _ => Decision::wait(None, "the policy has no further step for it", None)
            .freed_by("set_archive_policy, set_lifecycle or archive_partition"),
    }
}

/// A partition that was brought back stays as long as was asked for.
fn reattached(one: &Observed, now: i64) -> Option<Decision> {
    match one.keep_until {
        Some(until) if until <= now => Some(Decision::Do {
            action: Action::Rearchive,
            reason: format!("it was brought back until {}", instant(until)),
            since: until,
        }),
        Some(until) => Some(Decision::wait(Some(Status::Archived), "it was brought back for a while", Some(until))),
        None if one.reattached => Some(
            Decision::wait(None, "it was brought back without keep_for", None)
                .freed_by(format!("archive_partition('{}')", one.name)),
        ),
        None => None,
    }
}

/// Why a partition whose age says so must wait for its readers; `None` when it need not.
fn idle(policy: &Policy, one: &Observed, next: Status, now: i64) -> Option<Decision> {
    let age = policy.idle_for?;
    match one.access {
        Access::Unknown => {
            let reason = "nobody knows when it was read or written last";
            Some(
                Decision::wait(Some(next), reason, None)
                    .freed_by(format!("statistics that go back {age}, or idle_for cleared")),
            )
        }
        Access::At(at) => {
            let until = at.saturating_add(age.as_micros());
            let reason = format!("it was in use at {}, less than idle_for {age} ago", instant(at));
            (until > now).then(|| Decision::wait(Some(next), reason, Some(until)))
        }
    }
}

fn action_for(policy: &Policy, one: &Observed, status: Status) -> Action {
    match status {
        Status::Archived => splits_into(policy, one).map_or(Action::Archive, Action::Split),
        Status::Warm => Action::Warm,
        Status::Live | Status::Hot => Action::Hot,
    }
}

/// The length of the partitions that one is split into before it is archived; `None` where it is no longer than the
/// policy wants archived partitions to be.
pub fn splits_into(policy: &Policy, one: &Observed) -> Option<Granularity> {
    let finer = policy.archive_granularity.as_deref().and_then(Granularity::named)?;
    length(one).filter(|length| finer < *length).map(|_| finer)
}

fn length(one: &Observed) -> Option<Granularity> {
    one.span.and_then(|(lower, upper)| Granularity::between(lower, upper))
}

/// The oldest partitions leave until the rest fits.
fn by_size(policy: &Policy, partitions: &[Observed], decisions: &mut [Decision], now: i64) {
    let Some(limit) = policy.max_hot_bytes.and_then(|bytes| u64::try_from(bytes).ok()).filter(|_| policy.is_enabled())
    else {
        return;
    };
    let status = if policy.warm_after.is_some() || (policy.archive_after.is_none() && policy.storage.is_none()) {
        Status::Warm
    } else {
        Status::Archived
    };
    let leaves = |decision: &Decision| matches!(decision, Decision::Do { action, .. } if *action != Action::Hot);
    let hot: Vec<usize> =
        (0..partitions.len()).filter(|at| partitions[*at].status < Status::Warm && !leaves(&decisions[*at])).collect();
    let total: u64 = hot.iter().map(|at| partitions[*at].bytes).sum();
    let mut left = total;
    let mut oldest = hot;
    oldest.sort_by_key(|at| partitions[*at].ends_at.unwrap_or(i64::MAX));
    for at in oldest {
        let one = &partitions[at];
        let movable = one.held.is_none() && !one.reattached && one.ends_at.is_some_and(|ends_at| ends_at <= now);
        if left <= limit || !movable {
            continue;
        }
        decisions[at] = match idle(policy, one, status, now) {
            Some(waits) => waits,
            None => {
                left = left.saturating_sub(one.bytes);
                let reason = format!("LIVE and HOT partitions take {total} bytes, more than max_hot_bytes {limit}");
                Decision::Do { action: action_for(policy, one, status), reason, since: now }
            }
        };
    }
}

/// Partitions that become WARM where `warm_granularity` is coarser wait for each other and become one, unless `archive_after`
/// comes before that. Where it does not, but nobody ran the merge in time, the merge goes first.
fn merge(policy: &Policy, partitions: &[Observed], decisions: &mut [Decision], outlook: &mut Outlook) {
    let Some(coarse) = policy.warm_granularity.as_deref().and_then(Granularity::named) else { return };
    let Some(age) = policy.warm_after else { return };
    let mut groups: BTreeMap<Period, Vec<usize>> = BTreeMap::new();
    for (at, one) in partitions.iter().enumerate() {
        let (Some((lower, _)), Some(length)) = (one.span, length(one)) else { continue };
        let on_its_way = match &decisions[at] {
            Decision::Do { action: Action::Split(_) | Action::Rearchive, .. } | Decision::Merged => false,
            Decision::Do { action: Action::Archive, .. } => one.status < Status::Warm && !one.reattached,
            Decision::Do { .. } | Decision::Wait(_) => one.status <= Status::Warm && !one.reattached,
        };
        if on_its_way && length < coarse {
            groups.entry(Period::new(lower.on_calendar(length), coarse)).or_default().push(at);
        }
    }
    for (period, mut members) in groups {
        members.sort_by_key(|at| partitions[*at].span);
        let fine = members.iter().filter_map(|at| length(&partitions[*at])).min();
        if let Some(early) = fine.and_then(|fine| archived_before_merge(policy, fine)) {
            members.iter().for_each(|at| stays_apart(&mut decisions[*at], &early, period));
            continue;
        }
        for run in runs(partitions, &members) {
            merge_run(period, age, &run, partitions, decisions, outlook);
        }
    }
}

fn stays_apart(decision: &mut Decision, early: &Early, period: Period) {
    let (Decision::Do { action: Action::Warm, reason, .. }
    | Decision::Wait(Waiting { next: Some(Status::Warm), reason, .. })) = decision
    else {
        return;
    };
    reason.push_str(&format!(
        "; it stays apart, for archive_after {} takes the first {} of {period} before all of it is WARM",
        early.archive_after, early.fine
    ));
}

/// Members without gaps between them.
fn runs(partitions: &[Observed], members: &[usize]) -> Vec<Vec<usize>> {
    let bounds = |at: usize| partitions[at].span;
    let mut runs: Vec<Vec<usize>> = Vec::new();
    for &at in members {
        match runs.last_mut() {
            Some(run) if run.last().and_then(|last| bounds(*last)).map(|s| s.1) == bounds(at).map(|s| s.0) => {
                run.push(at)
            }
            _ => runs.push(vec![at]),
        }
    }
    runs
}

fn merge_run(
    period: Period,
    age: Age,
    run: &[usize],
    partitions: &[Observed],
    decisions: &mut [Decision],
    outlook: &mut Outlook,
) {
    let becomes_warm = |decision: &Decision| matches!(decision, Decision::Do { action: Action::Warm, .. });
    let leaves_hot =
        |decision: &Decision| matches!(decision, Decision::Do { action: Action::Warm | Action::Archive, .. });
    let ready = |at: usize, decisions: &[Decision]| {
        leaves_hot(&decisions[at]) || (partitions[at].status == Status::Warm && partitions[at].held.is_none())
    };
    if run.len() < 2 || !run.iter().any(|at| leaves_hot(&decisions[*at])) {
        return;
    }
    let last = run[run.len() - 1];
    // Bounds of another time zone are no midnights in UTC.
    let ends = |(lower, upper)| Granularity::between(lower, upper).map(|length| upper.on_calendar(length));
    let complete = partitions[last].span.and_then(ends) >= end_of(period);
    if run.iter().all(|at| ready(*at, decisions)) && complete {
        let upper = partitions[last].upper.as_deref().unwrap_or_default();
        let reason = format!("upper bound {upper} of the last of {period} is older than warm_after {age}");
        let since = partitions[last].warm_at.unwrap_or_default();
        run.iter().for_each(|at| decisions[*at] = Decision::Merged);
        outlook.due.push(Planned { action: Action::Merge(period), partitions: run.to_vec(), reason, since });
        return;
    }
    let waits_for = run.iter().rev().find(|at| !ready(**at, decisions)).copied();
    for at in run.iter().filter(|at| becomes_warm(&decisions[**at])).copied().collect::<Vec<_>>() {
        let (reason, until) = match waits_for {
            Some(other) => (
                format!("all of {period} become one WARM partition, and {} is not due yet", partitions[other].name),
                partitions[other].warm_at,
            ),
            None => (format!("all of {period} become one WARM partition, and its end has no partition yet"), None),
        };
        decisions[at] = Decision::wait(Some(Status::Warm), reason, until);
    }
}

/// Whether a period of the UTC calendar is over at `now`.
pub fn is_over(period: Period, now: i64) -> bool {
    let ends = end_of(period).zip(Moment::date(2000, 1, 1)).map(|(end, epoch)| end.seconds_since(epoch));
    ends.is_some_and(|seconds| seconds * MICROS_PER_SECOND <= now)
}

/// Where a period ends on the calendar.
fn end_of(period: Period) -> Option<Moment> {
    match period {
        Period::Year(year) => Moment::date(year + 1, 1, 1),
        Period::Quarter(year, 4) | Period::Month(year, 12) => Moment::date(year + 1, 1, 1),
        Period::Quarter(year, quarter) => Moment::date(year, quarter * 3 + 1, 1),
        Period::Month(year, month) => Moment::date(year, month + 1, 1),
        Period::Day(year, month, day) => Moment::date(year, month, day)?.plus(86_400),
        Period::Week(year, month, week) => Moment::date(year, month, (week - 1) * 7 + 1)?.plus(7 * 86_400),
        Period::Hour(year, month, day, hour) => Moment::new(year, month, day, hour, 0, 0)?.plus(3_600),
    }
}

/// A time as people read it.
pub fn instant(micros: i64) -> String {
    let Some(moment) = Moment::date(2000, 1, 1).and_then(|epoch| epoch.plus(micros.div_euclid(MICROS_PER_SECOND)))
    else {
        return micros.to_string();
    };
    let Moment { year, month, day, hour, minute, .. } = moment;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02} UTC")
}

#[cfg(test)]
mod tests;
