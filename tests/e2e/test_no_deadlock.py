"""Archives beside everything else that locks tables: nothing deadlocks, nothing waits unbounded, and no row is lost."""

import itertools
import os
import random
import subprocess
import threading
import time
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from harness.cluster import Cluster, Database, wait_until
from harness.orders import create_wide
from harness.sessions import Call

SECONDS = 40
LOCK_TIMEOUT = 2.0
# What a sample, a slow machine and the swap itself may add to the longest wait for us.
SLACK = 1.5

MONTHS = 6
OLD = range(1, 4)  # the months that are archived


@pytest.fixture(scope="module")
def busy():
    """Decodes logically, vacuums whatever was touched, and knows two-phase commit."""
    cluster = Cluster("wal_level=logical", "max_wal_senders=4", "max_replication_slots=4", "max_worker_processes=24",
                      "max_prepared_transactions=4", "autovacuum_naptime=1s", "autovacuum_vacuum_threshold=1",
                      "autovacuum_vacuum_scale_factor=0", "autovacuum_vacuum_insert_threshold=1",
                      "autovacuum_vacuum_insert_scale_factor=0", "autovacuum_analyze_threshold=1",
                      "autovacuum_analyze_scale_factor=0")
    yield cluster
    cluster.stop()


@pytest.fixture
def db(busy):
    database = Database(busy, f"busy_{next(_numbers)}")
    database.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
                     f" OPTIONS (location 'file://{busy.storage / database.name}')")
    for setting in ["archive_ext.default_storage = 'cold'", "archive_ext.max_swap_time = 0"]:
        database.execute(f"ALTER DATABASE {database.name} SET {setting}")
    database.reconnect()
    yield database
    database.drop()


_numbers = itertools.count(1)


def months(db, table, columns, rows):
    db.execute(f"CREATE TABLE {table} ({columns}) PARTITION BY RANGE (day)")
    for month in range(1, MONTHS + 1):
        db.execute(f"CREATE TABLE {table}_{month} PARTITION OF {table}"
                   f" FOR VALUES FROM ('2024-{month:02}-01') TO ('2024-{month + 1:02}-01')")
    if rows:
        db.execute(f"INSERT INTO {table} (id, day, customer) SELECT n, date '2024-01-01' + n % 180, 1 + n % 50"
                   f" FROM generate_series(1, {rows}) n")


def create_tables(db):
    """Keys go both ways: orders reference customers, items the young orders. Sales and their parts are a family."""
    db.execute("CREATE TABLE customers (id int PRIMARY KEY, name text, seen int DEFAULT 0)")
    db.execute("INSERT INTO customers SELECT n, 'customer ' || n FROM generate_series(1, 50) n")
    key = "id bigint NOT NULL, day date NOT NULL, customer int"
    months(db, "orders", f"{key} REFERENCES customers, note text, PRIMARY KEY (id, day)", 3000)
    db.execute("CREATE TABLE items (id bigint PRIMARY KEY, order_id bigint, day date, FOREIGN KEY (order_id, day) REFERENCES orders)")
    db.execute("CREATE INDEX ON items (order_id, day)")
    db.execute("INSERT INTO items SELECT id, id, day FROM orders WHERE day >= '2024-05-01'")
    months(db, "logs", key, 3000)
    months(db, "sales", f"{key}, PRIMARY KEY (id, day)", 1000)
    months(db, "parts", f"{key}, sale bigint, FOREIGN KEY (sale, day) REFERENCES sales", 0)
    db.execute("CREATE INDEX ON parts (sale, day)")
    db.execute("INSERT INTO parts SELECT id, day, customer, id FROM sales")
    db.execute("SELECT add_child_table('sales', 'parts')")
    db.execute("CREATE TABLE audit (id bigint PRIMARY KEY, day date NOT NULL, customer int REFERENCES customers)")
    db.execute("INSERT INTO audit SELECT n, date '2023-01-01' + n % 300, 1 + n % 50 FROM generate_series(1, 4000) n")
    # So that every archive relation exists, as it does from the first day on.
    for table in ["orders", "logs"]:
        db.execute(f"SELECT archive_partition('{table}_1', drop_local => '0')")
        db.execute(f"SELECT reattach_partition('{table}_1', writable => true)")
    db.execute("SELECT archive_family('sales_1', drop_local => '0')")
    db.execute("SELECT reattach_family('sales_1', writable => true)")
    db.execute("SELECT archive_table_batch('audit', archive_before => '2024-01-01', batch_rows => 10)")


