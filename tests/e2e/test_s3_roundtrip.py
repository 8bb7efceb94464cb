"""To S3 and back: archive, query, drop the local copy, reattach, archive again. On both servers."""

import json

import psycopg
import pytest

from harness.orders import add_month, archive, assert_same_rows, create_orders, keep_truth, summary


@pytest.fixture
def orders(db, any_s3):
    any_s3.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=3000)
    keep_truth(db, "orders")
    return any_s3


def test_p1_archived_rows_are_in_archive_and_all_but_not_in_hot(db, orders):
    before, month = summary(db, "orders"), summary(db, "orders_2024_01")

    result = archive(db, "orders_2024_01")

    assert result.rows == month.rows
    assert result.objects == 1
    assert 0 < result.archived_bytes < result.local_bytes
    assert db.value("SELECT %s::regclass::text", [result.archived]) == "archive.orders_2024_01"
    assert summary(db, "archive.orders") == month
    assert summary(db, "archive.orders_all") == before
    assert db.value("SELECT count(*) FROM orders WHERE created_at < '2024-02-01'") == 0
    assert not db.is_attached("public.orders_2024_01")
    assert db.is_attached("archive.orders_2024_01", "archive.orders")
    assert_same_rows(db, "archive.orders_all", "truth")


def test_objects_manifest_and_owner_marker_are_in_the_bucket(db, orders):
    location = archive(db, "orders_2024_01").location

    keys = orders.keys()
    [data] = orders.data_keys()
    [manifest] = orders.manifest_keys()
    assert data.startswith(f"{orders.prefix}/public.orders/archive_year=2024/archive_month=01/orders_2024_01.v1.")
    assert manifest == f"{orders.prefix}/public.orders/_manifests/orders_2024_01.v1.json"
    marker = f"{orders.prefix}/_archive_ext/owner.json"
    assert set(keys) == {data, manifest, marker}
    assert location.startswith(f"s3://{orders.name}/{orders.prefix}")

    described = json.loads(orders.read(manifest))
    assert described["rows"] == 3000
    assert described["bytes"] == sum(o["bytes"] for o in described["objects"]) == len(orders.read(data))
    system = db.value("SELECT system_identifier::text FROM pg_control_system()")
    assert system in orders.read(marker).decode()


def test_the_local_copy_is_kept_unless_told_otherwise(db, orders):
    result = archive(db, "orders_2024_01")

    copy = f"archive.orders_2024_01__local_{str(result.job_id)[:8]}"
    assert db.value(f"SELECT count(*) FROM {copy}") == 3000
    assert db.value("SELECT %s BETWEEN now() + interval '29 days' AND now() + interval '31 days'",
                    [result.local_copy_until])


def test_p2_the_local_copy_goes_at_once_when_told_so(db, orders):
    result = archive(db, "orders_2024_01", drop_local="0")

    assert result.local_copy_until is None
    assert db.value("SELECT count(*) FROM pg_class WHERE relname LIKE 'orders_2024_01\\_\\_local%%'") == 0
    assert_same_rows(db, "archive.orders_all", "truth")


@pytest.mark.parametrize("drop_local", [None, "0"], ids=["from_local_copy", "from_objects"])
def test_p5_reattached_rows_are_the_same(db, orders, drop_local):
    archive(db, "orders_2024_01", drop_local=drop_local)

    back = db.value("SELECT reattach_partition('orders_2024_01', writable => true)::regclass::text")

    assert back == "orders_2024_01"
    assert db.is_attached("public.orders_2024_01")
    assert_same_rows(db, "orders", "truth")
    assert_same_rows(db, "archive.orders_all", "truth")
    assert db.value("SELECT count(*) FROM archive.orders") == 0
    db.execute("UPDATE orders SET note = 'again' WHERE created_at = '2024-01-01'")
    db.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-01-15', 7, 1)")


def test_reattached_read_only_refuses_writes(db, orders):
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01')")

    assert_same_rows(db, "orders", "truth")
    for write in ["UPDATE orders SET items = 2 WHERE created_at < '2024-02-01'",
                  "INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-01-15', 7, 1)",
                  "DELETE FROM orders_2024_01", "TRUNCATE orders_2024_01"]:
        with pytest.raises(psycopg.errors.ObjectInUse) as refused:
            db.execute(write)
        assert "writable" in refused.value.diag.message_hint


