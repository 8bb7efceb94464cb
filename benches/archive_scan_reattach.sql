-- `make bench`: how long two million rows take on their way to files and back. Warm cache, file:// storage.

\set ON_ERROR_STOP on
\getenv storage ARCHIVE_EXT_STORAGE
SET client_min_messages = warning;
CREATE EXTENSION archive_ext;
SELECT 'file://' || :'storage' AS location \gset
CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'location');
SET archive_ext.default_storage = 'cold';

CREATE TABLE event (id bigint NOT NULL, at timestamptz NOT NULL, device int, value numeric(10,3), message text,
                    doc jsonb, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE event_2024_01 PARTITION OF event FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
INSERT INTO event
SELECT n, timestamptz '2024-01-01' + n * interval '1 second', n % 5000, n / 7.0, 'message ' || md5(n::text),
       jsonb_build_object('n', n, 'level', n % 5)
FROM generate_series(1, 2000000) AS n;
VACUUM ANALYZE event;

\timing on
\echo 'archive: export, verification and swap'
SELECT rows, pg_size_pretty(local_bytes) AS local, pg_size_pretty(archived_bytes) AS archived
FROM archive_partition('event_2024_01', drop_local => '0');
\echo 'scan of one column'
SELECT sum(value) FROM archive.event;
\echo 'scan of all columns'
SELECT count(*) FROM archive.event AS e WHERE e::text IS NULL;
\echo 'one row by key'
SELECT count(*) FROM archive.event WHERE id = 1234567;
\echo 'reattach: load, indexes and attach'
SELECT reattach_partition('event_2024_01');
