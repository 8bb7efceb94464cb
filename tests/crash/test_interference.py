"""What others do to a partition, its table, the storage or the role while the partition is archived: it is refused, or waits, or is
noticed under the locks of the swap. No row is lost, and the call made again ends what was begun (P1, P4)."""

import contextlib

import psycopg
import pytest
from psycopg import errors

from harness.cluster import wait_until, without_crashes
from harness.failpoints import Failpoints
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.sessions import Call

ROWS = 60
FUNCTION = "SELECT archive_partition('{0}_2024_01')"
STEPS = "CALL archive_partition_steps(ARRAY['{0}_2024_01']::regclass[])"

# A step begins: guards are there, the CHECK is validated, exported, verified. In the function form locks are held.
STOPS = [(STEPS, f"step_begins@{step}") for step in (2, 3, 4, 5)] + [
    (FUNCTION, point) for point in ("freezer_done", "export_begins", "object_put", "verify_done", "swap_begins", "swap_locked")]

# The command, and which rows of the table it takes away when it is let through.
COMMANDS = {
    "drop_partition": ("DROP TABLE {0}_2024_01", "created_at < '2024-02-01'"),
    "truncate_partition": ("TRUNCATE {0}_2024_01", "created_at < '2024-02-01'"),
    "truncate_table": ("TRUNCATE {0}", "true"),
    "delete": ("DELETE FROM {0} WHERE created_at < '2024-01-10'", "created_at < '2024-01-10'"),
    "detach": ("ALTER TABLE {0} DETACH PARTITION {0}_2024_01", "created_at < '2024-02-01'"),
    "add_column": ("ALTER TABLE {0} ADD COLUMN extra int DEFAULT 7", "false"),
    "drop_column": ("ALTER TABLE {0} DROP COLUMN spare", "false"),
    "retype": ("ALTER TABLE {0} ALTER note TYPE varchar(200)", "false"),
    "rename_partition": ("ALTER TABLE {0}_2024_01 RENAME TO {0}_january", "false"),
    "rename_table": ("ALTER TABLE {0} RENAME TO {0}_renamed", "false"),
    "rewrite": ("VACUUM FULL {0}_2024_01", "false"),
    "guards_off": ("ALTER TABLE {0}_2024_01 DISABLE TRIGGER ALL", "false"),
    "guards_off_and_delete": ("""
        DO $$ BEGIN
            ALTER TABLE {0}_2024_01 DISABLE TRIGGER ALL;
            DELETE FROM {0} WHERE created_at < '2024-01-10';
            ALTER TABLE {0}_2024_01 ENABLE ALWAYS TRIGGER archive_ext_guard;
        END $$""", "created_at < '2024-01-10'"),
    "index": ("CREATE INDEX ON {0} (amount)", "false"),
}
REFUSALS = (errors.LockNotAvailable, errors.ObjectInUse)


@pytest.fixture(scope="module")
def cluster():
    with without_crashes() as cluster:
        yield cluster


class Stopped:
    """The call, made in a session that stops at the point; `finish()` lets it go on and returns its error, if it fails."""

    def __init__(self, db, call, point, user="postgres"):
        self._points, name = Failpoints(db.cluster), point.split("@")[0]
        # The freezer is another process, and a new session of the database.
        self._points.arm(db.name, f"{point}=wait")
        session = db.connect(user)
        with db.cluster.connect() as conn:
            conn.execute(f"ALTER DATABASE {db.name} RESET archive_ext.failpoints") if not name.startswith("freezer") else None
        self._db, self._call = db, Call(session.execute, call)
        self._points.reached(name, unless=self._still_running)

    def _still_running(self):
        assert not self._call.ended(), self._call.result()

    def finish(self):
        self._points.disarm(self._db.name)
        try:
            self._call.result(60)
        except psycopg.Error as error:
            assert error.sqlstate and not error.sqlstate.startswith("XX"), error
            return error
        return None


def interfere(db, command):
    """Whether the command was let through, within a moment."""
    with db.cluster.connect(db.name, options="-c lock_timeout=200ms") as session:
        try:
            session.execute(command)
            return True
        except REFUSALS:
            return False


