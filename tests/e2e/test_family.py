"""Tables that reference each other are archived and come back together: no reader sees half a family."""

import itertools

import psycopg
import pytest

from harness.cluster import wait_until
from harness.proxy import Stall
from harness.sessions import Call, Repeat

ORDERS = 3000  # a month
LINES = 3

JOIN = """SELECT count(*), sum(l.amount) FROM archive.orders_all o
          JOIN archive.order_line_all l ON (l.order_id, l.created_at) = (o.id, o.created_at)"""


def create_family(db):
    """January to April of orders and their lines; April is archived, so that the views exist."""
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.max_swap_time = 0")
    db.reconnect()
    db.execute("""CREATE TABLE orders (id bigint, created_at timestamptz, note text, PRIMARY KEY (id, created_at))
                  PARTITION BY RANGE (created_at)""")
    db.execute("""CREATE TABLE order_line (order_id bigint, created_at timestamptz, line int, amount int,
                    PRIMARY KEY (order_id, created_at, line),
                    FOREIGN KEY (order_id, created_at) REFERENCES orders) PARTITION BY RANGE (created_at)""")
    for month in range(1, 6):
        for table in ["orders", "order_line"]:
            db.execute(f"""CREATE TABLE {table}_2024_0{month} PARTITION OF {table}
                           FOR VALUES FROM ('2024-0{month}-01+00') TO ('2024-0{month + 1}-01+00')""")
        if month < 5:
            db.execute(f"""INSERT INTO orders SELECT {month} * 1000000 + n, '2024-0{month}-01+00'::timestamptz
                           + n * interval '1 minute', 'note ' || n FROM generate_series(1, {ORDERS}) n""")
    db.execute(f"INSERT INTO order_line SELECT id, created_at, l, l FROM orders, generate_series(1, {LINES}) l")
    db.execute("SELECT add_child_table('orders', 'order_line')")
    db.execute("SELECT archive_family('orders_2024_04', drop_local => '0')")


@pytest.fixture
def family(db, s3):
    s3.create_storage(db.conn)
    create_family(db)


def whole(db):
    """Every order and line is on one path, and every foreign key holds."""
    assert tuple(db.row(JOIN)) == (4 * ORDERS * LINES, 4 * ORDERS * sum(range(1, LINES + 1)))
    assert db.value("SELECT count(*) FROM archive.orders_all") == 4 * ORDERS
    orphans = """SELECT count(*) FROM order_line l WHERE NOT EXISTS (
                   SELECT FROM orders o WHERE (o.id, o.created_at) = (l.order_id, l.created_at))"""
    assert db.value(orphans) == 0
    assert db.value("SELECT bool_and(convalidated) FROM pg_constraint WHERE contype = 'f'")
    assert db.value("SELECT count(*) FROM archive_ext.archival_job WHERE status = 'running'") == 0


@pytest.mark.parametrize("call", [
    "SELECT archive_family('orders_2024_01', drop_local => '0')",
    "SELECT archive_family('orders_2024_01')",
    "CALL archive_family_steps('orders_2024_01')",
])
def test_p1_a_join_over_the_family_never_changes(db, family, call):
    readers = [db.connect(), db.connect()]
    backwards = JOIN.replace("archive.orders_all o\n          JOIN archive.order_line_all l",
                             "archive.order_line_all l\n          JOIN archive.orders_all o")
    assert backwards != JOIN
    expected = tuple(db.row(JOIN))

    def sample(reader, query):
        assert tuple(reader.execute(query).fetchone()) == expected

    with Repeat(lambda: sample(readers[0], JOIN)) as one, Repeat(lambda: sample(readers[1], backwards)) as other:
        db.execute(call)
        assert not db.is_attached("orders_2024_01") and not db.is_attached("order_line_2024_01", "order_line")
        db.execute("SELECT reattach_family('orders_2024_01')")

    assert min(one.steps, other.steps) > 3
    assert db.is_attached("orders_2024_01") and db.is_attached("order_line_2024_01", "order_line")
    whole(db)


