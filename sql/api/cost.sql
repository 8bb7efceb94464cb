-- What storing, moving and reading archived data costs, at the prices of archive_ext.storage_price. A gigabyte is 10^9 bytes, as
-- price lists have it. Where a price is not known, or two have different currencies, the answer is NULL.

-- The price of a storage, or of objects of another class in it: one entered for it by name goes before that of its class. Of the
-- database's own disks for NULL.
CREATE FUNCTION archive_ext.price_of(storage name, storage_class text DEFAULT NULL) RETURNS archive_ext.storage_price STABLE LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT p FROM archive_ext.storage_price p
    WHERE p.storage IN (coalesce($1, ''), '')
      AND p.storage_class = CASE WHEN $1 IS NULL THEN 'LOCAL' WHEN $2 IS NOT NULL THEN $2 ELSE (
          SELECT CASE WHEN o.options ->> 'location' LIKE 'file:%' THEN 'DIRECTORY'
                      ELSE upper(coalesce(o.options ->> 'storage_class', 'STANDARD')) END
          FROM pg_foreign_server s JOIN pg_foreign_data_wrapper w ON w.oid = s.srvfdw,
               LATERAL (SELECT jsonb_object_agg(option_name, option_value) FROM pg_options_to_table(s.srvoptions)) o(options)
          WHERE w.fdwname = 'archive_fdw' AND s.srvname = $1) END
    ORDER BY p.storage = '' LIMIT 1
$$;

-- What each table costs a month, by where its bytes are; objects that wait to be collected are left out.
CREATE VIEW archive_ext.costs WITH (security_barrier) AS
WITH visible AS (
    SELECT m.id, m.source FROM archive_ext.managed_table m
    WHERE has_table_privilege(m.source, 'SELECT') >= NOT (SELECT archive_ext.sees_all())
), part AS (
    SELECT v.id, v.source, 'local' AS tier, NULL::name AS storage, NULL::text AS class, 1 AS partitions, l.bytes, l.bytes AS without, NULL::bigint AS rows
    FROM visible v CROSS JOIN LATERAL (
        SELECT pg_total_relation_size(c.oid) AS bytes FROM pg_class c
        WHERE c.oid = v.source AND c.relkind = 'r' OR c.oid IN (SELECT t.relid FROM pg_partition_tree(v.source) t WHERE t.isleaf)) l
    UNION ALL
    SELECT v.id, v.source, 'local copy', NULL, NULL, 1, pg_total_relation_size(c.oid), 0, NULL
    FROM visible v JOIN archive_ext.partition p ON p.managed_table = v.id AND p.status = 'ARCHIVED'
    JOIN pg_class c ON c.oid = p.local_copy::oid AND c.relkind = 'r' AND starts_with(c.relname, p.partition_name || '__local_')
    UNION ALL
    SELECT v.id, v.source, p.tier, p.storage,
           -- All its objects are of one class once it is there.
           CASE WHEN p.tier = 'glacier' THEN (SELECT max(o.storage_class) FROM archive_ext.object o
                                              WHERE o.partition_id = p.id AND o.version = p.version) END,
           1, p.archived_bytes, p.local_bytes, p.rows
    FROM visible v JOIN archive_ext.partition p ON p.managed_table = v.id AND p.status = 'ARCHIVED' AND NOT p.row_set
    UNION ALL
    -- Objects of rows that were archived one by one move by themselves.
    SELECT v.id, v.source, CASE WHEN o.class IS NULL THEN p.tier ELSE 'glacier' END, p.storage, o.class, 1, coalesce(o.bytes, 0), NULL,
           coalesce(o.rows, 0)
    FROM visible v JOIN archive_ext.partition p ON p.managed_table = v.id AND p.status = 'ARCHIVED' AND p.row_set
    LEFT JOIN LATERAL (SELECT o.storage_class, sum(o.bytes)::bigint, sum(o.rows)::bigint FROM archive_ext.object o
                       WHERE o.partition_id = p.id AND o.version = p.version GROUP BY o.storage_class) o (class, bytes, rows) ON true
), density AS (
    -- Bytes that a row takes in the database: by what was archived, else by the table's statistics.
    SELECT v.id, coalesce(
        (SELECT sum(p.local_bytes) / nullif(sum(p.rows), 0) FROM archive_ext.partition p
         WHERE p.managed_table = v.id AND p.local_bytes > 0 AND p.rows > 0),
        (SELECT sum(pg_total_relation_size(c.oid)) / nullif(sum(greatest(c.reltuples, 0))::numeric, 0) FROM pg_class c
         WHERE c.oid = v.source AND c.relkind = 'r' OR c.oid IN (SELECT t.relid FROM pg_partition_tree(v.source) t WHERE t.isleaf))) AS row_bytes
    FROM visible v
), total AS (
    SELECT p.source, p.tier, p.storage, p.class, sum(p.partitions) AS partitions, sum(p.bytes)::bigint AS bytes,
           sum(coalesce(p.without, p.rows * d.row_bytes, p.bytes))::bigint AS without
    FROM part p JOIN density d USING (id) GROUP BY p.source, p.tier, p.storage, p.class
)
SELECT t.source AS table_name,
       t.tier,
       t.storage,
       price.storage_class,
       t.partitions,
       t.bytes,
       round(t.bytes / 1e9 * price.gb_month, 4) AS per_month,
       t.without AS bytes_without_archive,
       round(t.without / 1e9 * own.gb_month, 4) AS per_month_without_archive,
       CASE WHEN price.currency = own.currency
            THEN round(t.without / 1e9 * own.gb_month, 4) - round(t.bytes / 1e9 * price.gb_month, 4) END AS saved_per_month,
       price.currency
