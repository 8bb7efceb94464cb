"""P4 of what changes several partitions at once: the server is killed in the middle of a merge, a split or a family's archive
and started again, then the same call, or the scheduler, ends what was begun, and every row is there once."""

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.proxy import Stall
from harness.sessions import Call

ROWS = 2000
MERGE = "CALL merge_partitions_steps(ARRAY['orders_2024_01', 'orders_2024_02', 'orders_2024_03']::regclass[])"
SPLIT = "CALL split_partition_steps('orders_2024q1', 'month')"

# Where a merge or split stands when it is killed: at which command, and the phase that its last commit reached.
POINTS = {
    "rows_copied": ("ddl_command_start", "ALTER TABLE", "copying"),
    "before_swap": ("ddl_command_start", "CREATE TABLE", "verified"),
    "in_swap": ("ddl_command_end", "ALTER TABLE", "verified"),
    "after_swap": ("ddl_command_start", "DROP TABLE", "swapped"),
}


@pytest.fixture
def stop(db):
    """stop(event, tag, phase): from then on a job that reached the phase stops for ever at such a command."""
    db.execute("CREATE TABLE stop_at (event text, tag text, phase text)")
    db.execute("""
        CREATE FUNCTION stop_here() RETURNS event_trigger SECURITY DEFINER LANGUAGE plpgsql AS $$
        BEGIN
            IF EXISTS (SELECT FROM public.stop_at s JOIN archive_ext.archival_job j ON j.phase = s.phase
                       WHERE s.event = tg_event AND s.tag = tg_tag AND j.status = 'running') THEN
                PERFORM pg_sleep(600);
            END IF;
        END $$""")
    for event in ("ddl_command_start", "ddl_command_end"):
        db.execute(f"CREATE EVENT TRIGGER {event}_stops ON {event} EXECUTE FUNCTION stop_here()")

    def stop(event, tag, phase):
        db.execute("INSERT INTO stop_at VALUES (%s, %s, %s)", [event, tag, phase])

    yield stop
    for event in ("ddl_command_start", "ddl_command_end"):
        db.execute(f"DROP EVENT TRIGGER {event}_stops")


def kill_at(cluster, db, point, stop, call):
    """Makes the call, kills the server at the point, and starts it again."""
    stop(*point)
    victim = Call(db.execute, call)
    with cluster.connect(db.name) as watcher:
        stopped = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep' AND datname = current_database()"
        wait_until(lambda: watcher.execute(stopped).fetchone()[0], 60, "the job to get there")
    cluster.kill_and_restart()
    with pytest.raises(psycopg.Error):
        victim.result(60)
    db.reconnect()
    db.execute("TRUNCATE stop_at")


@pytest.fixture
def orders(db):
    create_orders(db.conn, months=4, rows=ROWS)
    keep_truth(db, "orders")
    return db


def assert_ended(db):
    """Every row is there once, no table is left over, and whoever may write can."""
    assert_same_rows(db, "orders", "truth")
    left_over = """
        SELECT array_agg(c.relname::text) FROM pg_class c
        WHERE c.relkind = 'r' AND c.relname LIKE 'orders%' AND NOT c.relispartition OR c.relname LIKE 'archive_ext_scratch%'"""
    assert db.value(left_over) is None
    assert db.value("SELECT count(*) FROM archive_ext.archival_job WHERE status NOT IN ('completed', 'cancelled')") == 0
    db.execute("UPDATE orders SET note = note WHERE created_at >= '2024-04-01'")


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_p4_a_merge_that_was_killed(cluster, orders, stop, point):
    kill_at(cluster, orders, point, stop, MERGE)
    assert_same_rows(orders, "orders", "truth")
    orders.execute(MERGE)
    assert_ended(orders)
    assert orders.is_attached("orders_2024q1")


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_p4_a_split_that_was_killed(cluster, orders, stop, point):
    orders.execute(MERGE)
    kill_at(cluster, orders, point, stop, SPLIT)
    assert_same_rows(orders, "orders", "truth")
    orders.execute(SPLIT)
    assert_ended(orders)
    assert [orders.is_attached(f"orders_2024_{month:02}") for month in (1, 2, 3)] == [True] * 3


