"""The background worker: it does what policies say without anybody calling, as the policies' owners, and gets out of
everybody's way."""

import os
import signal
import subprocess

import psycopg
import pytest
from psycopg import sql

from harness.cluster import Cluster, Database, is_alive, wait_until
from harness.orders import create_orders, create_wide
from harness.s3 import Bucket

DUE = "storage => 'cold', drop_after => '0', archive_after => '1 month'"
SLOW = "200kB"


@pytest.fixture(scope="module")
def cluster():
    """Of its own: its worker is on, and it is killed, stopped and reconfigured."""
    cluster = Cluster("archive_ext.worker_enabled=on", "archive_ext.naptime=1s", "wal_level=replica", "max_wal_senders=4")
    yield cluster
    cluster.stop()


def program(name):
    bindir = subprocess.check_output([os.environ["PG_CONFIG"], "--bindir"], text=True).strip()
    return f"{bindir}/{name}"


def as_server(cluster, *command, timeout=60):
    done = subprocess.run(["runuser", "-u", cluster.user, "--", *map(str, command)],
                          cwd="/", capture_output=True, text=True, timeout=timeout)
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"


def configure(cluster, **settings):
    with cluster.connect() as conn:
        for name, value in settings.items():
            name = sql.SQL("archive_ext.") + sql.Identifier(name)
            conn.execute(sql.SQL("ALTER SYSTEM RESET {}").format(name) if value is None
                         else sql.SQL("ALTER SYSTEM SET {} = {}").format(name, sql.Literal(value)))
        conn.execute("SELECT pg_reload_conf()")


@pytest.fixture
def configured(cluster):
    """configured(naptime='1h') until the test ends."""
    changed = set()

    def change(**settings):
        changed.update(settings)
        configure(cluster, **settings)

    yield change
    configure(cluster, **dict.fromkeys(changed))


def storage(db):
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{db.cluster.storage / db.name}')")


def own_orders(db, owner, *, rows=200, months=2):
    """A table of an ordinary role, with a storage it may use."""
    if not db.value("SELECT count(*) FROM pg_foreign_server WHERE srvname = 'cold'"):
        storage(db)
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    session = db.connect(owner)
    create_orders(session, months=months, rows=rows, name=f"orders_of_{owner}")
    return session, f"orders_of_{owner}"


def own_wide(db, owner, *, rows=1500):
    """orders_2024_01 takes seconds to archive at SLOW. Its policy comes later."""
    storage(db)
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    create_wide(db.conn, rows=rows)
    for table in ["orders", "orders_2024_01", "orders_2024_02"]:
        db.execute(f"ALTER TABLE {table} OWNER TO {owner}")
    return db.connect(owner)


def jobs(db, status):
    return db.value("SELECT count(*) FROM archive_ext.archival_job WHERE status = %s", [status])


def workers(db, where="true"):
    return db.all(f"SELECT * FROM archive_ext.workers WHERE kind = 'worker' AND ({where})")


def worker_at_work(db):
    """The slot of this database's worker once it uploads."""
    rows = db.all("SELECT w.* FROM archive_ext.workers w JOIN archive_ext.progress p USING (pid)"
                  " WHERE w.database = current_database() AND p.phase = 'exporting'")
    return rows[0] if rows else None


def archived(db, table, months=2):
    return db.exists(f"archive.{table}") and jobs(db, "completed") >= months


def test_policies_of_two_owners_in_two_databases_are_done_by_themselves(cluster, db, role):
    """Nobody calls anything; each job is its owner's, who is no superuser."""
    other = Database(cluster, db.name + "_too")
    try:
        tables = []
        for database, owner in [(db, role("ada")), (db, role("bob")), (other, role("eve"))]:
            session, table = own_orders(database, owner)
            session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
            tables.append((database, owner, table))
        for database, owner, table in tables:
            wait_until(lambda: database.value(
                "SELECT count(*) FROM archive_ext.archival_job WHERE status = 'completed' AND table_name = %s::regclass",
                [table]) == 2, 60, f"{table} to be archived")
            assert database.value(f"SELECT count(*) FROM archive.{table}") == 400
            assert database.value(f"SELECT count(*) FROM {table}") == 0
            assert database.value("SELECT DISTINCT started_by FROM archive_ext.archival_job"
                                  " WHERE table_name = %s::regclass", [table]) == owner
        wait_until(lambda: not workers(db), 20, "the workers to end when nothing is due")
    finally:
        other.drop()


