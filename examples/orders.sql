-- Orders and their lines age in step: the lines of a month are archived before its orders, and come back after them.
--
--   psql -v storage=file:///srv/archive -f examples/orders.sql

\ir prologue.sql

CREATE TABLE orders (
    id         bigint NOT NULL,
    ordered_at timestamptz NOT NULL,
    customer   int NOT NULL,
    PRIMARY KEY (id, ordered_at)
) PARTITION BY RANGE (ordered_at);
CREATE TABLE order_line (
    order_id   bigint NOT NULL,
    ordered_at timestamptz NOT NULL,              -- the key of the partition, and part of the foreign key
    line       int NOT NULL,
    item       text NOT NULL,
    PRIMARY KEY (order_id, ordered_at, line),
    FOREIGN KEY (order_id, ordered_at) REFERENCES orders (id, ordered_at)
) PARTITION BY RANGE (ordered_at);
SELECT format('CREATE TABLE %1$s_%2$s PARTITION OF %1$s FOR VALUES FROM (%3$L) TO (%4$L)', t, to_char(month, 'YYYY_MM'),
              month, month + interval '1 month')
FROM unnest(ARRAY['orders', 'order_line']) AS t,
     generate_series(timestamptz '2024-01-01', '2024-04-01', interval '1 month') AS month
\gexec

INSERT INTO orders SELECT n, timestamptz '2024-01-01' + n * interval '1 hour', n % 50 FROM generate_series(1, 2800) n;
INSERT INTO order_line SELECT id, ordered_at, line, 'item ' || line FROM orders, generate_series(1, 3) AS line;

\echo '== what hangs together'
SELECT child, foreign_key, usable FROM discover_child_tables('orders');
SELECT add_child_table('orders', 'order_line');

\echo '== the family of January, in one call'
SELECT archived, rows FROM archive_family('orders_2024_01', drop_local => '0');
SELECT count(*) AS orders, sum(lines) AS lines
FROM (SELECT o.id, count(l.line) AS lines FROM archive.orders_all o
      JOIN archive.order_line_all l ON l.order_id = o.id AND l.ordered_at = o.ordered_at GROUP BY o.id) AS x;

\echo '== and back'
SELECT reattach_family('orders_2024_01');
SELECT count(*) FROM orders_2024_01 JOIN order_line_2024_01 ON order_id = id;
