//! The partitions of a managed table as the scheduler sees them: what PostgreSQL's catalogs and ours say.

use archive_core::lifecycle::{Moment, TimeKey};
use archive_core::policy::{Access, Age, Held, Observed};
use pgrx::datum::TimestampWithTimeZone;
use pgrx::pg_sys;

use super::expiry::{ANNOUNCED, GIVEN_UP};
use super::hold::HELD_FOR;
use super::time_key::{self, EPOCH_MILLIS};
use crate::error::Result;
use crate::pg::{spi, user};

/// One leaf below a managed table.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The partition.
    pub oid: pg_sys::Oid,
    /// Rows by the planner's statistics.
    pub rows: Option<i64>,
    /// Its label, once it has one.
    pub label: Option<String>,
    /// Its lower bound.
    pub lower: Option<String>,
    /// FOR VALUES clause of its ancestor right below the table, or its own.
    pub bounds: Option<String>,
    /// What decides about it.
    pub observed: Observed,
}

/// What a job is doing, and what ends that; NULL when it is over and was neither given up nor cancelled.
/// `$2` tells whether the caller may read errors.
pub(super) const HELD: &str = "j.status IN ('pending', 'running', 'paused') AS unfinished, j.completed_at,
    CASE WHEN j.status = 'running' THEN format('%s is running: %s', j.operation, j.phase)
         WHEN j.status = 'paused' THEN format('%s is paused: %s', j.operation, j.phase)
         WHEN j.status = 'pending' AND j.error IS NOT NULL
           THEN format('%s is tried again after %s: %s', j.operation,
                       coalesce(to_char(j.next_attempt_at, 'YYYY-MM-DD HH24:MI:SS TZ'), 'an interruption'),
                       CASE WHEN $2 THEN j.error ELSE 'SQLSTATE ' || j.error_code END)
         WHEN j.status = 'pending' AND j.suspended_at IS NOT NULL
           THEN format('%s waits for its maintenance window: %s', j.operation, j.phase)
         WHEN j.status = 'pending' THEN format('%s waits to be taken up: %s', j.operation, coalesce(j.reason, j.phase))
         WHEN j.status IN ('failed', 'cancelled')
           THEN format('%s was %s', j.operation,
                       coalesce(CASE WHEN $2 THEN j.error ELSE j.status || ' with SQLSTATE ' || j.error_code END, j.status))
    END AS reason,
    CASE WHEN j.status = 'running' THEN format('the end of the run; pause_job(''%s'')', j.job_id)
         WHEN j.status = 'paused' THEN format('resume_job(''%s'')', j.job_id)
         WHEN j.status = 'pending' THEN $3
         ELSE format('retry_job(''%s''), or a change of the policy', j.job_id) END AS freed_by";

/// What frees a job that waits to be taken up; a worker does the same.
pub const RUN_LIFECYCLE: &str = "CALL run_lifecycle()";

/// A bound as short as it can be said: a midnight is a date.
fn short(bound: &str) -> String {
    let bound = bound.strip_suffix(" 00:00:00+00").or_else(|| bound.strip_suffix(" 00:00:00")).unwrap_or(bound);
    bound.to_owned()
}

/// Microseconds since 2000-01-01 UTC of a timestamptz expression.
pub(super) fn micros(expression: &str) -> String {
    format!("((extract(epoch FROM {expression}) - 946684800) * 1000000)::bigint")
}

/// Moments of the bounds: year to second, as an array.
fn parts(timestamp: &str) -> String {
    format!(
        "CASE WHEN isfinite({timestamp}) THEN ARRAY[extract(year FROM {timestamp}), extract(month FROM {timestamp}),
           extract(day FROM {timestamp}), extract(hour FROM {timestamp}), extract(minute FROM {timestamp}),
           trunc(extract(second FROM {timestamp}))]::int[] END"
    )
}

/// A bound as people read it: of ids the time that hides in them.
fn told(bound: &str) -> String {
    format!(
        "CASE WHEN b.atttypid IN ('uuid'::regtype, 'bigint'::regtype) THEN coalesce(b.{bound}::text, b.{bound}_text)
              ELSE b.{bound}_text END"
    )
}

