//! Partitions of RANGE and LIST tables as they age: from LIVE to HOT, WARM and ARCHIVED, and back.
//!
//! A partition as a whole has a status; what is partitioned itself has that of its leaves.

mod calendar;
mod job;
mod place;
pub mod premake;
pub mod rearrange;
pub mod registry;

use archive_core::lifecycle::{Granularity, Kind, Status, range_bounds, transition};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::spi::quote_qualified_identifier;
use pgrx::{Uuid, pg_sys};

use super::period::{self, Span};
use super::plan::{Options, Verify};
use super::{archive, managed, reattach, rows};
use crate::catalog;
use crate::catalog::event::Transition;
use crate::catalog::partition::{Known, Local};
use crate::catalog::policy::Policy;
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::{ageing, check, freeze, locks, subscribed, swap};
use crate::pg::relation::LockMode;
use crate::pg::{user, xact};
use crate::worker::settler;

pub use job::{abandon, step};
pub use premake::{drain_default, premake};

/// The label of `status` at a time, on the calendar of the session's time zone; without a granularity the bare status.
pub fn label(status: Status, granularity: Option<&str>, at: TimestampWithTimeZone) -> Result<String> {
    let Some(granularity) = granularity.filter(|text| !text.eq_ignore_ascii_case("bare")) else {
        return Ok(period::label(status, None));
    };
    let granularity: Granularity = granularity.parse()?;
    let Some(moment) = period::moment_of(at, &period::session_zone()?)? else {
        return Err(Error::new(SqlState::ERRCODE_DATETIME_FIELD_OVERFLOW, "labels exist for the years 1 to 9999 only"));
    };
    Ok(period::label(status, Some(Span::at(moment.begin_of(granularity), granularity))))
}

/// One leaf on its way.
struct Member {
    leaf: Leaf,
    from: Status,
}

/// Gives a partition, or all leaves below it, a status; the new label.
///
/// HOT and WARM take the tablespace and settings of the policy. WARM is read-only, and frozen by a worker once the caller
/// has committed. ARCHIVED exports, verifies and swaps in this transaction; from there the partition is reattached.
///
/// Locks: ACCESS EXCLUSIVE on the partition to the end of the transaction, while it is moved to another tablespace or its guards
/// change; those of the archive for ARCHIVED. Errors: 55000 for what the lifecycle does not allow, with what it does; 42501 for
/// callers who do not own the table; 55006 while another run works on the partition; 55P03 for locks.
pub fn set_status(
    partition: pg_sys::Oid,
    to: Status,
    removal_time: Option<TimestampWithTimeZone>,
    reason: &str,
    job: Option<Uuid>,
) -> Result<String> {
    let _bounded = swap::bounded();
    if let Some(known) = catalog::partition::of_archive_relation(partition)? {
        return revive(&known, to, removal_time, reason);
    }
    if let Some(label) = rows::relabel_partition(partition, to, removal_time, reason)? {
        return Ok(label);
    }
    let named = check_partition(partition, to)?;
    let root = named.root.unwrap_or(partition);
    let policy = catalog::policy::of(root)?;
    let members = members(&named, to, job)?;
    let changing: Vec<_> = members.iter().filter(|member| member.from != to).collect();
    if to == Status::Archived {
        return archive(root, &named, &changing, removal_time, reason);
    }
    let mut done = changing.len();
    for member in &members {
        locks::claim_partition(&member.leaf.qualified())?;
    }
    if to == Status::Warm {
        // Guards take less, but a lock that grows would deadlock with who reads the partition and then writes to it.
        let mut exclusive = Vec::new();
        for member in &members {
            if member.from != to || !catalog::partition::is_read_only(member.leaf.oid)? {
                exclusive.push((member.leaf.oid, LockMode::AccessExclusive));
            }
        }
        locks::acquire_all(&exclusive)?;
    }
    for member in &members {
        apply(&member.leaf, to, member.from != to, &policy)?;
        done += usize::from(member.from == to && to == Status::Warm && refuse_corrections(&member.leaf)?);
    }
    if done == 0 {
        crate::pg::server_text::notice!("{} is {to} already", named.qualified());
    }
    record(root, &members, to, &policy, removal_time, reason, job)?;
    if to == Status::Warm && done > 0 {
        settler::after_commit(&named.qualified());
    }
    Ok(period::label(to, span_of(&named, to, &policy)?))
}

