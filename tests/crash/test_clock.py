"""The server's clock is set back and forth by days while partitions are archived: what waits goes on, garbage is only what nothing
needs, and each row is read once all the time (P1, P2, P4)."""

import time

import psycopg
import pytest

from harness.clock import Clock
from harness.cluster import wait_until, without_crashes
from harness.failpoints import Failpoints
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.sessions import Call

ROWS, MONTHS = 60, 4
STEPS = "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[])"


@pytest.fixture(scope="module")
def cluster():
    with without_crashes("archive_ext.verify_after=7d", "archive_ext.drop_after=30d") as cluster:
        cluster.clock = Clock(cluster)
        yield cluster


@pytest.fixture
def clock(cluster):
    cluster.clock.set(0)
    yield cluster.clock
    cluster.clock.set(0)


def run_lifecycle(db):
    """What the worker does, in a session of its own: of PostgreSQL before 16 background workers have the true time (harness.clock)."""
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")


@pytest.fixture
def orders(clock, cold, cluster):
    create_orders(cold.conn, months=MONTHS, rows=ROWS)
    keep_truth(cold, "orders")
    cold.location = cluster.storage / cold.name
    return cold


def assert_all_there(db):
    source = "archive.orders_all" if db.exists("archive.orders_all") else "orders"
    assert_same_rows(db, source, "truth")


def unfinished(db):
    return db.all("SELECT operation, partition_name, status, attempts, error, next_attempt_at FROM archive_ext.jobs"
                  " WHERE status NOT IN ('completed', 'cancelled')")


def test_the_clock_is_set(orders, clock):
    """Of sessions that are there, too; else the tests below would show nothing."""
    before = orders.value("SELECT clock_timestamp()")
    clock.set(10)
    wait_until(lambda: (orders.value("SELECT clock_timestamp()") - before).days >= 10, 5, "the session's clock")
    clock.set(-10)
    wait_until(lambda: (before - orders.value("SELECT clock_timestamp()")).days >= 9, 5, "the session's clock")


def collect(db):
    """Nothing that it removes is needed: what is left answers queries."""
    if not db.value("SELECT count(*) FROM archive_ext.storage_claim"):
        return
    with db.connect() as session:
        session.execute("SELECT * FROM collect_garbage('cold', dry_run => false)")


@pytest.mark.parametrize("days", [12, -12])
def test_p4_what_failed_at_another_time_is_tried_again(orders, clock, cluster, days):
    """The time of the next attempt was noted by a clock that was ahead, or is behind by now: nothing waits for days."""
    clock.set(max(days, 0))
    orders.location.write_text("no directory")
    orders.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold')")
    run_lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.archival_job WHERE status = 'pending' AND attempts > 0") == MONTHS
    orders.location.unlink()
    clock.set(min(days, 0))

    def all_done():
        run_lifecycle(orders)
        return orders.exists("archive.orders") and not unfinished(orders)

    wait_until(all_done, 60, "the jobs to be tried again")
    assert_all_there(orders)
    assert orders.value("SELECT count(*) FROM archive.orders") == MONTHS * ROWS


@pytest.mark.parametrize("point", ["object_put", "manifest_put", "step_begins@4", "step_begins@5"])
def test_p2_p4_garbage_is_collected_months_later_while_a_run_is_under_way(orders, clock, cluster, point):
    """By the clock its objects have been nobody's for longer than any retention."""
    points = Failpoints(cluster)
    points.arm(orders.name, f"{point}=wait")
    call = Call(orders.connect().execute, STEPS)
    points.reached(point.split("@")[0], unless=lambda: call.ended() and call.result())
    points.arm(orders.name, "")
    for days in (0, 60, 120, -60, 180):
        clock.set(days)
        collect(orders)
    points.release()
    call.result(60)
    assert_all_there(orders)
    assert orders.value("SELECT count(*) FROM archive.orders") == ROWS
    collect(orders)
    assert_all_there(orders)


def test_p6_a_wait_for_a_lock_ends_although_the_clock_was_set_back(orders, clock):
    """At the latest when the lock is free: timeouts of PostgreSQL count by the clock that was set."""
    reader = orders.connect()
    reader.autocommit = False
    reader.execute("SELECT count(*) FROM orders_2024_01")
    call = Call(orders.connect().execute, STEPS)
    waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'CALL archive_partition_steps%'"
    wait_until(lambda: orders.value(waits), 20, "the call to wait")
    clock.set(-5)
    time.sleep(1)
    reader.rollback()
    call.result(60)
    assert_all_there(orders)
    assert orders.value("SELECT count(*) FROM archive.orders") == ROWS


@pytest.mark.parametrize("days", [40, -40])
def test_p4_a_server_that_starts_at_another_time(orders, clock, cluster, days):
    """Stopped at once in the middle of a run, and started days later or earlier."""
    points = Failpoints(cluster)
    points.arm(orders.name, "verify_done=wait")
    call = Call(orders.connect().execute, STEPS)
    points.reached("verify_done", unless=lambda: call.ended() and call.result())
    clock.set(days)
    cluster.restart("immediate")
    with pytest.raises(psycopg.Error):
        call.result(60)
    points.disarm(orders.name)
    orders.reconnect()
    assert_all_there(orders)
    orders.execute(STEPS)
    assert_all_there(orders)
    assert orders.value("SELECT count(*) FROM archive.orders") == ROWS
    assert not unfinished(orders)


def test_p4_a_procedure_that_waits_between_attempts_is_not_kept_by_a_clock_set_back(orders, clock):
    """pg_sleep() would last until it is as late again."""
    reader = orders.connect()
    reader.autocommit = False
    reader.execute("SELECT count(*) FROM orders_2024_01")
    told, session = [], orders.connect()
    session.add_notice_handler(lambda notice: told.append(notice.message_primary))
    session.execute("SET archive_ext.lock_timeout = '200ms'")
    call = Call(session.execute, STEPS)
    wait_until(lambda: any("trying again (3 of 10)" in line for line in told), 60, "the third attempt")
    clock.set(-5)
    reader.rollback()
    call.result(60)
    assert_all_there(orders)
    assert orders.value("SELECT count(*) FROM archive.orders") == ROWS


def copies(db):
    return [row[0] for row in db.all("SELECT partition_name FROM archive_ext.partition WHERE local_copy IS NOT NULL ORDER BY 1")]


def test_p1_p2_p4_no_copy_goes_early_while_the_clock_jumps(orders, clock):
    """None before its time by any clock that the server had, none whose archive is damaged, and the others all go in the end."""
    orders.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold')")
    run_lifecycle(orders)
    partitions = [f"orders_2024_{month:02}" for month in range(1, MONTHS + 1)]
    assert copies(orders) == partitions
    damaged = next(orders.location.rglob("*orders_2024_02*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    january = "(SELECT * FROM {} WHERE created_at < '2024-02-01') AS january"
    for days in (5, -8, 3, -40, 6, 29, 12, 28):
        clock.set(days)
        for _ in range(3):
            run_lifecycle(orders)
        assert copies(orders) == partitions, f"on day {days}"
        assert_same_rows(orders, january.format("archive.orders_all"), january.format("truth"))
    verified = "SELECT count(*) FROM archive_ext.partition WHERE reverified_at IS NOT NULL"
    assert orders.value(verified) == MONTHS - 1, unfinished(orders)
    for days in (45, -3, 31, 50):
        clock.set(days)
        for _ in range(3):
            run_lifecycle(orders)
        assert "orders_2024_02" in copies(orders), f"on day {days}"
    assert copies(orders) == ["orders_2024_02"], unfinished(orders)
    assert orders.value(verified) == MONTHS - 1
