-- Partitions as they age: labels, set_lifecycle and its refusals, premake, drain, merge, split, static tables.
\pset null '(null)'
SET client_min_messages = warning;
-- Archives that other tests left behind have names that are wanted here.
DO $$
DECLARE
    left_over regclass;
BEGIN
    FOR left_over IN SELECT oid FROM pg_class WHERE relnamespace = to_regnamespace('archive') AND relkind = 'p' AND NOT relispartition
    LOOP
        SET LOCAL client_min_messages = error;
        EXECUTE format('DROP TABLE %s CASCADE', left_over);
    END LOOP;
END $$;
SET TimeZone = 'UTC';
CREATE SCHEMA aging;
SET search_path = aging, public;

\echo '-- labels'
SELECT g, partition_label('LIVE', g, '2024-02-29 05:30+00') AS live, partition_label('ARCHIVED', g, '2024-02-29 05:30+00') AS archived
FROM unnest(ARRAY['hour', 'daily', 'WEEK', 'months', 'quarterly', 'year', 'bare', NULL]) AS g;
SELECT partition_label('LIVE', 'month', '2023-12-31 23:30+00');
SET TimeZone = 'Europe/Berlin';
SELECT partition_label('LIVE', 'month', '2023-12-31 23:30+00');
SET TimeZone = 'UTC';
SELECT partition_label('LIVE', 'fortnight', now());
SELECT partition_label('LIVE', 'year', 'infinity');

