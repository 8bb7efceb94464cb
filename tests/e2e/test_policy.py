"""What policies have done by themselves: retries, alerts, sessions beside each other, crashes, steering."""

import json

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.proxy import Stall, Status
from harness.sessions import Call

MONTHS = ["orders_2024_01", "orders_2024_02", "orders_2024_03"]


@pytest.fixture
def orders(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=3, rows=500)
    keep_truth(db, "orders")
    db.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold', max_attempts => 2)")
    yield fault_proxy
    fault_proxy.heal()


def jobs(db):
    return {tuple(job) for job in db.all("SELECT partition_name, status, attempts FROM archive_ext.jobs")}


def archived(db):
    return db.value("SELECT count(*) FROM archive_ext.partitions WHERE status = 'ARCHIVED'")


def test_what_fails_is_tried_again_given_up_and_told(db, orders):
    listener = db.connect()
    listener.execute("LISTEN archive_ext")
    orders.on("PUT|POST", r"\.parquet", fault=Status(403, "AccessDenied"), times=None)
    db.execute("SET archive_ext.now = '2024-03-15'")

    db.execute("CALL run_lifecycle()")
    assert jobs(db) == {("public.orders_2024_01", "pending", 1)}
    assert db.value("SELECT alert FROM archive_ext.alerts WHERE partition_name IS NOT NULL") == "failing"
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == {("public.orders_2024_01", "pending", 1)}, "it is not tried again before its time"
    db.execute("SET archive_ext.now = '2024-03-15 00:01'")
    db.execute("CALL run_lifecycle()")

    assert jobs(db) == {("public.orders_2024_01", "failed", 2)}
    told = [json.loads(n.payload) for n in listener.notifies(timeout=20, stop_after=2)]
    assert [(t["event"], t["attempts"], t["given_up"]) for t in told] == [("failed", 1, False), ("given_up", 2, True)]
    assert told[0]["partition"] == "public.orders_2024_01" and told[0]["retry_in_seconds"] == 30
    assert db.value("SELECT alert FROM archive_ext.alerts WHERE partition_name IS NOT NULL") == "given up"
    assert "is given up after 2 attempts" in db.cluster.log()
    db.execute("UPDATE orders_2024_01 SET note = note")
    orders.heal()
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 0, "nobody has said that the cause is mended"
    db.execute("SELECT retry_job(job_id) FROM archive_ext.jobs")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 1
    assert_same_rows(db, "truth", "archive.orders_all")


def test_two_at_once_do_each_partition_once(db, orders):
    sessions = [db.connect(), db.connect()]
    calls = [Call(session.execute, "CALL run_lifecycle('orders')") for session in sessions]
    for call in calls:
        call.result(120)
    db.execute("CALL run_lifecycle()")

    assert jobs(db) == {(f"public.{month}", "completed", 0) for month in MONTHS}
    assert archived(db) == 3
    assert db.value("SELECT count(*) FROM archive_ext.jobs") == 3
    assert_same_rows(db, "truth", "archive.orders_all")


def test_p4_a_killed_session_is_noticed_and_its_job_goes_on(db, orders):
    stalled = orders.on("GET", r"\.parquet", fault=Stall())
    victim = db.connect()
    call = Call(victim.execute, "CALL run_lifecycle()")
    assert stalled.hit.wait(60)
    db.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
    with pytest.raises(psycopg.Error):
        call.result(60)
    orders.heal()
    wait_until(lambda: not db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [victim.info.backend_pid]),
               20, "the session to end")

    db.execute("CALL run_lifecycle()")
    assert archived(db) == 3
    assert db.value("SELECT count(*) FROM archive_ext.jobs") == 3
    assert_same_rows(db, "truth", "archive.orders_all")


def test_a_running_job_is_cancelled_from_another_session(db, orders):
    stalled = orders.on("GET", r"\.parquet", fault=Stall())
    runner = db.connect()
    call = Call(runner.execute, "CALL run_lifecycle(max_jobs => 1)")
    assert stalled.hit.wait(60)
    job = db.value("SELECT job_id FROM archive_ext.jobs WHERE status = 'running'")

    assert db.value("SELECT cancel_job(%s)", [job])
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.result(60)
    orders.heal()
    assert db.value("SELECT status FROM archive_ext.jobs WHERE job_id = %s", [job]) == "cancelled"
    db.execute("UPDATE orders_2024_01 SET note = note")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 2, "what a person cancelled is not begun again"


def test_a_paused_job_stops_after_its_step_and_goes_on(db, orders):
    stalled = orders.on("GET", r"\.parquet", fault=Stall())
    runner = db.connect()
    call = Call(runner.execute, "CALL run_lifecycle(max_jobs => 1)")
    assert stalled.hit.wait(60)
    job = db.value("SELECT job_id FROM archive_ext.jobs WHERE status = 'running'")
    db.execute("SELECT pause_job(%s)", [job])
    orders.heal()
    call.result(60)

    assert db.row("SELECT status, phase FROM archive_ext.jobs WHERE job_id = %s", [job]) == ("paused", "verified")
    db.execute("SELECT resume_job(%s)", [job])
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 3
    assert_same_rows(db, "truth", "archive.orders_all")


