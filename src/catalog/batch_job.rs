//! Jobs that archive rows of a table in batches.

use std::collections::BTreeMap;

use archive_core::lifecycle::Pass;
use pgrx::{JsonB, Uuid, pg_sys};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{Error, Result, SqlState};
use crate::pg::{spi, user};

/// What is archived by whom: a job with the same answers goes on.
#[derive(Debug)]
pub struct Batches<'a> {
    /// The table.
    pub table: pg_sys::Oid,
    /// Its qualified name.
    pub table_name: &'a str,
    /// Which rows, in which order.
    pub request: &'a Value,
    /// How; it may change from call to call.
    pub options: &'a Value,
    /// Whose rights its statements run with.
    pub started_by: &'a str,
    /// Storage of the objects.
    pub storage: &'a str,
    /// Rows older than this are archived; `None` for all that match.
    pub archive_before: Option<&'a str>,
    /// The job that goes on; `None` for any of these rows.
    pub job: Option<Uuid>,
}

/// The request of a job as its row holds it.
pub fn stored(mut request: Value, options: Value) -> Value {
    if let Some(members) = request.as_object_mut() {
        members.insert("options".to_owned(), options);
    }
    request
}

impl Batches<'_> {
    fn stored(&self) -> Value {
        stored(self.request.clone(), self.options.clone())
    }
}

/// An unfinished job.
#[derive(Debug)]
pub struct BatchJob {
    /// Its id.
    pub id: Uuid,
    /// Where it is.
    pub pass: Pass,
    /// Batches so far.
    pub batches: u32,
    /// Rows so far.
    pub rows: u64,
    /// Rows that it will have archived in the end, as estimated; `None` when nobody did.
    pub expected: Option<u64>,
    /// Seconds spent so far.
    pub seconds: Seconds,
    /// Rows of other tables that went with them so far, by table.
    pub others: BTreeMap<String, u64>,
}

/// Seconds that the phases of batches took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Seconds {
    /// Choosing the rows and locking them.
    pub select: f64,
    /// Reading them and encoding them.
    pub pack: f64,
    /// Writing the objects and the manifest.
    pub write: f64,
    /// Reading the objects back and comparing.
    pub verify: f64,
    /// Deleting the rows, marking them or taking their payload.
    pub delete: f64,
}

impl Seconds {
    /// Whole microseconds, for the catalog.
    fn rounded(self) -> Self {
        let round = |seconds: f64| (seconds * 1e6).round() / 1e6;
        Self {
            select: round(self.select),
            pack: round(self.pack),
            write: round(self.write),
            verify: round(self.verify),
            delete: round(self.delete),
        }
    }
}

/// The unfinished job of these batches, which this backend takes up with the new cutoff; or a new one.
///
/// Errors: 55000 when it is paused.
pub fn take_up(new: &Batches<'_>, id: Uuid) -> Result<BatchJob> {
    let found = user::elevated(|| {
        spi::rows(
            "WITH found AS (
               SELECT job_id, status FROM archive_ext.archival_job
               WHERE operation = 'batch' AND status IN ('pending', 'running', 'paused')
                 AND (job_id = $7 OR $7 IS NULL AND table_name = $1::oid AND request - 'options' = $2
                      AND started_by = $3::name)
               ORDER BY started_at LIMIT 1 FOR UPDATE)
             UPDATE archive_ext.archival_job j
             SET status = CASE j.status WHEN 'pending' THEN 'running' ELSE j.status END, why_stopped = NULL,
                 pid = pg_backend_pid(), request = $6, archive_before = $4::timestamptz, storage = $5::name,
                 pid_started = (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid())
             FROM found WHERE j.job_id = found.job_id
             RETURNING j.job_id, found.status, coalesce(j.progress, '{}'), j.rows_archived",
            &[
                new.table.into(),
                JsonB(new.request.clone()).into(),
                new.started_by.into(),
                new.archive_before.into(),
                new.storage.into(),
                JsonB(new.stored()).into(),
                new.job.into(),
            ],
            |row| Ok((row.need::<Uuid>(1)?, row.need::<String>(2)?, row.need::<JsonB>(3)?.0, row.need::<i64>(4)?)),
        )
    })?;
    match found.into_iter().next() {
        Some((id, status, _, _)) if status == "paused" => Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("archiving rows of \"{}\" is paused", new.table_name),
        )
        .hint(format!("SELECT resume_job('{id}') lets it go on."))),
        Some((id, _, progress, rows)) => {
            let pass = progress.get("pass").cloned().map(serde_json::from_value).transpose()?.unwrap_or_default();
            let batches = progress.get("batches").and_then(Value::as_u64).unwrap_or(0) as u32;
            let seconds = progress.get("seconds").cloned().map(serde_json::from_value).transpose()?.unwrap_or_default();
            let expected = progress.get("expected").and_then(Value::as_u64);
            let others = progress.get("others").cloned().map(serde_json::from_value).transpose()?.unwrap_or_default();
            Ok(BatchJob { id, pass, batches, rows: rows.unsigned_abs(), expected, seconds, others })
        }
        None => match new.job {
            Some(ended) => Err(Error::new(
                SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
                format!("archive job {ended} was ended meanwhile"),
            )
            .hint("See archive_ext.jobs; retry_job(job_id) begins it again.")),
            None => start(new, id),
        },
    }
}

fn start(new: &Batches<'_>, id: Uuid) -> Result<BatchJob> {
    user::elevated(|| {
        spi::execute(
            "INSERT INTO archive_ext.archival_job
               (job_id, operation, table_name, partition_name, phase, request, reason, started_by, storage, archive_before,
                pid, pid_started)
             VALUES ($1, 'batch', $2::oid, $3, 'batches', $4, $5, $6::name, $7::name, $8::timestamptz, pg_backend_pid(),
                     (SELECT a.backend_start FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()))",
            &[
                id.into(),
                new.table.into(),
                new.table_name.into(),
                JsonB(new.stored()).into(),
                format!("asked for by {}", new.started_by).into(),
                new.started_by.into(),
                new.storage.into(),
                new.archive_before.into(),
            ],
        )
    })?;
    let (pass, seconds) = (Pass::default(), Seconds::default());
    Ok(BatchJob { id, pass, batches: 0, rows: 0, expected: None, seconds, others: BTreeMap::new() })
}

/// Keeps what a batch did.
pub fn advance(job: &BatchJob) -> Result<()> {
    let progress = json!({
        "pass": job.pass, "batches": job.batches, "expected": job.expected, "seconds": job.seconds.rounded(),
        "others": job.others,
    });
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job
             SET rows_archived = $2, last_archived_id = coalesce($3, last_archived_id), progress = $4 WHERE job_id = $1",
            &[
                job.id.into(),
                (job.rows as i64).into(),
                (!job.pass.checkpoint.is_empty()).then(|| printed(&job.pass.checkpoint)).into(),
                JsonB(progress).into(),
            ],
        )
    })?;
    Ok(())
}

/// Notes why a run left a job that is not done.
pub fn note_stop(id: Uuid, why: &str) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.archival_job SET why_stopped = $2 WHERE job_id = $1 AND status = 'running'",
            &[id.into(), why.into()],
        )
    })?;
    Ok(())
}

/// A key for people: the value, or the values of a key of several columns.
pub fn printed(key: &[String]) -> String {
    match key {
        [one] => one.clone(),
        several => format!("({})", several.join(", ")),
    }
}
