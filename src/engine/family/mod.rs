//! Families: a partition and the partitions of its children, by foreign key and bounds, that are archived and come back
//! together (DESIGN: archive child before parent, reattach parent before child).

mod blockers;
mod members;
mod reattach;
mod register;
mod steps;

pub use blockers::blockers;
pub use members::members;
pub use reattach::{reattach, refuse_without_parent};
pub use register::{add, discover, remove};
pub use steps::{begin, is_of_family, jobs_of, step};

use pgrx::pg_sys;

use super::archive::{self, Outcome};
use super::plan::{Options, Plan};
use crate::catalog;
use crate::error::{Error, Result, SqlState};
use crate::partition::check;

/// Archives a partition with its children: all are exported and verified before any is swapped, children first.
///
/// Locks: as `archive_partition` for each member; at the end ACCESS EXCLUSIVE on all their tables at once until commit.
/// Errors: 55000 with what stands in the way, [`blockers`].
pub fn archive(partition: pg_sys::Oid, options: &Options) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    archive::refuse_second_swap()?;
    refuse_blocked(partition)?;
    archive::run(&prepare(partition, options)?)
}

/// What [`archive`] would do; the blockers are told as warnings.
pub fn dry_run(partition: pg_sys::Oid, options: &Options) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    let blockers = blockers(partition)?;
    for blocker in &blockers {
        crate::pg::server_text::warning!("{}: {}", blocker.name, blocker.reason);
    }
    if blockers.is_empty() { Ok(archive::announce(&prepare(partition, options)?)) } else { Ok(Vec::new()) }
}

/// Refuses to keep the keys of archived rows (0A000).
pub fn refuse_key_stubs(keep_keys: bool) -> Result<()> {
    if !keep_keys {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, "the keys of archived rows cannot be kept")
        .detail(
            "A foreign key is satisfied by rows of the referenced table only. Rows that hold nothing but their keys \
             would be read there besides the archived ones.",
        )
        .hint("Make the referencing table a child with add_child_table(…), or drop its foreign key."))
}

fn prepare(partition: pg_sys::Oid, options: &Options) -> Result<Vec<Plan>> {
    let members = members(partition)?;
    let mut plans = Vec::with_capacity(members.len());
    for member in &members {
        plans.push(Plan::prepare_member(*member, &members, options, catalog::job::new_id()?)?);
    }
    let family = members::describe(&plans)?;
    plans.iter_mut().for_each(|plan| plan.family.clone_from(&family));
    Ok(plans)
}

/// Refuses with the list of everything that stands in the way (55000; one blocker keeps its own words).
fn refuse_blocked(partition: pg_sys::Oid) -> Result<()> {
    let blockers = blockers(partition)?;
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
