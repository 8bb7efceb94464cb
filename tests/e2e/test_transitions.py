"""Partitions that age, beside other sessions: merges and splits step by step, moves, drains (P1, P4, P8)."""

import time

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import assert_same_rows, create_orders, keep_truth
from harness.sessions import Call, Repeat

MONTHS = "ARRAY['orders_2024_01', 'orders_2024_02', 'orders_2024_03']::regclass[]"


@pytest.fixture
def orders(db):
    create_orders(db.conn, months=4, rows=2000)
    keep_truth(db, "orders")
    return db


def begin(db, call=f"begin_merge({MONTHS}, NULL)"):
    return db.value(f"SELECT archive_ext.{call}")


def step(db, job):
    return db.row("SELECT * FROM archive_ext.archive_step(%s)", [job])


def assert_whole(db):
    assert db.value("SELECT count(*) FROM orders") == db.value("SELECT count(*) FROM truth")
    assert_same_rows(db, "orders", "truth")


def test_p1_every_row_is_there_once_after_each_step_of_a_merge(orders):
    db, phases = orders, []
    job, more = begin(orders), True
    while more:
        more, phase = step(db, job)
        phases.append(phase)
        assert_whole(db)

    assert phases == ["frozen", "created", "copying", "copying", "copying", "built", "verified", "swapped", "done"]
    assert db.is_attached("orders_2024q1")
    assert not db.exists("orders_2024_01")
    assert db.value("SELECT label FROM archive_ext.partitions WHERE partition_name = 'orders_2024q1'") == "WARM_2024Q1"
    # Everything the parent has: primary key and index are parts of the parent's.
    assert db.value("SELECT count(*) FROM pg_index i JOIN pg_inherits h ON h.inhrelid = i.indexrelid"
                    " WHERE i.indrelid = 'orders_2024q1'::regclass") == 2


def test_p1_readers_see_each_row_once_while_partitions_are_merged_and_split(orders):
    reader = orders.connect()
    expected = tuple(orders.row("SELECT count(*), sum(id) FROM truth"))

    def read():
        assert tuple(reader.execute("SELECT count(*), sum(id) FROM orders").fetchone()) == expected

    with Repeat(read, pause=0) as reads:
        orders.execute(f"CALL merge_partitions_steps({MONTHS})")
        orders.execute("CALL split_partition_steps('orders_2024q1', 'month')")

    assert reads.steps > 3
    assert_whole(orders)
    assert orders.is_attached("orders_2024_02")


def test_writers_are_refused_at_once_from_the_first_step_on(orders):
    step(orders, begin(orders))
    writer = orders.connect()
    writer.execute("SET statement_timeout = '5s'")
    with pytest.raises(psycopg.errors.ObjectInUse) as refused:
        writer.execute("UPDATE orders SET note = 'x' WHERE created_at = '2024-01-01 00:00+00'")
    assert "merged" in str(refused.value)
    writer.execute("UPDATE orders SET note = note WHERE created_at >= '2024-04-01'")


@pytest.mark.parametrize("steps", range(9))
def test_p4_a_merge_goes_on_after_any_step(orders, steps):
    """The session ends between two steps, and in the middle of one: the next call of the same takes the job up."""
    session = orders.connect()
    job = session.execute(f"SELECT archive_ext.begin_merge({MONTHS}, NULL)").fetchone()[0]
    for _ in range(steps):
        session.execute("SELECT * FROM archive_ext.archive_step(%s)", [job])
    pid = session.info.backend_pid
    session.execute("BEGIN")
    session.execute("SELECT * FROM archive_ext.archive_step(%s)", [job])
    session.close()
    wait_until(lambda: not orders.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [pid]), 10, "the session to end")
    assert_whole(orders)

    wait_until(lambda: finish(orders, job), 20, "the merge to end")

    assert_whole(orders)
    assert orders.is_attached("orders_2024q1")
    assert not orders.exists("orders_2024_01")


def finish(db, job):
    """Takes steps to the end; the advisory locks of a session that just ended may still be there."""
    try:
        while step(db, job)[0]:
            pass
        return True
    except psycopg.errors.ObjectInUse:
        return False


