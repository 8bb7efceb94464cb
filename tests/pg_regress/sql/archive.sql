-- Archive, query and reattach: what a DBA sees.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA shop;
SET search_path = shop, public;
CREATE TYPE shop.state AS ENUM ('new', 'paid', 'sent');
CREATE TABLE orders (
    id bigint GENERATED ALWAYS AS IDENTITY, created_at timestamptz NOT NULL, status shop.state NOT NULL DEFAULT 'new',
    amount numeric(10,2), net numeric(10,2) GENERATED ALWAYS AS (amount / 2) STORED, tags text[], note text,
    PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
COMMENT ON COLUMN orders.note IS 'what the customer wrote';
CREATE TABLE orders_2024_01 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01') WITH (fillfactor = 90);
CREATE TABLE orders_2024_02 PARTITION OF orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE INDEX orders_2024_01_note ON orders_2024_01 (note) WHERE note IS NOT NULL;
ALTER TABLE orders_2024_01 ADD CONSTRAINT positive CHECK (amount >= 0);
COMMENT ON TABLE orders_2024_01 IS 'the first month';
ALTER TABLE orders_2024_01 ALTER COLUMN note SET STATISTICS 42;
INSERT INTO orders (created_at, status, amount, tags, note)
SELECT '2024-01-01'::timestamptz + n * interval '30 minutes', (ARRAY['new', 'paid', 'sent'])[1 + n % 3]::shop.state, n,
       CASE WHEN n % 5 > 0 THEN ARRAY['t' || n % 7, NULL] END, CASE WHEN n % 10 = 0 THEN 'note ' || n END
FROM generate_series(0, 2000) n;
CREATE TABLE before AS SELECT * FROM orders;
ANALYZE orders_2024_01;

SELECT job_id IS NULL AS no_job, archived, rows, archived_bytes, objects FROM archive_partition('orders_2024_01', dry_run => true);
SELECT job_id IS NOT NULL AS job, archived, rows, local_bytes > archived_bytes AS smaller, objects,
       location LIKE '%/shop.orders/_manifests/orders_2024_01.v1.json' AS located,
       local_copy_until::date - now()::date AS days_kept
FROM archive_partition('orders_2024_01');
\d+ archive.orders
\d+ archive.orders_2024_01
\d+ archive.orders_all
SELECT count(*) FROM orders;
SELECT count(*), sum(amount), min(created_at), max(status) FROM archive.orders;
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE archive.orders_all) lost;
SELECT count(*) FROM (TABLE archive.orders_all EXCEPT ALL TABLE before) invented;
SELECT table_name, partition_name, status, label, tier, rows, storage, version, local_copy IS NOT NULL AS local_copy
FROM archive_ext.partitions WHERE table_name = 'orders'::regclass;
SELECT partition_name, ordinal, rows, key FROM archive_ext.objects WHERE table_name = 'orders'::regclass;
SELECT operation, table_name, partition_name, status, phase, rows_archived, storage, error FROM archive_ext.jobs
WHERE table_name = 'orders'::regclass;

\echo '-- archived rows are read-only, and archived partitions are not archived twice'
INSERT INTO archive.orders (id, created_at, status) VALUES (1, '2024-01-02', 'new');
UPDATE archive.orders SET note = 'changed' WHERE id = 1;
DELETE FROM archive.orders_2024_01;
TRUNCATE archive.orders_2024_01;
SELECT archive_partition('archive.orders_2024_01');

\echo '-- back from the local copy, read-only; archived again it keeps its objects'
SELECT reattach_partition('orders_2024_01', keep_for => '7 days');
UPDATE orders SET note = 'changed' WHERE id = 1;
TRUNCATE orders_2024_01;
SELECT status, label, keep_until::date - now()::date AS days FROM archive_ext.partitions WHERE table_name = 'orders'::regclass;
SELECT archived, rows, objects, local_copy_until FROM archive_partition('orders_2024_01', drop_local => '0', verify => 'deep');
SELECT count(*) AS objects FROM archive_ext.objects WHERE table_name = 'orders'::regclass;

\echo '-- back from the objects, writable, with everything that was on it'
SELECT reattach_partition('shop.orders_2024_01', writable => true);
\d+ orders_2024_01
SELECT count(*) FROM (TABLE before EXCEPT ALL TABLE orders) lost;
SELECT count(*) FROM (TABLE orders EXCEPT ALL TABLE before) invented;
UPDATE orders SET note = 'changed' WHERE id = 1;
SELECT rows, objects, location LIKE '%.v2.json' AS new_version FROM archive_partition('orders_2024_01', drop_local => '0');
SELECT note FROM archive.orders_all WHERE id = 1;
SELECT event, status, details ->> 'version' AS version FROM archive_ext.lifecycle_event
WHERE table_name = 'orders'::regclass ORDER BY id;

\echo '-- an index that the table got meanwhile is there when the partition is back'
CREATE INDEX orders_amount ON orders (amount);
SELECT reattach_partition('orders_2024_01');
SELECT indexrelid::regclass, indisvalid FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass ORDER BY indexrelid::regclass::text;
SELECT rows, location LIKE '%.v3.json' AS manifest_of_its_own FROM archive_partition('orders_2024_01', drop_local => '0');
SELECT DISTINCT key FROM archive_ext.objects WHERE table_name = 'orders'::regclass ORDER BY 1;

\echo '-- rows that came late into a DEFAULT partition'
CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
INSERT INTO orders (created_at, amount, note) VALUES ('2024-01-15', 7, 'late');
SELECT reattach_partition('orders_2024_01');
SELECT reattach_partition('orders_2024_01', late_rows => 'move');
SELECT tableoid::regclass, note FROM orders WHERE note = 'late';
SELECT count(*) FROM orders;
DROP SCHEMA shop CASCADE;
