-- Rows of lifecycle-partitioned tables get another status, and with it another partition.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
CREATE SCHEMA rows;
SET search_path = rows, public;

CREATE TABLE ticket (
    ref text NOT NULL, lifecycle_status text NOT NULL, opened_at timestamptz NOT NULL, removal_time timestamptz, note text,
    PRIMARY KEY (ref, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
CREATE TABLE ticket_live_202501 PARTITION OF ticket FOR VALUES IN ('LIVE_202501');
INSERT INTO ticket SELECT 'INC-' || n, CASE WHEN n < 30 THEN 'LIVE_202412' ELSE 'LIVE_202501' END,
                          timestamptz '2024-12-10 00:00Z' + n * interval '1 day' FROM generate_series(10, 49) n;

\echo '-- the walk of a ticket'
SELECT set_lifecycle_where('ticket', 'ref BETWEEN ''INC-10'' AND ''INC-13''', 'HOT');
SELECT set_lifecycle_where('ticket', 'ref = ''INC-11''', 'WARM', '2025-09-01');
SELECT set_lifecycle_where('ticket', $$ref = 'INC-12' AND lifecycle_status = 'HOT'$$, 'WARM', '2025-10-15');
SELECT set_lifecycle_where('ticket', 'ref IN (''INC-11'', ''INC-12'')', 'ARCHIVED');
SELECT ref, tableoid::regclass, lifecycle_status, removal_time FROM ticket WHERE ref BETWEEN 'INC-10' AND 'INC-14' ORDER BY 1;
SELECT partition_name, event, from_status, status, details ->> 'to_label' AS label, details ->> 'rows' AS rows
FROM archive_ext.events WHERE table_name = 'ticket'::regclass ORDER BY at;
\d ticket_warm_2024
\echo '-- what has the status already is not touched; nothing matches'
SELECT set_lifecycle_where('ticket', 'ref = ''INC-10''', 'HOT');
SELECT set_lifecycle_where('ticket', 'false', 'HOT');
\echo '-- ARCHIVED rows come back to WARM, by their own time'
SELECT set_lifecycle_where('ticket', 'ref = ''INC-12''', 'WARM');
SELECT tableoid::regclass FROM ticket WHERE ref = 'INC-12';
\echo '-- the archive run of a label; its partition cannot be made twice'
SELECT archived, rows FROM archive_partition('ticket_archive_202509');
SELECT partition_name, status, label, rows FROM archive_ext.partitions
WHERE table_name = 'ticket'::regclass AND status = 'ARCHIVED';
SELECT set_lifecycle_where('ticket', 'ref = ''INC-12''', 'ARCHIVED', '2025-09-20');
SELECT reattach_partition('rows.ticket_archive_202509', writable => true);
SELECT set_lifecycle_where('ticket', 'ref = ''INC-12''', 'ARCHIVED', '2025-09-20');
SELECT tableoid::regclass::text AS partition, count(*) FROM ticket GROUP BY 1 ORDER BY 1;

\echo '-- refused: illegal moves, rows without removal time'
SELECT set_lifecycle_where('ticket', 'ref = ''INC-10''', 'LIVE');
SELECT set_lifecycle_where('ticket', 'ref = ''INC-10''', 'ARCHIVED');
SELECT set_lifecycle_where('ticket', 'ref = ''INC-10''', 'WARM', 'infinity');
SELECT set_lifecycle_where('ticket', 'ref = ''INC-10''', 'ARCHIVED');
\echo '-- refused: what is not one boolean expression'
SELECT set_lifecycle_where('ticket', 'ref = = ''INC-10''', 'HOT');
SELECT set_lifecycle_where('ticket', '', 'HOT');
SELECT set_lifecycle_where('ticket', 'true; DELETE FROM ticket', 'HOT');
SELECT set_lifecycle_where('ticket', 'true;', 'HOT');
SELECT set_lifecycle_where('ticket', 'false) OR (true', 'HOT');
SELECT set_lifecycle_where('ticket', 'true ORDER BY 1', 'HOT');
SELECT set_lifecycle_where('ticket', 'true FROM ticket', 'HOT');
SELECT set_lifecycle_where('ticket', 'true AS t', 'HOT');
SELECT set_lifecycle_where('ticket', 'true, true', 'HOT');
SELECT set_lifecycle_where('ticket', 'true UNION SELECT true', 'HOT');
SELECT set_lifecycle_where('ticket', 'true /* comment', 'HOT');
SELECT set_lifecycle_where('ticket', 'status = ''x''', 'HOT');
SELECT set_lifecycle_where('ticket', 'ref', 'HOT');
SELECT set_lifecycle_where('ticket', 'count(*) > 1', 'HOT');
SELECT set_lifecycle_where('ticket', NULL, 'HOT');
SELECT set_lifecycle_where('ticket', 'true', NULL);
SELECT set_lifecycle_where('ticket', 'true', 'COLD');
\echo '-- a comment at its end, subqueries and the table''s own name are an expression'
SELECT set_lifecycle_where('ticket', $$ticket.ref = (SELECT min(t.ref) FROM ticket t WHERE t.lifecycle_status LIKE 'LIVE%') -- the first$$, 'HOT');

\echo '-- what the session reads is no limit'
SELECT use_data_partition('LIVE*');
SELECT set_lifecycle_where('ticket', 'ref = ''INC-13''', 'WARM');
SELECT use_data_partition(NULL);
SELECT tableoid::regclass FROM ticket WHERE ref = 'INC-13';

\echo '-- refused: other kinds of tables'
CREATE TABLE by_time (at timestamptz) PARTITION BY RANGE (at);
CREATE TABLE by_time_2024 PARTITION OF by_time FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE by_hash (id int, inactive bool) PARTITION BY HASH (id);
CREATE TABLE by_region (region text) PARTITION BY LIST (region);
CREATE TABLE by_region_eu PARTITION OF by_region FOR VALUES IN ('eu');
CREATE TABLE plain (id int);
SELECT set_lifecycle_where('by_time', 'true', 'WARM');
SELECT set_lifecycle_where('by_time_2024', 'true', 'WARM');
SELECT set_lifecycle_where('by_hash', 'inactive', 'ARCHIVED');
SELECT set_lifecycle_where('by_region', 'true', 'WARM');
SELECT set_lifecycle_where('plain', 'true', 'WARM');
SELECT set_lifecycle_where('ticket_hot', 'true', 'WARM');

\echo '-- the DEFAULT partition: its rows move; a label whose rows it holds gets no partition'
CREATE TABLE d (id int, lifecycle_status text NOT NULL) PARTITION BY LIST (lifecycle_status);
CREATE TABLE d_live_2024 PARTITION OF d FOR VALUES IN ('LIVE_2024');
CREATE TABLE d_rest PARTITION OF d DEFAULT;
INSERT INTO d VALUES (1, 'LIVE_2024'), (2, 'LIVE_2025'), (3, 'other');
SELECT set_lifecycle_where('d', 'id < 3', 'HOT');
SELECT tableoid::regclass, * FROM d ORDER BY id;
SELECT set_lifecycle_where('d', 'id = 3', 'HOT');
INSERT INTO d VALUES (4, 'WARM_2024'), (5, 'LIVE_2024');
SELECT set_lifecycle_where('d', 'id = 5', 'WARM');
SELECT set_lifecycle_where('d', 'id = 5', 'WARM', '2025-01-01');

\echo '-- children: NO ACTION and CASCADE, three generations'
CREATE TABLE ord (id int, lifecycle_status text, PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ord_live_202412 PARTITION OF ord FOR VALUES IN ('LIVE_202412');
CREATE TABLE line (id int, ord int, status text, PRIMARY KEY (id, status),
    CONSTRAINT line_ord FOREIGN KEY (ord, status) REFERENCES ord (id, lifecycle_status)) PARTITION BY LIST (status);
CREATE TABLE line_live_202412 PARTITION OF line FOR VALUES IN ('LIVE_202412');
CREATE TABLE serial (id int PRIMARY KEY, line int, status text,
    CONSTRAINT serial_line FOREIGN KEY (line, status) REFERENCES line (id, status) ON UPDATE CASCADE);
INSERT INTO ord SELECT n, 'LIVE_202412' FROM generate_series(1, 10) n;
INSERT INTO line SELECT n, 1 + n % 10, 'LIVE_202412' FROM generate_series(1, 30) n;
INSERT INTO serial SELECT n, 1 + n % 30, 'LIVE_202412' FROM generate_series(1, 60) n;
\echo '-- not registered'
SELECT set_lifecycle_where('ord', 'id <= 3', 'HOT');
INSERT INTO archive_ext.child_table (parent, child, foreign_key) VALUES ('ord', 'line', 'line_ord');
SELECT set_lifecycle_where('ord', 'id <= 3', 'HOT');
SELECT 'ord' AS what, tableoid::regclass, count(*) FROM ord GROUP BY 2
UNION ALL SELECT 'line', tableoid::regclass, count(*) FROM line GROUP BY 2
UNION ALL SELECT 'serial of ' || status, tableoid::regclass, count(*) FROM serial GROUP BY 1, 2 ORDER BY 1, 2;
SELECT details - 'where' FROM archive_ext.events WHERE table_name = 'ord'::regclass;
\echo '-- the other way round: CASCADE above NO ACTION'
ALTER TABLE line DROP CONSTRAINT line_ord,
    ADD CONSTRAINT line_ord FOREIGN KEY (ord, status) REFERENCES ord (id, lifecycle_status) ON UPDATE CASCADE;
ALTER TABLE serial DROP CONSTRAINT serial_line, ADD CONSTRAINT serial_line FOREIGN KEY (line, status) REFERENCES line (id, status);
INSERT INTO archive_ext.child_table (parent, child, foreign_key) VALUES ('line', 'serial', 'serial_line');
SELECT set_lifecycle_where('ord', 'id BETWEEN 4 AND 5', 'HOT');
SELECT count(*) FROM serial s JOIN line l ON (l.id, l.status) = (s.line, s.status)
    JOIN ord o ON (o.id, o.lifecycle_status) = (l.ord, l.status);
\echo '-- RESTRICT is refused'
ALTER TABLE line DROP CONSTRAINT line_ord,
    ADD CONSTRAINT line_ord FOREIGN KEY (ord, status) REFERENCES ord (id, lifecycle_status) ON UPDATE RESTRICT;
SELECT set_lifecycle_where('ord', 'true', 'WARM');
ALTER TABLE line DROP CONSTRAINT line_ord;
DELETE FROM archive_ext.child_table;

\echo '-- triggers fire, as the caller; one that keeps a row is named'
CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF new.id = 9 THEN RETURN NULL; END IF;
    RAISE WARNING '% moves % to %', current_user, new.id, new.lifecycle_status;
    RETURN new;
END $$;
CREATE TRIGGER keep BEFORE UPDATE ON ord FOR EACH ROW EXECUTE FUNCTION keep();
SELECT set_lifecycle_where('ord', 'id IN (8, 9)', 'HOT');
SELECT set_lifecycle_where('ord', 'id IN (8)', 'HOT');
DROP TRIGGER keep ON ord;

\echo '-- a table owner without other rights; nobody gains any by the clause'
CREATE ROLE rows_owner;
CREATE ROLE rows_other;
GRANT USAGE ON SCHEMA rows TO rows_owner, rows_other;
GRANT CREATE ON SCHEMA rows TO rows_owner;
ALTER TABLE ord OWNER TO rows_owner;
ALTER TABLE ord_live_202412 OWNER TO rows_owner;
ALTER TABLE ord_hot OWNER TO rows_owner;
CREATE FUNCTION who() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'as %', current_user; RETURN true; END $$;
CREATE FUNCTION gain() RETURNS bool LANGUAGE plpgsql AS $$ BEGIN RESET ROLE; RETURN true; END $$;
SET ROLE rows_other;
SELECT set_lifecycle_where('ord', 'true', 'HOT');
SET ROLE rows_owner;
SELECT set_lifecycle_where('ord', 'id = 6 AND who()', 'WARM');
SELECT set_lifecycle_where('ord', 'gain()', 'WARM');
SELECT current_user;
SELECT c.relname, pg_get_userbyid(relowner) FROM ord JOIN pg_class c ON c.oid = ord.tableoid WHERE id = 6;
RESET ROLE;

\echo '-- in batches; the job of somebody else runs with that role''s rights'
SET client_min_messages = notice;
CALL set_lifecycle_where_steps('ticket', $$lifecycle_status LIKE 'LIVE%'$$, 'HOT', batch_rows => 7);
SET client_min_messages = warning;
SELECT operation, partition_name, status, phase, rows_archived FROM archive_ext.jobs WHERE table_name = 'ticket'::regclass AND operation = 'rows';
SELECT count(*), sum((details ->> 'rows')::int) FROM archive_ext.events WHERE table_name = 'ticket'::regclass AND job_id IS NOT NULL
    AND event = 'moved';
CALL set_lifecycle_where_steps('ticket', 'true', 'HOT', batch_rows => 0);
CALL set_lifecycle_where_steps('ticket', 'nonsense', 'HOT');
SET ROLE rows_owner;
SELECT archive_ext.begin_rows('ord', 'id = 7 AND who()', 'WARM', NULL, 10) AS job \gset
SET ROLE rows_other;
SELECT * FROM archive_ext.archive_step(:'job');
SELECT cancel_job(:'job');
RESET ROLE;
SELECT * FROM archive_ext.archive_step(:'job');
SELECT * FROM archive_ext.archive_step(:'job');
SELECT * FROM archive_ext.archive_step(:'job');

\echo '-- a whole partition of a label: its rows move, it stays'
INSERT INTO ticket VALUES ('INC-80', 'LIVE_202412', '2024-12-30'), ('INC-81', 'LIVE_202412', '2024-12-30');
SELECT set_lifecycle('ticket_live_202412', 'WARM', '2025-12-24');
SELECT set_lifecycle('ticket_live_202501', 'HOT');
SELECT lifecycle_status, removal_time FROM ticket WHERE ref IN ('INC-80', 'INC-81');

\echo '-- what is due, by policy and clock'
SET archive_ext.now = '2025-03-15 00:00+00';
INSERT INTO archive_ext.archive_policy (source, hot_after, warm_after) VALUES ('ticket', '1 mon', '3 mon');
INSERT INTO ticket VALUES ('INC-90', 'LIVE_202412', '2024-12-30'), ('INC-91', 'LIVE_202501', '2025-01-30');
SELECT partition, label, status, reason FROM archive_ext.rows_due('ticket');
SET archive_ext.now = '2025-05-01 00:00+00';
SELECT partition, label, status, reason, request FROM archive_ext.rows_due('ticket');
SET ROLE rows_other;
SELECT * FROM archive_ext.rows_due('ticket');
RESET ROLE;

DROP TABLE ord, line, serial, d, ticket, by_time, by_hash, by_region, plain CASCADE;
DROP SCHEMA rows CASCADE;
DROP ROLE rows_owner, rows_other;