def test_a_cancelled_merge_leaves_nothing_behind(orders):
    job = begin(orders)
    for _ in range(4):
        step(orders, job)
    assert orders.value("SELECT cancel_job(%s)", [job])
    assert not orders.exists("orders_2024q1")
    orders.execute("UPDATE orders SET note = note WHERE created_at = '2024-01-01 00:00+00'")
    assert_whole(orders)


def test_a_row_that_changed_behind_the_guard_is_never_swapped_away(orders):
    job = begin(orders)
    while step(orders, job)[1] != "verified":
        pass
    orders.execute("ALTER TABLE orders_2024_01 DISABLE TRIGGER ALL")
    orders.execute("UPDATE orders SET note = 'late' WHERE created_at = '2024-01-01 00:00+00'")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        step(orders, job)
    assert orders.is_attached("orders_2024_01")
    assert orders.value("SELECT count(*) FROM orders WHERE note = 'late'") == 1


def test_what_all_months_have_is_carried_over(db, role):
    reader, other = role("reader"), role("other")
    create_orders(db.conn, months=2, rows=10)
    for month in ("orders_2024_01", "orders_2024_02"):
        db.execute(f"GRANT SELECT ON {month} TO {reader}")
        db.execute(f"CREATE INDEX ON {month} (note)")
        db.execute(f"ALTER TABLE {month} ALTER COLUMN note SET STATISTICS 500")
    db.execute(f"GRANT SELECT ON orders_2024_01 TO {other}")
    db.execute("CREATE TABLE customers (id int PRIMARY KEY)")
    db.execute("INSERT INTO customers SELECT DISTINCT customer_id FROM orders")
    db.execute("ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers")

    db.execute("CALL merge_partitions_steps('{orders_2024_01,orders_2024_02}', 'winter')")

    assert db.value(f"SELECT has_table_privilege('{reader}', 'winter', 'SELECT')")
    assert not db.value(f"SELECT has_table_privilege('{other}', 'winter', 'SELECT')")
    assert db.value("SELECT count(*) FROM pg_indexes WHERE tablename = 'winter'") == 3
    assert db.value("SELECT attstattarget FROM pg_attribute WHERE attrelid = 'winter'::regclass AND attname = 'note'") == 500
    assert db.value("SELECT count(*) FROM pg_constraint WHERE conrelid = 'winter'::regclass AND contype = 'f'") == 1
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        db.execute("DELETE FROM customers")


def test_an_owner_who_is_no_superuser(db, role):
    owner = role("owner")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    session = db.connect(owner)
    create_orders(session, months=3, rows=100)
    session.execute("CREATE TABLE orders_rest PARTITION OF orders DEFAULT")
    session.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-05-05', 1, 1)")
    session.execute("SET TimeZone = 'UTC'")

    assert session.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')").fetchone()[0] == "WARM_202401"
    assert session.execute("SELECT drain_default('orders')").fetchone()[0] == 1
    session.execute("CALL merge_partitions_steps('{orders_2024_01,orders_2024_02}')")
    assert session.execute("SELECT count(*) FROM orders").fetchone()[0] == 301
    assert db.value("SELECT count(DISTINCT relowner) FROM pg_class WHERE relname LIKE 'orders%' AND relkind IN ('r', 'p')") == 1


def test_a_warm_partition_is_frozen_once_the_caller_has_committed(orders):
    orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
    settled = """
        SELECT (SELECT convalidated FROM pg_constraint WHERE conrelid = c.oid AND conname = 'archive_ext_bounds')
               AND c.relallvisible = c.relpages AND c.relpages > 0
        FROM pg_class c WHERE c.oid = 'orders_2024_01'::regclass"""
    wait_until(lambda: orders.value(settled), 30, "the partition to be frozen")


def test_to_another_tablespace_and_back(orders, cluster):
    place = cluster.dir / "tablespace"
    orders.execute(f"COPY (SELECT 1) TO PROGRAM 'cat > /dev/null; mkdir -p {place}'")
    orders.execute(f"CREATE TABLESPACE slow_{orders.name} LOCATION '{place}'")
    try:
        orders.execute("SELECT set_archive_policy('orders', drop_after => '1 day')")
        orders.execute(f"UPDATE archive_ext.archive_policy SET warm_tablespace = 'slow_{orders.name}',"
                       " hot_tablespace = 'pg_default'")
        where = ("SELECT count(*) FROM pg_class c JOIN pg_tablespace t ON t.oid = c.reltablespace WHERE t.spcname ="
                 f" 'slow_{orders.name}' AND (c.oid = 'orders_2024_01'::regclass OR c.oid IN"
                 " (SELECT indexrelid FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass))")
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
        assert orders.value(where) == 3
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'HOT')")
        assert orders.value(where) == 0
        assert_whole(orders)
    finally:
        orders.execute("DROP TABLE orders CASCADE")
        orders.execute(f"DROP TABLESPACE slow_{orders.name}")


