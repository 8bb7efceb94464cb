"""Policies, jobs and rows that move: who may do what, as whom users' code runs, and what others see of it (P8)."""

import time

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import create_orders
from harness.sessions import Call

REFUSED = psycopg.errors.InsufficientPrivilege
DUE = "archive_after => '1 month', storage => 'cold', drop_after => '0'"


@pytest.fixture
def session_of(db, role):
    """session_of("mallory"): a session of a new role that may create tables and use the storage `cold`."""
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{db.cluster.storage / db.name}')")

    def make(name):
        made = role(name)
        db.execute(f"GRANT CREATE ON SCHEMA public TO {made}; GRANT USAGE ON FOREIGN SERVER cold TO {made}")
        return db.connect(made)

    return make


def value(session, query, params=None):
    return session.execute(query, params).fetchone()[0]


def create_tickets(session, rows=10):
    session.execute(f"""
        CREATE TABLE ticket (id int NOT NULL, lifecycle_status text NOT NULL, opened_at timestamptz NOT NULL, note text,
                             PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
        CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
        CREATE TABLE ticket_hot PARTITION OF ticket FOR VALUES IN ('HOT');
        INSERT INTO ticket SELECT n, 'LIVE_202412', '2024-12-17' FROM generate_series(1, {rows}) n""")


def create_child(session, on_update):
    session.execute(f"""
        CREATE TABLE comment (id int PRIMARY KEY, ticket int NOT NULL, lifecycle_status text NOT NULL,
            CONSTRAINT comment_ticket FOREIGN KEY (ticket, lifecycle_status) REFERENCES ticket (id, lifecycle_status)
            ON UPDATE {on_update});
        INSERT INTO comment SELECT n, 1 + n % 10, 'LIVE_202412' FROM generate_series(1, 20) n""")


@pytest.mark.parametrize("readable", [True, False])
def test_a_cascading_child_of_another_owner_is_left_to_postgresql(db, session_of, readable):
    """A query of ours on it would run its owner's row-level security as the owner of the parent."""
    owner, mallory = session_of("owner"), session_of("mallory")
    create_tickets(owner)
    owner.execute(f"GRANT REFERENCES ON ticket TO {mallory.info.user}")
    create_child(mallory, "CASCADE")
    mallory.execute("""
        CREATE TABLE caught (who text);
        GRANT INSERT ON caught TO PUBLIC;
        CREATE FUNCTION trap() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO caught VALUES (current_user);
            RETURN true;
        END $$;
        CREATE POLICY trap ON comment USING (trap());
        ALTER TABLE comment ENABLE ROW LEVEL SECURITY""")
    if readable:
        mallory.execute("GRANT SELECT ON comment TO PUBLIC")

    assert value(owner, "SELECT set_lifecycle_where('ticket', 'true', 'HOT')") == 10

    assert db.all("SELECT * FROM caught") == []
    assert db.all("SELECT DISTINCT lifecycle_status FROM comment") == [("HOT",)]


def test_a_registered_child_that_went_to_another_owner_is_refused(db, session_of):
    owner, mallory = session_of("owner"), session_of("mallory")
    create_tickets(owner)
    create_child(owner, "NO ACTION")
    db.execute("INSERT INTO archive_ext.child_table (parent, child, foreign_key) VALUES ('ticket', 'comment', 'comment_ticket')")
    db.execute(f"ALTER TABLE comment OWNER TO {mallory.info.user}")
    mallory.execute("GRANT SELECT, UPDATE ON comment TO PUBLIC")

    with pytest.raises(REFUSED, match="must be owner of table public.comment"):
        owner.execute("SELECT set_lifecycle_where('ticket', 'true', 'HOT')")
    db.execute(f"GRANT {mallory.info.user} TO {owner.info.user}")
    assert value(owner, "SELECT set_lifecycle_where('ticket', 'true', 'HOT')") == 30


