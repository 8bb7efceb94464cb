"""Five years of a schema of ten tables under policies: a run each day, random writes, random crashes. In the end every row is
where the policy says, and accounted for. `make test` takes a run in two weeks, `make test-heavy` one each day."""

import os
import random
import threading
from datetime import date, timedelta

import psycopg
import pytest

from harness.cluster import Cluster, Database

BEGIN, YEARS = date(2020, 1, 1), 5
SEED = int(os.environ.get("ARCHIVE_EXT_SEED", "20240101"))

# name: (type of the key, policy, whether late rows fall into a DEFAULT partition)
TIMED = {
    "metric": ("timestamptz", "hot_after => '1 month', warm_after => '3 months', archive_after => '6 months'", False),
    "audit": ("date", "hot_after => '7 days', warm_after => '30 days', archive_after => '180 days'", False),
    "login": ("timestamp", "archive_after => '1 year'", False),
    "sensor": ("timestamptz", "hot_after => '2 months', archive_after => '8 months'", True),
    "invoice": ("date", "hot_after => '1 month', warm_after => '1 year', warm_granularity => 'year',"
                        " archive_after => '2 years'", False),
}


class World:
    """The tables, and beside each a plain copy, the truth, that gets the same writes."""

    def __init__(self, db, storage):
        self.db, self.random, self.next_id = db, random.Random(SEED), 0
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{storage}')")
        db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
        db.execute(f"ALTER DATABASE {db.name} SET archive_ext.drop_after = 0")
        db.execute("CREATE SCHEMA truth")
        db.conn = db.connect()
        for name, (kind, policy, default) in TIMED.items():
            self.create(name, f"at {kind} NOT NULL, id bigint NOT NULL, note text, PRIMARY KEY (id, at)",
                        "RANGE (at)", policy + ", premake => 2", default)
        self.create("orders", "at date NOT NULL, id bigint NOT NULL, note text, PRIMARY KEY (id, at)", "RANGE (at)",
                    "hot_after => '1 month', warm_after => '4 months', archive_after => '1 year', premake => 2")
        self.create("order_line", "at date NOT NULL, id bigint NOT NULL, line int NOT NULL, note text,"
                    " PRIMARY KEY (id, at, line)", "RANGE (at)", "premake => 2")
        db.execute("ALTER TABLE order_line ADD CONSTRAINT of_order FOREIGN KEY (id, at) REFERENCES orders (id, at)")
        db.execute("SELECT add_child_table('orders', 'order_line')")
        self.create_tickets()
        db.execute("CREATE TABLE customer (id bigint PRIMARY KEY, note text) PARTITION BY HASH (id)")
        for remainder in range(4):
            db.execute(f"CREATE TABLE customer_{remainder} PARTITION OF customer"
                       f" FOR VALUES WITH (MODULUS 4, REMAINDER {remainder})")
        db.execute("CREATE TABLE country (code text PRIMARY KEY, note text)")
        db.execute("SELECT register_static_table('country', 'every invoice names one')")
        for name in ["customer", "country"]:
            db.execute(f"CREATE TABLE truth.{name} (LIKE {name})")

    def create(self, name, columns, by, policy, default=False):
        db = self.db
        db.execute(f"CREATE TABLE {name} ({columns}) PARTITION BY {by}")
        db.execute(f"CREATE TABLE truth.{name} (LIKE {name})")
        first = BEGIN.replace(day=1)
        db.execute(f"CREATE TABLE {name}_{first:%Y_%m} PARTITION OF {name}"
                   f" FOR VALUES FROM ('{first}') TO ('{next_month(first)}')")
        if default:
            db.execute(f"CREATE TABLE {name}_default PARTITION OF {name} DEFAULT")
        db.execute(f"SELECT set_archive_policy('{name}', {policy})")

    def create_tickets(self):
        db = self.db
        db.execute("""
            CREATE TABLE ticket (id bigint NOT NULL, lifecycle_status text NOT NULL, opened_at timestamptz NOT NULL,
                                 removal_time timestamptz, note text, PRIMARY KEY (id, lifecycle_status))
            PARTITION BY LIST (lifecycle_status)""")
        db.execute("CREATE TABLE truth.ticket (LIKE ticket)")
        db.execute("CREATE TABLE ticket_hot PARTITION OF ticket FOR VALUES IN ('HOT')")
        db.execute("SELECT set_archive_policy('ticket', hot_after => '1 month', removal_column => 'removal_time')")

    def write(self, name, statement):
        """The same to the table and to its truth, or to neither."""
        with self.db.conn.transaction():
            for table in [name, f"truth.{name}"]:
                self.db.execute(statement.format(t=table))

    def live(self, today):
        """A day of writes: new rows, some of them late, changes and deletions among the recent ones."""
        pick = self.random
        for name, (_, _, default) in TIMED.items():
            rows = pick.randint(1, 30)
            late = pick.randint(0, 20) if default else 0
            self.insert(name, today - timedelta(days=late), rows)
            recent = today - timedelta(days=5)
            if pick.random() < 0.3:
                self.write(name, f"UPDATE {{t}} SET note = note || '!' WHERE at >= '{recent}' AND id % 3 = 0")
            if pick.random() < 0.2:
                self.write(name, f"DELETE FROM {{t}} WHERE at >= '{recent}' AND id % 7 = 0")
        begin = self.next_id
        self.insert("orders", today, pick.randint(1, 10))
        for line in range(pick.randint(1, 3)):
            self.write("order_line", f"INSERT INTO {{t}} (at, id, line, note) SELECT '{today}', n, {line}, 'line'"
                                     f" FROM generate_series({begin + 1}, {self.next_id}) n")
        self.tickets(today)
        self.next_id += 1
        self.write("customer", f"INSERT INTO {{t}} VALUES ({self.next_id}, 'customer')")

    def insert(self, name, day, rows):
        begin, self.next_id = self.next_id, self.next_id + rows
        self.write(name, f"INSERT INTO {{t}} (at, id, note) SELECT '{day}', n, md5(n::text)"
                         f" FROM generate_series({begin + 1}, {self.next_id}) n")

    def tickets(self, today):
        label = f"LIVE_{today:%Y%m}"
        self.db.execute(f"CREATE TABLE IF NOT EXISTS ticket_{label.lower()} PARTITION OF ticket"
                        f" FOR VALUES IN ('{label}')")
        self.next_id += 1
        self.write("ticket", f"INSERT INTO {{t}} (id, lifecycle_status, opened_at, note)"
                             f" VALUES ({self.next_id}, '{label}', '{today}', 'ticket')")

    def run(self, today, crash):
        """One run of the lifecycle; a crash comes in the middle of it, and then it is run again."""
        if crash:
            runner = threading.Thread(target=self.attempt, args=(today,))
            runner.start()
            runner.join(self.random.random() * 0.5)
            self.db.cluster.kill_and_restart()
            runner.join()
            self.db.reconnect()
        self.call(self.db.conn, today)

    def attempt(self, today):
        try:
            self.call(self.db.connect(), today)
        except psycopg.OperationalError:
            pass

    def call(self, conn, today):
        conn.execute(f"SET archive_ext.now = '{today} 03:00+00'")
        conn.execute("CALL run_lifecycle()")


