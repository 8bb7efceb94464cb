//! `archive_partition` and `archive_partitions`: every step in the caller's transaction, all or nothing.

use std::cell::RefCell;

use archive_core::lifecycle::{Status, range_bounds};
use archive_core::manifest::Manifest;
use archive_core::naming;
use pgrx::datum::TimestampWithTimeZone;
use pgrx::{Uuid, pg_sys};

use super::copies;
use super::drift;
use super::manifest;
use super::period;
use super::plan::{Options, Plan, Verify, job_hex};
use super::progress::{Phase, Progress};
use super::reuse::{self, Reuse, Segment};
use super::verify;
use crate::catalog;
use crate::catalog::job::NewJob;
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource, Exported};
use crate::partition::freeze::FrozenState;
use crate::partition::locks::Held;
use crate::partition::{archive_tree, check, discover, freeze, give_way, locks, swap};
use crate::pg::relation::LockMode;
use crate::pg::{user, xact};
use crate::worker::freezer;

/// The row that `archive_partition` returns.
#[derive(Debug)]
pub struct Outcome {
    /// The job; a dry run has none.
    pub job: Option<Uuid>,
    /// The foreign table that now reads the partition; in a dry run the partition.
    pub archived: pg_sys::Oid,
    /// Rows; in a dry run as estimated by ANALYZE, unknown before the first.
    pub rows: Option<u64>,
    /// Heap, TOAST and indexes in bytes.
    pub local_bytes: u64,
    /// Size of the objects; unknown in a dry run.
    pub archived_bytes: Option<u64>,
    /// Number of objects; unknown in a dry run.
    pub objects: Option<usize>,
    /// Where the manifest is.
    pub location: String,
    /// Until when the local copy stays; `None` when it is gone.
    pub local_copy_until: Option<TimestampWithTimeZone>,
}

/// Request of a job: a partition that a subscription writes to is frozen all the same.
pub const ALLOW_SUBSCRIBED: &str = "allow_subscribed";

thread_local! {
    /// The transaction that swapped last, and the parents whose locks it holds until it ends, or goes back to a savepoint.
    static SWAPPED_IN: RefCell<(u32, Vec<pg_sys::Oid>)> = const { RefCell::new((0, Vec::new())) };
}

/// Archives partitions: all of them are exported and verified before any is swapped.
///
/// Locks: per partition SHARE ROW EXCLUSIVE and ACCESS EXCLUSIVE for an instant (the freeze, committed by a worker),
/// then SHARE UPDATE EXCLUSIVE; at the end ACCESS EXCLUSIVE on parent, partition and archive parent until commit.
pub fn archive(partitions: &[pg_sys::Oid], options: &Options) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    let _bounded = swap::bounded();
    refuse_second_swap(OTHER_WAYS)?;
    partitions.iter().try_for_each(|partition| claim(*partition))?;
    run(&prepare(partitions, options)?)
}

/// Freezes, exports, verifies and swaps what was planned, in this order of partitions.
pub fn run(plans: &[Plan]) -> Result<Vec<Outcome>> {
    run_after(plans, || Ok(()))
}

/// The same; `work` is done when everything is verified, before any lock of a swap is taken.
pub fn run_after(plans: &[Plan], work: impl FnOnce() -> Result<()>) -> Result<Vec<Outcome>> {
    freeze_all(plans)?;
    let mut archived = Vec::with_capacity(plans.len());
    for plan in plans {
        archived.push((plan, export_and_verify(plan)?));
    }
    work()?;
    finish_all(archived)
}

/// What the call would do: sizes, the estimate of the swap, and every refusal. Changes nothing.
pub fn dry_run(partitions: &[pg_sys::Oid], options: &Options) -> Result<Vec<Outcome>> {
    check::transaction("archiving")?;
    let _bounded = swap::bounded();
    Ok(announce(&prepare(partitions, options)?))
}

/// What a dry run says about its plans.
pub fn announce(plans: &[Plan]) -> Vec<Outcome> {
    plans
        .iter()
        .map(|plan| {
            crate::pg::server_text::notice!(
                "{} would be archived to {}; its foreign key checks take about {} ms under the parent's lock",
                plan.name(),
                plan.store.location(),
                plan.swap_estimate.as_millis()
            );
            Outcome {
                job: None,
                archived: plan.leaf.oid,
                rows: plan.leaf.estimated_rows,
                local_bytes: plan.leaf.total_bytes,
                archived_bytes: None,
                objects: None,
                location: plan.store.location().url_of(&naming::table_prefix(&plan.root_name.0, &plan.root_name.1)),
                local_copy_until: None,
            }
        })
        .collect()
}