def rows_are_there(db, table):
    """In the table under whatever name it has now, or in its archive."""
    names = [name for name in (table, f"{table}_renamed") if db.exists(name)]
    for name in names:
        source = f"archive.{name}_all" if db.exists(f"archive.{name}_all") else f"archive.{table}_all"
        assert_same_rows(db, source if db.exists(source) else name, f"{table}_truth")
    return names


def archive_again(db, table, call):
    """By the name that the partition has now, until it has left the table; a guard that is lifted soon is waited for."""
    for name in (f"{table}_2024_01", f"{table}_january"):
        parents = (table, f"{table}_renamed")
        if db.exists(name) and any(db.exists(parent) and db.is_attached(name, parent) for parent in parents):
            db.execute(call.replace("{0}_2024_01", name))


@pytest.mark.parametrize("call, point", STOPS, ids=[point for _, point in STOPS])
def test_p1_p4_ddl_while_a_partition_is_archived(cold, call, point):
    db, through = cold, []
    for number, (name, (command, takes)) in enumerate(COMMANDS.items()):
        table = f"o{number}"
        create_orders(db.conn, months=2, rows=ROWS, name=table)
        db.execute(f"ALTER TABLE {table} ADD COLUMN spare int DEFAULT 3")
        keep_truth(db, table, f"{table}_truth")
        stopped = Stopped(db, call.format(table), point)
        done = interfere(db, command.format(table))
        if done:
            db.execute(f"DELETE FROM {table}_truth WHERE {takes}")
            through.append(name)
        error = stopped.finish()
        assert done or not error, (name, error)
        rows_are_there(db, table)
        archive_again(db, table, call)
        rows_are_there(db, table)
        unfinished = db.all("SELECT partition_name, status, error FROM archive_ext.jobs WHERE status IN ('running', 'pending')"
                            " AND partition_name LIKE %s", [f"%{table}\\_%"])
        assert name in ("drop_partition", "detach", "rename_partition", "rename_table") or not unfinished, (name, unfinished)
    # Guards refuse writers at every moment; where locks are held nobody gets at the partition at all. Before the swap they are given back.
    assert "delete" not in through and "truncate_partition" not in through and "truncate_table" not in through
    if call == FUNCTION and point not in ("freezer_done", "export_begins", "swap_begins"):
        assert "drop_partition" not in through and "rewrite" not in through and "guards_off" not in through


@pytest.mark.parametrize("call, point", [(FUNCTION, "verify_done"), (STEPS, "verify_done@1"), (STEPS, "step_begins@4"),
                                         (STEPS, "step_begins@5")], ids=["function", "steps", "exported", "verified"])
def test_p1_a_storage_that_moves_meanwhile_is_noticed(cold, cluster, call, point):
    """Rows would be in the one place, and be read in the other."""
    create_orders(cold.conn, months=2, rows=ROWS)
    keep_truth(cold, "orders")
    stopped = Stopped(cold, call.format("orders"), point)
    cold.execute(f"ALTER SERVER cold OPTIONS (SET location 'file://{cluster.storage}/{cold.name}_moved')")
    error = stopped.finish()
    if call == FUNCTION:
        assert error.sqlstate == "55006" and "was moved" in str(error)
        assert_same_rows(cold, "orders", "truth")
        cold.execute(call.format("orders"))
    else:
        assert not error, "the next step exports again, to where the storage is now"
    assert_same_rows(cold, "archive.orders_all", "truth")
    assert cold.value("SELECT count(*) FROM archive.orders") == ROWS


def test_p1_a_storage_that_moves_during_a_batch_is_noticed(cold, cluster):
    cold.execute("CREATE TABLE audit (id int PRIMARY KEY, at timestamptz NOT NULL)")
    cold.execute("INSERT INTO audit SELECT n, '2024-01-01Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, 100) n")
    stopped = Stopped(cold, "SELECT archive_table_batch('audit', '2025-01-01')", "batch_stored")
    cold.execute(f"ALTER SERVER cold OPTIONS (SET location 'file://{cluster.storage}/{cold.name}_moved')")
    error = stopped.finish()
    assert error.sqlstate == "55006" and "was moved" in str(error)
    assert cold.value("SELECT count(*) FROM audit") == 100
    cold.execute("SELECT archive_table_batch('audit', '2025-01-01')")
    assert cold.row("SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM archive.audit)") == (0, 100)


