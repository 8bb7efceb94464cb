-- `make bench-batches`: does an archive of many batches stay fast, and what does merging its objects bring? Timed: a count and a point lookup over 2,500
-- objects of 200 rows, merging them, the same over what they became, and rows that come back.
\set rows 500000
SET client_min_messages = warning;
CREATE EXTENSION archive_ext;
\getenv storage ARCHIVE_EXT_STORAGE
SELECT 'file://' || :'storage' AS location \gset
CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'location');
SET archive_ext.default_storage = 'cold';
CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, what text, actor int, payload text);
INSERT INTO audit
SELECT n, timestamptz '2024-01-01Z' + n * interval '1 minute', 'login ' || n, n % 100, md5(n::text)
FROM generate_series(1, :rows) n;
\timing on
\echo archive
CALL archive_table('audit', archive_before => '2026-01-01Z', batch_rows => 200);
\echo count, then point lookup, over many objects
SELECT count(*), sum(actor) FROM archive.audit;
SELECT what FROM archive.audit WHERE id = :rows / 2;
\echo merge
CALL compact_archive_steps('audit');
\echo the same over few
SELECT count(*), sum(actor) FROM archive.audit;
SELECT what FROM archive.audit WHERE id = :rows / 2;
\echo restore a fifth, then one row
SELECT restore_rows('audit', 'id % 5 = 0');
SELECT restore_rows('audit', 'id = 1');
\timing off