/// Claims a partition (55006) for one who may act as its owner (42501), before anything else is looked at: what another session commits
/// in the middle of a look may leave it with what is there no more, and an error of PostgreSQL's that tells nobody anything. What does
/// not exist is nobody's.
pub fn claim(partition: pg_sys::Oid) -> Result<()> {
    let mut claimed = None;
    while let Some(leaf) = discover::leaf(partition)? {
        check::ownership(&leaf)?;
        let known = catalog::partition::of_archive_relation(partition)?;
        let name = known.map_or_else(|| leaf.qualified(), |known| known.qualified());
        // It may have been renamed while it was looked up.
        if claimed.as_ref() == Some(&name) {
            break;
        }
        locks::claim_partition(&name)?;
        claimed = Some(name);
    }
    Ok(())
}

fn prepare(partitions: &[pg_sys::Oid], options: &Options) -> Result<Vec<Plan>> {
    let mut seen = std::collections::HashSet::new();
    let mut unique = partitions.to_vec();
    unique.retain(|oid| seen.insert(*oid));
    unique.into_iter().map(|oid| Plan::prepare(oid, options, catalog::job::new_id()?)).collect()
}

/// How to archive several partitions.
pub const OTHER_WAYS: &str =
    "Commit first, CALL archive_partition_steps(…), or pass all partitions to archive_partitions(regclass[]).";

/// Refuses a transaction that holds the locks of a swap already (25001), with this hint.
pub fn refuse_second_swap(hint: &str) -> Result<()> {
    let (transaction, parents) = SWAPPED_IN.with_borrow(Clone::clone);
    if transaction == 0 || transaction != xact::top_transaction_id() {
        return Ok(());
    }
    for parent in parents {
        // After ROLLBACK TO a savepoint before the swap the lock is gone.
        if locks::held_here(parent)?.iter().any(|mode| mode == "AccessExclusiveLock") {
            let message = "this transaction has already swapped a partition";
            return Err(Error::new(SqlState::ERRCODE_ACTIVE_SQL_TRANSACTION, message)
                .detail(
                    "It holds the parent's ACCESS EXCLUSIVE lock until it ends, which must not last while rows are copied.",
                )
                .hint(hint));
        }
    }
    Ok(())
}

/// Notes that this transaction holds the parent's lock from now on.
pub fn note_swap(parent: pg_sys::Oid) {
    let transaction = xact::top_transaction_id();
    SWAPPED_IN.with_borrow_mut(|(noted, parents)| {
        if *noted != transaction {
            *noted = transaction;
            parents.clear();
        }
        if !parents.contains(&parent) {
            parents.push(parent);
        }
    });
    failpoints_of_commit!();
}

/// Freezes by a worker, so that writers fail at once; here when the caller already has the partition to itself.
fn freeze_all(plans: &[Plan]) -> Result<()> {
    let mut by_worker = Vec::new();
    for plan in plans {
        progress(plan).phase(Phase::Freezing);
        locks::claim_partition(&plan.name())?;
        let held = locks::held_here(plan.leaf.oid)?;
        if held.iter().any(|mode| mode == "AccessExclusiveLock") {
            start_job(plan, "frozen")?;
            freeze::freeze_here(&plan.leaf)?;
        } else if !held.is_empty() {
            return Err(locked_by_caller(plan, &held));
        } else {
            by_worker.push(plan);
        }
    }
    if by_worker.is_empty() {
        return Ok(());
    }
    let partitions = by_worker.iter().map(|plan| order_item(plan)).collect();
    freezer::freeze(&freezer::Order::of_this_transaction(partitions, None))?;
    xact::command_counter_increment();
    Ok(())
}

fn locked_by_caller(plan: &Plan, held: &[String]) -> Error {
    Error::new(SqlState::ERRCODE_OBJECT_IN_USE, format!("partition \"{}\" is in use by this transaction", plan.name()))
        .detail(format!("It holds {}, which the freeze would wait for.", held.join(", ")))
        .hint("Call it in a transaction of its own, before the partition is read or written there.")
}

fn order_item(plan: &Plan) -> freezer::OrderItem {
    freezer::OrderItem {
        partition: plan.leaf.oid.to_u32(),
        job: job_hex(plan.job),
        storage: plan.storage.clone(),
        verify: plan.verify.as_str().to_owned(),
        drop_local_seconds: plan.keep_seconds,
    }
}