def test_p8_code_in_a_worker_cannot_become_anybody_else(db, role):
    """The session user is the owner, so RESET ROLE and RESET SESSION AUTHORIZATION lead back to the owner."""
    owner = role("mallory")
    session = own_wide(db, owner)
    db.execute(f"ALTER ROLE {owner} SET archive_ext.max_rate = '{SLOW}'")
    session.execute(f"SELECT set_archive_policy('orders', {DUE})")
    slot = wait_until(lambda: worker_at_work(db), 30, "the worker to export")
    seen = db.row("SELECT usename, backend_type FROM pg_stat_activity WHERE pid = %s", [slot.pid])
    assert (seen.usename, seen.backend_type, slot.role) == (owner, "archive_ext worker", owner)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SET archive_ext.max_rate = 0")
    db.execute(f"ALTER ROLE {owner} RESET archive_ext.max_rate")
    db.execute("SELECT pg_terminate_backend(%s)", [slot.pid])
    wait_until(lambda: archived(db, "orders"), 60, "the job to be taken up again")


TRAPS = """
    CREATE TABLE seen (place text, statement text, outcome text, session_role text, acting_role text, superuser text);
    CREATE FUNCTION try(place text) RETURNS boolean LANGUAGE plpgsql AS $$
    DECLARE
        statement text;
        outcome   text;
    BEGIN
        FOREACH statement IN ARRAY ARRAY['RESET ROLE', 'RESET SESSION AUTHORIZATION', 'SET ROLE postgres', 'SET ROLE NONE',
                                         'SET SESSION AUTHORIZATION postgres', 'SET SESSION AUTHORIZATION DEFAULT'] LOOP
            BEGIN
                EXECUTE statement;
                outcome := 'done';
            EXCEPTION WHEN OTHERS THEN
                outcome := SQLSTATE;
            END;
            INSERT INTO public.seen VALUES (place, statement, outcome, session_user, current_user, current_setting('is_superuser'));
        END LOOP;
        RETURN true;
    END $$;
    CREATE FUNCTION try_in_index(id int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.try('index');
        RETURN id;
    END $$;
    CREATE FUNCTION try_in_trigger() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        PERFORM public.try(TG_ARGV[0]);
        RETURN coalesce(NEW, OLD);
    END $$;
    CREATE TABLE ticket (id int NOT NULL, lifecycle_status text NOT NULL, opened_at timestamptz NOT NULL,
                         PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
    CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
    INSERT INTO ticket VALUES (1, 'LIVE_202412', '2024-12-17');
    ALTER TABLE ticket ADD CONSTRAINT trap CHECK (try('check'));
    CREATE INDEX ON ticket (try_in_index(id));
    CREATE TRIGGER trap BEFORE UPDATE ON ticket FOR EACH ROW EXECUTE FUNCTION try_in_trigger('row trigger');
    CREATE CONSTRAINT TRIGGER late_trap AFTER DELETE ON ticket_live_202412 DEFERRABLE INITIALLY DEFERRED
        FOR EACH ROW EXECUTE FUNCTION try_in_trigger('trigger at commit');
    TRUNCATE seen;
"""


