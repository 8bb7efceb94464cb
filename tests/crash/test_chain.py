"""A server that dies while manifests are deleted: the chain says what is gone, then or after the next call (P2, P4)."""

import pytest

from harness.failpoints import killed_at
from harness.orders import assert_same_rows, create_orders

# Failpoints that are tested here, for the list of test_failpoints.py.
POINTS = ["garbage_removed", "removal_put"]

COLLECT = "SELECT * FROM collect_garbage('cold', '0', false)"


@pytest.mark.parametrize("point", POINTS)
def test_p4_killed_while_garbage_is_collected(cold, point):
    create_orders(cold.conn, months=3, rows=50)
    cold.execute(f"ALTER DATABASE {cold.name} SET archive_ext.garbage_retention = 0")
    cold.reconnect()
    for month in (1, 2):
        cold.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
        cold.execute(f"SELECT reattach_partition('orders_2024_0{month}', writable => true)")
    cold.execute("UPDATE orders SET items = items + 1")
    cold.execute("CREATE TABLE truth AS SELECT * FROM orders")
    for month in (1, 2):
        cold.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    killed_at(cold, point, COLLECT)
    assert len(cold.all("SELECT * FROM verify_chain('cold')")) == (2 if point == "garbage_removed" else 0)
    assert [row.kind for row in cold.all(COLLECT)].count("manifest") == (0 if point == "garbage_removed" else 2)
    assert cold.all("SELECT * FROM verify_chain('cold')") == []
    assert cold.value("SELECT removed FROM archive_ext.chains") == 2
    assert_same_rows(cold, "archive.orders_all", "truth")
    assert cold.all("SELECT * FROM check_consistency()") == [] and cold.all("SELECT * FROM audit_storage('cold')") == []