/// Writes the job's row in this transaction.
pub fn start_job(plan: &Plan, phase: &str) -> Result<()> {
    let name = plan.name();
    let job = NewJob {
        operation: "archive",
        table: plan.root,
        partition_name: &name,
        partition: Some(plan.leaf.oid),
        storage: &plan.storage,
        verify: plan.verify.as_str(),
        drop_local_seconds: Some(plan.keep_seconds),
        phase,
    };
    catalog::job::supersede(plan.leaf.oid, plan.job)?;
    catalog::job::start(plan.job, &job, &user::name_of(user::current()), std::process::id().cast_signed())?;
    // For the steps to come.
    match plan.allow_subscribed {
        true => catalog::job::set_request(plan.job, &serde_json::json!({ ALLOW_SUBSCRIBED: true })),
        false => Ok(()),
    }
}

/// A version that was read back and found equal.
#[derive(Debug)]
pub struct Finished {
    /// Key of its manifest.
    pub key: String,
    /// The manifest.
    pub manifest: Manifest,
    /// The partition as it was exported; another state at the swap means that writes may have come between.
    pub state: FrozenState,
}

/// The progress of a plan's job.
pub fn progress(plan: &Plan) -> Progress {
    Progress::new(plan.job, plan.leaf.oid, &plan.name(), plan.leaf.estimated_rows.unwrap_or(0))
}

fn export_and_verify(plan: &Plan) -> Result<Finished> {
    let mut progress = progress(plan);
    let finished = export(plan, &mut progress)?;
    verify(plan, &finished, plan.verify, &mut progress)?;
    Ok(finished)
}

/// Exports the frozen partition into a new version, or finds that its last version holds exactly these rows.
pub fn export(plan: &Plan, progress: &mut Progress) -> Result<Finished> {
    failpoint!("export_begins");
    catalog::storage::claim(&plan.storage, &plan.store)?;
    drop(hold_table(plan)?);
    drift::sync(plan.root)?;
    // Partitions of one name in two schemas share their keys, and what removes garbage stays away from them.
    catalog::writers::hold_family(&manifest::key(plan, 0))?;
    let (held, source, state) = open_frozen(plan)?;
    let looking = give_way::while_working(plan.leaf.oid, &plan.name());
    progress.phase(Phase::Exporting);
    let kept = match reuse::find(plan, &source, progress)? {
        Reuse::Everything { key, manifest } => {
            // As below.
            drop((looking, source, held));
            let _table = hold_table(plan)?;
            let (key, manifest) = reuse::with_current_ddl(plan, key, *manifest)?;
            return Ok(Finished { key, manifest, state });
        }
        Reuse::Objects(segments) => segments,
        Reuse::Nothing => vec![Segment::Changed(export::EVERYWHERE)],
    };
    let version = manifest::next_version_of(plan)?;
    let exported = export_segments(plan, &source, kept, version, progress)?;
    note_positions(plan, &exported, &state)?;
    // The manifest reads the definition of the whole table, which is locked before its partitions.
    let schema = source.schema.clone();
    drop((looking, source, held));
    let key = manifest::key(plan, version);
    let table = hold_table(plan)?;
    let mut manifest = manifest::build(manifest::Subject::of(plan), schema, exported, version)?;
    drop(table);
    manifest::put(&plan.storage, &plan.store, &key, &mut manifest)?;
    Ok(Finished { key, manifest, state })
}

/// ACCESS SHARE on the whole table for a while; 42P01 when that or the partition was dropped meanwhile.
fn hold_table(plan: &Plan) -> Result<Held> {
    let held = locks::hold_still(plan.root)?;
    if discover::leaf(plan.leaf.oid)?.is_some() {
        return Ok(held);
    }
    Err(Error::new(
        SqlState::ERRCODE_UNDEFINED_TABLE,
        format!("partition \"{}\" was dropped while it was being archived", plan.name()),
    ))
}

/// Writes what changed into objects of the new version, between those that are kept.
fn export_segments(
    plan: &Plan,
    source: &ExportSource,
    segments: Vec<Segment>,
    version: u32,
    progress: &mut Progress,
) -> Result<Exported> {
    let date = plan.span.map(period::Span::hive_date);
    let mut all = Exported::nothing(export::no_rows(source));
    let (mut written, mut rows, mut bytes) = (0, 0, 0);
    for segment in segments {
        let exported = match segment {
            Segment::Kept { object, first } => Exported {
                digest: object.digest.clone(),
                objects: vec![*object],
                positions: vec![first],
                filters: Vec::new(),
            },
            Segment::Changed(places) => {
                let key = |ordinal: u32| {
                    let (schema, table) = (&plan.root_name.0, &plan.root_name.1);
                    naming::data_key(schema, table, &plan.leaf.name, date, version, written + ordinal)
                };
                let mut tick = |more: u64, size: u64| progress.tick(rows + more, bytes + size);
                let exported = export::export(source, places, &plan.store, key, &mut tick)?;
                written += exported.objects.len() as u32;
                rows += exported.digest.rows;
                bytes += exported.objects.iter().map(|object| object.bytes).sum::<u64>();
                exported
            }
        };
        all.digest.merge(&exported.digest);
        all.objects.extend(exported.objects);
        all.positions.extend(exported.positions);
    }
    Ok(all)
}

