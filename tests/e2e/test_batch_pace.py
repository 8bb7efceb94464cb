"""Batches give way to others, and tell why they stopped, how fast they are and how long it will take."""

import threading
import time

import psycopg
import pytest

from harness.cluster import wait_until
from harness.sessions import Call

ROWS = 3000


@pytest.fixture
def audit(db, cluster):
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL);
        INSERT INTO audit SELECT n, '2022-01-01'::timestamptz + n * interval '1 hour' FROM generate_series(1, {ROWS}) n;
        ANALYZE audit""")
    db.conn = db.connect()
    db.notices = []
    db.conn.add_notice_handler(lambda notice: db.notices.append(notice.message_primary))
    return db


def archive(db, *arguments, session=None):
    given = ", ".join(["'2023-01-01'", "batch_rows => 100", *arguments])
    (session or db).execute(f"CALL archive_table('audit', {given})")


def why(db):
    return db.value("SELECT why_stopped FROM archive_ext.jobs ORDER BY started_at DESC LIMIT 1")


def test_while_the_cluster_is_busy_it_waits_or_leaves(audit):
    audit.execute("SET archive_ext.max_load = 0.0001")
    begun = time.monotonic()
    archive(audit, "run_for => '2 s'")
    assert 1.5 < time.monotonic() - begun < 10
    assert why(audit) == "throttled" and audit.value("SELECT count(*) FROM audit") == ROWS
    waiting, told = audit.notices
    assert waiting.startswith("waiting: the load average is") and told == "0 rows archived, more may be left (throttled)"
    audit.execute("RESET archive_ext.max_load")
    archive(audit)
    assert why(audit) == "done" and audit.value("SELECT count(*) FROM audit") == 0


def test_sessions_that_wait_for_locks_come_first(audit):
    audit.execute("CREATE TABLE hot (id int PRIMARY KEY); INSERT INTO hot VALUES (1)")
    holder, waiters = audit.connect(), [audit.connect(), audit.connect()]
    holder.autocommit = False
    holder.execute("SELECT FROM hot FOR UPDATE")
    calls = [Call(lambda waiter=waiter: waiter.execute("SELECT FROM hot FOR UPDATE")) for waiter in waiters]
    wait_until(lambda: audit.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'") == 2, 10, "two")
    audit.execute("SET archive_ext.max_lock_waits = 1")
    assert audit.value("SELECT archive_ext.throttled()") == "2 sessions wait for locks (archive_ext.max_lock_waits is 1)"
    session = audit.connect()
    session.execute("SET archive_ext.max_lock_waits = 1")
    call = Call(lambda: archive(audit, session=session))
    time.sleep(1.5)
    assert audit.value("SELECT count(*) FROM audit") == ROWS
    holder.rollback()
    call.result()
    for waiter in calls:
        waiter.result()
    assert why(audit) == "done"


def test_only_the_standbys_that_are_named_count(audit):
    """There is none here: what counts is that the names are read, and hold nothing up when nobody bears them."""
    audit.execute("SET archive_ext.max_replication_lag = '1 s'; SET archive_ext.lag_standbys = 'paris, berlin'")
    assert audit.value("SELECT archive_ext.throttled()") is None
    archive(audit, "max_batches => 1")
    assert audit.value("SELECT count(*) FROM audit") == ROWS - 100


def test_why_it_stopped(audit):
    archive(audit, "max_batches => 2")
    assert why(audit) == "max_batches" and audit.notices[-1] == "200 rows archived, more may be left (max_batches)"
    archive(audit, "run_for => '0 s'")
    assert why(audit) == "run_for"
    today = audit.value("SELECT to_char(now() AT TIME ZONE 'UTC' + interval '3 days', 'Dy')")
    archive(audit, f"maintenance_window => '{today} UTC'")
    assert why(audit) == "window"
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="invalid maintenance window"):
        archive(audit, "maintenance_window => 'noon'")
    audit.execute("SELECT archive_table_batch('audit', '2023-01-01', batch_rows => 10)")
    assert why(audit) == "max_batches"
    session = audit.connect()
    call = Call(lambda: archive(audit, "sleep => '100 ms'", session=session))
    wait_until(lambda: audit.value("SELECT rows_archived FROM archive_ext.jobs") > 300, 20, "batches")
    assert why(audit) is None
    job = audit.value("SELECT job_id FROM archive_ext.jobs")
    audit.execute("SELECT pause_job(%s)", [job])
    call.result()
    assert why(audit) == "paused"
    audit.execute("SELECT resume_job(%s)", [job])
    audit.execute("SELECT cancel_job(%s)", [job])
    assert why(audit) == "cancelled"
    audit.execute("CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$")
    audit.execute("CREATE TRIGGER no BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION no()")
    with pytest.raises(psycopg.errors.RaiseException):
        archive(audit)
    assert why(audit) == "error"


def test_who_left_by_its_own_will_was_not_interrupted(audit):
    for arguments in ["max_batches => 1"], []:
        session = audit.connect()
        if arguments:
            archive(audit, *arguments, session=session)
        else:
            session.execute("SELECT archive_table_batch('audit', '2023-01-01', batch_rows => 10)")
        pid = session.info.backend_pid
        session.close()
        wait_until(lambda pid=pid: audit.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]) == 0, 10, "its end")
        assert audit.all("SELECT * FROM archive_ext.alerts") == []
    killed = audit.connect()
    runner = threading.Thread(target=lambda: pytest.raises(psycopg.Error, archive, audit, "sleep => '1 s'", session=killed))
    runner.start()
    wait_until(lambda: audit.value("SELECT rows_archived FROM archive_ext.jobs") > 120, 10, "a batch")
    audit.execute("SELECT pg_terminate_backend(%s)", [killed.info.backend_pid])
    runner.join()
    wait_until(lambda: why(audit) == "interrupted", 10, "the view to tell")
    assert audit.value("SELECT count(*) FROM archive_ext.alerts WHERE alert = 'interrupted'") == 1


def test_how_fast_it_is_and_how_long_it_takes(audit):
    archive(audit, "max_batches => 10")
    job = audit.row("SELECT * FROM archive_ext.jobs")
    assert set(job.phase_seconds) == {"select", "pack", "write", "verify", "delete"}
    assert all(seconds > 0 for seconds in job.phase_seconds.values()), job.phase_seconds
    spent = sum(job.phase_seconds.values())
    assert abs(float(job.rows_per_second) - 1000 / spent) <= 1
    assert ROWS * 0.9 <= job.rows_expected <= ROWS * 1.1
    assert abs(job.remaining.total_seconds() - (job.rows_expected - 1000) * spent / 1000) <= 1
    wait_until(lambda: audit.value("SELECT dead_rows FROM archive_ext.jobs") >= 1000, 20, "the statistics")
    archive(audit)
    done = audit.row("SELECT * FROM archive_ext.jobs")
    assert done.remaining is None and sum(done.phase_seconds.values()) > spent
    audit.execute("VACUUM audit")
    wait_until(lambda: audit.value("SELECT dead_rows FROM archive_ext.jobs") == 0, 20, "the statistics")
