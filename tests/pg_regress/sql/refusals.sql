-- Every refusal names what is wrong and what to do, and changes nothing.
\pset null '(null)'
SET client_min_messages = warning;
CREATE SCHEMA refusals;
SET search_path = refusals, public;

CREATE TABLE plain (id int);
CREATE TABLE sales (id int NOT NULL, day date NOT NULL, region text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE sales_2024_01 PARTITION OF sales FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE sales_rest PARTITION OF sales DEFAULT;
CREATE TABLE sales_2024_q2 PARTITION OF sales FOR VALUES FROM ('2024-04-01') TO ('2024-07-01') PARTITION BY RANGE (day);
CREATE TABLE sales_2024_04 PARTITION OF sales_2024_q2 FOR VALUES FROM ('2024-04-01') TO ('2024-05-01');
INSERT INTO sales VALUES (1, '2024-01-05', 'eu');

\echo '-- no storage is configured'
SELECT archive_partition('sales_2024_01');
\echo '-- no such storage'
SELECT archive_partition('sales_2024_01', storage => 'nowhere');
SET archive_ext.default_storage = 'cold';
\echo '-- not partitions'
SELECT archive_partition('plain');
SELECT archive_partition('sales');
SELECT archive_partition('sales_2024_q2');
SELECT archive_partition('sales_rest');
CREATE VIEW a_view AS SELECT 1 AS one;
SELECT archive_partition('a_view');
\echo '-- unlogged'
CREATE UNLOGGED TABLE sales_2024_02 PARTITION OF sales FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
SELECT archive_partition('sales_2024_02');
DROP TABLE sales_2024_02;
\echo '-- hash partitions have no age'
CREATE TABLE customers (id int) PARTITION BY HASH (id);
CREATE TABLE customers_0 PARTITION OF customers FOR VALUES WITH (MODULUS 2, REMAINDER 0);
SELECT archive_partition('customers_0');
\echo '-- rows that reference the partition'
CREATE TABLE refunds (id int, day date, FOREIGN KEY (id, day) REFERENCES sales);
INSERT INTO refunds VALUES (1, '2024-01-05');
SELECT archive_partition('sales_2024_01');
DROP TABLE refunds;
\echo '-- somebody else''s table'
CREATE ROLE regress_stranger;
GRANT USAGE ON SCHEMA refusals TO regress_stranger;
SET ROLE regress_stranger;
SELECT archive_partition('sales_2024_01');
RESET ROLE;
DROP OWNED BY regress_stranger;
DROP ROLE regress_stranger;
\echo '-- a snapshot that is too old'
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT archive_partition('sales_2024_01');
ROLLBACK;
\echo '-- arguments'
SELECT archive_partition('sales_2024_01', verify => 'hope');
SELECT archive_partition('sales_2024_01', drop_local => '-1 day');
SELECT reattach_partition('sales_2024_01');
SELECT reattach_partition('sales_2024_01', late_rows => 'lose');
SELECT cancel_job('00000000-0000-0000-0000-000000000000');
\echo '-- names that are taken'
CREATE TABLE public.busy (id int) PARTITION BY RANGE (id);
CREATE TABLE public.busy_1 PARTITION OF public.busy FOR VALUES FROM (1) TO (2);
CREATE SCHEMA taken;
CREATE TABLE taken.busy_all (id int);
SELECT set_archive_policy('public.busy', archive_schema => 'taken');
SELECT archive_partition('public.busy_1');
\echo '-- P8: an archive schema in which the table''s owner may not create, however it is asked for'
CREATE ROLE regress_owner;
GRANT USAGE, CREATE ON SCHEMA refusals TO regress_owner;
CREATE TABLE mine (id int) PARTITION BY RANGE (id);
CREATE TABLE mine_1 PARTITION OF mine FOR VALUES FROM (1) TO (2);
ALTER TABLE mine OWNER TO regress_owner;
\echo '-- two owners'
SELECT archive_partition('mine_1');
ALTER TABLE mine_1 OWNER TO regress_owner;
SET ROLE regress_owner;
SELECT set_archive_policy('mine', archive_schema => 'pg_catalog');
SELECT archive_partition('mine_1');
RESET ROLE;
SELECT has_schema_privilege('regress_owner', 'pg_catalog', 'CREATE') AS may_create;
DROP TABLE mine;
DROP OWNED BY regress_owner;
DROP ROLE regress_owner;
\echo '-- nothing of this left a trace'
SELECT count(*) AS rows, (SELECT count(*) FROM pg_trigger WHERE tgrelid = 'sales_2024_01'::regclass) AS triggers FROM sales;
SELECT count(*) AS jobs FROM archive_ext.jobs WHERE status <> 'failed';
DROP TABLE public.busy;
DROP SCHEMA taken CASCADE;
DROP SCHEMA refusals CASCADE;