/// Notes where each object's rows are: the local copy may come back and be archived again.
fn note_positions(plan: &Plan, exported: &Exported, state: &FrozenState) -> Result<()> {
    for (object, first) in exported.objects.iter().zip(&exported.positions) {
        catalog::object::set_position(&plan.storage, &object.key, state.relfilenode, *first)?;
    }
    Ok(())
}

/// Opens the partition under SHARE UPDATE EXCLUSIVE, which keeps VACUUM FULL, ALTER TABLE and other archivers out. Its locks are given
/// back before those of the swap are wanted: DDL of the whole table locks the parent first, and would deadlock. What happens in
/// between the swap finds out.
fn open_frozen(plan: &Plan) -> Result<(Held, ExportSource, FrozenState)> {
    let held = locks::hold(plan.leaf.oid, &plan.name(), LockMode::ShareUpdateExclusive)?;
    let source = ExportSource::peek(plan.leaf.oid, plan.root)?;
    Ok((held, source, freeze::frozen_state(&plan.leaf)?))
}

/// Reads a version back and compares it with what was exported.
pub fn verify(plan: &Plan, finished: &Finished, level: Verify, progress: &mut Progress) -> Result<()> {
    let (held, source, _) = open_frozen(plan)?;
    let looking = give_way::while_working(plan.leaf.oid, &plan.name());
    // In committed steps columns may have come or gone since.
    if source.schema != finished.manifest.schema {
        return Err(freeze::changed(&plan.name()));
    }
    failpoint!("verify_begins");
    verify::read_back(&source, &plan.store, &finished.key, &finished.manifest, level, progress)?;
    failpoint!("verify_done");
    drop((looking, source, held));
    copy(plan, finished)
}

/// What the policy wants in a second storage is there, and was read back there, before anything may leave the table.
fn copy(plan: &Plan, finished: &Finished) -> Result<()> {
    let Some(copies) = copies::wanted(plan.root)? else { return Ok(()) };
    let objects = finished.manifest.objects.iter().map(copies::Item::of);
    let items: Vec<_> = objects.chain([copies::Item::manifest(&finished.key)]).collect();
    copies::make(&plan.store, &plan.storage, &copies, discover::owner(plan.root)?, &items).map(drop)
}

/// Swaps a verified partition and records it.
pub fn finish(plan: &Plan, finished: Finished) -> Result<Outcome> {
    let mut outcomes = finish_all(vec![(plan, finished)])?;
    outcomes.pop().ok_or_else(|| Error::new(SqlState::ERRCODE_INTERNAL_ERROR, "nothing was swapped"))
}

/// Swaps verified partitions in this order and records them. All locks of all swaps are taken first, or none.
pub fn finish_all(archived: Vec<(&Plan, Finished)>) -> Result<Vec<Outcome>> {
    let mut trees = Vec::with_capacity(archived.len());
    for (plan, _) in &archived {
        progress(plan).phase(Phase::Swapping);
        drop(hold_table(plan)?);
        let (managed, mirror) = archive_tree::ensure(plan.root, plan.parent, &plan.names)?;
        drift::sync(plan.root)?;
        trees.push((managed.id, mirror));
    }
    finalize_pending(&archived)?;
    failpoint!("swap_begins");
    lock_all(&archived, &trees)?;
    archived.iter().for_each(|(plan, _)| note_swap(plan.parent));
    failpoint!("swap_locked");
    archived.into_iter().zip(trees).map(|((plan, finished), tree)| swap_one(plan, finished, tree)).collect()
}

/// Before the locks of the swap: FINALIZE waits for old snapshots.
fn finalize_pending(archived: &[(&Plan, Finished)]) -> Result<()> {
    let mut parents: Vec<_> = archived.iter().map(|(plan, _)| plan.parent).collect();
    parents.dedup();
    parents.into_iter().try_for_each(swap::finalize_pending)
}