# What may happen to those who archive: locks that others hold, another session's run, and its result.
DOCUMENTED = {"55P03", "55006", "55000", "42704", "42P01", "25001"}


class Actor(threading.Thread):
    """Calls `step(session, n)` until told to stop; errors with these SQLSTATEs are counted, others end the test."""

    def __init__(self, name, db, stop, step, allowed=(), pause=0.005, settings=(), **connection):
        super().__init__(name=name, daemon=True)
        self.session = db.connect(application_name=name, **connection)
        for setting in settings:
            self.session.execute(f"SET {setting}")
        self.done, self.errors, self.failure, self.slowest = 0, {}, None, 0.0
        self.stop, self.step, self.allowed, self.pause = stop, step, set(allowed), pause
        self.unexplained = []

    def run(self):
        for number in itertools.count():
            if self.stop.is_set():
                return
            began = time.monotonic()
            try:
                self.step(self.session, number)
                self.done += 1
            except psycopg.Error as error:
                if error.sqlstate not in self.allowed:
                    self.failure = error
                    return
                self.errors[error.sqlstate] = self.errors.get(error.sqlstate, 0) + 1
                if error.sqlstate == "55P03" and not error.diag.message_detail:
                    self.unexplained.append(error.diag.message_primary)
                self.session.rollback()
            except Exception as error:  # noqa: BLE001 - raised by the test
                self.failure = error
                return
            self.slowest = max(self.slowest, time.monotonic() - began)
            self.stop.wait(self.pause)


class Ledger:
    """The ids that were inserted and deleted by transactions whose commit was confirmed."""

    def __init__(self):
        self._ids, self.lock, self.kept = itertools.count(1_000_000), threading.Lock(), {}

    def next(self):
        return next(self._ids)

    def keep(self, table, *ids):
        with self.lock:
            self.kept.setdefault(table, set()).update(ids)

    def drop(self, table, number):
        with self.lock:
            self.kept[table].discard(number)


def day(month):
    return f"2024-{month:02}-{random.randrange(1, 28):02}"


def write_orders(ledger):
    """Reads a partition, then writes to it; then to its neighbours, in varying order."""

    def step(session, number):
        month, new = random.randrange(1, MONTHS + 1), ledger.next()
        with session.transaction():
            session.execute(f"SELECT count(*) FROM orders WHERE day = '{day(month)}'")
            session.execute("INSERT INTO orders VALUES (%s, %s, %s)", [new, day(month), 1 + number % 50])
            if number % 3 == 0:
                session.execute("UPDATE customers SET seen = seen + 1 WHERE id = %s", [1 + number % 25])
        ledger.keep("orders", new)
        if number % 5 == 0:
            session.execute("DELETE FROM orders WHERE id = %s", [new])
            # It may be archived by now: then the hot table has no such row.
            if not session.execute("SELECT FROM archive.orders_all WHERE id = %s", [new]).fetchall():
                ledger.drop("orders", new)

    return step


def write_items(ledger):
    """The other way round: the referencing table first."""

    def step(session, number):
        order, item, young = ledger.next(), ledger.next(), day(random.randrange(5, MONTHS + 1))
        with session.transaction():
            session.execute("UPDATE items SET day = day WHERE id = %s", [1 + number % 3000])
            session.execute("INSERT INTO orders VALUES (%s, %s, %s)", [order, young, 26 + number % 25])
            session.execute("INSERT INTO items VALUES (%s, %s, %s)", [item, order, young])
        ledger.keep("orders", order)
        ledger.keep("items", item)

    return step


def write_family(ledger):
    def step(session, number):
        sale, part, when = ledger.next(), ledger.next(), day(random.randrange(1, MONTHS + 1))
        with session.transaction():
            if number % 2:
                session.execute("SELECT count(*) FROM parts WHERE day = %s", [when])
            session.execute("INSERT INTO sales VALUES (%s, %s, 1)", [sale, when])
            session.execute("INSERT INTO parts VALUES (%s, %s, 1, %s)", [part, when, sale])
        ledger.keep("sales", sale)
        ledger.keep("parts", part)

    return step


