-- What comes next and what it brings: yearly partitions that are split before they are archived, tables of labels, objects that
-- grow old, money.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA ahead;
SET search_path = ahead, public;

\echo '-- months become a WARM year, the year is split again on its way to the archive'
CREATE TABLE reading (at timestamptz NOT NULL, value int) PARTITION BY RANGE (at);
CREATE TABLE reading_2023_11 PARTITION OF reading FOR VALUES FROM ('2023-11-01') TO ('2023-12-01');
CREATE TABLE reading_2023_12 PARTITION OF reading FOR VALUES FROM ('2023-12-01') TO ('2024-01-01');
INSERT INTO reading SELECT timestamptz '2023-11-01' + n * interval '1 hour', n FROM generate_series(0, 1400) n;
SELECT set_archive_policy('reading', warm_after => '1 month', archive_after => '1 year', warm_granularity => 'year',
    archive_granularity => 'month', storage => 'cold', drop_after => '0');
ANALYZE reading;
SET archive_ext.now = '2024-03-01';
SELECT partitions, action, reason, note FROM plan_archive('reading');
CALL run_lifecycle('reading');
SELECT partition, status, label, next_step, due, reason FROM explain_lifecycle('reading');
SELECT partitions, action, starts, reason, note FROM plan_archive('reading');
SET archive_ext.now = '2025-01-02';
SELECT partition, next_step, reason FROM explain_lifecycle('reading');
SELECT partitions, action, starts, reason, note FROM plan_archive('reading');
CALL run_lifecycle('reading');
SELECT partition, status, label FROM explain_lifecycle('reading');
SELECT operation, partition_name, status FROM archive_ext.jobs WHERE table_name = 'reading'::regclass ORDER BY started_at;
SELECT count(*), sum(value) FROM archive.reading;

\echo '-- objects that grow old: a directory has no storage classes, and says so'
SELECT set_archive_policy('reading', glacier_after => '2 years', expire_after => '10 years');
SELECT partitions, action, starts > now() + interval '9 years' AS later, rows, objects, archived_bytes > 0 AS has_bytes, saved_per_month, locks, reason, note FROM plan_archive('reading');
SELECT set_archive_policy('reading', clear => '{glacier_after}');
SELECT action, starts > now() + interval '9 years' AS counts_from_archiving, reason FROM plan_archive('reading');

\echo '-- money: nobody knows what a directory costs, until it is said'
SELECT storage_class, gb_month, currency, note FROM archive_ext.storage_price WHERE storage_class IN ('LOCAL', 'STANDARD');
SELECT set_archive_policy('reading', clear => '{expire_after}');
CREATE TABLE reading_2024_01 PARTITION OF reading FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
INSERT INTO reading SELECT timestamptz '2024-01-01' + n * interval '10 seconds', n FROM generate_series(0, 100000) n;
SET archive_ext.now = '2025-03-01';
SELECT action, bytes_freed = local_bytes AS frees_it_all, saved_per_month FROM plan_archive('reading') WHERE action = 'archive';
INSERT INTO archive_ext.storage_price (storage_class, gb_month) VALUES ('DIRECTORY', 1.5), ('LOCAL', 50);
INSERT INTO archive_ext.storage_price (storage_class, gb_month) VALUES ('DIRECTORY', 2);
SELECT storage_class, gb_month FROM archive_ext.storage_price WHERE storage_class IN ('LOCAL', 'DIRECTORY') ORDER BY 1;
SELECT saved_per_month = round(local_bytes / 1e9 * 50 - archived_bytes / 1e9 * 2, 4) AS as_priced, saved_per_month > 0.01 AS saves
FROM plan_archive('reading') WHERE action = 'archive';
INSERT INTO archive_ext.storage_price (storage, storage_class, gb_month) VALUES ('cold', 'DIRECTORY', 0);
SELECT saved_per_month = round(local_bytes / 1e9 * 50, 4) AS by_name FROM plan_archive('reading') WHERE action = 'archive';
CREATE ROLE regress_ahead;
SET ROLE regress_ahead;
SELECT count(*) FROM archive_ext.storage_price WHERE storage_class = 'LOCAL';
UPDATE archive_ext.storage_price SET gb_month = 0;
RESET ROLE;
DELETE FROM archive_ext.storage_price WHERE storage = 'cold' OR storage_class = 'DIRECTORY';
UPDATE archive_ext.storage_price SET gb_month = 0.12 WHERE storage_class = 'LOCAL';

