-- Archived rows that stay: marked, or as stubs.
SET client_min_messages = notice;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA remnants;
SET search_path = remnants, public;
SET archive_ext.progress_interval = 0;

\echo '-- marked'
CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, what text);
INSERT INTO audit SELECT n, timestamptz '2024-01-01Z' + n * interval '1 hour', 'login ' || n FROM generate_series(1, 1000) n;
SELECT rows FROM archive_table_batch('audit', '2024-02-01Z', mode => 'mark');
ALTER TABLE audit ADD COLUMN is_archived boolean NOT NULL DEFAULT false;
SELECT rows, first_key, last_key FROM archive_table_batch('audit', '2024-02-01Z', mode => 'mark', batch_rows => 100, dry_run => true);
CALL archive_table('audit', '2024-02-01Z', mode => 'mark', batch_rows => 300);
SELECT count(*) FILTER (WHERE is_archived) AS marked, count(*) FROM audit;
SELECT count(*), count(DISTINCT id), count(*) FILTER (WHERE is_archived) AS marked FROM archive.audit_all;
SELECT pg_get_viewdef('archive.audit_all');
UPDATE audit SET what = 'changed' WHERE id = 1;
UPDATE audit SET is_archived = false WHERE id = 1;
UPDATE audit SET is_archived = true WHERE id = 900;
INSERT INTO audit VALUES (2000, now(), 'x', true);
UPDATE audit SET what = 'changed' WHERE id = 900;
SELECT rows, done FROM archive_table_batch('audit', '2024-02-01Z', mode => 'mark');
SELECT forget_marker('audit');
ALTER TABLE audit DROP COLUMN is_archived;
ALTER TABLE audit DROP COLUMN is_archived CASCADE;
ALTER TABLE audit RENAME COLUMN is_archived TO gone;
SELECT count(*) FROM archive.audit_all;
SELECT rows FROM archive_table_batch('audit', '2024-02-02Z', mode => 'mark');
SELECT rows FROM archive_table_batch('audit', '2024-02-02Z', mode => 'mark', mark_column => 'gone');
SELECT rows FROM archive_table_batch('audit', '2024-02-03Z', mode => 'delete');
SELECT purge_marked('audit', 500);
-- What the archive holds otherwise stays.
ALTER TABLE audit DISABLE TRIGGER USER;
UPDATE audit SET what = 'smuggled' WHERE id = 700;
CALL purge_marked_steps('audit', batch_rows => 100);
SELECT id, what, gone FROM audit WHERE gone;
UPDATE audit SET what = 'login 700' WHERE id = 700;
SELECT purge_marked('audit');
SELECT count(*), count(DISTINCT id) FROM archive.audit_all;
SELECT forget_marker('audit');
SELECT purge_marked('audit');
ALTER TABLE audit DROP COLUMN gone;
SELECT count(*) FROM archive.audit_all;
SELECT event, details FROM archive_ext.events WHERE table_name = 'audit'::regclass AND event = 'purged';
CREATE TABLE premarked (id int PRIMARY KEY, at date NOT NULL, is_archived boolean);
INSERT INTO premarked VALUES (1, '2024-01-01', true), (2, '2024-01-01', NULL);
SELECT rows FROM archive_table_batch('premarked', '2024-02-02Z', mode => 'mark');

\echo '-- stubs'
CREATE TABLE mail (id uuid PRIMARY KEY, sent timestamptz NOT NULL, sender text NOT NULL, subject text, body text, headers jsonb, parent uuid REFERENCES mail);
INSERT INTO mail SELECT md5(n::text)::uuid, timestamptz '2024-01-01Z' + n * interval '1 hour', 'a@b', 'subject ' || n,
                        'the body of invoice ' || n, jsonb_build_object('n', n), CASE WHEN n > 1 THEN md5((n - 1)::text)::uuid END
FROM generate_series(1, 100) n;
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{body, headers}');
ALTER TABLE mail ADD COLUMN archived_at timestamptz, ADD COLUMN archive_tier text, ADD COLUMN archive_key text;
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{sender}');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{id}');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{sent}');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{nothing}');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', payload => '{body}', search_column => 'words');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'offload', search_config => 'english');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'stub');
SELECT rows FROM archive_table_batch('mail', '2025-01-01Z', mode => 'delete', payload => '{body}');
ALTER TABLE mail ADD COLUMN words tsvector;
SELECT rows FROM archive_table_batch('mail', '2024-01-04Z', mode => 'offload', payload => '{body, headers}', search_column => 'words',
                                     search_config => 'nothing');
CALL archive_table('mail', '2024-01-04Z', mode => 'offload', payload => '{body, headers}', search_column => 'words',
                   search_config => 'english', batch_rows => 30);
SELECT sent, sender, subject, body, headers, archived_at IS NOT NULL AS archived, archive_tier, archive_key LIKE 'remnants.mail/%' AS key
FROM mail ORDER BY sent LIMIT 2;
SELECT count(*) FILTER (WHERE archived_at IS NOT NULL) AS stubs, count(*) FROM mail;
SELECT count(*) FROM mail WHERE words @@ to_tsquery('english', 'invoices & 71');
SELECT subject, body, headers FROM archive.mail_all WHERE id = (SELECT id FROM mail WHERE words @@ to_tsquery('english', 'invoices & 71'));
SELECT count(*), count(DISTINCT id), count(body) FROM archive.mail_all;
UPDATE mail SET subject = 'x' WHERE id = md5('1')::uuid;
SELECT purge_marked('mail');
SELECT forget_marker('mail');

