"""What a table must hold: every change that a client saw committed, kept outside of the server, and clients that make such changes.

A row is known by its id; its content is one text. A change whose connection broke before the answer came may have been committed
or not: the client looks which, through the `_all` view, before it goes on.
"""

import random
import threading
from collections import Counter

import psycopg
from psycopg import errors

# The answers to a change that did not happen, and whose row is as it was.
REFUSED = (errors.ObjectInUse, errors.CheckViolation, errors.LockNotAvailable, errors.QueryCanceled)


class Oracle:
    """The rows of `table`, columns id, at, note; at is told in whole seconds since 1970."""

    ROW = "id, extract(epoch FROM at)::bigint || ' ' || note"

    def __init__(self, table):
        self.table, self.rows, self.counts = table, {}, Counter()
        self._lock = threading.Lock()

    def know(self, rows):
        with self._lock:
            self.rows.update(rows)

    def forget(self, ids):
        with self._lock:
            for number in ids:
                self.rows.pop(number, None)

    def changed(self, number, content):
        """The change is committed; None: the row is gone."""
        with self._lock:
            if content is None:
                self.rows.pop(number, None)
            else:
                self.rows[number] = content

    def source(self, conn):
        """Where all rows are read."""
        everything = f"archive.{self.table}_all"
        there = conn.execute("SELECT to_regclass(%s) IS NOT NULL", [everything]).fetchone()[0]
        return everything if there else self.table

    def check(self, conn):
        """Reads everything and compares; how many rows there are. The clients must rest."""
        found = conn.execute(f"SELECT {self.ROW} FROM {self.source(conn)}").fetchall()
        with self._lock:
            expected = dict(self.rows)
        ids = Counter(number for number, _ in found)
        duplicated = [number for number, times in ids.items() if times > 1]
        lost = [number for number in expected if number not in ids]
        extra = [number for number in ids if number not in expected]
        wrong = [(number, content, expected[number]) for number, content in found
                 if number in expected and content != expected[number]]
        self.counts["rows accounted for"] += len(found)
        self.counts["lost"] += len(lost)
        self.counts["duplicated"] += len(duplicated)
        self.counts["wrong"] += len(wrong) + len(extra)
        assert not (lost or duplicated or extra or wrong), (
            f"{self.table}: {len(lost)} lost {lost[:5]}, {len(duplicated)} twice {duplicated[:5]},"
            f" {len(extra)} that should be gone {extra[:5]}, {len(wrong)} changed {wrong[:5]}")
        return len(found)


class Client(threading.Thread):
    """Does `step(conn)` again and again, on a new connection when the server was killed. Rests while somebody holds `gate`."""

    def __init__(self, connect, pause=0.005):
        super().__init__(daemon=True)
        self.gate = threading.Lock()
        self.error = None
        self._connect, self._pause, self._conn = connect, pause, None
        self._stop_asked = threading.Event()

    def run(self):
        try:
            while not self._stop_asked.is_set():
                with self.gate:
                    self._once()
                self._stop_asked.wait(self._pause)
        except BaseException as e:  # noqa: BLE001 - raised again by stop()
            self.error = e

    def _once(self):
        try:
            if self._conn is None:
                self._conn = self._connect()
            self.step(self._conn)
        except psycopg.OperationalError:
            if self._conn is not None and not self._conn.broken:
                self._conn.close()
            self._conn = None
            self._stop_asked.wait(0.05)

    def settle(self):
        """Before a check, with the gate held: finds out what is uncertain."""

    def stop(self):
        self._stop_asked.set()
        self.join(60)
        assert not self.is_alive(), "a client hangs"
        if self.error:
            raise self.error


