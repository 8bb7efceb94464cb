//! The steps.

use archive_core::codec::Digest;
use archive_core::lifecycle::Status;
use pgrx::pg_sys;
use pgrx::spi::quote_identifier;

use super::Run;
use crate::catalog;
use crate::catalog::event::Transition;
use crate::engine::transition::place;
use crate::engine::{archive, managed, period, transition};
use crate::error::{Error, Result, SqlState};
use crate::export::{self, ExportSource};
use crate::partition::discover::{self, Leaf};
use crate::partition::new_partition::{self, Draft};
use crate::partition::{adapt, carry_over, default_rows, freeze, locks, swap};
use crate::pg::guc::GucNest;
use crate::pg::relation::LockMode;
use crate::pg::{spi, user, xact};
use crate::worker::settler;

type Step = Result<(bool, String)>;

/// Guards the sources; those that are WARM have theirs.
pub fn freeze(run: &Run, sources: &[Leaf]) -> Step {
    for source in sources {
        if !freeze::observe(source.oid)?.guards {
            freeze::guard(source.oid, &source.qualified(), source.owner, freeze::Reason::Rearranging)?;
        }
    }
    xact::command_counter_increment();
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
    run.save("created")
}

/// Copies the rows of one source that belong to one target.
pub fn copy(run: &mut Run, sources: &[Leaf]) -> Step {
    let targets = run.tables()?;
    let (source, at) = (&sources[run.done.copies / targets.len()], run.done.copies % targets.len());
    let target = &targets[at];
    locks::acquire(source.oid, &source.qualified(), LockMode::ShareUpdateExclusive)?;
    let columns = columns(target.oid)?;
    // Of a source that goes into one target as a whole, a row that does not fit must fail and not be passed over.
    let condition = match targets.len() {
        1 => String::new(),
        _ => format!(" WHERE {}", run.request.targets[at].condition),
    };
    let sql = format!(
        "INSERT INTO {} ({columns}) OVERRIDING SYSTEM VALUE SELECT {columns} FROM ONLY {}{condition}",
        target.qualified(),
        source.qualified()
    );
    // With row security off a policy that would hide rows is an error.
    let _settings = GucNest::new().set(c"row_security", "off");
    let rows = user::as_user(source.owner, || spi::execute(&sql, &[]))?;
    run.done.copies += 1;
    run.done.rows += rows;
    run.save("copying")
}

fn columns(table: pg_sys::Oid) -> Result<String> {
    let columns: Vec<_> = discover::attributes(table)?
        .iter()
        .filter(|column| column.generated.is_empty())
        .map(|column| quote_identifier(&column.name))
        .collect();
    Ok(columns.join(", "))
}

/// Indexes, constraints, foreign keys, what the sources have of their own, the guard.
pub fn build(run: &mut Run, sources: &[Leaf]) -> Step {
    let Some(parent) = sources[0].parent else { return Err(run.stopped("it is detached")) };
    for (table, target) in run.tables()?.iter().zip(&run.request.targets) {
        let (name, owner) = (table.qualified(), table.owner);
        let check = freeze::BOUNDS_CHECK;
        user::as_user(owner, || {
            spi::execute(&format!("ALTER TABLE {name} ADD CONSTRAINT {check} CHECK ({})", target.condition), &[])
        })?;
        adapt::adopt_constraints(parent, table.oid)?;
        swap::complete_indexes(parent, table.oid, &run.request.schema, &target.bounds)?;
        carry_over::adopt_foreign_keys(parent, table.oid, owner)?;
        carry_over::carry_over(sources, table.oid, owner)?;
        user::as_user(owner, || spi::execute(&format!("ANALYZE {name}"), &[]))?;
        let reason = if run.status()? == Status::Warm { freeze::Reason::Warm } else { freeze::Reason::Rearranging };
        freeze::guard(table.oid, &name, owner, reason)?;
    }
    run.done.built = true;
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
    locks::acquire(parent, &catalog::qualified_name(parent)?, LockMode::AccessExclusive)?;
    for table in sources.iter().chain(&targets) {
        locks::acquire(table.oid, &table.qualified(), LockMode::AccessExclusive)?;
    }
    archive::note_swap();
    if run.done.verified.as_ref() != Some(&states(&run.sources()?, &run.tables()?)?) {
        return Err(run.stopped("a table changed since its rows were compared"));
    }
    swap::finalize_pending(parent)?;
    for source in sources {
        swap::detach(parent, &source.qualified())?;
    }
    for (table, target) in targets.iter().zip(&run.request.targets) {
        swap::attach(parent, &table.qualified(), &target.bounds)?;
    }
    xact::command_counter_increment();
    if let Some(default) = default {
        default_rows::admit(default, xact::top_transaction_id())?;
    }
    record(run, sources, &targets)?;
    run.done.swapped = true;
    run.save("swapped")
}

/// Catalog rows and events; a WARM partition is frozen by the settler.
fn record(run: &Run, sources: &[Leaf], targets: &[Leaf]) -> Result<()> {
    let (managed, status) = (managed::ensure(run.root)?, run.status()?);
    let policy = catalog::policy::of(run.root)?;
    let names: Vec<_> = sources.iter().map(Leaf::qualified).collect();
    let removal_time = catalog::partition::latest_removal_time(&oids(sources))?;
    let from = sources.iter().map(|source| catalog::partition::local_status(source.oid)).collect::<Result<Vec<_>>>()?;
    for source in sources {
        catalog::partition::forget(source.oid)?;
    }
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
            details: serde_json::json!({ "from": names, "rows": run.done.rows }),
        })?;
    }
    if status == Status::Warm {
        settler::after_commit(&run.name);
    }
    Ok(())
}

fn oids(leaves: &[Leaf]) -> Vec<pg_sys::Oid> {
    leaves.iter().map(|leaf| leaf.oid).collect()
}

/// The old partitions, detached by now, go.
pub fn drop_sources(run: &Run) -> Step {
    for source in run.request.partitions.iter().map(|oid| discover::leaf(pg_sys::Oid::from(*oid))) {
        let Some(source) = source?.filter(|source| source.parent.is_none()) else { continue };
        locks::acquire(source.oid, &source.qualified(), LockMode::AccessExclusive)?;
        user::as_user(source.owner, || spi::execute(&format!("DROP TABLE {}", source.qualified()), &[]))?;
    }
    catalog::job::complete(run.job, run.done.rows)?;
    Ok((false, "done".to_owned()))
}
