-- Tables that age together: children, families archived and reattached, everything that stands in their way.
SET client_min_messages = warning;
SET timezone = 'UTC';
SET archive_ext.default_storage = 'cold';
SET archive_ext.max_swap_time = 0;
CREATE ROLE regress_family;
CREATE SCHEMA family AUTHORIZATION regress_family;
GRANT USAGE ON FOREIGN SERVER cold TO regress_family;
SET ROLE regress_family;
SET search_path = family, public;

\echo '-- three generations: purchases, their lines, the lines'' notes'
CREATE TABLE purchases (id int, created_at timestamptz, customer int, PRIMARY KEY (id, created_at)) PARTITION BY RANGE (created_at);
CREATE TABLE purchase_line (order_id int, ordered_at timestamptz, line int, amount numeric, PRIMARY KEY (order_id, ordered_at, line),
    CONSTRAINT line_order FOREIGN KEY (order_id, ordered_at) REFERENCES purchases ON UPDATE CASCADE) PARTITION BY RANGE (ordered_at);
CREATE TABLE note (order_id int, ordered_at timestamptz, line int, note text,
    CONSTRAINT note_line FOREIGN KEY (order_id, ordered_at, line) REFERENCES purchase_line) PARTITION BY RANGE (ordered_at);
SELECT format('CREATE TABLE %s_2024_0%s PARTITION OF %s FOR VALUES FROM (''2024-0%s-01'') TO (''2024-0%s-01'')', t, m, t, m, m + 1)
FROM unnest(ARRAY['purchases', 'purchase_line']) t, generate_series(1, 3) m ORDER BY t DESC, m \gexec
\echo '-- the notes'' partitions are half months: they nest'
CREATE TABLE note_2024_01a PARTITION OF note FOR VALUES FROM ('2024-01-01') TO ('2024-01-16');
CREATE TABLE note_2024_01b PARTITION OF note FOR VALUES FROM ('2024-01-16') TO ('2024-02-01');
CREATE TABLE note_rest PARTITION OF note DEFAULT;
INSERT INTO purchases SELECT n, timestamptz '2024-01-01' + n * interval '2 hours', n % 10 FROM generate_series(1, 1000) n;
INSERT INTO purchase_line SELECT id, created_at, l, l * 1.5 FROM purchases, generate_series(1, 3) l;
INSERT INTO note SELECT order_id, ordered_at, line, 'note ' || order_id FROM purchase_line WHERE line = 2 AND ordered_at < '2024-02-01';
CREATE TABLE before AS SELECT o.*, l.line, l.amount, n.note FROM purchases o JOIN purchase_line l ON (l.order_id, l.ordered_at) = (o.id, o.created_at)
    LEFT JOIN note n ON (n.order_id, n.ordered_at, n.line) = (l.order_id, l.ordered_at, l.line);

\echo '-- discovery and registration'
SELECT * FROM discover_child_tables('purchases');
SELECT add_child_table('purchases', 'purchase_line');
SELECT add_child_table('purchase_line', 'note', 'note_line');
SELECT child, managed, usable FROM discover_child_tables('purchases');
\echo '-- a single call points to the family'
SELECT archive_partition('purchases_2024_01');
\echo '-- a dry run shows the members, children first'
SELECT job_id, archived, objects FROM archive_family('purchases_2024_01', dry_run => true);
SELECT archived, rows, objects FROM archive_family('purchases_2024_01');
SELECT partition_name, status, label, rows FROM archive_ext.partitions WHERE table_name::text IN ('purchases', 'purchase_line', 'note') ORDER BY 1;
SELECT operation, partition_name, status, phase FROM archive_ext.jobs WHERE partition_name LIKE 'family.%' AND status = 'completed' ORDER BY 2;
SELECT partition_name, details ->> 'family' AS family FROM archive_ext.events WHERE table_name::text IN ('purchases', 'purchase_line', 'note') ORDER BY 1;
\echo '-- the local copies hold no key of rows that left, the tables theirs'
SELECT conrelid::regclass::text ~ '__local_' AS local_copy, conname, count(*) FROM pg_constraint
WHERE contype = 'f' AND conparentid = 0 AND confrelid::regclass::text IN ('purchases', 'purchase_line') GROUP BY 1, 2 ORDER BY 1, 2;
CREATE VIEW joined AS SELECT o.*, l.line, l.amount, n.note
FROM archive.purchases_all o JOIN archive.purchase_line_all l ON (l.order_id, l.ordered_at) = (o.id, o.created_at)
    LEFT JOIN archive.note_all n ON (n.order_id, n.ordered_at, n.line) = (l.order_id, l.ordered_at, l.line);
