//! The steps.

use archive_core::codec::Digest;
use archive_core::lifecycle::Status;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::Run;
use crate::catalog;
use crate::catalog::event::Transition;
use crate::engine::transition::place;
use crate::engine::{archive, managed, period, steps, transition};
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource};
use crate::partition::discover::{self, Leaf};
use crate::partition::new_partition::{self, Draft};
use crate::partition::{adapt, carry_over, default_rows, foreign_key, freeze, locks, snapshots, swap};
use crate::pg::guc::GucNest;
use crate::pg::load::BulkLoader;
use crate::pg::relation::{LockMode, Relation};
use crate::pg::{spi, user, xact};
use crate::worker::settler;

type Step = Result<(bool, String)>;

/// Guards the sources; those that are WARM have theirs.
pub fn freeze(run: &Run, sources: &[Leaf]) -> Step {
    freeze::lock_unguarded(sources)?;
    for source in sources {
        if !freeze::observe(source.oid)?.guards {
            freeze::guard(source.oid, &source.qualified(), source.owner, freeze::Reason::Rearranging)?;
        }
    }
    xact::command_counter_increment();
    failpoint!("rearrange_guarded");
    run.save("frozen")
}

/// Makes the empty tables.
pub fn create(run: &mut Run, sources: &[Leaf]) -> Step {
    let (Some(parent), owner) = (sources[0].parent, sources[0].owner) else {
        return Err(run.stopped("it is detached"));
    };
    let policy = catalog::policy::of(run.root)?;
    let tablespace = match run.status()? {
        Status::Warm => policy.warm_tablespace,
        Status::Hot => policy.hot_tablespace,
        _ => None,
    };
    let mut tables = Vec::with_capacity(run.request.targets.len());
    for target in &run.request.targets {
        let draft = Draft {
            parent,
            schema: &run.request.schema,
            name: &target.name,
            bounds: &target.bounds,
            owner,
            template: None,
            tablespace: tablespace.as_deref(),
        };
        tables.push(new_partition::create_detached(&draft)?.to_u32());
    }
    run.done.tables = tables;
    failpoint!("rearrange_created");
    run.save("created")
}

/// Copies the rows of one source that belong to one target.
pub fn copy(run: &mut Run, sources: &[Leaf]) -> Step {
    let targets = run.tables()?;
    let (source, at) = (&sources[run.done.copies / targets.len()], run.done.copies % targets.len());
    let target = &targets[at];
    locks::acquire(source.oid, &source.qualified(), LockMode::ShareUpdateExclusive)?;
    // Of a source that goes into one target as a whole, a row that does not fit must fail and not be passed over.
    let condition = match targets.len() {
        1 => String::new(),
        _ => format!(" WHERE {}", run.request.targets[at].condition),
    };
    let from = format!("FROM ONLY {}{condition}", source.qualified());
    // With row security off a policy that would hide rows is an error.
    let _settings = GucNest::new().set(c"row_security", "off");
    let rows = match made_here(target)? {
        Some(relation) => insert_frozen(&relation, source, &from),
        None => insert(target, source, &from),
    }?;
    run.done.copies += 1;
    run.done.rows += rows;
    failpoint!("rearrange_copied");
    run.save("copying")
}

/// The table, if this very transaction made it: where all steps are done in one.
fn made_here(table: &Leaf) -> Result<Option<Relation>> {
    let Some(relation) = Relation::open(table.oid, LockMode::AccessExclusive) else {
        return Err(Error::new(
            SqlState::ERRCODE_UNDEFINED_TABLE,
            format!("table \"{}\" was dropped", table.qualified()),
        ));
    };
    Ok(relation.is_made_here().then_some(relation))
}

fn insert(target: &Leaf, source: &Leaf, from: &str) -> Result<u64> {
    let columns: Vec<_> = discover::attributes(target.oid)?
        .iter()
        .filter(|column| column.generated.is_empty())
        .map(|column| quote_identifier(&column.name))
        .collect();
    let (name, columns) = (target.qualified(), columns.join(", "));
    let sql = format!("INSERT INTO {name} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} {from}");
    user::as_user(source.owner, || spi::execute(&sql, &[]))
}

/// No snapshot that is taken before this transaction commits sees what it inserts, and the swap cannot wait for those. So the
/// rows are frozen: every snapshot sees them, as it saw them in the source.
fn insert_frozen(target: &Relation, source: &Leaf, from: &str) -> Result<u64> {
    let columns: Vec<_> =
        discover::attributes(target.oid())?.into_iter().filter(|column| column.generated != "v").collect();
    let names: Vec<_> = columns.iter().map(|column| quote_identifier(&column.name)).collect();
    let attributes: Vec<_> = columns.iter().map(|column| usize::from(column.number.unsigned_abs()) - 1).collect();
    let sql = format!("SELECT {} {from}", names.join(", "));
    let rows = user::as_user(source.owner, || BulkLoader::load_query(target, &sql, &attributes))?;
    xact::command_counter_increment();
    Ok(rows)
}

