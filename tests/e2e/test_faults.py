"""A store that misbehaves: the call succeeds by retrying, or fails cleanly with the partition as it was (P4, P12).

Everything goes through the fault proxy. Whatever happens, no multipart upload is left open at the store.
"""

import time

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import archive, assert_same_rows, assert_untouched, create_orders, create_wide, keep_truth
from harness.proxy import After, CorruptAnswer, CorruptRequest, Reset, Stall, Status, Truncate
from harness.sessions import Call

DATA = r"\.parquet"
MANIFEST = r"_manifests/.*\.json"
ROWS = 3000

# A cancel is to take effect within a second; the rest is slack for a busy machine.
CANCEL_BOUND = 2.5

FAULTS = {
    "500": Status(500, "InternalError"),
    "503": Status(503, "SlowDown"),
    "reset": Reset(),
    "reset_in_answer": Reset(in_answer=True),
    "truncated": Truncate(),
}


@pytest.fixture
def orders(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=2, rows=ROWS)
    keep_truth(db, "orders")
    yield fault_proxy
    fault_proxy.heal()
    assert_no_open_uploads(s3)


@pytest.fixture
def wide(db, s3, fault_proxy):
    """Of a size that needs many upload parts."""
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_wide(db.conn, rows=80_000)
    yield fault_proxy
    fault_proxy.heal()
    assert_no_open_uploads(s3)


def assert_no_open_uploads(s3):
    wait_until(lambda: not s3.open_uploads(), 10, "multipart uploads to be aborted")


def assert_archived(db):
    assert db.value("SELECT count(*) FROM archive.orders") == ROWS
    assert_same_rows(db, "archive.orders_all", "truth")


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("method, target", [("PUT|POST", DATA), ("PUT", MANIFEST), ("GET", DATA)],
                         ids=["upload", "manifest", "read_back"])
def test_p4_a_passing_fault_is_retried(db, orders, fault, method, target):
    rule = orders.on(method, target, fault=fault, times=2)

    archive(db, "orders_2024_01", drop_local="0")

    assert rule.hit.is_set()
    assert_archived(db)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
@pytest.mark.parametrize("method, target", [("PUT|POST", DATA), ("GET", DATA)], ids=["upload", "read_back"])
def test_p12_a_lasting_fault_fails_cleanly(db, orders, fault, method, target):
    """An upload whose answer alone is lost did happen: then the store is asked what it has, and the call succeeds."""
    orders.on(method, target, fault=fault)
    answer_lost = method != "GET" and fault in (FAULTS["reset_in_answer"], FAULTS["truncated"])

    try:
        archive(db, "orders_2024_01", drop_local="0")
    except psycopg.Error as failed:
        assert failed.sqlstate not in ("XX000", None)
        assert_untouched(db, "orders_2024_01", ROWS)
        orders.heal()
        archive(db, "orders_2024_01", drop_local="0")
    else:
        assert answer_lost
        orders.heal()
    assert_archived(db)


def test_p12_a_store_that_is_not_there(db, s3, orders):
    db.execute("ALTER SERVER cold OPTIONS (SET endpoint 'http://127.0.0.1:9')")

    with pytest.raises(psycopg.Error) as failed:
        archive(db, "orders_2024_01")

    assert failed.value.sqlstate not in ("XX000", None)
    assert_untouched(db, "orders_2024_01", ROWS)


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS.keys())
def test_p12_a_query_answers_all_or_fails(db, orders, fault):
    archive(db, "orders_2024_01", drop_local="0")
    orders.on("GET", DATA, fault=fault)

    with pytest.raises(psycopg.Error) as failed:
        db.value("SELECT count(note) FROM archive.orders_all")

    assert failed.value.sqlstate not in ("XX000", None)
    orders.heal()
    assert_archived(db)


def test_p12_a_query_survives_a_passing_fault(db, orders):
    archive(db, "orders_2024_01", drop_local="0")
    for fault in FAULTS.values():
        orders.on("GET", DATA, fault=fault, times=1)
        assert_archived(db)


def test_p12_a_missing_object_is_an_error_and_no_empty_answer(db, s3, orders):
    archive(db, "orders_2024_01", drop_local="0")
    [key] = s3.data_keys()
    body = s3.read(key)
    s3.client.delete_object(Bucket=s3.name, Key=key)

    with pytest.raises(psycopg.Error) as failed:
        db.value("SELECT count(note) FROM archive.orders")

    assert key.rpartition("/")[2] in f"{failed.value} {failed.value.diag.message_detail}"
    s3.write(key, body)
    assert_archived(db)


def test_p2_wrong_bytes_in_every_read_back_are_caught(db, orders):
    orders.on("GET", DATA, fault=CorruptAnswer())

    with pytest.raises(psycopg.errors.DataCorrupted):
        archive(db, "orders_2024_01", drop_local="0")

    assert_untouched(db, "orders_2024_01", ROWS)