@pytest.mark.parametrize("point", POINTS.values(), ids=POINTS.keys())
def test_p4_the_scheduler_ends_a_merge_that_was_killed(cluster, orders, stop, point):
    orders.execute(f"ALTER DATABASE {orders.name} SET archive_ext.now = '2024-04-15'")
    orders.reconnect()
    orders.execute("SELECT set_archive_policy('orders', warm_after => '0', warm_granularity => 'quarter')")
    kill_at(cluster, orders, point, stop, "CALL run_lifecycle('orders')")
    assert_same_rows(orders, "orders", "truth")
    orders.execute("CALL run_lifecycle('orders')")
    assert_ended(orders)
    assert orders.is_attached("orders_2024q1")
    assert orders.value("SELECT label FROM archive_ext.partitions WHERE partition_name = 'orders_2024q1'") == "WARM_2024Q1"


# Children come first: each of these is between the members.
FAMILY_POINTS = {
    "second_upload": ("PUT|POST", r"/sale_2024_01[^/]*\.parquet"),
    "second_read_back": ("GET", r"/sale_2024_01[^/]*\.parquet"),
    "second_manifest": ("PUT", r"_manifests/sale_2024_01"),
}


@pytest.fixture
def sales(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    for table, columns in (("sale", "id int, PRIMARY KEY (id, sold_at)"),
                           ("sale_line", "sale_id int, line int, PRIMARY KEY (sale_id, sold_at, line),"
                                         " FOREIGN KEY (sale_id, sold_at) REFERENCES sale")):
        db.execute(f"CREATE TABLE {table} (sold_at timestamptz, {columns}) PARTITION BY RANGE (sold_at)")
        for month in (1, 2):
            db.execute(f"CREATE TABLE {table}_2024_{month:02} PARTITION OF {table}"
                       f" FOR VALUES FROM ('2024-{month:02}-01 00:00+00') TO ('2024-{month + 1:02}-01 00:00+00')")
    db.execute("INSERT INTO sale SELECT timestamptz '2024-01-01 00:00+00' + n * interval '1 hour', n"
               " FROM generate_series(0, 1400) n")
    db.execute("INSERT INTO sale_line SELECT sold_at, id, line FROM sale, generate_series(1, 3) line")
    db.execute("SELECT add_child_table('sale', 'sale_line')")
    keep_truth(db, "sale", "sale_truth")
    keep_truth(db, "sale_line", "sale_line_truth")
    return fault_proxy


def assert_all_sales(db):
    for table, columns in (("sale", "sold_at, id"), ("sale_line", "sold_at, sale_id, line")):
        source = f"archive.{table}_all" if db.exists(f"archive.{table}_all") else table
        assert_same_rows(db, source, f"{table}_truth", columns)


def assert_family_archived(db):
    assert_all_sales(db)
    for table in ("sale", "sale_line"):
        assert not db.is_attached(f"{table}_2024_01", table)
        assert db.value(f"SELECT count(*) FROM archive.{table}") == db.value(
            f"SELECT count(*) FROM {table}_truth WHERE sold_at < '2024-02-01 00:00+00'")
    assert db.value("SELECT count(*) FROM archive_ext.archival_job WHERE status NOT IN ('completed', 'cancelled')") == 0
    db.execute("DELETE FROM sale_line WHERE sold_at >= '2024-02-01 00:00+00'")


@pytest.mark.parametrize("call", ["CALL archive_family_steps('sale_2024_01')", "CALL run_lifecycle('sale')"],
                         ids=["steps", "scheduler"])
@pytest.mark.parametrize("method, target", FAMILY_POINTS.values(), ids=FAMILY_POINTS.keys())
def test_p4_a_family_that_was_killed_between_its_members(cluster, db, sales, call, method, target):
    schedule(db)
    rule = sales.on(method, target, fault=Stall())
    victim = Call(db.execute, call)
    assert rule.hit.wait(60)
    cluster.kill_and_restart()
    with pytest.raises(psycopg.Error):
        victim.result(60)
    sales.heal()
    db.reconnect()

    assert_all_sales(db)
    db.execute(call)
    assert_family_archived(db)


def schedule(db):
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.now = '2024-02-15'")
    db.reconnect()
    db.execute("SELECT set_archive_policy('sale', archive_after => '0', storage => 'cold', drop_after => '0')")


@pytest.mark.parametrize("call", ["CALL archive_family_steps('sale_2024_01')", "CALL run_lifecycle('sale')"],
                         ids=["steps", "scheduler"])
def test_p4_a_family_that_was_killed_when_the_child_was_swapped(cluster, db, sales, stop, call):
    """Both swaps are one transaction: neither is there."""
    schedule(db)
    kill_at(cluster, db, ("ddl_command_end", "ALTER TABLE", "verified"), stop, call)
    assert_all_sales(db)
    assert db.is_attached("sale_2024_01", "sale") and db.is_attached("sale_line_2024_01", "sale_line")
    db.execute(call)
    assert_family_archived(db)