def next_month(day):
    return (day.replace(day=1) + timedelta(days=32)).replace(day=1)


@pytest.fixture
def world():
    cluster = Cluster()
    db = Database(cluster, "simulation")
    yield World(db, cluster.storage)
    db.drop()
    cluster.stop()


def simulate(world, days):
    today, end = BEGIN, BEGIN.replace(year=BEGIN.year + YEARS)
    while today < end:
        world.live(today)
        world.run(today, crash=world.random.random() < 6 * days / (YEARS * 365))
        today += timedelta(days=days)
    world.run(end, crash=False)
    return end


def check(world, end):
    db = world.db
    for name in [*TIMED, "orders", "order_line", "ticket"]:
        columns = {"ticket": "id, opened_at, note"}.get(name, "at, id, note")
        everything = f"archive.{name}_all" if db.exists(f"archive.{name}_all") else name
        for left, right in [(everything, f"truth.{name}"), (f"truth.{name}", everything)]:
            missing = db.value(f"SELECT count(*) FROM (SELECT {columns} FROM {left} EXCEPT ALL"
                               f" SELECT {columns} FROM {right}) d")
            assert missing == 0, f"{left} has {missing} rows that {right} has not"
    stuck = db.all("SELECT operation, partition_name, status, error FROM archive_ext.jobs"
                   " WHERE status NOT IN ('completed', 'cancelled')")
    assert not stuck
    # No partition lags behind its policy.
    late = db.all("SELECT * FROM plan_archive() WHERE starts <= %s", [f"{end} 03:00+00"])
    assert not late
    for name, after in [("metric", 6), ("login", 12), ("sensor", 8), ("orders", 12), ("order_line", 12)]:
        kept = db.value(f"SELECT count(*) FROM {name} WHERE at < date '{end}' - make_interval(months => {after + 1})")
        assert kept == 0, name
        assert db.value(f"SELECT count(*) FROM archive.{name}") > 0


@pytest.mark.timeout(900)
def test_five_years_of_ten_tables(world):
    check(world, simulate(world, days=14))


@pytest.mark.heavy
@pytest.mark.timeout(7200)
def test_five_years_day_by_day(world):
    check(world, simulate(world, days=1))
