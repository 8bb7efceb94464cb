"""P4 at every failpoint: a process, or the server, is killed there while other sessions read and write; then the same call is made
again, and killed again before it converges, ROUNDS times; at last it ends what was begun. After each kill, every row that a client
saw committed is there, once, as it was (P1)."""

import itertools
import os
import random
import re
from collections import Counter
from contextlib import suppress
from pathlib import Path

import psycopg
import pytest

from harness import failpoints
from harness.cluster import Cluster, wait_until
from harness.failpoints import KILLS, Failpoints
from harness.sessions import Call
from harness.scenarios import SCENARIOS
from harness.world import POLICY, World, local_storage
from test_chain import POINTS as OF_THE_CHAIN
from test_rewrites import POINTS as OF_REWRITES

ROOT = Path(__file__).resolve().parents[2]

# What the workers do of themselves, with the actions that bring them there.
WORKER_POINTS = {
    "launcher_round": "", "scanner_begins": "", "scanner_starts_worker": "", "worker_took_job": "", "worker_step_committed@2": "",
    "worker_job_committed": "", "worker_step_failed": "verify_begins=error", "step_done@2": "", "swap_recorded": "",
}
# Kills of one call before it may converge. The first is at the failpoint, later ones there again or at a random place.
ROUNDS = int(os.environ.get("ROUNDS", "2"))
# A random place: a call that goes on has few failpoints left.
MOST_POINTS = 8
PLACES = [(name, point) for name, scenario in SCENARIOS.items() for point in scenario.points.split()]


def kills_from(number):
    """All ways to kill, in turn; each case begins with another."""
    return itertools.islice(itertools.cycle(KILLS), number % len(KILLS), None)




@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster("archive_ext.naptime=1s", "archive_ext.lock_timeout=2s", "max_connections=60")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def world(cluster):
    world = World(cluster, local_storage(cluster))
    world.kills = Counter()
    yield world
    world.stop()
    print(f"ROUNDS={ROUNDS}, " + ", ".join(f"{how} {times}" for how, times in world.kills.items()) + ", " + ", ".join(
        f"{what} {world.total(what)}" for what in ("rows accounted for", "lost", "duplicated", "writes committed", "reads")))
    assert world.total("deadlocks") == 0
    assert world.total("writes committed") > 1000 and world.total("reads") > 50


def test_every_failpoint_is_known():
    """Each is in the list of CONTRIBUTING.md, and in a test here."""
    documented = re.search(r"<!-- failpoints -->(.*?)<!-- end -->", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    tested = {point.split("@")[0] for point in [*(point for _, point in PLACES), *WORKER_POINTS, *OF_THE_CHAIN, *OF_REWRITES]}
    assert re.findall(r"`(\w+)`", documented[1]) == failpoints.names()
    assert sorted(tested) == failpoints.names()


def die(cluster, world, kill, pid):
    kill(cluster, pid)
    world.kills[kill.__name__] += 1


def killed_at(cluster, world, scenario, call, place, kill, surely):
    """Makes the call and kills it at the place; `surely`: it must get there, else it may also end before."""
    points = Failpoints(cluster)
    points.arm("world", ";".join(filter(None, [f"{place}=wait", scenario.also])))
    victim = Call(cluster.connect("world").execute, call)
    expected = scenario.returns or scenario.also

    def there():
        if pid := points.waiting():
            return pid
        assert expected or not surely or not victim.ended(), victim.result()
        return victim.ended() and not expected

    pid = wait_until(there, 60, f"failpoint {place}")
    if pid is not True:
        die(cluster, world, kill, pid)
        # Elsewhere the process may have been another one, and the call over.
        with suppress(psycopg.Error) if scenario.returns or not surely else pytest.raises(psycopg.Error):
            victim.result(60)
    points.disarm("world")
    world.db.reconnect()
    if pid is True:
        victim.result()
    world.check()


@pytest.mark.parametrize("number, place", list(enumerate(PLACES)), ids=["-".join(place) for place in PLACES])
def test_p1_p4_killed_at_a_failpoint(cluster, world, number, place):
    (name, point), kills, dice = place, kills_from(number), random.Random("-".join(place))
    scenario = SCENARIOS[name]
    what = scenario.prepare(world)
    call = scenario.call.format(what)
    # What returned, or failed by itself, was not begun anew.
    for again in range(1 if scenario.returns else ROUNDS):
        there = point if not again or scenario.also else dice.choice([point.split("@")[0], f"*@{dice.randint(1, MOST_POINTS)}"])
        killed_at(cluster, world, scenario, call, there, next(kills), surely=not again)
        if scenario.done(world, what):
            break
    else:
        world.db.execute(call)
    assert scenario.done(world, what)
    world.check()
    world.assert_settled()


@pytest.mark.parametrize("number, point", list(enumerate(WORKER_POINTS)), ids=[point.split("@")[0] for point in WORKER_POINTS])
def test_p4_the_worker_goes_on_where_it_was_killed(cluster, world, number, point):
    """Nobody calls anything: the launcher, the scanner or the worker dies, and the partition is archived all the same."""
    points, kills = Failpoints(cluster), kills_from(number)
    name = world.month(table=POLICY)
    world.db.execute(f"SELECT set_archive_policy('{POLICY}', archive_after => '1 month', storage => 'cold', drop_after => '0')")
    points.arm_everywhere(";".join(filter(None, [f"{point}=wait", WORKER_POINTS[point]])))
    world.db.execute("ALTER SYSTEM SET archive_ext.worker_enabled = on")
    world.db.execute("SELECT pg_reload_conf()")
    pid = points.reached(point.split("@")[0])
    die(cluster, world, next(kills), pid)
    for _ in range(ROUNDS - 1):
        world.db.reconnect()
        world.check()
        # Still armed: who takes its place comes there, unless nothing is left to do.
        pid = wait_until(lambda old=pid: points.waiting(but=old) or world.is_archived(name), 60, f"failpoint {point}")
        if pid is True:
            break
        die(cluster, world, next(kills), pid)
    points.disarm("world")
    world.db.reconnect()

    world.check()
    wait_until(lambda: world.is_archived(name), 150, "the worker to archive it")
    world.db.execute("ALTER SYSTEM RESET archive_ext.worker_enabled")
    world.db.execute("SELECT pg_reload_conf()")
    wait_until(lambda: not world.db.value("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'archive_ext worker'"), 30,
               "the worker to end")
    world.check()
    world.assert_settled()
