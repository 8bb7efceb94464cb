"""What archiving costs and saves, by the prices in archive_ext.storage_price."""

from decimal import Decimal

import psycopg
import pytest

from harness.orders import create_orders

GB = Decimal(10**9)


def money(bytes, price):
    return round(bytes / GB * Decimal(price), 4)


def costs(db, source="orders"):
    return {row.tier: row for row in db.all("SELECT * FROM archive_cost(%s)", [source])}


@pytest.fixture
def orders(db, s3):
    s3.create_storage(db.conn)
    db.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=3, rows=20_000)
    return db


def price(db, *, local, archived, **columns):
    """For a table of this size cents would all be zero."""
    db.execute("UPDATE archive_ext.storage_price SET gb_month = %s WHERE storage_class = 'LOCAL'", [local])
    db.execute("INSERT INTO archive_ext.storage_price (storage, storage_class, gb_month, put_1000, get_1000, retrieval_gb)"
               " VALUES ('cold', 'STANDARD', %s, %s, %s, %s)",
               [archived, columns.get("put", 0), columns.get("get", 0), columns.get("retrieval", 0)])


def test_costs_by_tier(orders):
    price(orders, local=1200, archived=230)
    orders.execute("SELECT archive_partition('orders_2024_01')")
    orders.execute("SELECT archive_partition('orders_2024_02', drop_local => '0')")
    local, archived, before = orders.row(
        "SELECT (SELECT sum(pg_total_relation_size(relid))::bigint FROM pg_partition_tree('orders') WHERE isleaf),"
        " sum(archived_bytes)::bigint, sum(local_bytes)::bigint FROM archive_ext.partition WHERE status = 'ARCHIVED'")
    kept = orders.value("SELECT pg_total_relation_size(local_copy) FROM archive_ext.partitions WHERE local_copy IS NOT NULL")
    found = costs(orders)
    assert set(found) == {"local", "local copy", "cold"}
    assert (found["local"].bytes, found["local"].per_month, found["local"].saved_per_month) == (local, money(local, 1200), 0)
    copy = found["local copy"]
    assert (copy.bytes, copy.per_month_without_archive, copy.saved_per_month) == (kept, 0, -money(kept, 1200))
    cold = found["cold"]
    assert (cold.storage, cold.storage_class, cold.partitions, cold.bytes, cold.currency) == ("cold", "STANDARD", 2, archived, "USD")
    assert (cold.per_month, cold.per_month_without_archive) == (money(archived, 230), money(before, 1200))
    assert cold.saved_per_month == money(before, 1200) - money(archived, 230) > 0
    (saved,) = orders.all("SELECT * FROM archive_ext.savings")
    assert saved.per_month == sum(row.per_month for row in found.values())
    assert saved.saved_per_month == sum(row.saved_per_month for row in found.values()) > 0
    assert saved.per_month + saved.saved_per_month == saved.per_month_without_archive == money(local, 1200) + money(before, 1200)
    assert saved.saved_percent == round(100 * saved.saved_per_month / saved.per_month_without_archive, 1)


def test_the_classic_example(orders):
    """10 TB, 90 % cold, 0.12 and 0.023 per GB-month: 327 instead of 1,200 a month. The catalog is told of so many bytes."""
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    orders.execute("UPDATE archive_ext.partition SET archived_bytes = 9e12, local_bytes = 9e12 WHERE status = 'ARCHIVED'")
    cold = costs(orders)["cold"]
    hot = money(10**12, "0.12")
    assert (round(hot + cold.per_month_without_archive), round(hot + cold.per_month), round(cold.saved_per_month)) == (1200, 327, 873)


def test_a_price_that_is_not_known_or_in_another_currency(orders, cluster):
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    orders.execute("INSERT INTO archive_ext.storage_price (storage, storage_class, gb_month, currency) VALUES ('cold', 'STANDARD', 0.02, 'EUR')")
    cold = costs(orders)["cold"]
    assert (cold.currency, cold.saved_per_month) == ("EUR", None) and cold.per_month is not None
    (saved,) = orders.all("SELECT * FROM archive_ext.savings")
    assert (saved.per_month, saved.saved_per_month) == (None, None)
    orders.execute(f"CREATE SERVER disk FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / orders.name}')")
    orders.execute("SELECT archive_partition('orders_2024_02', storage => 'disk', drop_local => '0')")
    disk = orders.row("SELECT * FROM archive_cost('orders') WHERE storage = 'disk'")
    assert disk.partitions == 1 and disk.bytes > 0
    assert (disk.storage_class, disk.per_month, disk.saved_per_month) == (None, None, None)


