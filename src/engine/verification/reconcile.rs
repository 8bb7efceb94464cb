//! A table's archive by samples: every object is looked for, some are read.

use std::collections::HashSet;

use pgrx::pg_sys;

use super::check::Checker;
use super::{Level, check_owner, report};
use crate::catalog;
use crate::catalog::archived;
use crate::error::{Error, Result, SqlState};

/// What a sample showed.
#[derive(Debug, Default)]
pub struct Reconciled {
    /// Objects of the table's archive.
    pub objects: u64,
    /// Objects that were read.
    pub sampled: u64,
    /// Rows in these.
    pub rows: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Objects with which something is wrong, manifests included.
    pub damaged: u64,
}

/// Asks the storage for every object of a table's archive, and reads `percent` of them, at least one, chosen by lot: whole objects,
/// since digests are of these. What is wrong is noted as by `verify`.
///
/// Errors: 22023 for a percentage that is none, 42501 for who may not act as the owner, 42704 for a table that has no archive.
pub fn reconcile(source: pg_sys::Oid, percent: f64) -> Result<Reconciled> {
    if !(0.0..=100.0).contains(&percent) {
        return Err(Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, "sample_percent must be between 0 and 100"));
    }
    let name = catalog::qualified_name(source)?;
    if catalog::managed_table::of_source(source)?.is_none() {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_OBJECT, format!("table {name} has no archive")));
    }
    check_owner(source)?;
    let chosen: HashSet<i64> = archived::sample(source, percent)?.into_iter().collect();
    let mut all = Reconciled::default();
    for subject in archived::of_table(source)? {
        let mut checker = Checker::open(&subject, None)?;
        let mut faults: Vec<_> = checker.manifests(true)?.into_iter().collect();
        for at in 0..checker.objects.len() {
            let Some(stored) = checker.objects.get(at) else { continue };
            let read = chosen.contains(&stored.id);
            all.objects += 1;
            if read {
                all.sampled += 1;
                all.rows += stored.object.rows;
                all.bytes += stored.object.bytes;
            }
            faults.extend(checker.object(at, read)?);
        }
        all.damaged += faults.len() as u64;
        if !faults.is_empty() {
            report(&subject, Level::Content, &faults)?;
        }
    }
    let details = serde_json::json!({
        "objects": all.objects, "sampled": all.sampled, "rows": all.rows, "bytes": all.bytes, "damaged": all.damaged,
    });
    catalog::event::record(source, &name, "reconciled", "ARCHIVED", None, details)?;
    Ok(all)
}
