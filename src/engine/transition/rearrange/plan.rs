//! What a merge or split will do, with everything refused that can be before it starts.

use archive_core::lifecycle::{Granularity, Moment, Status, calendar, name_pattern, range_lists};
use pgrx::{Uuid, pg_sys};
use serde_json::Value;

use super::{Request, Target, start};
use crate::catalog;
use crate::catalog::job::Job;
use crate::engine::transition::calendar::{self as table_calendar, Calendar};
use crate::engine::transition::premake;
use crate::engine::{managed, transition};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::{carry_over, check, freeze, new_partition, subscribed};
use crate::pg::{spi, user};

/// The job that merges adjacent partitions into one, which will be WARM; one that does just this already is taken up again.
///
/// Errors: 22023 for fewer than two, gaps, or different parents; 0A000 for what is no RANGE partition; 42P07 for a name that is
/// taken; 55006 for partitions in the work of another job; 2BP01 for those that views depend on.
pub fn begin_merge(partitions: &[pg_sys::Oid], name: Option<&str>) -> Result<Uuid> {
    check::transaction("merging")?;
    let unique = distinct(partitions);
    match taken_up_again("merge", &unique)? {
        Some(job) => Ok(job),
        None => start("merge", &merge(&unique, name, None)?),
    }
}

fn distinct(partitions: &[pg_sys::Oid]) -> Vec<pg_sys::Oid> {
    let mut unique = partitions.to_vec();
    unique.sort_unstable_by_key(|oid| oid.to_u32());
    unique.dedup();
    unique
}

/// The request of a job that a scheduler made with `partitions` and `name` or `granularity` only. Partitions are OIDs or names.
pub fn complete(job: &Job) -> Result<Request> {
    let mut partitions = Vec::new();
    for named in job.request.get("partitions").and_then(Value::as_array).into_iter().flatten() {
        partitions.extend(match named {
            Value::String(name) => user::elevated(|| {
                spi::one("SELECT to_regclass($1)::oid", &[name.as_str().into()], |row| row.get::<pg_sys::Oid>(1))
            })?,
            other => other.as_u64().and_then(|oid| u32::try_from(oid).ok()).map(pg_sys::Oid::from),
        });
    }
    let text = |key: &str| job.request.get(key).and_then(Value::as_str);
    match (job.operation.as_str(), partitions.first().copied().or(job.partition)) {
        ("split", Some(partition)) => split(partition, text("granularity").unwrap_or("month"), Some(job.id)),
        _ => merge(&distinct(&partitions), text("name"), Some(job.id)),
    }
}

fn merge(unique: &[pg_sys::Oid], name: Option<&str>, job: Option<Uuid>) -> Result<Request> {
    if unique.len() < 2 {
        return Err(invalid("a merge needs at least two partitions"));
    }
    let leaves = unique.iter().map(|oid| mergeable(*oid, job)).collect::<Result<Vec<_>>>()?;
    let (parent, root) = one_parent(&leaves)?;
    let (leaves, lower, upper) = in_a_row(leaves)?;
    carry_over::check_row_security(&leaves)?;
    check_dependents(&leaves)?;
    for leaf in &leaves {
        check::inbound_foreign_keys(leaf, &[])?;
    }
    let schema = leaves[0].schema.clone();
    let name = match name {
        Some(name) => name.to_owned(),
        None => merged_name(parent, &leaves)?,
    };
    new_partition::check_name(&schema, &name)?;
    let bounds = format!("FOR VALUES FROM ({lower}) TO ({upper})");
    let condition = new_partition::condition(parent, &schema, &bounds)?;
    announce_space(&leaves)?;
    managed::ensure(root)?;
    Ok(Request {
        partitions: leaves.iter().map(|leaf| leaf.oid.to_u32()).collect(),
        names: leaves.iter().map(Leaf::qualified).collect(),
        schema,
        targets: vec![Target { name, bounds, condition }],
        status: Status::Warm.to_string(),
    })
}

/// The job that splits a partition into those of a finer granularity, which keep its status.
pub fn begin_split(partition: pg_sys::Oid, granularity: &str) -> Result<Uuid> {
    check::transaction("splitting")?;
    match taken_up_again("split", &[partition])? {
        Some(job) => Ok(job),
        None => start("split", &split(partition, granularity, None)?),
    }
}

