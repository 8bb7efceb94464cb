-- The second and third phase: verified again, then the local copy goes. What a DBA sees; tests/e2e/test_verify.py does the damage.
CREATE SCHEMA verify;
SET search_path = verify, public;
SET archive_ext.default_storage = 'cold';
CREATE TABLE gauge (at timestamptz NOT NULL, sensor int NOT NULL, value float8) PARTITION BY RANGE (at);
CREATE TABLE gauge_01 PARTITION OF gauge FOR VALUES FROM ('2024-01-01Z') TO ('2024-02-01Z');
CREATE TABLE gauge_02 PARTITION OF gauge FOR VALUES FROM ('2024-02-01Z') TO ('2024-03-01Z');
CREATE TABLE gauge_03 PARTITION OF gauge FOR VALUES FROM ('2024-03-01Z') TO ('2024-04-01Z');
INSERT INTO gauge SELECT timestamptz '2024-01-01Z' + n * interval '1 hour', n % 7, n / 4.0 FROM generate_series(0, 2000) n;
SELECT verify_archive('gauge');
SELECT archived, rows FROM archive_partition('gauge_01');
SELECT archived, rows FROM archive_partition('gauge_02', drop_local => '0');
SELECT archived, rows FROM archive_partition('gauge_03');

-- Levels; of a table everyarticle that is archived.
SELECT partition, level, objects, rows, verified_at IS NOT NULL AS verified, result FROM verify_archive('gauge');
SELECT partition, level, objects, rows, result FROM verify_archive('verify.gauge_01', 'checksum');
SELECT partition, level, result FROM verify_archive('gauge', 'deep');
SELECT partition, level, result FROM verify_archive('archive.gauge_02');
SELECT partition, level, result FROM verify_archive('archive.gauge_all', 'checksum');
SELECT partition_name, verified_level FROM archive_ext.partitions WHERE table_name = 'gauge'::regclass ORDER BY 1;
CALL verify_archive_steps('gauge');
CALL verify_archive_steps('gauge', 'thorough');
SELECT verify_archive('gauge', 'thorough');
SELECT verify_archive('gauge_04');
SELECT verify_archive('pg_class');
SELECT verify_archive('a.b.c');

-- By samples.
SELECT objects, sampled, rows > 0 AS some_rows, damaged FROM reconcile_archive('gauge');
SELECT objects, sampled, rows, damaged FROM reconcile_archive('gauge', 100);
SELECT reconcile_archive('gauge', 101);
SELECT reconcile_archive('gauge', 'NaN');
SELECT reconcile_archive('pg_class');

-- What will happen, and why not yet.
SELECT partition, status, next_step, regexp_replace(reason, '\d{4}-.*', '…') AS reason, freed_by FROM explain_lifecycle('gauge');
SELECT partitions, action, rows, bytes_freed > 0 AS frees, locks FROM plan_archive('gauge') ORDER BY 1;
CALL run_lifecycle('gauge');
SELECT operation, count(*) FROM archive_ext.jobs WHERE table_name = 'gauge'::regclass GROUP BY 1;

-- The local copy goes only when it is equal.
SELECT drop_local_copy('gauge_02');
SELECT drop_local_copy('gauge');
SELECT local_copy AS copy FROM archive_ext.partitions WHERE partition_name = 'gauge_03' AND table_name = 'gauge'::regclass \gset
ALTER TABLE :copy DISABLE TRIGGER ALL;
UPDATE :copy SET value = value + 1 WHERE sensor = 3;
\set VERBOSITY terse
SELECT drop_local_copy('gauge_03');
SELECT partition, level, result, verified_at FROM verify_archive('gauge_03', 'deep');
SELECT partition, level, result, verified_at IS NULL AS failed FROM verify_archive('gauge_03');
UPDATE :copy SET value = value - 1 WHERE sensor = 3;
DELETE FROM :copy WHERE sensor = 4;
SELECT drop_local_copy('gauge_03');
\set VERBOSITY default
SELECT count(*) FROM archive.gauge WHERE at >= '2024-03-01Z';
SELECT partition, rows, bytes_freed > 0 AS freed FROM drop_local_copy('gauge_01');
SELECT partition_name, local_copy IS NULL AS gone, local_copy_until IS NULL AS no_time FROM archive_ext.partitions
WHERE table_name = 'gauge'::regclass ORDER BY 1;
SELECT count(*) FROM archive.gauge_all;
SELECT event, partition_name, count(*) FROM archive_ext.events WHERE table_name = 'gauge'::regclass
  AND event NOT IN ('archived') GROUP BY 1, 2 ORDER BY 1, 2;
