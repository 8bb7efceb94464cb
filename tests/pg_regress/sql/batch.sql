-- Rows archived one by one: what people see, and what is refused.
SET client_min_messages = notice;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA batch;
SET search_path = batch, public;
SET archive_ext.progress_interval = 0;

CREATE TABLE auditlog (id bigint PRIMARY KEY, at timestamptz NOT NULL, seen date, what text);
INSERT INTO auditlog SELECT n, timestamptz '2024-01-01Z' + n * interval '1 hour', NULL, 'login ' || n
FROM generate_series(1, 3000) n;

\echo '-- a dry run, a batch, the rest'
SELECT * FROM archive_table_batch('auditlog', '2024-03-01Z', batch_rows => 1000, dry_run => true);
SELECT job_id IS NOT NULL AS job, rows, first_key, last_key, object LIKE 'batch.auditlog/archive_year=2024/archive_month=01/%' AS placed, done
FROM archive_table_batch('auditlog', '2024-03-01Z', batch_rows => 1000);
CALL archive_table('auditlog', '2024-03-01Z', batch_rows => 300, max_batches => 1);
CALL archive_table('auditlog', '2024-03-01Z', batch_rows => 300);
CALL archive_table('auditlog', '2024-03-01Z');
SELECT operation, status, phase, rows_archived FROM archive_ext.jobs WHERE table_name = 'auditlog'::regclass ORDER BY started_at;
SELECT partition_name, event, status, details - 'storage' AS details FROM archive_ext.events WHERE table_name = 'auditlog'::regclass;
\d archive.auditlog
SELECT count(*), min(id), max(id) FROM archive.auditlog;
SELECT count(*), count(DISTINCT id) FROM archive.auditlog_all;
SELECT what FROM archive.auditlog_all WHERE id IN (7, 2999) ORDER BY id;
SELECT partition_name, status, tier, rows FROM archive_ext.partitions WHERE table_name = 'auditlog'::regclass;

\echo '-- it is no partition'
SELECT reattach_partition('auditlog_rows');
SELECT archive_partition('auditlog');

\echo '-- refused'
SELECT archive_table_batch('auditlog', NULL);
SELECT archive_table_batch('auditlog', now(), time_column => 'what');
SELECT archive_table_batch('auditlog', now(), time_column => 'nothing');
SELECT archive_table_batch('auditlog', now(), order_key => '{at}');
SELECT archive_table_batch('auditlog', now(), order_key => '{nothing}');
SELECT archive_table_batch('auditlog', now(), batch_rows => 0);
SELECT archive_table_batch('auditlog', now(), locked => 'steal');
SELECT archive_table_batch('auditlog', now(), referenced => 'ignore');
SELECT archive_table_batch('auditlog', now(), where_clause => 'id = 1; DROP TABLE auditlog');
SELECT archive_table_batch('auditlog', now(), where_clause => 'nothing = 1');
CREATE TABLE keyless (at date NOT NULL);
SELECT archive_table_batch('keyless', now());
CREATE TABLE timeless (id int PRIMARY KEY);
SELECT archive_table_batch('timeless', now());
CREATE TABLE times (id int PRIMARY KEY, made date NOT NULL, changed date NOT NULL);
SELECT archive_table_batch('times', now());
CREATE TABLE ranges (at date PRIMARY KEY) PARTITION BY RANGE (at);
CREATE TABLE ranges_2024 PARTITION OF ranges FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT archive_table_batch('ranges', now());
SELECT archive_table_batch('ranges_2024', now());
CREATE VIEW seen AS SELECT * FROM auditlog;
SELECT archive_table_batch('seen', now());
CREATE TABLE heirs (id int PRIMARY KEY, at date NOT NULL);
CREATE TABLE heir () INHERITS (heirs);
SELECT archive_table_batch('heirs', now());
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT archive_table_batch('auditlog', now());
ROLLBACK;

\echo '-- rows by what they are'
CREATE TABLE client (id int PRIMARY KEY, name text, active boolean) PARTITION BY HASH (id);
CREATE TABLE client_0 PARTITION OF client FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE client_1 PARTITION OF client FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO client SELECT n, 'client ' || n, n % 10 > 0 FROM generate_series(1, 100) n;
SELECT set_lifecycle_where('client', 'NOT active', 'ARCHIVED');
CALL set_lifecycle_where_steps('client', 'id < 5', 'ARCHIVED', batch_rows => 2);
SELECT count(*), sum(id) FROM archive.client;
SELECT set_lifecycle_where('client', 'active', 'ARCHIVED', removal_time => '2030-01-01');
CREATE TABLE purchase (id int PRIMARY KEY, client int REFERENCES client ON DELETE CASCADE);
INSERT INTO purchase VALUES (1, 11);
SELECT set_lifecycle_where('client', 'id BETWEEN 11 AND 12', 'ARCHIVED');
SELECT count(*) FROM purchase;
DROP SCHEMA batch CASCADE;

