"""Rows that move between the partitions of their labels while others read and write them, and when the mover is stopped."""

import psycopg
import pytest

from harness.cluster import wait_until
from harness.sessions import Call, Repeat

ROWS = 20_000


@pytest.fixture
def tickets(db):
    """Tickets of December 2024 and their comments, which follow them."""
    db.conn.execute(f"""
        CREATE TABLE ticket (
            id int NOT NULL, lifecycle_status text NOT NULL, opened_at timestamptz NOT NULL, removal_time timestamptz,
            note text, PRIMARY KEY (id, lifecycle_status)) PARTITION BY LIST (lifecycle_status);
        CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
        CREATE TABLE comment (
            id int NOT NULL, ticket int NOT NULL, lifecycle_status text NOT NULL, PRIMARY KEY (id, lifecycle_status),
            CONSTRAINT comment_ticket FOREIGN KEY (ticket, lifecycle_status) REFERENCES ticket (id, lifecycle_status))
            PARTITION BY LIST (lifecycle_status);
        CREATE TABLE comment_live_202412 PARTITION OF comment FOR VALUES IN ('LIVE_202412');
        CREATE INDEX ON comment (ticket);
        INSERT INTO ticket SELECT n, 'LIVE_202412', '2024-12-17' FROM generate_series(1, {ROWS}) n;
        INSERT INTO comment SELECT n, 1 + n % {ROWS}, 'LIVE_202412' FROM generate_series(1, 2 * {ROWS}) n;
        INSERT INTO archive_ext.child_table (parent, child, foreign_key) VALUES ('ticket', 'comment', 'comment_ticket');
        ANALYZE ticket, comment;""")
    return db


def per_partition(db, table="ticket"):
    return dict(db.all(f"SELECT tableoid::regclass::text, count(*) FROM {table} GROUP BY 1"))


JOINED = "SELECT count(*) FROM comment c JOIN ticket t ON (t.id, t.lifecycle_status) = (c.ticket, c.lifecycle_status)"


def test_p1_readers_count_the_same_rows_while_batches_move(tickets):
    reader = tickets.connect()

    def read():
        assert reader.execute("SELECT count(*) FROM ticket").fetchone()[0] == ROWS
        assert reader.execute(JOINED).fetchone()[0] == 2 * ROWS

    with Repeat(read) as reads:
        tickets.execute("CALL set_lifecycle_where_steps('ticket', 'true', 'HOT', batch_rows => 1000)")
        tickets.execute("SELECT set_lifecycle_where('ticket', 'true', 'WARM', '2025-09-01')")

    assert reads.steps > 5, "the reader did run meanwhile"
    assert per_partition(tickets) == {"ticket_warm_2024": ROWS}
    assert per_partition(tickets, "comment") == {"comment_warm_2024": 2 * ROWS}


def test_updates_of_rows_that_move_are_kept_or_told(tickets):
    """A writer that meets a row on its way gets PostgreSQL's serialization failure, and its change is never lost."""
    writer = tickets.connect()
    written, told = {}, 0
    numbers = iter(range(1, ROWS, 7))

    def write():
        nonlocal told
        n = next(numbers)
        for note in ["first", "second"]:
            try:
                done = writer.execute("UPDATE ticket SET note = %s WHERE id = %s", [note, n]).rowcount
            except psycopg.errors.SerializationFailure:
                told += 1
            else:
                assert done == 1
                written[n] = note

    with Repeat(write, pause=0.001):
        tickets.execute("CALL set_lifecycle_where_steps('ticket', 'true', 'HOT', batch_rows => 500)")

    assert written
    kept = dict(tickets.all("SELECT id, note FROM ticket WHERE note IS NOT NULL"))
    assert kept == written
    assert per_partition(tickets) == {"ticket_hot": ROWS}


def test_a_row_changed_while_the_mover_waits_for_it_moves_as_changed(tickets):
    writer = tickets.connect()
    writer.autocommit = False
    writer.execute("UPDATE ticket SET note = 'late' WHERE id = 5")
    writer.execute("UPDATE ticket SET note = 'no longer' WHERE id = 6")
    writer.execute("INSERT INTO comment VALUES (999999, 5, 'LIVE_202412')")
    mover = tickets.connect()
    mover.execute("SET archive_ext.lock_timeout = '60s'")
    moved = Call(lambda: mover.execute(
        "SELECT set_lifecycle_where('ticket', $$id IN (5, 6) AND note IS DISTINCT FROM 'no longer'$$, 'HOT')"
    ).fetchone()[0])
    wait_until(lambda: tickets.value("SELECT count(*) FROM pg_locks WHERE NOT granted") > 0, 30, "the mover to wait")
    writer.commit()
    assert moved.result() == 4, "the ticket with its three comments"
    assert tickets.all("SELECT id, note FROM ticket WHERE lifecycle_status = 'HOT'") == [(5, "late")]


