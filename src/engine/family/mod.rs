//! Families: a partition and the partitions of its children, by foreign key and bounds, that are archived and come back
//! together (DESIGN: archive child before parent, reattach parent before child).

mod blockers;
mod members;
mod reattach;
mod register;
mod steps;
mod stubs;

pub use blockers::{Blocker, blockers};
pub use members::members;
pub use reattach::{reattach, refuse_without_parent};
pub use register::{add, discover, remove};
pub use steps::{begin, is_of_family, jobs_of, step};

use pgrx::pg_sys;

use super::archive::{self, Outcome};
use super::plan::{Options, Plan};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::partition::{check, swap};

/// Archives a partition with its children: all are exported and verified before any is swapped, children first. With
/// `keep_keys`, of members that other tables reference stubs stay.
///
/// Locks: as `archive_partition` for each member; at the end ACCESS EXCLUSIVE on all their tables at once until commit.
/// Errors: 55000 with what stands in the way, [`blockers`].
pub fn archive(partition: pg_sys::Oid, options: &Options, keep_keys: bool) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    let _bounded = swap::bounded();
    archive::refuse_second_swap(archive::OTHER_WAYS)?;
    let blockers = blockers(partition)?;
    refuse_blocked(partition, &blockers, keep_keys)?;
    archive::claim(partition)?;
    let stubs = stubs::of(partition, &blockers)?;
    let plans = prepare(partition, options, &stubs)?;
    if stubs.is_empty() {
        return archive::run(&plans);
    }
    let mut left = Vec::new();
    let mut outcomes = archive::run_after(&plans, || {
        left = stubs.iter().map(|member| stubs::archive(*member, options)).collect::<Result<_>>()?;
        Ok(())
    })?;
    outcomes.extend(left);
    Ok(outcomes)
}

/// What [`archive`] would do; the blockers are told as warnings.
pub fn dry_run(partition: pg_sys::Oid, options: &Options, keep_keys: bool) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    let blockers = blockers(partition)?;
    let stands_in_the_way = |blocker: &&Blocker| !(keep_keys && blocker.referenced.is_some());
    let mut blocked = false;
    for blocker in blockers.iter().filter(stands_in_the_way) {
        crate::pg::server_text::warning!("{}: {}", blocker.name, blocker.reason);
        blocked = true;
    }
    if blocked {
        return Ok(Vec::new());
    }
    let stubs = stubs::of(partition, &blockers)?;
    let mut outcomes = archive::announce(&prepare(partition, options, &stubs)?);
    for member in &stubs {
        outcomes.push(stubs::announce(*member, options)?);
    }
    Ok(outcomes)
}

/// The plans of the members that leave the table, all but `stubs`.
fn prepare(partition: pg_sys::Oid, options: &Options, stubs: &[pg_sys::Oid]) -> Result<Vec<Plan>> {
    let members = members(partition)?;
    let mut plans = Vec::with_capacity(members.len());
    for member in members.iter().filter(|member| !stubs.contains(member)) {
        plans.push(Plan::prepare_member(*member, &members, options, catalog::job::new_id()?)?);
    }
    let family = members::describe(&plans)?;
    plans.iter_mut().for_each(|plan| plan.family.clone_from(&family));
    Ok(plans)
}

/// Refuses with the list of everything that stands in the way (55000; one blocker keeps its own words).
fn refuse_blocked(partition: pg_sys::Oid, blockers: &[Blocker], keep_keys: bool) -> Result<()> {
    let blockers: Vec<_> = blockers.iter().filter(|blocker| !(keep_keys && blocker.referenced.is_some())).collect();
    let Some(first) = blockers.first() else { return Ok(()) };
    let name = catalog::qualified_name(partition)?;
    let lines: Vec<_> = blockers.iter().map(|blocker| format!("{}: {}.", blocker.name, blocker.reason)).collect();
    let error = Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("the family of \"{name}\" cannot be archived"),
    )
    .detail(lines.join(" "));
    Err(if blockers.len() == 1 {
        error.hint(first.remedy.clone())
    } else {
        error.hint(format!("SELECT * FROM family_blockers('{name}') lists them with their remedies."))
    })
}
