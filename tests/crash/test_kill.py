"""P4: killed at any point, the same call made again converges to the same end state, and nothing is lost or twice."""

import psycopg
import pytest

from harness.failpoints import kill_backend, kill_server
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.proxy import Stall
from harness.sessions import Call

ROWS = 5000
# What is archived already has left the hot schema: to_regclass makes it NULL, and the procedure passes over that.
STEPS = "CALL archive_partition_steps(ARRAY[to_regclass('orders_2024_01'), to_regclass('orders_2024_02')])"
FUNCTION = "SELECT archive_partitions(ARRAY['orders_2024_01', 'orders_2024_02']::regclass[])"

# Where the call stands when it is killed: the request it never gets an answer to.
POINTS = {
    "first_upload": ("PUT|POST", r"orders_2024_01.*\.parquet"),
    "read_back": ("GET", r"orders_2024_01.*\.parquet"),
    "manifest": ("PUT", r"_manifests/orders_2024_01"),
    "second_upload": ("PUT|POST", r"orders_2024_02.*\.parquet"),
    "second_manifest": ("PUT", r"_manifests/orders_2024_02"),
}


@pytest.fixture
def orders(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=3, rows=ROWS)
    keep_truth(db, "orders")
    return fault_proxy


@pytest.mark.parametrize("kill", [kill_backend, kill_server])
@pytest.mark.parametrize("call", [STEPS, FUNCTION], ids=["steps", "function"])
@pytest.mark.parametrize("method, target", POINTS.values(), ids=POINTS.keys())
def test_p4_killed_and_called_again(cluster, db, s3, orders, kill, call, method, target):
    rule = orders.on(method, target, fault=Stall())
    victim = Call(db.execute, call)
    assert rule.hit.wait(60)
    kill(cluster, db.conn.info.backend_pid)
    with pytest.raises(psycopg.Error):
        victim.result(60)
    orders.heal()
    db.reconnect()

    everything_is_there(db)
    db.execute(call)

    assert db.value("SELECT count(*) FROM orders") == ROWS
    assert db.value("SELECT count(*) FROM archive.orders") == 2 * ROWS
    assert_same_rows(db, "archive.orders_all", "truth")
    db.execute("UPDATE orders SET note = 'writable' WHERE created_at >= '2024-03-01'")
    assert db.value("SELECT count(*) FROM archive_ext.archival_job WHERE status = 'running'") == 0


def everything_is_there(db):
    """Between the crash and the second call: each row on exactly one path, whatever was done."""
    source = "archive.orders_all" if db.exists("archive.orders_all") else "orders"
    assert_same_rows(db, source, "truth")


def test_p4_killed_in_the_middle_of_dropping_and_reattaching(cluster, db, orders):
    """Reattach loads in one transaction: a crash leaves the partition archived, and it can be done again."""
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    rule = orders.on("GET", r"\.parquet", fault=Stall())
    victim = Call(db.execute, "SELECT reattach_partition('orders_2024_01')")
    assert rule.hit.wait(60)
    kill_backend(cluster, db.conn.info.backend_pid)
    with pytest.raises(psycopg.Error):
        victim.result(60)
    orders.heal()
    db.reconnect()

    assert_same_rows(db, "archive.orders_all", "truth")
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "orders", "truth")
