"""Schema drift that only the outside can see: dump and restore, a second session, a type that changes under the archive."""

import os
import subprocess
import threading

import psycopg
import pytest

from harness.cluster import Database

OWNER_SETTINGS = "-c archive_ext.default_storage=cold"


@pytest.fixture
def owner(db, role):
    """A session of a role that is no superuser and may use the storage."""
    name = role("owner")
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://%s/drift_%s')"
               % (db.cluster.storage, db.name))
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {name}")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {name}")
    return db.connect(name, options=OWNER_SETTINGS)


def create(session):
    session.execute("CREATE TYPE mood AS ENUM ('sad', 'ok', 'happy')")
    session.execute("CREATE TABLE t (first int, id int, day date, note text, feeling mood) PARTITION BY RANGE (day)")
    for month in (1, 2, 3):
        session.execute(f"CREATE TABLE t_{month} PARTITION OF t FOR VALUES FROM ('2024-0{month}-01') TO ('2024-0{month + 1}-01')")
    session.execute("INSERT INTO t SELECT -n, n, date '2024-01-01' + n % 3 * 31, 'n' || n,"
                    " (enum_range(NULL::mood))[n % 3 + 1] FROM generate_series(1, 300) n")


def dumped_into(db, name):
    """A dump of `db` restored into a new database."""
    server = ["-h", str(db.cluster.dir), "-U", "postgres"]
    dump = subprocess.run([db.cluster.program("pg_dump"), *server, db.name], check=True, stdout=subprocess.PIPE)
    with db.cluster.connect() as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    restore = subprocess.run([db.cluster.program("psql"), *server, "-X", "-q", "-v", "ON_ERROR_STOP=1", name], input=dump.stdout,
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert restore.returncode == 0, restore.stderr.decode()
    return name


@pytest.fixture
def restored(db):
    """Opens sessions in the restored database; it goes before the roles do."""
    made = []

    def restore():
        copy = Database.__new__(Database)
        copy.cluster, copy.name, copy._sessions = db.cluster, dumped_into(db, f"{db.name}_copy"), []
        copy.conn = copy.connect()
        made.append(copy)
        return copy

    yield restore
    for copy in made:
        copy.drop()


def rows(session, columns):
    return session.execute(f"SELECT {columns} FROM archive.t_all ORDER BY id").fetchall()


def test_fields_keep_their_meaning_over_dump_and_restore(db, owner, restored):
    """A restored table numbers its columns anew: the archive's fields are found by what they were called."""
    create(owner)
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    owner.execute("ALTER TABLE t DROP COLUMN first")
    owner.execute("ALTER TABLE t ADD COLUMN five int DEFAULT 5")
    owner.execute("ALTER TABLE t RENAME COLUMN note TO remark")
    owner.execute("ALTER TABLE t ALTER COLUMN id TYPE bigint")
    owner.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY")
    owner.execute("CREATE POLICY everything ON t USING (true)")
    owner.execute("SELECT archive_partition('t_2', drop_local => '0')")
    columns = "id, day, remark, feeling, five"
    before = rows(owner, columns)
    assert len(before) == 300 and {row.five for row in before} == {5}

    copy = restored()
    session = copy.connect(owner.info.user, options=OWNER_SETTINGS)
    assert copy.value("SELECT attnum FROM pg_attribute WHERE attrelid = 't'::regclass AND attname = 'id'") == 1
    assert rows(session, columns) == before
    assert copy.value("SELECT count(*) FROM pg_policy WHERE polrelid = 'archive.t'::regclass") == 1

    # The first command after the restore is a rename, which names alone would take for a drop.
    session.execute("ALTER TABLE t RENAME COLUMN remark TO words")
    session.execute("ALTER TABLE t DROP COLUMN feeling")
    session.execute("ALTER TABLE t ADD COLUMN six int DEFAULT 6")
    assert rows(session, "id, day, words, five") == [(r.id, r.day, r.remark, r.five) for r in before]
    assert {row.six for row in rows(session, "six, id")} == {6}
    ids = copy.all("SELECT field_id, column_name FROM archive_ext.column_map ORDER BY field_id")
    assert ids == [(1, None), (2, "id"), (3, "day"), (4, "words"), (5, None), (6, "five"), (7, "six")]

    session.execute("SELECT reattach_partition('t_1')")
    session.execute("SELECT reattach_partition('t_2')")
    assert session.execute("SELECT count(*), sum(id), count(words), sum(five), sum(six) FROM t").fetchone() == (
        300, 45150, 300, 1500, 1800)


def test_renamed_enum_values_are_read_and_found_by_their_new_name(db, owner):
    create(owner)
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    owner.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'blue'")
    owner.execute("ALTER TYPE mood RENAME VALUE 'happy' TO 'sad'")

    count = "SELECT count(*) FROM archive.t WHERE feeling = %s"
    archived = {r[0]: r[1] for r in owner.execute(
        "SELECT feeling, count(*) FROM archive.t GROUP BY feeling").fetchall()}
    assert archived == {"blue": 100}
    assert owner.execute(count, ["blue"]).fetchone()[0] == 100
    assert owner.execute(count, ["sad"]).fetchone()[0] == 0
    owner.execute("SELECT reattach_partition('t_1')")
    assert owner.execute("SELECT count(*) FROM t_1 WHERE feeling = 'blue'").fetchone()[0] == 100


def test_readers_of_the_archive_do_not_hold_up_the_table_for_long(db, owner):
    """ALTER TABLE has the hot table's lock already: it does not wait for a long query on the archive."""
    create(owner)
    owner.execute("SELECT archive_partition('t_1')")
    reader = db.connect()
    with reader.transaction():
        reader.execute("SELECT count(*) FROM archive.t")
        owner.execute("SET archive_ext.lock_timeout = '200ms'")
        with pytest.raises(psycopg.errors.LockNotAvailable) as error:
            owner.execute("ALTER TABLE t ADD COLUMN more int")
    assert "archive.t" in str(error.value)
    owner.execute("ALTER TABLE t ADD COLUMN more int")
    assert rows(owner, "id, more")[0] == (1, None)


def test_foreign_ddl_is_left_alone(db, owner):
    """Event triggers see every command of the database; none but those on managed tables may notice."""
    create(owner)
    owner.execute("SELECT archive_partition('t_1')")
    for statement in [
        "CREATE TEMP TABLE temporary (a int)", "ALTER TABLE temporary ADD COLUMN b int",
        "ALTER TABLE temporary ALTER COLUMN b TYPE text USING b::text", "DROP TABLE temporary",
        "ALTER TABLE IF EXISTS nowhere.nothing DROP COLUMN x", "ALTER TABLE IF EXISTS nothing RENAME TO more",
        "ALTER TABLE IF EXISTS nothing RENAME COLUMN a TO b", "ALTER TABLE IF EXISTS nothing SET SCHEMA public",
        "CREATE TABLE other (a int)", "GRANT SELECT ON other TO PUBLIC", "REVOKE SELECT ON other FROM PUBLIC",
        "CREATE POLICY p ON other USING (a > 0)", "ALTER POLICY p ON other USING (a > 1)", "DROP POLICY p ON other",
        "DROP POLICY IF EXISTS p ON other", "GRANT USAGE ON SCHEMA public TO PUBLIC",
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'", "GRANT EXECUTE ON FUNCTION f() TO PUBLIC",
        "DROP FUNCTION f()", "DROP TABLE other", "ALTER TABLE t_2 ADD CHECK (id > 0)",
        "ALTER TABLE t DETACH PARTITION t_3", "ALTER TABLE t ATTACH PARTITION t_3 FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')",
    ]:
        owner.execute(statement)
    with pytest.raises(psycopg.errors.UndefinedTable):
        owner.execute("ALTER TABLE nothing ADD COLUMN a int")
    db.execute("SET session_replication_role = replica")
    db.execute("ALTER TABLE t ADD COLUMN seen int DEFAULT 1")
    assert rows(owner, "id, seen")[0] == (1, 1)
    db.execute("DROP EXTENSION archive_ext CASCADE")
    db.execute("ALTER TABLE t ADD COLUMN unseen int")


def test_an_alteration_by_a_superuser_is_followed_too(db, owner):
    create(owner)
    owner.execute("SELECT archive_partition('t_1')")
    db.execute("ALTER TABLE t DROP COLUMN note, ADD COLUMN more text DEFAULT 'x', ALTER COLUMN id TYPE numeric")
    assert rows(owner, "id, more")[0] == (1, "x")
    assert db.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'archive.t_all'::regclass"
                    ) == owner.info.user


