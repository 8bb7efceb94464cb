//! `request_restore`: asks for readable copies of what is frozen. It writes down what is wanted and returns; the store is asked once that
//! is committed, so that nothing is paid for that a rollback forgets.

use archive_core::lifecycle::Moment;
use archive_core::store::{Restore, Retrieval, is_frozen};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use crate::catalog::archived::Subject;
use crate::catalog::frozen::{self, Frozen};
use crate::catalog::queue::{self, NewJob};
use crate::catalog::restore_request::{self, Shown};
use crate::catalog::time_key;
use crate::catalog::{self, observed, tier};
use crate::engine::{lifecycle, rewrite, storage as opened, verification};
use crate::error::{Error, Result, SqlState};
use crate::partition::discover;
use crate::pg::server_text::notice;
use crate::pg::{clock, interrupts};

/// What is asked for.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// From this time on, of a table.
    pub from: Option<TimestampWithTimeZone>,
    /// Up to this time, which is not in it.
    pub to: Option<TimestampWithTimeZone>,
    /// How fast.
    pub retrieval: Retrieval,
    /// For how many days the copies stay.
    pub days: i32,
}

/// Days that a store may be asked for.
const DAYS: std::ops::RangeInclusive<i32> = 1..=365;

/// Asks for copies of everything frozen that `name` stands for; the requests, those that were there before included.
///
/// Locks: none but on rows of the catalog. Errors: 22023 for days that are none, an option that the class does not have, and a time range
/// of what has no time; 42704 when nothing archived has the name; 42501 for who may not act as the owner; for a partition that is not
/// known to be frozen those of the storage, which is asked then.
pub fn request(name: &str, wish: &Wish) -> Result<Vec<Shown>> {
    check_days(wish.days)?;
    let subjects = within(verification::resolve(name)?, wish)?;
    if let [one] = subjects.as_slice()
        && frozen::of_partitions(&[one.id])?.is_empty()
    {
        learn_classes(one)?;
    }
    let mut requests = Vec::with_capacity(subjects.len());
    for (subject, frozen) in wanted(&subjects, wish)? {
        let times = times_of(subject, wish)?;
        if let Some(one) = &frozen {
            let price = frozen::price(one, wish.retrieval, wish.days)?;
            let size = (one.objects, one.bytes);
            requests.push(restore_request::add((one.id, &times), size, wish.retrieval, wish.days, price.as_ref())?);
        } else if restore_request::open_for(subject.id)?.is_some() {
            // What can be read because of a request is to stay for as long as this asks.
            requests.push(restore_request::add((subject.id, &times), (0, 0), wish.retrieval, wish.days, None)?);
        }
    }
    if let Some(first) = subjects.first() {
        if requests.is_empty() {
            notice!("nothing of \"{name}\" is in a frozen storage class: it can be read as it is");
        } else {
            follow(first.source)?;
        }
    }
    restore_request::shown(&requests)
}

/// What cannot be read now of each of these, of which the class has the option that is asked for.
fn wanted<'a>(subjects: &'a [Subject], wish: &Wish) -> Result<Vec<(&'a Subject, Option<Frozen>)>> {
    let whole: Vec<_> = subjects.iter().filter(|subject| !subject.row_set).map(|subject| subject.id).collect();
    let mut found = frozen::of_partitions(&whole)?;
    for set in subjects.iter().filter(|subject| subject.row_set) {
        found.extend(frozen::of_times(set.id, rewrite::time_field(set.source)?, &times_of(set, wish)?)?);
    }
    check_option(&found, wish.retrieval)?;
    let of = |subject: &Subject| found.iter().find(|one| one.id == subject.id).cloned();
    Ok(subjects.iter().map(|subject| (subject, of(subject))).collect())
}

/// A partition is restored as a whole; of a row set the times that are asked for, with those that were before.
fn times_of(subject: &Subject, wish: &Wish) -> Result<String> {
    match subject.row_set {
        true => restore_request::with_times(subject.id, wish.from, wish.to),
        false => Ok(restore_request::ALWAYS.to_owned()),
    }
}

