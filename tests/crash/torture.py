"""`make torture`: random work on a world, killed and disturbed at random, every row accounted for by oracles.

TORTURE_SECONDS says how long, TORTURE_SEED repeats the choices (not the moments at which processes meet). The exit code is 0 when
no row was lost, doubled or changed, nothing deadlocked, and every call made again ended what was begun.
"""

import os
import random
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import psycopg

from harness.cluster import Cluster, wait_until
from harness.failpoints import KILLS, Failpoints, kill_server, stop_immediately
from harness.proxy import CorruptRequest, FaultProxy, Reset, Status, Swallow, Truncate
from harness.s3 import Bucket, S3sFs
from harness.scenarios import SCENARIOS
from harness.sessions import Call
from harness.world import POLICY, World, local_storage

# A world is left for a new one after so many operations: checks read everything that was ever archived.
OPERATIONS = 40
# A random place in a call; few have more failpoints in one process.
MOST_POINTS = 45
ATTEMPTS = 8
FAULTS = (Status(500, "InternalError"), Status(503, "SlowDown"), Reset(), Reset(in_answer=True), Truncate(), Swallow(),
          CorruptRequest())


class Torture:
    def __init__(self, seconds, seed):
        self._random, self._seed = random.Random(seed), seed
        self._until = time.monotonic() + seconds
        self.counts, self.operations, self.rows = Counter(), Counter(), Counter()
        self.cluster = Cluster("archive_ext.naptime=1s", "max_connections=80", "archive_ext.lock_timeout=2s")
        self.server = S3sFs(Path(tempfile.mkdtemp(prefix="archive_ext_s3.")), "torture-access-key", "torture-secret-key")
        self.proxy = FaultProxy(self.server.port)
        self.points = Failpoints(self.cluster)
        self.world = None

    def run(self):
        """World after world until the time is over."""
        number = 0
        while time.monotonic() < self._until:
            number += 1
            remote = number % 2 == 0
            self.world = World(self.cluster, self._s3(number) if remote else self._directory(number), self._seed + number,
                               read_every=0.3)
            for _ in range(OPERATIONS):
                if time.monotonic() >= self._until:
                    break
                self._operation(remote)
            self._leave()
            self.counts["worlds"] += 1

    def _directory(self, number):
        return local_storage(self.cluster, number)

    def _s3(self, number):
        bucket = Bucket(self.server, f"torture-{number}")
        return lambda conn: bucket.create_storage(conn, endpoint=self.proxy.endpoint, retry_backoff="50ms")

    def _leave(self):
        self.world.stop()
        for oracle in self.world.oracles.values():
            self.rows.update(oracle.counts)
        self.world.db.drop()

    def _operation(self, remote):
        name = self._random.choice([*SCENARIOS, "worker"])
        self.operations[name] += 1
        began = time.monotonic()
        try:
            self._do(name, remote)
        finally:
            if (took := time.monotonic() - began) > 30:
                print(f"{name} took {took:.0f} s", flush=True)

    def _do(self, name, remote):
        if name == "worker":
            return self._worker()
        scenario = SCENARIOS[name]
        what = self._prepared(scenario)
        call = scenario.call.format(what)
        disturbance = self._random.choice(["none", "kill", "kill", "crash", "stop", "moment", "error", "panic", "fault", "fault"])
        if disturbance == "fault" and not remote:
            disturbance = "kill"
        self._disturbed(call, disturbance)
        self._check()
        for attempt in range(ATTEMPTS):
            try:
                if scenario.done(self.world, what):
                    break
                self.world.db.execute(call)
            except psycopg.Error as error:
                self.counts["calls made again"] += 1
                if attempt == ATTEMPTS - 1:
                    raise AssertionError(f"{name} does not converge: {error}") from error
                time.sleep(0.5)
        assert scenario.done(self.world, what), f"{name} on {what} is not done"
        self._check()
        self.world.assert_settled()

    def _prepared(self, scenario):
        """What is prepared is not disturbed, but clients may be in the way."""
        return scenario.prepare(self.world)

    def _disturbed(self, call, disturbance):
        place = f"*@{self._random.randint(1, MOST_POINTS)}"
        action = {"kill": "kill", "crash": "crash", "stop": "wait", "error": "error", "panic": "panic"}.get(disturbance)
        if action:
            self.points.arm("world", f"{place}={action}")
        if disturbance == "fault":
            self._break_storage()
        victim = Call(self.cluster.connect("world").execute, call)
        if disturbance == "stop":
            self._when_it_waits(victim)
        if disturbance == "moment":
            time.sleep(self._random.uniform(0, 0.5))
            self._kill(self._random.choice([kill_server, stop_immediately]))
        wait_until(victim.ended, 180, f"{call} to end")
        try:
            victim.result()
        except psycopg.Error as error:
            self._failed(error, disturbance)
        self._recover()

    def _failed(self, error, disturbance):
        assert disturbance != "none" or isinstance(error, psycopg.OperationalError), error
        if isinstance(error, psycopg.errors.SystemError):
            self.counts["errors raised"] += 1
        elif isinstance(error, psycopg.errors.InternalError_):
            self.counts["panics raised"] += 1

    def _break_storage(self):
        self.counts["storage faults armed"] += 1
        method, target = self._random.choice([("PUT|POST", r"\.parquet"), ("PUT", "_manifests"), ("GET", r"\.parquet"), (".*", ".")])
        self._rule = self.proxy.on(method, target, fault=self._random.choice(FAULTS), times=self._random.randint(1, 8))

    def _when_it_waits(self, victim):
        def waits():
            return victim.ended() or self.points.waiting()

        wait_until(waits, 120, "a failpoint or the end")
        if self.points.waiting():
            self._kill(self._random.choice(KILLS), self.points.waiting())

    def _kill(self, kill, pid=None):
        kill(self.cluster, pid)
        if kill is not KILLS[0]:  # kills of backends are counted in the log
            self.counts[{kill_server: "postmasters killed", stop_immediately: "immediate stops"}[kill]] += 1

    def _recover(self):
        if rule := getattr(self, "_rule", None):
            self.counts["storage faults"] += rule.hits
            self._rule = None
        self.proxy.heal()

        def calm():
            # As long as a failpoint is armed, a worker may get there once more.
            if self.cluster.is_down():
                self.counts["postmasters killed"] += 1
                self.cluster.start()
            try:
                self.points.disarm("world")
                self.world.db.reconnect()
                return True
            except psycopg.OperationalError:
                return False

        wait_until(calm, 60, "the server to be there")

    def _check(self):
        """What was armed when it began may kill once more: then after a recovery."""
        for _ in range(5):
            try:
                return self.world.check()
            except psycopg.OperationalError:
                self._recover()
        raise AssertionError("the server is killed again and again")

    def _worker(self):
        """The worker archives a month by itself, and is killed."""
        world = self.world
        name = world.month(table=POLICY)
        world.db.execute(f"SELECT set_archive_policy('{POLICY}', archive_after => '1 month', storage => 'cold', drop_after => '0')")
        self.points.arm("world", f"*@{self._random.randint(1, MOST_POINTS)}={self._random.choice(['kill', 'crash', 'wait'])}")
        self._enable_worker("on")

        def archived():
            """Killed once more by a worker that was armed when it began: then it goes on."""
            try:
                return world.is_archived(name)
            except psycopg.OperationalError:
                self._recover()

        def archived_or_down():
            try:
                return self.points.waiting() or world.is_archived(name)
            except psycopg.OperationalError:
                return True

        wait_until(archived_or_down, 90, "the worker")
        if pid := self.points.waiting():
            self._kill(self._random.choice(KILLS), pid)
        self._recover()
        self._check()
        try:
            wait_until(archived, 180, "the worker to archive it")
        except AssertionError as late:
            jobs = world.db.all("SELECT status, phase, attempts, error FROM archive_ext.jobs WHERE partition_name LIKE %s",
                                [f"%{name}"])
            raise AssertionError(f"{late}: {jobs}") from late
        self._enable_worker("off")
        busy = "SELECT count(*) FROM pg_stat_activity WHERE backend_type IN ('archive_ext worker', 'archive_ext scanner')"
        wait_until(lambda: not world.db.value(busy), 60, "the worker to end")
        self._check()
        world.assert_settled()

    def _enable_worker(self, on):
        self.world.db.execute(f"ALTER SYSTEM SET archive_ext.worker_enabled = {on}")
        self.world.db.execute("SELECT pg_reload_conf()")

    def stop(self):
        log = self.cluster.log()
        self.counts["processes killed"] += log.count("was terminated by signal 9")
        if os.environ.get("TORTURE_KEEP"):
            print(f"kept: {self.cluster.dir}")
        else:
            self.cluster.stop()
        self.proxy.stop()
        self.server.stop()
        crashes = [line for line in log.splitlines() if "PANIC" in line or "terminated by signal" in line and "signal 9" not in line]
        assert not crashes, crashes


