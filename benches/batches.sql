-- `make bench-batches`: does the cost of a batch stay flat, and how does it compare with deleting the rows alone? A million rows archived in batches of
-- 5,000: rows per second of the first, the middle and the last tenth, then of a plain DELETE in batches of the same size, each committed.
\set rows 1000000
SET client_min_messages = warning;
CREATE EXTENSION IF NOT EXISTS archive_ext;
CREATE SCHEMA batches;
SET search_path = batches, public;
\getenv storage ARCHIVE_EXT_STORAGE
SELECT 'file://' || :'storage' || '/batches' AS location \gset
CREATE SERVER batches FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'location');
SET archive_ext.default_storage = 'batches';
CREATE TABLE trail (id bigint PRIMARY KEY, at timestamptz NOT NULL, what text, actor int, payload text);
INSERT INTO trail
SELECT n, timestamptz '2024-01-01Z' + n * interval '1 minute', 'login ' || n, n % 100, md5(n::text)
FROM generate_series(1, :rows) n;
CREATE TABLE deleted (LIKE trail INCLUDING ALL);
INSERT INTO deleted SELECT * FROM trail;
VACUUM ANALYZE trail, deleted;
CREATE TABLE lap (number int GENERATED ALWAYS AS IDENTITY, what text, begun timestamptz, ended timestamptz, rows bigint);
CREATE PROCEDURE deletes(batches int) LANGUAGE plpgsql AS $$
DECLARE
    behind bigint := coalesce((SELECT min(id) FROM deleted), 1) - 1;
BEGIN
    FOR batch IN 1..batches LOOP
        DELETE FROM deleted WHERE id > behind AND id <= behind + 5000;
        behind := behind + 5000;
        COMMIT;
    END LOOP;
END
$$;
INSERT INTO lap (what, begun) VALUES ('archived, first tenth', clock_timestamp());
CALL archive_table('trail', '2030-01-01Z', max_batches => 20);
UPDATE lap SET ended = clock_timestamp(), rows = 100000 WHERE ended IS NULL;
CALL archive_table('trail', '2030-01-01Z', max_batches => 70);
INSERT INTO lap (what, begun) VALUES ('archived, middle tenth', clock_timestamp());
CALL archive_table('trail', '2030-01-01Z', max_batches => 20);
UPDATE lap SET ended = clock_timestamp(), rows = 100000 WHERE ended IS NULL;
CALL archive_table('trail', '2030-01-01Z', max_batches => 70);
INSERT INTO lap (what, begun) VALUES ('archived, last tenth', clock_timestamp());
CALL archive_table('trail', '2030-01-01Z', max_batches => 20);
UPDATE lap SET ended = clock_timestamp(), rows = 100000 WHERE ended IS NULL;
INSERT INTO lap (what, begun) VALUES ('DELETE alone', clock_timestamp());
CALL deletes(200);
UPDATE lap SET ended = clock_timestamp(), rows = :rows WHERE ended IS NULL;
SELECT what, round(rows / extract(epoch FROM ended - begun)) AS rows_per_second,
       round(rows / extract(epoch FROM ended - begun) / first_value(rows / extract(epoch FROM ended - begun)) OVER (ORDER BY number), 2) AS ratio
FROM lap ORDER BY number;
SELECT phase_seconds FROM archive_ext.jobs WHERE table_name = 'batches.trail'::regclass;
SELECT count(*) AS left_behind FROM trail;