SELECT count(*) AS lost FROM (TABLE before EXCEPT ALL TABLE joined) x;
SELECT count(*) AS invented FROM (TABLE joined EXCEPT ALL TABLE before) x;
\echo '-- a child does not come back without its parent'
SELECT reattach_partition('purchase_line_2024_01');
SELECT reattach_family('note_2024_01a');
\echo '-- together they do, the parent first'
SELECT reattach_family('purchases_2024_01', writable => true);
SELECT count(*) AS lost FROM (TABLE before EXCEPT ALL TABLE joined) x;
INSERT INTO purchase_line VALUES (100000, '2024-01-05', 1, 1);
SELECT conname, convalidated, count(*) FROM pg_constraint
WHERE contype = 'f' AND conrelid IN ('purchase_line_2024_01'::regclass, 'note_2024_01a'::regclass, 'note_2024_01b'::regclass) GROUP BY 1, 2 ORDER BY 1;
\echo '-- unchanged, a family keeps its objects; from objects it comes back as well'
CALL archive_family_steps('purchases_2024_01', drop_local => '0');
SELECT partition_name, version FROM archive_ext.partitions WHERE table_name::text IN ('purchases', 'purchase_line', 'note') ORDER BY 1;
SELECT reattach_family('family.purchases_2024_01', '1 day');
SELECT count(*) AS lost FROM (TABLE before EXCEPT ALL TABLE joined) x;
DELETE FROM purchase_line WHERE order_id = 5;
\echo '-- called for what is archived'
SET client_min_messages = notice;
CALL archive_family_steps('purchases_2024_02');
SET client_min_messages = warning;
SELECT archive_family('archive.purchases_2024_02');
CALL archive_family_steps('archive.purchases_2024_02');
\echo '-- the last generation alone is a family of one; a parent may come back alone'
SELECT archived, rows FROM archive_family('note_2024_01a', drop_local => '0');
SELECT reattach_partition('purchases_2024_02');
SELECT archived, rows FROM archive_partition('purchases_2024_02');

\echo '-- blockers: rows in another partition, an unmanaged table'
INSERT INTO note SELECT order_id, ordered_at, line, 'late' FROM purchase_line WHERE ordered_at >= '2024-03-01' AND line = 1 LIMIT 4;
CREATE TABLE complaint (order_id int, ordered_at timestamptz, CONSTRAINT complaint_order FOREIGN KEY (order_id, ordered_at) REFERENCES purchases);
INSERT INTO complaint SELECT id, created_at FROM purchases WHERE created_at >= '2024-03-01' LIMIT 2;
SELECT relation, rows, reason, remedy FROM family_blockers('purchases_2024_03');
SELECT archive_family('purchases_2024_03');
SELECT archived FROM archive_family('purchases_2024_03', dry_run => true);
CALL archive_family_steps('purchases_2024_03');
SELECT archive_family('purchases_2024_03', keep_keys => true);
\echo '-- nothing was begun'
SELECT count(*) FROM archive_ext.jobs WHERE partition_name LIKE 'family.%' AND status = 'running';
SELECT count(*) FROM pg_trigger WHERE tgname = 'archive_ext_guard' AND tgrelid = 'purchases_2024_03'::regclass;
DELETE FROM note WHERE note = 'late';
SELECT archive_family('purchases_2024_03');
SELECT add_child_table('purchases', 'complaint');
DROP TABLE complaint;
SELECT * FROM family_blockers('purchases_2024_03');
\echo '-- a key that is gone'
ALTER TABLE note DROP CONSTRAINT note_line;
SELECT * FROM family_blockers('purchases_2024_03');
SELECT drop_child_table('purchase_line', 'note'), drop_child_table('purchase_line', 'note') AS again;