def main():
    seconds, seed = int(os.environ["TORTURE_SECONDS"]), int(os.environ.get("TORTURE_SEED") or time.time())
    print(f"TORTURE_SECONDS={seconds} TORTURE_SEED={seed}", flush=True)
    torture, failure = Torture(seconds, seed), None
    try:
        torture.run()
    except BaseException as error:  # noqa: BLE001 - told below
        failure = error
        traceback.print_exc()
        if torture.world:
            for oracle in torture.world.oracles.values():
                torture.rows.update(oracle.counts)
    try:
        torture.stop()
    except AssertionError as error:
        print(error, file=sys.stderr)
        failure = failure or error
    kills = sum(torture.counts[kind] for kind in ("processes killed", "postmasters killed", "immediate stops"))
    print(f"operations {sum(torture.operations.values())}: " + ", ".join(f"{k} {v}" for k, v in sorted(torture.operations.items())))
    print(f"kills {kills}, " + ", ".join(f"{kind} {number}" for kind, number in sorted(torture.counts.items())))
    print(", ".join(f"{kind} {number}" for kind, number in sorted(torture.rows.items())))
    print(f"lost {torture.rows['lost']}, duplicated {torture.rows['duplicated']}, deadlocks {torture.rows['deadlocks']}")
    if failure:
        print(f"FAILED: {failure!r}", file=sys.stderr)
    return 1 if failure or any(torture.rows[bad] for bad in ("lost", "duplicated", "wrong", "deadlocks")) else 0


if __name__ == "__main__":
    sys.exit(main())
