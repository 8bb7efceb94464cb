"""Archived rows come back into their table, and are in the archive no more: each row is readable through one path."""

import threading

import psycopg
import pytest

from harness.cluster import Database, wait_until
from harness.proxy import CorruptAnswer
from harness.sessions import Call, Repeat
from test_compact import TYPES, imported

ROWS = 1000


@pytest.fixture
def audit(db, cluster):
    """A table of which rows 1 to 500 are archived, in objects of 100."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
        INSERT INTO audit SELECT n, '2022-01-01Z'::timestamptz + n * interval '1 hour', 'note ' || n
        FROM generate_series(1, {ROWS}) n;""")
    db.conn = db.connect()
    db.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 500', batch_rows => 100)")
    return db


def restore(db, clause, *more, table="audit"):
    return db.value(f"SELECT restore_rows({', '.join(['%s', '%s', *more])})", [table, clause])


def ids(db, relation):
    return [row[0] for row in db.all(f"SELECT id FROM {relation} ORDER BY id")]


def everything_once(db, table="audit", rows=ROWS):
    assert ids(db, f"archive.{table}_all") == list(range(1, rows + 1))
    sums = db.row("SELECT sum(rows), sum(archived_bytes) FROM archive_ext.partition WHERE row_set")
    assert sums == db.row("SELECT coalesce(sum(rows), 0), coalesce(sum(bytes), 0) FROM archive_ext.objects")


def test_p1_rows_come_back_and_leave_the_archive(audit):
    """Of one object some rows, another as a whole; the others are not touched."""
    before = audit.all("SELECT * FROM archive.audit_all ORDER BY id")
    objects = [row.key for row in audit.all("SELECT key FROM archive_ext.objects ORDER BY ordinal")]
    assert restore(audit, "audit.id IN (42, 43) OR id BETWEEN 201 AND 300") == 102
    assert ids(audit, "audit")[:103] == [42, 43, *range(201, 301), 501]
    assert 42 not in ids(audit, "archive.audit")
    everything_once(audit)
    assert audit.all("SELECT * FROM archive.audit_all ORDER BY id") == before
    after = [row.key for row in audit.all("SELECT key FROM archive_ext.objects ORDER BY ordinal")]
    assert after[:3] == [objects[1], objects[3], objects[4]] and len(after) == 4
    assert after[3].rsplit("/", 1)[0] == objects[0].rsplit("/", 1)[0]
    assert {row.key for row in audit.all("SELECT key FROM archive_ext.replaced_object")} == {objects[0], objects[2]}
    assert audit.row("SELECT event, status FROM archive_ext.events") == ("restored", "LIVE")
    assert restore(audit, "id = 42") == 0
    assert restore(audit, "true") == 398
    assert audit.value("SELECT count(*) FROM archive.audit") == 0
    everything_once(audit)
    audit.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 500', batch_rows => 100)")
    everything_once(audit)


def test_p1_readers_see_each_row_once_meanwhile(audit):
    """A batch archives, rows come back, objects are merged; a snapshot that is older than all of it keeps what it saw."""
    reader, old, restorer = audit.connect(), audit.connect(), audit.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM archive.audit_all"
    expected = (ROWS, ROWS, ROWS * (ROWS + 1) // 2)
    assert old.execute("SELECT count(*) FROM archive.audit").fetchone()[0] == 500

    def read():
        assert tuple(reader.execute(counted).fetchone()) == expected

    def put_back():
        for first in range(1, 500, 50):
            restorer.execute("SELECT restore_rows('audit', %s)", [f"id BETWEEN {first} AND {first + 20}"])

    with Repeat(read) as reads:
        back = Call(put_back)
        while back.seconds is None:
            audit.execute("CALL compact_archive_steps('audit')")
        back.result()
    assert reads.steps > 2
    assert tuple(old.execute(counted).fetchone()) == expected
    assert old.execute("SELECT count(*) FROM archive.audit").fetchone()[0] == 500
    old.rollback()
    assert audit.value("SELECT count(*) FROM archive.audit") == 500 - 10 * 21
    everything_once(audit)


def test_a_call_that_rolls_back_changes_nothing(audit, cluster):
    before = audit.all("SELECT key FROM archive_ext.objects")
    audit.execute("BEGIN")
    assert restore(audit, "id < 250") == 249
    assert ids(audit, "archive.audit_all") == list(range(1, ROWS + 1)), "the same transaction sees it so, too"
    audit.execute("ROLLBACK")
    assert audit.all("SELECT key FROM archive_ext.objects") == before
    everything_once(audit)


def test_conflicts(audit):
    """Rows with the keys of archived ones came into the table later."""
    audit.execute("INSERT INTO audit VALUES (10, now(), 'new'), (11, now(), 'new')")
    with pytest.raises(psycopg.errors.UniqueViolation, match="audit_pkey"):
        restore(audit, "id < 20")
    assert audit.value("SELECT count(*) FROM archive.audit") == 500
    notices = []
    audit.conn.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    assert restore(audit, "id < 20", "on_conflict => 'skip'") == 17
    assert notices == ['2 archived rows stay: "public.audit" has rows with their keys']
    assert audit.all("SELECT id FROM archive.audit WHERE id < 20 ORDER BY id") == [(10,), (11,)]
    assert audit.value("SELECT count(*) FROM audit WHERE note = 'new'") == 2
    assert restore(audit, "id = 10", "'replace'") == 1
    assert audit.row("SELECT id, note FROM audit WHERE id = 10") == (10, "note 10")
    assert audit.all("SELECT id FROM archive.audit WHERE id < 20") == [(11,)]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="on_conflict"):
        restore(audit, "id = 11", "'merge'")


