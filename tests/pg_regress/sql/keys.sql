-- Keys that are ids and begin with a time: snowflakes and uuids of version 7. They are named, labelled and aged as times are.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET datestyle = 'ISO';
SET intervalstyle = 'postgres';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA keys;
SET search_path = keys, public;
CREATE FUNCTION snowflake(at timestamptz) RETURNS bigint LANGUAGE sql AS
    $$ SELECT ((extract(epoch FROM at) * 1000)::bigint - 1288834974657) << 22 $$;
CREATE FUNCTION uuidv7(at timestamptz) RETURNS uuid LANGUAGE sql AS
    $$ SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7' || '000' || '8000' || '000000000001')::uuid $$;

\echo '-- whether a number is a snowflake, and since when it counts, must be said'
CREATE TABLE tweet (id bigint PRIMARY KEY, sent_at timestamptz, note text) PARTITION BY RANGE (id);
SELECT premake_partitions('tweet', 1);
SELECT set_archive_policy('tweet', archive_after => '1 year');
SELECT set_archive_policy('tweet', archive_after => '1 year', key_kind => 'snowflake');
SELECT set_archive_policy('tweet', storage => 'cold', key_epoch => '2010-11-04 01:42:54.657+00');
SELECT set_archive_policy('tweet', key_kind => 'uuidv7');
SELECT set_archive_policy('tweet', key_kind => 'ulid');
SELECT set_archive_policy('tweet', hot_after => '1 month', warm_after => '2 months', archive_after => '1 year', live_granularity => 'month',
    premake => 1, drop_after => '0', key_kind => 'snowflake', key_epoch => '2010-11-04 02:42:54.657+01');
SELECT key_kind, key_epoch FROM archive_ext.policies WHERE table_name = 'tweet'::regclass;
CREATE TEMP TABLE exported AS SELECT export_policies('tweet') AS policies;
SELECT policies #> '{policies,0,policy}' AS policy FROM exported;
SELECT import.* FROM exported, import_policies(policies) import;

\echo '-- made ahead of their time'
SET archive_ext.now = '2024-01-15';
CALL run_lifecycle('tweet');
SELECT relname, pg_get_expr(relpartbound, oid) AS bounds FROM pg_class
WHERE relnamespace = 'keys'::regnamespace AND relispartition AND relkind = 'r' ORDER BY 1;
INSERT INTO tweet SELECT snowflake(at), at, 'note' FROM generate_series(timestamptz '2024-01-01', '2024-02-28', '1 day') at;
SELECT tableoid::regclass, count(*), min(sent_at), max(sent_at) FROM tweet GROUP BY 1 ORDER BY 1;
\echo '-- a DEFAULT partition is drained into their periods'
CREATE TABLE tweet_rest PARTITION OF tweet DEFAULT;
INSERT INTO tweet VALUES (snowflake('2024-05-05'), '2024-05-05', 'early');
SELECT drain_default('tweet');
SELECT tableoid::regclass FROM tweet WHERE note = 'early';
DROP TABLE tweet_202405, tweet_rest;

