"""erase_rows and update_archived: rows leave table and archive for good, or are corrected in it, without a reattach (P1, P2, P5)."""

import hashlib
import itertools
import time

import psycopg
import pytest

from harness.orders import assert_same_rows, create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture
def versioned(localstack):
    return Bucket(localstack, f"erase-{next(_numbers)}").keep_versions()


@pytest.fixture
def orders(db, versioned):
    """Three months of 300 rows, two of them archived: one with its local copy."""
    versioned.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=300)
    db.execute("CREATE TABLE truth AS SELECT * FROM orders")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT archive_partition('orders_2024_02')")
    db.bucket = versioned
    return db


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert not db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'pending')")


def versions(bucket, contains=""):
    page = bucket.client.list_object_versions(Bucket=bucket.name)
    return sorted(v["Key"].rsplit("/", 1)[1] for kind in ("Versions", "DeleteMarkers") for v in page.get(kind, []) if contains in v["Key"])


def erase(db, clause, **more):
    arguments = "".join(f", {key} => {value!r}" for key, value in more.items())
    return db.row(f"SELECT * FROM erase_rows('orders', %s{arguments})", [clause])


def all_is_well(db, source="archive.orders_all", truth="truth"):
    assert_same_rows(db, source, truth)
    assert {row.result for row in db.all("SELECT * FROM verify_archive('orders', 'deep')")} <= {
        "equal", "equal, and row by row equal to the local copy", "equal; there is no local copy to compare row by row"}
    assert db.all("SELECT * FROM check_consistency()") == []


