//! Requests for readable copies, from the first call of the store to the day on which the copies lapse.

use archive_core::ErrorKind;
use archive_core::store::{BlockingStore, GLACIER_CLASSES, Restore, is_frozen, poll_seconds};
use pgrx::pg_sys;

use crate::catalog::archived;
use crate::catalog::job::Job;
use crate::catalog::restore_request::{self, Request, Shown, Wanted};
use crate::catalog::{self, queue, tier};
use crate::engine::{rewrite, steps, storage as opened};
use crate::error::Result;
use crate::partition::discover;
use crate::pg::server_text::log;
use crate::pg::{clock, interrupts, user};

/// Seconds after which the store is asked again when it could not be.
const AFTER_ERROR: i64 = 300;

/// Looks after every open request for archives whose owner the current user may act as, of one table or all; what has become of them.
/// What the store answers is told, not raised.
pub fn poll(source: Option<pg_sys::Oid>) -> Result<Vec<Shown>> {
    let mut looked_after = Vec::new();
    for table in restore_request::tables(source)? {
        if user::has_privileges_of(discover::owner(table)?) {
            looked_after.extend(look_after(table, false)?);
        }
    }
    restore_request::shown(&looked_after)
}

/// Looks after the requests for archives of the job's table that are due, and puts the job back until the next one is.
pub fn step(job: &Job) -> Result<(bool, String)> {
    look_after(job.table, true)?;
    match restore_request::next_in(job.table)? {
        Some(seconds) => {
            queue::wait(job.id, seconds.max(1.0))?;
            Ok((false, "waiting".to_owned()))
        }
        None => steps::done(job.id, 0),
    }
}

fn look_after(table: pg_sys::Oid, due_only: bool) -> Result<Vec<i64>> {
    let mut ids = Vec::new();
    for request in restore_request::take(table, due_only)? {
        follow(&request)?;
        ids.push(request.id);
    }
    Ok(ids)
}

/// One request: asks the store for what it was not asked for, looks how far it is, and says so.
fn follow(request: &Request) -> Result<()> {
    if request.is_over {
        return end(request, "expired", None);
    }
    if request.status == "ready" && !request.prolonged {
        return Ok(());
    }
    let objects = restore_request::wanted(request, rewrite::time_field(request.source)?)?;
    let Some(subject) = archived::find(request.partition)?.filter(|_| !objects.is_empty()) else {
        return end(request, "expired", Some("the partition is not in the archive any more"));
    };
    let store = match discover::owner(request.source).and_then(|owner| opened::open_for(&subject.storage, owner)) {
        Ok(store) => store,
        Err(error) => return restore_request::note_error(request.id, error.message(), AFTER_ERROR),
    };
    let lapses = clock::unix_now() + i64::from(request.days) * 86_400;
    let (mut until, mut waits) = (None, None);
    for object in &objects {
        interrupts::check();
        if let Some(known) = object.until.filter(|_| !request.prolonged) {
            until = Some(until.map_or(known, |until: i64| until.min(known)));
            continue;
        }
        let seen = match look(&store, object, request) {
            Ok(seen) => seen,
            Err(error) if is_final(error.kind()) => return end(request, "failed", Some(&told(&error))),
            Err(error) => return restore_request::note_error(request.id, &told(&error), AFTER_ERROR),
        };
        restore_request::learn_class(object.id, seen.class.as_deref())?;
        match seen.copy {
            Copy::NotNeeded => {}
            Copy::There(there) => {
                let there = there.unwrap_or(lapses);
                tier::set_restored(object.id, Some(there))?;
                until = Some(until.map_or(there, |until: i64| until.min(there)));
            }
            Copy::Coming => {
                tier::set_restored(object.id, None)?;
                let hours = seen.class.as_deref().and_then(|class| request.retrieval.hours(class)).unwrap_or(12.0);
                waits = Some(waits.map_or(hours, |waits: f64| waits.max(hours)));
            }
        }
    }
    match waits {
        Some(hours) => {
            let seconds = poll_seconds(hours, request.polls.unsigned_abs());
            restore_request::set_in_progress(request.id, seconds, hours)
        }
        None => ready(request, until.unwrap_or(lapses)),
    }
}

/// An object as the store shows it.
struct Seen {
    /// Its class, where that is not the storage's.
    class: Option<String>,
    copy: Copy,
}

/// The readable copy of an object.
enum Copy {
    /// The object can be read itself.
    NotNeeded,
    /// It can be read until so many seconds since 1970, if the store told.
    There(Option<i64>),
    /// It is being made.
    Coming,
}

/// Looks at an object, and asks for its copy where that was not done, or for more days.
fn look(store: &BlockingStore, object: &Wanted, request: &Request) -> std::result::Result<Seen, archive_core::Error> {
    let missing = || {
        let url = store.location().url_of(&object.key);
        archive_core::Error::new(ErrorKind::NotFound, format!("object \"{url}\" does not exist"))
    };
    let meta = store.head(&object.key)?.ok_or_else(missing)?;
    let class = meta.storage_class.filter(|class| GLACIER_CLASSES.contains(&class.as_str()));
    if !class.as_deref().is_some_and(is_frozen) {
        return Ok(Seen { class, copy: Copy::NotNeeded });
    }
    // Some servers show copies that have lapsed.
    let restore =
        meta.restore.filter(|restore| !matches!(restore, Restore::Ready(Some(until)) if *until <= clock::unix_now()));
    let copy = match restore {
        Some(Restore::Ongoing) => Copy::Coming,
        Some(Restore::Ready(until)) if !request.prolonged => Copy::There(until),
        Some(Restore::Ready(_)) => {
            store.restore(&object.key, request.days, request.retrieval)?;
            match store.head(&object.key)?.and_then(|meta| meta.restore) {
                Some(Restore::Ready(until)) => Copy::There(until),
                _ => Copy::Coming,
            }
        }
        None => {
            store.restore(&object.key, request.days, request.retrieval)?;
            Copy::Coming
        }
    };
    Ok(Seen { class, copy })
}

/// Whether asking again will not help.
fn is_final(kind: ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::NotFound
            | ErrorKind::PermissionDenied
            | ErrorKind::InvalidParameter
            | ErrorKind::Unsupported
            | ErrorKind::NotAllowed
    )
}

fn told(error: &archive_core::Error) -> String {
    match error.detail_text() {
        Some(detail) => format!("{}: {detail}", error.message()),
        None => error.message().to_owned(),
    }
}

fn ready(request: &Request, until: i64) -> Result<()> {
    restore_request::set_ready(request.id, until)?;
    log!("archive_ext: {} can be read until {until} seconds after 1970: restore request {}", request.name, request.id);
    tell(request, "ready", Some(until), None)
}

/// The request is over.
fn end(request: &Request, status: &str, error: Option<&str>) -> Result<()> {
    restore_request::end(request.id, status, error)?;
    let why = error.map(|error| format!(": {error}")).unwrap_or_default();
    log!("archive_ext: restore request {} of {} has {status}{why}", request.id, request.name);
    tell(request, status, None, error)
}

fn tell(request: &Request, status: &str, until: Option<i64>, error: Option<&str>) -> Result<()> {
    let details = serde_json::json!({ "request": request.id, "ready_until_unix": until, "error": error });
    let event = format!("restore_{status}");
    catalog::event::record(request.source, &request.name, &event, "ARCHIVED", None, details)?;
    restore_request::notify(request, status, until)
}
