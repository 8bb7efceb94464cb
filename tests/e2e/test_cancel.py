"""A job can be cancelled whatever became of its partition, and the guards that it left are lifted."""

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import accepts_a_write, create_orders
from harness.sessions import Call

PARTITION = "orders_2024_01"


@pytest.fixture
def frozen(db, cluster):
    """A job that has frozen its partition, and ended there; its id."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=2, rows=50)
    job = db.value(f"SELECT archive_ext.begin_archive('{PARTITION}', NULL, 'content', NULL)")
    while db.row("SELECT * FROM archive_ext.archive_step(%s)", [job]).phase != "frozen":
        pass
    assert not accepts_a_write(db, PARTITION)
    return job


def leave_a_detach_pending(db):
    reader, detacher = db.connect(), db.connect()
    reader.autocommit = False
    reader.execute("SELECT count(*) FROM orders")
    call = Call(detacher.execute, f"ALTER TABLE orders DETACH PARTITION {PARTITION} CONCURRENTLY")
    wait_until(lambda: db.value("SELECT inhdetachpending FROM pg_inherits WHERE inhrelid = %s::regclass", [PARTITION]),
               20, "the detach to be pending")
    db.execute("SELECT pg_cancel_backend(%s)", [detacher.info.backend_pid])
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.result(20)
    reader.rollback()


BECAME = {
    "static": lambda db: db.execute("SELECT register_static_table('orders', 'looked up all the time')"),
    "unlogged": lambda db: db.execute(f"ALTER TABLE {PARTITION} SET UNLOGGED"),
    "detach pending": leave_a_detach_pending,
    "detached": lambda db: db.execute(f"ALTER TABLE orders DETACH PARTITION {PARTITION}"),
    "another owner's": lambda db: db.execute(f"ALTER TABLE {PARTITION} OWNER TO archive_ext_admin"),
    "default": lambda db: db.execute(
        f"ALTER TABLE orders DETACH PARTITION {PARTITION}; ALTER TABLE orders ATTACH PARTITION {PARTITION} DEFAULT"),
}


@pytest.mark.parametrize("became", BECAME)
def test_p4_a_job_is_cancelled_whatever_its_partition_became(db, frozen, became):
    BECAME[became](db)
    with pytest.raises(psycopg.Error):
        while db.row("SELECT * FROM archive_ext.archive_step(%s)", [frozen]).more:
            pass
    assert db.value("SELECT cancel_job(%s)", [frozen])
    assert db.value("SELECT status FROM archive_ext.jobs WHERE job_id = %s", [frozen]) == "cancelled"
    assert accepts_a_write(db, PARTITION)
    assert not db.value("SELECT count(*) FROM pg_constraint WHERE conname = 'archive_ext_bounds'")
    if became == "another owner's":
        db.execute(f"ALTER TABLE {PARTITION} OWNER TO postgres")


def test_p4_a_cancelled_job_leaves_the_local_copy_of_another_run_guarded(db, frozen):
    """Its partition is archived by now: what is left of it is no more the job's."""
    other = db.connect()
    other.execute("SET archive_ext.default_storage = 'cold'")
    status = "UPDATE archive_ext.archival_job SET status = 'paused' WHERE job_id = %s"
    other.execute("SELECT archive_partition(%s)", [PARTITION])
    other.execute(status, [frozen])
    db.execute("SELECT cancel_job(%s)", [frozen])
    copy = db.value("SELECT local_copy FROM archive_ext.partition WHERE partition_name = %s", [PARTITION])
    with pytest.raises(psycopg.errors.ObjectInUse):
        db.execute(f"DELETE FROM {copy}")


def test_p8_only_the_owner_lifts_the_guards(db, role, frozen):
    """Whoever started the job and owns the partition no more does not: 42501."""
    starter = role("starter")
    db.execute("UPDATE archive_ext.archival_job SET started_by = %s WHERE job_id = %s", [starter, frozen])
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(starter).execute("SELECT cancel_job(%s)", [frozen])
    assert not accepts_a_write(db, PARTITION)
