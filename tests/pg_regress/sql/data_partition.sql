-- Reading by lifecycle: archive_ext.data_partition narrows what queries read of managed tables, and nothing else.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA reading;
SET search_path = reading, public;

CREATE TABLE customers (id int PRIMARY KEY, name text);
CREATE TABLE sales (id int, at date NOT NULL, customer int REFERENCES customers, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
CREATE TABLE sales_2023_12 PARTITION OF sales FOR VALUES FROM ('2023-12-01') TO ('2024-01-01');
CREATE TABLE sales_2024_01 PARTITION OF sales FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE sales_2024_02 PARTITION OF sales FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE sales_2024_03 PARTITION OF sales FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE items (order_id int, at date NOT NULL, n int, FOREIGN KEY (order_id, at) REFERENCES sales ON DELETE CASCADE) PARTITION BY RANGE (at);
CREATE TABLE items_2023_12 PARTITION OF items FOR VALUES FROM ('2023-12-01') TO ('2024-01-01');
CREATE TABLE items_2024_01 PARTITION OF items FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE items_2024_02 PARTITION OF items FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE items_2024_03 PARTITION OF items FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 10) n;
INSERT INTO sales SELECT n, date '2023-12-01' + n % 120, 1 + n % 9, n FROM generate_series(1, 1200) n;
INSERT INTO items SELECT id, at, 1 FROM sales;
-- A partition of each is archived; others get their status by hand.
SELECT archived FROM archive_partition('items_2023_12', drop_local => '0');
SELECT archived FROM archive_partition('sales_2023_12', drop_local => '0');
CREATE FUNCTION set_status(relation regclass, status text, label text) RETURNS void LANGUAGE sql AS $$
    INSERT INTO archive_ext.partition (managed_table, schema_name, partition_name, parent, bounds, status, label, hot_table)
    SELECT m.id, 'reading', c.relname, i.inhparent, '', status::archive_ext.lifecycle_status, label, c.oid
    FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid JOIN archive_ext.managed_table m ON m.source = pg_partition_root(c.oid)
    WHERE c.oid = relation
    ON CONFLICT (managed_table, schema_name, partition_name) DO UPDATE SET status = excluded.status, label = excluded.label
$$;
SELECT set_status('sales_2024_01', 'WARM', 'WARM_2024');
SELECT set_status('sales_2024_02', 'HOT', NULL);
ANALYZE sales, items, customers;
CREATE FUNCTION parts(source text) RETURNS TABLE (part text, rows bigint) LANGUAGE plpgsql AS $$
BEGIN
    RETURN QUERY EXECUTE format('SELECT tableoid::regclass::text, count(*) FROM %s GROUP BY 1 ORDER BY 1', source);
END $$;

\echo '-- unset, everything; then by status, by label, both spellings, any case, by table'
SELECT * FROM parts('sales');
SET archive_ext.data_partition = 'LIVE*,HOT*';
SELECT * FROM parts('sales');
SET archive_ext.data_partition = 'hot_2024*';
SELECT * FROM parts('sales');
SET archive_ext.data_partition = 'WARM_2024; Items = live_202402';
SELECT * FROM parts('sales');
SELECT * FROM parts('items');
SET archive_ext.data_partition = 'reading.sales=LIVE_202403; sales=HOT*';
SELECT * FROM parts('sales');
SELECT * FROM parts('items');
\echo '-- what is wrong is said, and the old value stays'
SET archive_ext.data_partition = 'COLD*';
SET archive_ext.data_partition = 'sales=HOT%';
SET archive_ext.data_partition = 'HOT*; LIVE*';
SET archive_ext.data_partition = 'sales=HOT*; Sales=LIVE*';
SHOW archive_ext.data_partition;