fn split(partition: pg_sys::Oid, granularity: &str, job: Option<Uuid>) -> Result<Request> {
    let granularity: Granularity = granularity.parse()?;
    let leaf = mergeable(partition, job)?;
    let leaves = vec![leaf.clone()];
    let (parent, root) = one_parent(&leaves)?;
    let calendar = Calendar::of(table_calendar::source(parent)?, Some(granularity.as_str()))?;
    let pieces = pieces(&calendar, &leaf, granularity)?;
    check_dependents(&leaves)?;
    check::inbound_foreign_keys(&leaf, &[])?;
    let mut targets: Vec<Target> = Vec::with_capacity(pieces.len());
    for (lower, upper) in pieces {
        let mut name = premake::name(&calendar, lower)?;
        if targets.iter().any(|target| target.name == name) {
            // A week that a month's begin cuts bears the same number as the one after it.
            name = premake::name_of_day(&calendar, lower);
        }
        new_partition::check_name(&leaf.schema, &name)?;
        let bounds = new_partition::range_clause(&calendar.bound(lower)?, &calendar.bound(upper)?);
        let condition = new_partition::condition(parent, &leaf.schema, &bounds)?;
        targets.push(Target { name, bounds, condition });
    }
    let status = catalog::partition::local_status(leaf.oid)?.to_string();
    announce_space(&leaves)?;
    managed::ensure(root)?;
    Ok(Request {
        partitions: vec![leaf.oid.to_u32()],
        names: vec![leaf.qualified()],
        schema: leaf.schema.clone(),
        targets,
        status,
    })
}

fn pieces(calendar: &Calendar, leaf: &Leaf, granularity: Granularity) -> Result<Vec<(Moment, Moment)>> {
    let name = leaf.qualified();
    let siblings: Vec<_> = discover::children(calendar.source.oid)?
        .into_iter()
        .filter(|sibling| sibling.bounds.as_deref() != Some("DEFAULT"))
        .collect();
    let own =
        siblings.iter().zip(&calendar.taken).find(|(sibling, _)| sibling.oid == leaf.oid).map(|(_, range)| *range);
    let Some(range) = own.filter(|(lower, upper)| *lower != Moment::MIN && *upper != Moment::MAX) else {
        return Err(invalid(&format!("\"{name}\" has no bound on one side")));
    };
    let pieces = calendar::pieces(range, granularity);
    match pieces.len() {
        2..=1_000 => Ok(pieces),
        0 | 1 => {
            Err(invalid(&format!("\"{name}\" is no longer than one {granularity}")).hint("Choose a finer granularity."))
        }
        count => {
            Err(invalid(&format!("\"{name}\" would become {count} partitions")).hint("Choose a coarser granularity."))
        }
    }
}

fn invalid(message: &str) -> Error {
    Error::new(SqlState::ERRCODE_INVALID_PARAMETER_VALUE, message)
}

/// An unfinished job of this kind on these very partitions.
fn taken_up_again(operation: &str, partitions: &[pg_sys::Oid]) -> Result<Option<Uuid>> {
    let Some(first) = partitions.first() else { return Ok(None) };
    let Some(id) = catalog::job::working_on(*first, None)? else { return Ok(None) };
    let same = |job: &Job| job.operation == operation && job.request.get("sources").is_some();
    let Some(job) = catalog::job::find(id)?.filter(same) else { return Ok(None) };
    let request: Request = serde_json::from_value(job.request)?;
    let mut sources: Vec<_> = request.partitions.iter().map(|oid| pg_sys::Oid::from(*oid)).collect();
    sources.sort_unstable_by_key(|oid| oid.to_u32());
    Ok((sources == partitions && job.status == "running").then_some(id))
}

/// A partition that can be merged or split.
fn mergeable(partition: pg_sys::Oid, job: Option<Uuid>) -> Result<Leaf> {
    if let Some(known) = catalog::partition::of_archive_relation(partition)? {
        let name = pgrx::spi::quote_qualified_identifier(&known.schema_name, &known.partition_name);
        return Err(Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("partition \"{name}\" is archived"),
        )
        .hint(format!("SELECT reattach_partition('{name}') brings it back first.")));
    }
    let leaf = transition::check_partition(partition, Status::Warm)?;
    let name = leaf.qualified();
    let unsupported = |what: &str| Error::new(SqlState::ERRCODE_FEATURE_NOT_SUPPORTED, format!("\"{name}\" {what}"));
    if leaf.kind != 'r' {
        return Err(unsupported("is partitioned itself").hint("Merge or split its leaves."));
    }
    if leaf.strategy != Some('r') {
        return Err(unsupported("is no RANGE partition").hint("Only RANGE partitions lie beside each other."));
    }
    if leaf.persistence != 'p' {
        return Err(unsupported("is an unlogged table").hint(format!("ALTER TABLE {name} SET LOGGED;")));
    }
    check::no_stubs(&leaf)?;
    subscribed::refuse(&leaf, false)?;
    transition::not_in_work(&leaf, job)?;
    if freeze::guarded_because(leaf.oid)?.as_deref() == Some(freeze::Reason::Archiving.as_str())
        && !catalog::partition::is_read_only(leaf.oid)?
    {
        return Err(freeze::changed(&name));
    }
    Ok(leaf)
}

