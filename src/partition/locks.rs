//! Who holds which lock: for refusals before the run and for naming blockers after a timeout.

use std::cell::Cell;
use std::time::{Duration, Instant};

use pgrx::pg_sys;

use crate::catalog;
use crate::error::{Error, OrRaise, Result, SqlState};
use crate::guc;
use crate::pg::lock::{self, Owner};
use crate::pg::relation::{self, LockMode};
use crate::pg::{background, spi, user, xact};

/// Lock modes this transaction holds on a relation, as `pg_locks` prints them.
pub fn held_here(relation: pg_sys::Oid) -> Result<Vec<String>> {
    user::elevated(|| {
        spi::rows(
            "SELECT mode FROM pg_locks
             WHERE locktype = 'relation' AND relation = $1 AND granted AND pid = pg_backend_pid()
               AND database = (SELECT oid FROM pg_database WHERE datname = current_database())",
            &[relation.into()],
            |row| row.need(1),
        )
    })
}

/// Takes a lock within `archive_ext.lock_timeout`, or fails naming who holds it, or who would deadlock with us (55P03, P6).
pub fn acquire(relation: pg_sys::Oid, name: &str, mode: LockMode) -> Result<()> {
    wait_for(relation, name, mode).map(drop)
}

fn wait_for(relation: pg_sys::Oid, name: &str, mode: LockMode) -> Result<Owner> {
    let (timeout, begun) = (guc::lock_timeout_ms(), Instant::now());
    let wanted = [(relation, mode)];
    while !lock::try_acquire(relation, mode) {
        refuse_deadlock(&wanted)?;
        let left = left_of(timeout, begun);
        if lock::acquire(relation, mode, left.clamp(1, lock::brief_wait_ms())) {
            return Ok(Owner::Transaction);
        }
        if left <= 0 {
            return Err(not_available(relation, name, timeout)?);
        }
    }
    Ok(Owner::Current)
}

/// A lock that is given back before the transaction ends.
#[derive(Debug)]
pub struct Held {
    relation: pg_sys::Oid,
    mode: LockMode,
    owner: Owner,
}

impl Drop for Held {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            lock::release(self.relation, self.mode, self.owner);
        }
    }
}

/// [`acquire`] for a while.
pub fn hold(relation: pg_sys::Oid, name: &str, mode: LockMode) -> Result<Held> {
    Ok(Held { relation, mode, owner: wait_for(relation, name, mode)? })
}

/// ACCESS SHARE on a relation for a while: several queries about its shape must find the same.
pub fn hold_still(relation: pg_sys::Oid) -> Result<Held> {
    let mode = LockMode::AccessShare;
    if lock::try_acquire(relation, mode) {
        return Ok(Held { relation, mode, owner: Owner::Current });
    }
    hold(relation, &catalog::qualified_name(relation)?, mode)
}

/// No pid; `pg_blocking_pids` has 0 for prepared transactions.
const NOBODY: i32 = -1;

thread_local! {
    /// The backend that waits for this process: the caller of a freezer. Who waits for it waits for us.
    static CALLER: Cell<i32> = const { Cell::new(NOBODY) };
}

/// From now on this process works for backend `pid`, which waits for it.
pub fn work_for(pid: i32) {
    CALLER.set(pid);
}

/// What is left of a timeout, in milliseconds.
fn left_of(timeout_ms: i32, begun: Instant) -> i32 {
    let elapsed = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
    i32::try_from(i64::from(timeout_ms).saturating_sub(elapsed)).unwrap_or(i32::MIN)
}

/// The 55P03 error that names the sessions in the way.
pub fn not_available(relation: pg_sys::Oid, name: &str, timeout_ms: i32) -> Result<Error> {
    let blockers = blockers(relation)?;
    let detail =
        if blockers.is_empty() { "The session that held it is gone by now.".to_owned() } else { blockers.join(" ") };
    Ok(Error::new(SqlState::ERRCODE_LOCK_NOT_AVAILABLE, format!("could not lock \"{name}\" within {timeout_ms} ms"))
        .detail(detail)
        .hint("Nothing was changed. Run it again when these have finished, or raise archive_ext.lock_timeout."))
}

/// The sessions that hold locks on a relation, as sentences; at most five. What they are at is shown by the rule of
/// `pg_stat_activity`.
pub fn blockers(relation: pg_sys::Oid) -> Result<Vec<String>> {
    let me = user::current();
    user::elevated(|| {
        spi::rows(
            "SELECT format('Process %s (user %s%s) holds %s.', l.pid, coalesce(a.usename::text, '?'),
                           CASE WHEN pg_has_role($2, 'pg_read_all_stats', 'USAGE') OR pg_has_role($2, a.usesysid, 'USAGE')
                                THEN format(', %s, query started %s', coalesce(a.state, a.backend_type),
                                            coalesce(to_char(a.query_start, 'YYYY-MM-DD HH24:MI:SS TZ'), '?')) END, l.mode)
             FROM pg_locks l LEFT JOIN pg_stat_activity a USING (pid)
             WHERE l.locktype = 'relation' AND l.relation = $1 AND l.granted AND l.pid <> pg_backend_pid()
               AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
             ORDER BY a.query_start LIMIT 5",
            &[relation.into(), me.into()],
            |row| row.need(1),
        )
    })
}

