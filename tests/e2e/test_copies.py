"""A second storage: written and read back before anything leaves the table (P2), read where the first fails, and each repaired from the other."""

import itertools

import psycopg
import pytest

from harness.orders import assert_same_rows, create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture
def two(db, localstack, s3s_fs):
    """The second is of another make, and checks signatures."""
    first, second = Bucket(localstack, f"first-{next(_numbers)}"), Bucket(s3s_fs, f"second-{next(_numbers)}")
    second.create_storage(db.conn, "far")
    first.create_storage(db.conn, "cold")
    create_orders(db.conn, months=3, rows=200)
    db.execute("CREATE TABLE truth AS SELECT * FROM orders")
    db.execute("SELECT set_archive_policy('orders', storage => 'cold', copy_storage => 'far')")
    db.first, db.second = first, second
    return db


def keys(bucket):
    return sorted(key for key in bucket.keys() if "_archive_ext" not in key)


def break_it(bucket, key):
    body = bucket.read(key)
    bucket.write(key, body[:300] + bytes(20) + body[320:])


def test_p2_both_have_it_before_the_local_rows_go(two):
    two.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert keys(two.first) == keys(two.second) and len(keys(two.first)) == 2
    assert all(two.first.read(key) == two.second.read(key) for key in keys(two.first))
    (copies,) = two.all("SELECT storage, copy_storage, objects, copied FROM archive_ext.copies")
    assert copies == ("cold", "far", 1, 1)
    # No second storage, no archive: nothing has changed.
    two.execute("ALTER SERVER far OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD max_attempts '1')")
    with pytest.raises(psycopg.errors.IoError):
        two.execute("SELECT archive_partition('orders_2024_02', drop_local => '0')")
    assert two.is_attached("orders_2024_02") and two.value("SELECT count(*) FROM orders_2024_02") == 200
    two.execute("SET archive_ext.default_storage = 'cold'; CREATE TABLE tickets (id bigint PRIMARY KEY, at timestamptz NOT NULL)")
    two.execute("INSERT INTO tickets SELECT n, '2020-01-01' FROM generate_series(1, 50) n")
    two.execute("SELECT set_archive_policy('tickets', storage => 'cold', copy_storage => 'far')")
    with pytest.raises(psycopg.errors.IoError):
        two.execute("SELECT archive_table_batch('tickets', '2021-01-01')")
    assert two.value("SELECT count(*) FROM tickets") == 50
    two.execute(f"ALTER SERVER far OPTIONS (SET endpoint '{two.second.server.endpoint}')")
    two.execute("SELECT archive_table_batch('tickets', '2021-01-01')")
    # The first attempt has left an object in one of them.
    of_tickets = {key for key in keys(two.second) if "tickets" in key}
    assert len(of_tickets) == 2 and of_tickets < set(keys(two.first))
    # What needs a copy is not garbage there.
    assert two.all("SELECT * FROM audit_storage('far')") == []
    assert_same_rows(two, "archive.orders_all", "truth")


def test_reads_fall_back_and_both_are_repaired(two):
    for month in (1, 2):
        two.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    (key,) = [key for key in two.first.data_keys() if "2024_01" in key]
    manifest = next(key for key in two.first.manifest_keys() if "2024_02" in key)
    body = two.first.read(key)
    two.first.client.delete_object(Bucket=two.first.name, Key=key)
    two.first.client.delete_object(Bucket=two.first.name, Key=manifest)
    notices = []
    two.conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    assert_same_rows(two, "archive.orders_all", "truth")
    assert any("are from its copies in far" in notice for notice in notices)
    other = next(key for key in two.second.data_keys() if "2024_02" in key)
    break_it(two.second, other)
    planned = two.all("SELECT storage, fault, repaired, detail FROM repair_archive('orders', dry_run => true)")
    assert [(row.storage, row.repaired, row.detail) for row in planned] == [("cold", False, "far has it"), ("far", False, "cold has it"), ("cold", False, "far has it")]
    assert "SHA-256" in planned[1].fault
    assert two.value("SELECT count(*) FROM verify_archive('orders') WHERE verified_at IS NULL") == 2
    done = two.all("SELECT storage, key, repaired, detail FROM repair_archive('orders')")
    assert {(row.storage, f"arch/{row.key}", row.repaired) for row in done} == {("cold", key, True), ("far", other, True), ("cold", manifest, True)}
    assert two.first.read(key) == body and two.second.read(other) == two.first.read(other)
    assert two.all("SELECT * FROM repair_archive('orders')") == []
    assert two.value("SELECT count(*) FROM archive_ext.findings WHERE resolved_at IS NULL") == 0
    assert {row.result for row in two.all("SELECT result FROM verify_archive('orders')")} == {"equal"}
    # Both are damaged: that is told.
    break_it(two.first, key)
    break_it(two.second, key)
    (row,) = two.all("SELECT repaired, detail FROM repair_archive('orders_2024_01')")
    assert not row.repaired and row.detail.startswith("in far as well")
    # The first storage is away: queries go on.
    two.execute("ALTER SERVER cold OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD max_attempts '1', ADD connect_timeout '200 ms')")
    assert two.value("SELECT count(*) FROM archive.orders_2024_02 WHERE items > 0") == 200


def test_what_was_archived_before_is_copied_by_a_job(two):
    two.execute("SELECT set_archive_policy('orders', clear => '{copy_storage}')")
    two.execute("SELECT archive_partition('orders_2024_01')")
    two.execute("SELECT archive_partition('orders_2024_02', drop_local => '0')")
    assert keys(two.second) == []
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState):
        two.execute("SELECT repair_archive('orders')")
    two.execute("SELECT set_archive_policy('orders', copy_storage => 'far')")
    # The local copy does not go before the copy is there.
    two.execute("SELECT drop_local_copy('orders_2024_01')")
    assert len(keys(two.second)) == 2
    with two.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert keys(two.second) == keys(two.first)
    assert two.all("SELECT operation, status FROM archive_ext.jobs WHERE status <> 'completed'") == []
    # What is erased is erased in both.
    two.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)")
    with two.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert keys(two.second) == keys(two.first) and all(".v2." in key for key in keys(two.first))
    for arguments in ("copy_storage => 'cold'", "copy_storage => 'none'"):
        with pytest.raises(psycopg.errors.InvalidParameterValue):
            two.execute(f"SELECT set_archive_policy('orders', {arguments})")