\echo '-- EXPLAIN names what is not read, after pruning by WHERE; in all shapes'
SET archive_ext.data_partition = 'HOT*';
EXPLAIN (COSTS OFF) SELECT * FROM sales;
EXPLAIN (COSTS OFF) SELECT * FROM sales WHERE at >= '2024-02-15';
EXPLAIN (COSTS OFF) SELECT * FROM sales WHERE at = '2024-03-15';
EXPLAIN (COSTS OFF) SELECT * FROM sales WHERE at = '2024-02-15';
EXPLAIN (COSTS OFF) SELECT * FROM sales_2024_03;
EXPLAIN (COSTS OFF) SELECT max(at) FROM sales;
EXPLAIN (COSTS OFF) SELECT customer, count(*) FROM sales GROUP BY 1;
EXPLAIN (COSTS OFF) SELECT * FROM sales WHERE id = 7 ORDER BY at LIMIT 1 FOR UPDATE;
EXPLAIN (COSTS OFF) SELECT * FROM customers c LEFT JOIN sales_2024_01 o ON o.customer = c.id;
EXPLAIN (COSTS OFF) SELECT (SELECT count(*) FROM sales WHERE customer = c.id) FROM customers c;
EXPLAIN (COSTS OFF) WITH o AS MATERIALIZED (SELECT * FROM sales) SELECT * FROM o JOIN customers c ON c.id = o.customer;
EXPLAIN (COSTS OFF) SELECT * FROM customers;
EXPLAIN (COSTS OFF) SELECT * FROM (SELECT id FROM sales UNION ALL SELECT id FROM customers) u;
EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT count(*) FROM sales;
SET archive_ext.data_partition = 'LIVE*; sales=HOT*,WARM*';
SET enable_partitionwise_join = on;
SET enable_partitionwise_aggregate = on;
EXPLAIN (COSTS OFF) SELECT count(*) FROM sales o JOIN items l ON l.order_id = o.id AND l.at = o.at;
EXPLAIN (COSTS OFF) SELECT at, count(*) FROM sales GROUP BY at;
SELECT count(*) FROM sales o JOIN items l ON l.order_id = o.id AND l.at = o.at;
SELECT count(*) FROM sales o LEFT JOIN items l ON l.order_id = o.id AND l.at = o.at;
SELECT count(*), count(o.id) FROM items l LEFT JOIN sales o ON l.order_id = o.id AND l.at = o.at;
RESET enable_partitionwise_join;
RESET enable_partitionwise_aggregate;
\echo '-- pruning at run time goes on'
SET plan_cache_mode = force_generic_plan;
PREPARE run_time(date) AS SELECT count(*) FROM sales WHERE at = $1;
EXPLAIN (COSTS OFF) EXECUTE run_time('2024-02-01');
EXECUTE run_time('2024-02-01');
EXECUTE run_time('2024-03-01');
RESET plan_cache_mode;

\echo '-- _all: the hot side is narrowed; the archive only by who names it'
SET archive_ext.data_partition = 'HOT*';
SELECT count(*) FROM archive.sales_all;
SELECT count(*) FROM archive.sales;
EXPLAIN (COSTS OFF) SELECT count(*) FROM archive.sales_all WHERE at >= '2024-01-01';
SET archive_ext.data_partition = 'HOT*,ARCHIVED_2020*';
SELECT count(*) FROM archive.sales_all;
SELECT count(*) FROM archive.sales;
SET archive_ext.data_partition = 'HOT*,ARCHIVED_2023*';
SELECT count(*) FROM archive.sales_all;

\echo '-- cached plans follow the setting: PREPARE, PL/pgSQL, SQL functions, SET LOCAL, ROLLBACK, SET clauses'
RESET archive_ext.data_partition;
CREATE FUNCTION in_plpgsql() RETURNS bigint LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT count(*) FROM sales); END';
CREATE FUNCTION in_sql() RETURNS bigint LANGUAGE sql VOLATILE AS 'SELECT count(*) FROM sales';
CREATE FUNCTION inlined() RETURNS SETOF sales LANGUAGE sql STABLE AS 'SELECT * FROM sales';
CREATE FUNCTION all_of_it() RETURNS bigint LANGUAGE plpgsql SET archive_ext.data_partition = '' AS 'BEGIN RETURN (SELECT count(*) FROM sales); END';
CREATE FUNCTION definer() RETURNS bigint LANGUAGE plpgsql SECURITY DEFINER SET search_path = reading AS 'BEGIN RETURN (SELECT count(*) FROM sales); END';
CREATE VIEW through AS SELECT * FROM sales;
PREPARE counted AS SELECT count(*) FROM sales;
CREATE VIEW everywhere AS SELECT in_plpgsql(), in_sql(), (SELECT count(*) FROM inlined()) AS inlined, all_of_it(), definer(), (SELECT count(*) FROM through) AS through;
TABLE everywhere;
EXECUTE counted;
SET archive_ext.data_partition = 'HOT*';
TABLE everywhere;
EXECUTE counted;
EXPLAIN (COSTS OFF) EXECUTE counted;
BEGIN;
SET LOCAL archive_ext.data_partition = 'WARM*';
EXECUTE counted;
SAVEPOINT s;
SET LOCAL archive_ext.data_partition = 'LIVE*';
EXECUTE counted;
ROLLBACK TO s;
EXECUTE counted;
COMMIT;
EXECUTE counted;
TABLE everywhere;
RESET archive_ext.data_partition;
TABLE everywhere;
EXECUTE counted;
\echo '-- an open cursor keeps its plan'
BEGIN;
SET LOCAL archive_ext.data_partition = 'HOT*';
DECLARE c SCROLL CURSOR FOR SELECT count(*) FROM sales;
SET LOCAL archive_ext.data_partition = '';
FETCH c;
FETCH BACKWARD c;
ROLLBACK;

