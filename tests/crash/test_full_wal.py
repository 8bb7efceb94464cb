"""No room for WAL in the middle of a call: the server panics and cannot even recover. With room again it starts, the same call ends
what was begun, and every row that a client saw committed is there once (P1, P4)."""

from contextlib import suppress

import psycopg
import pytest

from harness.cluster import Cluster, wait_until
from harness.disk import WalDisk, small_disk
from harness.failpoints import Failpoints
from harness.scenarios import SCENARIOS
from harness.sessions import Call
from harness.world import World, local_storage

# Where the room ends: before and after the guards, between export and read-back, in the swap, in what changes rows or other partitions.
PLACES = [("steps", "freeze_locked"), ("steps", "freeze_guarded"), ("steps", "object_put"), ("steps", "verify_done"),
          ("steps", "swap_detached"), ("steps", "swap_recorded"), ("function", "swap_commits"), ("batches", "batch_removed"),
          ("merge", "rearrange_copied"), ("reattach_from_objects", "restore_object_loaded")]


@pytest.fixture(scope="module")
def cluster():
    # WAL of files that were there before would make room.
    cluster = Cluster("min_wal_size=32MB", "archive_ext.lock_timeout=2s")
    with small_disk(cluster, "wal", "512m") as disk:
        cluster.wal = WalDisk(cluster, disk)
        yield cluster
        cluster.control("stop", "--mode=immediate")
    cluster.stop()


@pytest.fixture(scope="module")
def world(cluster):
    world = World(cluster, local_storage(cluster))
    yield world
    world.stop()
    assert world.total("deadlocks") == 0


def leave_no_wal(cluster):
    """The next file of WAL is needed at once, and there is no room for it."""
    ahead = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_insert_lsn())"
    with cluster.connect() as conn, suppress(psycopg.Error):
        cluster.wal.fill()
        for _ in range(conn.execute(ahead).fetchone()[0] + 1):
            conn.execute("SELECT pg_current_xact_id()")
            conn.execute("SELECT pg_switch_wal()")


def start_again(cluster):
    """Whether it can be connected to; it is started when it gave up."""
    if cluster.is_down():
        cluster.start()
    try:
        cluster.connect().close()
        return True
    except psycopg.OperationalError:
        return False


@pytest.mark.parametrize("name, point", PLACES, ids=["-".join(place) for place in PLACES])
def test_p1_p4_no_room_for_wal(cluster, world, name, point):
    scenario, points = SCENARIOS[name], Failpoints(cluster)
    what = scenario.prepare(world)
    call = scenario.call.format(what)
    world.db.execute("CHECKPOINT")  # WAL of earlier tests goes
    logged = len(cluster.log())
    points.arm("world", f"{point}@1=wait")
    victim = Call(cluster.connect("world").execute, call)
    points.reached(point, unless=lambda: victim.ended() and victim.result())
    leave_no_wal(cluster)
    points.release()
    with pytest.raises(psycopg.Error):
        victim.result(60)
    wait_until(lambda: "No space left on device" in cluster.log()[logged:], 20, "the server to find no room")

    cluster.wal.free()
    wait_until(lambda: start_again(cluster), 60, "the server to be there")
    points.disarm("world")
    world.db.reconnect()
    world.check()
    if not scenario.done(world, what):
        world.db.execute(call)
    assert scenario.done(world, what)
    world.check()
    world.assert_settled()