/// When the upper bound is older than an age. Bounds of timestamptz keys are midnights of some calendar, not of UTC: the
/// age is added there, so that a month after a month's end is the next month's end.
fn reached(age: &str) -> String {
    micros(&format!("(b.local_upper + p.{age} - (b.local_upper - b.upper)) AT TIME ZONE 'UTC'"))
}

/// The leaves of `source`, DEFAULT partitions left out, in the order of their bounds. Those below a DEFAULT partition
/// have no time either.
pub fn leaves(source: pg_sys::Oid) -> Result<Vec<Leaf>> {
    let sql = format!(
        "WITH leaf AS (
           SELECT c.oid, c.relname, n.nspname, c.reltuples, t.parentrelid,
                  (SELECT pg_get_expr(r.relpartbound, r.oid) FROM pg_class r
                   WHERE r.oid = (SELECT a.relid FROM pg_partition_ancestors(c.oid) WITH ORDINALITY a(relid, nth)
                                  JOIN pg_inherits i ON i.inhrelid = a.relid AND i.inhparent = $1
                                  ORDER BY a.nth DESC LIMIT 1)) AS bounds
           FROM pg_partition_tree($1::oid) t JOIN pg_class c ON c.oid = t.relid JOIN pg_namespace n ON n.oid = c.relnamespace
           WHERE t.isleaf AND c.relkind = 'r' AND c.oid <> $1
         ), bound AS (
           SELECT l.*, k.atttypid,
                  (SELECT {EPOCH_MILLIS} FROM archive_ext.archive_policy p WHERE p.source = $1::oid) AS epoch,
                  (regexp_match(l.bounds, '^FOR VALUES FROM \\(''((?:[^'']|'''')*)'''))[1] AS lower_text,
                  (regexp_match(l.bounds, '\\) TO \\(''((?:[^'']|'''')*)'''))[1] AS upper_text
           FROM leaf l, LATERAL (SELECT a.atttypid FROM pg_partitioned_table k
             JOIN pg_attribute a ON a.attrelid = k.partrelid AND a.attnum = k.partattrs[0] WHERE k.partrelid = $1) k
         ), timed AS (
           SELECT b.*,
                  CASE WHEN b.atttypid = 'uuid'::regtype THEN
                         to_timestamp(('x' || substr(replace(lower_text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC'
                       WHEN b.atttypid = 'bigint'::regtype THEN
                         to_timestamp(((lower_text::bigint >> 22) + b.epoch) / 1000.0) AT TIME ZONE 'UTC'
                       WHEN b.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
                       THEN lower_text::timestamp END AS lower,
                  CASE WHEN b.atttypid = 'uuid'::regtype THEN
                         to_timestamp(('x' || substr(replace(upper_text, '-', ''), 1, 12))::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC'
                       WHEN b.atttypid = 'bigint'::regtype THEN
                         to_timestamp(((upper_text::bigint >> 22) + b.epoch) / 1000.0) AT TIME ZONE 'UTC'
                       WHEN b.atttypid IN ('date'::regtype, 'timestamp'::regtype, 'timestamptz'::regtype)
                       THEN upper_text::timestamp END AS upper
           FROM bound b
         ), b AS (
           SELECT t.*, CASE
                    WHEN t.atttypid <> 'timestamptz'::regtype OR t.upper - t.lower < interval '23 hours' OR NOT isfinite(t.upper)
                      OR t.upper = date_trunc('day', t.upper) THEN t.upper
                    WHEN extract(day FROM t.upper + interval '14 hours') = 1 THEN date_trunc('day', t.upper + interval '14 hours')
                    ELSE date_trunc('day', t.upper + interval '12 hours') END AS local_upper
           FROM timed t
         )
         SELECT b.oid, format('%I.%I', b.nspname, b.relname), CASE WHEN b.reltuples >= 0 THEN b.reltuples::bigint END,
                coalesce(k.status::text, 'LIVE'), k.label, {lower}, {upper}, CASE WHEN isfinite(b.upper) THEN {upper_text} END,
                CASE WHEN isfinite(b.upper) THEN {ends} END, CASE WHEN isfinite(b.upper) THEN {hot} END,
                CASE WHEN isfinite(b.upper) THEN {warm} END, CASE WHEN isfinite(b.upper) THEN {archive} END,
                pg_total_relation_size(b.oid), k.reattached_at IS NOT NULL AND k.version > 0, {keep},
                (SELECT {used} FROM archive_ext.access_sample s WHERE s.partition = b.oid),
                coalesce(held.reason, stubs.reason), coalesce(held.freed_by, stubs.freed_by), {lower_text}, b.bounds
         FROM b LEFT JOIN archive_ext.archive_policy p ON p.source = $1::oid
         LEFT JOIN archive_ext.managed_table m ON m.source = $1::oid
         LEFT JOIN archive_ext.partition k ON k.managed_table = m.id AND k.schema_name = b.nspname
           AND k.partition_name = b.relname AND k.status <> 'ARCHIVED' AND k.superseded_at IS NULL
         LEFT JOIN LATERAL (
           SELECT {HELD} FROM archive_ext.archival_job j
           WHERE (j.partition = b.oid OR j.request -> 'partitions' ? format('%I.%I', b.nspname, b.relname))
             AND (j.status IN ('pending', 'running', 'paused') OR j.scheduled)
           ORDER BY j.status IN ('pending', 'running', 'paused') DESC, j.started_at DESC LIMIT 1
         ) held ON held.reason IS NOT NULL AND (held.unfinished OR held.completed_at > p.changed_at)
         LEFT JOIN LATERAL (
           SELECT format('its rows are in the archive, and left %s stubs', r.rows) AS reason,
                  format('restore_rows(''%s'', …)', $1::oid::regclass) AS freed_by
           FROM archive_ext.partition r WHERE r.rows_of = b.oid AND r.rows > 0 LIMIT 1
         ) stubs ON true
         WHERE b.bounds IS DISTINCT FROM 'DEFAULT'
           AND pg_get_expr((SELECT c.relpartbound FROM pg_class c WHERE c.oid = b.oid), b.oid) IS DISTINCT FROM 'DEFAULT'
         ORDER BY b.upper NULLS LAST, b.nspname, b.relname",
        lower_text = told("lower"),
        upper_text = told("upper"),
        lower = parts("b.lower"),
        upper = parts("b.upper"),
        ends = micros("(b.upper AT TIME ZONE 'UTC')"),
        hot = reached("hot_after"),
        warm = reached("warm_after"),
        archive = reached("archive_after"),
        keep = micros("k.keep_until"),
        used = micros("s.used_at"),
    );
    let errors = super::sees_every_row(source)?;
    user::elevated(|| spi::rows(&sql, &[source.into(), errors.into(), RUN_LIFECYCLE.into()], leaf))
}

fn leaf(row: &spi::Row<'_>) -> Result<Leaf> {
    let bounds = (row.get::<Vec<Option<i32>>>(6)?, row.get::<Vec<Option<i32>>>(7)?);
    let observed = Observed {
        name: row.need(2)?,
        status: row.need::<String>(4)?.parse()?,
        span: bounds.0.and_then(moment).zip(bounds.1.and_then(moment)),
        upper: row.get::<String>(8)?.map(|bound| short(&bound)),
        ends_at: row.get(9)?,
        hot_at: row.get(10)?,
        warm_at: row.get(11)?,
        archive_at: row.get(12)?,
        bytes: row.need::<i64>(13)?.unsigned_abs(),
        access: row.get(16)?.map_or(Access::Unknown, Access::At),
        reattached: row.need(14)?,
        keep_until: row.get(15)?,
        held: row.get(17)?.zip(row.get(18)?).map(|(reason, freed_by)| Held { reason, freed_by }),
    };
    let lower = row.get::<String>(19)?.map(|bound| short(&bound));
    Ok(Leaf { oid: row.need(1)?, rows: row.get(3)?, label: row.get(5)?, lower, bounds: row.get(20)?, observed })
}

fn moment(parts: Vec<Option<i32>>) -> Option<Moment> {
    let mut parts = parts.into_iter().flatten();
    let year = parts.next()?;
    let mut small = || parts.next().and_then(|part| u8::try_from(part).ok());
    Moment::new(year, small()?, small()?, small()?, small()?, small()?)
}

/// The DEFAULT partition directly below `source`: its OID, name, and whether it takes any space.
pub fn default_partition(source: pg_sys::Oid) -> Result<Option<(pg_sys::Oid, String, bool)>> {
    user::elevated(|| {
        spi::optional(
            "SELECT c.oid, format('%I.%I', n.nspname, c.relname), pg_relation_size(c.oid) > 0
             FROM pg_partitioned_table k JOIN pg_class c ON c.oid = k.partdefid
             JOIN pg_namespace n ON n.oid = c.relnamespace WHERE k.partrelid = $1 AND c.relkind = 'r'",
            &[source.into()],
            |row| Ok((row.need(1)?, row.need(2)?, row.need(3)?)),
        )
    })
}

/// The unfinished job that makes or drains partitions of `source`, and when a drain last found nothing to move.
pub fn table_jobs(source: pg_sys::Oid) -> Result<(Option<String>, Option<i64>)> {
    let sql = format!(
        "SELECT (SELECT format('%s is %s by job %s', operation, status, job_id) FROM archive_ext.archival_job
                 WHERE table_name = $1::oid AND operation IN ('premake', 'drain')
                   AND (status IN ('pending', 'running', 'paused') OR scheduled AND status IN ('failed', 'cancelled')
                        AND completed_at > (SELECT changed_at FROM archive_ext.archive_policy WHERE source = $1::oid))
                 ORDER BY started_at DESC LIMIT 1),
                (SELECT {} FROM archive_ext.archival_job
                 WHERE table_name = $1::oid AND operation = 'drain' AND status = 'completed' AND rows_archived = 0)",
        micros("max(completed_at)")
    );
    user::elevated(|| spi::one(&sql, &[source.into()], |row| Ok((row.get(1)?, row.get(2)?))))
}

/// Counters of one look at the partitions of `source`: remembers when they last moved. Where PostgreSQL says when a
/// partition was scanned last, that is taken; counters that went back mean that nothing is known any more.
pub fn sample_access(source: pg_sys::Oid, now: TimestampWithTimeZone) -> Result<()> {
    let last_scan = if cfg!(any(feature = "pg14", feature = "pg15")) {
        "NULL::timestamptz"
    } else {
        "greatest(t.last_seq_scan, t.last_idx_scan)"
    };
    let sql = format!(
        "INSERT INTO archive_ext.access_sample AS s (partition, uses, commits, used_at, sampled_at)
         SELECT t.relid, t.seq_scan + coalesce(t.idx_scan, 0) + t.n_tup_ins + t.n_tup_upd + t.n_tup_del,
                d.xact_commit, coalesce({last_scan}, $2), $2
         FROM pg_partition_tree($1::oid) p JOIN pg_stat_all_tables t ON t.relid = p.relid
         JOIN pg_stat_database d ON d.datname = current_database()
         WHERE p.isleaf
         ON CONFLICT (partition) DO UPDATE SET uses = excluded.uses, commits = excluded.commits, sampled_at = excluded.sampled_at,
           used_at = CASE WHEN excluded.commits < s.commits OR excluded.uses < s.uses THEN NULL
                          WHEN excluded.uses > s.uses OR s.used_at IS NULL THEN $2 ELSE s.used_at END"
    );
    user::elevated(|| spi::execute(&sql, &[source.into(), now.into()]))?;
    Ok(())
}

/// A partition that is in the storage.
#[derive(Debug, Clone)]
pub struct ArchivedLeaf {
    /// Qualified name.
    pub name: String,
    /// Its label.
    pub label: Option<String>,
    /// Its lower bound.
    pub lower: Option<String>,
    /// Its upper bound.
    pub upper: Option<String>,
    /// Bytes of its objects.
    pub bytes: i64,
    /// Where they are.
    pub storage: Option<String>,
    /// Whether its rows left the table one by one.
    pub by_rows: bool,
    /// When it is older than `expire_after`, which counts from the time of archiving; of rows that left the table one by one, when their
    /// oldest objects are.
    pub expires_at: Option<i64>,
    /// What ends then: of rows that left the table one by one, the objects that were announced, else those of the day of the oldest.
    pub ending: Ending,
    /// When it will be deleted, once that was announced.
    pub delete_after: Option<i64>,
    /// The legal holds on it.
    pub held_for: Option<String>,
    /// How the job that was to delete it ended, if it was given up: `failed` or `cancelled`.
    pub given_up: Option<String>,
}

/// What will be deleted of an archived partition.
#[derive(Debug, Clone)]
pub struct Ending {
    /// Rows.
    pub rows: Option<i64>,
    /// Objects.
    pub objects: Option<i32>,
    /// Bytes of these.
    pub bytes: i64,
}

/// The archived partitions of `source`, oldest first.
pub fn archived(source: pg_sys::Oid) -> Result<Vec<ArchivedLeaf>> {
    let key = time_key::of(source)?;
    let sql = format!(
        "SELECT format('%I.%I', p.schema_name, p.partition_name), p.label, p.lower_bound, p.upper_bound,
                coalesce(p.archived_bytes, 0), p.storage::text, {expires}, p.row_set, {delete_after},
                {HELD_FOR}, {GIVEN_UP}, CASE WHEN p.row_set THEN x.rows ELSE p.rows END, x.objects,
                CASE WHEN p.row_set THEN coalesce(x.bytes, 0) ELSE coalesce(p.archived_bytes, 0) END
         FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
         LEFT JOIN archive_ext.archive_policy a ON a.source = m.source
         LEFT JOIN archive_ext.expiry e ON {ANNOUNCED}
         LEFT JOIN LATERAL (SELECT min(o.archived_at) AS first FROM archive_ext.object o
                            WHERE p.row_set AND m.marker_field IS NULL AND o.partition_id = p.id AND o.version = p.version) f ON true
         LEFT JOIN LATERAL (SELECT sum(o.rows)::bigint AS rows, count(*)::int AS objects, sum(o.bytes)::bigint AS bytes
                            FROM archive_ext.object o WHERE o.partition_id = p.id AND o.version = p.version
                              AND (NOT p.row_set OR o.archived_at <= coalesce(e.archived_until, f.first + interval '1 day'))) x ON true
         WHERE m.source = $1::oid AND p.status = 'ARCHIVED' ORDER BY p.lower_bound, p.id",
        expires = micros("(CASE WHEN p.row_set THEN f.first ELSE p.archived_at END + a.expire_after)"),
        delete_after = micros("e.delete_after"),
    );
    user::elevated(|| {
        spi::rows(&sql, &[source.into()], |row| {
            Ok(ArchivedLeaf {
                name: row.need(1)?,
                label: row.get(2)?,
                lower: row.get::<String>(3)?.map(|bound| readable(&bound, key)),
                upper: row.get::<String>(4)?.map(|bound| readable(&bound, key)),
                bytes: row.need(5)?,
                storage: row.get(6)?,
                expires_at: row.get(7)?,
                by_rows: row.need(8)?,
                delete_after: row.get(9)?,
                held_for: row.get(10)?,
                given_up: row.get(11)?,
                ending: Ending { rows: row.get(12)?, objects: row.get(13)?, bytes: row.need(14)? },
            })
        })
    })
}

/// A bound as short as it can be said; of ids the time that hides in them.
fn readable(bound: &str, key: Option<TimeKey>) -> String {
    match key.filter(|key| key.is_id()).and_then(|key| key.moment(bound)) {
        Some(at) => short(&text(at)),
        None => short(bound),
    }
}

fn text(at: Moment) -> String {
    let Moment { year, month, day, hour, minute, second } = at;
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

/// The bounds of an archived partition as text: those that it has.
pub fn bounds(partition: i64) -> Result<(Option<String>, Option<String>)> {
    user::elevated(|| {
        spi::one(
            "SELECT lower_bound, upper_bound FROM archive_ext.partition WHERE id = $1",
            &[partition.into()],
            |row| Ok((row.get(1)?, row.get(2)?)),
        )
    })
}

/// When a moment of UTC is older than an age.
pub fn later(at: Moment, age: Age) -> Result<i64> {
    let sql = format!("SELECT {}", micros("($1::timestamp + $2::interval)"));
    user::elevated(|| spi::one(&sql, &[text(at).as_str().into(), age.to_string().as_str().into()], |row| row.need(1)))
}

/// How many times smaller archived partitions of `source` are; `None` before the first.
pub fn compression_ratio(source: pg_sys::Oid) -> Result<Option<f64>> {
    user::elevated(|| {
        spi::one(
            "SELECT (sum(p.local_bytes)::float8 / nullif(sum(p.archived_bytes), 0)::float8)
             FROM archive_ext.partition p JOIN archive_ext.managed_table m ON m.id = p.managed_table
             WHERE m.source = $1::oid AND p.local_bytes > 0 AND p.archived_bytes > 0",
            &[source.into()],
            |row| row.get(1),
        )
    })
}