\echo '-- changes are refused, or limited like reading'
SET archive_ext.data_partition = 'HOT*';
UPDATE sales SET v = 0;
DELETE FROM sales_2024_01 WHERE id = 1;
DELETE FROM through;
MERGE INTO sales o USING customers c ON c.id = o.id WHEN MATCHED THEN DELETE;
WITH gone AS (DELETE FROM sales RETURNING 1) SELECT count(*) FROM gone;
UPDATE customers SET name = name WHERE id = 1;
SET archive_ext.data_partition = 'items=HOT*';
BEGIN; UPDATE sales SET v = v WHERE id < 0; ROLLBACK;
SET archive_ext.data_partition = 'HOT*';
SET archive_ext.data_partition_dml = on;
BEGIN;
EXPLAIN (COSTS OFF) UPDATE sales SET v = -1;
UPDATE sales SET v = -1;
WITH changed AS (UPDATE sales_2024_03 SET v = -1 RETURNING 1) SELECT count(*) FROM changed;
SET LOCAL archive_ext.data_partition = '';
SELECT tableoid::regclass, count(*) FROM sales WHERE v = -1 GROUP BY 1;
ROLLBACK;
PREPARE change AS UPDATE sales SET v = v WHERE id < 0;
EXECUTE change;
RESET archive_ext.data_partition_dml;
EXECUTE change;
\echo '-- INSERT is free, and reads under the limit'
BEGIN;
INSERT INTO sales VALUES (5000, '2024-03-01', 1, 0), (5001, '2024-01-01', 1, 0) RETURNING tableoid::regclass;
CREATE TEMP TABLE copy (LIKE sales);
INSERT INTO copy SELECT * FROM sales;
SELECT count(*) FROM copy;
CREATE TEMP TABLE copy2 AS SELECT * FROM sales;
SELECT count(*) FROM copy2;
ROLLBACK;

\echo '-- foreign keys see every row: parent in a partition that is not read, child in one'
SET archive_ext.data_partition = 'HOT*';
BEGIN;
INSERT INTO items SELECT 31, '2024-01-01', 2;
INSERT INTO items SELECT -1, '2024-01-01', 2;
ROLLBACK;
DELETE FROM customers WHERE id = 1;
BEGIN;
SET LOCAL archive_ext.data_partition = 'sales=HOT*; items=WARM*';
SET LOCAL archive_ext.data_partition_dml = on;
DELETE FROM sales WHERE at = '2024-02-01';
SET LOCAL archive_ext.data_partition = '';
SELECT count(*) AS cascaded_to_none_left FROM items WHERE at = '2024-02-01';
ROLLBACK;
\echo '-- ... also when their plans were made under another limit, and with triggers that read'
CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'sees %', (SELECT count(*) FROM sales); RETURN OLD; END $$;
CREATE TRIGGER look BEFORE DELETE ON items_2024_02 FOR EACH ROW EXECUTE FUNCTION look();
BEGIN;
SET LOCAL archive_ext.data_partition_dml = on;
DELETE FROM sales WHERE id = (SELECT min(id) FROM sales);
DELETE FROM items_2024_02 WHERE false;
ROLLBACK;
DROP TRIGGER look ON items_2024_02;
ALTER TABLE items ADD COLUMN customer int DEFAULT 1, ADD CONSTRAINT known FOREIGN KEY (customer) REFERENCES customers;
ALTER TABLE items DROP CONSTRAINT known, DROP COLUMN customer;
BEGIN;
INSERT INTO customers VALUES (99);
ALTER TABLE items ADD CONSTRAINT again FOREIGN KEY (order_id, at) REFERENCES sales;
DO $$ BEGIN
    ALTER TABLE sales DETACH PARTITION sales_2024_03;
EXCEPTION WHEN foreign_key_violation THEN RAISE WARNING 'still referenced';
END $$;
ROLLBACK;

\echo '-- COPY, materialized views and DDL see every row, functions that they call too'
COPY (SELECT count(*), in_plpgsql(), in_sql() FROM sales) TO STDOUT;
SELECT in_plpgsql();
CREATE MATERIALIZED VIEW m AS SELECT count(*), in_plpgsql() AS f FROM sales;
TABLE m;
REFRESH MATERIALIZED VIEW m;
TABLE m;
DROP MATERIALIZED VIEW m;
SET row_security = off;
SELECT count(*) FROM sales;
RESET row_security;