def test_a_lock_that_is_not_to_be_had_names_its_holder(tickets):
    writer = tickets.connect()
    writer.autocommit = False
    writer.execute("UPDATE ticket SET note = 'open' WHERE id = 5")
    tickets.execute("SET archive_ext.lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        tickets.execute("SELECT set_lifecycle_where('ticket', 'id < 10', 'HOT')")
    assert f"Process {writer.info.backend_pid} " in refused.value.diag.message_detail
    assert per_partition(tickets) == {"ticket_live_202412": ROWS}
    writer.rollback()


def test_p4_cancelled_in_the_middle_and_called_again(tickets):
    mover = tickets.connect()
    call = "CALL set_lifecycle_where_steps('ticket', 'true', 'HOT', batch_rows => 100)"

    def run():
        with pytest.raises(psycopg.errors.QueryCanceled):
            mover.execute(call)

    cancelled = Call(run)
    wait_until(lambda: per_partition(tickets).get("ticket_hot", 0) >= 300, 60, "some batches")
    mover.cancel()
    cancelled.result()
    moved = per_partition(tickets)["ticket_hot"]
    assert 0 < moved < ROWS and moved % 100 == 0
    assert tickets.value(JOINED) == 2 * ROWS

    mover.execute(call)
    assert per_partition(tickets) == {"ticket_hot": ROWS}
    assert per_partition(tickets, "comment") == {"comment_hot": 2 * ROWS}
    jobs = tickets.all("SELECT status, rows_archived FROM archive_ext.jobs WHERE operation = 'rows'")
    assert jobs == [("completed", 3 * ROWS)], "the same job went on"
    assert tickets.value("SELECT sum((details ->> 'rows')::int) FROM archive_ext.events") == ROWS


def test_p8_the_clause_of_a_job_runs_as_the_role_that_started_it(tickets, role):
    """A superuser who goes on with somebody's job lends the job's where_clause nothing."""
    owner = role("ticket_owner")
    tickets.execute(f"GRANT CREATE, USAGE ON SCHEMA public TO {owner}")
    for table in ["ticket", "ticket_live_202412", "comment", "comment_live_202412"]:
        tickets.execute(f"ALTER TABLE {table} OWNER TO {owner}")
    session = tickets.connect(owner)
    session.execute("""
        CREATE FUNCTION grab() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            RESET ROLE;
            RETURN true;
        END $$;
        CREATE FUNCTION whose() RETURNS boolean LANGUAGE plpgsql AS $$
        BEGIN
            RETURN current_user = 'OWNER';
        END $$""".replace("OWNER", owner))
    begin = "SELECT archive_ext.begin_rows('ticket', %s, 'HOT', NULL, 100)"
    grabs = session.execute(begin, ["id = 1 AND grab()"]).fetchone()[0]
    own = session.execute(begin, ["id = 2 AND whose()"]).fetchone()[0]

    step = "SELECT more FROM archive_ext.archive_step(%s)"
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match='set parameter "role"'):
        tickets.execute(step, [grabs])
    while tickets.value(step, [own]):
        pass
    assert tickets.all("SELECT id FROM ticket WHERE lifecycle_status = 'HOT'") == [(2,)]
    assert tickets.value("SELECT pg_get_userbyid(relowner) FROM pg_class WHERE oid = 'ticket_hot'::regclass") == owner


def test_the_walk_of_a_ticket_ends_in_the_storage_and_comes_back(tickets, s3):
    s3.create_storage(tickets.conn)
    move = "SELECT set_lifecycle_where('ticket', 'id BETWEEN 23 AND 26', %s, %s)"
    assert tickets.value(move, ["HOT", None]) == 12
    assert tickets.value(move, ["WARM", "2025-09-01 00:00+00"]) == 12
    assert tickets.value(move, ["ARCHIVED", None]) == 12
    assert per_partition(tickets)["ticket_archive_202509"] == 4

    tickets.execute("SELECT archive_partition('comment_archive_202509', drop_local => '0')")
    archived = tickets.row("SELECT * FROM archive_partition('ticket_archive_202509', drop_local => '0')")
    assert archived.rows == 4
    assert "archive_year=2025/archive_month=09" in tickets.value(
        "SELECT key FROM archive_ext.objects WHERE partition_name = 'ticket_archive_202509'")
    assert tickets.value("SELECT label FROM archive_ext.partitions WHERE partition_name = 'ticket_archive_202509'"
                         ) == "ARCHIVE_202509"
    assert tickets.value("SELECT count(*) FROM archive.ticket_all") == ROWS
    assert tickets.value("SELECT count(*) FROM ticket") == ROWS - 4

    tickets.execute("SELECT reattach_partition('ticket_archive_202509', writable => true)")
    tickets.execute("SELECT reattach_partition('comment_archive_202509', writable => true)")
    assert tickets.value(move, ["WARM", None]) == 12
    assert tickets.all("SELECT DISTINCT lifecycle_status FROM ticket WHERE id BETWEEN 23 AND 26") == [("WARM_2024",)]
    assert tickets.value("SELECT count(*) FROM archive.ticket_all") == ROWS