def test_p8_code_on_the_way_of_rows_cannot_become_anybody_else(db, role):
    """Whatever a worker comes across while it moves rows, also at its commit, is the owner's and stays so."""
    owner = role("mallory")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    session = db.connect(owner)
    session.execute(TRAPS)
    status = "SELECT string_agg(DISTINCT lifecycle_status, ' ') FROM ticket"
    session.execute("SELECT set_archive_policy('ticket', hot_after => '1 month')")
    wait_until(lambda: db.value(status) == "HOT", 60, "the worker to move the row")

    job = session.execute("SELECT archive_ext.begin_rows('ticket', $$try('where_clause')$$, 'WARM', NULL, 100)").fetchone()[0]
    session.execute("SELECT pause_job(%s)", [job])
    session.execute("SELECT resume_job(%s)", [job])
    wait_until(lambda: db.value(status) == "WARM_2024", 60, "the worker to do the job with the clause")
    wait_until(lambda: not workers(db), 20, "the worker to end")

    assert {r.place for r in db.all("SELECT DISTINCT place FROM seen")} == {
        "where_clause", "check", "index", "row trigger", "trigger at commit"}
    assert db.all("SELECT DISTINCT session_role, acting_role, superuser FROM seen") == [(owner, owner, "off")]
    became = db.all("SELECT DISTINCT statement FROM seen WHERE outcome = 'done' AND statement LIKE '%% postgres'", [])
    assert became == []
    assert db.value("SELECT count(*) FROM seen WHERE place = 'trigger at commit' AND statement = 'RESET ROLE'"
                    " AND outcome = 'done'") > 0, "there it works, and leads back to the owner"


def test_a_killed_worker_is_followed_by_one_that_finishes_its_job(cluster, db, role, configured):
    session = own_wide(db, role("owner"))
    configured(max_rate=SLOW)
    session.execute(f"SELECT set_archive_policy('orders', {DUE})")
    slot = wait_until(lambda: worker_at_work(db), 30, "the worker to export")
    os.kill(slot.pid, signal.SIGKILL)
    wait_until(lambda: not is_alive(slot.pid), 10, "the worker to die")
    db.reconnect()
    configure(cluster, max_rate=None)
    wait_until(lambda: archived(db, "orders"), 60, "the interrupted job to be finished")
    assert db.value("SELECT status FROM archive_ext.archival_job WHERE job_id = %s", [slot.job_id]) == "completed"
    assert db.value("SELECT count(*) FROM archive.orders_all") == 1500


def test_the_server_stops_in_the_middle_of_an_export_and_goes_on_after_its_start(cluster, db, role, configured):
    session = own_wide(db, role("owner"))
    configured(max_rate=SLOW)
    session.execute(f"SELECT set_archive_policy('orders', {DUE})")
    wait_until(lambda: worker_at_work(db), 30, "the worker to export")
    data = cluster.dir / "data"
    as_server(cluster, program("pg_ctl"), "stop", "-D", data, "-m", "fast", "-t", "10", "-s")
    subprocess.run(["runuser", "-u", cluster.user, "--", program("pg_ctl"), "start", "-w", "-s", "-D", data,
                    "-l", cluster.dir / "log"], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)
    db.reconnect()
    configure(cluster, max_rate=None)
    wait_until(lambda: archived(db, "orders"), 60, "the job to be finished")
    assert db.value("SELECT count(*) FROM archive.orders_all") == 1500


def test_naptime_and_switch_are_reloaded(cluster, db, role, configured):
    configured(worker_enabled="off")
    wait_until(lambda: db.value("SELECT state FROM archive_ext.workers WHERE kind = 'launcher'") == "disabled",
               10, "the launcher to notice")
    assert "worker_enabled" in db.value("SELECT archive_ext.worker_hold()")
    session, table = own_orders(db, role("owner"))
    session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
    configured(naptime="1h", worker_enabled="on", max_load=0.0001)
    wait_until(lambda: "begins no job: the load average" in cluster.log(), 20, "the round that found the machine busy")
    wait_until(lambda: not workers(db), 20, "the worker not to wait there")
    assert jobs(db, "completed") == 0
    explained = db.row("SELECT reason, freed_by FROM explain_lifecycle(%s) LIMIT 1", [table])
    assert "; jobs wait: the load average is " in explained.reason
    assert explained.freed_by == "the worker, or CALL run_lifecycle()"
    configured(max_load=0, naptime="1s")
    wait_until(lambda: archived(db, table), 60, "the round after the reload")
    assert db.value("SELECT archive_ext.worker_hold()") is None