def test_queries_and_alterations_do_not_deadlock(db, owner):
    """A query locks the view, then the table; so does what alters both."""
    create(owner)
    owner.execute("SELECT archive_partition('t_1')")
    stop, failures, done = threading.Event(), [], []

    def read(session):
        while not stop.is_set():
            try:
                done.append(session.execute("SELECT count(*) FROM archive.t_all").fetchone()[0])
            except psycopg.Error as error:
                failures.append(error)

    readers = [threading.Thread(target=read, args=[db.connect()]) for _ in range(3)]
    for reader in readers:
        reader.start()
    try:
        for n in range(15):
            owner.execute(f"ALTER TABLE t ADD COLUMN c_{n} int DEFAULT {n}")
            owner.execute(f"ALTER TABLE t RENAME COLUMN c_{n} TO d_{n}")
            if n % 3 == 0:
                owner.execute(f"ALTER TABLE t ALTER COLUMN d_{n} TYPE bigint")
                owner.execute(f"ALTER TABLE t DROP COLUMN d_{n}")
    finally:
        stop.set()
        for reader in readers:
            reader.join()
    assert not failures, failures[:3]
    assert set(done) == {300}


def test_an_imported_archive_keeps_its_fields(db, owner):
    """A rename, the first thing that happens to an imported table, finds the fields by the names they were archived with."""
    create(owner)
    owner.execute("ALTER TABLE t DROP COLUMN first")
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    location = db.value("SELECT option_value FROM pg_options_to_table((SELECT srvoptions FROM pg_foreign_server"
                        " WHERE srvname = 'cold'))")
    empty = Database(db.cluster, f"{db.name}_empty")
    try:
        empty.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location '{location}')")
        empty.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner.info.user}")
        imported = empty.all("SELECT * FROM import_archive('cold', dry_run => false)")
        assert empty.exists('archive.t'), imported
        empty.execute("ALTER TABLE t RENAME COLUMN note TO remark")
        empty.execute("ALTER TABLE t ADD COLUMN five int DEFAULT 5")
        found = empty.row("SELECT count(remark), sum(id), sum(five) FROM archive.t")
        assert found == (100, sum(range(3, 301, 3)), 500)
        assert empty.all("SELECT field_id, column_name FROM archive_ext.column_map ORDER BY 1") == [
            (2, "id"), (3, "day"), (4, "remark"), (5, "feeling"), (6, "five")]
    finally:
        empty.drop()


