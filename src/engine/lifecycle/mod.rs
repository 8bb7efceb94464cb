//! The scheduler: from policies to jobs, and from jobs to steps. The procedure `run_lifecycle` and the background worker
//! drive it alike: [`schedule`], then [`next_job`] until there is none, [`step`] until it says so, each in a transaction
//! of its own; [`failed`] after an error.

mod alert;
mod family;
mod hold;
mod labels;
mod outlook;
mod plan;
mod policy;
mod retry;
mod show;
pub mod steer;
mod window;

use pgrx::{Uuid, pg_sys};

use super::{batch, clock, copies, expiry, glacier, rewrite, steps, verification};
use crate::catalog;
use crate::catalog::policy::TablePolicy;
use crate::catalog::queue::NewJob;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::pg::user::{self, UserGuard};
use crate::pg::xact;
use archive_core::lifecycle::Kind;
use archive_core::policy::{Action, JobStatus, Planned};

pub use alert::standing;
pub use hold::worker_hold;
pub use outlook::Outlook;
pub use plan::plan;
pub use policy::{clear_policy, export, import, set_policy};
pub use retry::{code_of, failed, or_when_unlocked, sqlstate_of};
pub use show::{explain, map};
pub use steer::{cancel, pause, resume, retry};
pub use window::is_open;

/// Adds a job for everything that is due, for the policies of tables whose owner the current user may act as, and for local
/// copies of such tables without a policy; how many. A partition never has two unfinished jobs. A table that cannot be looked at is passed over with a warning.
pub fn schedule(source: Option<pg_sys::Oid>) -> Result<i32> {
    let mut added = 0;
    for table in catalog::policy::mine(source)? {
        added += schedule_if_free(&table, schedule_table)?;
    }
    // With or without a policy: what was asked for is carried out.
    for (table, name) in catalog::erasure::open_tables(source)? {
        added += i32::from(rewrite::queue_purge(table, &name)?);
    }
    for (table, name) in catalog::restore_request::unfollowed(source)? {
        added += i32::from(glacier::queue_follow(table, &name)?);
    }
    for table in catalog::archived::mine_without_policy(source)? {
        added += schedule_if_free(&table, verification::schedule)?;
    }
    Ok(added)
}

/// Schedules for a table, unless another session does.
fn schedule_if_free(table: &TablePolicy, schedule: impl Fn(&TablePolicy) -> Result<i32>) -> Result<i32> {
    if !catalog::queue::claim_table(table.source)? {
        return Ok(0);
    }
    match xact::subtransaction(|| schedule(table).or_raise()) {
        Ok(count) => Ok(count),
        Err(caught) => {
            crate::pg::server_text::warning!(
                "archive_ext could not find out what is due for {}: {}",
                table.name,
                caught.message
            );
            Ok(0)
        }
    }
}

fn schedule_table(table: &TablePolicy) -> Result<i32> {
    catalog::policy::note_check(table.source)?;
    if table.policy.idle_for.is_some() {
        catalog::observed::sample_access(table.source, clock::now()?)?;
    }
    let outlook = Outlook::of(table)?;
    if outlook.kind == Kind::Plain {
        return Ok(schedule_rows(table)?
            + verification::schedule(table)?
            + expiry::schedule(table)?
            + copies::schedule(table)?);
    }
    let mut added = 0;
    for planned in &outlook.core.due {
        added += i32::from(add_job(table, &outlook, planned)?);
    }
    if outlook.kind == Kind::Lifecycle {
        added += labels::schedule(table, &outlook)?;
    }
    Ok(added + verification::schedule(table)? + expiry::schedule(table)? + copies::schedule(table)?)
}

/// Jobs for a table whose rows are archived one by one: for its rows, and for the objects that they became.
fn schedule_rows(table: &TablePolicy) -> Result<i32> {
    Ok(schedule_batches(table)? + schedule_compaction(table)?)
}

