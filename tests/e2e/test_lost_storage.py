"""A storage that is gone, full, or says that it kept what it lost: nothing is removed here, and when it works again so does the
same call (P2, P4, P12)."""

import subprocess
import time

import psycopg
import pytest
from psycopg import errors

from harness.disk import small_disk
from harness.orders import assert_same_rows, assert_untouched, create_orders, keep_truth
from harness.proxy import Reset, Swallow

ROWS = 3000
CALLS = {
    "function": "SELECT archive_partition('orders_2024_01', drop_local => '0')",
    "steps": "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[], drop_local => '0')",
}
# An attempt may wait twice as long as the one before: five attempts of a refused connection are over after 8 s.
GIVEN_UP_AFTER = 30


@pytest.fixture
def orders(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=2, rows=ROWS)
    keep_truth(db, "orders")
    yield fault_proxy
    fault_proxy.heal()


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("target", [".", r"\.parquet", r"_manifests/orders_2024_01"], ids=["all", "objects", "manifest"])
def test_p4_s3_is_gone_and_comes_back(db, orders, call, target):
    rule = orders.on(".*", target, fault=Reset())
    began = time.monotonic()
    with pytest.raises(psycopg.Error) as failed:
        db.execute(call)
    assert time.monotonic() - began < GIVEN_UP_AFTER
    assert rule.hits >= 5 and failed.value.sqlstate == "58030", failed.value
    assert_untouched(db, "orders_2024_01", ROWS)
    orders.heal()
    db.execute(call)
    assert_same_rows(db, "archive.orders_all", "truth")
    assert db.value("SELECT count(*) FROM archive.orders") == ROWS


def test_p12_queries_fail_while_s3_is_gone(db, orders):
    db.execute(CALLS["function"])
    orders.on(".*", ".", fault=Reset())
    began = time.monotonic()
    with pytest.raises(psycopg.Error):
        db.execute("SELECT count(note) FROM archive.orders_all")
    assert time.monotonic() - began < GIVEN_UP_AFTER
    assert db.value("SELECT count(note) > 0 FROM orders"), "the hot table is no matter of S3's"
    orders.heal()
    assert_same_rows(db, "archive.orders_all", "truth")


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
@pytest.mark.parametrize("target", [r"\.parquet", r"_manifests/orders_2024_01"], ids=["object", "manifest"])
def test_p2_an_object_that_was_lost_after_success_is_missed(db, orders, call, target):
    """The server answers 200 and keeps nothing."""
    rule = orders.on("PUT|POST", target, fault=Swallow())
    with pytest.raises(psycopg.Error) as failed:
        db.execute(call)
    assert rule.hits and failed.value.sqlstate != "XX000", failed.value
    assert_untouched(db, "orders_2024_01", ROWS)
    orders.heal()
    db.execute(call)
    assert_same_rows(db, "archive.orders_all", "truth")


@pytest.mark.parametrize("target", [r"\.parquet", r"_manifests/"], ids=["object", "manifest"])
def test_p2_a_batch_whose_object_was_lost_deletes_nothing(db, orders, target):
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, at timestamptz NOT NULL)")
    db.execute("INSERT INTO audit SELECT n, '2024-01-01Z'::timestamptz + n * interval '1 hour' FROM generate_series(1, 100) n")
    rule = orders.on("PUT|POST", target, fault=Swallow())
    with pytest.raises(psycopg.Error):
        db.execute("SELECT archive_table_batch('audit', '2025-01-01')")
    assert rule.hits and db.value("SELECT count(*) FROM audit") == 100
    orders.heal()
    db.execute("SELECT archive_table_batch('audit', '2025-01-01')")
    assert db.row("SELECT (SELECT count(*) FROM audit), (SELECT count(*) FROM archive.audit)") == (0, 100)


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())
def test_p4_a_full_disk_that_is_enlarged(db, cluster, call):
    with small_disk(cluster, f"{db.name}_full", "96k") as disk:
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{disk}/a')")
        db.execute("SET archive_ext.default_storage = 'cold'")
        create_orders(db.conn, months=2, rows=10_000)
        keep_truth(db, "orders")
        with pytest.raises(errors.DiskFull):
            db.execute(call)
        assert_untouched(db, "orders_2024_01", 10_000)
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        db.execute(call)
        assert_same_rows(db, "archive.orders_all", "truth")
        db.execute("SELECT reattach_partition('orders_2024_01')")
        assert_same_rows(db, "orders", "truth")


@pytest.fixture
def full_tablespace(db, cluster):
    """A tablespace on a file system that holds next to nothing."""
    with small_disk(cluster, f"{db.name}_temp", "512k") as disk:
        (disk / "t").mkdir()
        subprocess.run(["chown", cluster.user, disk / "t"], check=True)
        name = f"full_{db.name}"
        db.execute(f"CREATE TABLESPACE {name} LOCATION '{disk}/t'")
        yield name
        for setting in ("temp_tablespaces", "default_tablespace"):
            db.execute(f"RESET {setting}")
        db.execute(f"DROP TABLESPACE {name}")


def test_p4_no_room_for_temporary_files_while_objects_are_merged(db, cluster, full_tablespace):
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, at timestamptz NOT NULL, note text)")
    db.execute("INSERT INTO audit SELECT n, '2024-01-01Z'::timestamptz + n % 700 * interval '1 hour', repeat(md5(n::text), 5)"
               " FROM generate_series(1, 20000) n")
    db.execute("CREATE TABLE truth AS SELECT * FROM audit")
    db.execute("CALL archive_table('audit', '2025-01-01', batch_rows => 5000)")
    before = db.all("SELECT key FROM archive_ext.objects ORDER BY key")
    db.execute("SET maintenance_work_mem = '1MB'")
    db.execute(f"SET temp_tablespaces = '{full_tablespace}'")
    with pytest.raises(errors.DiskFull):
        db.execute("SELECT compact_archive('audit')")
    assert db.all("SELECT key FROM archive_ext.objects ORDER BY key") == before
    assert_same_rows(db, "archive.audit_all", "truth", "id, at, note")
    db.execute("RESET temp_tablespaces")
    assert db.value("SELECT rows FROM compact_archive('audit')") == 20_000
    assert_same_rows(db, "archive.audit_all", "truth", "id, at, note")


@pytest.mark.parametrize("setting", ["temp_tablespaces", "default_tablespace"])
def test_p4_no_room_while_a_partition_comes_back(db, cluster, full_tablespace, setting):
    """For the sorts of its indexes; for the rows themselves."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=2, rows=60_000)
    keep_truth(db, "orders")
    db.execute(CALLS["function"])
    db.execute("SET maintenance_work_mem = '1MB'")
    db.execute("SET max_parallel_maintenance_workers = 0")
    db.execute(f"SET {setting} = '{full_tablespace}'")
    with pytest.raises(errors.DiskFull):
        db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "archive.orders_all", "truth")
    db.execute(f"RESET {setting}")
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "orders", "truth")