FROM total t
CROSS JOIN LATERAL archive_ext.price_of(t.storage, t.class) price
CROSS JOIN archive_ext.price_of(NULL) own
ORDER BY t.source::text, t.tier = 'local' DESC, t.tier, t.storage, t.class;

-- What archiving saves, table by table.
CREATE VIEW archive_ext.savings WITH (security_barrier) AS
SELECT c.table_name,
       pg_size_pretty(sum(c.bytes) FILTER (WHERE c.tier LIKE 'local%')) AS local_size,
       pg_size_pretty(sum(c.bytes) FILTER (WHERE c.tier NOT LIKE 'local%')) AS archived_size,
       pg_size_pretty(sum(c.bytes_without_archive)) AS size_without_archive,
       CASE WHEN count(c.per_month) = count(*) AND count(DISTINCT c.currency) = 1 THEN sum(c.per_month) END AS per_month,
       CASE WHEN count(c.saved_per_month) = count(*) THEN sum(c.per_month_without_archive) END AS per_month_without_archive,
       CASE WHEN count(c.saved_per_month) = count(*) THEN sum(c.saved_per_month) END AS saved_per_month,
       CASE WHEN count(c.saved_per_month) = count(*)
            THEN round(100 * sum(c.saved_per_month) / nullif(sum(c.per_month_without_archive), 0), 1) END AS saved_percent,
       max(c.currency) AS currency
FROM archive_ext.costs c
GROUP BY c.table_name
ORDER BY c.table_name::text;

CREATE FUNCTION archive_cost(source regclass DEFAULT NULL) RETURNS SETOF archive_ext.costs STABLE LANGUAGE sql
SET search_path = pg_catalog, pg_temp AS $$
    SELECT * FROM archive_ext.costs c WHERE $1 IS NULL OR c.table_name = $1
$$;

-- What readable copies of so many objects of a frozen class cost, for so many days in STANDARD, by how fast they are made.
CREATE FUNCTION archive_ext.retrieval_cost(storage name, storage_class text, objects bigint, bytes bigint, days integer)
RETURNS TABLE (retrieval text, total numeric, currency text)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT DISTINCT ON (r.retrieval) r.retrieval,
           CASE WHEN r.currency = s.currency
                THEN round($4 / 1e9 * (r.gb + s.gb_month * $5 / 30) + $3 * r.request_1000 / 1000, 6) END, r.currency
    FROM archive_ext.retrieval_price r CROSS JOIN LATERAL archive_ext.price_of($1, 'STANDARD') s
    WHERE r.storage IN ($1, '') AND r.storage_class = $2
    ORDER BY r.retrieval, r.storage = ''
$$;

-- What reading so many bytes of so many objects costs: two requests for each object, and one for each 8 MB.
CREATE FUNCTION archive_ext.reading_cost(storage name, class text, objects bigint, bytes bigint,
    OUT storage_class text, OUT requests bigint, OUT requests_cost numeric, OUT retrieval_cost numeric, OUT total numeric, OUT currency text)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT p.storage_class, r.requests, r.cost, r.retrieval, r.cost + r.retrieval, p.currency
    FROM archive_ext.price_of($1, $2) p
    CROSS JOIN LATERAL (SELECT 2 * $3 + $4 / 8000000 AS requests) n
    CROSS JOIN LATERAL (SELECT n.requests, round(n.requests * p.get_1000 / 1000, 6) AS cost, round($4 / 1e9 * p.retrieval_gb, 6) AS retrieval) r