SELECT reattach_partition('gauge_01');
SELECT count(*) FROM gauge WHERE at < '2024-02-01Z';
SELECT verify_archive('gauge_01');

-- An enum label that is called otherwise, and a column that is, keep noarticle from being verified.
CREATE TYPE verify.state AS ENUM ('new', 'old');
CREATE TABLE article (id int NOT NULL, state verify.state NOT NULL, note text) PARTITION BY RANGE (id);
CREATE TABLE article_1 PARTITION OF article FOR VALUES FROM (0) TO (100);
INSERT INTO article SELECT n, (enum_range(NULL::verify.state))[1 + n % 2], 'note ' || n FROM generate_series(0, 99) n;
SELECT archived FROM archive_partition('article_1');
ALTER TYPE verify.state RENAME VALUE 'old' TO 'ancient';
ALTER TABLE article RENAME note TO remark;
ALTER TABLE article ADD more int DEFAULT 7;
SELECT partition, level, result FROM verify_archive('article', 'deep');
SELECT partition, rows FROM drop_local_copy('article_1');
SELECT count(*), count(remark), sum(more), count(*) FILTER (WHERE state = 'ancient') FROM archive.article_all;

-- Rows that were archived one by one.
CREATE TABLE passage (id int PRIMARY KEY, at timestamptz NOT NULL);
INSERT INTO passage SELECT n, timestamptz '2024-01-25Z' + n * interval '1 hour' FROM generate_series(1, 100) n;
CALL archive_table('passage', '2024-02-05Z', batch_rows => 40);
SELECT level, objects, rows, result FROM verify_archive('passage');
SELECT level, objects, rows, result FROM verify_archive('passage', 'deep');
SELECT objects, sampled, damaged FROM reconcile_archive('passage', 50);

-- Somebody else's.
CREATE ROLE verify_other;
GRANT USAGE ON SCHEMA verify TO verify_other;
GRANT SELECT ON gauge TO verify_other;
SET ROLE verify_other;
SELECT verify_archive('verify.gauge');
SELECT drop_local_copy('verify.gauge_03');
SELECT reconcile_archive('verify.gauge');
SELECT count(*) FROM archive_ext.storage_finding;
RESET ROLE;

-- A file that is cut off, and one that is gone.
CREATE PROCEDURE damage(partition text, command text) LANGUAGE plpgsql AS $$
DECLARE
    path text;
BEGIN
    SELECT regexp_replace((SELECT option_value FROM pg_foreign_server, pg_options_to_table(srvoptions)
                           WHERE srvname = 'cold' AND option_name = 'location'), '^file://', '') || '/' || key
    INTO path FROM archive_ext.objects WHERE partition_name = partition ORDER BY ordinal DESC LIMIT 1;
    EXECUTE format('COPY (SELECT) TO PROGRAM %L', 'cat > /dev/null; ' || format(command, path));
END
$$;
SET client_min_messages = error;
CALL damage('gauge_03', 'truncate --size=100 %s');
SELECT partition, regexp_replace(result, 'not \d+', 'not …') AS result, verified_at FROM verify_archive('gauge_03', 'checksum');
RESET client_min_messages;
CALL damage('gauge_02', 'rm %s');
SELECT objects, damaged FROM reconcile_archive('gauge');
SELECT partition, level, left(result, 40) AS result, verified_at FROM verify_archive('gauge');
SET client_min_messages = warning;
CALL verify_archive_steps('gauge');
RESET client_min_messages;
SELECT kind, storage, partition_name, regexp_replace(details::text, 'not \d+', 'not …') AS details, resolved_at
FROM archive_ext.findings WHERE table_name = 'gauge'::regclass ORDER BY id;
\set VERBOSITY terse
SELECT drop_local_copy('gauge_03');
\set VERBOSITY default
SELECT event, partition_name, details ->> 'kind' AS kind FROM archive_ext.events
WHERE table_name = 'gauge'::regclass AND event LIKE 'object %' ORDER BY at;
SET ROLE verify_other;
SELECT kind, partition_name FROM archive_ext.findings ORDER BY id;
RESET ROLE;
REVOKE SELECT ON gauge FROM verify_other;
SET ROLE verify_other;
SELECT count(*) FROM archive_ext.findings;
RESET ROLE;
REVOKE USAGE ON SCHEMA verify FROM verify_other;
DROP ROLE verify_other;
DELETE FROM archive_ext.storage_finding;
