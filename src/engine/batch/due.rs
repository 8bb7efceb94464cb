//! Whether rows of a table that is not partitioned are due, by its policy.

use pgrx::pg_sys;
use pgrx::spi::{quote_identifier, quote_literal};
use serde_json::Value;

use super::columns;
use super::job;
use super::plan::{Locked, Referenced, Request};
use super::references::{self, Reference};
use crate::catalog::{batch_job, remnant, row_policy};
use crate::engine::clock;
use crate::error::Result;
use crate::partition::discover::{self, Leaf};
use crate::pg::{spi, user};
use archive_core::lifecycle::Status;

/// Rows that are due: what a job of operation `batch` needs as its request.
#[derive(Debug)]
pub struct Due {
    /// Why, in words for the DBA.
    pub reason: String,
    /// The job's request.
    pub request: Value,
    /// Whether there are such rows now.
    pub some: bool,
}

/// What is due in `source` now, by its policy and the clock; `None` without `archive_after`. Locks: ACCESS SHARE on the table,
/// which is looked at for one row.
pub fn due(source: pg_sys::Oid) -> Result<Option<Due>> {
    let Some(table) = discover::leaf(source)? else { return Ok(None) };
    let Some(before) = row_policy::due_before(source, Status::Archived, clock::now()?)? else { return Ok(None) };
    let time = columns::time(&table, None)?;
    let key = columns::key(&table, None)?;
    let request = Request {
        archive_before: Some(before.clone()),
        locked: Locked::Skip,
        referenced: Referenced::Skip,
        ..Request::of_clause(source, None)
    };
    let request = batch_job::stored(job::identity(&request, Some(&time), &key)?, job::options(&request));
    let some = exists(&table, &time, &before)?;
    Ok(Some(Due { reason: format!("{time} is before {before}, now less archive_after"), request, some }))
}

/// Whether a row is due that nothing references. Run as the owner, whose casts and row security the batch itself would meet.
fn exists(table: &Leaf, time: &str, before: &str) -> Result<bool> {
    let mut conditions =
        vec![format!("{} < {}::pg_catalog.timestamptz", quote_identifier(time), quote_literal(before))];
    conditions.extend(references::to(table)?.iter().map(Reference::absent));
    conditions.extend(remnant::of(table.oid)?.map(|marker| marker.live(&quote_identifier(&table.name))));
    let query = format!("SELECT EXISTS (SELECT FROM {} WHERE {})", table.qualified(), conditions.join(" AND "));
    user::as_user(table.owner, || spi::one(&query, &[], |row| row.need(1)))
}
