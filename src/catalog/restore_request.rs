//! `archive_ext.restore_request`: readable copies of frozen objects that people asked for.

use archive_core::store::Retrieval;
use pgrx::datum::{DatumWithOid, TimestampWithTimeZone};
use pgrx::pg_sys;

use super::frozen::Price;
use super::tier;
use crate::error::Result;
use crate::pg::{spi, user};

/// All times, as a multirange.
pub const ALWAYS: &str = "{(,)}";

/// A request that is not over.
#[derive(Debug, Clone)]
pub struct Request {
    /// Its id.
    pub id: i64,
    /// The archived partition, in `archive_ext.partition`.
    pub partition: i64,
    /// Its qualified name.
    pub name: String,
    /// The hot table at the root.
    pub source: pg_sys::Oid,
    /// How fast.
    pub retrieval: Retrieval,
    /// For how many days the copies stay.
    pub days: i32,
    /// `pending`, `in progress` or `ready`.
    pub status: String,
    /// Whether more days were asked for since.
    pub prolonged: bool,
    /// How often the store was asked.
    pub polls: i32,
    /// Whether the time is over for which the copies stay.
    pub is_over: bool,
}

/// A request as people see it.
#[derive(Debug)]
pub struct Shown {
    /// Its id.
    pub id: i64,
    /// Qualified name of the partition.
    pub partition: String,
    /// `pending`, `in progress`, `ready`, `expired` or `failed`.
    pub status: String,
    /// How fast.
    pub retrieval: String,
    /// For how many days the copies stay.
    pub days: i32,
    /// Objects to be restored.
    pub objects: i64,
    /// Their bytes.
    pub bytes: i64,
    /// What it costs, if prices are known.
    pub cost: Option<f64>,
    /// Of the cost.
    pub currency: Option<String>,
    /// When the copies should be there.
    pub expected_at: Option<TimestampWithTimeZone>,
    /// Until when they can be read.
    pub ready_until: Option<TimestampWithTimeZone>,
    /// What went wrong last.
    pub error: Option<String>,
}

const COLUMNS: &str =
    "r.id, p.id, format('%I.%I', p.schema_name, p.partition_name), m.source::oid, r.retrieval, r.days, r.status,
    r.prolonged, r.polls, r.status = 'ready' AND coalesce(r.ready_until <= clock_timestamp(), false)";

const SOURCES: &str = "archive_ext.restore_request r JOIN archive_ext.partition p ON p.id = r.partition_id
    JOIN archive_ext.managed_table m ON m.id = p.managed_table";

fn request(row: &spi::Row<'_>) -> Result<Request> {
    Ok(Request {
        id: row.need(1)?,
        partition: row.need(2)?,
        name: row.need(3)?,
        source: row.need(4)?,
        retrieval: row.need::<String>(5)?.parse()?,
        days: row.need(6)?,
        status: row.need(7)?,
        prolonged: row.need(8)?,
        polls: row.need(9)?,
        is_over: row.need(10)?,
    })
}

/// The times from the first on and before the second, and those of the open request for a row set, if there is one; as a multirange.
pub fn with_times(
    row_set: i64,
    from: Option<TimestampWithTimeZone>,
    to: Option<TimestampWithTimeZone>,
) -> Result<String> {
    user::elevated(|| {
        spi::one(
            "SELECT (CASE WHEN $2 > $3 THEN '{}' ELSE tstzmultirange(tstzrange($2, $3)) END
                     + coalesce((SELECT times FROM archive_ext.restore_request WHERE partition_id = $1 AND ended_at IS NULL), '{}'))::text",
            &[row_set.into(), from.into(), to.into()],
            |row| row.need(1),
        )
    })
}

/// Asks for copies of what is frozen of a partition, or of these times of a row set, so many objects and bytes; the id of the request. One
/// that is open already is taken for this one, and when it was for fewer days it is for these from now on.
pub fn add(
    (partition, times): (i64, &str),
    (objects, bytes): (i64, i64),
    retrieval: Retrieval,
    days: i32,
    price: Option<&Price>,
) -> Result<i64> {
    // What is asked for again although it should be ready is not.
    let lost = objects > 0;
    let by = user::name_of(user::current());
    user::elevated(|| {
        spi::one(
            "INSERT INTO archive_ext.restore_request AS r (partition_id, retrieval, days, objects, bytes, cost, currency, requested_by, times)
             VALUES ($1, $2, $3, $4, $5, $6::numeric, $7, $8::name, $10::tstzmultirange)
             ON CONFLICT (partition_id) WHERE ended_at IS NULL DO UPDATE SET
               times = excluded.times, objects = greatest(r.objects, excluded.objects),
               bytes = greatest(r.bytes, excluded.bytes), cost = greatest(r.cost, excluded.cost),
               days = greatest(r.days, excluded.days),
               prolonged = r.prolonged OR (r.status <> 'pending' OR r.polls > 0) AND excluded.days > r.days,
               status = CASE WHEN r.status = 'ready' AND $9 THEN 'pending' ELSE r.status END,
               ready_until = CASE WHEN r.status = 'ready' AND $9 THEN NULL ELSE r.ready_until END,
               expected_at = CASE WHEN r.status = 'ready' AND $9 THEN NULL ELSE r.expected_at END,
               next_poll_at = CASE WHEN excluded.days > r.days OR r.status = 'ready' AND $9 THEN clock_timestamp() ELSE r.next_poll_at END
             RETURNING r.id",
            &[
                partition.into(),
                retrieval.as_str().into(),
                days.into(),
                objects.into(),
                bytes.into(),
                price.map(|price| price.total.as_str()).into(),
                price.map(|price| price.currency.as_str()).into(),
                by.as_str().into(),
                lost.into(),
                times.into(),
            ],
            |row| row.need(1),
        )
    })
}

