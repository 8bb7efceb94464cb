//! What the procedure `archive_partition_steps` calls between its commits.

use pgrx::prelude::*;

#[pg_schema]
mod archive_ext {
    use pgrx::Uuid;
    use pgrx::datum::Interval;
    use pgrx::iter::TableIterator;
    use pgrx::prelude::*;

    use crate::api::archive::options;
    use crate::engine::steps;
    use crate::error::OrRaise;
    use crate::pg::args::{Name, Regclass};
    use crate::pg::lock::giving_way;
    use crate::pg::xact;

    /// The job that archives a partition, new or taken up again; NULL when it is archived already.
    #[pg_extern]
    fn begin_archive(
        partition: Regclass,
        storage: Option<Name>,
        verify: &str,
        drop_local: Option<Interval>,
        allow_subscribed: default!(bool, "false"),
    ) -> Option<Uuid> {
        xact::refuse_read_only(c"begin_archive()");
        options(storage, verify, drop_local, allow_subscribed)
            .and_then(|options| giving_way(|| steps::begin(partition.0, &options)))
            .or_raise()
    }

    /// Does a job's next step; whether there are more, and the phase reached.
    #[pg_extern]
    fn archive_step(job_id: Uuid) -> TableIterator<'static, (name!(more, bool), name!(phase, String))> {
        xact::refuse_read_only(c"archive_step()");
        TableIterator::once(giving_way(|| steps::step(job_id)).or_raise())
    }

    /// Ends a job after an error and lifts its guards.
    #[pg_extern]
    fn fail_job(job_id: Uuid, error: &str) -> bool {
        xact::refuse_read_only(c"fail_job()");
        giving_way(|| steps::fail(job_id, error)).or_raise()
    }
}