/// Waits, at most `archive_ext.lock_timeout`, until no other session makes the archive relation `name` (55P03).
pub fn serialize(kind: &str, name: &str) -> Result<()> {
    let waited = lock::within(guc::lock_timeout_ms(), || {
        user::elevated(|| {
            spi::execute(
                "SELECT pg_advisory_xact_lock(hashtextextended('archive_ext ' || $1 || ' ' || $2, 0))",
                &[kind.into(), name.into()],
            )
        })
    })?;
    waited.map(drop).ok_or_else(|| {
        Error::new(
            SqlState::ERRCODE_LOCK_NOT_AVAILABLE,
            format!("another session is making the archive {kind} \"{name}\""),
        )
        .hint("Run it again when that session has committed.")
    })
}

/// How often, and how far apart, [`claim_partition`] looks whether a partition is free.
const LOOKS: u32 = 6;
const BETWEEN_LOOKS: Duration = Duration::from_millis(20);

/// Makes this session the only one that archives or reattaches this partition, to the end of the transaction (55006).
///
/// A session that commits gives its locks on tables back before this one: who waited for one of those may come here in between, so a
/// tenth of a second passes before it is refused.
pub fn claim_partition(key: &str) -> Result<()> {
    for _ in 1..LOOKS {
        if try_claim(key)? {
            return Ok(());
        }
        background::pause(BETWEEN_LOOKS);
    }
    if try_claim(key)? { Ok(()) } else { Err(in_use(key)) }
}

fn in_use(key: &str) -> Error {
    Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("partition \"{key}\" is being archived or reattached by another session"),
    )
    .hint("See archive_ext.progress and archive_ext.jobs for the run in progress.")
}

/// The same, but waits for another session, `archive_ext.lock_timeout` at most (55006).
pub fn wait_for_partition(key: &str) -> Result<()> {
    let waited = lock::within(guc::lock_timeout_ms(), || {
        user::elevated(|| {
            spi::execute("SELECT pg_advisory_xact_lock(hashtextextended('archive_ext ' || $1, 0))", &[key.into()])
        })
    })?;
    waited.map(drop).ok_or_else(|| in_use(key))
}

fn try_claim(key: &str) -> Result<bool> {
    user::elevated(|| {
        spi::one("SELECT pg_try_advisory_xact_lock(hashtextextended('archive_ext ' || $1, 0))", &[key.into()], |row| {
            row.need(1)
        })
    })
}

/// Makes this session the only one that merges objects of the archive of this table, to the end of the transaction (55006).
pub fn claim_compaction(table: &str) -> Result<()> {
    if try_claim(&format!("compact {table}"))? {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_OBJECT_IN_USE,
        format!("the archive of \"{table}\" is being compacted by another session"),
    )
    .hint("See archive_ext.progress and archive_ext.jobs for the run in progress."))
}

/// How long one wait for a further lock lasts while others are held: far below what makes PostgreSQL look for deadlocks, ours
/// or another session's.
fn slice_ms() -> i32 {
    (lock::deadlock_timeout_ms() / 10).clamp(1, 100)
}

/// How long a set of locks is collected before all of them are given back.
fn collect_for() -> Duration {
    Duration::from_millis(4 * u64::from(slice_ms().unsigned_abs()))
}

/// Takes all these locks or none, within `archive_ext.lock_timeout` (55P03, P6).
///
/// DML on tables that reference each other locks them in either order, so there is no order that cannot deadlock with it.
/// Hence only the first lock is waited for in the queue; the others are waited for a moment while it is held, and if one
/// is not to be had, all are given back and collected anew, that one first. Whoever waits for this transaction is not waited for:
/// that is looked at before each wait, and none lasts until PostgreSQL would end one who began to wait for us meanwhile.
pub fn acquire_all(wanted: &[(pg_sys::Oid, LockMode)]) -> Result<()> {
    take_all(wanted, guc::lock_timeout_ms(), lock::brief_wait_ms(), || refuse_deadlock(wanted))
}

/// [`acquire_all`] for a command of the user's: as patient as that would be, by `lock_timeout`.
pub fn acquire_all_for_command(wanted: &[(pg_sys::Oid, LockMode)]) -> Result<()> {
    let timeout = lock::lock_timeout_ms().unwrap_or(i32::MAX);
    take_all(wanted, timeout, lock::brief_wait_ms(), || refuse_deadlock(wanted))
}

/// [`acquire_all`] in a transaction that has moved rows. Who writes to such a row waits for us, with locks that we want: so
/// the first lock is not waited for in the queue either, and as soon as somebody waits for a row, the locks are given up
/// (55P03), before PostgreSQL would take one of the two for deadlocked.
pub fn acquire_all_after_moving(wanted: &[(pg_sys::Oid, LockMode)]) -> Result<()> {
    take_all(wanted, guc::lock_timeout_ms(), slice_ms(), || {
        refuse_waiting(wanted, "other sessions wait for rows that are being moved")
    })
}

