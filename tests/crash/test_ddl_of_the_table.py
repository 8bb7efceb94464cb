"""DDL of the whole table at every failpoint of a run that archives one of its partitions: DROP TABLE and DROP SCHEMA, TRUNCATE, ALTER
TABLE. It waits, or is refused, or ends the run with a clear error; nothing crashes or deadlocks, no job stays unfinished, no guard stays
on what is not archived, other tables are as they were, and the call made again ends what was begun (P1, P4)."""

import psycopg
import pytest
from psycopg import errors

from harness.cluster import wait_until, without_crashes
from harness.failpoints import Failpoints
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.scenarios import SCENARIOS
from harness.sessions import Call

ROWS = 40
CALLS = {
    "steps": "CALL archive_partition_steps(ARRAY['{0}.{1}_2024_01']::regclass[])",
    "function": "SELECT archive_partition('{0}.{1}_2024_01')",
}
PLACES = [(form, point) for form in CALLS for point in SCENARIOS[form].points.split() if point != "swap_local_dropped"]

# {0} is the schema, {1} the table.
GONE = {
    "drop_table": "DROP TABLE {0}.{1}",
    "drop_table_cascade": "DROP TABLE {0}.{1} CASCADE",
    "drop_schema_cascade": "DROP SCHEMA {0} CASCADE",
}
ALTERED = {
    "add_column": "ALTER TABLE {0}.{1} ADD COLUMN extra int DEFAULT 7",
    "drop_column": "ALTER TABLE {0}.{1} DROP COLUMN spare",
    "rename_column": "ALTER TABLE {0}.{1} RENAME COLUMN spare TO other",
    "set_schema": "ALTER TABLE {0}.{1} SET SCHEMA {0}_b",
    "truncate": "TRUNCATE {0}.{1}",
}
COMMANDS = GONE | ALTERED


@pytest.fixture(scope="module")
def cluster():
    with without_crashes("archive_ext.lock_timeout=2s", "log_lock_waits=on") as cluster:
        yield cluster


@pytest.fixture
def cold(cold):
    """With a table that nobody touches, half of it archived."""
    create_orders(cold.conn, months=2, rows=ROWS, name="bystander")
    keep_truth(cold, "bystander", "bystander_truth")
    cold.execute("SELECT archive_partition('bystander_2024_01')")
    return cold


def begin(db, call, point):
    """The call in a session of its own, once it is at the point: the first time, unless that says which."""
    points, name = Failpoints(db.cluster), point.split("@")[0]
    points.arm(db.name, f"{point if '@' in point else point + '@1'}=wait")
    victim = Call(db.connect().execute, call)
    points.reached(name, unless=lambda: victim.ended() and victim.result())
    return victim


def test_p4_no_run_outlives_what_was_dropped_after_a_crash(cold, cluster):
    """Nobody could resume it, and its job would look as if it ran for ever."""
    for number, command in enumerate(["DROP TABLE {0} CASCADE", "DROP TABLE {0}_2024_01"]):
        table = f"o{number}"
        create_orders(cold.conn, months=2, rows=ROWS, name=table)
        run = begin(cold, CALLS["steps"].format("public", table), "verify_done")
        cluster.restart("immediate")
        with pytest.raises(psycopg.OperationalError):
            run.result(60)
        Failpoints(cluster).disarm(cold.name)
        cold.reconnect()
        assert cold.value("SELECT count(*) FROM archive_ext.jobs WHERE status = 'running'") == 1
        cold.execute(command.format(table))
        assert cold.value("SELECT count(*) FROM archive_ext.jobs WHERE status NOT IN ('completed', 'failed')") == 0
    assert_same_rows(cold, "archive.bystander_all", "bystander_truth")


def outcome(call):
    """The error of a call, if it failed: a clear one."""
    try:
        call.result(60)
    except psycopg.Error as error:
        assert error.sqlstate and not error.sqlstate.startswith("XX"), error
        assert not isinstance(error, errors.DeadlockDetected), error
        return error
    return None


