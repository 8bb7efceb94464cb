"""Jobs that are late, and runs that hold back while the cluster is busy."""

import pytest

from harness.cluster import wait_until
from harness.orders import create_orders, create_wide
from harness.sessions import Call


@pytest.fixture
def storage(db):
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{db.cluster.storage / db.name}')")


@pytest.fixture
def orders(db, storage):
    create_orders(db.conn, months=3, rows=50)
    db.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold')")


def jobs(db):
    return {tuple(job) for job in db.all("SELECT partition_name, status, attempts FROM archive_ext.jobs")}


def archived(db):
    return db.value("SELECT count(*) FROM archive_ext.partitions WHERE status = 'ARCHIVED'")


LATE = "SELECT detail FROM archive_ext.alerts WHERE alert = 'late'"


def backdate(db, hours):
    db.execute("UPDATE archive_ext.archival_job SET started_at = clock_timestamp() - %s * interval '1 hour'", [hours])


def test_a_job_that_its_window_passed_by_is_late(db, orders):
    db.execute("SELECT set_archive_policy('orders', maintenance_window => '22:00-23:00 UTC')")
    db.execute("SET archive_ext.now = '2024-03-15 12:00+00'")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == {("public.orders_2024_01", "pending", 0)}
    assert db.all(LATE) == []
    backdate(db, 12)
    assert db.all(LATE) == [], "it is younger than the end of its last window"
    backdate(db, 14)
    late = db.row("SELECT alert, detail, partition_name, remedy FROM archive_ext.alerts WHERE job_id IS NOT NULL")
    assert late[:3] == ("late", "its window 22:00-23:00 UTC passed without it", "public.orders_2024_01")
    assert "longer window" in late.remedy


def test_a_job_that_its_window_was_too_short_for_is_late(db, orders):
    db.execute("SELECT set_archive_policy('orders', maintenance_window => '22:00-23:00 UTC')")
    db.execute("SET archive_ext.now = '2024-03-15 22:59+00'")
    db.execute("SELECT archive_ext.schedule_jobs('orders')")
    job = db.value("SELECT archive_ext.next_job('orders')")
    assert db.value("SELECT more FROM archive_ext.lifecycle_step(%s)", [job])
    assert db.all(LATE) == []
    db.execute("SET archive_ext.now = '2024-03-15 23:01+00'")
    step = db.row("SELECT more, phase FROM archive_ext.lifecycle_step(%s)", [job])
    assert step == (False, "suspended")
    assert db.all(LATE) == [("its window 22:00-23:00 UTC closed before it was done",)]

    db.execute("SET archive_ext.now = '2024-03-16 22:00+00'")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 1
    assert db.all(LATE) == []


def test_a_job_that_nobody_takes_up_for_a_day_is_late(db, orders):
    db.execute("SET archive_ext.now = '2024-03-15'")
    db.execute("SELECT archive_ext.schedule_jobs('orders')")
    backdate(db, 23)
    assert db.all(LATE) == []
    backdate(db, 25)
    assert db.all(LATE) == [("nobody has done it for a day",)]


def notices(session):
    heard = []
    session.add_notice_handler(lambda notice: heard.append(notice.message_primary))
    return heard


def test_a_run_begins_no_job_while_the_cluster_is_busy(db, orders, role):
    db.execute("SET archive_ext.now = '2024-03-15'")
    heard = notices(db.conn)
    db.execute("SET archive_ext.max_load = 0.0001")
    db.execute("CALL run_lifecycle()")
    assert [text for text in heard if text.startswith("no further job is begun: the load average is ")]
    assert jobs(db) == {("public.orders_2024_01", "pending", 0)}
    explained = db.row("SELECT reason, freed_by FROM explain_lifecycle('orders') WHERE partition LIKE '%01'")
    assert "; jobs wait: the load average is " in explained.reason
    assert explained.freed_by == "CALL run_lifecycle(); no worker does it: archive_ext.worker_enabled is off"

    someone = role("someone")
    db.execute(f"ALTER ROLE {someone} SET archive_ext.max_load = 0.0001")
    session = db.connect(someone)
    told = notices(session)
    session.execute("CALL run_lifecycle()")
    assert told == ["no further job is begun: archive_ext.max_load is exceeded"]

    db.execute("RESET archive_ext.max_load")
    assert "jobs wait" not in db.value("SELECT reason FROM explain_lifecycle('orders') WHERE partition LIKE '%01'")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 1


def test_a_run_waits_between_two_steps_while_the_cluster_is_busy(db, storage):
    create_wide(db.conn, rows=600)
    db.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold')")
    runner = db.connect()
    heard = notices(runner)
    runner.execute("SET archive_ext.max_xmin_age = 50; SET archive_ext.max_rate = '200kB'")
    call = Call(runner.execute, "CALL run_lifecycle(max_jobs => 1)")
    wait_until(lambda: db.all("SELECT FROM archive_ext.progress WHERE phase = 'exporting'"), 60, "the run to export")
    old = db.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT count(*) FROM pg_class")
    for _ in range(60):
        db.execute("SELECT pg_current_xact_id()")

    wait_until(lambda: heard, 60, "the run to say that it waits")
    assert "waits: the oldest snapshot is" in heard[0] and "archive_ext.max_xmin_age is 50" in heard[0]
    assert db.all("SELECT phase FROM archive_ext.jobs WHERE status = 'running'") == [("exported",)]
    old.rollback()
    call.result(60)
    assert archived(db) == 1
