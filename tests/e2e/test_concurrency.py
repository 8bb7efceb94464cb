"""Other sessions while a partition is archived: nobody waits longer than the swap, no row is lost, no deadlock."""

import itertools
import threading
import time

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import archive, create_orders
from harness.sessions import Call, Repeat

# Not a measurement: the longest that a swap and its bounded wait for the parent's lock may take on a busy machine.
SWAP_BOUND = 1.5

MILLION = 1_000_000


@pytest.fixture
def orders(db, s3):
    """January to March, and April already archived so that archive.orders_all exists."""
    s3.create_storage(db.conn)
    create_orders(db.conn, months=4, rows=2000)
    archive(db, "orders_2024_04", drop_local="0")


@pytest.fixture
def million(db, orders):
    db.execute(f"""
        INSERT INTO orders (created_at, customer_id, amount, note)
        SELECT timestamptz '2024-01-01 00:00+00' + n * interval '2 seconds', n % 1000, 1 + n % 500, 'note ' || n
        FROM generate_series(1, {MILLION}) AS n""")


def test_p6_sessions_on_other_partitions_wait_no_longer_than_the_swap(db, million):
    reader, writer, pruned = db.connect(), db.connect(), db.connect()
    numbers = itertools.count(10_000_000)

    def read():
        assert pruned.execute("SELECT count(*) FROM orders_2024_02").fetchone()[0] >= 2000
        reader.execute("SELECT count(*) FROM orders WHERE created_at >= '2024-02-01' AND created_at < '2024-02-08'")

    def write():
        writer.execute("INSERT INTO orders (id, created_at, customer_id, amount) VALUES (%s, '2024-02-20', 1, 1)",
                       [next(numbers)])
        writer.execute("UPDATE orders SET note = 'x' WHERE created_at = '2024-03-01'")

    with Repeat(read) as reads, Repeat(write) as writes:
        result = archive(db, "orders_2024_01")

    assert result.rows == MILLION + 2000
    assert min(reads.steps, writes.steps) > 20, "the others did run meanwhile"
    assert max(reads.slowest, writes.slowest) < SWAP_BOUND
    assert db.value("SELECT count(*) FROM orders WHERE id >= 10000000") == writes.steps


def test_p1_a_writer_into_the_partition_is_told_at_once_and_no_row_is_lost(db, million):
    writer = db.connect()
    attempts, stored, refused, gone = itertools.count(50_000_000), [], [], []

    def write():
        number, began = next(attempts), time.monotonic()
        try:
            writer.execute("INSERT INTO orders (id, created_at, customer_id, amount) VALUES (%s, '2024-01-20', 1, 1)",
                           [number])
            stored.append(number)
        except psycopg.errors.ObjectInUse as e:
            refused.append((time.monotonic() - began, e))
        except psycopg.errors.CheckViolation as e:
            gone.append(e)  # after the swap the hot table has no such partition

    before = db.value("SELECT count(*) FROM archive.orders_all")
    with Repeat(write):
        wait_until(lambda: stored, 10, "a write before the archive")
        archive(db, "orders_2024_01", drop_local="0")

    assert refused, "the archive froze the partition while it was written to"
    assert max(seconds for seconds, _ in refused) < SWAP_BOUND
    assert "orders_2024_01" in refused[0][1].diag.message_primary
    assert refused[0][1].diag.message_hint
    assert db.value("SELECT count(*) FROM archive.orders_all") == before + len(stored)
    found = db.all("SELECT id FROM archive.orders WHERE id >= 50000000 ORDER BY id")
    assert [r.id for r in found] == stored


@pytest.mark.parametrize("call", [
    "SELECT archive_partition('orders_2024_01', drop_local => '0')",
    "SELECT archive_partition('orders_2024_01')",
    "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[])",
])
def test_p1_every_row_is_seen_exactly_once_at_every_moment(db, orders, call):
    db.execute("""
        INSERT INTO orders (created_at, customer_id, amount)
        SELECT timestamptz '2024-01-01 00:00+00' + n * interval '2 seconds', n % 1000, 1
        FROM generate_series(1, 100000) AS n""")
    sampler = db.connect()
    expected = (108_000, db.value("SELECT sum(id) FROM archive.orders_all"))

    def sample():
        assert tuple(sampler.execute("SELECT count(*), sum(id) FROM archive.orders_all").fetchone()) == expected

    with Repeat(sample) as samples:
        db.execute(call)
        db.execute("SELECT reattach_partition('orders_2024_01')")

    assert samples.steps > 3
    sample()


