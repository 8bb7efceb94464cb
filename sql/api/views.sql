-- Views for people. They run with the rights of the extension's owner and show only tables that the caller may SELECT, but
-- all of them to members of archive_ext_reader: `may >= NOT sees_all` is that, and NULL for a table that is gone.
-- Texts that quote rows only those see from whom row-level security hides none. Functions that return rows filter them.

CREATE VIEW archive_ext.partitions WITH (security_barrier) AS
SELECT m.source AS table_name,
       p.partition_name,
       p.status,
       p.label,
       p.tier,
       p.lower_bound,
       p.upper_bound,
       p.rows,
       pg_size_pretty(p.local_bytes) AS local_size,
       pg_size_pretty(p.archived_bytes) AS archived_size,
       round(p.local_bytes / nullif(p.archived_bytes, 0)::numeric, 1) AS ratio,
       p.storage,
       p.version,
       p.archived_at,
       p.verified_at,
       p.verified_level,
       p.local_copy,
       p.local_copy_until,
       p.reattached_at,
       p.keep_until,
       p.hot_table IS NOT NULL AND (p.status <> 'WARM' OR p.writable) AS writable
FROM archive_ext.partition p
JOIN archive_ext.managed_table m ON m.id = p.managed_table
WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all()) AND p.superseded_at IS NULL
ORDER BY m.source::text, p.id;

-- Whether the caller is a superuser or owns the foreign server. A view's functions see the caller; its tables are read by its owner.
CREATE FUNCTION archive_ext.administers_storage(storage name) RETURNS boolean STABLE LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT coalesce((SELECT rolsuper FROM pg_roles WHERE rolname = current_user), false)
        OR EXISTS (SELECT FROM pg_foreign_server s WHERE s.srvname = storage AND pg_has_role(s.srvowner, 'USAGE'))
$$;

-- Dead rows of a table and its partitions, as the statistics have it; NULL when it is gone.
CREATE FUNCTION archive_ext.dead_rows(source regclass) RETURNS bigint STABLE LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT sum(pg_stat_get_dead_tuples(c.oid))::bigint FROM pg_class c
    WHERE c.oid = source OR c.oid IN (SELECT t.relid FROM pg_partition_tree(source) t WHERE t.isleaf)
$$;

-- When a backend began is hidden from those who may not see what it does; its pid is not.
CREATE VIEW archive_ext.jobs WITH (security_barrier) AS
SELECT j.job_id,
       j.operation,
       j.table_name,
       j.partition_name,
       j.status,
       j.phase,
       j.rows_archived,
       j.storage,
       j.started_by,
       j.started_at,
       j.completed_at,
       coalesce(j.completed_at, clock_timestamp()) - j.started_at AS duration,
       CASE WHEN archive_ext.sees_every_row(j.table_name) THEN j.error END AS error,
       j.reason,
       j.attempts,
       j.next_attempt_at,
       CASE j.status WHEN 'completed' THEN 'done'
                     WHEN 'failed' THEN 'error'
                     WHEN 'pending' THEN CASE WHEN j.suspended_at IS NOT NULL THEN 'window' WHEN j.error IS NOT NULL THEN 'error' END
                     WHEN 'running' THEN coalesce(j.why_stopped, CASE WHEN NOT EXISTS (
                         SELECT FROM pg_stat_activity a WHERE a.pid = j.pid AND coalesce(a.backend_start = j.pid_started, true)) THEN 'interrupted' END)
                     ELSE j.status END AS why_stopped,
       b.progress -> 'seconds' AS phase_seconds,
       round((j.rows_archived / nullif(s.spent, 0))::numeric) AS rows_per_second,
       e.expected AS rows_expected,
       CASE WHEN j.completed_at IS NULL AND j.rows_archived BETWEEN 1 AND e.expected
            THEN date_trunc('second', make_interval(secs => (e.expected - j.rows_archived) * s.spent / j.rows_archived)) END AS remaining,
       CASE WHEN j.operation = 'batch' THEN archive_ext.dead_rows(j.table_name) END AS dead_rows