/// Indexes, constraints, foreign keys, what the sources have of their own, the guard.
pub fn build(run: &mut Run, sources: &[Leaf]) -> Step {
    let Some(parent) = sources[0].parent else { return Err(run.stopped("it is detached")) };
    let targets = run.tables()?;
    for (table, target) in targets.iter().zip(&run.request.targets) {
        let (name, owner) = (table.qualified(), table.owner);
        let check = freeze::BOUNDS_CHECK;
        user::as_user(owner, || {
            spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ({})", target.condition), &[])
        })?;
        adapt::adopt_constraints(parent, table.oid)?;
        swap::complete_indexes(parent, table.oid, &run.request.schema, &target.bounds)?;
        carry_over::carry_over(sources, table.oid, owner)?;
        user::as_user(owner, || spi::execute(&format!("ANALYZE {name}"), &[]))?;
        let reason = if run.status()? == Status::Warm { freeze::Reason::Warm } else { freeze::Reason::Rearranging };
        freeze::guard(table.oid, &name, owner, reason)?;
    }
    // At the end, for writers to what they reference wait from here on.
    let referenced = foreign_key::referenced_by(&[parent])?;
    locks::acquire_all(&referenced.into_iter().map(|oid| (oid, LockMode::ShareRowExclusive)).collect::<Vec<_>>())?;
    for table in &targets {
        carry_over::adopt_foreign_keys(parent, table.oid, table.owner)?;
    }
    if targets.iter().map(made_here).collect::<Result<Vec<_>>>()?.iter().any(Option::is_none) {
        run.done.older = Some(snapshots::held()?);
    }
    run.done.built = true;
    failpoint!("rearrange_built");
    run.save("built")
}

/// Compares the row digests of sources and targets (P2's, in the same order of columns).
pub fn verify(run: &mut Run, sources: &[Leaf]) -> Step {
    let targets = run.tables()?;
    let (before, after) = (digest(run, sources)?, digest(run, &targets)?);
    if before != after {
        return Err(Error::new(
            SqlState::ERRCODE_DATA_CORRUPTED,
            format!("the copies of the rows of \"{}\" differ from the rows", run.name),
        )
        .detail(format!("There are {} rows, and {} in the copies.", before.rows, after.rows))
        .hint("Nothing was swapped. SELECT cancel_job(job_id), then begin again; a trigger or rule may have changed rows."));
    }
    run.done.rows = after.rows;
    run.done.verified = Some(states(sources, &targets)?);
    failpoint!("rearrange_verified");
    run.save("verified")
}

fn digest(run: &Run, tables: &[Leaf]) -> Result<Digest> {
    let mut sum: Option<Digest> = None;
    for table in tables {
        locks::acquire(table.oid, &table.qualified(), LockMode::ShareUpdateExclusive)?;
        let source = ExportSource::open(table.oid, run.root, LockMode::AccessShare)?.in_field_order();
        let sum = sum.get_or_insert_with(|| export::no_rows(&source));
        export::digests(&source, &[export::EVERYWHERE], &mut |_, _| {})?.iter().for_each(|digest| sum.merge(digest));
    }
    sum.ok_or_else(|| run.stopped("it has no partitions"))
}

/// What each table is recognised by: its file and its guards.
fn states(sources: &[Leaf], targets: &[Leaf]) -> Result<Vec<String>> {
    let state = |leaf: &Leaf| {
        let guarded = freeze::observe(leaf.oid)?;
        Ok(format!("{} {} {}", leaf.relfilenode.to_u32(), guarded.guards, guarded.identity))
    };
    sources.iter().chain(targets).map(state).collect()
}