def test_p6_waiting_for_the_lock_is_bounded_and_names_who_blocks(db, orders):
    blocker = db.connect(application_name="the_long_report")
    blocker.execute("BEGIN")
    blocker.execute("SELECT count(*) FROM orders")
    db.execute("SET archive_ext.lock_timeout = '300ms'")

    began = time.monotonic()
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        archive(db, "orders_2024_01")

    assert time.monotonic() - began < 30
    told = " ".join(filter(None, [str(refused.value), refused.value.diag.message_detail]))
    assert str(blocker.info.backend_pid) in told
    blocker.execute("ROLLBACK")
    assert db.is_attached("public.orders_2024_01")
    archive(db, "orders_2024_01")


def test_p6_while_the_swap_waits_others_wait_no_longer_than_the_lock_timeout(db, orders):
    blocker, reader = db.connect(), db.connect()
    blocker.execute("BEGIN")
    blocker.execute("SELECT count(*) FROM orders")
    db.execute("SET archive_ext.lock_timeout = '200ms'")

    with Repeat(lambda: reader.execute("SELECT count(*) FROM orders WHERE created_at >= '2024-02-01'")) as reads:
        with pytest.raises(psycopg.errors.LockNotAvailable):
            archive(db, "orders_2024_01")

    assert reads.slowest < 0.2 + SWAP_BOUND
    blocker.execute("ROLLBACK")


def test_p6_a_second_swap_in_one_transaction_is_refused(db, orders):
    with pytest.raises(psycopg.errors.ActiveSqlTransaction) as refused, db.conn.transaction():
        archive(db, "orders_2024_01")
        archive(db, "orders_2024_02")

    told = f"{refused.value} {refused.value.diag.message_hint}"
    assert "archive_partition_steps" in told and "archive_partitions" in told
    assert db.value("SELECT count(*) FROM orders") == 6000


def test_p6_every_parent_that_a_transaction_swapped_counts(db, orders):
    """Three swaps on A, B and A again: the memory of B's, whose lock a savepoint gave back, does not hide A's."""
    create_orders(db.conn, months=1, rows=100, name="bills")
    archive(db, "bills_2024_01")
    archive(db, "orders_2024_01")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction), db.conn.transaction():
        db.execute("SELECT reattach_partition('orders_2024_01')")
        db.execute("SAVEPOINT before_b")
        db.execute("SELECT reattach_partition('bills_2024_01')")
        db.execute("ROLLBACK TO before_b")
        archive(db, "orders_2024_02")
    with db.conn.transaction():
        db.execute("SAVEPOINT before_all")
        db.execute("SELECT reattach_partition('orders_2024_01')")
        db.execute("SELECT reattach_partition('bills_2024_01')")
        db.execute("ROLLBACK TO before_all")
        archive(db, "orders_2024_02")


def test_p6_nothing_is_restored_from_objects_under_the_lock_of_a_swap(db, orders):
    """From the local copy it is a matter of catalogs; from the objects the parent's lock would last for the whole load."""
    archive(db, "orders_2024_01", drop_local="0")
    archive(db, "orders_2024_02")
    archive(db, "orders_2024_03")
    with db.conn.transaction():
        db.execute("SELECT reattach_partition('orders_2024_02')")
        db.execute("SELECT reattach_partition('orders_2024_03')")
        with pytest.raises(psycopg.errors.ActiveSqlTransaction) as refused, db.conn.transaction():
            db.execute("SELECT reattach_partition('orders_2024_01')")
    assert "Commit first" in refused.value.diag.message_hint
    db.execute("SELECT reattach_partition('orders_2024_01')")


def test_the_columns_stay_as_they_are_while_a_local_copy_comes_back(db, orders):
    """ADD COLUMN in the midst of it waits: the copy would lack a column of the table that it is attached to."""
    archive(db, "orders_2024_01")
    local_copy = db.value("SELECT local_copy::regclass::text FROM archive_ext.partition WHERE partition_name = 'orders_2024_01'")
    db.execute("ALTER TABLE orders ADD COLUMN extra int DEFAULT 7")
    reader, altering, calling = db.connect(), db.connect(), db.connect()
    reader.autocommit = False
    reader.execute(f"LOCK TABLE {local_copy} IN ACCESS SHARE MODE")
    calling.execute("SET archive_ext.lock_timeout = '20s'")
    altering.execute("SET lock_timeout = '300ms'")
    back = Call(calling.execute, "SELECT reattach_partition('orders_2024_01', writable => true)")
    waits = f"SELECT count(*) FROM pg_stat_activity WHERE pid = {calling.info.backend_pid} AND wait_event_type = 'Lock'"
    wait_until(lambda: db.value(waits), 20, "the call to wait")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        altering.execute("ALTER TABLE orders ADD COLUMN another int")
    reader.rollback()
    back.result(60)
    altering.execute("ALTER TABLE orders ADD COLUMN another int")
    assert db.row("SELECT count(*), sum(extra) FROM orders_2024_01") == (2000, 14000)


