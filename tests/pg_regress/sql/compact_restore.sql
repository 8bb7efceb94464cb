-- Small objects become large ones, and rows come back: what a DBA sees.
SET archive_ext.default_storage = 'cold';
CREATE TABLE visit (id int PRIMARY KEY, at timestamptz NOT NULL, note text);
INSERT INTO visit SELECT n, timestamptz '2024-01-25Z' + n * interval '1 hour', 'visit ' || n FROM generate_series(1, 400) n;
CALL archive_table('visit', '2024-02-05Z', batch_rows => 40);
SELECT count(*) AS objects, sum(rows) AS rows FROM archive_ext.objects WHERE table_name = 'visit'::regclass;
SELECT rows, objects, into_objects, done FROM compact_archive('visit', max_bytes => 1);
CALL compact_archive_steps('visit');
SELECT split_part(key, '/', 2) AS year, split_part(key, '/', 3) AS month, rows FROM archive_ext.objects
WHERE table_name = 'visit'::regclass ORDER BY 1, 2;
SELECT rows, objects, into_objects, done FROM compact_archive('visit');
SELECT operation, status FROM archive_ext.jobs WHERE table_name = 'visit'::regclass ORDER BY started_at;

-- Rows that come back.
UPDATE archive.visit SET note = 'changed' WHERE id = 7;
SELECT restore_rows('visit', 'visit.id IN (7, 8)');
SELECT id, note FROM visit WHERE id < 10 ORDER BY id;
SELECT count(*) FROM archive.visit_all;
INSERT INTO visit VALUES (9, now(), 'in the way');
SELECT restore_rows('visit', 'id < 12');
SELECT restore_rows('visit', 'id < 12', 'skip');
SELECT restore_rows('visit', 'id < 12', 'replace');
SELECT id, note FROM visit WHERE id < 12 ORDER BY id;
SELECT count(*) FROM archive.visit_all;
SELECT event, status, details FROM archive_ext.events WHERE table_name = 'visit'::regclass AND event = 'restored' ORDER BY at;

-- Refused.
SELECT restore_rows('visit', 'id < 20', 'merge');
SELECT restore_rows('visit', 'id < 20 LIMIT 1');
SELECT restore_rows('visit', NULL);
CREATE TABLE measured (at date NOT NULL) PARTITION BY RANGE (at);
CREATE TABLE measured_2024 PARTITION OF measured FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
SELECT restore_rows('measured', 'true');
SELECT compact_archive('measured_2024');
BEGIN ISOLATION LEVEL REPEATABLE READ;
SELECT restore_rows('visit', 'true');
ROLLBACK;
CREATE TABLE keyed (id int PRIMARY KEY, serial bigint GENERATED ALWAYS AS IDENTITY);
INSERT INTO keyed VALUES (1);
SELECT rows FROM archive_table_batch('keyed', NULL, where_clause => 'true');
SELECT restore_rows('keyed', 'true', 'replace');
SELECT restore_rows('keyed', 'true');
SELECT * FROM keyed;
DROP TABLE measured, visit, keyed, archive.visit, archive.keyed CASCADE;
