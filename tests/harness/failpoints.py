"""Failpoints (src/failpoint.rs) armed from outside, and the ways to kill a server that waits at one."""

import os
import re
import signal
from contextlib import contextmanager, suppress
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from harness.cluster import is_alive, wait_until

SOURCES = Path(__file__).resolve().parents[2] / "src"


def names():
    """Every failpoint in the sources."""
    return sorted(name for file in SOURCES.rglob("*.rs")
                  for name in re.findall(r'(?:failpoint!|\breach)\("(\w+)"\)', file.read_text()))


class Failpoints:
    """Of one cluster. In a session they are armed by `options()`, in all later ones of a database by `arm`."""

    def __init__(self, cluster):
        self._cluster = cluster

    @staticmethod
    def options(armed):
        """For `connect(options=…)`."""
        return "-c archive_ext.failpoints=" + armed.replace(" ", "\\ ")

    def arm(self, database, armed):
        with self._cluster.connect() as conn:
            conn.execute(sql.SQL("ALTER DATABASE {} SET archive_ext.failpoints = {}").format(
                sql.Identifier(database), sql.Literal(armed)))

    def arm_everywhere(self, armed):
        """In the launcher, too."""
        with self._cluster.connect() as conn:
            conn.execute(sql.SQL("ALTER SYSTEM SET archive_ext.failpoints = {}").format(sql.Literal(armed)))
            conn.execute("SELECT pg_reload_conf()")

    def disarm(self, database):
        with self._cluster.connect() as conn:
            conn.execute(sql.SQL("ALTER DATABASE {} RESET archive_ext.failpoints").format(sql.Identifier(database)))
            conn.execute("ALTER SYSTEM RESET archive_ext.failpoints")
            conn.execute("SELECT pg_reload_conf()")
        self.release()

    def _file(self, name):
        return self._cluster.dir / "data" / f"archive_ext.failpoint.{name}"

    def reached(self, name, seconds=60, unless=lambda: None):
        """Waits until a process waits there; its pid. `unless` raises when that will never be."""
        def waits():
            unless()
            return self._file(name).exists()

        wait_until(waits, seconds, f"failpoint {name}")
        return int(self._file(name).read_text())

    def waiting(self, but=None):
        """A process, another one than that, that waits at some point; None if none does."""
        for file in (self._cluster.dir / "data").glob("archive_ext.failpoint.*"):
            with suppress(OSError, ValueError):
                if (pid := int(file.read_text())) != but:
                    return pid
        return None

    def release(self):
        for file in (self._cluster.dir / "data").glob("archive_ext.failpoint.*"):
            file.unlink(missing_ok=True)


@contextmanager
def crash(cluster):
    """A process dies within; afterwards the postmaster has ended all others and recovered. It goes on accepting connections until it
    notices."""
    canary = cluster.connect()
    yield

    def gone():
        try:
            canary.execute("SELECT 1")
        except psycopg.OperationalError:
            return True

    wait_until(gone, 20, "the other sessions to be ended")
    canary.close()
    cluster.wait_ready()


def killed_at(db, point, call):
    """Makes the call in a session of its own, which dies at the failpoint, the first time unless `point` says which."""
    points = Failpoints(db.cluster)
    points.arm(db.name, f"{point if '@' in point else point + '@1'}=kill")
    with crash(db.cluster), pytest.raises(psycopg.OperationalError), db.connect() as session:
        session.execute(call)
    points.disarm(db.name)
    db.reconnect()


def kill_backend(cluster, pid):
    """kill -9 of one process: the postmaster ends all others and recovers."""
    with crash(cluster):
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not is_alive(pid), 20, "the process to die")


def kill_server(cluster, _pid):
    """kill -9 of the postmaster, and a start."""
    cluster.kill_and_restart()


def stop_immediately(cluster, _pid):
    """pg_ctl stop -m immediate, and a start."""
    cluster.restart("immediate")


KILLS = (kill_backend, kill_server, stop_immediately)
