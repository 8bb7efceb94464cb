//! The end of rows that were archived one by one: objects of a row set leave the archive by a manifest that names nothing in their place.
//!
//! Others may read them by older snapshots, and an import takes what the last transaction took out of a row set for doubtful. So they are
//! deleted when another manifest has made it certain, and nobody's snapshot is older than that.

use archive_core::store::BlockingStore;
use serde_json::json;

use super::due;
use crate::catalog::expiry::Remaining;
use crate::catalog::job::Job;
use crate::catalog::{self, queue, rewrite as objects, row_expiry, row_set, storage};
use crate::engine::plan::job_hex;
use crate::engine::{clock, copies, rewrite, steps, storage as opened};
use crate::error::Result;
use crate::partition::discover;

/// Seconds until it is looked again whether somebody still reads them.
const LOOK: f64 = 30.0;

/// Takes the objects that have expired out of row set `id`. Whatever kept them from expiring meanwhile ends the job.
pub(super) fn withdraw(job: &Job, id: i64) -> Result<(bool, String)> {
    let Some(set) = row_set::lock(id)? else { return steps::done(job.id, 0) };
    // The lock may have been waited for. Who sets a hold waits for the name of the row set, which is ours.
    let Some(one) = due(job, id)? else { return steps::done(job.id, 0) };
    let ids = row_expiry::objects(id, clock::now()?)?;
    if ids.is_empty() {
        return steps::done(job.id, 0);
    }
    let store = opened::open_to_rewrite(&set.storage, job.table, discover::owner(job.table)?)?;
    storage::require_ours(&set.storage, &store)?;
    let gone = objects::objects(&set, &ids)?;
    row_expiry::forget_months(job.table, &ids, rewrite::time_field(job.table)?)?;
    let certificate = row_expiry::withdraw(id, &store.location().to_string(), &gone)?;
    let rows: u64 = gone.iter().map(|gone| gone.object.rows).sum();
    let details = json!({ "reason": one.reason, "certificate": certificate, "objects": gone.len(), "rows": rows });
    rewrite::take_out(id, &store, &discover::schema_and_name(job.table)?, (job.id, 1), gone)?;
    catalog::event::record(job.table, &one.name, "expired", "ARCHIVED", Some(job.id), details)?;
    catalog::job::set_request(job.id, &json!({ "certificate": certificate, "rows": true }))?;
    catalog::job::advance(job.id, "withdrawn", &json!({}))?;
    Ok((true, "withdrawn".to_owned()))
}

/// Whether a job that has a certificate is about objects of a row set.
pub(super) fn is_about(job: &Job) -> bool {
    job.request.get("rows").and_then(serde_json::Value::as_bool) == Some(true)
}

/// What comes before the objects of row set `set` may go; `None` when nothing does any more.
pub(super) fn prepare(
    job: &Job,
    set: i64,
    certificate: i64,
    remaining: &Remaining,
    store: &BlockingStore,
) -> Result<Option<(bool, String)>> {
    if !remaining.is_settled {
        rewrite::settle(&job_hex(job.id), job.table, set)?;
        row_expiry::set_settled(certificate, set)?;
        catalog::job::advance(job.id, "settled", &json!({}))?;
        return Ok(Some((true, "settled".to_owned())));
    }
    if remaining.is_read {
        queue::wait(job.id, LOOK)?;
        return Ok(Some((false, "waiting".to_owned())));
    }
    // An import from the second storage must know it, too.
    copies::manifests(store, &remaining.storage, set, &remaining.keys, discover::owner(job.table)?)?;
    Ok(None)
}