/// The first of the two steps of a job that makes a partition WARM: from its commit on writers are refused at once, while
/// the second moves it and sees to the rest.
pub fn refuse_writes(partition: pg_sys::Oid, job: Uuid) -> Result<()> {
    let named = check_partition(partition, Status::Warm)?;
    let leaves: Vec<_> = members(&named, Status::Warm, Some(job))?.into_iter().map(|member| member.leaf).collect();
    for leaf in &leaves {
        locks::claim_partition(&leaf.qualified())?;
    }
    freeze::lock_unguarded(&leaves)?;
    leaves.iter().try_for_each(guard)
}

/// The relation, if partitions of its kind can have status `to`.
fn check_partition(partition: pg_sys::Oid, to: Status) -> Result<Leaf> {
    let Some(named) = discover::leaf(partition)? else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("relation with OID {} does not exist", partition.to_u32()),
        ));
    };
    let name = named.qualified();
    check::not_static(named.root.unwrap_or(partition))?;
    let wrong = |what: &str| Error::new(SqlState::ERRCODE_WRONG_OBJECT_TYPE, format!("\"{name}\" {what}"));
    match (named.kind, named.persistence) {
        (_, 't') => return Err(wrong("is a temporary table").hint("Temporary tables end with their session.")),
        ('r' | 'p', _) => {}
        ('f', _) => {
            return Err(wrong("is a foreign table").hint("Only partitions stored in this database have a status."));
        }
        _ => return Err(wrong("is not a table").hint("Name a partition of a partitioned table.")),
    }
    let (Some(parent), Some(bounds)) = (named.parent, named.bounds.as_deref()) else {
        let hint = match named.kind {
            'p' => "Name one of its partitions; set_archive_policy(…) is for the table as a whole.",
            _ => "Name a partition of a table that is partitioned by RANGE or LIST.",
        };
        return Err(wrong("is not a partition").hint(hint));
    };
    if named.detach_pending {
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partition \"{name}\" has a pending DETACH CONCURRENTLY"),
        )
        .hint("Finish it with ALTER TABLE … DETACH PARTITION … FINALIZE and attach it again."));
    }
    let unsupported = |what: &str| Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, format!("\"{name}\" {what}"));
    if bounds == "DEFAULT" {
        let parent = catalog::qualified_name(parent)?;
        return Err(unsupported("is a DEFAULT partition")
            .detail("Its rows belong to no range, and new rows may arrive at any time.")
            .hint(format!("SELECT drain_default('{parent}') moves its rows into partitions of their own.")));
    }
    if named.strategy == Some('h') {
        return Err(unsupported("is a hash partition")
            .detail("Hash partitions have no age: each holds rows of every time.")
            .hint("set_lifecycle_where(…) moves single rows; of a hash-partitioned partition, name that one."));
    }
    check::access(&named)?;
    let root = named.root.unwrap_or(parent);
    if to != Status::Archived && discover::kind(root)? == Kind::Lifecycle {
        let root = catalog::qualified_name(root)?;
        return Err(unsupported("belongs to a table whose rows carry their status")
            .detail("Its partitions hold the rows of one label each; a row gets another status by moving.")
            .hint(format!("SELECT set_lifecycle_where('{root}', '…', '{to}') moves rows.")));
    }
    Ok(named)
}