def test_two_sessions_on_one_partition(db, orders):
    """One wins; the other is refused or finds it done. No deadlock."""
    calls = [Call(session.execute, "SELECT archive_partition('orders_2024_01')")
             for session in [db.connect(), db.connect()]]

    outcomes = []
    for session_call in calls:
        try:
            session_call.result(60)
            outcomes.append("archived")
        except psycopg.Error as e:
            assert e.sqlstate not in ("40P01", "XX000"), e
            outcomes.append("refused")

    assert sorted(outcomes) == ["archived", "refused"]
    assert db.value("SELECT count(*) FROM archive.orders_all") == 8000


@pytest.mark.parametrize("statement", ["SELECT archive_partition(%s::oid::regclass)",
                                       "CALL archive_partition_steps(ARRAY[%s::oid::regclass])"], ids=["function", "steps"])
def test_sessions_in_tight_loops_on_one_partition(db, cluster, statement):
    """Whoever comes too late is told that another session has the partition, or that it is archived: never what a catalog looked
    like at the moment when the other one committed."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=2, rows=20)
    oid = db.value("SELECT 'orders_2024_01'::regclass::oid")
    stop, told, archived = threading.Event(), [], itertools.count()

    def loop(session):
        while not stop.is_set():
            for call, argument in [(statement, oid), ("SELECT reattach_partition(%s)", "orders_2024_01")]:
                try:
                    session.execute(call, [argument])
                    next(archived)
                except psycopg.Error as error:
                    told.append(error)

    calls = [Call(loop, db.connect()) for _ in range(3)]
    time.sleep(8)
    stop.set()
    for call in calls:
        call.result(60)
    late = {("55006", "is being archived or reattached by another session"), ("55000", "is already archived"),
            ("42704", "there is no archived partition")}
    wrong = {f"{e.sqlstate} {e}"[:150] for e in told if not any(e.sqlstate == state and text in str(e) for state, text in late)}
    assert not wrong
    assert next(archived) > 10 and any(e.sqlstate == "55006" for e in told)
    assert db.value("SELECT count(*) FROM archive.orders_all") == 40


def test_two_sessions_on_two_partitions(db, orders):
    calls = [Call(db.connect().execute, f"SELECT archive_partition('{partition}')")
             for partition in ["orders_2024_01", "orders_2024_02"]]

    for session_call in calls:
        session_call.result(60)

    assert db.value("SELECT count(*) FROM orders") == 2000
    assert db.value("SELECT count(*) FROM archive.orders_all") == 8000


def test_an_open_snapshot_of_the_caller_is_refused(db, orders):
    db.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    db.execute("SELECT count(*) FROM orders")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        archive(db, "orders_2024_01")
    db.execute("ROLLBACK")


def test_p1_a_row_committed_between_snapshot_and_lock_is_archived(db, orders):
    """The caller's statement begins, and takes its snapshot, before the other session commits its row."""
    other = db.connect()
    other.execute("BEGIN")
    other.execute("INSERT INTO orders (id, created_at, customer_id, amount) VALUES (60000000, '2024-01-20', 1, 1)")
    db.execute("SET archive_ext.lock_timeout = '20s'")
    call = Call(db.execute, "SELECT archive_partition('orders_2024_01', drop_local => '0')")
    time.sleep(0.5)
    other.execute("COMMIT")

    call.result(60)

    assert db.connect().execute("SELECT count(*) FROM archive.orders WHERE id = 60000000").fetchone()[0] == 1


@pytest.mark.parametrize("lock, call", [
    ("public.ticket", "SELECT restore_rows('ticket', 'id = 1')"),
    ("table archive.others", "SELECT * FROM archive_table_batch('others', '2030-01-01')"),
], ids=["partition", "relation"])
def test_a_deadlock_is_told_as_what_it_is(db, cluster, lock, call):
    """And not as another session that is at work: only a wait that took too long is that."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    for table in ["ticket", "others"]:
        db.execute(f"CREATE TABLE {table} (id int PRIMARY KEY, at timestamptz NOT NULL)")
        db.execute(f"INSERT INTO {table} SELECT n, timestamptz '2024-01-01' FROM generate_series(1, 50) n")
    db.execute("SELECT * FROM archive_table_batch('ticket', '2030-01-01', batch_rows => 10)")
    other = db.connect()
    db.execute("SET deadlock_timeout = '200ms'; SET archive_ext.lock_timeout = '60s'")
    other.execute("SET deadlock_timeout = '5min'")
    with other.transaction():
        other.execute("SELECT pg_advisory_xact_lock(hashtextextended('archive_ext ' || %s, 0))", [lock])
        db.execute("BEGIN; SELECT pg_advisory_xact_lock(1)")
        waiting = Call(other.execute, "SELECT pg_advisory_xact_lock(1)")
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        wait_until(lambda: db.value(waits), 20, "the other session to wait")
        with pytest.raises(psycopg.errors.DeadlockDetected):
            db.execute(call)
        db.execute("ROLLBACK")
        waiting.result()