CREATE TABLE orders (id int NOT NULL, day date, note text, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE orders_2024_01 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE orders_2024_02 PARTITION OF orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE orders_2024_03 PARTITION OF orders FOR VALUES FROM ('2024-03-01') TO ('2024-04-01');
CREATE TABLE orders_2024_05 PARTITION OF orders FOR VALUES FROM ('2024-05-01') TO ('2024-06-01');
INSERT INTO orders SELECT n, date '2024-01-01' + n % 90, 'note ' || n FROM generate_series(1, 900) n;
SET client_min_messages = notice;

\echo '-- LIVE to HOT: still written'
SELECT set_lifecycle('orders_2024_01', 'HOT');
INSERT INTO orders VALUES (1000, '2024-01-05');
SELECT set_lifecycle('orders_2024_01', 'HOT', '2030-01-01');
\echo '-- HOT to WARM: read-only'
SELECT set_lifecycle('orders_2024_01', 'WARM');
INSERT INTO orders VALUES (1001, '2024-01-05');
UPDATE orders SET note = 'x' WHERE day = '2024-01-05';
TRUNCATE orders_2024_01;
SELECT reloptions FROM pg_class WHERE oid = 'orders_2024_01'::regclass;
\echo '-- WARM to HOT: written again'
SELECT set_lifecycle('orders_2024_01', 'HOT');
UPDATE orders SET note = 'x' WHERE id = 1000;
SELECT reloptions FROM pg_class WHERE oid = 'orders_2024_01'::regclass;
\echo '-- HOT to ARCHIVED, back to WARM, to HOT'
SET archive_ext.default_storage = 'cold';
SELECT set_lifecycle('orders_2024_01', 'ARCHIVED');
SELECT set_lifecycle('archive.orders_2024_01', 'ARCHIVED');
SELECT set_lifecycle('archive.orders_2024_01', 'LIVE');
SELECT set_lifecycle('archive.orders_2024_01', 'WARM');
INSERT INTO orders VALUES (1001, '2024-01-05');
SELECT set_lifecycle('orders_2024_01', 'HOT');
INSERT INTO orders VALUES (1001, '2024-01-05');
SELECT partition_name, event, from_status, status, reason, actor = current_user AS mine
FROM archive_ext.events WHERE table_name = 'orders'::regclass ORDER BY at;
SELECT partition_name, status, label, removal_time FROM archive_ext.partition WHERE managed_table =
  (SELECT id FROM archive_ext.managed_table WHERE source = 'orders'::regclass);

\echo '-- refusals'
SELECT set_lifecycle('orders_2024_01', 'LIVE');
SELECT set_lifecycle('orders', 'WARM');
CREATE TABLE plain (id int);
SELECT set_lifecycle('plain', 'WARM');
CREATE VIEW a_view AS SELECT 1 AS one;
SELECT set_lifecycle('a_view', 'WARM');
CREATE TABLE hashed (id int) PARTITION BY HASH (id);
CREATE TABLE hashed_0 PARTITION OF hashed FOR VALUES WITH (MODULUS 1, REMAINDER 0);
SELECT set_lifecycle('hashed_0', 'WARM');
CREATE TABLE ticket (id int, lifecycle_status text) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ticket_hot PARTITION OF ticket FOR VALUES IN ('HOT');
SELECT set_lifecycle('ticket_hot', 'WARM');
CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
SELECT set_lifecycle('orders_rest', 'WARM');
DROP TABLE orders_rest;
CREATE ROLE regress_aging;
GRANT USAGE ON SCHEMA aging TO regress_aging;
SET ROLE regress_aging;
SELECT set_lifecycle('orders_2024_02', 'WARM');
SELECT premake_partitions('orders');
SELECT drain_default('orders');
SELECT merge_partitions('{orders_2024_01,orders_2024_02}');
SELECT register_static_table('orders', 'mine');
RESET ROLE;
DROP OWNED BY regress_aging;
DROP ROLE regress_aging;
\echo '-- tablespaces that are not there'
SELECT set_archive_policy('orders', drop_after => '1 day');
UPDATE archive_ext.archive_policy SET warm_tablespace = 'no_such' WHERE source = 'orders'::regclass;
SELECT set_lifecycle('orders_2024_02', 'WARM');
SELECT drop_archive_policy('orders');
\echo '-- static tables'
SELECT register_static_table('orders', '');
SELECT register_static_table('orders', 'countries do not age');
SELECT set_lifecycle('orders_2024_02', 'WARM');
SELECT archive_partition('orders_2024_02');
SELECT premake_partitions('orders');
SELECT merge_partitions('{orders_2024_01,orders_2024_02}');
SELECT unregister_static_table('orders'), unregister_static_table('orders');
SELECT register_static_table('orders_2024_02', 'no root');

\echo '-- what is partitioned itself: all leaves below'
CREATE TABLE orders_2024_04 PARTITION OF orders FOR VALUES FROM ('2024-04-01') TO ('2024-05-01') PARTITION BY HASH (id);
CREATE TABLE orders_2024_04_0 PARTITION OF orders_2024_04 FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE orders_2024_04_1 PARTITION OF orders_2024_04 FOR VALUES WITH (MODULUS 2, REMAINDER 1);
INSERT INTO orders SELECT n, '2024-04-04' FROM generate_series(2001, 2010) n;
SELECT set_lifecycle('orders_2024_04', 'WARM');
INSERT INTO orders VALUES (3000, '2024-04-04');
SELECT partition_name, status, label FROM archive_ext.partitions WHERE partition_name LIKE 'orders_2024_04%' ORDER BY 1;

\echo '-- merge'
SELECT merge_partitions('{orders_2024_01}');
SELECT merge_partitions('{orders_2024_01,orders_2024_02,orders_2024_03}');
SELECT set_lifecycle(p, 'WARM') FROM unnest('{orders_2024_01,orders_2024_02,orders_2024_03,orders_2024_05}'::regclass[]) p;
SELECT merge_partitions('{orders_2024_01,orders_2024_03}');
SELECT merge_partitions('{orders_2024_03,orders_2024_04}');
SELECT merge_partitions('{orders_2024_01,hashed_0}');
SELECT merge_partitions('{orders_2024_01,orders_2024_02}', 'plain');
CREATE VIEW january AS SELECT * FROM orders_2024_01;
SELECT merge_partitions('{orders_2024_01,orders_2024_02}');
DROP VIEW january;
SELECT count(*), sum(id), count(note) FROM orders;
SET client_min_messages = warning;
SELECT merge_partitions('{orders_2024_03,orders_2024_01,orders_2024_02}');
SELECT count(*), sum(id), count(note) FROM orders;
\d orders_2024q1
SELECT partition_name, status, label FROM archive_ext.partitions WHERE table_name = 'orders'::regclass ORDER BY 1;
INSERT INTO orders VALUES (4000, '2024-01-05');
\echo '-- split'
SELECT split_partition('orders_2024q1', 'year');
SELECT split_partition('orders_2024q1', 'month');
SELECT count(*), sum(id), count(note) FROM orders;
SELECT partition_name, status, label FROM archive_ext.partitions WHERE table_name = 'orders'::regclass ORDER BY 1;
CALL merge_partitions_steps('{orders_2024_01,orders_2024_02}', 'winter');
SELECT count(*), sum(id), count(note) FROM orders;
SELECT operation, partition_name, status, phase FROM archive_ext.jobs WHERE table_name = 'orders'::regclass AND operation IN ('merge', 'split') ORDER BY started_at;

SET client_min_messages = notice;
\echo '-- premake'
CREATE TABLE logs (at timestamptz NOT NULL, line text) PARTITION BY RANGE (at);
SELECT premake_partitions('logs');
SET archive_ext.now = '2024-01-20 12:00+00';
SET TimeZone = 'Europe/Berlin';
CREATE TABLE logs_p20240101 PARTITION OF logs FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
SELECT premake_partitions('logs', 2);
SELECT premake_partitions('logs', 2);
SET TimeZone = 'America/New_York';
SELECT premake_partitions('logs', 3);
SET TimeZone = 'Europe/Berlin';
SELECT premake_partitions('logs', 3);
SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
WHERE i.inhparent = 'logs'::regclass ORDER BY 1;
SET TimeZone = 'UTC';
SELECT premake_partitions('logs', -1);
SELECT premake_partitions('plain');
SELECT premake_partitions('hashed');
CREATE TABLE numbered (id bigint) PARTITION BY RANGE (id);
SELECT premake_partitions('numbered');
CREATE TABLE keyed (id uuid) PARTITION BY RANGE (id);
CREATE TABLE keyed_2024_01 PARTITION OF keyed FOR VALUES FROM ('018cc251-f400-7000-8000-000000000000') TO ('018d61f7-1800-7000-8000-000000000000');
SELECT premake_partitions('keyed', 1);
SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = 'keyed_2024_02';
CREATE TABLE sub (day date, region text) PARTITION BY RANGE (day);
CREATE TABLE sub_2024_01 PARTITION OF sub FOR VALUES FROM ('2024-01-01') TO ('2024-02-01') PARTITION BY LIST (region);
CREATE TABLE sub_2024_01_eu PARTITION OF sub_2024_01 FOR VALUES IN ('eu');
CREATE TABLE sub_2024_01_rest PARTITION OF sub_2024_01 DEFAULT;
SELECT premake_partitions('sub', 1);
SELECT relid FROM pg_partition_tree('sub') WHERE isleaf ORDER BY relid::text;

\echo '-- drain'
SET archive_ext.now = '2024-02-10 12:00+00';
CREATE TABLE audit (id serial, day date, line text) PARTITION BY RANGE (day);
CREATE TABLE audit_2024_01 PARTITION OF audit FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE audit_default PARTITION OF audit DEFAULT;
CREATE INDEX ON audit (line);
INSERT INTO audit (day, line) VALUES ('2024-01-05', 'a'), ('2024-02-05', 'b'), ('2024-02-29', 'c'), ('2024-06-01', 'd'), (NULL, 'e'), ('infinity', 'f');
SELECT drain_default('audit');
SELECT tableoid::regclass AS partition, * FROM audit ORDER BY id;
SELECT drain_default('audit');
SELECT drain_default('orders');
INSERT INTO audit (day, line) VALUES ('2024-03-05', 'g');
SELECT premake_partitions('audit', 1);
SELECT tableoid::regclass AS partition, * FROM audit WHERE line = 'g';
INSERT INTO audit (day, line) VALUES ('2025-03-05', 'h');
SELECT partition_name, event, from_status, status, reason FROM archive_ext.events WHERE table_name = 'audit'::regclass ORDER BY at;
RESET archive_ext.now;
SET client_min_messages = warning;
DROP SCHEMA aging CASCADE;
DROP TABLE archive.orders CASCADE;
