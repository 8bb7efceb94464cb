//! The function forms: every step in the caller's transaction.

use archive_core::lifecycle::Status;
use pgrx::{Uuid, pg_sys};

use super::{Request, Run, begin_merge, begin_split, step};
use crate::catalog;
use crate::engine::transition;
use crate::error::{Error, Result, SqlState};
use crate::partition::{discover, freeze};

/// Merges partitions that are read-only already; the merged one.
pub fn merge(partitions: &[pg_sys::Oid], name: Option<&str>) -> Result<Option<pg_sys::Oid>> {
    for partition in partitions {
        read_only(*partition, "merge_partitions_steps")?;
    }
    Ok(run(begin_merge(partitions, name)?)?.into_iter().next())
}

/// Splits a partition that is read-only already; the new ones in order.
pub fn split(partition: pg_sys::Oid, granularity: &str) -> Result<Vec<pg_sys::Oid>> {
    read_only(partition, "split_partition_steps")?;
    run(begin_split(partition, granularity)?)
}

/// A guard that this transaction put on would make writers wait for its end, and deadlock with the swap.
fn read_only(partition: pg_sys::Oid, procedure: &str) -> Result<()> {
    if catalog::partition::of_archive_relation(partition)?.is_some() {
        return Ok(());
    }
    transition::check_partition(partition, Status::Warm)?;
    if freeze::observe(partition)?.guards {
        return Ok(());
    }
    let name = catalog::qualified_name(partition)?;
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
        format!("\"{name}\" is written to: it is not WARM"),
    )
    .detail("In one transaction its writers would have to wait until the rows are copied.")
    .hint(format!("CALL {procedure}(…), which commits between its steps, or make it WARM before by set_lifecycle(…).")))
}

fn run(id: Uuid) -> Result<Vec<pg_sys::Oid>> {
    let unknown = || Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("job {id} does not exist"));
    let begun = Run::of(&catalog::job::find(id)?.ok_or_else(unknown)?)?;
    // Only tables that this transaction makes can get frozen rows, which older snapshots see at once.
    if !begun.done.tables.is_empty() {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("job {id} does this in steps, and some are done"),
        )
        .hint(format!("CALL {}(…) with the same arguments, or SELECT cancel_job('{id}') and begin again.", {
            if begun.merges { "merge_partitions_steps" } else { "split_partition_steps" }
        })));
    }
    loop {
        let job = catalog::job::find(id)?.ok_or_else(unknown)?;
        if !step(&job)?.0 {
            let request: Request = serde_json::from_value(job.request)?;
            let found = request.targets.iter().map(|target| discover::find_relation(&request.schema, &target.name));
            return Ok(found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect());
        }
    }
}
