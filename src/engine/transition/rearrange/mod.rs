//! Merging partitions into one and splitting one into several: the rows are copied into tables beside the partitioned
//! table, compared, and swapped in at once.
//!
//! A job of several steps, each a transaction of its own: freeze, create, copy (one source into one target at a time), build,
//! verify, swap, drop. What was done is in the job's row, written by the transaction that did it, so a crash costs the step that
//! it interrupted.

mod plan;
mod whole;
mod work;

use archive_core::lifecycle::Status;
use pgrx::{Uuid, pg_sys};
use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::catalog::job::{Job, NewJob};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover::{self, Leaf};
use crate::partition::snapshots::Held;
use crate::partition::{check, freeze, locks, swap};
use crate::pg::user;

pub use plan::{begin_merge, begin_split};
pub use whole::{merge, split};

/// What a job is to do; the job's `request`.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The sources in the order of their bounds.
    #[serde(rename = "sources")]
    pub partitions: Vec<u32>,
    /// Their names, for people and for the scheduler.
    #[serde(rename = "partitions")]
    pub names: Vec<String>,
    /// Schema of the new partitions.
    pub schema: String,
    /// The new partitions in the order of their bounds.
    pub targets: Vec<Target>,
    /// The status that they will have.
    pub status: String,
}

/// A partition to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Target {
    /// Name.
    pub name: String,
    /// FOR VALUES clause.
    pub bounds: String,
    /// Partition constraint.
    pub condition: String,
}

/// How far a job is; its `progress`.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Done {
    /// OIDs of the new tables.
    #[serde(default)]
    tables: Vec<u32>,
    /// How many copies are made, of sources × targets.
    #[serde(default)]
    copies: usize,
    /// Rows copied.
    #[serde(default)]
    rows: u64,
    #[serde(default)]
    built: bool,
    /// Transactions whose snapshots may be older than the copies: those of the time after the last one.
    #[serde(default)]
    older: Option<Held>,
    /// Files and guards of sources and targets when they were compared.
    #[serde(default)]
    verified: Option<Vec<String>>,
    #[serde(default)]
    swapped: bool,
}

/// One job as its steps see it.
struct Run {
    job: Uuid,
    name: String,
    root: pg_sys::Oid,
    request: Request,
    done: Done,
    /// Whether it merges.
    merges: bool,
}

impl Run {
    fn of(job: &Job) -> Result<Self> {
        let request: Request = serde_json::from_value(job.request.clone())?;
        let done = serde_json::from_value(job.progress.clone())?;
        let (name, merges) = (job.partition_name.clone(), job.operation == "merge");
        Ok(Self { job: job.id, name, root: job.table, request, done, merges })
    }

    fn status(&self) -> Result<Status> {
        Ok(self.request.status.parse()?)
    }

    /// The sources as they are now. A source that is gone or was detached stops the job (55000).
    fn sources(&self) -> Result<Vec<Leaf>> {
        let found = self.request.partitions.iter().map(|oid| discover::leaf(pg_sys::Oid::from(*oid)));
        let leaves: Vec<_> = found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if leaves.len() == self.request.partitions.len() && leaves.iter().all(|leaf| leaf.parent.is_some()) {
            return Ok(leaves);
        }
        Err(self.stopped("one of its partitions was dropped or detached"))
    }

    /// The tables made by an earlier step.
    fn tables(&self) -> Result<Vec<Leaf>> {
        let found = self.done.tables.iter().map(|oid| discover::leaf(pg_sys::Oid::from(*oid)));
        let leaves: Vec<_> = found.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect();
        if leaves.len() == self.request.targets.len() {
            Ok(leaves)
        } else {
            Err(self.stopped("a table it made was dropped"))
        }
    }

    fn stopped(&self, reason: &str) -> Error {
        let verb = if self.merges { "merging into" } else { "splitting" };
        Error::new(
            SqlState::ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE,
            format!("{verb} \"{}\" cannot go on: {reason}", self.name),
        )
        .hint("See archive_ext.jobs; cancel_job(job_id) ends the job and lifts its guards.")
    }

