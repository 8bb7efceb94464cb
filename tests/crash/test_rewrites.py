"""A server that dies while archived rows are erased or corrected, objects copied, or moved to another class: it is as before or as after, and
done again it comes to its end (P1, P2, P4)."""

import itertools

import psycopg
import pytest

from harness.failpoints import killed_at
from harness.orders import assert_same_rows, create_orders
from harness.s3 import Bucket

# Failpoints that are tested here, for the list of test_failpoints.py.
POINTS = ["copy_made", "erase_in_place", "erase_rewritten", "glacier_moved", "partition_rewritten", "update_rewritten"]
_numbers = itertools.count(1)

ERASE = "SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)"
UPDATE = "SELECT update_archived('orders', 'customer_id % 50 = 8', '{\"note\": \"''changed''\"}', at_once => true)"


def lifecycle(db):
    db.execute("CALL run_lifecycle()")
    db.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    db.execute("CALL run_lifecycle()")
    assert not db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'cancelled')"
                      " AND error IS DISTINCT FROM 'interrupted; another run took over'")


@pytest.fixture
def orders(cold):
    create_orders(cold.conn, months=3, rows=200)
    for month in (1, 2):
        cold.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    cold.execute("CREATE TABLE truth AS SELECT * FROM archive.orders_all")
    return cold


@pytest.mark.parametrize("call, point", [
    *((ERASE, point) for point in ("partition_rewritten@2", "erase_rewritten", "manifest_put@2", "erase_in_place")),
    *((UPDATE, point) for point in ("partition_rewritten", "update_rewritten", "erase_in_place")),
])
def test_p1_p4_killed_while_the_archive_is_changed(orders, call, point):
    killed_at(orders, point, call)
    # All of it was one transaction.
    assert_same_rows(orders, "archive.orders_all", "truth")
    assert {row.result for row in orders.all("SELECT result FROM verify_archive('orders')")} == {"equal"}
    assert orders.value("SELECT count(*) FROM archive_ext.erasures") == 0
    orders.execute(call)
    change = "DELETE FROM truth" if call == ERASE else "UPDATE truth SET note = 'changed'"
    orders.execute(f"{change} WHERE customer_id % 50 = 8" + ("" if call == ERASE else " AND created_at < '2024-03-01'"))
    assert_same_rows(orders, "archive.orders_all", "truth")
    lifecycle(orders)
    assert {row.result for row in orders.all("SELECT result FROM verify_archive('orders')")} == {"equal"}


@pytest.mark.parametrize("point", ["step_begins", "step_done", "step_begins@2", "step_done@2", "step_begins@3"])
def test_p4_killed_while_what_held_erased_rows_is_deleted(orders, cluster, point):
    files = lambda: sorted(file.name for file in (cluster.storage / orders.name).rglob("*orders_2024*") if file.is_file())  # noqa: E731
    orders.execute(ERASE)
    orders.execute("DELETE FROM truth WHERE customer_id % 50 = 8")
    assert len(files()) == 8
    killed_at(orders, point, "CALL run_lifecycle()")
    assert_same_rows(orders, "archive.orders_all", "truth")
    lifecycle(orders)
    assert [name for name in files() if ".v1." in name] == [] and len(files()) == 4
    (receipt,) = orders.all("SELECT deleted_at, deleted_keys FROM archive_ext.erasures")
    assert receipt.deleted_at and len(receipt.deleted_keys) == 4
    assert orders.all("SELECT * FROM verify_chain('cold')") == []
    assert_same_rows(orders, "archive.orders_all", "truth")


def test_p2_p4_killed_while_copies_are_made(orders, cluster):
    far = cluster.storage / f"{orders.name}_far"
    orders.execute(f"CREATE SERVER far FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{far}')")
    orders.execute("SELECT set_archive_policy('orders', storage => 'cold', copy_storage => 'far')")
    killed_at(orders, "copy_made@2", "SELECT archive_partition('orders_2024_03', drop_local => '0')")
    assert orders.is_attached("orders_2024_03")
    assert_same_rows(orders, "archive.orders_all", "truth")
    orders.execute("SELECT archive_partition('orders_2024_03', drop_local => '0')")
    killed_at(orders, "copy_made@3", "CALL run_lifecycle()")
    lifecycle(orders)
    assert orders.all("SELECT objects, copied FROM archive_ext.copies") == [(1, 1)] * 3
    assert orders.all("SELECT * FROM repair_archive('orders')") == []


def test_p4_killed_while_objects_move(db, moto):
    bucket = Bucket(moto, f"killed-{next(_numbers)}")
    bucket.create_storage(db.conn)
    create_orders(db.conn, months=2, rows=50)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', glacier_class => 'DEEP_ARCHIVE', storage => 'cold')")
    killed_at(db, "glacier_moved", "CALL run_lifecycle()")
    # It moved, and the catalog does not know: a query says what is to be done.
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no restored copy is there"):
        db.all("SELECT sum(items) FROM archive.orders")
    lifecycle(db)
    assert db.value("SELECT tier FROM archive_ext.partitions WHERE partition_name = 'orders_2024_01'") == "glacier"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is in a frozen storage class"):
        db.all("SELECT sum(items) FROM archive.orders")