FROM archive_ext.archival_job j
CROSS JOIN LATERAL (SELECT CASE WHEN j.operation = 'batch' THEN j.progress END AS progress) b
CROSS JOIN LATERAL (SELECT (b.progress ->> 'expected')::bigint AS expected) e
CROSS JOIN LATERAL (SELECT sum(p.value::float8) AS spent FROM jsonb_each_text(b.progress -> 'seconds') p) s
WHERE has_table_privilege(j.table_name, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
ORDER BY j.started_at DESC;

CREATE VIEW archive_ext.objects WITH (security_barrier) AS
SELECT m.source AS table_name,
       p.partition_name,
       o.version,
       o.ordinal,
       o.rows,
       o.bytes,
       o.row_groups,
       p.storage,
       o.storage_class,
       o.restored_until,
       o.key,
       o.sha256,
       o.uploaded_at,
       o.verified_at,
       octet_length(f.filter) AS key_filter_bytes,
       round(octet_length(f.filter) / nullif(f.keys, 0)::numeric, 2) AS key_filter_bytes_per_key,
       p.superseded_at,
       p.superseded_by
FROM archive_ext.object o
LEFT JOIN archive_ext.key_filter f ON f.object_id = o.id
JOIN archive_ext.partition p ON p.id = o.partition_id
JOIN archive_ext.managed_table m ON m.id = p.managed_table
WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
ORDER BY m.source::text, p.id, o.version, o.ordinal;

CREATE VIEW archive_ext.progress WITH (security_barrier) AS
SELECT s.pid,
       s.relation,
       s.phase,
       s.rows,
       s.rows_total,
       round(least(100.0 * s.rows / nullif(s.rows_total, 0), 100), 1) AS percent,
       pg_size_pretty(s.bytes) AS size,
       round(s.rows / nullif(extract(epoch FROM clock_timestamp() - s.phase_started), 0)) AS rows_per_second,
       CASE WHEN s.rows > 0 AND s.rows_total > s.rows
            THEN date_trunc('second', (clock_timestamp() - s.phase_started) * ((s.rows_total - s.rows)::float8 / s.rows))
       END AS remaining,
       s.phase_started,
       s.job_id
FROM archive_ext.progress_slots() s;

CREATE VIEW archive_ext.workers WITH (security_barrier) AS
SELECT w.pid,
       w.kind,
       d.datname AS database,
       r.rolname AS role,
       w.state,
       w.job_id,
       w.since,
       w.detail
FROM archive_ext.worker_slots() w
LEFT JOIN pg_database d ON d.oid = w.database
LEFT JOIN pg_roles r ON r.oid = w.role;

CREATE VIEW archive_ext.policies WITH (security_barrier) AS
SELECT source AS table_name, owner, enabled, hot_after, warm_after, archive_after, glacier_after, glacier_class, expire_after, verify_after,
       drop_after, pg_size_pretty(max_hot_bytes) AS max_hot_size, idle_for, live_granularity, hot_granularity,
       warm_granularity, archive_granularity, premake, storage, copy_storage, object_lock, format, compression, hot_tablespace, warm_tablespace,
       maintenance_window, removal_column, time_column, key_kind, key_epoch, max_attempts, archive_schema, archive_name,
       changed_at, changed_by, checked_at
FROM archive_ext.archive_policy
WHERE has_table_privilege(source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
ORDER BY source::text;

CREATE VIEW archive_ext.events WITH (security_barrier) AS
SELECT e.at, e.table_name, e.partition_name, e.event, e.from_status, e.status, e.reason, e.actor, e.job_id,
       CASE WHEN e.table_name IS NULL OR archive_ext.sees_every_row(e.table_name) THEN e.details END AS details
FROM archive_ext.lifecycle_event e
WHERE has_table_privilege(e.table_name, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
   OR e.table_name IS NULL AND ((SELECT archive_ext.sees_all()) OR archive_ext.administers_storage(e.partition_name::name))
ORDER BY e.id DESC;

CREATE VIEW archive_ext.alerts WITH (security_barrier) AS
SELECT a.alert, a.table_name, a.partition_name, a.since, a.detail, a.remedy, a.job_id
FROM archive_ext.standing_alerts() a;

CREATE VIEW archive_ext.copies WITH (security_barrier) AS
SELECT m.source AS table_name,
       p.partition_name,
       p.storage,
       (SELECT max(c.copy_storage::text) FROM archive_ext.object o JOIN archive_ext.object_copy c ON c.storage = o.storage AND c.key = o.key
        WHERE o.partition_id = p.id AND o.version = p.version)::name AS copy_storage,
       count(*) AS objects,
       count(*) FILTER (WHERE EXISTS (SELECT FROM archive_ext.object_copy c WHERE c.storage = o.storage AND c.key = o.key)) AS copied,
       (SELECT min(c.verified_at) FROM archive_ext.object q JOIN archive_ext.object_copy c ON c.storage = q.storage AND c.key = q.key
        WHERE q.partition_id = p.id AND q.version = p.version) AS verified_at
FROM archive_ext.partition p
JOIN archive_ext.managed_table m ON m.id = p.managed_table
JOIN archive_ext.object o ON o.partition_id = p.id AND o.version = p.version
WHERE p.status = 'ARCHIVED' AND has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
GROUP BY m.source, p.id
ORDER BY m.source::text, p.id;

CREATE VIEW archive_ext.chains WITH (security_barrier) AS
SELECT c.storage, c.location, c.links, c.removed, c.signed, c.first_written_at, c.last_written_at,
       (SELECT array_agg(h.key || '=' || h.sha256 ORDER BY h.key) FROM archive_ext.chain_head h
        WHERE (h.storage, h.location) = (c.storage, c.location)) AS heads
FROM (SELECT l.storage, l.location, count(*) AS links, count(l.removed_at) AS removed, count(l.public_key) AS signed,
             min(l.written_at) AS first_written_at, max(l.written_at) AS last_written_at
      FROM archive_ext.manifest_link l GROUP BY l.storage, l.location) c
WHERE (SELECT archive_ext.sees_all()) OR archive_ext.administers_storage(c.storage)
ORDER BY c.storage, c.location;

CREATE VIEW archive_ext.restores WITH (security_barrier) AS
SELECT r.id AS request,
       m.source AS table_name,
       p.partition_name,
       r.status,
       r.retrieval,
       r.days,
       r.objects,
       pg_size_pretty(r.bytes) AS size,
       r.cost,
       r.currency,
       r.requested_at,
       r.requested_by,
       r.expected_at,
       r.ready_at,
       r.ready_until,
       r.ended_at,
       r.error,
       r.times
FROM archive_ext.restore_request r
JOIN archive_ext.partition p ON p.id = r.partition_id
JOIN archive_ext.managed_table m ON m.id = p.managed_table
WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
ORDER BY r.ended_at NULLS FIRST, r.id DESC;

CREATE VIEW archive_ext.expiring WITH (security_barrier) AS
SELECT m.source AS table_name,
       p.partition_name,
       x.archived_at,
       a.expire_after,
       e.announced_at,
       e.delete_after,
       x.rows,
       pg_size_pretty(x.bytes) AS archived_size,
       (SELECT string_agg(h.reason, '; ' ORDER BY h.id) FROM archive_ext.legal_hold h
        WHERE h.partition_id = p.id AND h.released_at IS NULL) AS held_for,
       p.local_copy
FROM archive_ext.expiry e
JOIN archive_ext.partition p ON p.id = e.partition_id
JOIN archive_ext.managed_table m ON m.id = p.managed_table
JOIN archive_ext.archive_policy a ON a.source = m.source AND a.enabled AND a.changed_at = e.policy_changed_at
-- Of rows that were archived one by one, the objects that it is about.
CROSS JOIN LATERAL (
    SELECT p.archived_at, p.rows, p.archived_bytes WHERE NOT p.row_set AND e.announced_at > p.archived_at
    UNION ALL
    SELECT max(o.archived_at), sum(o.rows)::bigint, sum(o.bytes)::bigint FROM archive_ext.object o
    WHERE p.row_set AND o.partition_id = p.id AND o.version = p.version AND o.archived_at <= e.archived_until
      AND o.archived_at + a.expire_after <= clock_timestamp()) x (archived_at, rows, bytes)
WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
  AND p.status = 'ARCHIVED' AND x.archived_at + a.expire_after <= clock_timestamp()
ORDER BY e.delete_after, p.id;

CREATE VIEW archive_ext.deletions WITH (security_barrier) AS
SELECT c.id AS certificate, c.table_name, c.partition_name, c.storage, c.location, c.archived_at, c.expire_after, c.policy_owner,
       c.announced_at, c.withdrawn_at, c.withdrawn_by, c.rows, c.bytes, c.digest, c.objects, c.manifests, c.deleted_at,
       c.deleted_versions, c.kept
FROM archive_ext.deletion_certificate c
-- Of a table that is gone administrators see them still; its number may be another table's by now.
WHERE coalesce((SELECT has_table_privilege(k.oid, 'SELECT') FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
                WHERE k.oid = c.source::oid AND format('%I.%I', n.nspname, k.relname) = c.table_name), false) >= NOT (SELECT archive_ext.sees_all())
ORDER BY c.id DESC;

CREATE VIEW archive_ext.erasures WITH (security_barrier) AS
SELECT e.id AS receipt, e.kind, e.table_name, e.reason, e.requested_by, e.at, e.rows_deleted, e.rows_of_archive, e.digest, e.clause_sha256,
       e.objects, e.replaced_by, e.delete_after, e.deleted_at, e.deleted_versions, e.deleted_keys
FROM archive_ext.erasure e
-- Of a table that is gone administrators see them still; its number may be another table's by now.
WHERE coalesce((SELECT has_table_privilege(k.oid, 'SELECT') FROM pg_class k JOIN pg_namespace n ON n.oid = k.relnamespace
                WHERE k.oid = e.source::oid AND format('%I.%I', n.nspname, k.relname) = e.table_name), false) >= NOT (SELECT archive_ext.sees_all())
ORDER BY e.id DESC;

CREATE VIEW archive_ext.legal_holds WITH (security_barrier) AS
SELECT m.source AS table_name, p.partition_name, h.reason, h.set_by, h.set_at, h.released_by, h.released_at
FROM archive_ext.legal_hold h
JOIN archive_ext.partition p ON p.id = h.partition_id
JOIN archive_ext.managed_table m ON m.id = p.managed_table
WHERE coalesce(has_table_privilege(m.source, 'SELECT'), false) >= NOT (SELECT archive_ext.sees_all())
ORDER BY h.released_at NULLS FIRST, h.id DESC;

CREATE VIEW archive_ext.month_counts WITH (security_barrier) AS
SELECT m.source AS table_name,
       nullif(m.month, '-infinity') AS month,
       m.hot,
       m.archived,
       m.hot + m.archived AS total,
       m.recorded,
       greatest(m.recorded - m.hot - m.archived, 0) AS missing,
       m.missing_since,
       m.counted_at
FROM archive_ext.month_count m
WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all()) AND archive_ext.sees_every_row(m.source)
ORDER BY m.source::text, m.month;

-- Foreign and orphaned objects belong to no table: their keys are for those who administer the storage or watch the server.
CREATE VIEW archive_ext.findings WITH (security_barrier) AS
SELECT f.id,
       f.storage,
       f.key,
       f.kind,
       m.source AS table_name,
       p.partition_name,
       f.details,
       f.found_at,
       f.found_by,
       f.resolved_at
FROM archive_ext.storage_finding f
LEFT JOIN archive_ext.partition p ON p.id = f.partition
LEFT JOIN archive_ext.managed_table m ON m.id = p.managed_table
WHERE (SELECT archive_ext.sees_all()) OR archive_ext.administers_storage(f.storage)
   OR CASE WHEN f.partition IS NULL THEN pg_has_role('pg_monitor', 'USAGE') ELSE has_table_privilege(m.source, 'SELECT') END
ORDER BY f.resolved_at NULLS FIRST, f.id DESC;