@pytest.mark.parametrize("point", ["step_begins@3", "step_begins@5"])
def test_p4_the_role_that_archives_is_dropped_meanwhile(cold, point):
    create_orders(cold.conn, months=2, rows=ROWS)
    keep_truth(cold, "orders")
    cold.execute("CREATE ROLE passing LOGIN SUPERUSER")
    stopped = Stopped(cold, STEPS.format("orders"), point, user="passing")
    cold.execute("DROP ROLE passing")
    stopped.finish()
    if cold.exists("orders_2024_01"):
        cold.execute(STEPS.format("orders"))
    assert_same_rows(cold, "archive.orders_all", "truth")
    assert cold.value("SELECT count(*) FROM archive.orders") == ROWS
    assert cold.value("SELECT count(*) FROM archive_ext.archival_job WHERE status = 'running'") == 0


@pytest.mark.parametrize("second", [FUNCTION, STEPS], ids=["function", "steps"])
@pytest.mark.parametrize("call, point", [(FUNCTION, "verify_begins"), (STEPS, "verify_begins"), (STEPS, "step_begins@5")],
                         ids=["function", "steps", "between_steps"])
def test_p4_two_sessions_on_one_partition(cold, call, point, second):
    """One of them archives it; the other is told so, or takes over where nothing is locked."""
    create_orders(cold.conn, months=2, rows=ROWS)
    keep_truth(cold, "orders")
    stopped = Stopped(cold, call.format("orders"), point)
    session = cold.connect()
    with contextlib.suppress(errors.ObjectInUse):
        session.execute(second.format("orders"))
    stopped.finish()
    wait_until(lambda: cold.exists("archive.orders_2024_01"), 20, "one of them to archive it")
    assert_same_rows(cold, "archive.orders_all", "truth")
    assert cold.value("SELECT count(*) FROM archive.orders") == ROWS


@pytest.mark.parametrize("call", [FUNCTION, STEPS], ids=["function", "steps"])
def test_p4_the_clock_jumps_while_a_partition_is_archived(cold, call):
    """Years back and forth: what is done is decided by what is there."""
    create_orders(cold.conn, months=2, rows=ROWS)
    keep_truth(cold, "orders")
    for now in ("2001-01-01", "2099-01-01"):
        cold.execute(f"SET archive_ext.now = '{now}'")
        cold.execute(call.format("orders"))
        assert_same_rows(cold, "archive.orders_all", "truth")
        cold.execute("SET archive_ext.now = '2010-01-01'")
        cold.execute("SELECT reattach_partition('orders_2024_01')")
        assert_same_rows(cold, "archive.orders_all", "truth")


def test_p4_an_error_after_the_swap_of_a_merge_is_no_end(cold):
    """What it was made of is detached by then, and only the job knows that it is to be dropped."""
    create_orders(cold.conn, months=4, rows=ROWS)
    keep_truth(cold, "orders")
    merge = "CALL merge_partitions_steps(ARRAY['orders_2024_01', 'orders_2024_02', 'orders_2024_03']::regclass[])"
    cold.execute("SET archive_ext.failpoints = 'rearrange_dropped=error'")
    with pytest.raises(errors.SystemError, match="failpoint rearrange_dropped"):
        cold.execute(merge)
    assert_same_rows(cold, "orders", "truth")
    assert cold.exists("orders_2024_01") and not cold.is_attached("orders_2024_01")
    cold.execute("RESET archive_ext.failpoints")
    cold.execute(merge)
    assert not cold.exists("orders_2024_01") and cold.is_attached("orders_2024q1")
    assert_same_rows(cold, "orders", "truth")