fn one_parent(leaves: &[Leaf]) -> Result<(pg_sys::Oid, pg_sys::Oid)> {
    let first = &leaves[0];
    if let Some(other) = leaves.iter().find(|leaf| leaf.parent != first.parent) {
        return Err(invalid(&format!(
            "\"{}\" and \"{}\" have different parents",
            first.qualified(),
            other.qualified()
        ))
        .hint("Only partitions of one table can be merged."));
    }
    match (first.parent, first.root) {
        (Some(parent), Some(root)) => Ok((parent, root)),
        _ => Err(invalid(&format!("\"{}\" is not a partition", first.qualified()))),
    }
}

/// The partitions in the order of their bounds, with the lowest and the highest bound. Each must begin where another ends.
fn in_a_row(mut left: Vec<Leaf>) -> Result<(Vec<Leaf>, String, String)> {
    let lists = |leaf: &Leaf| {
        let bounds = leaf.bounds.as_deref().unwrap_or_default();
        range_lists(bounds).map(|(lower, upper)| (lower.to_owned(), upper.to_owned())).unwrap_or_default()
    };
    let uppers: Vec<_> = left.iter().map(|leaf| lists(leaf).1).collect();
    let begins: Vec<_> = (0..left.len()).filter(|at| !uppers.contains(&lists(&left[*at]).0)).collect();
    let [first] = begins.as_slice() else {
        let names: Vec<_> = begins.iter().map(|at| format!("\"{}\"", left[*at].qualified())).collect();
        return Err(invalid("the partitions do not lie beside each other")
            .detail(format!("None of them ends where these begin: {}.", names.join(", ")))
            .hint("Name the partitions between them too, or merge them in several calls."));
    };
    let mut row = vec![left.swap_remove(*first)];
    let (lower, mut upper) = lists(&row[0]);
    while let Some(at) = left.iter().position(|leaf| lists(leaf).0 == upper) {
        let next = left.swap_remove(at);
        upper = lists(&next).1;
        row.push(next);
    }
    Ok((row, lower, upper))
}

/// `orders_2024` for the months of `orders` in 2024; a name must be given where the bounds do not tell the time.
fn merged_name(parent: pg_sys::Oid, leaves: &[Leaf]) -> Result<String> {
    let needs_name =
        || invalid("the merged partition needs a name").hint("The bounds do not tell the time: pass name => '…'.");
    let calendar = Calendar::of(table_calendar::source(parent)?, None).map_err(|_| needs_name())?;
    let bounds = |leaf: &Leaf| archive_core::lifecycle::range_bounds(leaf.bounds.as_deref().unwrap_or_default());
    let (Some(lower), Some(upper)) = (bounds(&leaves[0]).0, leaves.last().and_then(|leaf| bounds(leaf).1)) else {
        return Err(needs_name());
    };
    let (Some(lower), Some(upper)) = (calendar.moment(&lower)?, calendar.moment(&upper)?) else {
        return Err(needs_name());
    };
    let granularity = Granularity::between(lower, upper).ok_or_else(needs_name)?;
    Ok(name_pattern::of_table(&calendar.source.name, lower, granularity))
}

/// Views on a partition would keep it from being dropped after the swap (2BP01).
fn check_dependents(leaves: &[Leaf]) -> Result<()> {
    let oids: Vec<_> = leaves.iter().map(|leaf| leaf.oid).collect();
    let dependents = carry_over::dependents(&oids)?;
    if dependents.is_empty() {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_DEPENDENT_OBJECTS_STILL_EXIST, "other objects depend on the partitions")
        .detail(format!("These do: {}.", dependents.join(", ")))
        .hint("Let them read the partitioned table instead, or drop them."))
}

fn announce_space(leaves: &[Leaf]) -> Result<()> {
    let bytes: u64 = leaves.iter().map(|leaf| leaf.total_bytes).sum();
    let size: String =
        spi::one("SELECT pg_catalog.pg_size_pretty($1)", &[bytes.cast_signed().into()], |row| row.need(1))?;
    crate::pg::server_text::notice!("about {size} of disk space are needed until the old partitions are dropped");
    Ok(())
}