def test_p2_wrong_bytes_in_the_store_are_caught(db, s3, orders):
    """The store acknowledged the right bytes and holds others: only the read-back can tell."""
    def tamper():
        for key in s3.data_keys():
            body = bytearray(s3.read(key))
            body[len(body) // 2] ^= 0x01
            s3.write(key, bytes(body))

    orders.on("PUT|POST", DATA, fault=After(tamper))

    with pytest.raises(psycopg.errors.DataCorrupted):
        archive(db, "orders_2024_01", drop_local="0")

    assert_untouched(db, "orders_2024_01", ROWS)


def test_p2_an_object_that_lost_its_end_is_caught(db, s3, orders):
    def cut():
        for key in s3.data_keys():
            s3.write(key, s3.read(key)[:-100])

    orders.on("PUT|POST", DATA, fault=After(cut))

    with pytest.raises(psycopg.errors.DataCorrupted):
        archive(db, "orders_2024_01", drop_local="0")

    assert_untouched(db, "orders_2024_01", ROWS)


def test_p2_bytes_that_change_on_the_way_up_never_get_in(db, orders):
    orders.on("PUT", DATA, fault=CorruptRequest(), times=1)

    try:
        archive(db, "orders_2024_01", drop_local="0")
    except psycopg.Error:
        assert_untouched(db, "orders_2024_01", ROWS)
        archive(db, "orders_2024_01", drop_local="0")

    assert_archived(db)


def test_p4_an_upload_of_many_parts_survives_faults(db, s3, wide):
    for fault in FAULTS.values():
        wide.on("PUT", r"\.parquet\?.*partNumber=[24]", fault=fault, times=1)
    expected = db.row("SELECT count(*), sum(length(note)) FROM orders")

    archive(db, "orders_2024_01", drop_local="0")

    assert wide.requests("PUT", "partNumber") > 4
    assert db.row("SELECT count(*), sum(length(note)) FROM archive.orders") == expected


@pytest.mark.parametrize("stalled", [("PUT", r"\.parquet\?.*partNumber"), ("GET", DATA)], ids=["upload", "read_back"])
def test_a_cancel_interrupts_io_at_once(db, s3, wide, stalled):
    rule = wide.on(*stalled, fault=Stall())
    call = Call(archive, db, "orders_2024_01")
    assert rule.hit.wait(60)

    began = time.monotonic()
    db.connect().execute("SELECT pg_cancel_backend(%s)", [db.conn.info.backend_pid])
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.result(60)

    assert time.monotonic() - began < CANCEL_BOUND
    assert_no_open_uploads(s3)
    assert_untouched(db, "orders_2024_01", 80_000)


def test_statement_timeout_interrupts_io(db, s3, wide):
    wide.on("PUT", r"\.parquet\?.*partNumber", fault=Stall())
    db.execute("SET statement_timeout = '8s'")

    began = time.monotonic()
    with pytest.raises(psycopg.errors.QueryCanceled):
        archive(db, "orders_2024_01")

    assert time.monotonic() - began < 8 + CANCEL_BOUND
    db.execute("RESET statement_timeout")
    assert_no_open_uploads(s3)
    assert_untouched(db, "orders_2024_01", 80_000)


def test_a_terminated_backend_leaves_nothing_behind(db, s3, wide):
    rule = wide.on("PUT", r"\.parquet\?.*partNumber", fault=Stall())
    victim = db.connect(options="-c archive_ext.default_storage=cold")
    call = Call(victim.execute, "SELECT archive_partition('orders_2024_01')")
    assert rule.hit.wait(60)

    began = time.monotonic()
    db.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
    with pytest.raises(psycopg.OperationalError):
        call.result(60)

    assert time.monotonic() - began < CANCEL_BOUND
    assert_no_open_uploads(s3)
    assert_untouched(db, "orders_2024_01", 80_000)


def test_a_cancelled_query_stops_reading(db, wide):
    archive(db, "orders_2024_01", drop_local="0")
    rule = wide.on("GET", DATA, fault=Stall())
    call = Call(db.value, "SELECT count(note) FROM archive.orders")
    assert rule.hit.wait(30)

    began = time.monotonic()
    db.connect().execute("SELECT pg_cancel_backend(%s)", [db.conn.info.backend_pid])
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.result(60)

    assert time.monotonic() - began < CANCEL_BOUND
    wide.heal()
    assert db.value("SELECT count(note) FROM archive.orders") == 80_000


@pytest.mark.timeout(400)
@pytest.mark.parametrize("method", ["PUT|POST", "GET"], ids=["upload", "read_back"])
def test_p4_a_request_that_is_never_answered_is_given_up_and_tried_again(db, orders, method):
    rule = orders.on(method, DATA, fault=Stall(300), times=1)

    archive(db, "orders_2024_01", drop_local="0")

    assert rule.hit.is_set()
    assert_archived(db)
