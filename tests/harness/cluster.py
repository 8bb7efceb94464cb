"""A throw-away PostgreSQL cluster (scripts/cluster) and databases in it."""

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
from psycopg import sql

SCRIPT = Path(__file__).resolve().parents[2] / "scripts" / "cluster"


class Row(tuple):
    """A row that compares as a tuple and has its columns as attributes, duplicate names allowed."""

    def __getattr__(self, name):
        try:
            return self[self.columns.index(name)]
        except ValueError:
            raise AttributeError(f"no column {name} in {self.columns}") from None


def row_factory(cursor):
    return type("Row", (Row,), {"columns": [c.name for c in cursor.description or []]})


class Cluster:
    """Of the PostgreSQL under test, or of the one whose pg_config is given."""

    def __init__(self, *settings, pg_config=None):
        self.pg_config = pg_config or os.environ["PG_CONFIG"]
        # Rows are counted to see that they can be read, and all of an object is read each time.
        ours = ["archive_ext.enable_catalog_answers=off", "archive_ext.metadata_cache=0"]
        self.dir = Path(self._script("start", *ours, *settings).strip())
        self.storage = self.dir / "storage"
        self.user = self.dir.owner()
        # What the server gets with its next start.
        self.environment = {}

    def _script(self, *arguments):
        done = subprocess.run([SCRIPT, *arguments], check=True, stdout=subprocess.PIPE, text=True, timeout=120,
                              env=os.environ | {"PG_CONFIG": self.pg_config})
        return done.stdout

    def stop(self):
        self._script("stop", self.dir)

    def program(self, name):
        """The path of this version's pg_dump, pg_ctl and so on."""
        return Path(subprocess.check_output([self.pg_config, "--bindir"], text=True).strip()) / name

    def connect(self, dbname="postgres", user="postgres", **kwargs):
        return psycopg.connect(
            host=str(self.dir), port=5432, dbname=dbname, user=user, autocommit=True,
            row_factory=row_factory, connect_timeout=20, **{"client_encoding": "UTF8", **kwargs},
        )

    def log(self):
        return (self.dir / "log").read_text(errors="replace")

    def postmaster_pid(self):
        return int((self.dir / "data" / "postmaster.pid").read_text().split()[0])

    def kill_and_restart(self):
        """kill -9 of the postmaster, the nearest thing to a power cut, then a start with crash recovery."""
        pid = self.postmaster_pid()
        children = child_pids(pid)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not any(is_alive(p) for p in [pid, *children]), 20, "the server to die")
        self.start()

    def is_down(self):
        """Whether the postmaster was killed, or gave up; then every process of it is gone when this returns."""
        with suppress(FileNotFoundError):
            if is_alive(self.postmaster_pid()):
                return False
        wait_until(lambda: not self._processes(), 30, "the server's processes to end")
        return True

    def _processes(self):
        """Those that have the data directory as their working directory."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                if (process / "cwd").readlink() == self.dir / "data":
                    found.append(int(process.name))
        return found

    def start(self):
        self.control("start", "--wait", f"--log={self.dir}/log")

    def restart(self, mode):
        """pg_ctl stop in one of its modes, and a start."""
        self.control("stop", f"--mode={mode}")
        self.start()

    def control(self, *command):
        """pg_ctl."""
        subprocess.run(
            ["runuser", "-u", self.user, "--", self.program("pg_ctl"), *command, "--silent", f"--pgdata={self.dir}/data"],
            check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=120, env=os.environ | self.environment,
        )

    def wait_ready(self, seconds=30):
        def ready():
            try:
                self.connect().close()
                return True
            except psycopg.OperationalError:
                return False

        wait_until(ready, seconds, "the server to accept connections")


@contextmanager
def without_crashes(*settings):
    """A cluster of which no process crashes but those that a test kills."""
    cluster = Cluster(*settings)
    yield cluster
    log = cluster.log()
    cluster.stop()
    crashes = [line for line in log.splitlines() if "PANIC" in line or "was terminated by" in line]
    assert not crashes, log[log.index(crashes[0]) - 3000:][:5000]


class Database:
    """A database with the extension, its main session `conn`, and any number of further sessions."""

    def __init__(self, cluster, name, options=""):
        self.cluster, self.name, self._sessions = cluster, name, []
        with cluster.connect() as conn:
            conn.execute(sql.SQL("CREATE DATABASE {} {}").format(sql.Identifier(name), sql.SQL(options)))
        self.conn = self.connect()
        self.conn.execute("CREATE EXTENSION archive_ext")

    def connect(self, user="postgres", **kwargs):
        conn = self.cluster.connect(self.name, user, **kwargs)
        self._sessions.append(conn)
        return conn

    def reconnect(self):
        """After a crash: the old sessions are gone."""
        for conn in self._sessions:
            conn.close()
        self._sessions.clear()
        self.cluster.wait_ready()
        self.conn = self.connect()

    def execute(self, query, params=None):
        return self.conn.execute(query, params)

    def all(self, query, params=None):
        return self.conn.execute(query, params).fetchall()

    def row(self, query, params=None):
        return self.conn.execute(query, params).fetchone()

    def value(self, query, params=None):
        return self.row(query, params)[0]

    def exists(self, relation):
        return self.value("SELECT to_regclass(%s) IS NOT NULL", [relation])

    def is_attached(self, partition, parent="orders"):
        return self.value(
            "SELECT EXISTS (SELECT FROM pg_inherits WHERE inhrelid = to_regclass(%s) AND inhparent = to_regclass(%s))",
            [partition, parent],
        )

    @contextmanager
    def copied(self):
        """A session in a copy of the database, which pg_dump and psql made; the copy ends with the block."""
        server, copy = ["-h", str(self.cluster.dir), "-U", "postgres"], f"{self.name}_copy"
        dump = subprocess.run([self.cluster.program("pg_dump"), *server, self.name], check=True, stdout=subprocess.PIPE)
        with self.cluster.connect() as conn:
            conn.execute(f"CREATE DATABASE {copy} TEMPLATE template0")
        psql = [self.cluster.program("psql"), *server, "-X", "-q", "-v", "ON_ERROR_STOP=1", copy]
        subprocess.run(psql, input=dump.stdout, stdout=subprocess.PIPE, check=True)
        with self.cluster.connect(copy) as session:
            yield session
        with self.cluster.connect() as conn:
            conn.execute(f"DROP DATABASE {copy}")

    def drop(self):
        for conn in self._sessions:
            conn.close()
        with self.cluster.connect() as conn:
            conn.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(self.name)))


def wait_until(condition, seconds, what):
    """Returns the first true value of condition(); fails after so many seconds."""
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {seconds} s for {what}")
        time.sleep(0.02)


def is_alive(pid):
    """Also true of a zombie, which pg_ctl takes for a running server until it is reaped."""
    return Path(f"/proc/{pid}").exists()


def child_pids(pid):
    return [int(p) for p in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