$$;

-- The same for the foreign scans of a plan in JSON.
CREATE FUNCTION archive_ext.plan_reading_cost(plan jsonb)
RETURNS TABLE (storage name, storage_class text, objects bigint, bytes bigint, requests bigint, requests_cost numeric, retrieval_cost numeric,
               total numeric, currency text)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT s.storage, c.storage_class, s.objects, s.bytes, c.requests, c.requests_cost, c.retrieval_cost, c.total, c.currency
    FROM (SELECT (n.scan ->> 'Storage')::name AS storage, n.scan ->> 'Storage Class' AS class, sum((n.scan ->> 'Files')::bigint)::bigint AS objects,
                 sum((n.scan ->> 'Bytes of Files')::bigint)::bigint AS bytes
          FROM jsonb_path_query($1, 'strict $.** ? (exists (@."Archived Partition"))') n(scan)
          GROUP BY 1, 2) s
    CROSS JOIN LATERAL archive_ext.reading_cost(s.storage, s.class, s.objects, s.bytes) c
    ORDER BY s.storage, c.storage_class
$$;

CREATE FUNCTION archive_query_cost(query text)
RETURNS TABLE (storage name, storage_class text, objects bigint, bytes bigint, requests bigint, requests_cost numeric, retrieval_cost numeric,
               total numeric, currency text)
LANGUAGE plpgsql AS $$
DECLARE
    plan pg_catalog.jsonb;
BEGIN
    -- More than one would be run, not explained.
    IF query OPERATOR(pg_catalog.~) ';\s*\S' THEN
        RAISE EXCEPTION 'a query is one statement' USING ERRCODE = 'syntax_error',
            HINT = 'Name values that hold a semicolon otherwise, as by chr(59).';
    END IF;
    EXECUTE pg_catalog.concat('EXPLAIN (FORMAT JSON) ', query) INTO plan;
    RETURN QUERY SELECT * FROM archive_ext.plan_reading_cost(plan);
END $$;

CREATE FUNCTION archive_restore_cost("partition" text)
RETURNS TABLE (table_name regclass, storage name, storage_class text, objects bigint, bytes bigint, requests bigint, requests_cost numeric,
               retrieval_cost numeric, total numeric, currency text)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    SELECT o.table_name, o.storage, c.storage_class, o.objects, o.bytes, c.requests, c.requests_cost, c.retrieval_cost, c.total, c.currency
    FROM (SELECT o.table_name, o.storage, o.storage_class, count(*) AS objects, sum(o.bytes)::bigint AS bytes
          FROM archive_ext.partitions p
          JOIN archive_ext.objects o USING (table_name, partition_name, version, storage)
          JOIN pg_class t ON t.oid = p.table_name::oid JOIN pg_namespace n ON n.oid = t.relnamespace
          WHERE p.status = 'ARCHIVED'
            AND $1 IN (p.partition_name, quote_ident(p.partition_name), format('%I.%I', n.nspname, p.partition_name))
          GROUP BY o.table_name, o.storage, o.storage_class) o
    CROSS JOIN LATERAL archive_ext.reading_cost(o.storage, o.storage_class, o.objects, o.bytes) c
    ORDER BY o.table_name::text, o.storage, c.storage_class
$$;

CREATE FUNCTION archive_plan_cost(source regclass DEFAULT NULL,
    OUT steps bigint, OUT objects bigint, OUT requests_cost numeric, OUT bytes_freed bigint, OUT saved_per_month numeric)
STABLE LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $$
    -- Verifying and deleting write nothing.
    SELECT count(*), sum(p.objects) FILTER (WHERE p.action = 'archive')::bigint,
           round(sum(p.objects * c.put_1000 / 1000) FILTER (WHERE p.action = 'archive'), 6), sum(p.bytes_freed)::bigint,
           sum(p.saved_per_month)
    FROM @extschema@.plan_archive($1) p
    LEFT JOIN archive_ext.policies a ON a.table_name = p.table_name
    CROSS JOIN LATERAL archive_ext.price_of(coalesce(a.storage, nullif(current_setting('archive_ext.default_storage', true), ''))::name) c
$$;