def write_logs(ledger):
    def step(session, _):
        new = ledger.next()
        session.execute("INSERT INTO logs VALUES (%s, %s, 1)", [new, day(random.randrange(1, MONTHS + 1))])
        ledger.keep("logs", new)

    return step


def write_audit(ledger):
    def step(session, number):
        new = ledger.next()
        session.execute("INSERT INTO audit VALUES (%s, '2023-06-01', %s)", [new, 1 + number % 50])
        session.execute("UPDATE audit SET day = day WHERE id = %s", [1 + number * 7 % 4000])
        ledger.keep("audit", new)

    return step


def read(level):
    """The table and the view over it, in either order, in one transaction."""

    def step(session, number):
        session.isolation_level = level
        with session.transaction():
            for source in (["orders", "archive.orders_all"], ["archive.orders_all", "orders"])[number % 2]:
                session.execute(f"SELECT count(*) FROM {source}")

    return step


def archive_and_back(partition, how):
    def step(session, number):
        if not session.execute(f"SELECT to_regclass('{partition}') IS NOT NULL").fetchone()[0]:
            pass  # its way back failed the last time
        elif how == "steps":
            session.execute(f"CALL archive_partition_steps(ARRAY['{partition}']::regclass[], drop_local => '0')")
        else:
            session.execute(f"SELECT archive_partition('{partition}', drop_local => {how})")
        session.execute(f"SELECT reattach_partition('{partition}', writable => true)")

    return step


def families(session, number):
    partition = f"sales_{OLD[number % len(OLD)]}"
    if session.execute(f"SELECT to_regclass('{partition}') IS NOT NULL").fetchone()[0]:
        session.execute(f"SELECT archive_family('{partition}', drop_local => '0')")
    session.execute(f"SELECT reattach_family('{partition}', writable => true)")


def lifecycle(session, number):
    # What was put back because of a lock is due again ten seconds later.
    session.execute(f"SET archive_ext.now = '{datetime(2024, 5, 15, tzinfo=UTC) + timedelta(seconds=15 * number)}'")
    session.execute("CALL run_lifecycle('logs')")
    for month in OLD:
        if session.execute(f"SELECT to_regclass('archive.logs_{month}') IS NOT NULL").fetchone()[0]:
            session.execute(f"SELECT reattach_partition('logs_{month}', writable => true)")


def batches(session, number):
    session.execute("SELECT archive_table_batch('audit', archive_before => '2024-01-01', batch_rows => 200)")
    if number % 3 == 0:
        session.execute("SELECT restore_rows('audit', 'id % 3 = 0')")
    if number % 4 == 0:
        session.execute("SELECT compact_archive('audit')")


ORDERS_DDL = [
    "ALTER TABLE orders ADD COLUMN extra_{n} int", "ALTER TABLE orders DROP COLUMN extra_{n}",
    "CREATE INDEX CONCURRENTLY again ON orders_2 (note)", "DROP INDEX CONCURRENTLY IF EXISTS again",
    "CREATE INDEX CONCURRENTLY seen ON customers (seen)", "DROP INDEX CONCURRENTLY IF EXISTS seen",
    "CREATE INDEX CONCURRENTLY item_day ON items (day)", "DROP INDEX CONCURRENTLY IF EXISTS item_day",
    "REINDEX TABLE CONCURRENTLY orders_1", "REINDEX TABLE CONCURRENTLY items", "REINDEX TABLE CONCURRENTLY customers",
    "ALTER TABLE orders ALTER COLUMN note SET STATISTICS {n}", "GRANT SELECT ON orders TO PUBLIC",
    # Not beside the others of the partition in a session of their own: VACUUM FULL and CREATE INDEX CONCURRENTLY deadlock.
    "VACUUM orders_1", "VACUUM FULL orders_2",
    "REVOKE SELECT ON orders FROM PUBLIC", "ANALYZE orders", "CREATE INDEX noted ON orders (note)", "DROP INDEX noted",
    "CREATE TRIGGER nothing BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger()",
    # By itself it locks the partitions before the table, and deadlocks with any reader.
    "LOCK TABLE orders; DROP TRIGGER IF EXISTS nothing ON orders",
]