/// Tables of the current user's with open requests that no job follows.
pub fn unfollowed(source: Option<pg_sys::Oid>) -> Result<Vec<(pg_sys::Oid, String)>> {
    let me = user::current();
    let sql = format!(
        "SELECT DISTINCT c.oid, format('%I.%I', n.nspname, c.relname) FROM {SOURCES} JOIN pg_class c ON c.oid = m.source::oid
         JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE r.ended_at IS NULL AND pg_has_role($1, c.relowner, 'USAGE') AND ($2 IS NULL OR c.oid = $2)
           AND NOT EXISTS (SELECT FROM archive_ext.archival_job j WHERE j.table_name = m.source AND j.operation = 'restore'
                             AND j.status IN ('pending', 'running', 'paused'))"
    );
    user::elevated(|| spi::rows(&sql, &[me.into(), source.into()], |row| Ok((row.need(1)?, row.need(2)?))))
}

/// The open request for a partition.
pub fn open_for(partition: i64) -> Result<Option<i64>> {
    user::elevated(|| {
        spi::optional(
            "SELECT id FROM archive_ext.restore_request WHERE partition_id = $1 AND ended_at IS NULL",
            &[partition.into()],
            |row| row.need(1),
        )
    })
}

/// The open requests for archives of a table that no other session looks after; those alone that are due, or all. They are this
/// transaction's until it ends.
pub fn take(source: pg_sys::Oid, due_only: bool) -> Result<Vec<Request>> {
    let sql = format!(
        "SELECT {COLUMNS} FROM {SOURCES} WHERE m.source = $1::oid AND r.ended_at IS NULL
           AND (NOT $2 OR r.next_poll_at <= clock_timestamp() OR r.next_poll_at > clock_timestamp() + interval '1 day')
         ORDER BY r.id FOR UPDATE OF r SKIP LOCKED"
    );
    user::elevated(|| spi::writing_rows(&sql, &[source.into(), due_only.into()], request))
}

/// The tables with open requests; `source` alone if given.
pub fn tables(source: Option<pg_sys::Oid>) -> Result<Vec<pg_sys::Oid>> {
    let sql = format!(
        "SELECT DISTINCT c.oid FROM {SOURCES} JOIN pg_class c ON c.oid = m.source::oid
         WHERE r.ended_at IS NULL AND ($1 IS NULL OR c.oid = $1) ORDER BY 1"
    );
    user::elevated(|| spi::rows(&sql, &[source.into()], |row| row.need(1)))
}

/// Seconds until the next open request of a table is to be looked after; `None` when none is open.
pub fn next_in(source: pg_sys::Oid) -> Result<Option<f64>> {
    let sql = format!(
        "SELECT extract(epoch FROM greatest(min(r.next_poll_at) - clock_timestamp(), interval '0'))::float8 FROM {SOURCES}
         WHERE m.source = $1::oid AND r.ended_at IS NULL"
    );
    user::elevated(|| spi::one(&sql, &[source.into()], |row| row.get(1)))
}

/// An object of a partition, and until when its copy can be read, in seconds since 1970.
#[derive(Debug)]
pub struct Wanted {
    /// Id in `archive_ext.object`.
    pub id: i64,
    /// Below the storage's prefix.
    pub key: String,
    /// Until when its copy can be read.
    pub until: Option<i64>,
}

/// The objects of an archived partition or row set.
pub fn objects(partition: i64) -> Result<Vec<Wanted>> {
    objects_where("true", &[partition.into()])
}

/// Those that a request is about: of a row set, which may have thousands, the ones of its times that are in an archive class. `time` is the
/// field that tells them.
pub fn wanted(request: &Request, time: Option<i32>) -> Result<Vec<Wanted>> {
    let within = tier::may_be_of("$3", "(SELECT r.times FROM archive_ext.restore_request r WHERE r.id = $2)");
    objects_where(
        &format!("(NOT p.row_set OR o.storage_class IS NOT NULL AND {within})"),
        &[request.partition.into(), request.id.into(), time.into()],
    )
}

