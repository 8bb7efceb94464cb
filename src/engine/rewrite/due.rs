//! Whether merging small objects pays, by the settings.

use archive_core::lifecycle::{Threshold, next_group};
use pgrx::pg_sys;
use serde_json::Value;

use super::compact::is_readable;
use super::request::{self, Request};
use crate::catalog::{managed_table, rewrite, row_set};
use crate::error::Result;
use crate::export::ExportSource;
use crate::guc;
use crate::partition::discover;

/// Objects that are to be merged: what a job of operation `compact` needs as its request.
#[derive(Debug)]
pub struct Due {
    /// Why, in words for the DBA.
    pub reason: String,
    /// The job's request.
    pub request: Value,
}

/// Whether enough small objects of one month are in the archive of `source`.
pub fn due(source: pg_sys::Oid) -> Result<Option<Due>> {
    let Some(least) = guc::compact_objects().map(|least| least.max(2)) else { return Ok(None) };
    let small = rewrite::count_small(source, request::small_bytes())?;
    if small.unsigned_abs() < least || !has_group(source, least)? {
        return Ok(None);
    }
    let request = Request::of_table(source, i32::try_from(least).unwrap_or(i32::MAX));
    let reason = format!("{small} small objects, archive_ext.compact_objects is {least}");
    Ok(Some(Due { reason, request: request.stored() }))
}

fn has_group(source: pg_sys::Oid, least: u64) -> Result<bool> {
    let (Some(managed), Some(table)) = (managed_table::of_source(source)?, discover::leaf(source)?) else {
        return Ok(false);
    };
    let shape = ExportSource::peek(source, source)?;
    let time = request::time(&table, None)?;
    let field = shape.schema.fields.iter().find(|field| Some(&field.name) == time.as_ref()).map(|field| field.id);
    let threshold = Threshold { objects: usize::try_from(least).unwrap_or(usize::MAX), bytes: guc::object_bytes() };
    for set in row_set::all(managed.id)? {
        let small = rewrite::small_objects(set.id, field, request::small_bytes())?;
        if !next_group(&small, threshold).is_empty() && is_readable(&table, &shape, &set) {
            return Ok(true);
        }
    }
    Ok(false)
}