def test_p1_a_person_leaves_table_archive_and_local_copy(orders):
    clause = "customer_id % 50 = 8"
    total = orders.value(f"SELECT count(*) FROM truth WHERE {clause}")
    hot = orders.value(f"SELECT count(*) FROM orders WHERE {clause}")
    orders.execute("SELECT reconcile_counts('orders')")
    erased = erase(orders, clause, reason="ticket 4711")
    assert (erased.rows_deleted, erased.rows_of_archive, erased.objects) == (hot, total - hot, 2) and hot > 0
    orders.execute(f"DELETE FROM truth WHERE {clause}")
    all_is_well(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.alerts") == 0
    orders.execute("SELECT reconcile_counts('orders')")
    assert orders.value("SELECT sum(missing) FROM archive_ext.month_counts") == 0
    (receipt,) = orders.all("SELECT * FROM archive_ext.erasures")
    assert (receipt.receipt, receipt.kind, receipt.reason, receipt.requested_by) == (erased.receipt, "erase", "ticket 4711", "postgres")
    assert receipt.clause_sha256 == hashlib.sha256(clause.encode()).hexdigest()
    assert receipt.digest["rows"] == total - hot and receipt.deleted_at is None
    assert [o["key"].rsplit("/", 1)[1] for o in receipt.objects] == ["orders_2024_01.v1.00000.parquet", "orders_2024_02.v1.00000.parquet"]
    assert [o["key"].rsplit("/", 1)[1] for o in receipt.replaced_by] == ["orders_2024_01.v2.00000.parquet", "orders_2024_02.v2.00000.parquet"]
    assert sum(o["rows"] for o in receipt.replaced_by) == 600 - (total - hot)
    # The retention is 30 days or so: until then both are there.
    lifecycle(orders)
    assert "orders_2024_01.v1.00000.parquet" in versions(orders.bucket)
    assert (receipt.delete_after - receipt.at).days > 0
    # A job that waits for the retention is not late; an erasure is that should be over.
    orders.execute("UPDATE archive_ext.archival_job SET started_at = now() - interval '3 days' WHERE operation = 'erase'")
    assert orders.all("SELECT alert FROM archive_ext.alerts") == []
    orders.execute("UPDATE archive_ext.erasure SET delete_after = now() - interval '2 days'")
    (alert,) = orders.all("SELECT alert, table_name::text, detail FROM archive_ext.alerts")
    assert alert[:2] == ("overdue", "orders") and f"erasure {receipt.receipt} was to be deleted after" in alert.detail
    orders.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    lifecycle(orders)
    assert orders.all("SELECT alert FROM archive_ext.alerts") == []
    assert versions(orders.bucket, "orders_2024_01") == ["orders_2024_01.v2.00000.parquet", "orders_2024_01.v2.json"]
    (receipt,) = orders.all("SELECT * FROM archive_ext.erasures")
    assert receipt.deleted_at and receipt.deleted_versions == 4 and len(receipt.deleted_keys) == 4
    # Nothing of it is left in the catalog either, and it comes back without.
    assert orders.value("SELECT count(*) FROM archive_ext.objects WHERE version = 1") == 0
    assert orders.all("SELECT * FROM audit_storage('cold')") == []
    for month in (1, 2):
        orders.execute(f"SELECT reattach_partition('orders_2024_0{month}')")
    assert_same_rows(orders, "orders", "truth")
    events = [row[0] for row in orders.all("SELECT event FROM archive_ext.events WHERE event LIKE 'eras%' ORDER BY at")]
    assert events == ["erased", "erasure_completed"]


def test_at_once_every_version_and_marker_goes(orders):
    # An older version that has the person, too, and a marker of a deletion.
    orders.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    orders.execute("UPDATE orders SET items = items + 1 WHERE created_at < '2024-02-01'; UPDATE truth SET items = items + 1 WHERE created_at < '2024-02-01'")
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    key = next(key for key in orders.bucket.data_keys() if "2024_01.v1" in key)
    body = orders.bucket.read(key)
    orders.bucket.client.delete_object(Bucket=orders.bucket.name, Key=key)
    orders.bucket.write(key, body)
    erased = erase(orders, "customer_id % 50 = 8 AND created_at < '2024-02-01'", at_once=True)
    orders.execute("DELETE FROM truth WHERE customer_id % 50 = 8 AND created_at < '2024-02-01'")
    assert erased.objects == 1
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == ["orders_2024_01.v3.00000.parquet", "orders_2024_01.v3.json"]
    all_is_well(orders)


def test_what_came_back_or_was_left_behind_holds_nobody_either(orders):
    """The storage still has the rows of a partition that is in the table again, and of runs that rolled back."""
    orders.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    with pytest.raises(psycopg.errors.DivisionByZero), orders.conn.transaction():
        orders.execute("SELECT erase_rows('orders', 'customer_id % 50 = 15')")
        orders.execute("SELECT 1 / 0")
    assert "orders_2024_02.v2.00000.parquet" in versions(orders.bucket)
    orders.execute("SELECT legal_hold('orders_2024_01', reason => 'case 14')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        erase(orders, "customer_id % 50 = 8")
    orders.execute("SELECT legal_hold('orders_2024_01', false)")
    erased = erase(orders, "customer_id % 50 = 8", at_once=True)
    orders.execute("DELETE FROM truth WHERE customer_id % 50 = 8")
    assert erased.objects == 1
    # Another policy does not forget it.
    orders.execute("SELECT set_archive_policy('orders', hot_after => '1 year', storage => 'cold', archive_after => '100 years')")
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == []
    assert versions(orders.bucket, "orders_2024_02") == ["orders_2024_02.v3.00000.parquet", "orders_2024_02.v3.json"]
    all_is_well(orders)
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    all_is_well(orders)


def test_p1_a_clause_that_is_true_for_other_rows_each_time(orders):
    """The local copy would lose other rows than the archive; a correction is about the rows that were found."""
    for attempt in range(3):
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="would have other rows|has other rows"):
            erase(orders, f"created_at >= '2024-02-01' AND created_at < '2024-03-01' AND random() < 0.{attempt + 3}")
        all_rows = orders.value("SELECT count(*) FROM archive.orders_all")
        assert all_rows == 900
    orders.execute("SELECT drop_local_copy('orders_2024_02')")
    changed = orders.row("SELECT * FROM update_archived('orders', 'random() < 0.5', '{\"items\": \"items + 100\"}')")
    assert orders.value("SELECT count(*) FROM archive.orders WHERE items > 100") == changed.rows_of_archive > 100
    orders.execute("UPDATE truth t SET items = a.items FROM archive.orders a WHERE a.id = t.id AND a.created_at = t.created_at AND a.items > 100")
    assert_same_rows(orders, "archive.orders_all", "truth")


def test_all_rows_of_a_partition_and_none(orders):
    assert erase(orders, "customer_id = -1") == (None, 0, 0, 0, None)
    assert orders.value("SELECT count(*) FROM archive_ext.erasures") == 0
    erased = erase(orders, "created_at < '2024-02-01'", at_once=True)
    assert (erased.rows_of_archive, erased.objects) == (300, 1)
    orders.execute("DELETE FROM truth WHERE created_at < '2024-02-01'")
    all_is_well(orders)
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == ["orders_2024_01.v2.json"]
    assert orders.value("SELECT count(*) FROM archive.orders_2024_01") == 0
    orders.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(orders, "orders", "(SELECT * FROM truth WHERE created_at >= '2024-03-01') t")


def test_what_fails_changes_nothing(orders):
    before = versions(orders.bucket)
    orders.execute("SELECT legal_hold('orders_2024_02', reason => 'case 12')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as error:
        erase(orders, "customer_id % 50 = 8")
    assert "legal hold" in error.value.diag.message_primary and "case 12" in error.value.diag.message_detail
    # Of what is not held rows go.
    erase(orders, "customer_id % 50 = 8 AND created_at < '2024-02-01'")
    orders.execute("DELETE FROM truth WHERE customer_id % 50 = 8 AND created_at < '2024-02-01'")
    # The hold also keeps what an erasure that was made before has to delete.
    orders.execute("SELECT legal_hold('orders_2024_01', reason => 'case 13')")
    orders.execute("UPDATE archive_ext.erasure SET delete_after = now(), at = now()")
    orders.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    with orders.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert set(before) <= set(versions(orders.bucket))
    assert not orders.all("SELECT FROM archive_ext.archival_job WHERE status IN ('pending', 'running', 'failed')")
    orders.execute("SELECT legal_hold(p, false) FROM unnest(ARRAY['orders_2024_01', 'orders_2024_02']) p")
    for clause, code in [("customer_id % 50 = 8; DROP TABLE orders", "42601"), ("no_such = 1", "42703"), ("customer_id", "42804")]:
        with pytest.raises(psycopg.Error) as error:
            erase(orders, clause)
        assert error.value.sqlstate == code, clause
    with pytest.raises(psycopg.errors.WrongObjectType):
        orders.execute("SELECT erase_rows('orders_2024_03', 'true')")
    # A damaged object is found before anything goes.
    (key,) = [key for key in orders.bucket.data_keys() if "2024_02.v1" in key]
    body = orders.bucket.read(key)
    orders.bucket.write(key, body[:200] + bytes(50) + body[250:])
    with pytest.raises(psycopg.Error):
        erase(orders, "customer_id % 50 = 15")
    orders.bucket.write(key, body)
    all_is_well(orders)


def test_who_may(orders, role):
    reader, owner = role("erase_reader"), role("erase_owner")
    orders.execute(f"GRANT SELECT, DELETE ON orders TO {reader}; GRANT SELECT ON archive.orders TO {reader}")
    with orders.connect(user=reader) as session, pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8')")
    assert_same_rows(orders, "archive.orders_all", "truth")
    assert owner


def test_a_partition_at_rest_and_rows_that_others_reference(orders):
    orders.execute("SELECT set_lifecycle('orders_2024_03', 'WARM')")
    hot = orders.value("SELECT count(*) FROM orders WHERE customer_id % 50 = 8")
    assert erase(orders, "customer_id % 50 = 8").rows_deleted == hot > 0
    assert orders.value("SELECT status FROM archive_ext.partition WHERE partition_name = 'orders_2024_03'") == "WARM"
    with pytest.raises(psycopg.errors.ObjectInUse):
        orders.execute("DELETE FROM orders WHERE customer_id % 50 = 15")


def test_p1_p5_archived_rows_are_corrected_where_they_are(orders):
    orders.execute("SELECT drop_local_copy('orders_2024_02')")
    changes = '{"note": "\'moved \' || coalesce(note, \'-\')", "amount": "amount * 2", "payload": "payload || \'{\\"x\\": [1, null]}\'"}'
    archived = orders.value("SELECT count(*) FROM archive.orders WHERE customer_id % 50 = 8")
    corrected = orders.row("SELECT * FROM update_archived('orders', 'customer_id %% 50 = 8', %s, reason => 'typo')", [changes])
    assert (corrected.rows_of_archive, corrected.objects) == (archived, 2) and archived > 5
    orders.execute("UPDATE truth SET note = 'moved ' || coalesce(note, '-'), amount = amount * 2, payload = payload || '{\"x\": [1, null]}'"
                   " WHERE customer_id % 50 = 8 AND created_at < '2024-03-01'")
    all_is_well(orders)
    (receipt,) = orders.all("SELECT * FROM archive_ext.erasures")
    assert (receipt.kind, receipt.rows_of_archive, receipt.rows_deleted) == ("update", archived, 0)
    assert len(receipt.replaced_by) == 4
    # Pruning and key lookups find the new values.
    assert orders.value("SELECT count(*) FROM archive.orders WHERE note LIKE 'moved %'") == archived
    orders.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(orders, "archive.orders_all", "truth")


def test_corrections_that_are_refused(orders):
    def refused(changes, clause="customer_id % 50 = 8", **more):
        with pytest.raises(psycopg.Error) as error:
            orders.all("SELECT * FROM update_archived('orders', %s, %s)", [clause, changes])
        return error.value

    error = refused('{"note": "NULL"}')
    assert error.sqlstate == "0A000" and "local copy" in error.diag.message_primary and "drop_local_copy" in error.diag.message_hint
    orders.execute("SELECT drop_local_copy('orders_2024_02')")
    assert refused('{"no_such": "1"}').sqlstate == "42703"
    assert refused('{"note": "1), note = (2"}').sqlstate == "42601"
    assert refused('{"note": 5}').sqlstate == "22023"
    assert refused("{}").sqlstate == "22023"
    assert refused('{"amount": "-1"}').sqlstate == "23514", "the table's own CHECK"
    assert refused('{"created_at": "NULL"}').sqlstate == "23502"
    error = refused('{"created_at": "created_at + interval \'1 year\'"}')
    assert error.sqlstate == "23514" and "would leave archived partition" in error.diag.message_primary
    assert refused('{"items": "items / 0"}').sqlstate == "22012"
    all_is_well(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.erasures") == 0


@pytest.fixture
def tickets(db, versioned):
    """A plain table, two thirds of which were archived row by row, in several objects."""
    versioned.create_storage(db.conn)
    db.execute("CREATE TABLE tickets (id bigint PRIMARY KEY, opened timestamptz NOT NULL, person text, note text)")
    db.execute("INSERT INTO tickets SELECT n, '2020-01-01'::timestamptz + n * interval '1 hour', 'person ' || n % 40, md5(n::text) FROM generate_series(1, 3000) n")
    db.execute("CREATE TABLE truth AS SELECT * FROM tickets")
    for before in ("2020-02-01", "2020-03-01"):
        with db.connect() as session:
            session.execute(f"CALL archive_table('tickets', '{before}')")
    db.bucket = versioned
    return db


def test_p1_rows_archived_one_by_one_are_erased_and_corrected(tickets):
    archived = tickets.value("SELECT count(*) FROM archive.tickets WHERE person = 'person 7'")
    hot = tickets.value("SELECT count(*) FROM tickets WHERE person = 'person 7'")
    erased = tickets.row("SELECT * FROM erase_rows('tickets', 'person = ''person 7''', at_once => true)")
    assert (erased.rows_deleted, erased.rows_of_archive) == (hot, archived) and archived > 10 and erased.objects >= 2
    tickets.execute("DELETE FROM truth WHERE person = 'person 7'")
    columns = "id, opened, person, note"
    assert_same_rows(tickets, "archive.tickets_all", "truth", columns)
    gone = [o["key"].rsplit("/", 1)[1] for o in tickets.value("SELECT objects FROM archive_ext.erasures")]
    assert set(gone) <= set(versions(tickets.bucket))
    lifecycle(tickets)
    assert not set(gone) & set(versions(tickets.bucket))
    assert tickets.value("SELECT count(*) FROM archive_ext.erasures WHERE deleted_at IS NOT NULL") == 1
    changed = tickets.row("""SELECT * FROM update_archived('tickets', 'person = ''person 8''', '{"person": "''somebody''", "note": "NULL"}')""")
    assert changed.rows_of_archive == archived
    tickets.execute("UPDATE truth SET person = 'somebody', note = NULL WHERE person = 'person 8' AND opened < '2020-03-01'")
    assert_same_rows(tickets, "archive.tickets_all", "truth", columns)
    assert [row.result for row in tickets.all("SELECT * FROM verify_archive('tickets')")] == ["equal"]
    assert tickets.all("SELECT * FROM check_consistency()") == []
    one = tickets.value("SELECT get_archived_record('tickets', 48)")
    assert one["person"] == "somebody"
    # The bucket alone has the same rows.
    tickets.execute("CREATE TABLE known AS SELECT * FROM archive.tickets")
    tickets.execute("DROP EXTENSION archive_ext CASCADE; DROP SCHEMA archive CASCADE; DROP TABLE tickets; CREATE EXTENSION archive_ext")
    tickets.bucket.create_storage(tickets.conn, "again")
    tickets.execute("SELECT adopt_storage('again')")
    time.sleep(0.1)
    tickets.all("SELECT * FROM import_archive('again', dry_run => false)")
    assert tickets.value("SELECT count(*) FROM archive.tickets WHERE person = 'person 7'") == 0
