//! A family archived in committed steps: a job for each member, and the head's job, which is that of the parent
//! partition, drives them all and swaps them together. Each member's job keeps what its own steps left behind.

use archive_core::lifecycle::Step;
use archive_core::policy::JobStatus;
use pgrx::{Uuid, pg_sys};

use super::members::{self, members};
use crate::catalog;
use crate::catalog::job::Job;
use crate::engine::archive;
use crate::engine::plan::{Options, Plan};
use crate::engine::steps::{archived_by, before_swap, finished, gone, job, next_step, options, stopped};
use crate::error::{Error, Result, SqlState};
use crate::partition::{check, discover, locks};

/// Request of the head: the jobs of all members, its own last.
const MEMBERS: &str = "members";
/// Request of a member: the head's job.
const FAMILY: &str = "family";

/// The head's job, new or taken up again; `None` when the partition is archived already. Refuses as
/// [`super::archive`] does.
pub fn begin(partition: pg_sys::Oid, options: &Options) -> Result<Option<Uuid>> {
    let _bounded = crate::partition::swap::bounded();
    archive::claim(partition)?;
    if catalog::partition::of_archive_relation(partition)?.is_some() {
        return Ok(None);
    }
    check::archivable(partition)?;
    let members = members(partition)?;
    if let Some(head) = resumable(partition, &members)? {
        return Ok(Some(head));
    }
    super::refuse_blocked(partition, &super::blockers(partition)?, false)?;
    let plans = super::prepare(partition, options, &[])?;
    let Some(head) = plans.last().map(|plan| plan.job) else { return Ok(None) };
    for plan in &plans {
        locks::claim_partition(&plan.name())?;
        archive::start_job(plan, "planned")?;
        let request = if plan.job == head {
            let jobs: Vec<_> = plans.iter().map(|plan| plan.job.to_string()).collect();
            serde_json::json!({ MEMBERS: jobs })
        } else {
            serde_json::json!({ FAMILY: head.to_string() })
        };
        catalog::job::set_request(plan.job, &request)?;
    }
    Ok(Some(head))
}

/// An interrupted run of just these partitions; another one is ended, and its guards are taken over or lifted.
fn resumable(partition: pg_sys::Oid, members: &[pg_sys::Oid]) -> Result<Option<Uuid>> {
    let Some(head) = catalog::job::unfinished(partition)?.filter(|job| job.request.get(MEMBERS).is_some()) else {
        return Ok(None);
    };
    let jobs = member_jobs(&head)?;
    let all_run = jobs.iter().all(|job| job.status == "running");
    if all_run && jobs.iter().map(|job| job.partition).eq(members.iter().copied().map(Some)) {
        return Ok(Some(head.id));
    }
    crate::engine::steps::cancel(head.id, "failed", "interrupted; the family has other members now")?;
    Ok(None)
}

/// Whether the job is one of a family's.
pub fn is_of_family(job: &Job) -> bool {
    job.request.get(MEMBERS).is_some() || job.request.get(FAMILY).is_some()
}

/// The unfinished jobs that end together with `job`: those of its family, or itself.
pub fn jobs_of(asked: Job) -> Result<Vec<Job>> {
    let mut jobs = match head_of(&asked)? {
        Some(head) => member_jobs(&head)?,
        None => vec![asked],
    };
    jobs.retain(|job| job.status.parse().is_ok_and(JobStatus::is_unfinished));
    Ok(jobs)
}

fn head_of(member: &Job) -> Result<Option<Job>> {
    match member.request.get(FAMILY).and_then(serde_json::Value::as_str) {
        Some(head) => job(parse(head)?).map(Some),
        None if member.request.get(MEMBERS).is_some() => job(member.id).map(Some),
        None => Ok(None),
    }
}

fn member_jobs(head: &Job) -> Result<Vec<Job>> {
    let ids = head.request.get(MEMBERS).and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    ids.iter().map(|id| job(parse(id.as_str().unwrap_or_default())?)).collect()
}

fn parse(text: &str) -> Result<Uuid> {
    crate::pg::spi::one("SELECT $1::uuid", &[text.into()], |row| row.need(1))
}

/// The next step of the family, whichever of its jobs is asked: all are frozen, then exported and verified one after the
/// other, then swapped in one transaction. The caller commits.
pub fn step(asked: &Job) -> Result<(bool, String)> {
    let Some(head) = head_of(asked)? else { return Err(stopped(asked, "its family is gone")) };
    locks::claim_partition(&head.partition_name)?;
    let Some(partition) = head.partition else { return Err(gone(&head)) };
    if archived_by(&head, partition)? {
        return Ok((false, "done".to_owned()));
    }
    let jobs = member_jobs(&head)?;
    let mut steps = Vec::with_capacity(jobs.len());
    for job in &jobs {
        steps.push(observed(job)?);
    }
    let is_freeze = |step: &Step| matches!(step, Step::Freeze);
    let next = steps.iter().position(is_freeze).or_else(|| steps.iter().position(|step| *step != Step::Swap));
    match next.and_then(|at| jobs.get(at).zip(steps.get(at))) {
        Some((job, step)) => {
            let plans = plans(&jobs, Some(job.id))?;
            let Some(plan) = plans.iter().find(|plan| plan.job == job.id) else { return Err(gone(job)) };
            before_swap(*step, plan, job).map(|(_, phase)| (true, phase))
        }
        None => swap(&jobs),
    }
}

fn observed(job: &Job) -> Result<Step> {
    if job.status != "running" {
        return Err(stopped(job, &format!("its job is {}", job.status)));
    }
    locks::claim_partition(&job.partition_name)?;
    let Some(leaf) = job.partition.map(discover::leaf).transpose()?.flatten() else { return Err(gone(job)) };
    next_step(job, &leaf)
}

/// The plans of the members, or of `only` one of them.
fn plans(jobs: &[Job], only: Option<Uuid>) -> Result<Vec<Plan>> {
    let members: Vec<_> = jobs.iter().filter_map(|job| job.partition).collect();
    let mut plans = Vec::with_capacity(jobs.len());
    for job in jobs {
        let Some(partition) = job.partition else { return Err(gone(job)) };
        plans.push(Plan::prepare_member(partition, &members, &options(job)?, job.id)?);
    }
    let family = members::describe(&plans)?;
    plans.iter_mut().for_each(|plan| plan.family.clone_from(&family));
    plans.retain(|plan| only.is_none_or(|only| plan.job == only));
    Ok(plans)
}

fn swap(jobs: &[Job]) -> Result<(bool, String)> {
    let plans = plans(jobs, None)?;
    let mut verified = Vec::with_capacity(plans.len());
    for (plan, job) in plans.iter().zip(jobs) {
        verified.push((plan, finished(plan, job)?));
    }
    if verified.is_empty() {
        return Err(Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "the family has no members"));
    }
    archive::finish_all(verified)?;
    Ok((false, "done".to_owned()))
}