def test_rows_that_are_nothing_but_their_key_replace_themselves(audit):
    audit.execute("CREATE TABLE pair (a int, b int, PRIMARY KEY (a, b))")
    audit.execute("INSERT INTO pair SELECT n, n FROM generate_series(1, 10) n")
    audit.execute("CALL archive_table('pair', NULL, where_clause => 'true')")
    audit.execute("INSERT INTO pair VALUES (3, 3)")
    assert restore(audit, "a < 5", "'replace'", table="pair") == 4
    assert audit.value("SELECT count(*) FROM archive.pair_all") == 10


def test_two_archived_rows_with_one_key(audit):
    audit.execute("INSERT INTO audit VALUES (7, now(), 'second')")
    audit.execute("SELECT archive_table_batch('audit', NULL, where_clause => 'id = 7')")
    assert audit.value("SELECT count(*) FROM archive.audit WHERE id = 7") == 2
    with pytest.raises(psycopg.errors.CardinalityViolation) as refused:
        restore(audit, "id < 10", "'replace'")
    assert refused.value.diag.message_detail == "Key (id) = (7)."
    with pytest.raises(psycopg.errors.UniqueViolation):
        restore(audit, "id < 10")
    assert restore(audit, "id < 10", "'skip'") == 9
    assert audit.value("SELECT count(*) FROM archive.audit WHERE id = 7") == 1
    assert restore(audit, "note = 'second'", "'replace'") == 1
    assert audit.value("SELECT note FROM audit WHERE id = 7") == "second"


def test_p5_every_value_comes_back(audit):
    """Also into columns that only the system fills."""
    audit.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text)")
    columns = ", ".join(f'"{name}" {name}' for name in TYPES)
    audit.execute(f"CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {columns}, gone int,"
                  " twice int GENERATED ALWAYS AS (id * 2) STORED)")
    named, values = ", ".join(f'"{name}"' for name in TYPES), ", ".join(TYPES.values())
    audit.execute(f"INSERT INTO t ({named}) SELECT {values} FROM generate_series(1, 40) n")
    audit.execute(f"INSERT INTO t ({named}) SELECT {', '.join('NULL' for _ in TYPES)} FROM generate_series(1, 5) n")
    audit.execute("ALTER TABLE t DROP COLUMN gone")
    before = audit.all("SELECT t::text FROM t ORDER BY id")
    audit.execute("CALL archive_table('t', NULL, where_clause => 'true', batch_rows => 10)")
    audit.execute("SET datestyle = 'German'; SET bytea_output = 'escape'; SET extra_float_digits = 0")
    assert restore(audit, "id % 3 = 0", table="t") == 15
    audit.execute("RESET datestyle; RESET bytea_output; RESET extra_float_digits")
    assert audit.all("SELECT t::text FROM archive.t_all t ORDER BY id") == before
    assert restore(audit, "true", table="t") == 30
    assert audit.all("SELECT t::text FROM t ORDER BY id") == before
    assert audit.value("SELECT count(*) FROM archive.t") == 0


