-- Policies: validation, export and import, what is due and why, and a table that ages as the clock is moved.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
CREATE SCHEMA aging;
SET search_path = aging, public;
CREATE TABLE bookings (id bigint, created_at timestamptz NOT NULL, gone_at timestamptz, note text) PARTITION BY RANGE (created_at);
CREATE TABLE bookings_2024_01 PARTITION OF bookings FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE bookings_2024_02 PARTITION OF bookings FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE bookings_2024_03 PARTITION OF bookings FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE bookings_rest PARTITION OF bookings DEFAULT;
INSERT INTO bookings SELECT n, timestamptz '2024-01-01' + n * interval '1 hour', NULL, 'x' FROM generate_series(0, 2000) n;
ANALYZE bookings;

\echo '-- everything wrong is said at once'
SELECT set_archive_policy('bookings', hot_after => '3 months', warm_after => '1 month', archive_after => '-1 day',
    idle_for => '-1 day', live_granularity => 'month', hot_granularity => 'day', warm_granularity => 'decade',
    archive_granularity => 'year', premake => -1, storage => 'nowhere', format => 'orc', compression => 'lzma',
    warm_tablespace => 'slow', maintenance_window => 'nights', removal_column => 'note', max_attempts => 0,
    max_hot_bytes => -1);
SELECT set_archive_policy('bookings', maintenance_window => '22:00-06:00 Mars/Olympus');
SELECT set_archive_policy('bookings', object_lock => 'FOREVER');
SELECT set_archive_policy('bookings', object_lock => 'compliance 7 Years', expire_after => '6 years', storage => 'cold');
SELECT set_archive_policy('bookings', clear => '{hot}');
SELECT set_archive_policy('bookings', premake => 1, clear => '{premake}');
SELECT set_archive_policy('bookings_2024_01', archive_after => '1 year');
CREATE TABLE by_hash (id int) PARTITION BY HASH (id);
SELECT set_archive_policy('by_hash', archive_after => '1 year');
SELECT set_archive_policy('by_hash', storage => 'cold');
CREATE TABLE by_region (region text) PARTITION BY LIST (region);
SELECT set_archive_policy('by_region', hot_after => '1 year');
CREATE TABLE by_number (id bigint) PARTITION BY RANGE (id);
SELECT set_archive_policy('by_number', archive_after => '1 year');
CREATE TABLE plain (id int, at date);
SELECT set_archive_policy('plain', archive_after => '1 year', removal_column => 'at');
CREATE VIEW no_table AS SELECT 1;
SELECT set_archive_policy('no_table', archive_after => '1 year');
SELECT table_name, archive_after, removal_column FROM archive_ext.policies WHERE table_name::text IN ('bookings', 'plain', 'by_hash');
SELECT drop_archive_policy('plain'), drop_archive_policy('plain'), drop_archive_policy('by_hash');

\echo '-- NULL leaves a setting as it is, clear removes it, a window gets the zone it is meant in'
SELECT set_archive_policy('bookings', '1 month', '2 months', '1 year', storage => 'cold', maintenance_window => 'Mon-Fri 22-6', premake => 2);
SELECT set_archive_policy('bookings', drop_after => '0', clear => '{hot_after,warm_after,premake}');
SELECT table_name, hot_after, warm_after, archive_after, drop_after, premake, storage, maintenance_window, max_attempts
FROM archive_ext.policies WHERE table_name = 'bookings'::regclass;

\echo '-- export, review, import'
CREATE TEMP TABLE exported AS SELECT export_policies('bookings') AS policies;
SELECT jsonb_pretty(policies) FROM exported;
SELECT import.* FROM exported, import_policies(policies) import;
SELECT set_archive_policy('bookings', archive_after => '2 years', clear => '{drop_after}');
SELECT import.* FROM exported, import_policies(policies) import;
SELECT archive_after FROM archive_ext.policies WHERE table_name = 'bookings'::regclass;
SELECT count(*) FROM exported, import_policies(policies, dry_run => false) import;
SELECT export_policies('bookings') = policies AS as_exported FROM exported;
SELECT * FROM import_policies('{"format": 1, "policies": [{"table": "aging.bookings", "policy": {"premake": -1}}, {"table": "aging.gone", "policy": {}}]}');
SELECT * FROM import_policies('{"format": 1, "policies": [{"table": "aging.bookings", "policy": {"premake": -1}}]}', false);
SELECT * FROM import_policies('{"format": 9, "policies": []}');
SELECT * FROM import_policies('{"format": 1, "policies": [{"table": "aging.bookings", "policy": {"hot_aftr": "1 day"}}]}');