/// DETACH and ATTACH under the parent's lock: catalog changes only.
pub fn swap_in(run: &mut Run, sources: &[Leaf]) -> Step {
    let targets = run.tables()?;
    let Some(parent) = sources[0].parent else { return Err(run.stopped("it is detached")) };
    if let Some(older) = &run.done.older {
        snapshots::wait_for(older, &format!("\"{}\" takes the place of its rows", run.name))?;
    }
    for source in sources {
        crate::partition::check::inbound_foreign_keys(source, &[])?;
    }
    for (table, target) in targets.iter().zip(&run.request.targets) {
        swap::complete_indexes(parent, table.oid, &run.request.schema, &target.bounds)?;
    }
    let default = default_rows::of_parent(parent)?;
    if let Some(default) = default {
        let all: Vec<_> = run.request.targets.iter().map(|target| format!("({})", target.condition)).collect();
        place::keep_out(default, &all.join(" OR "))?;
        default_rows::settle_all(default, &[])?;
    }
    swap::finalize_pending(parent)?;
    lock_all(run, parent, sources, &targets)?;
    archive::note_swap(parent);
    failpoint!("rearrange_locked");
    if run.done.verified.as_ref() != Some(&states(&run.sources()?, &run.tables()?)?) {
        return Err(run.stopped("a table changed since its rows were compared"));
    }
    for source in sources {
        swap::detach(parent, &source.qualified())?;
    }
    failpoint!("rearrange_detached");
    for (table, target) in targets.iter().zip(&run.request.targets) {
        swap::attach(parent, &table.qualified(), &target.bounds)?;
    }
    xact::command_counter_increment();
    if let Some(default) = default {
        default_rows::admit(default, xact::top_transaction_id())?;
    }
    record(run, sources, &targets)?;
    run.done.swapped = true;
    failpoint!("rearrange_swapped");
    run.save("swapped")
}

/// As in an archive run: for each source what its swap locks, then the new tables.
fn lock_all(run: &Run, parent: pg_sys::Oid, sources: &[Leaf], targets: &[Leaf]) -> Result<()> {
    let mut wanted = Vec::new();
    for source in sources {
        wanted.extend(swap::concerned(run.root, parent, Some(source.oid), LockMode::ShareRowExclusive)?);
    }
    wanted.extend(targets.iter().map(|table| (table.oid, LockMode::AccessExclusive)));
    locks::acquire_all(&locks::strongest(wanted))
}

/// Catalog rows and events; a WARM partition is frozen by the settler.
fn record(run: &Run, sources: &[Leaf], targets: &[Leaf]) -> Result<()> {
    let (managed, status) = (managed::ensure(run.root)?, run.status()?);
    let policy = catalog::policy::of(run.root)?;
    let names: Vec<_> = sources.iter().map(Leaf::qualified).collect();
    let removal_time = catalog::partition::latest_removal_time(&oids(sources))?;
    let from = sources.iter().map(|source| catalog::partition::local_status(source.oid)).collect::<Result<Vec<_>>>()?;
    let successors: Vec<_> = targets.iter().map(Leaf::qualified).collect();
    let mut superseded = Vec::new();
    for source in sources {
        superseded.extend(catalog::partition::supersede(source.oid, &successors)?);
    }
    for known in &superseded {
        crate::pg::server_text::notice!(
            "version {} of \"{}\" stays in storage \"{}\", superseded by {}",
            known.version,
            known.qualified(),
            known.storage.as_deref().unwrap_or_default(),
            successors.join(", ")
        );
    }
    let superseded: Vec<_> = superseded.iter().filter_map(|known| known.manifest_key.as_deref()).collect();
    let reason = match catalog::job::reason(run.job)? {
        Some(reason) => reason,
        None => "called by a user".to_owned(),
    };
    for table in targets {
        let Some(leaf) = discover::leaf(table.oid)? else { return Err(run.stopped("a table it made was dropped")) };
        if status != Status::Warm {
            freeze::thaw(&leaf)?;
        }
        crate::partition::ageing::set_parameters(&leaf, status)?;
        if status != Status::Live {
            let label = period::label(status, transition::span_of(&leaf, status, &policy)?);
            transition::set_local(managed.id, &leaf, status, &label, removal_time)?;
        }
        catalog::event::record_transition(&Transition {
            table: run.root,
            partition: &leaf.qualified(),
            event: if run.merges { "merged" } else { "split" },
            from: from.iter().min().copied(),
            to: Some(status),
            reason: &reason,
            job: Some(run.job),
            details: details(&names, run.done.rows, &superseded),
        })?;
    }
    if status == Status::Warm {
        settler::after_commit(&run.name);
    }
    Ok(())
}

fn details(from: &[String], rows: u64, superseded: &[&str]) -> serde_json::Value {
    let mut details = serde_json::json!({ "from": from, "rows": rows });
    if !superseded.is_empty() {
        details["superseded_manifests"] = superseded.into();
    }
    details
}

fn oids(leaves: &[Leaf]) -> Vec<pg_sys::Oid> {
    leaves.iter().map(|leaf| leaf.oid).collect()
}

/// The old partitions, detached by now, go.
pub fn drop_sources(run: &Run) -> Step {
    swap::drop_detached(&super::detached(&run.request.partitions)?)?;
    failpoint!("rearrange_dropped");
    steps::done(run.job, run.done.rows)
}
