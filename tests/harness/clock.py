"""A server whose clock a test sets: libfaketime before the C library, with an offset that is read from a file once a second.

Only the time of day is faked, as an administrator or NTP would set it. Monotonic clocks and timers go on.

Background workers have the true time before PostgreSQL 16: their postmaster forks them in a signal handler, while the library lets select()
wait with the true time. So what depends on the clock is driven from sessions.
"""

import os
import time
from pathlib import Path

from harness.cluster import wait_until

# Where distributions put it: that for programs with threads.
LIBRARIES = ("lib/*/faketime", "lib*/faketime")


def library():
    found = [path for base in LIBRARIES for path in Path("/usr").glob(f"{base}/libfaketimeMT.so.1")]
    assert found, "libfaketime is not installed: make deps"
    return found[0]


class Clock:
    """Restarts the cluster with such a clock."""

    def __init__(self, cluster):
        self._cluster, self._file = cluster, cluster.dir / "clock"
        self._write(0)
        cluster.environment = {
            "LD_PRELOAD": str(library()), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_RESET": "1",
        }
        cluster.restart("fast")

    def _write(self, seconds):
        new = self._file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        os.rename(new, self._file)

    def set(self, days):
        """So many days from now, for new sessions at once, for all others within a second."""
        self._write(int(days * 86_400))

        def is_set():
            with self._cluster.connect() as conn:
                ahead = conn.execute("SELECT extract(epoch FROM clock_timestamp())::float8").fetchone()[0] - time.time()
            return abs(ahead - days * 86_400) < 60

        wait_until(is_set, 10, "the server's clock to be set")
