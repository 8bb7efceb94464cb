-- The hot table changes after partitions were archived. Everything is done by its owner, who is no superuser.
SET client_min_messages = warning;
SET timezone = 'UTC';
CREATE ROLE drift_owner;
CREATE ROLE drift_reader;
CREATE ROLE drift_other;
GRANT USAGE ON FOREIGN SERVER cold TO drift_owner;
CREATE SCHEMA drift AUTHORIZATION drift_owner;
GRANT USAGE ON SCHEMA drift TO drift_reader, drift_other;
SET search_path = drift, public;
SET archive_ext.default_storage = 'cold';
SET ROLE drift_owner;

CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy');
CREATE TABLE t (id int NOT NULL, day date NOT NULL, note text, price numeric(8,2), tag varchar(10), feeling mood, gone int)
    PARTITION BY RANGE (day);
CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE t_2 PARTITION OF t FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE t_3 PARTITION OF t FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE t_4 PARTITION OF t FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
INSERT INTO t SELECT n, date '2024-01-01' + (n % 4) * 31, 'n' || n, n * 1.25, 'tag' || n % 3,
                     (ARRAY['sad', 'ok', 'happy'])[n % 3 + 1]::mood, n * 10 FROM generate_series(1, 40) n;
CREATE INDEX t_1_note ON t_1 (note);
GRANT SELECT ON t TO drift_reader;
SELECT archived, rows FROM archive_partition('t_1');
SELECT archived, rows FROM archive_partition('t_2', drop_local => '0');

\echo '-- ADD COLUMN: without default, with one, with a stable one, with a volatile one, generated'
ALTER TABLE t ADD COLUMN plain int;
ALTER TABLE t ADD COLUMN five int DEFAULT 5 NOT NULL;
ALTER TABLE t ADD COLUMN at timestamptz DEFAULT now();
ALTER TABLE t ADD COLUMN seq uuid DEFAULT gen_random_uuid();
ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED;
\d archive.t
\d+ archive.t_all
SELECT id, plain, five, at IS NOT NULL AS at, twice FROM archive.t WHERE id IN (4, 5) ORDER BY id;
SELECT id, five, twice FROM archive.t_all WHERE id IN (4, 3) ORDER BY id;
SELECT count(*) FROM archive.t WHERE twice = 10 AND five = 5 AND plain IS NULL;
SELECT count(DISTINCT at) FROM archive.t_all;
SELECT seq FROM archive.t LIMIT 1;
\echo '-- a new default does not change old rows'
ALTER TABLE t ALTER COLUMN five SET DEFAULT 6;
SELECT DISTINCT five FROM archive.t_all;

\echo '-- RENAME COLUMN'
ALTER TABLE t RENAME COLUMN note TO remark;
SELECT id, remark FROM archive.t_all WHERE id IN (3, 4, 5) ORDER BY id;
SELECT id FROM archive.t WHERE remark = 'n4';
\echo '-- two columns swap their names'
BEGIN;
ALTER TABLE t RENAME COLUMN remark TO swap;
ALTER TABLE t RENAME COLUMN tag TO remark;
ALTER TABLE t RENAME COLUMN swap TO tag;
SELECT id, tag, remark FROM archive.t_all WHERE id IN (3, 4) ORDER BY id;
ROLLBACK;

\echo '-- DROP COLUMN, and a column of its name again'
ALTER TABLE t DROP COLUMN gone;
SELECT attname FROM pg_attribute WHERE attrelid = 'archive.t_1'::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum;
ALTER TABLE t ADD COLUMN gone text DEFAULT 'new';
SELECT DISTINCT gone FROM archive.t_all;

\echo '-- SET DATA TYPE: a plain cast, with USING, with a chain of casts'
ALTER TABLE t ALTER COLUMN id TYPE bigint;
ALTER TABLE t DROP COLUMN twice;
ALTER TABLE t ALTER COLUMN id TYPE bigint;
ALTER TABLE t ALTER COLUMN price TYPE numeric(8,1);
ALTER TABLE t ALTER COLUMN plain TYPE text USING coalesce(plain::text, 'none');
ALTER TABLE t ALTER COLUMN tag TYPE varchar(3) USING tag::varchar(3);
ALTER TABLE t ALTER COLUMN five TYPE text;
SELECT id, price, tag, five, pg_typeof(five) FROM archive.t_all WHERE id IN (3, 4, 5) ORDER BY id;
SELECT count(*) FROM archive.t WHERE id = 5::bigint;
SELECT count(*) FROM archive.t WHERE price = 6.3;
\echo '-- values of before cannot be had when USING computed them'
ALTER TABLE t ALTER COLUMN remark TYPE int USING length(remark);
SELECT id, remark FROM archive.t_all WHERE id = 3;
SELECT id, remark FROM archive.t WHERE id = 4;
SELECT count(*) FROM archive.t;
ALTER TABLE t DROP COLUMN remark;
\echo '-- the same type, but other values'
BEGIN;
ALTER TABLE t ALTER COLUMN five TYPE text USING five || '!';
SELECT count(five) FROM archive.t;
ROLLBACK;
BEGIN;
ALTER TABLE t ALTER COLUMN tag TYPE varchar(3) USING tag::varchar(2);
SELECT DISTINCT tag FROM archive.t_all;
ROLLBACK;
\echo '-- PostgreSQL refuses a value that does not fit'
ALTER TABLE t ALTER COLUMN price TYPE numeric(3,1);
SELECT max(price) FROM t;

