//! The trigger that refuses writes to frozen partitions.

use pgrx::prelude::*;

#[pg_schema]
mod archive_ext {
    use pgrx::prelude::*;

    use crate::error::{Error, OrRaise};

    /// Refuses the write that fired it (55006), saying why and what to do.
    #[pg_trigger]
    fn refuse_write<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
        let reason = trigger.extra_args()?.into_iter().next().unwrap_or_default();
        let relation = trigger.relation()?.oid();
        Err::<(), Error>(super::refusal(relation, &reason)).or_raise();
        Ok(trigger.old().or(trigger.new()))
    }
}

use crate::catalog;
use crate::error::{Error, SqlState};
use crate::partition::discover;
use crate::partition::freeze::Reason;

/// Why a write to `relation` is refused: it is being archived, read-only, or a local copy.
fn refusal(relation: pg_sys::Oid, reason: &str) -> Error {
    let leaf = discover::leaf(relation).ok().flatten();
    let name = leaf.as_ref().map_or_else(|| relation.to_u32().to_string(), |leaf| leaf.qualified());
    let refused = |what: &str| Error::new(SqlState::ERRCODE_OBJECT_IN_USE, what);
    if leaf.is_none_or(|leaf| leaf.parent.is_none()) {
        return refused(&format!("cannot change \"{name}\": it is the local copy of an archived partition"))
            .hint("SELECT reattach_partition(…, writable => true) on the partition to change its rows.");
    }
    if reason == Reason::Rearranging.as_str() {
        return refused(&format!("cannot change partition \"{name}\": it is being merged or split"))
            .detail("Its rows are frozen while they are copied.")
            .hint("If no run is active (archive_ext.jobs), SELECT cancel_job(job_id) makes it writable.");
    }
    if reason == Reason::Warm.as_str() || (reason == Reason::Archiving.as_str() && is_at_rest(relation)) {
        return refused(&format!("cannot change partition \"{name}\": it is WARM, which is read-only"))
            .hint(format!("SELECT set_lifecycle('{name}', 'HOT') makes it writable again."));
    }
    if reason == Reason::ReadOnly.as_str() {
        return refused(&format!("cannot change partition \"{name}\": it was reattached read-only"))
            .hint(format!("SELECT set_lifecycle('{name}', 'HOT') makes it writable again."));
    }
    refused(&format!("cannot change partition \"{name}\": it is being archived"))
        .detail("Its rows are frozen so that the archive is exactly what the table holds.")
        .hint("If no run is active (archive_ext.jobs), SELECT cancel_job(job_id) makes it writable; once archived, reattach_partition(…, writable => true) does.")
}

/// Whether a partition that was WARM is so again: the run that guarded it for the archive is over.
fn is_at_rest(relation: pg_sys::Oid) -> bool {
    catalog::partition::is_read_only(relation).unwrap_or(false)
        && catalog::job::working_on(relation, None).is_ok_and(|job| job.is_none())
}
