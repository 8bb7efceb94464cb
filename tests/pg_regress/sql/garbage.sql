-- Audits of a storage, the removal of what nothing needs, and what is refused.
SET client_min_messages = warning;
SELECT substring(array_to_string(srvoptions, ',') FROM 'location=([^,]*)') || '/garbage' AS place
FROM pg_foreign_server WHERE srvname = 'cold' \gset
SELECT substr(:'place', 8) AS directory \gset
SET client_min_messages = error;
CREATE SERVER bin FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'place');
SET client_min_messages = warning;
CREATE TABLE gone (id int NOT NULL, at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE gone_1 PARTITION OF gone FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE gone_2 PARTITION OF gone FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
INSERT INTO gone SELECT n, date '2024-01-15' + 31 * (n % 2) FROM generate_series(1, 100) n;
-- Nothing is ours yet.
SELECT * FROM collect_garbage('bin');
SELECT rows FROM archive_partition('gone_1', 'bin', drop_local => '0');
SELECT * FROM audit_storage('bin');
SELECT * FROM collect_garbage('bin');
-- A run that rolls back leaves objects that nothing names.
BEGIN;
SELECT rows FROM archive_partition('gone_2', 'bin');
ROLLBACK;
DO $$
BEGIN
    -- Another process ends the job.
    FOR tries IN 1..500 LOOP
        EXIT WHEN NOT EXISTS (SELECT FROM archive_ext.archival_job WHERE partition = 'gone_2'::regclass AND status = 'running');
        PERFORM pg_sleep(0.02);
        COMMIT;
    END LOOP;
END
$$;
SELECT key, kind, details ->> 'by' AS by FROM audit_storage('bin');
SELECT storage, key, kind, table_name, resolved_at IS NOT NULL AS resolved FROM archive_ext.findings WHERE storage = 'bin' ORDER BY key;
SELECT event, details -> 'findings' AS findings FROM archive_ext.events WHERE partition_name = 'bin' ORDER BY at;
-- Not before the retention.
SELECT * FROM collect_garbage('bin', '1 day');
SELECT * FROM collect_garbage('bin', dry_run => false);
SET archive_ext.garbage_retention = 0;
SELECT key, kind, bytes > 0 AS has_bytes, last_modified <= now() AS written, removed, detail FROM collect_garbage('bin', '0') ORDER BY key;
SELECT key, kind, removed, detail FROM collect_garbage('bin', '0', false) ORDER BY key;
SELECT key, kind, removed, detail FROM collect_garbage('bin', '0', false) ORDER BY key;
SELECT * FROM audit_storage('bin');
SELECT count(*) AS unresolved FROM archive_ext.findings WHERE storage = 'bin' AND resolved_at IS NULL;
SELECT details - 'bytes' AS collected FROM archive_ext.events WHERE event = 'garbage collected' ORDER BY at;
-- Earlier versions go, their rows with them; what the last one shares with them stays.
SELECT reattach_partition('gone_1', writable => true);
UPDATE gone_1 SET id = -id WHERE id = 2;
SELECT rows FROM archive_partition('gone_1', 'bin', drop_local => '0');
SELECT version, key FROM archive_ext.objects WHERE table_name = 'gone'::regclass ORDER BY 1;
SELECT * FROM audit_storage('bin');
SELECT key, kind, removed, detail FROM collect_garbage('bin', '0', false) ORDER BY key;
SELECT version, key FROM archive_ext.objects WHERE table_name = 'gone'::regclass ORDER BY 1;
SELECT count(*), sum(id) FROM archive.gone_all;
-- An object that is another file, and one that is not ours.
SELECT key FROM archive_ext.objects WHERE table_name = 'gone'::regclass \gset
\set file :directory '/' :key
COPY (SELECT 'no parquet') TO :'file';
\set file :directory '/public.gone/notes.txt'
COPY (SELECT 'mine') TO :'file';
SELECT key, kind, details - 'written' - 'expected_bytes' - 'etag' - 'version_id' - 'by' AS details FROM audit_storage('bin');
SELECT * FROM collect_garbage('bin', '0', false);
SELECT kind, table_name, partition_name FROM archive_ext.findings WHERE storage = 'bin' AND resolved_at IS NULL ORDER BY kind;
SELECT event, partition_name, status FROM archive_ext.events WHERE table_name = 'gone'::regclass AND event LIKE 'object%';
SELECT problem, repaired FROM check_consistency() WHERE object = 'storage bin';
-- Who may.
CREATE ROLE regress_garbage;
CREATE ROLE regress_garbage_owner;
ALTER TABLE gone OWNER TO regress_garbage_owner;
SET ROLE regress_garbage;
SELECT * FROM audit_storage('bin');
SELECT * FROM collect_garbage('bin');
SELECT * FROM archive_ext.findings;
SELECT * FROM check_consistency();
SET archive_ext.garbage_retention = 0;
SET ROLE regress_garbage_owner;
SELECT kind FROM archive_ext.findings;
RESET ROLE;
GRANT pg_read_server_files, pg_write_server_files TO regress_garbage;
GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO regress_garbage;
ALTER SERVER bin OWNER TO regress_garbage;
SET ROLE regress_garbage;
SELECT kind FROM audit_storage('bin');
SELECT count(*) FROM collect_garbage('bin', '0');
RESET ROLE;
ALTER SERVER bin OWNER TO CURRENT_USER;
ALTER TABLE gone OWNER TO CURRENT_USER;
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT * FROM collect_garbage('bin');
ROLLBACK;
-- A storage that is another place than its objects.
\set VERBOSITY terse
SET client_min_messages = error;
ALTER SERVER bin OPTIONS (SET location 'file:///nowhere/else');
SET client_min_messages = warning;
SELECT * FROM audit_storage('bin');
SELECT * FROM collect_garbage('bin');
SELECT rows FROM archive_partition('gone_2', 'bin');
SELECT object, problem LIKE '%is another place than its archived partitions%' AS moved, remedy LIKE 'ALTER SERVER bin OPTIONS (SET location%' AS back
FROM check_consistency() WHERE object = 'storage bin';
SET client_min_messages = error;
ALTER SERVER bin OPTIONS (SET location :'place');
SET client_min_messages = warning;
-- What check_consistency mends.
DROP VIEW archive.gone_all;
DROP FOREIGN TABLE archive.gone_1;
SELECT object, problem, repaired, remedy FROM check_consistency() WHERE object LIKE 'public.gone%' ORDER BY 1;
SELECT object, repaired FROM check_consistency(repair => true) WHERE object LIKE 'public.gone%' ORDER BY 1;
SELECT object, problem FROM check_consistency() WHERE object LIKE 'public.gone%';
\d archive.gone
CREATE TABLE gone_x PARTITION OF gone FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
SELECT object, problem, repaired FROM check_consistency(true) WHERE object LIKE 'public.gone%';
DROP TABLE gone_x;
-- Gone for good.
SET client_min_messages = error;
DROP TABLE archive.gone CASCADE;
DROP TABLE gone;
DELETE FROM archive_ext.partition WHERE storage = 'bin';
DELETE FROM archive_ext.managed_table WHERE archive_name = 'gone';
SELECT key, removed, detail FROM collect_garbage('bin', '0', false) ORDER BY key;
DROP SERVER bin;
DELETE FROM archive_ext.storage_claim WHERE storage = 'bin';
DELETE FROM archive_ext.storage_finding WHERE storage = 'bin';
DROP OWNED BY regress_garbage, regress_garbage_owner;
DROP ROLE regress_garbage, regress_garbage_owner;