\echo '-- the enum is replaced by another'
CREATE TYPE mood2 AS ENUM ('happy', 'fine', 'ok', 'sad');
ALTER TABLE t ALTER COLUMN feeling TYPE mood2 USING feeling::text::mood2;
SELECT feeling, count(*) FROM archive.t GROUP BY 1 ORDER BY 1;
\echo '-- the local copy of t_1 still has the old one'
\set VERBOSITY terse
DROP TYPE mood;
\set VERBOSITY default
SET client_min_messages = error;
DROP TYPE mood CASCADE;
SET client_min_messages = warning;
SELECT feeling, count(*) FROM archive.t GROUP BY 1 ORDER BY 1;
SELECT count(*) FROM archive.t WHERE feeling = 'sad';

\echo '-- objects that depend on the view are named'
CREATE VIEW depends AS SELECT id, gone FROM archive.t_all;
ALTER TABLE t DROP COLUMN gone;
ALTER TABLE t ALTER COLUMN id TYPE int;
ALTER TABLE t ADD COLUMN late int;
ALTER TABLE t RENAME COLUMN late TO later;
SELECT count(*) FROM depends;
DROP VIEW depends;
\echo '-- a column goes with its type'
SET client_min_messages = error;
DROP TYPE mood2 CASCADE;
SET client_min_messages = warning;
SELECT * FROM archive.t_all WHERE false;

\echo '-- owner, comment and grants of the view outlive it'
COMMENT ON VIEW archive.t_all IS 'my comment';
GRANT SELECT (id) ON archive.t_all TO drift_other;
ALTER TABLE t DROP COLUMN later;
SELECT relowner::regrole, replace(relacl::text, 'xtm/', 'xt/') AS relacl, reloptions, obj_description(oid) FROM pg_class WHERE oid = 'archive.t_all'::regclass;
SELECT attname, attacl FROM pg_attribute WHERE attrelid = 'archive.t_all'::regclass AND attacl IS NOT NULL;
REVOKE SELECT (id) ON archive.t_all FROM drift_other;

\echo '-- GRANT and REVOKE'
SET ROLE drift_reader;
SELECT count(*) FROM archive.t_all;
SET ROLE drift_owner;
REVOKE SELECT ON t FROM drift_reader;
GRANT SELECT (id, day) ON t TO drift_other;
SET ROLE drift_reader;
SELECT count(*) FROM archive.t_all;
SELECT count(*) FROM archive.t;
SET ROLE drift_other;
SELECT max(id) FROM archive.t_all;
SELECT max(tag) FROM archive.t_all;
SET ROLE drift_owner;
REVOKE ALL ON t FROM drift_other;
GRANT SELECT ON ALL TABLES IN SCHEMA drift TO drift_reader;
SET ROLE drift_other;
SELECT max(id) FROM archive.t;
SET ROLE drift_reader;
SELECT count(*) FROM archive.t_all;

