"""Partitions that age, beside other sessions: merges and splits step by step, moves, drains (P1, P4, P8)."""

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.sessions import Repeat

MONTHS = "ARRAY['orders_2024_01', 'orders_2024_02', 'orders_2024_03']::regclass[]"


@pytest.fixture
def orders(db):
    create_orders(db.conn, months=4, rows=2000)
    keep_truth(db, "orders")
    return db


def begin(db, call=f"begin_merge({MONTHS}, NULL)"):
    return db.value(f"SELECT archive_ext.{call}")


def step(db, job):
    return db.row("SELECT * FROM archive_ext.archive_step(%s)", [job])


def assert_whole(db):
    assert db.value("SELECT count(*) FROM orders") == db.value("SELECT count(*) FROM truth")
    assert_same_rows(db, "orders", "truth")


def test_p1_every_row_is_there_once_after_each_step_of_a_merge(orders):
    db, phases = orders, []
    job, more = begin(orders), True
    while more:
        more, phase = step(db, job)
        phases.append(phase)
        assert_whole(db)

    assert phases == ["frozen", "created", "copying", "copying", "copying", "built", "verified", "swapped", "done"]
    assert db.is_attached("orders_2024q1")
    assert not db.exists("orders_2024_01")
    assert db.value("SELECT label FROM archive_ext.partitions WHERE partition_name = 'orders_2024q1'") == "WARM_2024Q1"
    # Everything the parent has: primary key and index are parts of the parent's.
    assert db.value("SELECT count(*) FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid"
                    " WHERE i.indrelid = 'orders_2024q1'::regclass") == 2


def test_p1_readers_see_each_row_once_while_partitions_are_merged_and_split(orders):
    reader = orders.connect()
    expected = tuple(orders.row("SELECT count(*), sum(id) FROM truth"))

    def read():
        assert tuple(reader.execute("SELECT count(*), sum(id) FROM orders").fetchone()) == expected

    with Repeat(read, pause=0) as reads:
        orders.execute(f"CALL merge_partitions_steps({MONTHS})")
        orders.execute("CALL split_partition_steps('orders_2024q1', 'month')")

    assert reads.steps > 3
    assert_whole(orders)
    assert orders.is_attached("orders_2024_02")


def test_writers_are_refused_at_once_from_the_first_step_on(orders):
    step(orders, begin(orders))
    writer = orders.connect()
    writer.execute("SET statement_timeout = '5s'")
    with pytest.raises(psycopg.errors.ObjectInUse) as refused:
        writer.execute("UPDATE orders SET note = 'x' WHERE created_at = '2024-01-01 00:00+00'")
    assert "merged" in str(refused.value)
    writer.execute("UPDATE orders SET note = note WHERE created_at >= '2024-04-01'")


@pytest.mark.parametrize("steps", range(9))
def test_p4_a_merge_goes_on_after_any_step(orders, steps):
    """The session ends between two steps, and in the middle of one: the next call of the same takes the job up."""
    session = orders.connect()
    job = session.execute(f"SELECT archive_ext.begin_merge({MONTHS}, NULL)").fetchone()[0]
    for _ in range(steps):
        session.execute("SELECT * FROM archive_ext.archive_step(%s)", [job])
    pid = session.info.backend_pid
    session.execute("BEGIN")
    session.execute("SELECT * FROM archive_ext.archive_step(%s)", [job])
    session.close()
    wait_until(lambda: not orders.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]), 10, "the session to end")
    assert_whole(orders)

    wait_until(lambda: finish(orders, job), 20, "the merge to end")

    assert_whole(orders)
    assert orders.is_attached("orders_2024q1")
    assert not orders.exists("orders_2024_01")


def finish(db, job):
    """Takes steps to the end; the advisory locks of a session that just ended may still be there."""
    try:
        while step(db, job)[0]:
            pass
        return True
    except psycopg.errors.ObjectInUse:
        return False


def test_a_cancelled_merge_leaves_nothing_behind(orders):
    job = begin(orders)
    for _ in range(4):
        step(orders, job)
    assert orders.value("SELECT cancel_job(%s)", [job])
    assert not orders.exists("orders_2024q1")
    orders.execute("UPDATE orders SET note = note WHERE created_at = '2024-01-01 00:00+00'")
    assert_whole(orders)