def test_type_oids_of_another_database_mean_nothing(db, owner, restored):
    """After a dump and restore, another type may have the number that a retyped column's old type had."""
    create(owner)
    owner.execute("CREATE DOMAIN amount AS int")
    owner.execute("ALTER TABLE t ADD COLUMN paid amount")
    owner.execute("ALTER TABLE t ADD COLUMN due amount DEFAULT 5")
    owner.execute("UPDATE t SET paid = id")
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    owner.execute("ALTER TABLE t ADD COLUMN later amount DEFAULT 6")
    owner.execute("ALTER TABLE t ALTER COLUMN paid TYPE text, ALTER COLUMN due TYPE text, ALTER COLUMN later TYPE text")
    owner.execute("ALTER TABLE t DROP COLUMN first")
    columns = "id, paid, due, later"
    before = rows(owner, columns)
    copy = restored()
    # By chance the number is that of a type whose values are pointers.
    changed = copy.conn.execute(
        "UPDATE archive_ext.column_map m SET types = (SELECT jsonb_agg(step || jsonb_build_object('oid', 'text'::regtype::oid::bigint)"
        " ORDER BY n) FROM jsonb_array_elements(types) WITH ORDINALITY AS x(step, n))")
    assert changed.rowcount == 8
    session = copy.connect(owner.info.user, options=OWNER_SETTINGS)
    assert rows(session, columns) == before
    session.execute("ALTER TABLE t ADD COLUMN one int DEFAULT 1")
    assert rows(session, columns) == before
    session.execute("SELECT reattach_partition('t_1')")
    assert session.execute(f"SELECT {columns} FROM t ORDER BY id").fetchall() == before