\echo '-- what is due, and when'
SELECT set_archive_policy('bookings', clear => '{maintenance_window}');
SET archive_ext.now = 'soon';
SELECT * FROM plan_archive('bookings');
SET archive_ext.now = '2025-02-15';
SELECT table_name, partitions, action, starts, rows, local_bytes > 0 AS takes_space, bytes_freed > 0 AS frees_space, locks, reason FROM plan_archive('bookings');
SELECT partition, status, next_step, due, reason, freed_by FROM explain_lifecycle('bookings');
SELECT regexp_replace(line, '[0-9.]+ (kB|B)', 'N', 'g') FROM lifecycle_map('bookings') line;

\echo '-- outside its window nothing is done, inside everything that is due'
SELECT set_archive_policy('bookings', maintenance_window => 'Sun 22:00-23:00 UTC');
CALL run_lifecycle('bookings');
SELECT partition, reason, freed_by FROM explain_lifecycle('bookings') LIMIT 1;
SELECT operation, partition_name, status, phase, reason FROM archive_ext.jobs WHERE table_name = 'bookings'::regclass;
SET archive_ext.now = '2025-02-16 22:30+00';
CALL run_lifecycle('bookings');
SELECT operation, partition_name, status, phase FROM archive_ext.jobs WHERE table_name = 'bookings'::regclass;
SELECT partition, status, label, next_step, due, reason, freed_by FROM explain_lifecycle('bookings');

\echo '-- a month later'
SELECT set_archive_policy('bookings', clear => '{maintenance_window}');
SET archive_ext.now = '2025-03-15';
CALL run_lifecycle();
SELECT regexp_replace(line, '[0-9.]+ (kB|B)', 'N', 'g') FROM lifecycle_map('bookings') line;
SELECT objects, archived_bytes > 0 AS estimated FROM plan_archive('bookings');
SELECT count(*) FROM archive.bookings_all;

\echo '-- a partition that was brought back stays, or goes back when its time is over'
SELECT reattach_partition('aging.bookings_2024_01');
SELECT reattach_partition('aging.bookings_2024_02', keep_for => '1 day');
SELECT partition, status, next_step, reason, freed_by FROM explain_lifecycle('bookings');
SET archive_ext.now = '2099-01-01';
SELECT partitions, action, regexp_replace(reason, 'until .*', 'until …') FROM plan_archive('bookings');

\echo '-- steering'
RESET archive_ext.now;
SELECT set_archive_policy('bookings', max_attempts => 1, storage => 'cold');
SELECT archive_ext.schedule_jobs('bookings'), archive_ext.schedule_jobs('bookings');
SELECT job_id AS job FROM archive_ext.jobs WHERE status = 'pending' AND table_name = 'bookings'::regclass \gset
SELECT pause_job(:'job');
SELECT archive_ext.next_job('bookings');
SELECT status, next_step, reason IS NOT NULL, freed_by LIKE 'resume_job(%' AS resume FROM explain_lifecycle('bookings') WHERE partition LIKE '%03';
\set VERBOSITY terse
SELECT retry_job(:'job');
SELECT resume_job(:'job');
SELECT resume_job(:'job');
SELECT archive_ext.next_job('bookings') = :'job' AS taken_up;
SET client_min_messages = error;
SELECT archive_ext.job_failed(:'job', '53100', 'no space left', NULL);
SELECT status, attempts, error FROM archive_ext.jobs WHERE job_id = :'job';
SELECT alert, partition_name, detail, replace(remedy, :'job', 'JOB') FROM archive_ext.alerts WHERE table_name = 'bookings'::regclass;
SELECT archive_ext.schedule_jobs('bookings');
SELECT replace(freed_by, :'job', 'JOB') FROM explain_lifecycle('bookings') WHERE partition LIKE '%03';
SELECT retry_job(:'job');
SELECT cancel_job(:'job'), cancel_job(:'job');
SELECT archive_ext.schedule_jobs('bookings');
SELECT retry_job(:'job');
CALL run_lifecycle('bookings');
SELECT status, attempts, error FROM archive_ext.jobs WHERE job_id = :'job';
SELECT pause_job(:'job');
SELECT cancel_job(:'job');
DROP SCHEMA aging CASCADE;