/// The order: for each partition as given what [`swap::concerned`] says, then the archive parents.
fn lock_all(archived: &[(&Plan, Finished)], trees: &[(i64, pg_sys::Oid)]) -> Result<()> {
    let mut wanted = Vec::new();
    for (plan, _) in archived {
        let referenced = if plan.drops_local_copy() { LockMode::AccessExclusive } else { LockMode::ShareRowExclusive };
        wanted.extend(swap::concerned(plan.root, plan.parent, Some(plan.leaf.oid), referenced)?);
    }
    wanted.extend(trees.iter().map(|(_, mirror)| (*mirror, LockMode::AccessExclusive)));
    locks::acquire_all(&locks::strongest(wanted))
}

fn swap_one(plan: &Plan, finished: Finished, (managed_table, mirror): (i64, pg_sys::Oid)) -> Result<Outcome> {
    let manifest = &finished.manifest;
    let (lower, upper) = range_bounds(plan.leaf.bounds.as_deref().unwrap_or_default());
    let label = period::label(Status::Archived, plan.span);
    let archived = catalog::partition::Archived {
        managed_table,
        parent: plan.parent,
        lower_bound: lower.as_deref(),
        upper_bound: upper.as_deref(),
        label: &label,
        storage: &plan.storage,
        manifest_key: &finished.key,
        manifest,
        local_bytes: Some(plan.leaf.total_bytes),
    };
    let id = catalog::partition::reserve(&archived)?;
    let placed = swap_in(plan, &finished, mirror, id)?;
    let local_copy_until = catalog::partition::set_archived(id, &archived, &placed)?;
    catalog::job::complete(plan.job, manifest.rows)?;
    record_event(plan, &finished)?;
    failpoint!("swap_recorded");
    Ok(Outcome {
        job: Some(plan.job),
        archived: placed.foreign_table,
        rows: Some(manifest.rows),
        local_bytes: plan.leaf.total_bytes,
        archived_bytes: Some(manifest.bytes),
        objects: Some(manifest.objects.len()),
        location: plan.store.location().url_of(&finished.key),
        local_copy_until,
    })
}

/// The catalog changes under the locks of [`lock_all`]: no I/O from here to the end.
fn swap_in(plan: &Plan, finished: &Finished, mirror: pg_sys::Oid, id: i64) -> Result<catalog::partition::Placed> {
    check_unchanged(plan, finished)?;
    drop_empty_row_set(plan.leaf.oid)?;
    let foreign_table = swap::put_foreign(&swap::Place::of(&plan.leaf), mirror, &plan.names.schema, &plan.storage, id)?;
    failpoint!("swap_foreign_attached");
    let local_copy = swap::take_out(&plan.leaf, &plan.names.schema, &plan.local_copy, !plan.drops_local_copy())?;
    xact::command_counter_increment();
    Ok(catalog::partition::Placed { foreign_table, local_copy, keep_seconds: plan.keep_seconds })
}

/// Stubs that came back left a foreign table without rows in the partition's place.
fn drop_empty_row_set(partition: pg_sys::Oid) -> Result<()> {
    let Some(set) = catalog::row_set::of_partition(partition)?.filter(|set| set.rows == 0) else { return Ok(()) };
    swap::drop_foreign(set.foreign_table)?;
    catalog::row_set::forget(set.id)
}

/// Under the locks: same file, same columns, guards still there, or the export no longer describes the partition.
fn check_unchanged(plan: &Plan, finished: &Finished) -> Result<()> {
    catalog::place::still_at(&plan.storage, &plan.store.location().to_string())?;
    if freeze::frozen_state(&plan.leaf)? != finished.state {
        return Err(freeze::changed(&plan.name()));
    }
    let source = ExportSource::open(plan.leaf.oid, plan.root, LockMode::AccessShare)?;
    if source.schema == finished.manifest.schema {
        return Ok(());
    }
    Err(freeze::changed(&plan.name()))
}

fn record_event(plan: &Plan, finished: &Finished) -> Result<()> {
    let manifest = &finished.manifest;
    let mut details = serde_json::json!({
        "storage": plan.storage, "manifest": finished.key, "version": manifest.version, "rows": manifest.rows,
        "bytes": manifest.bytes, "objects": manifest.objects.len(), "digest": manifest.digest.to_string(),
    });
    if let Some(family) = &manifest.family {
        details["family"] = family.id.as_str().into();
    }
    catalog::event::record(plan.root, &plan.name(), "archived", "ARCHIVED", Some(plan.job), details)
}