def test_errors_that_quote_rows_are_shown_to_those_who_see_every_row(db, session_of):
    owner, reader = session_of("owner"), session_of("reader")
    create_orders(owner, months=2, rows=20)
    owner.execute(f"GRANT SELECT ON orders TO {reader.info.user}")
    owner.execute(f"SELECT set_archive_policy('orders', {DUE})")
    owner.execute("SELECT archive_ext.schedule_jobs('orders')")
    job = value(owner, "SELECT archive_ext.next_job('orders')")
    owner.execute("SELECT archive_ext.job_failed(%s, '23514', 'violated', 'Failing row contains (secret).')", [job])
    owner.execute("SELECT archive_partition('orders_2024_02')")

    def told(session):
        shown = [str(row) for query in ["SELECT error FROM archive_ext.jobs", "SELECT detail FROM archive_ext.alerts",
                                        "SELECT reason FROM explain_lifecycle('orders')",
                                        "SELECT line FROM lifecycle_map('orders') line",
                                        "SELECT reason FROM plan_archive('orders')"]
                 for row in session.execute(query).fetchall()]
        return [text for text in shown if "secret" in text]

    events = "SELECT count(*), count(details) FROM archive_ext.events"
    assert len(told(reader)) >= 3 and len(told(owner)) == len(told(reader))
    assert reader.execute(events).fetchone() == owner.execute(events).fetchone() == (1, 1)

    owner.execute("CREATE POLICY few ON orders USING (id < 5); ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    assert told(reader) == []
    assert reader.execute(events).fetchone() == (1, 0)
    assert "SQLSTATE 23514" in value(reader, "SELECT detail FROM archive_ext.alerts WHERE job_id = %s", [job])
    assert "SQLSTATE 23514" in value(reader, "SELECT reason FROM explain_lifecycle('orders') WHERE partition LIKE '%%01'", [])
    owner.execute("ALTER TABLE orders FORCE ROW LEVEL SECURITY")
    assert len(told(owner)) >= 3, "who could switch it off sees it"
    db.execute(f"ALTER ROLE {reader.info.user} BYPASSRLS")
    assert len(told(reader)) >= 3
    assert reader.execute(events).fetchone() == (1, 1)


def test_the_trigger_function_of_our_catalog_is_nobody_elses(db, session_of):
    mallory = session_of("mallory")
    mallory.execute("CREATE TABLE mine (source regclass)")
    with pytest.raises(REFUSED, match="labels_changed"):
        mallory.execute("CREATE TRIGGER noise AFTER INSERT ON mine FOR EACH ROW"
                        " EXECUTE FUNCTION archive_ext.labels_changed('source')")
    create_orders(mallory, months=1, rows=10)
    mallory.execute("SET archive_ext.data_partition = 'LIVE*'")
    assert value(mallory, "SELECT count(*) FROM orders") == 10
    mallory.execute("SELECT set_lifecycle('orders_2024_01', 'HOT')")
    assert value(mallory, "SELECT count(*) FROM orders") == 0, "ours fires still"


def test_what_blockers_do_is_shown_by_the_rule_of_pg_stat_activity(db, session_of):
    owner, reader, busy = session_of("owner"), session_of("reader"), session_of("busy")
    create_orders(owner, months=1, rows=10)
    owner.execute("GRANT SELECT ON orders TO PUBLIC")
    owner.execute(f"SELECT set_archive_policy('orders', {DUE})")
    busy.execute("BEGIN; SELECT count(*) FROM orders")
    query = "SELECT blocked_by FROM explain_lifecycle('orders')"
    process = f"Process {busy.info.backend_pid} (user {busy.info.user}"

    for session in [reader, owner]:
        assert value(session, query) == f"{process}) holds AccessShareLock."
    assert value(db.conn, query).startswith(f"{process}, idle in transaction, query started ")
    db.execute(f"GRANT pg_read_all_stats TO {reader.info.user}")
    assert value(reader, query).startswith(f"{process}, idle in transaction, ")
    busy.execute("COMMIT")


def test_jobs_run_as_the_owner_of_the_table_whoever_lets_them_run(db, session_of):
    """Draining deletes rows of the DEFAULT partition, whose trigger is the owner's code."""
    owner = session_of("owner")
    create_orders(owner, months=1, rows=10)
    owner.execute("""
        CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
        INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-02-05', 1, 1), ('2024-03-05', 1, 1);
        CREATE TABLE seen (who text);
        CREATE FUNCTION see() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN
            INSERT INTO public.seen VALUES (current_user);
            RETURN OLD;
        END $$;
        CREATE TRIGGER see BEFORE DELETE ON orders_rest FOR EACH ROW EXECUTE FUNCTION see();
        SELECT set_archive_policy('orders', premake => 1)""")

    db.execute("CALL run_lifecycle()")

    assert db.all("SELECT DISTINCT status, error FROM archive_ext.jobs") == [("completed", None)]
    assert db.value("SELECT count(*) FROM ONLY orders_rest") == 0
    assert db.value("SELECT count(*) FROM orders") == 12
    assert db.all("SELECT * FROM seen") == [(owner.info.user,), (owner.info.user,)]


def test_jobs_of_others_are_neither_stepped_nor_failed(db, session_of):
    owner, stranger = session_of("owner"), session_of("stranger")
    create_orders(owner, months=1, rows=10)
    owner.execute(f"SELECT set_archive_policy('orders', {DUE})")
    owner.execute("SELECT archive_ext.schedule_jobs('orders')")
    job = value(owner, "SELECT archive_ext.next_job('orders')")
    for call in ["lifecycle_step(%s)", "archive_step(%s)", "fail_job(%s, 'sabotage')",
                 "job_failed(%s, '53100', 'sabotage', NULL)"]:
        with pytest.raises(REFUSED, match="must be owner of table public.orders"):
            stranger.execute(f"SELECT archive_ext.{call}", [job])
    assert db.row("SELECT status, phase, attempts, error FROM archive_ext.archival_job") == ("running", "planned", 0, None)
    assert value(owner, "SELECT more FROM archive_ext.lifecycle_step(%s)", [job])


@pytest.mark.parametrize("action, refusal", [
    ("ON DELETE CASCADE", "would change rows of public.line"),
    ("ON DELETE SET NULL", "would change rows of public.line"),
    ("ON DELETE SET DEFAULT", "would change rows of public.line"),
    ("DEFERRABLE INITIALLY DEFERRED", "deferred foreign key of public.line"),
    ("", "violates foreign key constraint"),
])
def test_draining_takes_no_referencing_row_along(db, action, refusal):
    """A row that moves out of a DEFAULT partition is deleted there first."""
    create_orders(db.conn, months=1, rows=10)
    db.execute(f"""
        CREATE TABLE orders_rest PARTITION OF orders DEFAULT;
        INSERT INTO orders (id, created_at, customer_id, amount) VALUES (1000, '2024-02-05', 1, 1);
        CREATE TABLE line (order_id bigint, created_at timestamptz);
        ALTER TABLE line ADD CONSTRAINT line_order FOREIGN KEY (order_id, created_at) REFERENCES orders {action};
        INSERT INTO line VALUES (1000, '2024-02-05')""")

    with pytest.raises(psycopg.errors.ForeignKeyViolation, match=refusal):
        db.execute("SELECT drain_default('orders')")
    assert db.all("SELECT order_id FROM line") == [(1000,)]
    assert db.value("SELECT count(*) FROM ONLY orders_rest") == 1

    db.execute("ALTER TABLE line DROP CONSTRAINT line_order")
    db.execute("SELECT drain_default('orders')")
    db.execute(f"ALTER TABLE line ADD FOREIGN KEY (order_id, created_at) REFERENCES orders {action}")
    assert db.all("SELECT order_id FROM line") == [(1000,)]
    assert db.value("SELECT count(*) FROM ONLY orders_rest") == 0


def test_a_step_of_a_job_that_was_ended_meanwhile_is_undone(db, session_of):
    """Between its look at the job and its end the step waits for a row."""
    owner = session_of("owner")
    create_tickets(owner, rows=5)
    job = value(owner, "SELECT archive_ext.begin_rows('ticket', 'true', 'HOT', NULL, 1)")
    blocker = db.connect()
    blocker.execute("BEGIN; SELECT FROM ticket FOR UPDATE")
    owner.execute("SET archive_ext.lock_timeout = '60s'")
    step = Call(owner.execute, "SELECT archive_ext.archive_step(%s)", [job])
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted"
    wait_until(lambda: db.value(waits, [owner.info.backend_pid]), 30, "the step to wait for a row")
    db.execute("UPDATE archive_ext.archival_job SET status = 'cancelled', completed_at = now()")
    blocker.execute("COMMIT")

    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="was ended meanwhile"):
        step.result()
    assert db.all("SELECT DISTINCT lifecycle_status FROM ticket") == [("LIVE_202412",)]
    assert db.row("SELECT status, progress FROM archive_ext.archival_job") == ("cancelled", None)