\echo '-- labels: read by them, also before there is any event'
SELECT use_data_partition('LIVE_202402');
SELECT count(*) FROM tweet;
\echo '-- the epoch is part of the labels, also of those that a session knows'
SELECT set_archive_policy('tweet', key_epoch => '2009-11-04 01:42:54.657+00');
SELECT count(*) FROM tweet;
SELECT use_data_partition('LIVE_202302');
SELECT min(sent_at), max(sent_at) FROM tweet;
SELECT set_archive_policy('tweet', key_epoch => '2010-11-04 01:42:54.657+00');
SELECT count(*) FROM tweet;
SELECT use_data_partition(NULL);
SELECT set_lifecycle('tweet_202401', 'HOT');
\echo '-- ages'
SET archive_ext.now = '2024-03-15';
SELECT partition, status, label, next_step, due, reason FROM explain_lifecycle('tweet');
SELECT regexp_replace(line, '[0-9.]+ (kB|B)', 'N', 'g') FROM lifecycle_map('tweet') line;
SET archive_ext.now = '2025-02-15';
CALL run_lifecycle('tweet');
SELECT partition, status, label, next_step, due, reason FROM explain_lifecycle('tweet') WHERE status <> 'LIVE';
SELECT key FROM archive_ext.objects WHERE table_name = 'tweet'::regclass;
SELECT count(*), min(sent_at) FROM archive.tweet;
SELECT regexp_replace(line, '[0-9.]+ (kB|B)', 'N', 'g') FROM lifecycle_map('tweet') line WHERE line LIKE '%in cold%';
SELECT reattach_partition('tweet_202401');
SELECT label FROM archive_ext.partitions WHERE partition_name = 'tweet_202401';
\echo '-- merged and split by the calendar'
SELECT merge_partitions('{tweet_202401,tweet_202402}', 'winter');
SELECT split_partition('winter', 'month');
SELECT count(*) FROM tweet;
\echo '-- uuids of version 7 need no word'
CREATE TABLE message (id uuid PRIMARY KEY, note text) PARTITION BY RANGE (id);
SELECT set_archive_policy('message', archive_after => '3 months', live_granularity => 'month', premake => 1, drop_after => '0', key_kind => 'uuidv7');
SET archive_ext.now = '2024-01-15';
CALL run_lifecycle('message');
INSERT INTO message SELECT uuidv7(at), at::text FROM generate_series(timestamptz '2024-01-01', '2024-02-28', '1 day') at;
SELECT tableoid::regclass, count(*), min(note), max(note) FROM message GROUP BY 1 ORDER BY 1;
SELECT set_lifecycle('message_202401', 'WARM');
SET archive_ext.now = '2024-05-15';
SELECT partition, status, label, next_step, reason FROM explain_lifecycle('message') LIMIT 2;
CALL run_lifecycle('message');
SELECT partition_name, label FROM archive_ext.partitions WHERE table_name = 'message'::regclass AND status = 'ARCHIVED';
SELECT key FROM archive_ext.objects WHERE table_name = 'message'::regclass ORDER BY 1;
\echo '-- random uuids that are cut into parts have no label'
CREATE TABLE token (id uuid PRIMARY KEY) PARTITION BY RANGE (id);
CREATE TABLE token_4 PARTITION OF token FOR VALUES FROM ('40000000-0000-0000-0000-000000000000') TO ('80000000-0000-0000-0000-000000000000');
SELECT set_lifecycle('token_4', 'HOT');

\echo '-- the time column of rows that age one by one: validated, exported, and it may be an id'
CREATE TABLE ticket (id bigint NOT NULL, ref uuid NOT NULL, opened_at date, note text, lifecycle_status text NOT NULL) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ticket_hot PARTITION OF ticket FOR VALUES IN ('HOT');
INSERT INTO ticket SELECT snowflake(at), uuidv7(at + interval '1 year'), '2023-03-03', 'x', 'HOT' FROM unnest('{2024-01-05,2025-01-05}'::timestamptz[]) at;
SELECT set_archive_policy('ticket', time_column => 'gone');
SELECT set_archive_policy('ticket', time_column => 'note');
SELECT set_archive_policy('ticket', time_column => 'id');
SELECT set_archive_policy('ticket', key_kind => 'snowflake', key_epoch => '2010-11-04 01:42:54.657+00');
SELECT set_archive_policy('tweet', time_column => 'sent_at');
SELECT set_archive_policy('tweet', time_column => 'id');
SELECT set_archive_policy('ticket', warm_after => '1 year', warm_granularity => 'year', time_column => 'id', key_kind => 'snowflake', key_epoch => '2010-11-04 01:42:54.657+00');
SELECT export_policies('ticket') #> '{policies,0,policy}' AS policy;
SELECT time_column FROM archive_ext.policies WHERE table_name = 'ticket'::regclass;
SET archive_ext.now = '2025-06-01';
CALL run_lifecycle('ticket');
SELECT lifecycle_status, count(*) FROM ticket GROUP BY 1 ORDER BY 1;
SELECT set_archive_policy('ticket', time_column => 'ref', clear => '{key_kind,key_epoch}');
SET archive_ext.now = '2027-06-01';
CALL run_lifecycle('ticket');
SELECT lifecycle_status, count(*) FROM ticket GROUP BY 1 ORDER BY 1;
SELECT set_archive_policy('ticket', clear => '{time_column}');
SELECT export_policies('ticket') #> '{policies,0,policy}' AS policy;
RESET archive_ext.now;
SELECT drop_archive_policy('tweet'), drop_archive_policy('message'), drop_archive_policy('ticket');
DROP SCHEMA keys CASCADE;
DROP TABLE archive.tweet, archive.message CASCADE;