def test_p6_a_lock_that_is_not_to_be_had_is_waited_for_a_bounded_time(orders):
    blocker = orders.connect()
    blocker.execute("BEGIN")
    blocker.execute("SELECT count(*) FROM orders_2024_01")
    blocker.execute("UPDATE orders SET note = note WHERE created_at = '2024-01-01 00:00+00'")
    orders.execute("SET archive_ext.lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
    assert str(blocker.info.backend_pid) in refused.value.diag.message_detail
    blocker.execute("ROLLBACK")
    orders.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")


def waits_for_a_lock(db, pid):
    return lambda: db.value("SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = %s", [pid])


def beside_dml(db, call, first, then):
    """`call` runs in a session of its own while another one holds what `first` locked, and then wants more."""
    writer, mover = db.connect(), db.connect()
    mover.execute("SET archive_ext.lock_timeout = '20s'")
    writer.execute("BEGIN")
    writer.execute(first)
    moving = Call(mover.execute, call)
    wait_until(waits_for_a_lock(db, mover.info.backend_pid), 10, "the mover to wait")
    # Long enough for the order of locks that deadlocks to be reached.
    time.sleep(0.3)
    writer.execute(then)
    # And for PostgreSQL to find a deadlock.
    time.sleep(1.5)
    writer.execute("COMMIT")
    moving.result(30)


def test_a_merge_begun_in_steps_is_not_ended_in_one_transaction(orders):
    """Its tables are there already, so that their rows could not be frozen, nor could their swap wait for older snapshots."""
    job = begin(orders)
    for _ in range(3):
        step(orders, job)
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        orders.execute(f"SELECT merge_partitions({MONTHS})")
    assert "CALL merge_partitions_steps" in refused.value.diag.message_hint
    orders.execute(f"CALL merge_partitions_steps({MONTHS})")
    assert_whole(orders)


def create_storage(db):
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{db.cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")


@pytest.fixture
def customers(orders):
    orders.execute("CREATE TABLE customers (id int PRIMARY KEY, seen int)")
    orders.execute("INSERT INTO customers SELECT DISTINCT customer_id, 0 FROM orders")
    orders.execute("ALTER TABLE orders ADD FOREIGN KEY (customer_id) REFERENCES customers")
    return orders


UPDATE_CUSTOMER = "UPDATE customers SET seen = seen + 1 WHERE id = 1"
INSERT_ORDER = "INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-04-15', 2, 1)"


def test_the_swap_of_a_merge_never_deadlocks_with_dml(customers):
    job = begin(customers)
    while step(customers, job)[1] != "verified":
        pass
    beside_dml(customers, f"SELECT archive_ext.archive_step('{job}')", UPDATE_CUSTOMER, INSERT_ORDER)
    assert customers.is_attached("orders_2024q1")
    assert customers.value("SELECT count(*) FROM orders") == customers.value("SELECT count(*) FROM truth") + 1


def test_new_partitions_never_deadlock_with_dml(customers):
    beside_dml(customers, "SELECT premake_partitions('orders', 2)", UPDATE_CUSTOMER, INSERT_ORDER)


def test_the_freeze_of_a_merge_never_deadlocks_with_dml(orders):
    job = begin(orders)
    write = "UPDATE orders SET note = note WHERE created_at = '{}-01 00:00+00'"
    beside_dml(orders, f"SELECT archive_ext.archive_step('{job}')", write.format("2024-02"), write.format("2024-01"))
    assert_whole(orders)


def test_making_a_partition_warm_never_deadlocks_with_who_reads_it_and_then_writes(orders):
    beside_dml(orders, "SELECT set_lifecycle('orders_2024_01', 'WARM')", "SELECT count(*) FROM orders_2024_01",
               "UPDATE orders SET note = note WHERE created_at = '2024-01-01 00:00+00'")


def test_rows_that_are_moved_are_given_up_for_who_writes_to_them(orders):
    """Whoever waits for such a row has locks on the table: one of the two has to give way, and it is us."""
    orders.execute("CREATE TABLE orders_rest PARTITION OF orders DEFAULT")
    orders.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-05-05', 1, 1)")
    writer, mover = orders.connect(), orders.connect()
    mover.execute("SET archive_ext.lock_timeout = '20s'")
    writer.execute("BEGIN")
    writer.execute(INSERT_ORDER)
    moving = Call(mover.execute, "SELECT drain_default('orders')")
    wait_until(waits_for_a_lock(orders, mover.info.backend_pid), 10, "the drain to wait")
    # Who only reads the DEFAULT partition does not wait, nor is anything given up for it.
    assert orders.value("SELECT count(*) FROM orders_rest") == 1
    # An UPDATE would be refused at once by the CHECK that keeps rows of May out.
    writer.execute("SELECT FROM orders WHERE created_at = '2024-05-05' FOR UPDATE")
    with pytest.raises(psycopg.errors.LockNotAvailable) as gave_way:
        moving.result(30)
    assert moving.seconds < 10, "well before the lock timeout"
    assert str(writer.info.backend_pid) in gave_way.value.diag.message_detail
    writer.execute("COMMIT")
    assert mover.execute("SELECT drain_default('orders')").fetchone()[0] == 1
    assert orders.value("SELECT count(*) FROM orders_2024_05") == 1


def test_p6_dropping_what_was_merged_waits_a_bounded_time_for_what_it_references(customers):
    job = begin(customers)
    while step(customers, job)[1] != "swapped":
        pass
    writer = customers.connect()
    writer.execute("BEGIN")
    writer.execute(UPDATE_CUSTOMER)
    customers.execute("SET archive_ext.lock_timeout = '200ms'")
    customers.execute("SET statement_timeout = '10s'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        step(customers, job)
    writer.execute("COMMIT")
    assert step(customers, job) == (False, "done")


def test_archived_files_of_months_that_are_merged_stay_known(orders):
    """Months that were archived once and brought back have files: nobody loses sight of them, whatever becomes of the rows."""
    create_storage(orders)
    archived = ["orders_2024_01", "orders_2024_02"]
    for month in archived:
        orders.execute(f"SELECT archive_partition('{month}', drop_local => '0')")
        orders.execute(f"SELECT reattach_partition('{month}')")
    files = orders.all("SELECT partition_name, key FROM archive_ext.objects ORDER BY key")
    assert [name for name, _ in files] == archived

    notices = []
    orders.conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    orders.execute(f"CALL merge_partitions_steps({MONTHS})")

    assert_whole(orders)
    assert [notice for notice in notices if "superseded" in notice] == [
        f'version 1 of "public.{month}" stays in storage "cold", superseded by public.orders_2024q1' for month in archived]
    assert orders.all("SELECT partition_name, key FROM archive_ext.objects ORDER BY key") == files
    assert orders.value("SELECT DISTINCT superseded_by FROM archive_ext.objects") == ["public.orders_2024q1"]
    listed = "SELECT array_agg(partition_name::text ORDER BY partition_name) FROM archive_ext.partitions"
    assert orders.value(listed) == ["orders_2024q1"]
    manifests = orders.value("SELECT details -> 'superseded_manifests' FROM archive_ext.events WHERE event = 'merged'")
    assert [manifest.rsplit("/", 1)[1] for manifest in manifests] == [f"{month}.v1.json" for month in archived]

    # The year is archived and split as any other, and a month that is there again takes its history up.
    orders.execute("SELECT archive_partition('orders_2024q1', drop_local => '0')")
    assert_same_rows(orders, "archive.orders_all", "truth")
    orders.execute("SELECT reattach_partition('orders_2024q1')")
    orders.execute("CALL split_partition_steps('orders_2024q1', 'month')")
    month = orders.value("SELECT relid::text FROM pg_partition_tree('orders') WHERE isleaf ORDER BY"
                         " pg_get_expr((SELECT relpartbound FROM pg_class WHERE oid = relid), relid) LIMIT 1")
    orders.execute(f"SELECT archive_partition('{month}', drop_local => '0')")
    assert_same_rows(orders, "archive.orders_all", "truth")
    assert orders.value("SELECT status FROM archive_ext.partitions WHERE partition_name = %s", [month]) == "ARCHIVED"
    superseded = "SELECT DISTINCT partition_name::text FROM archive_ext.objects WHERE superseded_at IS NOT NULL ORDER BY 1"
    assert [name for name, in orders.all(superseded)] == ["orders_2024q1"]


def test_a_policy_that_archives_months_before_their_year_is_warm_says_so(orders):
    create_storage(orders)
    notices = []
    orders.conn.add_notice_handler(lambda diag: notices.append((diag.severity, diag.message_primary)))
    orders.execute("SET archive_ext.now = '2024-05-15'")
    orders.execute("SELECT set_archive_policy('orders', warm_after => '1 month', archive_after => '3 months',"
                   " warm_granularity => 'year', storage => 'cold')")
    assert notices == [("WARNING",
                        'policy of "public.orders": warm_granularity: no month is ever merged into a year: archive_after 3 mons'
                        " takes the first before the last is WARM; make archive_after at least 11 mons later than warm_after,"
                        " or warm_granularity finer")]
    said = dict(orders.all("SELECT partition, reason FROM explain_lifecycle('orders')"))
    assert "it stays apart, for archive_after 3 mons takes the first month of 2024" in said["public.orders_2024_03"]

    orders.execute("CALL run_lifecycle('orders')")
    status = dict(orders.all("SELECT partition, status FROM explain_lifecycle('orders')"))
    assert list(status.values()) == ["ARCHIVED", "WARM", "WARM", "LIVE"]
    assert_same_rows(orders, "archive.orders_all", "truth")

    notices.clear()
    orders.execute("SELECT set_archive_policy('orders', archive_after => '1 year')")
    assert notices == []


def test_a_month_is_split_into_weeks_whatever_day_it_begins_on(db):
    """February 2024 begins on a Thursday: its first piece is the end of a week, and the next has the same number."""
    db.execute("CREATE TABLE visit (at date NOT NULL, n int) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE visit_202402 PARTITION OF visit FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
    db.execute("INSERT INTO visit SELECT date '2024-02-01' + n % 29, n FROM generate_series(1, 290) n")
    db.execute("SELECT set_lifecycle('visit_202402', 'WARM')")
    db.execute("CALL split_partition_steps('visit_202402', 'week')")
    pieces = db.all("SELECT tableoid::regclass::text, min(at)::text, count(*) FROM visit GROUP BY 1 ORDER BY 2")
    assert [(first, rows) for _, first, rows in pieces] == [
        ("2024-02-01", 40), ("2024-02-05", 70), ("2024-02-12", 70), ("2024-02-19", 70), ("2024-02-26", 40)]
    assert len({name for name, _, _ in pieces}) == 5


def test_a_merge_waits_for_old_snapshots_as_long_as_they_last(db):
    """What was copied and compared is not thrown away after some attempts."""
    db.execute("CREATE TABLE visit (at date NOT NULL, n int) PARTITION BY RANGE (at)")
    for month in (1, 2):
        db.execute(f"CREATE TABLE visit_20240{month} PARTITION OF visit FOR VALUES FROM ('2024-0{month}-01') TO ('2024-0{month + 1}-01')")
        db.execute(f"INSERT INTO visit SELECT '2024-0{month}-05', n FROM generate_series(1, 50) n")
        db.execute(f"SELECT set_lifecycle('visit_20240{month}', 'WARM')")
    reader = db.connect()
    reader.autocommit = False
    reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    reader.execute("SELECT count(*) FROM pg_class")
    merger = db.connect(options="-c archive_ext.lock_timeout=10ms")
    notices = []
    merger.add_notice_handler(lambda notice: notices.append(notice.message_primary))
    call = Call(lambda: merger.execute("CALL merge_partitions_steps('{visit_202401,visit_202402}', 'visit_2024')"))
    wait_until(lambda: any("trying again" in notice for notice in notices), 30, "the merge to wait")
    assert db.value("SELECT phase FROM archive_ext.jobs WHERE operation = 'merge'") == "verified"
    reader.commit()
    call.result()
    assert db.value("SELECT count(*) FROM visit_2024") == 100