def test_what_a_query_or_a_restore_reads(orders):
    price(orders, local=1200, archived=230, get=4, retrieval=1000)
    for month in (1, 2):
        orders.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    objects = dict(orders.all("SELECT partition_name, sum(bytes)::bigint FROM archive_ext.objects GROUP BY 1"))

    def check(found, bytes, objects):
        assert (found.storage, found.objects, found.bytes, found.requests) == ("cold", objects, bytes, 2 * objects + bytes // 8_000_000)
        assert found.requests_cost == Decimal(found.requests * 4) / 1000
        assert found.retrieval_cost == round(bytes / GB * 1000, 6)
        assert found.total == found.requests_cost + found.retrieval_cost

    query = "SELECT sum(amount) FROM archive.orders_all WHERE created_at {}"
    check(orders.row("SELECT * FROM archive_query_cost(%s)", [query.format("< '2024-02-01'")]), objects["orders_2024_01"], 1)
    check(orders.row("SELECT * FROM archive_query_cost(%s)", [query.format("IS NOT NULL")]), sum(objects.values()), 2)
    assert orders.all("SELECT * FROM archive_query_cost(%s)", [query.format("> '2024-03-05'")]) == []
    # What the catalog answers reads nothing.
    orders.execute("SET archive_ext.enable_catalog_answers = on")
    assert orders.row("SELECT * FROM archive_query_cost('SELECT count(*) FROM archive.orders')").objects == 0
    for wrong in ["ANALYZE SELECT 1", "SELECT 1; DROP TABLE orders"]:
        with pytest.raises(psycopg.errors.SyntaxError):
            orders.execute("SELECT * FROM archive_query_cost(%s)", [wrong])
    check(orders.row("SELECT * FROM archive_restore_cost('orders_2024_02')"), objects["orders_2024_02"], 1)
    check(orders.row("SELECT * FROM archive_restore_cost('public.orders_2024_02')"), objects["orders_2024_02"], 1)
    assert orders.all("SELECT * FROM archive_restore_cost('orders_2024_03')") == []


def test_rows_archived_one_by_one_cost_too(orders):
    price(orders, local=1200, archived=230)
    orders.execute("CREATE TABLE doc (id bigint PRIMARY KEY, at timestamptz, body text)")
    orders.execute("INSERT INTO doc SELECT n, '2024-01-01', repeat(md5(n::text), 10) FROM generate_series(1, 10000) n")
    orders.execute("ANALYZE doc")
    orders.execute("CALL archive_table('doc', NULL, where_clause => 'id <= 5000', batch_rows => 5000)")
    found = costs(orders, "doc")
    assert set(found) == {"local", "cold"}
    # By the bytes that a row of the table takes.
    assert found["cold"].bytes_without_archive == pytest.approx(found["local"].bytes / 2, rel=0.2)
    assert found["cold"].saved_per_month > 0


def test_what_the_plan_costs(orders):
    price(orders, local=1200, archived=230, put=5)
    # How many objects there will be is estimated from those that there are.
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    orders.execute("SELECT set_archive_policy('orders', archive_after => '1 month')")
    plan = orders.all("SELECT * FROM plan_archive('orders')")
    cost = orders.row("SELECT * FROM archive_plan_cost('orders')")
    assert cost.steps == len(plan) > 1
    assert cost.bytes_freed == sum(row.bytes_freed or 0 for row in plan) > 0
    assert cost.objects == sum(row.objects or 0 for row in plan) > 0
    assert cost.requests_cost == Decimal(cost.objects) * 5 / 1000
    assert cost.saved_per_month == sum(row.saved_per_month or 0 for row in plan) > 0


def test_each_sees_the_costs_of_what_he_may_read(orders, role):
    orders.execute("SELECT archive_partition('orders_2024_01')")
    stranger, reader = role("stranger"), role("reader")
    orders.execute(f"GRANT SELECT ON orders TO {reader}")
    seen = "SELECT (SELECT count(*) FROM archive_cost()), (SELECT count(*) FROM archive_ext.savings)"
    with orders.connect(stranger) as session:
        assert tuple(session.execute(seen).fetchone()) == (0, 0)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM archive_query_cost('SELECT * FROM archive.orders')")
    with orders.connect(reader) as session:
        assert tuple(session.execute(seen).fetchone()) == (3, 1)