def test_a_type_that_only_has_the_name_is_not_taken_for_the_archived_one(db, owner, restored):
    create(owner)
    owner.execute("CREATE DOMAIN amount AS int")
    owner.execute("ALTER TABLE t ADD COLUMN paid amount DEFAULT 5")
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    owner.execute("ALTER TABLE t ALTER COLUMN paid TYPE text")
    session = restored().connect(owner.info.user, options=OWNER_SETTINGS)
    session.execute("DROP DOMAIN amount")
    session.execute("CREATE DOMAIN amount AS text")
    with pytest.raises(psycopg.errors.FeatureNotSupported):
        session.execute("SELECT paid FROM archive.t")


@pytest.mark.parametrize("keep", ["0", "1 day"])
def test_late_rows_arrive_all_or_none(db, owner, keep):
    create(owner)
    owner.execute("CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS"
                  " $$ BEGIN IF NEW.id > 999 THEN RETURN NULL; END IF; RETURN NEW; END $$")
    owner.execute("CREATE TRIGGER skip BEFORE INSERT ON t_1 FOR EACH ROW EXECUTE FUNCTION skip()")
    owner.execute("SELECT archive_partition('t_1', drop_local => %s)", [keep])
    owner.execute("CREATE TABLE t_rest PARTITION OF t DEFAULT")
    owner.execute("INSERT INTO t (id, day) VALUES (999, '2024-01-15'), (1000, '2024-01-15')")
    with pytest.raises(psycopg.errors.IntegrityConstraintViolation) as error:
        owner.execute("SELECT reattach_partition('t_1', late_rows => 'move')")
    assert "only 1 of 2 rows" in str(error.value)
    assert owner.execute("SELECT count(*) FROM t_rest").fetchone()[0] == 2
    owner.execute("CREATE OR REPLACE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$")
    owner.execute("SELECT reattach_partition('t_1', late_rows => 'move')")
    assert owner.execute("SELECT (SELECT count(*) FROM t_rest), count(*) FROM t_1").fetchone() == (0, 102)


def test_ranges_of_an_enum_that_is_ordered_otherwise_are_not_trusted(db, owner, restored):
    create(owner)
    owner.execute("TRUNCATE t")
    owner.execute("INSERT INTO t SELECT 0, n, date '2024-01-02', 'x', f FROM unnest(enum_range(NULL::mood))"
                  " WITH ORDINALITY u(f, n)")
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    copy = restored()
    for old, new in (("ok", "x"), ("happy", "ok"), ("x", "happy")):
        copy.execute(f"ALTER TYPE mood RENAME VALUE '{old}' TO '{new}'")
    session = copy.connect(owner.info.user, options=OWNER_SETTINGS)
    assert session.execute("SELECT 'ok'::mood > 'happy'").fetchone()[0]
    assert session.execute("SELECT count(*) FROM archive.t WHERE feeling = 'ok'").fetchone()[0] == 1
    assert session.execute("SELECT count(*) FROM archive.t WHERE feeling >= 'happy'").fetchone()[0] == 2


