-- LIST partitions, sub-partitioned trees, several partitions at once, the procedure.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA tree;
SET search_path = tree, public;

CREATE TABLE events (id int, year int, region text) PARTITION BY LIST (year);
CREATE TABLE events_2022 PARTITION OF events FOR VALUES IN (2022);
CREATE TABLE events_2023 PARTITION OF events FOR VALUES IN (2023) PARTITION BY LIST (region);
CREATE TABLE events_2023_eu PARTITION OF events_2023 FOR VALUES IN ('eu', NULL);
CREATE TABLE events_2023_us PARTITION OF events_2023 FOR VALUES IN ('us');
CREATE TABLE events_2024 PARTITION OF events FOR VALUES IN (2024);
INSERT INTO events SELECT n, 2022 + n % 3, CASE n % 4 WHEN 0 THEN 'us' WHEN 1 THEN NULL ELSE 'eu' END FROM generate_series(1, 3000) n;
CREATE TABLE before AS TABLE events;

SELECT archived, rows FROM archive_partitions(ARRAY['events_2022', 'events_2023_eu']::regclass[]);
CALL archive_partition_steps(ARRAY['events_2023_us']::regclass[], drop_local => '0');
SELECT relid, parentrelid, level, isleaf FROM pg_partition_tree('archive.events') ORDER BY relid::text;
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE archive.events_all) lost;
SELECT count(*) FROM (TABLE archive.events_all EXCEPT ALL TABLE before) invented;
EXPLAIN (COSTS OFF) SELECT * FROM archive.events_all WHERE year = 2024;
SELECT partition_name, status, label, rows FROM archive_ext.partitions WHERE table_name = 'events'::regclass ORDER BY partition_name;
\echo '-- called again, the procedure skips what is archived'
SET client_min_messages = notice;
CALL archive_partition_steps(ARRAY['archive.events_2023_us', 'events_2024']::regclass[]);
SET client_min_messages = warning;
\echo '-- a second swap in one transaction is refused, and the first one rolled back with it'
SELECT reattach_partition('events_2023_us');
BEGIN;
SELECT archived FROM archive_partition('events_2023_us');
SELECT reattach_partition('events_2022') AS also_a_swap;
SELECT archived FROM archive_partition('events_2022');
ROLLBACK;
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE archive.events_all) lost;
\echo '-- a partition that this transaction created needs no worker'
BEGIN;
CREATE TABLE events_2025 PARTITION OF events FOR VALUES IN (2025);
INSERT INTO events VALUES (1, 2025, 'eu');
SELECT archived, rows FROM archive_partition('events_2025');
COMMIT;
SELECT count(*) FROM archive.events WHERE year = 2025;
\echo '-- a partition that this transaction reads is refused'
BEGIN;
SELECT count(*) FROM events_2023_us;
SELECT archived FROM archive_partition('events_2023_us');
ROLLBACK;
DROP SCHEMA tree CASCADE;