def test_a_row_that_changed_behind_the_guard_is_never_swapped_away(orders):
    job = begin(orders)
    while step(orders, job)[1] != "verified":
        pass
    orders.execute("ALTER TABLE orders_2024_01 DISABLE TRIGGER ALL")
    orders.execute("UPDATE orders SET note = 'late' WHERE created_at = '2024-01-01 00:00+00'")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        step(orders, job)
    assert orders.is_attached("orders_2024_01")
    assert orders.value("SELECT count(*) FROM orders WHERE note = 'late'") == 1


def test_what_all_months_have_is_carried_over(db, role):
    reader, other = role("reader"), role("other")
    create_orders(db.conn, months=2, rows=10)
    for month in ("orders_2024_01", "orders_2024_02"):
        db.execute(f"GRANT SELECT ON {month} TO {reader}")
        db.execute(f"CREATE INDEX ON {month} (note)")
        db.execute(f"ALTER TABLE {month} ALTER COLUMN note SET STATISTICS 500")
    db.execute(f"GRANT SELECT ON orders_2024_01 TO {other}")
    db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    db.execute("INSERT INTO customers SELECT DISTINCT customer_id FROM orders")
    db.execute("ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers")

    db.execute("CALL merge_partitions_steps('{orders_2024_01,orders_2024_02}', 'winter')")

    assert db.value(f"SELECT has_table_privilege('{reader}', 'winter', 'SELECT')")
    assert not db.value(f"SELECT has_table_privilege('{other}', 'winter', 'SELECT')")
    assert db.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'winter'") == 3
    assert db.value("SELECT attstattarget FROM pg_attribute WHERE attrelid = 'winter'::regclass AND attname = 'note'") == 500
    assert db.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 'winter'::regclass AND contype = 'f'") == 1
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        db.execute("DELETE FROM customers")


def test_an_owner_who_is_no_superuser(db, role):
    owner = role("owner")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    session = db.connect(owner)
    create_orders(session, months=3, rows=100)
    session.execute("CREATE TABLE orders_rest PARTITION OF orders DEFAULT")
    session.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-05-05', 1, 1)")
    session.execute("SET TimeZone = 'UTC'")

    assert session.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')").fetchone()[0] == "WARM_202401"
    assert session.execute("SELECT drain_default('orders')").fetchone()[0] == 1
    session.execute("CALL merge_partitions_steps('{orders_2024_01,orders_2024_02}')")
    assert session.execute("SELECT count(*) FROM orders").fetchone()[0] == 301
    assert db.value("SELECT count(DISTINCT relowner) FROM pg_class WHERE relname LIKE 'orders%' AND relkind IN ('r', 'p')") == 1


def test_a_warm_partition_is_frozen_once_the_caller_has_committed(orders):
    orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
    settled = """
        SELECT (SELECT convalidated FROM pg_constraint WHERE conrelid = c.oid AND conname = 'archive_ext_bounds')
               AND c.relallvisible = c.relpages AND c.relpages > 0
        FROM pg_class c WHERE c.oid = 'orders_2024_01'::regclass"""
    wait_until(lambda: orders.value(settled), 30, "the partition to be frozen")


def test_to_another_tablespace_and_back(orders, cluster):
    place = cluster.dir / "tablespace"
    orders.execute(f"COPY (SELECT 1) TO PROGRAM 'mkdir -p {place}'")
    orders.execute(f"CREATE TABLESPACE slow_{orders.name} LOCATION '{place}'")
    try:
        orders.execute("SELECT set_archive_policy('orders', drop_after => '1 day')")
        orders.execute(f"UPDATE archive_ext.archive_policy SET warm_tablespace = 'slow_{orders.name}',"
                       " hot_tablespace = 'pg_default'")
        where = ("SELECT count(*) FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE t.spcname ="
                 f" 'slow_{orders.name}' AND (c.oid = 'orders_2024_01'::regclass OR c.oid IN"
                 " (SELECT indexrelid FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass))")
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
        assert orders.value(where) == 3
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'HOT')")
        assert orders.value(where) == 0
        assert_whole(orders)
    finally:
        orders.execute("DROP TABLE orders CASCADE")
        orders.execute(f"DROP TABLESPACE slow_{orders.name}")


def test_p6_a_lock_that_is_not_to_be_had_is_waited_for_a_bounded_time(orders):
    blocker = orders.connect()
    blocker.execute("BEGIN")
    blocker.execute("SELECT count(*) FROM orders_2024_01")
    blocker.execute("UPDATE orders SET note = note WHERE created_at = '2024-01-01 00:00+00'")
    orders.execute("SET archive_ext.lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
    assert str(blocker.info.backend_pid) in refused.value.diag.message_detail
    blocker.execute("ROLLBACK")
    orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