def test_writers_in_either_order_and_families_do_not_deadlock(db, family):
    """Orders then lines, lines alone (the key is checked), and deletes of orders (which look for lines)."""
    numbers = itertools.count(50_000_000)
    db.execute(f"ALTER DATABASE {db.name} SET deadlock_timeout = '1s'")
    sessions = [db.connect() for _ in range(3)]
    main = db.connect()
    parent = 5_000_000
    db.execute("INSERT INTO orders VALUES (%s, '2024-05-02+00', 'parent')", [parent])

    def both():
        number = next(numbers)
        with sessions[0].transaction():
            sessions[0].execute("INSERT INTO orders VALUES (%s, '2024-05-03+00', 'x')", [number])
            sessions[0].execute("INSERT INTO order_line VALUES (%s, '2024-05-03+00', 1, 0)", [number])

    def lines():
        with sessions[1].transaction():
            number = next(numbers)
            sessions[1].execute("INSERT INTO order_line VALUES (%s, '2024-05-02+00', %s, 0)", [parent, number])
            sessions[1].execute("UPDATE orders SET note = 'y' WHERE id = %s AND created_at = '2024-05-02+00'", [parent])

    def delete():
        number = next(numbers)
        sessions[2].execute("INSERT INTO orders VALUES (%s, '2024-05-04+00', 'z')", [number])
        sessions[2].execute("DELETE FROM orders WHERE id = %s AND created_at = '2024-05-04+00'", [number])

    main.execute("SET archive_ext.lock_timeout = '20s'")
    with Repeat(both, 0) as first, Repeat(lines, 0) as second, Repeat(delete, 0) as third:
        for month in ["01", "02", "03"]:
            before = min(r.steps for r in (first, second, third))
            main.execute(f"SELECT archive_family('orders_2024_{month}')")
            wait_until(lambda: min(r.steps for r in (first, second, third)) > before, 20, "the writers to go on")
        main.execute("SELECT reattach_family('orders_2024_02')")

    assert min(first.steps, second.steps, third.steps) > 3
    assert db.value("SELECT count(*) FROM orders WHERE created_at >= '2024-05-01'") == first.steps + 1
    assert db.value("SELECT count(*) FROM order_line WHERE created_at >= '2024-05-01'") == first.steps + second.steps


def test_two_families_at_a_time(db, family):
    """Neither waits for the other for good: one may be told to try again, as the procedure does by itself."""
    calls = [Call(db.connect().execute, f"CALL archive_family_steps('orders_2024_0{month}')") for month in [1, 2]]

    for call in calls:
        call.result(120)

    assert db.value("SELECT count(*) FROM orders") == ORDERS
    whole(db)


@pytest.mark.parametrize("method, target", [
    ("PUT|POST", r"order_line_2024_01.*\.parquet"),
    ("PUT|POST", r"orders_2024_01.*\.parquet"),
    ("GET", r"orders_2024_01.*\.parquet"),
])
def test_p4_steps_that_were_interrupted_go_on(db, s3, fault_proxy, method, target):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_family(db)
    victim, pid = db.conn, db.conn.info.backend_pid
    rule = fault_proxy.on(method, target, fault=Stall())
    call = Call(victim.execute, "CALL archive_family_steps('orders_2024_01')")
    assert rule.hit.wait(60)
    db.connect().execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.Error):
        call.result(60)
    fault_proxy.heal()
    db.conn = db.connect()

    jobs = "SELECT job_id, partition_name, status FROM archive_ext.archival_job WHERE started_at = started_at"
    running = {r.job_id for r in db.all(jobs) if r.status == "running"}
    assert len(running) == 2, "one job for each member, neither given up"
    assert tuple(db.row(JOIN)) == (4 * ORDERS * LINES, 4 * ORDERS * sum(range(1, LINES + 1)))

    db.execute("CALL archive_family_steps('orders_2024_01')")

    assert {r.job_id for r in db.all(jobs) if r.status == "completed"} >= running
    assert db.value("SELECT count(*) FROM orders") == 2 * ORDERS
    whole(db)


def test_cancelling_one_job_ends_the_family(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_family(db)
    victim, pid = db.conn, db.conn.info.backend_pid
    rule = fault_proxy.on("PUT|POST", r"orders_2024_01.*\.parquet", fault=Stall())
    call = Call(victim.execute, "CALL archive_family_steps('orders_2024_01')")
    assert rule.hit.wait(60)
    db.connect().execute("SELECT pg_terminate_backend(%s)", [pid])
    with pytest.raises(psycopg.Error):
        call.result(60)
    fault_proxy.heal()
    db.conn = db.connect()
    child = db.value("""SELECT job_id FROM archive_ext.archival_job
                        WHERE status = 'running' AND partition_name = 'public.order_line_2024_01'""")

    assert db.value("SELECT cancel_job(%s)", [child])

    whole(db)
    db.execute("INSERT INTO orders VALUES (1, '2024-01-09', 'writable')")
    db.execute("INSERT INTO order_line VALUES (1, '2024-01-09', 1, 1)")


def test_children_of_one_row_are_looked_up_in_its_partition_alone(db, family):
    """With the time in the foreign key and the join, other partitions of the child are pruned."""
    def scanned(query):
        plan = "\n".join(r[0] for r in db.all(f"EXPLAIN (ANALYZE, COSTS OFF, TIMING OFF, SUMMARY OFF) {query}"))
        return {line.split(" on ")[1].split()[0] for line in plan.splitlines()
                if " on order_line" in line and "never executed" not in line}

    constant = """SELECT * FROM orders o JOIN order_line l ON (l.order_id, l.created_at) = (o.id, o.created_at)
                  WHERE o.id = 2000007 AND o.created_at = '2024-02-01 00:07+00'"""
    assert scanned(constant) == {"order_line_2024_02"}, "at plan time"
    by_id = """SELECT l.* FROM (SELECT * FROM orders WHERE id = 2000007 OFFSET 0) o
               CROSS JOIN LATERAL (SELECT * FROM order_line l
                                   WHERE (l.order_id, l.created_at) = (o.id, o.created_at) OFFSET 0) l"""
    assert scanned(by_id) == {"order_line_2024_02"}, "when it is run"