LOGS_DDL = [
    "CREATE TABLE IF NOT EXISTS spare (LIKE logs)", "ALTER TABLE logs ATTACH PARTITION spare FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
    "ALTER TABLE logs DETACH PARTITION spare", "ALTER TABLE logs ATTACH PARTITION spare FOR VALUES FROM ('2030-01-01') TO ('2031-01-01')",
    "ALTER TABLE logs DETACH PARTITION spare CONCURRENTLY", "VACUUM logs", "VACUUM FULL logs_2", "CREATE INDEX IF NOT EXISTS log_day ON logs_1 (day)",
    "CLUSTER logs_1 USING log_day", "ANALYZE logs", "VACUUM (FREEZE) audit",
]


def statements(texts):
    def step(session, number):
        session.execute(texts[number % len(texts)].format(n=number // len(texts) % 100))

    return step


def dump(db):
    def step(_session, _number):
        subprocess.run([db.cluster.program("pg_dump"), "-h", str(db.cluster.dir), "-U", "postgres", "--lock-wait-timeout=5s",
                        "-f", os.devnull, db.name], check=False, stderr=subprocess.DEVNULL, timeout=60)

    return step


def decode(session, _number):
    session.execute("SELECT count(*) FROM pg_logical_slot_get_binary_changes('feed', NULL, NULL, 'proto_version', '1', 'publication_names', 'feed')")


class Waits(threading.Thread):
    """The longest that anybody was seen waiting for a lock of those who archive, and that these waited for one lock.

    CREATE INDEX CONCURRENTLY and the like also wait for their snapshots, as long as a call takes; these are not looked at.
    """

    SAMPLE = """
        SELECT a.application_name, extract(epoch FROM clock_timestamp() - l.waitstart)::float8, left(a.query, 60)
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.datname = current_database() AND l.locktype <> 'virtualxid'
          AND a.application_name NOT LIKE 'archiver%%' AND a.backend_type = 'client backend'
          AND EXISTS (SELECT FROM unnest(pg_blocking_pids(l.pid)) b JOIN pg_stat_activity o ON o.pid = b
                      WHERE o.application_name LIKE 'archiver%%' OR o.backend_type LIKE 'archive_ext%%')"""

    OURS = """
        SELECT a.application_name || a.backend_type, extract(epoch FROM clock_timestamp() - l.waitstart)::float8,
               concat_ws(' ', l.locktype, l.relation::regclass, l.mode, (
                 SELECT string_agg(o.application_name || ': ' || left(o.query, 60), '; ')
                 FROM unnest(pg_blocking_pids(l.pid)) b JOIN pg_stat_activity o ON o.pid = b))
        FROM pg_locks l JOIN pg_stat_activity a USING (pid)
        WHERE NOT l.granted AND l.waitstart IS NOT NULL AND a.datname = current_database()
          AND (a.application_name LIKE 'archiver%%' OR a.backend_type LIKE 'archive_ext%%')"""

    def __init__(self, db, stop):
        super().__init__(daemon=True)
        self.session, self.stop, self.longest, self.ours, self.failure = db.connect(), stop, {}, {}, None

    def run(self):
        try:
            while not self.stop.wait(0.1):
                for sample, longest in [(self.SAMPLE, self.longest), (self.OURS, self.ours)]:
                    for name, seconds, query in self.session.execute(sample).fetchall():
                        longest[name] = max(longest.get(name, (0, "")), (seconds, query))
        except psycopg.Error as error:
            self.failure = error


def deadlocks(cluster):
    """What the log tells about the first deadlocks: who waited for whom, and by which statements."""
    log = cluster.log().splitlines()
    found = [number for number, line in enumerate(log) if "deadlock detected" in line]
    return "\n".join(line for number in found[:3] for line in log[number:number + 9])


def guarded(db):
    """The partitions that nobody can write to; local copies of archived ones stay so."""
    return db.all("""
        SELECT DISTINCT tgrelid::regclass::text FROM pg_trigger
        WHERE tgname LIKE 'archive_ext_guard%' AND tgenabled <> 'D'
          AND tgrelid NOT IN (SELECT local_copy::oid FROM archive_ext.partition WHERE local_copy IS NOT NULL)""")


def test_p1_p6_archives_beside_dml_ddl_vacuum_dumps_and_replication(busy, db):
    create_tables(db)
    db.execute("SELECT set_archive_policy('logs', archive_after => '1 month', drop_after => '0', storage => 'cold')")
    db.execute("CREATE PUBLICATION feed FOR TABLE orders, items, logs WITH (publish_via_partition_root = true)")
    db.execute("SELECT pg_create_logical_replication_slot('feed', 'pgoutput')")
    tables = ["orders", "items", "logs", "sales", "parts", "audit"]
    source = {t: f"archive.{t}_all" if t != "items" else t for t in tables}
    before = {t: db.value(f"SELECT count(*) FROM {source[t]}") for t in tables}
    stop, ledger = threading.Event(), Ledger()

    def actor(name, step, allowed=(), **more):
        return Actor(name, db, stop, step, allowed, **more)

    # 23514: a month is archived; 23503: the order is; 55006: it is frozen.
    late = {"55006", "23514", "23503"}
    patient = {"settings": ["lock_timeout = '5s'"]}
    actors = [
        actor("writer of orders", write_orders(ledger), late), actor("writer of items", write_items(ledger), late),
        actor("writer of sales", write_family(ledger), late), actor("writer of logs", write_logs(ledger), late),
        actor("writer of audit", write_audit(ledger), late),
        actor("reader", read(psycopg.IsolationLevel.READ_COMMITTED)),
        actor("serializable reader", read(psycopg.IsolationLevel.SERIALIZABLE), {"40001"}),
        actor("archiver by function", archive_and_back("orders_1", "'0'"), DOCUMENTED),
        actor("archiver keeping copies", archive_and_back("orders_2", "NULL"), DOCUMENTED),
        actor("archiver in steps", archive_and_back("orders_3", "steps"), DOCUMENTED),
        actor("archiver of families", families, DOCUMENTED), actor("archiver by policy", lifecycle, DOCUMENTED),
        actor("archiver of rows", batches, DOCUMENTED | {"40001"}),
        actor("ddl of orders", statements(ORDERS_DDL), {"55P03", "42P01", "42701", "42703", "42P07", "42710", "42704"}, pause=0.2, **patient),
        actor("ddl of logs", statements(LOGS_DDL), {"55P03", "42P01", "42809", "55000", "42P17", "42P07", "42704"}, **patient),
        actor("dump", dump(db), pause=1), actor("decoder", decode, pause=0.5),
    ]
    # A table that somebody keeps reading: the steps try again and in the end tell who it was.
    db.execute("CREATE TABLE idle (id int, day date) PARTITION BY RANGE (day)")
    db.execute("CREATE TABLE idle_1 PARTITION OF idle FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
    blocker, stepper = db.connect(application_name="the long report"), db.connect(application_name="archiver of idle")
    told = []
    stepper.add_notice_handler(lambda notice: told.append(notice.message_primary))
    stepper.execute("SET archive_ext.lock_timeout = '100ms'")
    blocker.execute("BEGIN")
    blocker.execute("LOCK TABLE ONLY idle IN ACCESS SHARE MODE")
    blocked = Call(stepper.execute, "CALL archive_partition_steps(ARRAY['idle_1']::regclass[])")

    waits = Waits(db, stop)
    for thread in [*actors, waits]:
        thread.start()
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and not any(a.failure for a in actors):
        time.sleep(0.2)
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        blocked.result(60)
    stop.set()
    for thread in [*actors, waits]:
        thread.join(60)
        assert not thread.is_alive(), f"{thread.name} hangs"

    report = {a.name: (a.done, a.errors, round(a.slowest, 2)) for a in actors}
    print(*report.items(), *waits.longest.items(), *waits.ours.items(), sep="\n")
    print(deadlocks(busy))
    failures = {a.name: a.failure for a in actors if a.failure}
    assert not failures, failures
    assert not waits.failure, waits.failure
    assert "deadlock detected" not in busy.log(), deadlocks(busy)

    explained = refused.value.diag.message_detail
    assert f"Process {blocker.info.backend_pid} (user postgres, idle in transaction, query started" in explained
    # Each step has its own attempts, and a dump may be in the way of another.
    assert len([text for text in told if "trying again (10 of 10)" in text]) == 1
    blocker.execute("ROLLBACK")

    # Who is in the way is named, but where PostgreSQL itself waited for a lock within a statement of ours.
    unexplained = {text for a in actors if a.name.startswith("archiver") for text in a.unexplained}
    assert unexplained <= {"canceling statement due to lock timeout"}, unexplained
    too_long = {n: w for n, w in [*waits.longest.items(), *waits.ours.items()] if w[0] > LOCK_TIMEOUT + SLACK}
    assert not too_long, too_long
    archivers = [a for a in actors if a.name.startswith("archiver")]
    assert all(a.done for a in actors if a not in archivers), report
    assert sum(a.done for a in archivers) > 10, report
    assert db.value("SELECT count(*) FROM archive_ext.events WHERE event = 'archived' AND partition_name LIKE '%orders%'") > 3

    # Guards of runs that failed go away; nothing stays frozen.
    for job in db.all("SELECT job_id FROM archive_ext.jobs WHERE status IN ('pending', 'running', 'paused')"):
        db.execute("SELECT cancel_job(%s)", [job[0]])
    deadline = time.monotonic() + 30
    wait_until(lambda: not guarded(db) or time.monotonic() > deadline, 60, "the last guards to be lifted")
    assert not guarded(db)
    for table in tables:
        rows, distinct = db.row(f"SELECT count(*), count(DISTINCT id) FROM {source[table]}")
        assert rows == distinct == before[table] + len(ledger.kept.get(table, [])), table
        found = {r[0] for r in db.all(f"SELECT id FROM {source[table]} WHERE id >= 1000000")}
        assert found == ledger.kept.get(table, set()), table
    db.execute("SELECT pg_drop_replication_slot('feed')")


def slow_export(db):
    """A table whose export takes five seconds, in steps, and the call that does it."""
    create_wide(db.conn, rows=700)
    runner = db.connect(application_name="archiver")
    runner.execute("SET archive_ext.max_rate = '200kB'")
    call = Call(runner.execute, "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[], drop_local => '0')")
    wait_until(lambda: db.all("SELECT FROM archive_ext.progress WHERE phase = 'exporting'"), 30, "the export")
    return runner, call


def test_p6_an_export_gives_way_to_alter_table_of_the_whole_table(db):
    _, call = slow_export(db)
    other, reader = db.connect(), db.connect()

    began = time.monotonic()
    other.execute("ALTER TABLE orders ADD COLUMN later int DEFAULT 7")
    reader.execute("SELECT count(*) FROM orders_2024_02")

    assert time.monotonic() - began < 3, "it did not wait for the end of the export"
    call.result(90)
    assert db.row("SELECT count(*), sum(later) FROM archive.orders") == (700, 7 * 700)


def test_create_index_concurrently_elsewhere_waits_for_one_step_and_wins(db):
    _, call = slow_export(db)
    db.execute("CREATE TABLE other (id int)")
    indexer = db.connect()

    began = time.monotonic()
    indexer.execute("CREATE INDEX CONCURRENTLY ON other (id)")
    waited = time.monotonic() - began

    # Its last phase waits for every snapshot that is older, an export's like a dump's, and for no more than that.
    assert waited < 20
    print(f"CREATE INDEX CONCURRENTLY took {waited:.1f} s")
    assert db.value("SELECT bool_and(indisvalid) FROM pg_index WHERE indrelid = 'other'::regclass")
    call.result(90)


def test_what_a_database_sets_for_its_sessions_is_not_for_the_workers(db):
    create_wide(db.conn, rows=10)
    for setting in ["default_transaction_read_only = on", "default_transaction_isolation = serializable"]:
        db.execute(f"ALTER DATABASE {db.name} SET {setting}")
    session = db.connect()
    session.execute("SET default_transaction_read_only = off; SET default_transaction_isolation = 'read committed'")

    session.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")

    assert session.execute("SELECT count(*) FROM archive.orders").fetchone() == (10,)


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_p1_p4_two_phase_commit_of_an_archive(db, end):
    create_wide(db.conn, rows=100)
    db.execute("BEGIN")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("PREPARE TRANSACTION 'archive'")
    # Its locks stay until the second phase: that is what two-phase commit is.
    with pytest.raises(psycopg.errors.LockNotAvailable):
        with db.conn.transaction():
            db.execute("SET LOCAL lock_timeout = '200ms'")
            db.execute("SELECT count(*) FROM orders")

    db.execute(f"{end} PREPARED 'archive'")

    table = "archive.orders" if end == "COMMIT" else "orders"
    assert db.value(f"SELECT count(*) FROM {table}") == 100
    wait_until(lambda: not guarded(db), 10, "the partition to be writable")
