"""CPU seconds and wall seconds of a backend, and of other processes."""

import os
import statistics
import time
from dataclasses import dataclass
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Cost:
    """User and system time of a process with its threads, those that have ended included; and what a clock showed."""

    cpu: float
    wall: float

    def __add__(self, other):
        return Cost(self.cpu + other.cpu, self.wall + other.wall)


def cpu_of(pid):
    """Seconds. Threads that have ended count, since they are summed up in their process."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def peak_memory(pid):
    """Bytes that were resident at most, without what is shared with other processes, since `forget_peak`."""
    status = Path(f"/proc/{pid}/status").read_text()
    field = dict(line.split(":", 1) for line in status.splitlines())
    return (int(field["VmHWM"].split()[0]) - int(field["RssShmem"].split()[0])) * 1024


def forget_peak(pid):
    Path(f"/proc/{pid}/clear_refs").write_text("5")


def of(pid, work):
    """What `work` costs process `pid`, and what it returns."""
    before, began = cpu_of(pid), time.perf_counter()
    result = work()
    return Cost(cpu_of(pid) - before, time.perf_counter() - began), result


def median(costs):
    return Cost(statistics.median(c.cpu for c in costs), statistics.median(c.wall for c in costs))


def typical(ours, theirs, what):
    """Of runs that came one after the other, by turns, the two whose ratio is the median: a machine that is slower for some seconds is
    so for both."""
    pairs = [(getattr(one, what), getattr(other, what)) for one, other in zip(ours, theirs, strict=True)]
    return sorted(pairs, key=lambda pair: pair[0] / max(pair[1], 1 / TICKS))[len(pairs) // 2]


def statement(session, query, params=None, runs=5):
    """The median cost of a statement, after one run that warms the caches; the costs are those of the session's backend."""
    run = lambda: session.execute(query, params).fetchall()
    run()
    return median([of(session.info.backend_pid, run)[0] for _ in range(runs)])


def interleaved(session, queries, runs=5, each=8):
    """The same for several statements by turns, so that what slows the machine for a while slows all of them. Each is executed `each`
    times in a row: a clock that ticks a hundred times a second says little of one that takes some hundredths."""
    costs = {name: [] for name in queries}
    for query in queries.values():
        session.execute(query).fetchall()
    for _ in range(runs):
        for name, query in queries.items():
            cost, _ = of(session.info.backend_pid, lambda query=query: [session.execute(query).fetchall() for _ in range(each)])
            costs[name].append(Cost(cost.cpu / each, cost.wall / each))
    return {name: median(found) for name, found in costs.items()}