    fn save(&self, phase: &str) -> Result<(bool, String)> {
        catalog::job::advance(self.job, phase, &serde_json::to_value(&self.done)?)?;
        Ok((true, phase.to_owned()))
    }
}

/// The next step of a merge or split; whether there are more, and the phase reached. The caller commits.
pub fn step(job: &Job) -> Result<(bool, String)> {
    if job.request.get("targets").is_none() {
        catalog::job::set_request(job.id, &serde_json::to_value(plan::complete(job)?)?)?;
        return Ok((true, job.phase.clone()));
    }
    let mut run = Run::of(job)?;
    locks::claim_partition(&run.name)?;
    if run.done.swapped {
        return work::drop_sources(&run);
    }
    let sources = run.sources()?;
    for source in &sources {
        locks::claim_partition(&source.qualified())?;
        check::access(source)?;
    }
    if run.done.tables.is_empty() {
        if !all_guarded(&sources)? {
            return work::freeze(&run, &sources);
        }
        return work::create(&mut run, &sources);
    }
    if !all_guarded(&sources)? {
        return Err(run.stopped("the guard of a partition is gone, so its rows may have changed"));
    }
    if run.done.copies < sources.len() * run.request.targets.len() {
        work::copy(&mut run, &sources)
    } else if !run.done.built {
        work::build(&mut run, &sources)
    } else if run.done.verified.is_none() {
        work::verify(&mut run, &sources)
    } else {
        work::swap_in(&mut run, &sources)
    }
}

fn all_guarded(sources: &[Leaf]) -> Result<bool> {
    for source in sources {
        if !freeze::observe(source.oid)?.guards {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Undoes a job that was not finished: what it made is dropped, its sources are writable again unless they are WARM. After the
/// swap there is nothing to undo: the sources that are left over are named in a notice.
pub fn abandon(job: &Job) -> Result<()> {
    if job.request.get("targets").is_none() {
        return Ok(());
    }
    let run = Run::of(job)?;
    locks::claim_partition(&run.name)?;
    if run.done.swapped {
        crate::pg::server_text::notice!(
            "{} is in place; what it was made of is detached and still to be dropped",
            run.name
        );
        return Ok(());
    }
    swap::drop_detached(&detached(&run.done.tables)?)?;
    for source in run.request.partitions.iter().map(|oid| discover::leaf(pg_sys::Oid::from(*oid))) {
        let Some(source) = source?.filter(|source| source.parent.is_some()) else { continue };
        check::access(&source)?;
        locks::claim_partition(&source.qualified())?;
        if freeze::guarded_because(source.oid)?.as_deref() == Some(freeze::Reason::Rearranging.as_str()) {
            freeze::lift(source.oid)?;
        }
    }
    Ok(())
}

/// Those of the tables that are there and no partitions.
fn detached(tables: &[u32]) -> Result<Vec<Leaf>> {
    let found = tables.iter().map(|oid| discover::leaf(pg_sys::Oid::from(*oid))).collect::<Result<Vec<_>>>()?;
    Ok(found.into_iter().flatten().filter(|table| table.parent.is_none()).collect())
}

/// Writes the job's row.
fn start(operation: &str, request: &Request) -> Result<Uuid> {
    let id = catalog::job::new_id()?;
    let first = request.partitions.first().map(|oid| discover::leaf(pg_sys::Oid::from(*oid))).transpose()?.flatten();
    let Some(first) = first else {
        return Err(Error::new(SqlState::ERRCODE_UNDEFINED_TABLE, "the partitions were dropped meanwhile"));
    };
    let name = match (operation, request.targets.first()) {
        ("merge", Some(target)) => pgrx::spi::quote_qualified_identifier(&request.schema, &target.name),
        _ => first.qualified(),
    };
    let job = NewJob {
        operation,
        table: first.root.unwrap_or(first.oid),
        partition_name: &name,
        partition: Some(first.oid),
        storage: "",
        verify: "content",
        drop_local_seconds: None,
        phase: "planned",
    };
    catalog::job::start(id, &job, &user::name_of(user::current()), std::process::id().cast_signed())?;
    catalog::job::set_request(id, &serde_json::to_value(request)?)?;
    Ok(id)
}