def test_rows_come_back_in_the_shape_that_the_table_has_now(audit):
    """Archived before columns were added, renamed, retyped, and an enum's label got another name."""
    audit.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    audit.execute("CREATE TABLE t (id int PRIMARY KEY, m mood, old text, n int, at timestamptz)")
    audit.execute("INSERT INTO t SELECT n, 'sad', 'old ' || n, n, '2022-01-01' FROM generate_series(1, 30) n")
    audit.execute("CALL archive_table('t', NULL, where_clause => 'id <= 20', batch_rows => 10)")
    audit.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy'")
    audit.execute("ALTER TABLE t ADD COLUMN kind text DEFAULT 'plain', DROP COLUMN old")
    audit.execute("ALTER TABLE t ALTER COLUMN n TYPE bigint")
    audit.execute("ALTER TABLE t RENAME COLUMN m TO feeling")
    audit.execute("ALTER TABLE t RENAME TO renamed")
    before = audit.all("SELECT * FROM archive.t_all ORDER BY id")
    assert restore(audit, "feeling = 'gloomy' AND id IN (3, 13)", table="renamed") == 2
    assert audit.all("SELECT * FROM renamed WHERE id < 20 ORDER BY id") == [row for row in before if row.id in (3, 13)]
    assert audit.all("SELECT * FROM archive.t_all ORDER BY id") == before
    assert restore(audit, "true", table="renamed") == 18
    assert audit.all("SELECT * FROM renamed ORDER BY id") == before


def test_triggers_and_constraints_take_it_for_one_insert(audit):
    """A tree, whose leaves were archived before their parents; statement triggers fire once, with all rows."""
    audit.execute("CREATE TABLE node (id int PRIMARY KEY, parent int REFERENCES node)")
    audit.execute("CREATE TABLE seen (what text, rows bigint)")
    audit.execute("INSERT INTO node SELECT n, nullif(n / 2, 0) FROM generate_series(1, 63) n")
    audit.execute("CALL archive_table('node', NULL, where_clause => 'true', batch_rows => 10)")
    audit.execute("""
        CREATE FUNCTION note() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN INSERT INTO seen SELECT TG_WHEN, count(*) FROM new_rows; RETURN NULL; END $$;
        CREATE TRIGGER note AFTER INSERT ON node REFERENCING NEW TABLE AS new_rows
        FOR EACH STATEMENT EXECUTE FUNCTION note()""")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        restore(audit, "id >= 32", table="node")
    assert audit.value("SELECT count(*) FROM archive.node") == 63
    assert restore(audit, "true", table="node") == 63
    assert audit.all("SELECT * FROM seen") == [("AFTER", 63)]
    audit.execute("CALL archive_table('node', NULL, where_clause => 'true', batch_rows => 10)")
    audit.execute("DO $$ DECLARE n bigint; BEGIN n := restore_rows('node', 'true'); END $$")
    assert audit.all("SELECT * FROM seen") == [("AFTER", 63), ("AFTER", 63)]


def test_a_trigger_that_keeps_a_row_out_stops_it(audit):
    audit.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF new.id = 5 THEN RETURN NULL; END IF; RETURN new; END $$;
        CREATE TRIGGER keep BEFORE INSERT ON audit FOR EACH ROW EXECUTE FUNCTION keep()""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was not inserted"):
        restore(audit, "id < 10")
    everything_once(audit)
    assert restore(audit, "id < 10", "'skip'") == 8
    everything_once(audit)


