//! Members of a family that other tables reference: stubs of their rows stay, and foreign keys find these.

use std::collections::HashSet;

use pgrx::pg_sys;

use super::blockers::Blocker;
use super::members::{children, members};
use crate::catalog;
use crate::engine::archive::Outcome;
use crate::engine::batch::{self, Request, Wanted};
use crate::engine::plan::Options;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;

/// The members of which stubs must stay: those that rows of other tables reference, and those that stubs reference. Children
/// before parents.
pub fn of(partition: pg_sys::Oid, blockers: &[Blocker]) -> Result<Vec<pg_sys::Oid>> {
    let mut stubs: HashSet<_> = blockers.iter().filter_map(|blocker| blocker.referenced).collect();
    if stubs.is_empty() {
        return Ok(Vec::new());
    }
    let family = members(partition)?;
    for member in &family {
        if children(*member)?.iter().any(|child| stubs.contains(child)) {
            stubs.insert(*member);
        }
    }
    Ok(family.into_iter().filter(|member| stubs.contains(member)).collect())
}

fn request(member: pg_sys::Oid, options: &Options) -> Request {
    Request { storage: options.storage.clone(), wanted: Wanted::stubs(), ..Request::of_clause(member, None) }
}

/// Archives the rows of a member, of which stubs stay.
///
/// Errors: those of `archive_table_batch`; 42703 with the columns that stubs need.
pub fn archive(member: pg_sys::Oid, options: &Options) -> Result<Outcome> {
    let (job, rows) = batch::archive_all(&request(member, options))?;
    let gone = || Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the partition was dropped meanwhile");
    let leaf = discover::leaf(member)?.ok_or_else(gone)?;
    let set = catalog::row_set::of_partition(member)?;
    Ok(Outcome {
        job,
        archived: set.as_ref().map_or(member, |set| set.foreign_table),
        rows: Some(rows),
        local_bytes: leaf.total_bytes,
        archived_bytes: set.as_ref().map(|set| set.bytes),
        objects: set.as_ref().map(|set| set.objects),
        location: batch::location(&request(member, options))?,
        local_copy_until: None,
    })
}

/// What [`archive`] would do.
pub fn announce(member: pg_sys::Oid, options: &Options) -> Result<Outcome> {
    let request = request(member, options);
    let location = batch::location(&request)?;
    batch::dry_run(&request)?;
    let gone = || Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the partition was dropped meanwhile");
    let leaf = discover::leaf(member)?.ok_or_else(gone)?;
    crate::pg::server_text::notice!("rows of {} would leave stubs, which other tables reference", leaf.qualified());
    Ok(Outcome {
        job: None,
        archived: member,
        rows: leaf.estimated_rows,
        local_bytes: leaf.total_bytes,
        archived_bytes: None,
        objects: None,
        location,
        local_copy_until: None,
    })
}
