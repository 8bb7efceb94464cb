"""Schema drift that only the outside can see: dump and restore, a second session, a type that changes under the archive."""

import os
import subprocess

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
    bindir = os.path.dirname(os.environ["PG_CONFIG"])
    server = ["-h", str(db.cluster.dir), "-U", "postgres"]
    dump = subprocess.run([f"{bindir}/pg_dump", *server, db.name], check=True, stdout=subprocess.PIPE)
    with db.cluster.connect() as conn:
        conn.execute(f"CREATE DATABASE {name} TEMPLATE template0")
    restore = subprocess.run([f"{bindir}/psql", *server, "-X", "-q", "-v", "ON_ERROR_STOP=1", name], input=dump.stdout,
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