def test_hash_partitions(audit):
    audit.execute("CREATE TABLE customer (id int PRIMARY KEY, name text, active bool) PARTITION BY HASH (id)")
    audit.execute("CREATE TABLE customer_0 PARTITION OF customer FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    audit.execute("CREATE TABLE customer_1 PARTITION OF customer FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    audit.execute("INSERT INTO customer SELECT n, 'c' || n, n % 3 > 0 FROM generate_series(1, 100) n")
    before = audit.all("SELECT * FROM customer ORDER BY id")
    audit.execute("SELECT set_lifecycle_where('customer', 'NOT active', 'ARCHIVED')")
    audit.execute("INSERT INTO customer VALUES (9, 'other', true)")
    assert restore(audit, "id < 20", "'replace'", table="customer") == 6
    assert audit.all("SELECT * FROM archive.customer_all ORDER BY id") == before
    everything_once(audit, "customer", 100)


def test_p3_the_bucket_alone_knows_what_went_back(audit, cluster):
    """Once something followed; of the very last manifest it cannot know, keeps the rows, and says so."""
    assert restore(audit, "id <= 150") == 150
    audit.execute("SELECT archive_table_batch('audit', NULL, where_clause => 'id BETWEEN 601 AND 610')")
    expected = audit.all("SELECT * FROM archive.audit ORDER BY id")
    assert imported(audit, cluster) == expected
    audit.execute("BEGIN")
    assert restore(audit, "id <= 200") == 50
    audit.execute("ROLLBACK")
    other = Database(cluster, f"{audit.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{audit.name}')")
    lines = other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert [line.detail for line in lines if line.action == "warning"] == [
        "50 rows are imported that restore_rows() may have put back last: the storage cannot tell"]
    assert other.all("SELECT * FROM archive.audit ORDER BY id") == expected
    other.drop()
    audit.execute("CALL compact_archive_steps('audit')")
    assert imported(audit, cluster) == expected


def test_p2_rows_stay_archived_when_what_is_read_back_differs(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, note text)")
    db.execute("INSERT INTO audit SELECT n, 'note ' || n FROM generate_series(1, 100) n")
    db.execute("SELECT archive_table_batch('audit', NULL, where_clause => 'true', batch_rows => 100)")
    (key,) = db.row("SELECT key FROM archive_ext.objects")
    batches = key.rsplit(".", 3)[0].rsplit(".", 1)[1]
    fault_proxy.on("GET", rf"t\.b(?!{batches[1:]})[0-9a-f]+\.[^/]*parquet", fault=CorruptAnswer())
    with pytest.raises(psycopg.Error):
        restore(db, "id < 10")
    fault_proxy.heal()
    assert db.value("SELECT count(*) FROM audit") == 0
    everything_once(db, rows=100)
    assert restore(db, "id < 10") == 9
    everything_once(db, rows=100)


def test_p1_kill_9_while_rows_come_back(audit, cluster):
    audit.execute("ALTER SYSTEM SET fsync = on")
    for turn in range(3):
        caller = audit.connect()

        def call():
            try:
                for first in range(1, 500, 10):
                    caller.execute("SELECT restore_rows('audit', %s, 'skip')", [f"id BETWEEN {first} AND {first + turn * 3}"])
            except psycopg.OperationalError:
                pass

        before = audit.value("SELECT count(*) FROM audit")
        runner = threading.Thread(target=call)
        runner.start()
        wait_until(lambda: audit.value("SELECT count(*) FROM audit") > before + 5 or not runner.is_alive(), 60, "some rows")
        cluster.kill_and_restart()
        runner.join()
        audit.reconnect()
        everything_once(audit)
    restore(audit, "true")
    assert ids(audit, "audit") == list(range(1, ROWS + 1))


def test_who_may_and_what_for(audit, role):
    reader = role("reader")
    audit.execute(f"GRANT SELECT, INSERT ON audit TO {reader}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        audit.connect(reader).execute("SELECT restore_rows('audit', 'true')")
    audit.execute("CREATE TABLE m (at date NOT NULL) PARTITION BY RANGE (at)")
    with pytest.raises(psycopg.errors.WrongObjectType) as refused:
        restore(audit, "true", table="m")
    assert "reattach_partition" in refused.value.diag.message_hint
    with pytest.raises(psycopg.errors.SyntaxError, match="where_clause"):
        restore(audit, "true; DROP TABLE audit")
    with pytest.raises(psycopg.errors.UndefinedColumn, match="nope"):
        restore(audit, "nope = 1")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        audit.execute("BEGIN ISOLATION LEVEL SERIALIZABLE; SELECT restore_rows('audit', 'true')")
    audit.execute("ROLLBACK")
    audit.execute("CREATE TABLE never (id int PRIMARY KEY)")
    assert restore(audit, "true", table="never") == 0


def test_p8_the_clause_runs_with_the_rights_of_the_caller(audit, role):
    owner = role("owner")
    audit.execute(f"ALTER TABLE audit OWNER TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    audit.execute("CREATE TABLE secret (id int); INSERT INTO secret VALUES (1)")
    session = audit.connect(owner)
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="secret"):
        session.execute("SELECT restore_rows('audit', 'id IN (SELECT id FROM secret)')")
    assert session.execute("SELECT restore_rows('audit', 'id = 1')").fetchone()[0] == 1
    audit.execute(f"ALTER TABLE audit OWNER TO postgres; REVOKE ALL ON FOREIGN SERVER cold FROM {owner}")


def test_ctid_of_archived_rows_tells_them_apart(audit):
    """Whatever else is asked for, and whichever objects are left out."""
    places = audit.all("SELECT ctid::text, id FROM archive.audit a ORDER BY a.ctid")
    assert len({place for place, _ in places}) == 500 and [id for _, id in places] == list(range(1, 501))
    assert audit.all("SELECT ctid::text, id FROM archive.audit WHERE id IN (150, 420) ORDER BY id") == [
        place for place in places if place.id in (150, 420)]
    assert audit.value("SELECT count(DISTINCT ctid) FROM archive.audit") == 500


def test_what_was_imported_is_merged_and_comes_back(audit, cluster):
    """Into another database, where enums and OIDs are others, and which takes the storage over."""
    audit.execute("CREATE TYPE mood AS ENUM ('sad', 'happy')")
    audit.execute("CREATE TABLE t (id int PRIMARY KEY, m mood, ms mood[], note text)")
    audit.execute("INSERT INTO t SELECT n, 'happy', ARRAY['sad', NULL]::mood[], 'note ' || n FROM generate_series(1, 50) n")
    audit.execute("CALL archive_table('t', NULL, where_clause => 'true', batch_rows => 10)")
    expected = [tuple(row) for row in audit.all("SELECT t::text FROM archive.t ORDER BY id")]
    other = Database(cluster, f"{audit.name}_other")
    other.execute("CREATE TYPE unrelated AS ENUM ('x')")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{audit.name}')")
    other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    with pytest.raises(psycopg.Error, match="storage"):
        other.execute("SELECT restore_rows('t', 'id = 1')")
    other.execute("SELECT adopt_storage('cold')")
    assert other.row("SELECT rows, objects, into_objects FROM compact_archive('t')") == (50, 5, 1)
    assert other.all("SELECT t::text FROM archive.t ORDER BY id") == expected
    assert restore(other, "id % 2 = 0", table="t") == 25
    assert other.all("SELECT t::text FROM archive.t_all t ORDER BY id") == expected
    assert restore(other, "true", table="t") == 25
    assert other.all("SELECT t::text FROM t ORDER BY id") == expected
    other.drop()


def test_p1_a_table_of_keys_alone_loses_nothing_to_a_trigger(db, cluster):
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE tag (item int, at date, PRIMARY KEY (item, at))")
    db.execute("INSERT INTO tag SELECT n, '2024-01-01' FROM generate_series(1, 10) n")
    db.execute("SELECT archive_table_batch('tag', '2025-01-01')")
    db.execute("""CREATE FUNCTION k() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
                  CREATE TRIGGER k BEFORE INSERT ON tag FOR EACH ROW EXECUTE FUNCTION k()""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        db.execute("SELECT restore_rows('tag', 'true', 'replace')")
    assert db.value("SELECT count(*) FROM archive.tag_all") == 10
    db.execute("DROP TRIGGER k ON tag; INSERT INTO tag VALUES (3, '2024-01-01')")
    assert db.value("SELECT restore_rows('tag', 'true', 'replace')") == 10
    assert db.value("SELECT count(*) FROM tag") == 10


def test_p3_restores_that_rolled_back_lose_no_row_of_an_import(db, cluster):
    """Two in one transaction, and a batch after them."""
    server = f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')"
    db.execute(server)
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, at date NOT NULL)")
    db.execute("INSERT INTO audit SELECT n, '2024-01-01' FROM generate_series(1, 600) n")
    db.execute("SELECT archive_table_batch('audit', NULL, where_clause => 'id <= 100')")
    db.execute("BEGIN; SELECT restore_rows('audit', 'id = 1'); SELECT restore_rows('audit', 'id = 2'); ROLLBACK")
    for expected in [100, 101]:
        other = Database(cluster, f"{db.name}_{expected}")
        other.execute(server)
        other.execute("SELECT * FROM import_archive('cold', dry_run => false)")
        assert other.value("SELECT count(*) FROM archive.audit") == expected
        other.drop()
        db.execute("SELECT archive_table_batch('audit', NULL, where_clause => 'id = 500')")
