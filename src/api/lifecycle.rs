//! What the procedure `run_lifecycle` calls between its commits, and the verbs that steer jobs.

use pgrx::Uuid;
use pgrx::prelude::*;

use crate::engine::lifecycle;
use crate::error::OrRaise;
use crate::pg::lock::giving_way;
use crate::pg::xact;

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::iter::TableIterator;
    use pgrx::prelude::*;

    use crate::engine::lifecycle;
    use crate::error::{Error, OrRaise};
    use crate::pg::args::{Regclass, Text};
    use crate::pg::lock::giving_way;
    use crate::pg::xact;

    /// Adds a job for everything that is due; how many.
    #[pg_extern]
    fn schedule_jobs(source: Option<Regclass>) -> i32 {
        xact::refuse_read_only(c"schedule_jobs()");
        giving_way(|| lifecycle::schedule(source.map(|source| source.0))).or_raise()
    }

    /// Takes up the next job that is due; NULL when there is none.
    #[pg_extern]
    fn next_job(source: Option<Regclass>) -> Option<Uuid> {
        xact::refuse_read_only(c"next_job()");
        lifecycle::next_job(source.map(|source| source.0)).or_raise()
    }

    /// Does the next step of a job that was taken up; whether there are more, and the phase reached.
    #[pg_extern]
    fn lifecycle_step(job_id: Uuid) -> TableIterator<'static, (name!(more, bool), name!(phase, String))> {
        xact::refuse_read_only(c"lifecycle_step()");
        TableIterator::once(giving_way(|| lifecycle::step(job_id)).or_raise())
    }

    /// Whether a maintenance window is open now; without one it always is.
    #[pg_extern]
    fn window_open(maintenance_window: Option<Text>) -> bool {
        lifecycle::is_open(maintenance_window.as_ref().map(|text| text.0.as_str())).or_raise()
    }

    /// Puts a job back after an error of its step, or gives it up; whether it did.
    #[pg_extern]
    fn job_failed(job_id: Uuid, sqlstate: &str, message: Text, detail: Option<Text>) -> bool {
        xact::refuse_read_only(c"job_failed()");
        let error = Error::new(lifecycle::sqlstate_of(sqlstate), message.0);
        let error = match detail.filter(|detail| !detail.0.is_empty()) {
            Some(detail) => error.detail(detail.0),
            None => error,
        };
        lifecycle::failed(job_id, &error).or_raise()
    }
}

/// Ends a job and makes its partition writable again; whether it was unfinished.
#[pg_extern]
fn cancel_job(job_id: Uuid) -> bool {
    xact::refuse_read_only(c"cancel_job()");
    giving_way(|| lifecycle::cancel(job_id)).or_raise()
}

/// Stops a job after its present step, until it is resumed.
#[pg_extern]
fn pause_job(job_id: Uuid) {
    xact::refuse_read_only(c"pause_job()");
    lifecycle::pause(job_id).or_raise();
}

/// Lets a paused job go on.
#[pg_extern]
fn resume_job(job_id: Uuid) {
    xact::refuse_read_only(c"resume_job()");
    lifecycle::resume(job_id).or_raise();
}

/// Starts a job again that was given up or cancelled.
#[pg_extern]
fn retry_job(job_id: Uuid) {
    xact::refuse_read_only(c"retry_job()");
    lifecycle::retry(job_id).or_raise();
}