def test_ranges_of_a_collation_of_another_database_are_not_trusted(db, owner, restored):
    """Name and version of the collation are the same there, the order is not: 2 < 9 < 10 instead of 10 < 2 < 9."""
    if not db.value("SELECT count(*) FROM pg_collation WHERE collprovider = 'i'"):
        pytest.skip("PostgreSQL without ICU")
    db.execute("CREATE COLLATION numbers (provider = icu, locale = 'en')")
    owner.execute("CREATE TABLE t (id int, day date, number text COLLATE numbers) PARTITION BY RANGE (day)")
    owner.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
    owner.execute("INSERT INTO t SELECT n, '2024-01-05', n::text FROM generate_series(2, 10) n")
    owner.execute("SELECT archive_partition('t_1', drop_local => '0')")
    copy = restored()
    locale = copy.value("SELECT attname FROM pg_attribute WHERE attrelid = 'pg_collation'::regclass"
                        " AND attname IN ('colliculocale', 'colllocale', 'collcollate') ORDER BY attnum DESC LIMIT 1")
    copy.execute(f"UPDATE pg_collation SET {locale} = 'en-u-kn-true' WHERE collname = 'numbers'")
    session = copy.connect(owner.info.user, options=OWNER_SETTINGS)
    assert session.execute("SELECT '2' < '10' COLLATE numbers").fetchone()[0]
    assert session.execute("SELECT count(*) FROM archive.t WHERE number = '2'").fetchone()[0] == 1


def ways_back(db):
    return [row[0] for row in db.all(
        "SELECT details ->> 'from' FROM archive_ext.lifecycle_event WHERE event = 'reattached' ORDER BY id")]


def test_a_check_defined_anew_under_its_old_name(db, owner):
    create(owner)
    owner.execute("ALTER TABLE t ADD CONSTRAINT sane CHECK (id > 0)")
    owner.execute("SELECT archive_partition('t_1')")
    owner.execute("SELECT archive_partition('t_2', drop_local => '0')")
    owner.execute("ALTER TABLE t DROP CONSTRAINT sane, ADD CONSTRAINT sane CHECK (id > 299 OR day > '2024-03-01')")
    for name in ("t_1", "t_2"):
        with pytest.raises(psycopg.errors.CheckViolation):
            owner.execute(f"SELECT reattach_partition('{name}')")
    owner.execute("ALTER TABLE t DROP CONSTRAINT sane, ADD CONSTRAINT sane CHECK (id > -5)")
    for name in ("t_1", "t_2"):
        owner.execute(f"SELECT reattach_partition('{name}')")
    found = db.all("SELECT conrelid::regclass::text, pg_get_constraintdef(oid), coninhcount FROM pg_constraint"
                   " WHERE conname = 'sane' ORDER BY 1")
    check = "CHECK ((id > '-5'::integer))"
    assert found == [("t", check, 0), ("t_1", check, 1), ("t_2", check, 1), ("t_3", check, 1)]
    assert ways_back(db) == ["local copy", "objects"]


@pytest.mark.parametrize("alteration", [
    'ALTER TABLE t ALTER COLUMN note TYPE text COLLATE "C"',
    "ALTER TABLE t ALTER COLUMN twice DROP EXPRESSION",
    "ALTER TABLE t ADD COLUMN paid positive DEFAULT 3",
    "ALTER TABLE t ADD COLUMN paid positive",
])
def test_a_local_copy_that_cannot_follow_is_restored_instead(db, owner, alteration):
    create(owner)
    owner.execute("CREATE DOMAIN positive AS int CHECK (VALUE > 0)")
    owner.execute("ALTER TABLE t ADD COLUMN twice int GENERATED ALWAYS AS (id * 2) STORED")
    owner.execute("SELECT archive_partition('t_1')")
    owner.execute(alteration)
    owner.execute("SELECT reattach_partition('t_1')")
    assert ways_back(db) == ["objects"]
    assert owner.execute("SELECT count(*), count(note), sum(twice) FROM t").fetchone() == (300, 300, 90300)
