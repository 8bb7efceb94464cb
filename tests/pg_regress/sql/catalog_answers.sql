-- count(*), min and max over all rows of an archive come from the catalog: no object is read. Everything else reads.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET archive_ext.metadata_cache = 0;
SET archive_ext.enable_catalog_answers = on;
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA ca;
SET search_path = ca, public;
CREATE TABLE bills (id bigint NOT NULL, at date NOT NULL, region text COLLATE "C", amount numeric(10,2), ratio float8, done bool,
                    key uuid, empty int, doc jsonb, code varchar(8), PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE bills_1 PARTITION OF bills FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE bills_2 PARTITION OF bills FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE bills_3 PARTITION OF bills FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE bills_4 PARTITION OF bills FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
INSERT INTO bills SELECT n, date '2024-01-01' + n % 91, 'region ' || n % 7, n * 1.25, CASE n WHEN 50 THEN 'NaN' WHEN 51 THEN '-Infinity' ELSE n / 3.0 END,
                         n % 2 = 0, md5(n::text)::uuid, NULL, jsonb_build_object('n', n), 'code ' || n % 9
FROM generate_series(1, 300) n;
INSERT INTO bills (id, at) VALUES (1000, '2024-01-31'), (-5, '2024-02-01');
CREATE TABLE truth AS TABLE bills;
CREATE TABLE truth_1 AS TABLE bills_1;
-- What of a plan tells where the answer is from, and how many objects and requests it took.
CREATE FUNCTION reads(query text) RETURNS TABLE (node text, answered bool, files int, requests int) LANGUAGE plpgsql AS $$
DECLARE plan json;
BEGIN
  EXECUTE 'EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF, FORMAT JSON) ' || query INTO plan;
  RETURN QUERY
    WITH RECURSIVE nodes(plan) AS (
      SELECT plan -> 0 -> 'Plan' UNION ALL SELECT json_array_elements(n.plan -> 'Plans') FROM nodes n WHERE n.plan -> 'Plans' IS NOT NULL)
    SELECT n.plan ->> 'Relation Name', (n.plan ->> 'Answered by Catalog')::bool, (n.plan ->> 'Files Read')::int,
           (n.plan ->> 'Storage Read Requests')::int
    FROM nodes n WHERE n.plan ->> 'Node Type' = 'Foreign Scan' ORDER BY 1;
END $$;
CREATE FUNCTION plan_of(query text) RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE line text;
BEGIN
  FOR line IN EXECUTE 'EXPLAIN (COSTS OFF) ' || query LOOP
    RETURN NEXT regexp_replace(line, 'file://\S*', 'file://…');
  END LOOP;
END $$;
SELECT count(*) FROM archive_partitions(ARRAY['bills_1', 'bills_2', 'bills_4']::regclass[], drop_local => '0');

-- A partition, the archive, hot and archived rows.
SELECT plan_of('SELECT count(*) FROM archive.bills_1');
SELECT plan_of('SELECT count(*), min(id), max(at) FROM archive.bills');
SELECT plan_of('SELECT max(amount) FROM archive.bills_all');
SELECT * FROM reads('SELECT count(*) FROM archive.bills_1');
SELECT * FROM reads('SELECT count(*), min(id), max(id), min(at), max(at) FROM archive.bills');
SELECT count(*), min(id), max(id), min(at), max(at), min(region), max(region), min(amount), max(amount) FROM archive.bills_1;
SELECT count(*), min(id), max(id), min(at), max(at), min(region), max(region), min(amount), max(amount) FROM truth_1;
SELECT count(*), min(id), max(id), min(at), max(at), min(region), max(region), min(amount), max(amount), min(ratio), max(ratio),
       min(empty), max(empty), min(code), max(code) FROM archive.bills_all;
SELECT count(*), min(id), max(id), min(at), max(at), min(region), max(region), min(amount), max(amount), min(ratio), max(ratio),
       min(empty), max(empty), min(code), max(code) FROM truth;
SELECT * FROM reads('SELECT count(*), max(ratio), min(empty), min(code) FROM archive.bills_all');
SELECT * FROM reads('SELECT max(region) FROM archive.bills_all');
-- In branches of UNION ALL columns of several collations are read.
SELECT * FROM reads('SELECT max(code), max(region) FROM archive.bills_all');
SELECT * FROM reads('SELECT count(*) FROM archive.bills_all HAVING max(amount) > 10');
SELECT * FROM reads('SELECT EXISTS (SELECT FROM archive.bills_1)');
SELECT * FROM reads('SELECT 1 FROM archive.bills_1 LIMIT 3');

-- What the catalog cannot know.
SELECT query, bool_or(answered) AS answered FROM unnest(ARRAY[
  'SELECT count(id) FROM archive.bills_1',
  'SELECT count(*) FILTER (WHERE id > 3) FROM archive.bills_1',
  'SELECT count(*) FROM archive.bills_1 WHERE id > 3',
  'SELECT count(*), at FROM archive.bills_1 GROUP BY at',
  'SELECT max(id + 1) FROM archive.bills_1',
  'SELECT max(abs(id)) FROM archive.bills_1',
  'SELECT max(region COLLATE "POSIX") FROM archive.bills_1',
  'SELECT max(id), sum(id) FROM archive.bills_1',
  'SELECT max(id), max(ctid::text) FROM archive.bills_1',
  'SELECT max(s.id) FROM archive.bills_1 s, generate_series(1, 2) g WHERE s.id <> g',
  'SELECT max(id) OVER () FROM archive.bills_1',
  'SELECT max(x) FROM (SELECT abs(id) AS x FROM archive.bills_1 UNION ALL SELECT 1) u',
  'SELECT max(id), (SELECT 1 WHERE max(id) > 0) FROM archive.bills_1',
  'SELECT array_agg(id) FROM archive.bills_1'
]) AS query, reads(query) GROUP BY query ORDER BY query COLLATE "C";
SELECT max(x), min(x) FROM (SELECT id AS x FROM archive.bills_1 UNION ALL SELECT 5000) u;
SELECT * FROM reads('SELECT max(x) FROM (SELECT id AS x FROM archive.bills_1 UNION ALL SELECT 5000) u');

-- A prepared plan counts what is there when it runs; a column of another type than was archived is read.
PREPARE counted AS SELECT count(*), max(id) FROM archive.bills;
EXECUTE counted;
SELECT count(*) FROM archive_partitions(ARRAY['bills_3']::regclass[], drop_local => '0');
EXECUTE counted;
ALTER TABLE bills ALTER COLUMN empty TYPE bigint;
SELECT DISTINCT answered FROM reads('SELECT max(empty) FROM archive.bills');
ALTER TABLE bills ADD COLUMN later int DEFAULT 7;
SELECT DISTINCT answered FROM reads('SELECT max(later) FROM archive.bills');
SELECT max(later), max(empty), count(*) FROM archive.bills;

-- A branch of UNION ALL has another order than the whole.
SELECT min(x) FROM (SELECT region AS x FROM archive.bills_1 UNION ALL SELECT NULL::text COLLATE "en-x-icu") u;
SELECT answered FROM reads('SELECT min(x) FROM (SELECT region AS x FROM archive.bills_1 UNION ALL SELECT NULL::text COLLATE "en-x-icu") u');
SELECT answered FROM reads('SELECT min(x) FROM (SELECT region AS x FROM archive.bills_1 UNION ALL SELECT region FROM archive.bills_1) u');

-- Several objects, one of them of one row, and one with a value that is too long for the catalog; scans that begin anew.
CREATE TABLE notes (id int PRIMARY KEY, at date NOT NULL, body text);
INSERT INTO notes SELECT n, date '2024-01-01' + n, CASE n WHEN 13 THEN repeat('z', 2000) ELSE 'note ' || n % 5 END FROM generate_series(1, 22) n;
CREATE TABLE noted AS TABLE notes;
CALL archive_table('notes', '2024-02-01', batch_rows => 7);
SELECT count(*) AS objects, min(rows) FROM archive_ext.objects WHERE table_name = 'notes'::regclass;
SELECT count(*), min(id), max(id), min(at), max(at) FROM archive.notes;
SELECT count(*), min(id), max(id), min(at), max(at) FROM noted;
SELECT * FROM reads('SELECT count(*), min(id), max(id), min(at), max(at) FROM archive.notes_all');
SELECT count(*), max(length(body)), max(body) = repeat('z', 2000) AS longest FROM archive.notes;
SELECT answered FROM reads('SELECT max(body) FROM archive.notes');
SELECT g, c, m FROM generate_series(1, 3) g, LATERAL (SELECT count(*) AS c, max(id) AS m FROM archive.notes WHERE g <> 2) x ORDER BY g;

PREPARE counts AS SELECT count(*) FROM archive.bills_1;
EXECUTE counts;
SET plan_cache_mode = force_generic_plan;
SELECT answered, files > 0 AS read FROM reads('EXECUTE counts');
SET archive_ext.enable_catalog_answers = off;
SELECT answered, files > 0 AS read FROM reads('EXECUTE counts');
SELECT answered, files > 0 AS read FROM reads('SELECT count(*) FROM archive.bills_1');
DROP SCHEMA ca CASCADE;
