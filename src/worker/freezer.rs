//! The freezer: a short-lived worker that commits the freeze for a function call, and lifts it if the call's
//! transaction does not archive the partition after all.
//!
//! A function cannot commit, yet writers must fail at once instead of queueing behind it (DESIGN §5). So the caller
//! starts this worker, which commits guards and CHECK, answers, and then waits for the end of the caller's transaction.

use std::time::Duration;

use pgrx::prelude::*;
use serde::{Deserialize, Serialize};

use crate::catalog;
use crate::catalog::job::NewJob;
use crate::engine::drift;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::guc;
use crate::partition::discover::{self, Leaf};
use crate::partition::{check, default_rows, freeze, locks, swap};
use crate::pg::lock::giving_way;
use crate::pg::mailbox::Mailbox;
use crate::pg::relation::LockMode;
use crate::pg::{background, user, xact};

/// What the caller asks for.
#[derive(Debug, Serialize, Deserialize)]
pub struct Order {
    /// Database.
    pub database: u32,
    /// Role of the caller.
    pub user: u32,
    /// The caller's transaction: when it ends, the worker settles.
    pub xid: u32,
    /// The caller's backend.
    pub pid: i32,
    /// `archive_ext.lock_timeout` of the caller, in milliseconds.
    pub lock_timeout_ms: i32,
    /// The partitions to freeze.
    pub partitions: Vec<OrderItem>,
    /// The DEFAULT partition from which a range is to be kept out.
    pub exclude: Option<Exclude>,
}

impl Order {
    /// Of the current user, for this transaction.
    pub fn of_this_transaction(partitions: Vec<OrderItem>, exclude: Option<Exclude>) -> Self {
        Self {
            database: background::my_database().to_u32(),
            user: user::current().to_u32(),
            xid: xact::top_transaction_id(),
            pid: std::process::id().cast_signed(),
            lock_timeout_ms: guc::lock_timeout_ms(),
            partitions,
            exclude,
        }
    }
}

/// A range to keep out of a DEFAULT partition until the caller's transaction ends.
#[derive(Debug, Serialize, Deserialize)]
pub struct Exclude {
    /// The DEFAULT partition.
    pub default_partition: u32,
    /// The partition constraint of the range.
    pub condition: String,
}

/// One partition to freeze.
#[derive(Debug, Serialize, Deserialize)]
pub struct OrderItem {
    /// The partition.
    pub partition: u32,
    /// Id of the job whose row the worker writes.
    pub job: String,
    /// Storage of the job.
    pub storage: String,
    /// `content` or `deep`.
    pub verify: String,
    /// How long the local copy stays, in seconds.
    pub drop_local_seconds: i64,
}

/// What the worker answers.
#[derive(Debug, Serialize, Deserialize)]
enum Answer {
    Frozen,
    Failed { sqlstate: i32, message: String, detail: Option<String>, hint: Option<String> },
}

/// How long the caller waits beyond the lock timeouts for the worker to start and scan.
const START_TIMEOUT: Duration = Duration::from_secs(10);
/// Attempts to lift the guards after the caller gave up; each waits for the lock timeout.
const LIFT_ATTEMPTS: u32 = 60;

/// Has a worker commit the freeze of every partition of `order`. Interruptible.
pub fn freeze(order: &Order) -> Result<()> {
    let request = serde_json::to_string(order)?;
    let Some(mailbox) = Mailbox::create(&request) else {
        return Err(Error::new(SqlState::ERRCODE_PROGRAM_LIMIT_EXCEEDED, "too many partitions in one call")
            .hint("Archive fewer partitions at once."));
    };
    let Some(worker) = background::start("archive_ext freezer", "archive_ext_freezer", mailbox.handle()) else {
        return Err(no_worker());
    };
    let begun = std::time::Instant::now();
    loop {
        if let Some(answer) = mailbox.answered() {
            mailbox.detach();
            return outcome(&answer);
        }
        let stopped = matches!(worker.pid(), Err(pgrx::bgworkers::BackgroundWorkerStatus::Stopped));
        let never_started = worker.pid().is_err() && begun.elapsed() > START_TIMEOUT;
        if (stopped || never_started) && mailbox.answered().is_none() {
            return Err(Error::new(
                SqlState::ERRCODE_INSUFFICIENT_RESOURCES,
                "the freezer worker ended without an answer",
            )
            .hint("The server log says why."));
        }
        background::pause(Duration::from_millis(5));
    }
}

fn no_worker() -> Error {
    Error::new(SqlState::ERRCODE_INSUFFICIENT_RESOURCES, "no background worker slot is free for freezing the partition")
        .detail("The function form needs one for a moment, to commit the freeze before the export.")
        .hint("CALL archive_partition_steps(…), which commits by itself, or raise max_worker_processes.")
}

fn outcome(answer: &str) -> Result<()> {
    match serde_json::from_str(answer)? {
        Answer::Frozen => Ok(()),
        Answer::Failed { sqlstate, message, detail, hint } => {
            let mut error = Error::new(SqlState::from(sqlstate), message);
            if let Some(detail) = detail {
                error = error.detail(detail);
            }
            Err(match hint {
                Some(hint) => error.hint(hint),
                None => error,
            })
        }
    }
}

