"""A database that is worked on while it is killed: partitioned and plain tables, clients that change and read them, an oracle of
each table."""

from datetime import datetime, timezone

from harness.cluster import Database
from harness.oracle import Oracle, Reader, Resting, Writer

# Partitioned by month; rows are archived one by one; the two that go together by cascade; what a policy archives.
PARTITIONED, PLAIN, CASCADE, KIN, POLICY = "c", "p", "f", "g", "w"
LIVE = (datetime(2100, 1, 1, tzinfo=timezone.utc), datetime(2101, 1, 1, tzinfo=timezone.utc))
PAST = (datetime(2001, 1, 1, tzinfo=timezone.utc), datetime(2002, 1, 1, tzinfo=timezone.utc))


def seconds(lower, upper):
    return int(lower.timestamp()), int(upper.timestamp()) - 1


def local_storage(cluster, name="world"):
    """What creates a world's storage: a directory of the cluster."""

    def create_storage(conn):
        conn.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{name}')")
        conn.execute("ALTER DATABASE world SET archive_ext.default_storage = 'cold'")
        conn.execute("SET archive_ext.default_storage = 'cold'")

    return create_storage


class World:
    def __init__(self, cluster, create_storage, seed=0, read_every=0.05):
        self.cluster, self._months, self._ids = cluster, 0, 0
        self.db = Database(cluster, "world")
        # How long joins under the lock will take is a guess, a bad one on a busy machine.
        self.db.execute("ALTER DATABASE world SET archive_ext.max_swap_time = 0")
        self.db.reconnect()
        create_storage(self.db.conn)
        self.oracles = {table: Oracle(table) for table in (PARTITIONED, PLAIN, CASCADE, KIN, POLICY)}
        self._recent = [seconds(*LIVE)]
        self._create_tables()
        self.clients = []
        for number in range(2):
            self._add(Writer(self._connect, self.oracles[PARTITIONED], number, lambda: self._recent, seed))
        # Slower, for archiving ends only when it finds nothing old any more.
        self._add(Writer(self._connect, self.oracles[PLAIN], 2, lambda: [seconds(*LIVE), seconds(*PAST)], seed, pause=0.03))
        for table in (PARTITIONED, PLAIN):
            self._add(Reader(self._connect, self.oracles[table], read_every))

    def _add(self, client):
        self.clients.append(client)
        client.start()

    def _connect(self):
        return self.cluster.connect("world", options="-c statement_timeout=60s")

    def _create_tables(self):
        db = self.db
        for table in (PARTITIONED, POLICY):
            db.execute(f"CREATE TABLE {table} (id bigint, at timestamptz, note text NOT NULL, PRIMARY KEY (id, at))"
                       " PARTITION BY RANGE (at)")
            db.execute(f"CREATE TABLE {table}_live PARTITION OF {table} FOR VALUES FROM ('{LIVE[0]}') TO ('{LIVE[1]}')")
        for table in (PLAIN, CASCADE):
            db.execute(f"CREATE TABLE {table} (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text NOT NULL)")
        db.execute(f"CREATE TABLE {KIN} (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text NOT NULL,"
                   f" {CASCADE}_id bigint NOT NULL REFERENCES {CASCADE})")
        # From here on everything is read through the archive's views.
        db.execute(f"SELECT archive_partition('{self.month()}')")
        self.rows(20)
        db.execute(f"CALL archive_table('{PLAIN}', '2010-01-01', batch_rows => 10)")
        self.families(4)
        db.execute(f"CALL archive_table('{CASCADE}', '2010-01-01', batch_rows => 2, referenced => 'cascade')")
        db.execute(f"SELECT archive_partition('{self.month(table=POLICY)}')")

    def resting(self):
        return Resting(getattr(self, "clients", []))

    def take_ids(self, rows):
        self._ids += rows
        return self._ids - rows + 1, self._ids

    def month(self, rows=200, table=PARTITIONED):
        """A further month, with rows. Its name."""
        year, month = 2001 + self._months // 12, self._months % 12 + 1
        self._months += 1
        lower = datetime(year, month, 1, tzinfo=timezone.utc)
        upper = datetime(year + month // 12, month % 12 + 1, 1, tzinfo=timezone.utc)
        name = f"{table}_{year}_{month:02}"
        first, last = seconds(lower, upper)
        with self.resting():
            self.db.execute(f"CREATE TABLE {name} PARTITION OF {table} FOR VALUES FROM ('{lower}') TO ('{upper}')")
            self._fill(table, rows, first, (last - first) // max(rows, 1))
        if table == PARTITIONED:
            self._recent = [seconds(*LIVE), *self._recent[1:][-3:], (first, last)]
        return name

    def quarter(self, rows=100):
        """Three further months of one quarter: their names."""
        self._months += -self._months % 3
        return [self.month(rows) for _ in range(3)]

    def rows(self, rows, table=PLAIN):
        """Further old rows: the first and last id."""
        with self.resting():
            return self._fill(table, rows, seconds(*PAST)[0], 3600)

    def families(self, rows):
        """Further old rows that others reference."""
        with self.resting():
            first, last = self._fill(CASCADE, rows, seconds(*PAST)[0], 3600)
            self._fill(KIN, rows, seconds(*PAST)[0], 3600, f", {CASCADE}_id", f", {first} + n")
        return first, last

    def _fill(self, table, rows, begin, step, columns="", values=""):
        first, last = self.take_ids(rows)
        made = self.db.all(f"""
            INSERT INTO {table} (id, at, note{columns})
            SELECT {first} + n, to_timestamp({begin} + n * {step}), md5({first} + n || 'x'){values}
            FROM generate_series(0, {rows} - 1) n RETURNING {Oracle.ROW}""")
        self.oracles[table].know(made)
        return first, last

    def check(self):
        """P1 of every table, row by row."""
        with self.resting():
            for oracle in self.oracles.values():
                oracle.check(self.db.conn)

    def is_archived(self, name):
        return self.db.exists(f"archive.{name}") and not self.db.exists(name)

    def assert_settled(self):
        """No job is under way and nothing is frozen that is not archived, but for what is WARM or came back read-only."""
        unfinished = self.db.all("SELECT operation, partition_name, status, error FROM archive_ext.jobs"
                                 " WHERE status NOT IN ('completed', 'cancelled', 'failed')")
        assert not unfinished, unfinished

    def total(self, what):
        return sum(oracle.counts[what] for oracle in self.oracles.values())

    def stop(self):
        for client in self.clients:
            client.stop()
        self.check()