\echo '-- tables of labels'
CREATE TABLE ticket (id int, opened_at timestamptz NOT NULL, removal_time timestamptz, lifecycle_status text NOT NULL) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
CREATE TABLE ticket_live_202501 PARTITION OF ticket FOR VALUES IN ('LIVE_202501');
CREATE TABLE ticket_hot PARTITION OF ticket FOR VALUES IN ('HOT');
CREATE TABLE ticket_warm_2024 PARTITION OF ticket FOR VALUES IN ('WARM_2024');
CREATE TABLE ticket_archive_202501 PARTITION OF ticket FOR VALUES IN ('ARCHIVE_202501');
CREATE TABLE ticket_archive_202502 PARTITION OF ticket FOR VALUES IN ('ARCHIVE_202502');
INSERT INTO ticket VALUES (1, '2024-12-05', NULL, 'LIVE_202412'), (2, '2025-01-05', NULL, 'LIVE_202501'), (3, '2024-11-05', NULL, 'HOT'),
    (4, '2024-10-05', '2025-02-20', 'WARM_2024'), (5, '2024-10-05', 'infinity', 'WARM_2024'), (6, '2024-01-01', '2025-01-05', 'ARCHIVE_202501');
SELECT set_archive_policy('ticket', hot_after => '1 month', warm_after => '6 months', storage => 'cold', drop_after => '0');
ANALYZE ticket;
SET archive_ext.now = '2025-02-10';
SELECT partitions, action, starts, rows, locks, reason, note FROM plan_archive('ticket');
SELECT partition, status, next_step, due, reason, freed_by FROM explain_lifecycle('ticket');
SELECT regexp_replace(line, '[0-9.]+ (kB|B)', 'N', 'g') FROM lifecycle_map('ticket') line;
\echo '-- whoever may SELECT may ask, nobody else'
GRANT USAGE ON SCHEMA ahead TO regress_ahead;
SET ROLE regress_ahead;
SELECT * FROM plan_archive('ticket');
RESET ROLE;
GRANT SELECT ON ticket TO regress_ahead;
SET ROLE regress_ahead;
SELECT count(*) FROM plan_archive('ticket');
SELECT next_step FROM explain_lifecycle('ticket') WHERE partition LIKE '%hot';
RESET ROLE;
\echo '-- where rows cannot move, the reason is told'
CREATE TABLE task (id int, lifecycle_status text, opened_at timestamptz, PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
CREATE TABLE task_hot PARTITION OF task FOR VALUES IN ('HOT');
SELECT set_archive_policy('task', warm_after => '6 months', time_column => 'opened_at');
ALTER TABLE task DROP COLUMN opened_at;
SELECT partition, status, next_step, reason, freed_by FROM explain_lifecycle('task');
SET client_min_messages = notice;
SELECT * FROM plan_archive('task');
SET client_min_messages = warning;
CALL run_lifecycle('ticket');
SELECT partitions, action, starts, reason FROM plan_archive('ticket');
SELECT lifecycle_status, count(*) FROM archive.ticket_all GROUP BY 1 ORDER BY 1;
\echo '-- brought back for a while: that ends by itself in tables of labels too'
SELECT reattach_partition('ahead.ticket_archive_202501', keep_for => '1 day', writable => true);
UPDATE ticket SET removal_time = '2025-01-06' WHERE id = 6;
SELECT next_step, reason FROM explain_lifecycle('ticket') WHERE partition LIKE '%202501' AND next_step IS NOT NULL;
SET archive_ext.now = '2099-01-01';
SELECT action, regexp_replace(reason, 'until .*', 'until …') FROM plan_archive('ticket') WHERE partitions = 'ahead.ticket_archive_202501';
SELECT set_archive_policy('ticket', clear => '{hot_after,warm_after}');
CALL run_lifecycle('ticket');
SELECT id, removal_time FROM archive.ticket WHERE id = 6;
RESET archive_ext.now;
SELECT drop_archive_policy('ticket'), drop_archive_policy('reading');
DROP SCHEMA ahead CASCADE;
DROP TABLE archive.ticket, archive.reading CASCADE;
DROP OWNED BY regress_ahead;
DROP ROLE regress_ahead;