/// Refuses to wait for who waits for this transaction: for its snapshot, or for rows that the caller changed before.
fn refuse_deadlock(wanted: &[(pg_sys::Oid, LockMode)]) -> Result<()> {
    refuse_waiting(wanted, "sessions that hold locks which are wanted wait for this transaction")
}

fn refuse_waiting(wanted: &[(pg_sys::Oid, LockMode)], what: &str) -> Result<()> {
    let waiting = waiting_for_us(wanted)?;
    if waiting.is_empty() {
        return Ok(());
    }
    Err(Error::new(SqlState::ERRCODE_LOCK_NOT_AVAILABLE, what)
        .detail(waiting.join(" "))
        .hint("Nothing was changed. Run it again when these have finished."))
}

/// The sessions that wait for this transaction, or for who waits for it, and have locks on one of the relations that it wants, as
/// sentences; at most five.
fn waiting_for_us(wanted: &[(pg_sys::Oid, LockMode)]) -> Result<Vec<String>> {
    let relations: Vec<_> = wanted.iter().map(|(relation, _)| *relation).collect();
    user::elevated(|| {
        spi::rows(
            "WITH RECURSIVE waiting AS MATERIALIZED (
               SELECT w.pid, pg_blocking_pids(w.pid) AS blockers FROM (SELECT DISTINCT pid FROM pg_locks WHERE NOT granted) w
             ), behind_us(pid) AS (
               SELECT unnest(ARRAY[pg_backend_pid(), $2])
               UNION SELECT w.pid FROM behind_us b JOIN waiting w ON b.pid = ANY (w.blockers)
             )
             SELECT format('Process %s (user %s) is waiting.', b.pid, coalesce(a.usename::text, '?'))
             FROM behind_us b LEFT JOIN pg_stat_activity a ON a.pid = b.pid
             WHERE b.pid NOT IN (pg_backend_pid(), $2)
               AND EXISTS (SELECT FROM pg_locks h WHERE h.pid = b.pid AND h.granted AND h.locktype = 'relation'
                             AND h.relation = ANY ($1)
                             AND h.database = (SELECT oid FROM pg_database WHERE datname = current_database()))
             ORDER BY b.pid LIMIT 5",
            &[relations.into(), CALLER.get().into()],
            |row| row.need(1),
        )
    })
}

/// Each relation once, where it is mentioned first, with the strongest of the modes that are wanted of it.
pub fn strongest(wanted: Vec<(pg_sys::Oid, LockMode)>) -> Vec<(pg_sys::Oid, LockMode)> {
    let mut all: Vec<(pg_sys::Oid, LockMode)> = Vec::with_capacity(wanted.len());
    for (relation, mode) in wanted {
        match all.iter_mut().find(|(known, _)| *known == relation) {
            Some((_, known)) => *known = mode.max(*known),
            None => all.push((relation, mode)),
        }
    }
    all
}

fn take_all(
    wanted: &[(pg_sys::Oid, LockMode)],
    timeout: i32,
    longest_first_wait: i32,
    refuse: impl Fn() -> Result<()>,
) -> Result<()> {
    let begun = Instant::now();
    let mut wanted = wanted.to_vec();
    // DETACH and ATTACH want these lists, and nobody is kept from the tables yet.
    wanted.iter().for_each(|(table, _)| relation::list_partitions(*table));
    loop {
        let left = left_of(timeout, begun);
        let Some(missing) = collect(&wanted, left.clamp(1, longest_first_wait), &refuse) else { return Ok(()) };
        refuse()?;
        if left <= 0 {
            return Err(not_available(missing, &catalog::qualified_name(missing)?, timeout)?);
        }
        if let Some(at) = wanted.iter().position(|(relation, _)| *relation == missing) {
            wanted[..=at].rotate_right(1);
        }
        background::pause(Duration::from_millis(20));
    }
}

/// One attempt: the relation that could not be locked, when everything was given back.
fn collect(
    wanted: &[(pg_sys::Oid, LockMode)],
    first_wait: i32,
    refuse: impl Fn() -> Result<()>,
) -> Option<pg_sys::Oid> {
    let missing = Cell::new(None);
    let collected = xact::subtransaction(|| {
        let mut begun = Instant::now();
        for (at, (relation, mode)) in wanted.iter().enumerate() {
            let in_time = at < 2 || begun.elapsed() <= collect_for();
            if !lock::try_acquire(*relation, *mode) {
                let waiting = refuse();
                let wait = match at {
                    0 => {
                        waiting.or_raise();
                        first_wait
                    }
                    // Who waits for what was just collected gets it when all is given back.
                    _ if waiting.is_err() || !in_time => 0,
                    _ => slice_ms(),
                };
                if wait == 0 || !lock::acquire(*relation, *mode, wait) {
                    missing.set(Some(*relation));
                    Error::new(SqlState::ERRCODE_LOCK_NOT_AVAILABLE, "locks are given back").raise();
                }
            }
            if at == 0 {
                begun = Instant::now();
            }
        }
    });
    match collected {
        Ok(()) => None,
        Err(caught) if missing.get().is_none() => Error::from(caught).raise(),
        Err(_) => missing.get(),
    }
}
