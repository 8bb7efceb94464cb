//! The catalog against the relations of the database.

use archive_core::policy::JobStatus;

use super::Line;
use crate::catalog::consistency::{self, Partition};
use crate::catalog::{managed_table, policy, row_set};
use crate::engine::{drift, import, steps};
use crate::error::{Error, Result, SqlState};
use crate::partition::archive_tree::{self, ArchiveNames};
use crate::partition::{all_view, discover, freeze, locks, swap};

/// Every check.
pub(super) fn check(repair: bool) -> Result<Vec<Line>> {
    let mut lines = Vec::new();
    // First what others stumble over.
    jobs(repair, &mut lines)?;
    guards(repair, &mut lines)?;
    columns(repair, &mut lines)?;
    views(repair, &mut lines)?;
    foreign_tables(repair, &mut lines)?;
    local_copies(repair, &mut lines)?;
    places(&mut lines)?;
    Ok(lines)
}

fn jobs(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for job in consistency::lost_jobs()? {
        let about = format!("job {} of {}", job.id, job.partition);
        let problem = "it runs as the catalog says, and its session is gone";
        lines.push(if job.by_function {
            let remedy = "it is ended, and the partition can be written to and archived again.";
            Line::new(about, problem, remedy)
                .mended(repair, || steps::cancel(job.id, JobStatus::Failed.as_str(), "its session is gone").map(drop))?
        } else if job.scheduled {
            Line::new(about, problem, "The worker, or CALL run_lifecycle(), takes it up again.")
        } else {
            Line::new(about, problem, format!("Call it again, or SELECT cancel_job('{}').", job.id))
        });
    }
    Ok(())
}

fn guards(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for (table, name) in consistency::guarded_for_nobody(freeze::ROW_GUARD)? {
        let line = Line::new(&name, "it refuses writes for a run that there is not", "its guards are lifted.");
        lines.push(line.mended(repair, || {
            locks::claim_partition(&name)?;
            freeze::lift(table)
        })?);
    }
    Ok(())
}

fn columns(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for (table, name) in consistency::with_other_columns()? {
        let line = Line::new(name, "its archive has other columns", "the archive follows the table.");
        lines.push(line.mended(repair, || drift::sync(table))?);
    }
    Ok(())
}

fn foreign_tables(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for partition in consistency::without_foreign_table()? {
        let problem = "it is archived, and its foreign table is gone: no query reads its rows";
        let line =
            Line::new(partition.qualified(), problem, "its foreign table is made anew; the objects have its rows.");
        lines.push(line.mended(repair, || put_foreign(&partition))?);
    }
    for name in consistency::unregistered_foreign_tables()? {
        let problem = "it reads an archive that the catalog knows nothing of: queries fail there";
        let remedy = format!("DROP FOREIGN TABLE {name}; import_archive brings back what its storage holds.");
        lines.push(Line::new(name, problem, remedy));
    }
    Ok(())
}

/// Puts the foreign table of a partition back in its place. Refused where the hot table has rows for it (P1).
fn put_foreign(partition: &Partition) -> Result<()> {
    let gone = |what: &str| Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, format!("{what} does not exist any more"));
    if discover::leaf(partition.source)?.is_none() || discover::leaf(partition.parent)?.is_none() {
        return Err(gone("its hot table"));
    }
    let (Some(storage), false) = (&partition.storage, partition.row_set) else {
        return Err(Error::new(
            SqlState::ERRCODE_FEATURE_NOT_SUPPORTED,
            "rows that were archived one by one are not put back so",
        ));
    };
    let owner = discover::owner(partition.source)?;
    import::check_hot_side((&partition.schema, &partition.name), partition.parent, &partition.bounds, owner)?;
    let (_, source_name) = discover::schema_and_name(partition.source)?;
    let names = ArchiveNames::of(partition.source, &source_name, &policy::of(partition.source)?)?;
    let (_, mirror) = archive_tree::ensure(partition.source, partition.parent, &names)?;
    let place = swap::Place {
        schema: &partition.schema,
        name: &partition.name,
        bounds: &partition.bounds,
        owner,
        readers_of: partition.source,
    };
    let table = swap::put_foreign(&place, mirror, &names.schema, storage, partition.id)?;
    row_set::set_foreign_table(partition.id, table)
}

fn views(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for (table, name) in consistency::without_view()? {
        if !all_view::allowed(table)? {
            continue;
        }
        let line = Line::new(name, "the view over the table and its archive is gone", "the view is made anew.");
        lines.push(line.mended(repair, || {
            let Some(managed) = managed_table::of_source(table)? else { return Ok(()) };
            let Some(archive) = managed.archive_table else { return Ok(()) };
            let names = ArchiveNames::existing(&managed)?;
            let view = archive_tree::ensure_view(table, archive, None, &names, discover::owner(table)?)?;
            managed_table::set_archive(managed.id, archive, view)
        })?);
    }
    Ok(())
}

fn local_copies(repair: bool, lines: &mut Vec<Line>) -> Result<()> {
    for partition in consistency::without_local_copy()? {
        let line = Line::new(
            partition.qualified(),
            "its local copy is gone",
            "the catalog forgets it; reattach_partition restores the partition from its objects.",
        );
        lines.push(line.mended(repair, || consistency::forget_local_copy(partition.id))?);
    }
    Ok(())
}

/// What needs a decision: which rows are the right ones.
fn places(lines: &mut Vec<Line>) -> Result<()> {
    for partition in consistency::attached_twice()? {
        let problem = "it is archived, and the table has a partition in its place: rows may be read twice";
        let remedy = "Compare the two; detach the one from the table, or drop the foreign table of the archive.";
        lines.push(Line::new(partition.qualified(), problem, remedy));
    }
    for partition in consistency::without_hot_table()? {
        let problem = format!("it was in the table and is gone; version {} of it is in the storage", partition.version);
        let remedy = "If that was not meant, import_archive into another database brings the rows back.";
        lines.push(Line::new(partition.qualified(), problem, remedy));
    }
    Ok(())
}