/// Entry point of the worker; the argument is the mailbox's handle.
#[allow(unsafe_code)]
#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn archive_ext_freezer(argument: pg_sys::Datum) {
    let Some(mailbox) = Mailbox::attach(argument.value() as u32) else { return };
    let Ok(order) = serde_json::from_str::<Order>(&mailbox.read()) else { return };
    background::connect(pg_sys::Oid::from(order.database));
    locks::work_for(order.pid);
    match freeze_all(&order) {
        Ok(()) => {
            failpoint!("freezer_done");
            answer(&mailbox, &Answer::Frozen);
            failpoint!("freezer_answered");
            background::wait_for_transaction(order.xid);
            settle(&order, "the transaction that archived it was rolled back");
        }
        Err(error) => {
            let reason = error.message().to_owned();
            settle(&order, &reason);
            answer(&mailbox, &Answer::failed(&error));
        }
    }
}

impl Answer {
    fn failed(error: &Error) -> Self {
        Self::Failed {
            sqlstate: error.sqlstate() as i32,
            message: error.message().to_owned(),
            detail: error.detail_text().map(str::to_owned),
            hint: error.hint_text().map(str::to_owned),
        }
    }
}

fn answer(mailbox: &Mailbox, answer: &Answer) {
    mailbox.answer(&serde_json::to_string(answer).unwrap_or_default());
}

fn freeze_all(order: &Order) -> Result<()> {
    for item in &order.partitions {
        step(order, || begin(order, item))?;
        failpoint!("freezer_committed");
        step(order, || freeze::validate_bounds_check(&leaf(item)?))?;
    }
    match &order.exclude {
        Some(exclude) => {
            step(order, || default_rows::exclude(exclude.default_partition.into(), &exclude.condition, order.xid))
        }
        None => Ok(()),
    }
}

/// One committed transaction as the caller's role; an error in it is returned, not raised.
fn step(order: &Order, work: impl FnOnce() -> Result<()>) -> Result<()> {
    background::transaction(|| {
        let outcome = xact::subtransaction(|| {
            let timeout = format!("{}ms", order.lock_timeout_ms);
            let _ours = crate::pg::guc::GucNest::new().set(c"archive_ext.lock_timeout", &timeout);
            let _bounded = swap::bounded();
            let _user = user::UserGuard::become_user(pg_sys::Oid::from(order.user));
            giving_way(work).or_raise();
        });
        outcome.map_err(Error::from)
    })
}

fn leaf(item: &OrderItem) -> Result<Leaf> {
    drop(locks::hold_still(pg_sys::Oid::from(item.partition))?);
    check::archivable(pg_sys::Oid::from(item.partition))
}

fn begin(order: &Order, item: &OrderItem) -> Result<()> {
    let leaf = leaf(item)?;
    let job = parse_uuid(&item.job)?;
    // The partition first, then the rows of its jobs, as `settle_one` does: the other way round two runs could deadlock.
    // It looks at the whole table, which DDL locks before its partitions.
    drift::note_columns(leaf.root.unwrap_or(leaf.oid))?;
    freeze::close(&leaf)?;
    catalog::job::supersede(leaf.oid, job)?;
    catalog::job::start(
        job,
        &NewJob {
            operation: "archive",
            table: leaf.root.unwrap_or(leaf.oid),
            partition_name: &leaf.qualified(),
            partition: Some(leaf.oid),
            storage: &item.storage,
            verify: &item.verify,
            drop_local_seconds: Some(item.drop_local_seconds),
            phase: "frozen",
        },
        &user::name_of(user::current()),
        order.pid,
    )
}

/// After the caller's transaction: a partition that is still attached gets its guards lifted.
fn settle(order: &Order, reason: &str) {
    for item in &order.partitions {
        persist(order, item.partition, || settle_one(item, reason));
    }
    if let Some(exclude) = &order.exclude {
        persist(order, exclude.default_partition, || settle_default(exclude, order.xid));
    }
}

/// Tries a step until it works: the locks it needs may be held for a while.
fn persist(order: &Order, relation: u32, work: impl Fn() -> Result<()>) {
    for attempt in 1..=LIFT_ATTEMPTS {
        match step(order, &work) {
            Ok(()) => return,
            Err(error) if attempt == LIFT_ATTEMPTS || background::asked_to_end() => {
                crate::pg::server_text::warning!(
                    "archive_ext could not lift the freeze of relation {relation}: {}",
                    error.message()
                );
                return;
            }
            Err(_) => background::pause(Duration::from_millis(500)),
        }
    }
}

/// Whether the reattach committed or not: the CHECK has done its service.
fn settle_default(exclude: &Exclude, xid: u32) -> Result<()> {
    let default = pg_sys::Oid::from(exclude.default_partition);
    if discover::leaf(default)?.is_none() || !default_rows::excludes(default, xid)? {
        return Ok(());
    }
    locks::acquire(default, &catalog::qualified_name(default)?, LockMode::AccessExclusive)?;
    default_rows::admit(default, xid)
}

fn settle_one(item: &OrderItem, reason: &str) -> Result<()> {
    let oid = pg_sys::Oid::from(item.partition);
    let job = parse_uuid(&item.job)?;
    failpoint!("freezer_settles");
    let still_attached = discover::leaf(oid)?.filter(|leaf| leaf.parent.is_some());
    if let Some(leaf) = still_attached.filter(|_| freeze::observe(oid).is_ok_and(|guarded| guarded.guards)) {
        // Locked before the job is looked at: a run that takes over guards the partition anew and ends this job.
        locks::acquire(oid, &leaf.qualified(), LockMode::ShareRowExclusive)?;
        if catalog::job::find(job)?.is_some_and(|job| job.status == "running") {
            freeze::lift(oid)?;
        }
    }
    catalog::job::stop(job, "failed", reason)
}

fn parse_uuid(text: &str) -> Result<pgrx::Uuid> {
    crate::pg::spi::one("SELECT $1::uuid", &[text.into()], |row| row.need(1))
}