def test_an_old_snapshot_holds_a_job_up_until_it_is_gone(db, role, configured):
    """Between two steps a job waits, says why, and goes on."""
    session = own_wide(db, role("owner"))
    configured(max_rate=SLOW)
    session.execute(f"SELECT set_archive_policy('orders', {DUE})")
    slot = wait_until(lambda: worker_at_work(db), 30, "the worker to export")
    stranger = db.connect(role("stranger"))
    assert stranger.execute("SELECT * FROM archive_ext.progress_slots()").fetchall() == []
    assert len(session.execute("SELECT * FROM archive_ext.progress_slots()").fetchall()) == 1
    old = db.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    old.execute("SELECT count(*) FROM orders")
    for _ in range(5):
        db.execute("CREATE TABLE burnt (); DROP TABLE burnt")
    configured(max_xmin_age=2, max_rate=0)
    waits = wait_until(lambda: workers(db, "state = 'throttled'"), 30, "the worker to be throttled")
    assert (waits[0].pid, waits[0].job_id) == (slot.pid, slot.job_id)
    assert "the oldest snapshot is" in waits[0].detail and "archive_ext.max_xmin_age is 2" in waits[0].detail
    assert "snapshot is" in db.value("SELECT archive_ext.throttled()")
    for other in [stranger, session]:
        told = other.execute("SELECT archive_ext.throttled()").fetchone()[0]
        assert told == "archive_ext.max_xmin_age is exceeded", "how busy the cluster is, statistics tell"
    slots = "SELECT kind, state, detail FROM archive_ext.worker_slots() ORDER BY 1"
    assert [slot.kind for slot in stranger.execute(slots).fetchall()] == ["launcher"]
    assert session.execute(slots).fetchall()[1] == ("worker", "throttled", None)
    old.rollback()
    wait_until(lambda: archived(db, "orders"), 60, "the job to go on")


def test_no_more_workers_than_allowed(db, role, configured):
    """Three owners, one place: each gets it in turn."""
    configured(max_workers=1, naptime="1s")
    owners = [role("owner") for _ in range(3)]
    tables = []
    for owner in owners:
        session, table = own_orders(db, owner, rows=20)
        session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
        tables.append(table)
    most = 0

    def done():
        nonlocal most
        most = max(most, len(workers(db)))
        return all(archived(db, table) for table in tables)

    configured(worker_enabled="off")
    configured(worker_enabled="on")
    wait_until(done, 60, "all to be archived, one owner after the other")
    assert most == 1


def test_drop_and_update_are_not_kept_waiting(cluster, role):
    """The worker of a database ends when nothing is due, so that nobody finds it in the way."""
    db = Database(cluster, "dropped")
    session, table = own_orders(db, role("owner"), rows=20)
    session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
    wait_until(lambda: archived(db, table), 60, "the table to be archived")
    wait_until(lambda: not workers(db), 20, "the worker to end")
    db.execute("SET lock_timeout = '2s'")
    db.execute("ALTER EXTENSION archive_ext UPDATE")
    db.execute("DROP EXTENSION archive_ext CASCADE")
    for conn in db._sessions:
        conn.close()
    with cluster.connect() as conn:
        conn.execute("DROP DATABASE dropped")


def test_an_owner_who_may_not_log_in_is_named_in_the_log(cluster, db, role):
    owner = role("group")
    session, table = own_orders(db, owner, rows=20)
    session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
    wait_until(lambda: archived(db, table), 60, "the table to be archived")
    db.execute(f"ALTER ROLE {owner} NOLOGIN")
    if db.conn.info.server_version < 170000:
        wait_until(lambda: f'cannot work for role "{owner}"' in cluster.log(), 20, "the warning")