def test_a_long_wait_for_the_first_lock_leaves_time_for_the_others(db, session_of):
    """Who gave the first lock back after waiting for it would have to queue behind those who came later."""
    owner = session_of("owner")
    create_orders(owner, months=3, rows=10)
    owner.execute("SET archive_ext.default_storage = 'cold'")
    owner.execute("SELECT archive_partition('orders_2024_03')")
    writers = [db.connect(), db.connect()]
    insert = "INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-02-05', 1, 1)"
    waits = "SELECT count(*) FROM pg_locks WHERE pid = %s AND NOT granted AND relation = 'orders'::regclass"
    writers[0].execute("BEGIN")
    writers[0].execute(insert)
    owner.execute("SET archive_ext.lock_timeout = '8s'")
    archived = Call(owner.execute, "SELECT archive_partition('orders_2024_01', drop_local => '0')")
    wait_until(lambda: db.value(waits, [owner.info.backend_pid]), 30, "the swap to wait for the table")
    writers[1].execute("BEGIN")
    later = Call(writers[1].execute, insert)
    wait_until(lambda: db.value(waits, [writers[1].info.backend_pid]), 30, "the writer to queue behind it")
    time.sleep(0.6)
    writers[0].execute("COMMIT")

    archived.result()
    later.result()
    writers[1].execute("COMMIT")
    assert db.value("SELECT count(*) FROM archive.orders") == 20
    assert db.value("SELECT count(*) FROM orders") == 12