def test_a_lock_in_the_way_is_no_failure_and_the_blocker_is_named(db, orders):
    db.execute("SET archive_ext.now = '2024-03-15'")
    db.execute("SET archive_ext.lock_timeout = '100ms'")
    reader = db.connect()
    reader.execute("BEGIN; SELECT count(*) FROM orders")

    db.execute("CALL run_lifecycle()")

    assert jobs(db) == {("public.orders_2024_01", "pending", 0)}
    explained = db.row("SELECT reason, blocked_by FROM explain_lifecycle('orders') WHERE partition LIKE '%01'")
    assert "could not lock" in explained.reason and f"Process {reader.info.backend_pid} " in explained.blocked_by
    reader.execute("COMMIT")
    db.execute("SET archive_ext.now = '2024-03-15 00:00:10'")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 1


def test_by_size_the_oldest_leave(db, orders):
    one = db.value("SELECT pg_total_relation_size('orders_2024_03')")
    db.execute("SELECT set_archive_policy('orders', max_hot_bytes => %s, clear => '{archive_after}')", [one * 3 // 2])
    db.execute("CALL run_lifecycle()")
    assert db.all("SELECT partition_name FROM archive_ext.partitions ORDER BY 1") == [(MONTHS[0],), (MONTHS[1],)]


def test_partitions_in_use_wait(db, orders):
    db.execute("SELECT set_archive_policy('orders', idle_for => '10 days')")
    db.execute("SELECT pg_stat_force_next_flush()")
    db.execute("SET archive_ext.now = '2024-06-01'")
    db.execute("CALL run_lifecycle()")
    assert archived(db) == 0, "nothing is known before somebody looked"
    db.execute("SET archive_ext.now = '2024-06-09'")
    db.execute("SELECT count(*) FROM orders_2024_02")
    db.execute("SELECT pg_stat_force_next_flush()")
    db.execute("CALL run_lifecycle()")
    db.execute("SET archive_ext.now = '2024-06-12'")
    db.execute("CALL run_lifecycle()")
    assert db.all("SELECT partition_name FROM archive_ext.partitions ORDER BY 1") == [(MONTHS[0],), (MONTHS[2],)]
    assert "idle_for 10 days" in db.value("SELECT reason FROM explain_lifecycle('orders') WHERE partition LIKE '%02'")


def test_an_owner_without_privileges_runs_his_own_and_sees_no_other(db, cluster, role):
    cluster.storage.mkdir(exist_ok=True)
    owner, other = role("owner"), role("other")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    session = db.connect(owner)
    create_orders(session, months=2, rows=100)
    session.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold')")

    stranger = db.connect(other)
    stranger.execute("CALL run_lifecycle()")
    assert archived(db) == 0
    assert stranger.execute("SELECT count(*) FROM archive_ext.policies").fetchone() == (0,)
    assert stranger.execute("SELECT count(*) FROM archive_ext.alerts").fetchone() == (0,)
    assert stranger.execute("SELECT export_policies() -> 'policies'").fetchone() == ([],)
    for call in ["set_archive_policy('orders', premake => 1)", "drop_archive_policy('orders')",
                 "plan_archive('orders')", "explain_lifecycle('orders')", "lifecycle_map('orders')"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(f"SELECT {call}")
    session.execute("SELECT archive_ext.schedule_jobs(NULL)")
    job = db.value("SELECT job_id FROM archive_ext.jobs LIMIT 1")
    for verb in ["cancel_job", "pause_job", "resume_job", "retry_job"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            stranger.execute(f"SELECT {verb}('{job}')")
    session.execute("CALL run_lifecycle()")
    assert archived(db) == 2


def test_a_family_is_archived_together(db, orders):
    db.execute("CREATE TABLE lines (order_id bigint, created_at timestamptz, n int,"
               " FOREIGN KEY (order_id, created_at) REFERENCES orders (id, created_at)) PARTITION BY RANGE (created_at)")
    for month in (1, 2, 3):
        db.execute(f"CREATE TABLE lines_2024_0{month} PARTITION OF lines"
                   f" FOR VALUES FROM ('2024-0{month}-01 00:00+00') TO ('2024-0{month + 1}-01 00:00+00')")
    db.execute("INSERT INTO lines SELECT id, created_at, 1 FROM orders")
    db.execute("SELECT add_child_table('orders', 'lines')")
    db.execute("SET archive_ext.now = '2024-03-15'")

    db.execute("CALL run_lifecycle('orders')")

    assert db.all("SELECT partition_name FROM archive_ext.partitions WHERE status = 'ARCHIVED' ORDER BY 1") == [
        ("lines_2024_01",), ("orders_2024_01",)]
    assert db.value("SELECT count(*) FROM archive_ext.jobs WHERE status <> 'completed'") == 0
    assert db.value("SELECT count(*) FROM archive.lines_all") == 1500