def test_p6_a_step_that_waits_for_a_lock_tries_again_and_names_who_has_it(cold):
    create_orders(cold.conn, months=2, rows=ROWS)
    reader = cold.connect()
    reader.autocommit = False
    reader.execute("SELECT count(*) FROM orders_2024_01")
    cold.execute("SET archive_ext.lock_timeout = '200ms'")
    told = []
    cold.conn.add_notice_handler(lambda notice: told.append((notice.message_primary, notice.message_detail)))
    call = Call(cold.execute, STEPS.format("orders"))
    wait_until(lambda: any("trying again (2 of 10)" in message for message, _ in told), 20, "the second attempt")
    reader.rollback()
    call.result(60)
    message, detail = told[0]
    assert message == 'could not lock "public.orders_2024_01" within 200 ms; trying again (1 of 10)'
    assert detail.startswith(f"Process {reader.info.backend_pid} (user postgres, idle in transaction, query started 20")
    assert cold.exists("archive.orders_2024_01")


def pending_detach(db, partition):
    """A DETACH CONCURRENTLY that was cancelled while it waited for a reader."""
    reader, detacher = db.connect(), db.connect()
    reader.autocommit = False
    reader.execute("SELECT count(*) FROM orders")
    call = Call(detacher.execute, f"ALTER TABLE orders DETACH PARTITION {partition} CONCURRENTLY")
    pending = "SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = %s::regclass"
    wait_until(lambda: db.value(pending, [partition]), 20, "the detach to be pending")
    db.execute("SELECT pg_cancel_backend(%s)", [detacher.info.backend_pid])
    with pytest.raises(errors.QueryCanceled):
        call.result(20)
    return reader


@pytest.mark.parametrize("call", [FUNCTION, STEPS, "SELECT reattach_partition('orders_2024_03')",
                                  "CALL merge_partitions_steps(ARRAY['orders_2024_04', 'orders_2024_05', 'orders_2024_06']::regclass[])"],
                         ids=["function", "steps", "reattach", "merge"])
def test_p6_a_detach_left_pending_is_finished_first(cold, call):
    """And reported; who still reads the partition is waited for no longer than archive_ext.lock_timeout, and named."""
    create_orders(cold.conn, months=6, rows=ROWS)
    cold.execute("SELECT archive_partition('orders_2024_03')")
    keep_truth(cold, "orders_2024_02", "detached")
    reader = pending_detach(cold, "orders_2024_02")
    keep_truth(cold, "orders")
    cold.execute("SET archive_ext.lock_timeout = '300ms'")
    function = call in (FUNCTION, "SELECT reattach_partition('orders_2024_03')")
    if function:
        with pytest.raises(errors.LockNotAvailable) as refused:
            cold.execute(call.format("orders"))
        assert str(reader.info.backend_pid) in refused.value.diag.message_detail
        assert cold.value("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = 'orders_2024_02'::regclass")
        wait_until(lambda: not cold.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE '%%freezer'"), 20,
                   "the guards to be lifted")
    reader.rollback()

    told = []
    cold.conn.add_notice_handler(lambda notice: told.append(notice.message_primary))
    cold.execute(call.format("orders"))

    assert any("pending DETACH CONCURRENTLY of public.orders_2024_02" in line for line in told), told
    assert not cold.is_attached("orders_2024_02")
    assert cold.value("SELECT count(*) FROM archive_ext.lifecycle_event WHERE event = 'finalized'") == 1
    assert_same_rows(cold, "orders_2024_02", "detached")
    rows = ROWS if "archive" in call else -ROWS if "reattach" in call else 0
    assert cold.value("SELECT count(*) FROM orders") == cold.value("SELECT count(*) FROM truth") - rows
    assert cold.value("SELECT count(*) FROM archive.orders_all") == 5 * ROWS


def test_a_partition_whose_detach_is_pending_is_not_archived(cold):
    create_orders(cold.conn, months=2, rows=ROWS)
    pending_detach(cold, "orders_2024_01").rollback()
    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="pending DETACH CONCURRENTLY"):
        cold.execute(FUNCTION.format("orders"))