\echo '-- what cannot be a child'
CREATE TABLE parent (id int, day date, PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
CREATE TABLE parent_1 PARTITION OF parent FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE yearly (id int, day date, FOREIGN KEY (id, day) REFERENCES parent) PARTITION BY RANGE (day);
CREATE TABLE yearly_1 PARTITION OF yearly FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
CREATE TABLE strict (id int, day date, FOREIGN KEY (id, day) REFERENCES parent ON DELETE RESTRICT) PARTITION BY RANGE (day);
CREATE TABLE forgetful (id int, day date, FOREIGN KEY (id, day) REFERENCES parent ON DELETE SET NULL) PARTITION BY RANGE (day);
CREATE TABLE twice (id int, day date, other int, CONSTRAINT one FOREIGN KEY (id, day) REFERENCES parent,
    CONSTRAINT two FOREIGN KEY (other, day) REFERENCES parent) PARTITION BY RANGE (day);
CREATE TABLE stamps (id int, day date, at timestamp, FOREIGN KEY (id, day) REFERENCES parent) PARTITION BY RANGE (at);
CREATE TABLE stamps_1 PARTITION OF stamps FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
CREATE TABLE pairs (id int, day date, FOREIGN KEY (id, day) REFERENCES parent) PARTITION BY RANGE (day, id);
CREATE TABLE pairs_1 PARTITION OF pairs FOR VALUES FROM ('2024-01-01', 1) TO ('2024-02-01', 1);
ALTER TABLE parent ADD boss int, ADD CONSTRAINT boss FOREIGN KEY (boss, day) REFERENCES parent;
SELECT child, foreign_key, usable, reason FROM discover_child_tables('parent') ORDER BY 1, 2;
SELECT add_child_table('parent', 'yearly');
SELECT add_child_table('parent', 'strict');
SELECT add_child_table('parent', 'forgetful');
SELECT add_child_table('parent', 'twice');
SELECT add_child_table('parent', 'twice', 'three');
SELECT add_child_table('parent', 'twice', 'two');
SELECT add_child_table('parent', 'stamps');
SELECT add_child_table('parent', 'pairs');
SELECT add_child_table('parent', 'parent', 'boss');
SELECT add_child_table('parent', 'purchases');
SELECT add_child_table('parent', 'purchases_2024_03');
\echo '-- no circles'
ALTER TABLE twice ADD UNIQUE (id, day);
ALTER TABLE parent ADD first_twice int, ADD CONSTRAINT back FOREIGN KEY (first_twice, day) REFERENCES twice (id, day);
SELECT add_child_table('twice', 'parent');
\echo '-- children by label'
CREATE TABLE claim (id int, lifecycle_status text, PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
CREATE TABLE remark (claim int, lifecycle_status text, remark text, FOREIGN KEY (claim, lifecycle_status) REFERENCES claim ON UPDATE CASCADE)
    PARTITION BY LIST (lifecycle_status);
CREATE TABLE claim_warm PARTITION OF claim FOR VALUES IN ('WARM_2022', 'WARM_2023');
CREATE TABLE claim_live PARTITION OF claim FOR VALUES IN ('LIVE_202401');
CREATE TABLE remark_2022 PARTITION OF remark FOR VALUES IN ('WARM_2022');
CREATE TABLE remark_2023 PARTITION OF remark FOR VALUES IN ('WARM_2023');
CREATE TABLE remark_live PARTITION OF remark FOR VALUES IN ('LIVE_202401');
INSERT INTO claim VALUES (1, 'WARM_2022'), (2, 'WARM_2023'), (3, 'LIVE_202401');
INSERT INTO remark SELECT id, lifecycle_status, 'x' FROM claim;
SELECT add_child_table('claim', 'remark');
SELECT archived, rows FROM archive_family('claim_warm');
SELECT t.id, r.remark FROM archive.claim_all t JOIN archive.remark_all r ON r.claim = t.id ORDER BY 1;

\echo '-- somebody else''s tables'
RESET ROLE;
CREATE ROLE regress_outsider;
GRANT USAGE ON SCHEMA family TO regress_outsider;
SET ROLE regress_outsider;
SELECT add_child_table('purchases', 'purchase_line');
SELECT drop_child_table('purchases', 'purchase_line');
SELECT archive_family('purchases_2024_03');
SELECT reattach_family('purchases_2024_02');
RESET ROLE;
ALTER TABLE purchase_line_2024_03 OWNER TO regress_outsider;
SELECT relation, reason, remedy FROM family_blockers('purchases_2024_03');
DROP SCHEMA family CASCADE;
DELETE FROM archive_ext.child_table;
DROP OWNED BY regress_outsider, regress_family;
DROP ROLE regress_outsider;
DROP ROLE regress_family;
