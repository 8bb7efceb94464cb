//! The trigger that refuses writes to frozen partitions.

use pgrx::prelude::*;

#[pg_schema]
mod archive_ext {
    use pgrx::prelude::*;

    use crate::error::{Error, OrRaise};
    use crate::partition::freeze::Reason;
    use crate::partition::remnant_guard;

    /// Refuses the write that fired it (55006), saying why and what to do.
    #[pg_trigger]
    fn refuse_write<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
        let reason = trigger.extra_args()?.into_iter().next().unwrap_or_default();
        let relation = trigger.relation()?.oid();
        // Rows of a partition at rest leave stubs.
        if [Reason::Warm, Reason::ReadOnly].iter().any(|rest| rest.as_str() == reason)
            && remnant_guard::lifted(relation)
        {
            return Ok(trigger.new().or(trigger.old()));
        }
        Err::<(), Error>(super::refusal(relation, &reason)).or_raise();
        Ok(trigger.old().or(trigger.new()))
    }

    /// Refuses to change what stays of an archived row, or to make a row that would be taken for it (55006).
    #[pg_trigger]
    fn refuse_remnant<'a>(
        trigger: &'a PgTrigger<'a>,
    ) -> Result<Option<PgHeapTuple<'a, impl WhoAllocated>>, PgTriggerError> {
        let relation = trigger.relation()?.oid();
        if !remnant_guard::lifted(relation) {
            let change = trigger.extra_args()?.first().is_some_and(|argument| argument == "change");
            Err::<(), Error>(super::remnant_refusal(relation, change)).or_raise();
        }
        Ok(trigger.new())
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

/// Why a change of a remnant is refused, or an INSERT of a row that would be taken for one.
fn remnant_refusal(relation: pg_sys::Oid, changes: bool) -> Error {
    let leaf = discover::leaf(relation).ok().flatten();
    let table = leaf.as_ref().and_then(|leaf| leaf.root).unwrap_or(relation);
    let name = catalog::qualified_name(table).unwrap_or_else(|_| relation.to_u32().to_string());
    let marker = catalog::remnant::of(table).ok().flatten().map(|marker| marker.column).unwrap_or_default();
    if !changes {
        return Error::new(
            SqlState::ERRCODE_OBJECT_IN_USE,
            format!("only archiving sets \"{marker}\" of a row of \"{name}\""),
        )
        .detail("It says that the row is in the archive: who reads the archive would not see a row that is not.");
    }
    Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("cannot change a row of \"{name}\" that is in the archive"))
        .detail(format!("\"{marker}\" says so. The change would not be seen where the archive is read."))
        .hint(format!("SELECT restore_rows('{name}', '…') brings it back, to be changed and archived again."))
}

/// Whether a partition that was WARM is so again: the run that guarded it for the archive is over.
fn is_at_rest(relation: pg_sys::Oid) -> bool {
    catalog::partition::is_read_only(relation).unwrap_or(false)
        && catalog::job::working_on(relation, None).is_ok_and(|job| job.is_none())
}
