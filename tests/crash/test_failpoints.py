"""P4 at every failpoint: a process, or the server, is killed there while other sessions read and write; then the same call is made
again and ends what was begun. Before and after, every row that a client saw committed is there, once, as it was (P1)."""

import itertools
import re
from pathlib import Path

import psycopg
import pytest

from harness import failpoints
from harness.cluster import Cluster, wait_until
from harness.failpoints import KILLS, Failpoints
from harness.sessions import Call
from harness.scenarios import SCENARIOS
from harness.world import POLICY, World

ROOT = Path(__file__).resolve().parents[2]

# What the workers do of themselves, with the actions that bring them there.
WORKER_POINTS = {
    "launcher_round": "", "scanner_begins": "", "scanner_starts_worker": "", "worker_took_job": "", "worker_step_committed@2": "",
    "worker_job_committed": "", "worker_step_failed": "verify_begins=error", "step_done@2": "", "swap_recorded": "",
}
ROUNDS = [(name, point) for name, scenario in SCENARIOS.items() for point in scenario.points.split()]
_kills = itertools.cycle(KILLS)
CASES = [(*one, next(_kills)) for one in ROUNDS]


def name_of(case):
    return f"{case[0]}-{case[1]}-{case[2].__name__}"


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster("archive_ext.naptime=1s", "archive_ext.lock_timeout=2s", "max_connections=60")
    yield cluster
    cluster.stop()


@pytest.fixture(scope="module")
def world(cluster):
    def create_storage(conn):
        conn.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/world')")
        conn.execute("ALTER DATABASE world SET archive_ext.default_storage = 'cold'")
        conn.execute("SET archive_ext.default_storage = 'cold'")

    world = World(cluster, create_storage)
    yield world
    world.stop()
    assert world.total("deadlocks") == 0
    assert world.total("writes committed") > 1000 and world.total("reads") > 50


def test_every_failpoint_is_known():
    """Each is in the list of CONTRIBUTING.md, and in a test here."""
    documented = re.search(r"<!-- failpoints -->(.*?)<!-- end -->", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    tested = {point.split("@")[0] for point in [*(point for _, point in ROUNDS), *WORKER_POINTS]}
    assert re.findall(r"`(\w+)`", documented[1]) == failpoints.names()
    assert sorted(tested) == failpoints.names()


@pytest.mark.parametrize("case", CASES, ids=name_of)
def test_p1_p4_killed_at_a_failpoint(cluster, world, case):
    name, point, kill = case
    scenario, points = SCENARIOS[name], Failpoints(cluster)
    what = scenario.prepare(world)
    call = scenario.call.format(what)
    points.arm("world", ";".join(filter(None, [f"{point}=wait", scenario.also])))
    session = cluster.connect("world")
    victim = Call(session.execute, call)

    def ended():
        assert scenario.returns or scenario.also or not victim.ended(), victim.result()

    pid = points.reached(point.split("@")[0], unless=ended)
    kill(cluster, pid)
    if not scenario.returns:
        with pytest.raises(psycopg.Error):
            victim.result(60)
    points.disarm("world")
    world.db.reconnect()

    world.check()
    if not scenario.done(world, what):
        world.db.execute(call)
    assert scenario.done(world, what)
    world.check()
    world.assert_settled()


@pytest.mark.parametrize("point, kill", list(zip(WORKER_POINTS, itertools.cycle(KILLS))),
                         ids=[point.split("@")[0] for point in WORKER_POINTS])
def test_p4_the_worker_goes_on_where_it_was_killed(cluster, world, point, kill):
    """Nobody calls anything: the launcher, the scanner or the worker dies, and the partition is archived all the same."""
    points = Failpoints(cluster)
    name = world.month(table=POLICY)
    world.db.execute(f"SELECT set_archive_policy('{POLICY}', archive_after => '1 month', storage => 'cold', drop_after => '0')")
    points.arm_everywhere(";".join(filter(None, [f"{point}=wait", WORKER_POINTS[point]])))
    world.db.execute("ALTER SYSTEM SET archive_ext.worker_enabled = on")
    world.db.execute("SELECT pg_reload_conf()")
    kill(cluster, points.reached(point.split("@")[0]))
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
