-- A table of two years of orders, the older eighteen months of which move to Parquet files.
--
--   make demo                                                     on a throw-away cluster
--   psql -v storage=file:///srv/archive -f examples/demo.sql      on a database of your own

\set ON_ERROR_STOP on
\set QUIET on
\pset footer off
SET client_min_messages = warning;
SET timezone = 'UTC';

\echo
\echo '== 1. the extension, and a storage to archive to'
CREATE EXTENSION archive_ext;
CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location :'storage');
SET archive_ext.default_storage = 'cold';
SELECT check_name, ok, detail FROM check_storage('cold');

\echo
\echo '== 2. orders, one partition for each of 24 months, 1.2 million rows'
CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'delivered', 'returned');

CREATE TABLE orders (
    id          bigint GENERATED ALWAYS AS IDENTITY,
    created_at  timestamptz NOT NULL,
    customer_id int NOT NULL,
    status      order_status NOT NULL,
    amount      numeric(12,2) NOT NULL CHECK (amount > 0),
    items       int NOT NULL,
    note        text,
    payload     jsonb NOT NULL,
    PRIMARY KEY (id, created_at)
) PARTITION BY RANGE (created_at);
CREATE INDEX ON orders (customer_id, created_at);
COMMENT ON TABLE orders IS 'what customers bought';

SELECT format('CREATE TABLE orders_%s PARTITION OF orders FOR VALUES FROM (%L) TO (%L)',
              to_char(month, 'YYYY_MM'), month, month + interval '1 month')
FROM generate_series(timestamptz '2024-01-01', '2025-12-01', interval '1 month') AS month
\gexec

INSERT INTO orders (created_at, customer_id, status, amount, items, note, payload)
SELECT timestamptz '2024-01-01' + n * interval '731 days' / 1200000,
       1 + (random() ^ 3 * 40000)::int,
       (CASE WHEN n > 1190000 THEN (ARRAY['new', 'paid', 'shipped'])[1 + n % 3]
             WHEN random() < 0.06 THEN 'returned' ELSE 'delivered' END)::order_status,
       round((5 + random() ^ 4 * 900)::numeric, 2),
       1 + (random() ^ 2 * 12)::int,
       CASE WHEN n % 7 = 0 THEN 'leave with the neighbour at no. ' || (random() * 200)::int END,
       jsonb_build_object('channel', (ARRAY['web', 'app', 'shop', 'phone'])[1 + n % 4],
                          'voucher', CASE WHEN n % 11 = 0 THEN 'V' || upper(substr(md5(n::text), 1, 8)) END,
                          'address', jsonb_build_object('city', (ARRAY['Aarhus', 'Bergen', 'Gdansk', 'Graz', 'Lyon',
                                                                       'Porto', 'Turku'])[1 + n % 7],
                                                        'zip', 10000 + n % 7919))
FROM generate_series(0, 1199999) AS n;
ANALYZE orders;

SELECT count(*) AS rows, count(DISTINCT tableoid) AS partitions, sum(amount) AS turnover FROM orders
\gset before_
SELECT sum(pg_total_relation_size(relid)) AS size FROM pg_partition_tree('orders')
\gset before_
SELECT :before_rows AS rows, :before_partitions AS partitions, pg_size_pretty(:before_size::numeric) AS size;

\echo
\echo '== 3. archive the oldest 18 months; drop each local copy once its files were read back and proved equal'
\pset tuples_only on
\pset format unaligned
SELECT format($$
    SELECT format('   %%s  %%s rows  %%s -> %%s in %%s file(s)', archived::regclass, rows, pg_size_pretty(local_bytes),
                  pg_size_pretty(archived_bytes), objects)
    FROM archive_partition(%L, drop_local => '0')$$, relid)
FROM pg_partition_tree('orders') JOIN pg_class ON oid = relid
WHERE isleaf ORDER BY pg_get_expr(relpartbound, oid) LIMIT 18
\gexec
\pset tuples_only off
\pset format aligned

\echo
\echo '== 4. what is where now'
SELECT * FROM archive_ext.partitions;

SELECT sum(pg_total_relation_size(relid)) AS size FROM pg_partition_tree('orders')
\gset after_
SELECT sum(bytes) AS size FROM archive_ext.objects
\gset archived_
SELECT pg_size_pretty(:before_size::numeric) AS "orders before", pg_size_pretty(:after_size::numeric) AS "orders now",
       pg_size_pretty(:archived_size::numeric) AS "archived files";

\echo
\echo '== 5. the recent orders are an ordinary table'
EXPLAIN (ANALYZE, COSTS OFF)
SELECT count(*), sum(amount) FROM orders WHERE created_at >= '2025-12-01';

\echo
\echo '== 6. the archived ones: one partition, one file, and of it only what the query needs'
EXPLAIN (ANALYZE, COSTS OFF)
SELECT count(*), sum(amount) FROM archive.orders
WHERE created_at >= '2024-03-10' AND created_at < '2024-03-11';

\echo
\echo '== 7. both as one: nothing is lost, nothing twice'
EXPLAIN (ANALYZE, COSTS OFF)
SELECT status, count(*), sum(amount) FROM archive.orders_all WHERE customer_id = 42 GROUP BY status;

SELECT count(*) AS rows, sum(amount) AS turnover,
       count(*) = :before_rows AND sum(amount) = :before_turnover AS "same as before"
FROM archive.orders_all;

\echo
\echo '== 8. one month back, writable'
SELECT reattach_partition('orders_2025_06', writable => true);
UPDATE orders SET note = 'seen again' WHERE created_at >= '2025-06-01' AND created_at < '2025-06-02';
SELECT count(*) FILTER (WHERE note = 'seen again') AS changed, count(*) AS rows FROM orders
WHERE created_at >= '2025-06-01' AND created_at < '2025-07-01';