\echo '-- use_data_partition: for the session, for the transaction, from headers'
RESET archive_ext.data_partition;
SELECT use_data_partition('live*, HOT');
SELECT use_data_partition(NULL);
BEGIN;
SELECT use_data_partition('{"host": "x", "X-Data-Partition": "HOT*", "x-data-partition-ITEMS": "LIVE*"}'::json);
SELECT count(*) FROM sales;
SELECT use_data_partition('{"host": "x"}'::json);
SELECT count(*) FROM sales;
SELECT use_data_partition('WARM*', is_local => true);
SELECT count(*) FROM sales;
SELECT use_data_partition(NULL::json);
SET LOCAL request.headers = '{"x-data-partition-sales": "HOT*"}';
SELECT use_data_partition();
SELECT count(*) FROM sales;
COMMIT;
SHOW archive_ext.data_partition;
SELECT use_data_partition();
SELECT use_data_partition('{"x-data-partition": 7}');
SELECT use_data_partition('{"x-data-partition": "HOT; DROP TABLE sales"}'::json);
SELECT use_data_partition('[1]'::json);
SELECT use_data_partition('{');

\echo '-- rights: the limit only narrows, and names no partition of a table that the user may not read'
CREATE ROLE reading_reader;
GRANT USAGE ON SCHEMA reading TO reading_reader;
GRANT SELECT ON through TO reading_reader;
SET ROLE reading_reader;
SET archive_ext.data_partition = 'HOT*';
EXPLAIN (COSTS OFF) SELECT * FROM through;
SELECT count(*) FROM sales;
SELECT count(*) FROM sales_2024_02;
RESET ROLE;
GRANT SELECT (id) ON sales TO reading_reader;
ALTER TABLE sales ENABLE ROW LEVEL SECURITY;
CREATE POLICY few ON sales FOR SELECT TO reading_reader USING (id % 10 = 0);
SET ROLE reading_reader;
SELECT count(id) FROM sales;
EXPLAIN (COSTS OFF) SELECT id FROM sales;
RESET archive_ext.data_partition;
SELECT count(id) FROM sales;
RESET ROLE;
ALTER TABLE sales DISABLE ROW LEVEL SECURITY;

\echo '-- LIST tables by label, DEFAULT and sub-partitions; hash tables have no age'
CREATE TABLE tickets (id int, lifecycle_status text, region text) PARTITION BY LIST (lifecycle_status);
CREATE TABLE tickets_live PARTITION OF tickets FOR VALUES IN ('LIVE_202401', 'LIVE_202402') PARTITION BY LIST (region);
CREATE TABLE tickets_live_eu PARTITION OF tickets_live FOR VALUES IN ('eu');
CREATE TABLE tickets_live_us PARTITION OF tickets_live FOR VALUES IN ('us');
CREATE TABLE tickets_hot PARTITION OF tickets FOR VALUES IN ('HOT');
CREATE TABLE tickets_rest PARTITION OF tickets DEFAULT;
CREATE TABLE accounts (id int) PARTITION BY HASH (id);
CREATE TABLE accounts_0 PARTITION OF accounts FOR VALUES WITH (MODULUS 1, REMAINDER 0);
CREATE TABLE months (at timestamptz, region text) PARTITION BY RANGE (at);
CREATE TABLE months_01 PARTITION OF months FOR VALUES FROM ('2024-01-01') TO ('2024-02-01') PARTITION BY LIST (region);
CREATE TABLE months_01_eu PARTITION OF months_01 FOR VALUES IN ('eu');
CREATE TABLE months_02 PARTITION OF months FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
PREPARE late AS SELECT count(*) FROM months;
INSERT INTO months VALUES ('2024-01-15', 'eu'), ('2024-02-15', 'us');
SET archive_ext.data_partition = 'LIVE_202402';
EXECUTE late;
INSERT INTO archive_ext.managed_table (source, kind, archive_name) VALUES
    ('tickets', 'lifecycle', 'reading_tickets'), ('accounts', 'hash', 'reading_accounts'), ('months', 'time', 'reading_months');
EXECUTE late;
EXPLAIN (COSTS OFF) SELECT * FROM months;
EXPLAIN (COSTS OFF) SELECT * FROM tickets;
SET archive_ext.data_partition = 'HOT*';
EXPLAIN (COSTS OFF) SELECT * FROM tickets;
EXPLAIN (COSTS OFF) SELECT * FROM accounts;
\echo '-- a prepared statement follows a change of status'
SET archive_ext.data_partition = 'WARM*';
EXECUTE counted;
BEGIN;
SELECT set_status('sales_2024_03', 'WARM', 'WARM_2024');
EXECUTE counted;
ROLLBACK;
EXECUTE counted;
RESET archive_ext.data_partition;

DELETE FROM archive_ext.managed_table WHERE source IN ('tickets'::regclass, 'accounts'::regclass, 'months'::regclass);
SET client_min_messages = error;
DROP SCHEMA reading CASCADE;
DROP TABLE archive.sales CASCADE;
DROP OWNED BY reading_reader;
DROP ROLE reading_reader;
