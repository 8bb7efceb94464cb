-- What the extension puts into a database: all of it commented, callable with untyped literals, and nothing PUBLIC.
SELECT pg_describe_object(d.classid, d.objid, d.objsubid) AS without_comment
FROM pg_depend d
WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
  AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'archive_ext')
  AND obj_description(d.objid, d.classid::regclass::name) IS NULL
  AND NOT EXISTS (SELECT FROM pg_class c WHERE d.classid = 'pg_class'::regclass AND c.oid = d.objid AND c.relkind = 'S')
  AND NOT EXISTS (SELECT FROM pg_type t WHERE d.classid = 'pg_type'::regclass AND t.oid = d.objid
                  AND (t.typrelid <> 0 OR t.typcategory = 'A')) -- of tables, and arrays: members since PostgreSQL 17
ORDER BY 1;
SELECT c.relname AS readable_by_all FROM pg_class c
WHERE c.relnamespace = 'archive_ext'::regnamespace AND c.relkind IN ('r', 'v')
  AND has_table_privilege('pg_read_all_settings', c.oid, 'SELECT') ORDER BY 1;
SELECT c.relname AS not_dumped FROM pg_class c
WHERE c.relnamespace = 'archive_ext'::regnamespace AND c.relkind IN ('r', 'S')
  AND c.oid <> ALL (SELECT unnest(extconfig) FROM pg_extension WHERE extname = 'archive_ext');
SELECT name, boot_val, unit, context FROM pg_settings WHERE name LIKE 'archive_ext.%' ORDER BY 1;
-- Each call resolves; most fail for want of the object named.
\set VERBOSITY terse
SELECT archive_partition('no_such', 'cold', 'deep', '1 day', 'true');
SELECT archive_partitions('{}', 'cold', 'content', '0', 'false');
CALL archive_partition_steps('{}', 'cold', 'content', '0');
SELECT reattach_partition('no_such', '1 day', 'true', 'move');
SELECT set_lifecycle_where('no_such', 'true', 'HOT', '2025-01-01');
CALL set_lifecycle_where_steps('no_such', 'true', 'HOT', '2025-01-01', '10');
SELECT add_child_table('no_such', 'none', 'x');
SELECT drop_child_table('no_such', 'none');
SELECT legal_hold('no_such', 'true', 'case');
SELECT object_locks('no_such');
SELECT request_restore('no_such', '2024-01-01', '2025-01-01', 'bulk', '3');
SELECT poll_restores('no_such');
SELECT repair_archive('no_such', 'true');
SELECT erase_rows('no_such', 'true', 'true', 'case');
SELECT update_archived('no_such', 'true', '{"a": "1"}', 'true', 'case');
SELECT archive_cost('no_such'), archive_plan_cost('no_such');
SELECT archive_query_cost('SELECT 1'), archive_restore_cost('no_such');
SELECT discover_child_tables('no_such');
SELECT archive_family('no_such', 'cold', 'deep', '1 day', 'true', 'false');
CALL archive_family_steps(NULL, 'cold', 'content', '0');
SELECT family_blockers('no_such');
SELECT reattach_family('no_such', '1 day', 'true');
SELECT get_archived_record('no_such', '42'), archive_tier_of('no_such', '42');
SELECT reconcile_counts('no_such', 'at', 'true');
SELECT verify_archive('no_such', 'deep');
CALL verify_archive_steps('no_such', 'checksum');
SELECT drop_local_copy('no_such');
SELECT reconcile_archive('no_such', '5');
SELECT cancel_job('7b3a0a9e-0000-0000-0000-000000000000');
SELECT count(*) > 5 AS checks, bool_and(ok) AS all_ok FROM check_storage('cold');
SELECT adopt_storage('no_such');
SELECT audit_storage('no_such');
SELECT verify_chain('no_such', '{}');
SELECT collect_garbage('no_such', '14 days', 'true');
SELECT count(*) >= 0 AS checked FROM check_consistency('false');
SELECT import_archive('no_such', 'true', 'public.%', 'postgres', 'false');
SELECT * FROM import_archive('cold', tables => 'no such.%');
SELECT set_archive_policy('no_such', '1 day', '2 days', '3 days', '4 days', '5 days', '6 days', '7 days', 'cold', '8', '9 days',
    'day', 'day', 'day', 'day', '1', 'parquet', 'zstd', 'hot', 'warm', '22:00-06:00', 'at', '3', 'archive', 'x', 'true', 'at', 'snowflake', '2010-11-04', '{storage}');
SELECT drop_archive_policy('no_such');
SELECT export_policies('no_such');
SELECT import_policies('{"format": 1, "policies": []}', 'true');
SELECT plan_archive('no_such');
SELECT explain_lifecycle('no_such');
SELECT lifecycle_map('no_such');
CALL run_lifecycle('no_such', '1');
SELECT pause_job('7b3a0a9e-0000-0000-0000-000000000000');
SELECT resume_job('7b3a0a9e-0000-0000-0000-000000000000');
SELECT retry_job('7b3a0a9e-0000-0000-0000-000000000000');
SELECT use_data_partition('HOT', 'true'), use_data_partition('{}'), use_data_partition();
SELECT set_lifecycle('no_such', 'WARM', '2030-01-01');
SELECT partition_label('WARM', 'year', '2024-05-05');
SELECT premake_partitions('no_such', '1');
SELECT drain_default('no_such');
SELECT merge_partitions('{}', 'x');
SELECT split_partition('no_such', 'month');
CALL merge_partitions_steps('{}', 'x');
CALL split_partition_steps('no_such', 'month');
SELECT register_static_table('no_such', 'x');
SELECT unregister_static_table('no_such');
SELECT compact_archive('no_such', 'at', '2', '1000');
SELECT restore_rows('no_such', 'true', 'skip');
CALL compact_archive_steps('no_such', 'at', '2', '1000', '1 hour', '1 s');
SELECT count(*) FROM archive_ext.progress;
-- Options are refused with the valid ones named.
\set VERBOSITY default
CREATE SERVER bad FOREIGN DATA WRAPPER archive_fdw OPTIONS (locaton 'file:///tmp/x');
CREATE SERVER bad FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file:///tmp/x', region 'eu-west-1');
CREATE SERVER bad FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'ftp://x');
CREATE USER MAPPING FOR PUBLIC SERVER cold OPTIONS (password 'x');
CREATE FOREIGN TABLE stolen (id int) SERVER cold OPTIONS (object 'public.orders/x.parquet');