/// The leaves of `named`, each allowed to become `to`.
fn members(named: &Leaf, to: Status, job: Option<Uuid>) -> Result<Vec<Member>> {
    let leaves = if named.kind == 'p' { discover::leaf_oids(named.oid)? } else { vec![named.oid] };
    let mut members = Vec::with_capacity(leaves.len());
    for leaf in leaves.into_iter().map(discover::leaf) {
        let Some(leaf) = leaf? else { continue };
        if leaf.kind == 'p' {
            continue;
        }
        // What is archived below a partition is in the archive's tree; a foreign table here is somebody else's.
        if leaf.kind != 'r' {
            return Err(Error::new(
                SqlState::ERRCODE_WRONG_OBJECT_TYPE,
                format!("\"{}\" below \"{}\" is a foreign table", leaf.qualified(), named.qualified()),
            )
            .hint("Only partitions stored in this database have a status; name the others one by one."));
        }
        check::access(&leaf)?;
        if to == Status::Warm {
            subscribed::refuse(&leaf, false)?;
        }
        let from = catalog::partition::local_status(leaf.oid)?;
        if from != to {
            transition::check(from, to).map_err(|error| about(&leaf, error.into()))?;
        }
        not_in_work(&leaf, job)?;
        members.push(Member { leaf, from });
    }
    if members.is_empty() {
        return Err(Error::new(
            SqlState::ERRCODE_WRONG_OBJECT_TYPE,
            format!("\"{}\" has no partitions", named.qualified()),
        ));
    }
    Ok(members)
}

/// The core's refusal with the partition's name in it.
fn about(leaf: &Leaf, error: Error) -> Error {
    let message = format!("cannot change the status of \"{}\": {}", leaf.qualified(), error.message());
    let mut named = Error::new(error.sqlstate(), message);
    if let Some(detail) = error.detail_text() {
        named = named.detail(detail);
    }
    match error.hint_text() {
        Some(hint) => named.hint(hint),
        None => named,
    }
}

/// Refuses a partition that another job works on (55006).
fn not_in_work(leaf: &Leaf, job: Option<Uuid>) -> Result<()> {
    let Some(other) = catalog::job::working_on(leaf.oid, job)? else { return Ok(()) };
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("partition \"{}\" is in the work of job {other}", leaf.qualified()),
    )
    .hint(format!("See archive_ext.jobs. If nobody runs it any more, SELECT cancel_job('{other}').")))
}

/// What the new status means for one leaf.
fn apply(leaf: &Leaf, to: Status, changes: bool, policy: &Policy) -> Result<()> {
    let tablespace = match to {
        Status::Warm => policy.warm_tablespace.as_deref(),
        _ => policy.hot_tablespace.as_deref(),
    };
    if let Some(tablespace) = tablespace {
        ageing::move_to(leaf, tablespace)?;
    }
    if !changes {
        return Ok(());
    }
    ageing::set_parameters(leaf, to)?;
    match to {
        Status::Warm => {
            guard(leaf)?;
            freeze::add_bounds_check(leaf)
        }
        _ if freeze::guarded_because(leaf.oid)?.is_some() => freeze::thaw(leaf),
        _ => Ok(()),
    }
}

/// A WARM partition that was brought back to be corrected is read-only again; whether it was one.
fn refuse_corrections(leaf: &Leaf) -> Result<bool> {
    if catalog::partition::is_read_only(leaf.oid)? {
        return Ok(false);
    }
    guard(leaf)?;
    freeze::add_bounds_check(leaf)?;
    catalog::partition::set_read_only(leaf.oid)?;
    Ok(true)
}

fn guard(leaf: &Leaf) -> Result<()> {
    if freeze::guarded_because(leaf.oid)?.as_deref() == Some(freeze::Reason::Warm.as_str()) {
        return Ok(());
    }
    freeze::guard(leaf.oid, &leaf.qualified(), leaf.owner, freeze::Reason::Warm)?;
    xact::command_counter_increment();
    Ok(())
}

/// The span that labels of `to` show: the partition's own, or that of the policy's granularity.
pub(in crate::engine) fn span_of(leaf: &Leaf, to: Status, policy: &Policy) -> Result<Option<Span>> {
    let granularity = match to {
        Status::Hot => policy.hot_granularity.as_deref(),
        Status::Warm => policy.warm_granularity.as_deref(),
        _ => None,
    };
    let span = Span::of_tree(leaf)?;
    match granularity {
        Some("bare") => Ok(None),
        Some(granularity) => {
            let granularity = granularity.parse()?;
            Ok(span.map(|span| span.labelled(granularity)))
        }
        None => Ok(span),
    }
}