\echo '-- row-level security'
SET ROLE drift_owner;
GRANT SELECT ON archive.t_1 TO drift_reader;
ALTER TABLE t ENABLE ROW LEVEL SECURITY;
SET ROLE drift_reader;
SELECT count(*) FROM t;
SELECT count(*) FROM archive.t;
SELECT count(*) FROM archive.t_all;
SELECT count(*) FROM archive.t_1;
SET ROLE drift_owner;
CREATE POLICY low ON t FOR SELECT TO drift_reader USING (id <= 10);
CREATE POLICY writes ON t FOR INSERT WITH CHECK (true);
CREATE TABLE allowed (id bigint);
INSERT INTO allowed VALUES (3), (4), (5);
GRANT SELECT ON allowed TO drift_reader;
CREATE POLICY listed ON t AS RESTRICTIVE USING (EXISTS (SELECT FROM allowed a WHERE a.id = t.id));
\d archive.t
SET ROLE drift_reader;
SELECT id FROM archive.t_all ORDER BY id;
SELECT id FROM archive.t ORDER BY id;
SET ROLE drift_owner;
ALTER POLICY low ON t USING (id <= 4);
DROP POLICY listed ON t;
SET ROLE drift_reader;
SELECT id FROM archive.t_all ORDER BY id;
SET ROLE drift_owner;
SELECT archived, rows FROM archive_partition('t_3');
SET ROLE drift_reader;
SELECT id FROM archive.t_all ORDER BY id;
SELECT count(*) FROM archive.t_3;
SET ROLE drift_owner;
SELECT count(*) FROM archive.t_all;
\echo '-- policies follow their columns'
ALTER TABLE t ADD COLUMN secret bool DEFAULT false;
CREATE POLICY hidden ON t AS RESTRICTIVE FOR SELECT TO drift_reader USING (NOT secret);
ALTER TABLE t RENAME COLUMN secret TO confidential;
SELECT polname, pg_get_expr(polqual, polrelid) FROM pg_policy WHERE polrelid = 'archive.t'::regclass ORDER BY 1;
SET client_min_messages = error;
ALTER TABLE t DROP COLUMN confidential CASCADE;
SET client_min_messages = warning;
SELECT polname FROM pg_policy WHERE polrelid = 'archive.t'::regclass ORDER BY 1;
ALTER TABLE t FORCE ROW LEVEL SECURITY;
SELECT count(*) FROM archive.t_all;
ALTER TABLE t NO FORCE ROW LEVEL SECURITY;
ALTER TABLE t DISABLE ROW LEVEL SECURITY;
DROP POLICY low ON t;
SET ROLE drift_reader;
SELECT count(*) FROM archive.t_all;
SET ROLE drift_owner;

\echo '-- reattach: from the local copy, in the present shape'
ALTER TABLE t DROP COLUMN at;
SET client_min_messages = notice;
ALTER TABLE t ALTER COLUMN id TYPE int, ALTER COLUMN day DROP NOT NULL;
SELECT reattach_partition('t_1');
\d t_1
SELECT id, five, tag, price FROM t_1 ORDER BY id LIMIT 3;
SELECT reattach_partition('t_2');
\d t_2
SELECT count(*), count(seq), count(DISTINCT seq) FROM t_2;
SELECT archived, rows FROM archive_partition('t_1');
\echo '-- nothing to rewrite: the local copy is altered'
ALTER TABLE t ADD COLUMN six int DEFAULT 6;
ALTER TABLE t RENAME COLUMN tag TO label;
ALTER TABLE t DROP COLUMN seq;
ALTER TABLE t ADD CONSTRAINT positive CHECK (id > 0);
ALTER TABLE t ALTER COLUMN six SET NOT NULL;
SELECT reattach_partition('t_1');
SELECT id, six, label FROM t_1 ORDER BY id LIMIT 2;
\d t_1
SELECT reattach_partition('t_3');
SELECT count(*) FROM t;
RESET ROLE;
SELECT partition_name, details -> 'columns' AS columns, details ->> 'from' AS "from" FROM archive_ext.lifecycle_event WHERE event = 'reattached' AND details -> 'columns' @> '["column \"tag\" is now \"label\""]' ORDER BY id;
SET ROLE drift_owner;
\echo '-- a new constraint that archived rows violate'
SELECT archived, rows FROM archive_partition('t_4', drop_local => '0');
ALTER TABLE t ADD CONSTRAINT small CHECK (day < '2024-04-01' OR id > 3);
SELECT reattach_partition('t_4');
ALTER TABLE t DROP CONSTRAINT small;
SELECT reattach_partition('t_4', writable => true);
SET client_min_messages = warning;

\echo '-- the table is renamed, moved and given away'
SELECT archived, rows FROM archive_partition('t_1');
ALTER TABLE t RENAME TO u;
SELECT count(*) FROM archive.t_all;
RESET ROLE;
ALTER TABLE u SET SCHEMA public;
GRANT drift_owner TO drift_other;
ALTER TABLE u OWNER TO drift_other;
SELECT regexp_replace(relname, '[0-9a-f]{8}$', '…') AS relname, relowner::regrole FROM pg_class WHERE relnamespace = 'archive'::regnamespace AND relname ~ '^t(_|$)' ORDER BY relname;
\echo '-- dropping the hot table needs CASCADE and leaves the archive'
DROP TABLE u;
SET client_min_messages = notice;
DROP TABLE u CASCADE;
SELECT count(*) FROM archive.t;
SET client_min_messages = warning;
DROP SCHEMA drift CASCADE;
DROP TABLE archive.t CASCADE;
DROP OWNED BY drift_owner, drift_reader, drift_other CASCADE;
DROP ROLE drift_owner, drift_reader, drift_other;
