"""Things that happen beside the main session: work in threads, and the memory of a backend."""

import threading
import time
from pathlib import Path


class Repeat:
    """Calls `step()` again and again in a thread until the block ends; what it raised is raised there.

    `slowest` is the longest time that one step took, `steps` how many there were.
    """

    def __init__(self, step, pause=0.01):
        self._step, self._pause = step, pause
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._error = None
        self.steps, self.slowest = 0, 0.0

    def _run(self):
        try:
            while not self._stop.is_set():
                began = time.monotonic()
                self._step()
                self.slowest = max(self.slowest, time.monotonic() - began)
                self.steps += 1
                self._stop.wait(self._pause)
        except BaseException as e:  # noqa: BLE001 - raised again by __exit__
            self._error = e

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, kind, *_):
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "a concurrent session hangs"
        if self._error and kind is None:
            raise self._error


class Call:
    """Runs one function in a thread; `result()` waits for it and returns or raises what it did."""

    def __init__(self, function, *args):
        self._outcome = None
        self.seconds = None
        self._thread = threading.Thread(target=self._run, args=[function, args], daemon=True)
        self._thread.start()

    def _run(self, function, args):
        began = time.monotonic()
        try:
            self._outcome = (function(*args), None)
        except BaseException as e:  # noqa: BLE001 - raised again by result()
            self._outcome = (None, e)
        self.seconds = time.monotonic() - began

    def ended(self):
        return not self._thread.is_alive()

    def result(self, timeout=120):
        self._thread.join(timeout)
        assert not self._thread.is_alive(), f"still running after {timeout} s"
        value, error = self._outcome
        if error:
            raise error
        return value


class PeakMemory:
    """The highest RssAnon, in bytes, of a process while the block runs, and how much of it was there before."""

    def __init__(self, pid):
        self._status = Path(f"/proc/{pid}/status")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self.before = self.peak = rss_anon(self._status)

    def _watch(self):
        while not self._stop.wait(0.005):
            self.peak = max(self.peak, rss_anon(self._status))

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(10)


def rss_anon(status):
    line = next(line for line in status.read_text().splitlines() if line.startswith("RssAnon:"))
    return int(line.split()[1]) * 1024