fn schedule_compaction(table: &TablePolicy) -> Result<i32> {
    let Some(due) = rewrite::due(table.source)? else { return Ok(0) };
    let added = catalog::queue::add(&NewJob {
        operation: "compact",
        table: table.source,
        name: &table.name,
        partition: None,
        request: due.request,
        reason: &due.reason,
        storage: None,
    })?;
    Ok(added.into())
}

fn schedule_batches(table: &TablePolicy) -> Result<i32> {
    let Some(due) = batch::due(table.source)?.filter(|due| due.some) else { return Ok(0) };
    let added = catalog::queue::add(&NewJob {
        operation: "batch",
        table: table.source,
        name: &table.name,
        partition: None,
        request: due.request,
        reason: &due.reason,
        storage: table.policy.storage.as_deref(),
    })?;
    Ok(added.into())
}

fn add_job(table: &TablePolicy, outlook: &Outlook, planned: &Planned) -> Result<bool> {
    let leaves: Vec<_> = planned.partitions.iter().filter_map(|at| outlook.leaves.get(*at)).collect();
    let names: Vec<&str> = leaves.iter().map(|leaf| leaf.observed.name.as_str()).collect();
    let request = match &planned.action {
        Action::Merge(period) => serde_json::json!({ "partitions": names, "period": period.to_string() }),
        Action::Split(granularity) => {
            serde_json::json!({ "granularity": granularity.as_str() })
        }
        Action::Premake => serde_json::json!({ "ahead": table.policy.premake }),
        _ => serde_json::json!({}),
    };
    catalog::queue::add(&NewJob {
        operation: planned.action.operation(),
        table: table.source,
        name: names.first().copied().unwrap_or(&table.name),
        partition: leaves.first().map(|leaf| leaf.oid),
        request,
        reason: &planned.reason,
        storage: table.policy.storage.as_deref(),
    })
}

/// Takes up the next job that is due, of tables whose owner the current user may act as and whose maintenance window is
/// open. Jobs whose backend is gone are marked first. Two sessions never get the same job. The caller commits.
pub fn next_job(source: Option<pg_sys::Oid>) -> Result<Option<Uuid>> {
    for job in catalog::queue::interrupted(source)? {
        retry::interrupted(job)?;
    }
    let now = clock::now()?;
    let (mut open, mut closed) = (Vec::new(), Vec::new());
    for (table, window, enabled) in catalog::queue::waiting_tables(source, now)? {
        let is_open = enabled && window::state(window.as_deref())?.is_open();
        let tables = if is_open { &mut open } else { &mut closed };
        tables.push(table);
    }
    catalog::queue::claim(&open, &closed, now)
}

/// Does the next step of a job taken up by [`next_job`]; whether there are more, and the phase reached. A job that was
/// paused or cancelled meanwhile, or whose window closed, has no more for now. The caller commits.
pub fn step(id: Uuid) -> Result<(bool, String)> {
    let job = steer::mine(id)?;
    if job.status != JobStatus::Running {
        return Ok((false, job.status.as_str().to_owned()));
    }
    if !catalog::queue::is_at_any_time(&job.operation) && !window::state(job.window.as_deref())?.is_open() {
        catalog::queue::suspend(id)?;
        return Ok((false, "suspended".to_owned()));
    }
    if family::hand_over(id)? {
        return Ok((false, "handed to its family".to_owned()));
    }
    let (more, phase) = {
        // The table's triggers and expressions run as its owner, whoever lets the jobs run.
        let owner = job.table_owner.filter(|owner| *owner != user::current());
        let _role = owner.map(UserGuard::become_user);
        steps::step(id)?
    };
    if more {
        catalog::queue::got_on(id)?;
    } else {
        catalog::queue::settle(id)?;
    }
    Ok((more, phase))
}

fn find(id: Uuid) -> Result<catalog::queue::Steered> {
    catalog::queue::find(id)?
        .ok_or_else(|| Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("archive job {id} does not exist")))
}