class Writer(Client):
    """Inserts, updates and deletes rows of its own ids, in any of the times that `times()` lists as (first, last) seconds."""

    FIRST_ID = 1_000_000

    def __init__(self, connect, oracle, number, times, seed=0, pause=0.005):
        super().__init__(connect, pause)
        self._oracle, self._times = oracle, times
        self._random = random.Random(f"{seed} {number} {oracle.table}")
        self._next_id = self.FIRST_ID * (number + 1)
        self._mine = []
        self._uncertain = None

    def step(self, conn):
        self._find_out(conn)
        if not self._mine or self._random.random() < 0.5:
            self._insert(conn)
        elif self._random.random() < 0.7:
            self._update(conn)
        else:
            self._remove(conn)

    def settle(self):
        if self._uncertain:
            conn = self._connect()
            self._find_out(conn)
            conn.close()

    def _insert(self, conn):
        number = self._next_id
        self._next_id += 1
        at, note = self._time(), self._note()
        if self._try(conn, number, f"{at} {note}", f"INSERT INTO {self._oracle.table} (id, at, note)"
                     " VALUES (%s, to_timestamp(%s), %s)", [number, at, note]):
            self._mine.append(number)

    def _update(self, conn):
        number = self._random.choice(self._mine)
        at = int(self._oracle.rows[number].split()[0])
        if self._random.random() < 0.3:
            at = self._time()
        note = self._note()
        self._try(conn, number, f"{at} {note}",
                  f"UPDATE {self._oracle.table} SET at = to_timestamp(%s), note = %s WHERE id = %s", [at, note, number])

    def _remove(self, conn):
        number = self._random.choice(self._mine)
        if self._try(conn, number, None, f"DELETE FROM {self._oracle.table} WHERE id = %s", [number]):
            self._mine.remove(number)

    def _time(self):
        first, last = self._random.choice(self._times())
        return self._random.randint(first, last)

    def _note(self):
        return f"{self._random.getrandbits(64):016x}"

    def _try(self, conn, number, content, statement, values):
        """Whether the change was made."""
        self._uncertain = (number, content)
        try:
            made = conn.execute(statement, values).rowcount
        except REFUSED:
            self._oracle.counts["writes refused"] += 1
            made = 0
        except errors.DeadlockDetected:
            self._oracle.counts["deadlocks"] += 1
            made = 0
        self._uncertain = None
        assert made <= 1, f"{made} rows with id {number}"
        if made:
            self._oracle.changed(number, content)
            self._oracle.counts["writes committed"] += 1
        return made == 1

    def _find_out(self, conn):
        """After a connection broke: whether the last change is there."""
        if not self._uncertain:
            return
        number, new = self._uncertain
        source = self._oracle.source(conn)
        found = [content for _, content in conn.execute(
            f"SELECT {Oracle.ROW} FROM {source} WHERE id = %s", [number]).fetchall()]
        now, old = (found[0] if found else None), self._oracle.rows.get(number)
        assert len(found) <= 1 and now in (old, new), f"row {number}: {found}, neither {old} nor {new}"
        if now != old:
            self._oracle.changed(number, now)
            self._oracle.counts["writes committed"] += 1
        if now is not None and number not in self._mine:
            self._mine.append(number)
        elif now is None and number in self._mine:
            self._mine.remove(number)
        self._oracle.counts["writes found out"] += 1
        self._uncertain = None


class Reader(Client):
    """P1 at every moment: the rows below `Writer.FIRST_ID`, which no client changes, are there, each once."""

    def __init__(self, connect, oracle, pause):
        super().__init__(connect, pause)
        self._oracle = oracle

    def step(self, conn):
        rows = conn.execute(f"SELECT count(*), count(DISTINCT id) FROM {self._oracle.source(conn)} WHERE id < %s",
                            [Writer.FIRST_ID]).fetchone()
        expected = sum(number < Writer.FIRST_ID for number in list(self._oracle.rows))
        assert tuple(rows) == (expected, expected), f"a reader saw {tuple(rows)} rows of {expected}"
        self._oracle.counts["reads"] += 1


class Resting:
    """No client does anything while the block runs."""

    def __init__(self, clients):
        self._clients = clients

    def __enter__(self):
        for client in self._clients:
            assert client.gate.acquire(timeout=120), "a client hangs"
            assert client.error is None, client.error
            client.settle()

    def __exit__(self, *_):
        for client in self._clients:
            client.gate.release()