def ends_or_waits(db, session, command):
    """Begins the command; returns when it is over or waits for a lock."""
    waits, call = "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND wait_event_type = 'Lock'", Call(session.execute, command)
    wait_until(lambda: call.ended() or db.value(waits, [session.info.backend_pid]), 20, f"{command} to end or wait")
    return call


@pytest.mark.parametrize("form, point", PLACES, ids=["-".join(place) for place in PLACES])
def test_p1_p4_ddl_of_the_whole_table(cold, form, point):
    db = cold
    for number, (name, command) in enumerate(COMMANDS.items()):
        schema, table = f"s{number}", f"o{number}"
        db.execute(f"CREATE SCHEMA {schema}; CREATE SCHEMA {schema}_b")
        create_orders(db.conn, months=2, rows=ROWS, name=f"{schema}.{table}")
        db.execute(f"ALTER TABLE {schema}.{table} ADD COLUMN spare int DEFAULT 3")
        db.execute(f"CREATE TABLE {table}_truth AS SELECT * FROM {schema}.{table}")
        call = CALLS[form].format(schema, table)
        session = db.connect()
        run = begin(db, call, point)
        ddl = ends_or_waits(db, session, command.format(schema, table))
        at_once = ddl.ended()
        Failpoints(db.cluster).disarm(db.name)
        error, refused = outcome(run), outcome(ddl)
        settle(db, name)
        assert_table(db, (schema, table), name, call, at_once, error, refused)
        assert_same_rows(db, "archive.bystander_all", "bystander_truth")
    assert db.value("SELECT count(*) FROM archive.bystander") == ROWS
    # Events, views and the garbage collector can live with what is gone.
    assert db.all("SELECT * FROM archive_ext.partitions") and db.all("SELECT * FROM archive_ext.jobs")
    db.execute("SELECT * FROM collect_garbage('cold', dry_run => false)")


def settle(db, name):
    """Guards of a run that failed are lifted by another process."""
    busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('archive_ext freezer', 'archive_ext settler')"
    wait_until(lambda: not db.value(busy), 20, "the freezer to end")
    unfinished = db.all("SELECT operation, partition_name, status, phase, error FROM archive_ext.jobs"
                        " WHERE status NOT IN ('completed', 'cancelled', 'failed')")
    assert not unfinished, (name, unfinished)
    orphans = db.all("""
        SELECT t.tgrelid::regclass::text FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid
        WHERE t.tgname = 'archive_ext_guard' AND c.relispartition""")
    assert not orphans, (name, orphans)


def assert_table(db, where, name, call, at_once, error, refused):
    schema, table = where
    home = next((home for home in (schema, f"{schema}_b") if db.exists(f"{home}.{table}")), None)
    archived = db.exists(f"archive.{table}") and db.value(f"SELECT count(*) FROM archive.{table}") > 0
    january = f"(SELECT * FROM {table}_truth WHERE created_at < '2024-02-01')"
    if archived:
        assert_same_rows(db, f"archive.{table}", f"{january} t")
    if home is None:
        assert name in GONE and not refused, (name, refused)
        # Archived rows outlive their table; that they were not archived was told.
        assert archived or error, name
        with pytest.raises(errors.UndefinedTable if name != "drop_schema_cascade" else (errors.UndefinedTable, errors.InvalidSchemaName)):
            db.execute(call)
        return
    if name == "truncate":
        assert db.value(f"SELECT count(*) FROM {home}.{table} WHERE created_at >= '2024-02-01'") in ([ROWS] if refused else [0])
        assert refused or archived or error or at_once, "a TRUNCATE that waited took rows from under the run"
    else:
        everything = f"archive.{table}_all" if db.exists(f"archive.{table}_all") else f"{home}.{table}"
        assert_same_rows(db, everything, f"{table}_truth")
    if not archived and db.exists(f"{home}.{table}_2024_01"):
        db.execute(call.replace(f"{schema}.", f"{home}."))
        if name != "truncate":
            assert_same_rows(db, f"archive.{table}_all", f"{table}_truth")
    settle(db, name)