/// Adds the job that follows the requests for archives of a table, unless there is one; whether it did.
pub fn queue_follow(source: pg_sys::Oid, name: &str) -> Result<bool> {
    queue::add(&NewJob {
        operation: "restore",
        table: source,
        name,
        partition: None,
        request: serde_json::json!({}),
        reason: "copies of frozen objects were requested",
        storage: None,
    })
}

/// The same, at work as soon as somebody can be.
fn follow(source: pg_sys::Oid) -> Result<()> {
    queue_follow(source, &catalog::qualified_name(source)?)?;
    queue::wake(source, "restore")?;
    if let Some(why) = lifecycle::worker_hold()? {
        notice!("no worker follows the request ({why}): call poll_restores(), now and until it is ready");
    }
    Ok(())
}

fn check_days(days: i32) -> Result<()> {
    if DAYS.contains(&days) {
        return Ok(());
    }
    Err(Error::new(
        SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("days must be from {} to {}", DAYS.start(), DAYS.end()),
    ))
}

fn check_option(frozen: &[Frozen], retrieval: Retrieval) -> Result<()> {
    let Some(one) = frozen.iter().find(|one| retrieval.hours(&one.class).is_none()) else { return Ok(()) };
    let has: Vec<_> = Retrieval::ALL.into_iter().filter(|option| option.hours(&one.class).is_some()).collect();
    let has: Vec<_> = has.into_iter().map(|option| format!("'{}'", option.as_str())).collect();
    Err(Error::new(
        SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
        format!("objects of storage class {} have no {} retrieval", one.class, retrieval.as_str()),
    )
    .hint(format!("Use {}.", has.join(" or "))))
}

/// Those whose rows may be in the time range.
fn within(subjects: Vec<Subject>, wish: &Wish) -> Result<Vec<Subject>> {
    if wish.from.is_none() && wish.to.is_none() {
        return Ok(subjects);
    }
    let Some(first) = subjects.first() else { return Ok(subjects) };
    let key = time_key::of(first.source)?;
    let (from, to) = (moment(wish.from), moment(wish.to));
    let mut found = Vec::new();
    for subject in subjects {
        // Its objects tell, each by itself.
        if subject.row_set {
            found.push(subject);
            continue;
        }
        let (lower, upper) = observed::bounds(subject.id)?;
        let (Some(key), Some(lower)) = (key, lower) else {
            return Err(Error::new(
                SqlState::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("the bounds of \"{}\" tell no time", subject.name),
            )
            .hint("Name the partition, without a time range."));
        };
        // A bound that is no time, as MINVALUE, is beyond every time.
        let begins_before = to.is_none_or(|to| key.moment(&lower).is_none_or(|lower| lower < to));
        let ends_after =
            from.is_none_or(|from| upper.and_then(|upper| key.moment(&upper)).is_none_or(|upper| upper > from));
        if begins_before && ends_after {
            found.push(subject);
        }
    }
    Ok(found)
}

fn moment(at: Option<TimestampWithTimeZone>) -> Option<Moment> {
    Moment::from_unix_seconds(clock::unix_seconds(at?.into()))
}

/// The rules of a bucket may have moved objects without us: the store tells their classes.
fn learn_classes(subject: &Subject) -> Result<()> {
    let store = opened::open_for(&subject.storage, discover::owner(subject.source)?)?;
    for object in restore_request::objects(subject.id)? {
        interrupts::check();
        let Some(meta) = store.head(&object.key)? else { continue };
        if let Some(class) = meta.storage_class.as_deref().filter(|class| is_frozen(class)) {
            restore_request::learn_class(object.id, Some(class))?;
            // What the catalog took for ready may be gone.
            match meta.restore {
                Some(Restore::Ready(until)) if until.is_none_or(|until| until > clock::unix_now()) => {}
                _ => tier::set_restored(object.id, None)?,
            }
        }
    }
    Ok(())
}