def test_a_standby_does_nothing_until_promoted_and_then_waits_for_its_storage(cluster, db, role):
    session, table = own_orders(db, role("owner"), rows=20)
    session.execute(f"SELECT set_archive_policy('{table}', {DUE})")
    wait_until(lambda: archived(db, table), 60, "the table to be archived")
    standby = clone(cluster)
    try:
        copy = Copy(standby, db.name)
        assert copy.value("SELECT pg_is_in_recovery()")
        assert copy.all("SELECT * FROM archive_ext.workers") == []
        assert "does not run" in copy.value("SELECT archive_ext.worker_hold()")
        as_server(standby, program("pg_ctl"), "promote", "-w", "-s", "-D", standby.dir / "data")
        wait_until(lambda: copy.all("SELECT * FROM archive_ext.workers WHERE kind = 'launcher'"), 20, "the launcher")
        assert "adopt_storage('cold')" in copy.value("SELECT archive_ext.worker_hold()")
        wait_until(lambda: "starts no jobs in this database" in standby.log(), 20, "the worker to say that it is paused")
        copy.execute("SELECT adopt_storage('cold')")
        assert copy.value("SELECT archive_ext.worker_hold()") is None
        owner = copy.connect(session.info.user)
        owner.execute(f"CREATE TABLE late PARTITION OF {table} FOR VALUES FROM ('2024-07-01') TO ('2024-08-01')")
        wait_until(lambda: archived(copy, table, 3), 60, "the adopted copy to work")
        for conn in copy._sessions:
            conn.close()
    finally:
        standby.stop()


class Copy(Database):
    def __init__(self, cluster, name):
        self.cluster, self.name, self._sessions = cluster, name, []
        self.conn = self.connect()


def clone(cluster):
    """A streaming standby of `cluster` in a directory that scripts/cluster can stop."""
    standby = Cluster.__new__(Cluster)
    standby.pg_config = cluster.pg_config
    directory = subprocess.check_output(
        ["runuser", "-u", cluster.user, "--", "mktemp", "-d", "/var/tmp/archive_ext.XXXXXX"], cwd="/", text=True).strip()
    standby.dir = type(cluster.dir)(directory)
    standby.storage, standby.user = standby.dir / "storage", cluster.user
    as_server(cluster, "chmod", "755", standby.dir)
    data = standby.dir / "data"
    as_server(cluster, program("pg_basebackup"), "-h", cluster.dir, "-U", "postgres", "-D", data, "-R", "-c", "fast",
              "-X", "stream", "--no-sync")
    with open(data / "postgresql.auto.conf", "a") as conf:
        conf.write(f"\nunix_socket_directories = '{standby.dir}'\n")
    subprocess.run(["runuser", "-u", cluster.user, "--", program("pg_ctl"), "start", "-w", "-s", "-D", data,
                    "-l", standby.dir / "log"], check=True, cwd="/", stdout=subprocess.DEVNULL, timeout=60)
    return standby


def test_it_follows_what_was_asked_of_the_storage(db, moto):
    """Copies of frozen objects, a reattach that waits for them, and what held erased rows: outside windows, and without an enabled policy."""
    moto.restores_take(1)
    bucket = Bucket(moto, "worker-glacier")
    bucket.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=50)
    for month in (1, 2):
        db.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    db.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', storage => 'cold')")
    wait_until(lambda: db.value("SELECT count(*) FROM archive_ext.partitions WHERE tier = 'glacier'") == 2, 60, "the objects to move")
    weekday = db.value("SELECT to_char(now() + interval '3 days', 'Dy')")
    db.execute("SELECT set_archive_policy('orders', maintenance_window => %s)", [weekday])
    db.execute("SELECT reattach_partition('orders_2024_01')")
    # The second look comes after a minute; a test does not wait for it.
    hurry = "UPDATE archive_ext.restore_request SET next_poll_at = now(); UPDATE archive_ext.archival_job SET next_attempt_at = now() WHERE status = 'pending'"
    wait_until(lambda: (db.execute(hurry), db.is_attached("orders_2024_01"))[1], 60, "the partition to come back")
    assert db.value("SELECT count(*) FROM orders") == 100
    db.execute("SELECT set_archive_policy('orders', clear => '{maintenance_window}', enabled => false)")
    db.execute("SELECT request_restore('orders_2024_02')")
    wait_until(lambda: (db.execute(hurry), readable(db))[1], 60, "the copies")
    db.execute("SELECT drop_archive_policy('orders')")
    db.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)")
    wait_until(lambda: db.value("SELECT count(*) FROM archive_ext.erasures WHERE deleted_at IS NOT NULL") == 1, 60, "the erased rows to be gone")


def readable(db):
    return db.value("SELECT count(*) FROM archive_ext.restores WHERE status = 'ready' AND partition_name = 'orders_2024_02'") == 1