def test_indexes_and_constraints_come_back_with_the_objects(db, orders):
    db.execute("CREATE INDEX by_note ON orders_2024_01 (lower(note)) WHERE note IS NOT NULL")
    db.execute("COMMENT ON INDEX by_note IS 'for the call centre'")
    db.execute("ALTER TABLE orders_2024_01 ADD CONSTRAINT few CHECK (items < 100)")
    describe = """
        SELECT pg_get_indexdef(indexrelid), indisvalid FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass
        UNION ALL SELECT conname || ' ' || pg_get_constraintdef(oid), convalidated FROM pg_constraint
                  WHERE conrelid = 'orders_2024_01'::regclass
        ORDER BY 1"""
    before = db.all(describe)

    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")

    assert db.all(describe) == before
    assert db.value("SELECT obj_description('by_note'::regclass)") == "for the call centre"
    assert db.value("SELECT count(*) FROM pg_inherits WHERE inhparent IN (SELECT indexrelid FROM pg_index"
                    " WHERE indrelid = 'orders'::regclass)") == 2 * 3


@pytest.mark.parametrize("drop_local", [None, "0"], ids=["from_local_copy", "from_objects"])
def test_archiving_an_unmodified_partition_again_uploads_nothing(db, orders, drop_local):
    archive(db, "orders_2024_01", drop_local=drop_local)
    before = {k: orders.client.head_object(Bucket=orders.name, Key=k)["LastModified"] for k in orders.keys()}
    db.execute("SELECT reattach_partition('orders_2024_01')")

    archive(db, "orders_2024_01")

    assert {k: orders.client.head_object(Bucket=orders.name, Key=k)["LastModified"] for k in orders.keys()} == before
    assert_same_rows(db, "archive.orders_all", "truth")


def test_archiving_a_modified_partition_again_makes_a_second_version(db, orders):
    archive(db, "orders_2024_01")
    first = {k: orders.read(k) for k in orders.data_keys()}
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute("UPDATE orders SET note = 'changed' WHERE created_at = '2024-01-01'")
    changed = summary(db, "orders")

    archive(db, "orders_2024_01", drop_local="0")

    assert summary(db, "archive.orders_all") == changed
    assert any(".v2." in k for k in orders.data_keys())
    assert {k: orders.read(k) for k in first} == first, "a version never changes"


def test_many_files(db, orders):
    """A partition larger than one object."""
    db.execute("SET archive_ext.object_size = '1MB'")
    db.execute("SET archive_ext.row_group_rows = 5000")
    db.execute("SET archive_ext.row_group_size = '1MB'")
    add_month(db.conn, 3, 60000)
    # Nothing of it repeats, so that it takes more than one object.
    db.execute("UPDATE orders_2024_04 SET note = md5(id::text) || md5('x' || id)")
    month = summary(db, "orders_2024_04")

    result = archive(db, "orders_2024_04", drop_local="0")

    assert result.objects == len(orders.data_keys()) > 1
    assert summary(db, "archive.orders") == month
    assert db.value("SELECT count(*) FROM archive.orders WHERE customer_id = 8") == db.value(
        "SELECT count(*) FROM generate_series(0, 59999) AS n WHERE 1 + n * 7919 % 1000 = 8")


def test_several_at_once(db, orders):
    results = db.all("SELECT * FROM archive_partitions(ARRAY['orders_2024_01', 'orders_2024_02']::regclass[])")

    assert [r.rows for r in results] == [3000, 3000]
    assert_same_rows(db, "archive.orders_all", "truth")
    assert db.value("SELECT count(*) FROM orders") == 3000


def test_the_procedure_commits_between_steps(db, orders):
    db.execute("CALL archive_partition_steps(ARRAY['orders_2024_01', 'orders_2024_02']::regclass[])")

    assert_same_rows(db, "archive.orders_all", "truth")
    assert db.value("SELECT count(*) FROM orders") == 3000
    assert db.value("SELECT count(DISTINCT xmin::text) FROM archive_ext.partition") == 2


def test_a_dry_run_touches_nothing(db, orders):
    result = archive(db, "orders_2024_01", dry_run=True)

    assert result.rows == 3000 or result.rows is None
    assert orders.keys() == []
    assert not db.exists("archive.orders")
    assert_same_rows(db, "orders", "truth")
    db.execute("DELETE FROM orders_2024_01")


def test_a_rolled_back_call_leaves_the_partition_as_it_was(db, orders):
    with db.conn.transaction(force_rollback=True):
        archive(db, "orders_2024_01")
    assert db.is_attached("public.orders_2024_01")
    assert_same_rows(db, "orders", "truth")
    db.execute("UPDATE orders SET items = items")


def test_check_storage_probes_every_operation(db, orders):
    checks = db.all("SELECT * FROM check_storage('cold')")

    assert all(c.ok for c in checks), checks
    names = " ".join(c.check_name for c in checks)
    assert all(word in names for word in ["put", "get", "list", "delete"]), names


def test_check_storage_tells_what_fails(db, s3):
    # s3s-fs makes a bucket of any directory that is written to, so only LocalStack can miss one.
    s3.create_storage(db.conn, location="s3://no-such-bucket/arch")

    failed = [c for c in db.all("SELECT * FROM check_storage('cold')") if not c.ok]

    assert failed
    assert any("no-such-bucket" in c.detail or "NoSuchBucket" in c.detail for c in failed), failed