/// Statuses, labels and events.
fn record(
    root: pg_sys::Oid,
    members: &[Member],
    to: Status,
    policy: &Policy,
    removal_time: Option<TimestampWithTimeZone>,
    reason: &str,
    job: Option<Uuid>,
) -> Result<()> {
    let managed = managed::ensure(root)?;
    for Member { leaf, from } in members {
        if *from == to {
            catalog::partition::set_removal_time(root, &leaf.schema, &leaf.name, removal_time)?;
            continue;
        }
        let label = period::label(to, span_of(leaf, to, policy)?);
        set_local(managed.id, leaf, to, &label, removal_time)?;
        catalog::event::record_transition(&Transition {
            table: root,
            partition: &leaf.qualified(),
            event: "aged",
            from: Some(*from),
            to: Some(to),
            reason,
            job,
            details: serde_json::json!({ "label": label }),
        })?;
    }
    Ok(())
}

/// Writes the row of a leaf that is in the hot table.
fn set_local(
    managed_table: i64,
    leaf: &Leaf,
    status: Status,
    label: &str,
    removal_time: Option<TimestampWithTimeZone>,
) -> Result<i64> {
    let bounds = leaf.bounds.as_deref().unwrap_or_default();
    let (lower, upper) = range_bounds(bounds);
    let local = Local {
        managed_table,
        hot_table: leaf.oid,
        schema: &leaf.schema,
        name: &leaf.name,
        parent: leaf.parent.unwrap_or(leaf.oid),
        bounds,
        lower_bound: lower.as_deref(),
        upper_bound: upper.as_deref(),
    };
    catalog::partition::set_local(&local, status, label, removal_time)
}

/// Archives the leaves together, with the policy's storage.
fn archive(
    root: pg_sys::Oid,
    named: &Leaf,
    members: &[&Member],
    removal_time: Option<TimestampWithTimeZone>,
    reason: &str,
) -> Result<String> {
    let leaves: Vec<_> = members.iter().map(|member| member.leaf.oid).collect();
    let options = Options { storage: None, verify: Verify::Content, drop_local_seconds: None, allow_subscribed: false };
    archive::archive(&leaves, &options)?;
    for Member { leaf, from } in members.iter().copied() {
        catalog::event::explain(root, &leaf.qualified(), *from, reason)?;
        catalog::partition::set_removal_time(root, &leaf.schema, &leaf.name, removal_time)?;
    }
    Ok(period::label(Status::Archived, Span::of_tree(named)?))
}

/// An archived partition comes back, WARM or HOT.
fn revive(known: &Known, to: Status, removal_time: Option<TimestampWithTimeZone>, reason: &str) -> Result<String> {
    let name = quote_qualified_identifier(&known.schema_name, &known.partition_name);
    if to == Status::Archived {
        if !user::has_privileges_of(discover::owner(known.source)?) {
            return Err(Error::new(SqlState::ERRCODE_INSUFFICIENT_PRIVILEGE, format!("must be owner of table {name}")));
        }
        crate::pg::server_text::notice!("{name} is ARCHIVED already");
        let relation = known.foreign_table.unwrap_or(pg_sys::InvalidOid);
        catalog::partition::set_removal_time(known.source, &known.schema_name, &known.partition_name, removal_time)?;
        return Ok(catalog::partition::label_of(relation)?.unwrap_or_default());
    }
    transition::check(Status::Archived, to).map_err(|error| {
        Error::from(error).detail(format!("\"{name}\" is ARCHIVED; LIVE is what partitions begin with."))
    })?;
    check::not_static(known.source)?;
    let writable = to == Status::Hot;
    let options = reattach::Options { keep_for_seconds: None, status: to, writable, move_late_rows: false };
    let table = reattach::reattach(&name, options)?;
    catalog::event::explain(known.source, &name, Status::Archived, reason)?;
    catalog::partition::set_removal_time(known.source, &known.schema_name, &known.partition_name, removal_time)?;
    Ok(catalog::partition::label_of(table)?.unwrap_or_default())
}