\echo '-- keys of master data'
CREATE TABLE member (id int PRIMARY KEY, name text, note text NOT NULL, active boolean) PARTITION BY HASH (id);
CREATE TABLE member_0 PARTITION OF member FOR VALUES WITH (MODULUS 2, REMAINDER 0);
CREATE TABLE member_1 PARTITION OF member FOR VALUES WITH (MODULUS 2, REMAINDER 1);
CREATE TABLE purchase (id int PRIMARY KEY, member int REFERENCES member);
INSERT INTO member SELECT n, 'member ' || n, 'n', n % 10 > 0 FROM generate_series(1, 100) n;
INSERT INTO purchase VALUES (1, 10), (2, 11);
SELECT set_lifecycle_where('member', 'NOT active', 'ARCHIVED', keep_keys => true);
ALTER TABLE member ADD COLUMN archived_at timestamptz, ADD COLUMN archive_tier text, ADD COLUMN archive_key text;
SELECT set_lifecycle_where('member', 'NOT active', 'ARCHIVED', keep_keys => true);
CALL set_lifecycle_where_steps('member', 'id < 5', 'ARCHIVED', batch_rows => 3, keep_keys => true);
SELECT id, name, note, active, archive_tier FROM member WHERE archived_at IS NOT NULL ORDER BY id LIMIT 6;
SELECT count(*), count(name), count(DISTINCT id) FROM archive.member_all;
SELECT p.id, c.name FROM purchase p JOIN archive.member_all c ON c.id = p.member ORDER BY p.id;
INSERT INTO purchase VALUES (3, 20);
SELECT set_lifecycle_where('member', 'id = 11', 'HOT', keep_keys => true);
\echo '-- keys of a partition that a table outside the family references'
CREATE TABLE sale (id int, day date, customer text, total numeric, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE sale_2024_01 PARTITION OF sale FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE sale_2024_02 PARTITION OF sale FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE line (sale int, day date, no int, what text, PRIMARY KEY (sale, day, no), FOREIGN KEY (sale, day) REFERENCES sale) PARTITION BY RANGE (day);
CREATE TABLE line_2024_01 PARTITION OF line FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE line_2024_02 PARTITION OF line FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
CREATE TABLE refund (id int PRIMARY KEY, sale int, day date, FOREIGN KEY (sale, day) REFERENCES sale);
INSERT INTO sale SELECT n, date '2024-01-01' + n % 60, 'customer ' || n, n * 1.10 FROM generate_series(0, 119) n;
INSERT INTO line SELECT id, day, no, 'thing' FROM sale, generate_series(1, 2) no;
INSERT INTO refund SELECT 1, id, day FROM sale WHERE id = 3;
SELECT add_child_table('sale', 'line');
SELECT archive_family('sale_2024_01');
SET client_min_messages = warning;
SELECT archived FROM archive_family('sale_2024_01', keep_keys => true, dry_run => true);
SET client_min_messages = notice;
ALTER TABLE sale ADD COLUMN archived_at timestamptz, ADD COLUMN archive_tier text, ADD COLUMN archive_key text;
SET client_min_messages = warning;
SELECT archived FROM archive_family('sale_2024_01', keep_keys => true, dry_run => true);
SET client_min_messages = notice;
SELECT set_lifecycle('sale_2024_01', 'WARM');
SELECT archived, rows, objects FROM archive_family('sale_2024_01', keep_keys => true, drop_local => '0');
SELECT id, day, customer, total, archive_tier FROM sale WHERE id IN (3, 40) ORDER BY id;
SELECT count(*), count(customer), count(DISTINCT id), sum(total) FROM archive.sale_all;
SELECT count(*) FROM archive.line_all;
SELECT r.id, s.customer FROM refund r JOIN archive.sale_all s ON (s.id, s.day) = (r.sale, r.day);
INSERT INTO refund SELECT 2, id, day FROM sale WHERE id = 4;
INSERT INTO sale VALUES (1000, '2024-01-15', 'late', 1);
SELECT set_lifecycle('sale_2024_01', 'HOT');
INSERT INTO sale VALUES (1000, '2024-01-15', 'late', 1);
SELECT count(*), count(customer) FROM archive.sale_all;
SELECT partition_name, status, tier, rows FROM archive_ext.partitions WHERE table_name = 'sale'::regclass;
SELECT archive_partition('sale_2024_01');
SELECT set_lifecycle('sale_2024_01', 'ARCHIVED');
SELECT merge_partitions(ARRAY['sale_2024_01', 'sale_2024_02']::regclass[]);
SELECT set_archive_policy('sale', archive_after => '1 year');
SELECT partition, status, reason, freed_by FROM explain_lifecycle('sale');
SELECT reattach_partition('sale_2024_01');
SELECT reattach_family('line_2024_01');
SELECT count(*) FROM line;
-- The late row follows.
SELECT rows FROM archive_table_batch('sale_2024_01', NULL, where_clause => 'true', mode => 'offload');
SELECT count(*), count(customer) FROM archive.sale_all;
SELECT rows FROM archive_table_batch('sale_2024_02', NULL, where_clause => 'true', mode => 'mark');
SELECT rows FROM archive_table_batch('sale_2024_02', NULL, where_clause => 'true');
DROP SCHEMA remnants CASCADE;