fn objects_where(condition: &str, given: &[DatumWithOid<'_>]) -> Result<Vec<Wanted>> {
    let sql = format!(
        "SELECT o.id, o.key,
                CASE WHEN o.restored_until > clock_timestamp() THEN extract(epoch FROM o.restored_until)::bigint END
         FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id AND p.version = o.version
         WHERE p.id = $1 AND p.status = 'ARCHIVED' AND {condition} ORDER BY o.ordinal"
    );
    user::elevated(|| {
        spi::rows(&sql, given, |row| Ok(Wanted { id: row.need(1)?, key: row.need(2)?, until: row.get(3)? }))
    })
}

/// The class of an object is another than the catalog knew.
pub fn learn_class(object: i64, class: Option<&str>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.object SET storage_class = $2 WHERE id = $1 AND storage_class IS DISTINCT FROM $2",
            &[object.into(), class.into()],
        )
        .map(drop)
    })
}

/// The copies are being made; looked after again in so many seconds. `hours` tells how long it takes.
pub fn set_in_progress(id: i64, seconds: i64, hours: f64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.restore_request SET status = 'in progress', polls = polls + 1, error = NULL,
               next_poll_at = clock_timestamp() + make_interval(secs => $2), sent_at = coalesce(sent_at, clock_timestamp()),
               expected_at = coalesce(expected_at, clock_timestamp() + make_interval(secs => 3600 * $3))
             WHERE id = $1",
            &[id.into(), (seconds as f64).into(), hours.into()],
        )
        .map(drop)
    })
}

/// All copies can be read, until so many seconds since 1970.
pub fn set_ready(id: i64, until: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.restore_request SET status = 'ready', error = NULL, prolonged = false,
               ready_at = coalesce(ready_at, clock_timestamp()), sent_at = coalesce(sent_at, clock_timestamp()),
               ready_until = to_timestamp($2), next_poll_at = to_timestamp($2)
             WHERE id = $1",
            &[id.into(), (until as f64).into()],
        )
        .map(drop)
    })
}

/// The request is over: `expired` or `failed`.
pub fn end(id: i64, status: &str, error: Option<&str>) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.restore_request SET status = $2, error = $3, ended_at = clock_timestamp() WHERE id = $1",
            &[id.into(), status.into(), error.into()],
        )
        .map(drop)
    })
}

/// The store could not be asked; it is asked again in so many seconds.
pub fn note_error(id: i64, error: &str, seconds: i64) -> Result<()> {
    user::elevated(|| {
        spi::execute(
            "UPDATE archive_ext.restore_request SET error = $2, polls = polls + 1,
               next_poll_at = clock_timestamp() + make_interval(secs => $3)
             WHERE id = $1",
            &[id.into(), error.into(), (seconds as f64).into()],
        )
        .map(drop)
    })
}

/// Tells sessions that listen on `archive_ext_restore` what became of a request.
pub fn notify(request: &Request, status: &str, until: Option<i64>) -> Result<()> {
    let payload = serde_json::json!({
        "request": request.id, "partition": request.name, "status": status, "ready_until_unix": until,
    });
    user::elevated(|| {
        spi::one(
            "SELECT pg_notify('archive_ext_restore', $1)::text",
            &[payload.to_string().as_str().into()],
            |_| Ok(()),
        )
    })
}

/// Requests as people see them.
pub fn shown(ids: &[i64]) -> Result<Vec<Shown>> {
    let sql = format!(
        "SELECT r.id, format('%I.%I', p.schema_name, p.partition_name), r.status, r.retrieval, r.days, r.objects, r.bytes, r.cost::float8,
                r.currency, r.expected_at, r.ready_until, r.error
         FROM {SOURCES} WHERE r.id = ANY ($1) ORDER BY p.lower_bound, r.id"
    );
    user::elevated(|| {
        spi::rows(&sql, &[ids.to_vec().into()], |row| {
            Ok(Shown {
                id: row.need(1)?,
                partition: row.need(2)?,
                status: row.need(3)?,
                retrieval: row.need(4)?,
                days: row.need(5)?,
                objects: row.need(6)?,
                bytes: row.need(7)?,
                cost: row.get(8)?,
                currency: row.get(9)?,
                expected_at: row.get(10)?,
                ready_until: row.get(11)?,
                error: row.get(12)?,
            })
        })
    })
}

/// Whether anything of a partition or row set cannot be read now.
pub fn is_unreadable(partition: i64) -> Result<bool> {
    let sql = format!(
        "SELECT EXISTS (SELECT FROM archive_ext.partition p JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
                        WHERE p.id = $1 AND p.status = 'ARCHIVED' AND {})",
        tier::is_unreadable("o")
    );
    user::elevated(|| spi::one(&sql, &[partition.into()], |row| row.need(1)))
}
