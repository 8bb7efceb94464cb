"""Archive classes: glacier_after moves objects, a query that needs a frozen one fails before it reads anything (P12), request_restore
makes them readable for a while."""

import itertools
import json

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import assert_same_rows, create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)
FROZEN = psycopg.errors.ObjectNotInPrerequisiteState


@pytest.fixture
def bucket(moto):
    moto.restores_take(1)
    return Bucket(moto, f"glacier-{next(_numbers)}")


@pytest.fixture
def orders(db, bucket):
    """Three months, of which two are archived; 2024 is long over."""
    bucket.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=100)
    for month in (1, 2):
        db.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    db.bucket = bucket
    return db


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")
    unfinished = db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'pending')")
    assert not unfinished


def freeze(db, glacier_class="DEEP_ARCHIVE"):
    db.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', glacier_class => %s, storage => 'cold')", [glacier_class])
    lifecycle(db)
    assert db.all("SELECT DISTINCT tier FROM archive_ext.partitions WHERE status = 'ARCHIVED'") == [("glacier",)]


def classes(bucket):
    return {o["Key"].rsplit("/", 1)[1]: o["StorageClass"] for o in bucket.client.list_objects_v2(Bucket=bucket.name)["Contents"]
            if "orders" in o["Key"]}


def requests_of(bucket, call):
    """How many requests the server logged meanwhile that read an object."""
    before = bucket.server.reads()
    result = call()
    return bucket.server.reads() - before, result


def refused(db, query):
    with pytest.raises(FROZEN) as error:
        db.all(query)
    return error.value.diag


def poll(db):
    return db.all("SELECT * FROM poll_restores()")


def notices_of(db, query):
    notices = []
    handler = lambda diag: notices.append(diag.message_primary)  # noqa: E731
    db.conn.add_notice_handler(handler)
    try:
        return db.all(query), notices
    finally:
        db.conn.remove_notice_handler(handler)


def restored(db, name="orders", **more):
    arguments = "".join(f", {key} => {value!r}" for key, value in more.items())
    db.execute(f"SELECT request_restore('{name}'{arguments})")
    for _ in range(3):
        poll(db)
    return db.all("SELECT * FROM archive_ext.restores WHERE status = 'ready' ORDER BY request")


def test_objects_move_with_their_content_and_manifests_stay(orders):
    before = {key: orders.bucket.read(key) for key in orders.bucket.data_keys()}
    coming = orders.all("SELECT * FROM plan_archive('orders') WHERE action = 'glacier'")
    assert not coming
    orders.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', glacier_class => 'glacier_ir', storage => 'cold')")
    coming = orders.all("SELECT partitions, reason, saved_per_month, locks FROM plan_archive('orders') WHERE action = 'glacier'")
    assert [row.partitions for row in coming] == ["public.orders_2024_01", "public.orders_2024_02"]
    assert coming[0].reason == "glacier_after 1 year counts from its upper bound; its objects move to GLACIER_IR"
    assert coming[0].saved_per_month >= 0 and coming[0].locks == "none"
    explained = orders.row("SELECT next_step, reason FROM explain_lifecycle('orders') WHERE partition = 'public.orders_2024_01'")
    assert explained.next_step == "glacier" and "GLACIER_IR" in explained.reason
    lifecycle(orders)
    assert classes(orders.bucket) == {
        "orders_2024_01.v1.00000.parquet": "GLACIER_IR", "orders_2024_01.v1.json": "STANDARD",
        "orders_2024_02.v1.00000.parquet": "GLACIER_IR", "orders_2024_02.v1.json": "STANDARD"}
    assert {key: orders.bucket.read(key) for key in orders.bucket.data_keys()} == before
    # Readable at once.
    assert orders.value("SELECT count(*) FROM archive.orders_all WHERE items > 0") == 300
    plan = "\n".join(row[0] for row in orders.all("EXPLAIN SELECT items FROM archive.orders"))
    assert plan.count("Storage Class: GLACIER_IR") == 2
    assert [row.result for row in orders.all("SELECT * FROM verify_archive('orders')")] == ["equal", "equal"]
    assert orders.all("SELECT * FROM audit_storage('cold')") == []
    events = orders.all("SELECT details FROM archive_ext.events WHERE event = 'moved_to_glacier'")
    assert [row.details["storage_class"] for row in events] == ["GLACIER_IR", "GLACIER_IR"]
    assert not orders.all("SELECT * FROM plan_archive('orders')")
    (cold,) = orders.all("SELECT * FROM archive_cost('orders') WHERE tier = 'glacier'")
    assert (cold.storage_class, cold.partitions) == ("GLACIER_IR", 2)


def test_p12_a_query_that_needs_frozen_objects_reads_nothing(orders):
    freeze(orders)
    count, diag = requests_of(orders.bucket, lambda: refused(orders, "SELECT sum(items) FROM archive.orders_all"))
    assert count == 0
    assert diag.message_primary == "2 archived partitions that are needed are in a frozen storage class"
    lines = diag.message_detail.splitlines()
    assert lines[0].startswith("public.orders_2024_01: 1 object, ") and lines[0].endswith(", DEEP_ARCHIVE")
    assert lines[1].startswith("public.orders_2024_02: 1 object, ")
    assert lines[2].startswith("standard: within 12 hours, ") and lines[2].endswith(" USD with 7 days of reading")
    assert lines[3].startswith("bulk: within 48 hours, ") and "USD" in lines[3] and len(lines) == 4
    assert "request_restore" in diag.message_hint
    # What the catalog, bounds, ranges or rows of the table answer needs none of them.
    orders.execute("SET archive_ext.enable_catalog_answers = on")
    assert orders.value("SELECT count(*) FROM archive.orders_all") == 300
    assert orders.value("SELECT max(created_at) < '2024-03-01' FROM archive.orders")
    assert orders.value("SELECT sum(items) > 0 FROM archive.orders_all WHERE created_at >= '2024-03-01'")
    assert orders.value("SELECT count(*) FROM archive.orders WHERE created_at > '2024-01-31 23:00' AND created_at < '2024-02-01' AND items > 0"
                        " AND id < 0") == 0
    assert orders.value("SELECT sum(items) FROM archive.orders WHERE customer_id > 100000") is None
    assert len(orders.all("SELECT created_at FROM archive.orders_all LIMIT 5")) == 5
    sorted_all = refused(orders, "SELECT created_at FROM archive.orders_all ORDER BY items LIMIT 5")
    assert sorted_all.message_primary.startswith("2 archived partitions")
    # A statement with a parameter, and one that reads only one of them.
    orders.execute("PREPARE of_month AS SELECT sum(items) FROM archive.orders_all WHERE created_at >= $1")
    assert orders.value("EXECUTE of_month('2024-03-01')") > 0
    one = refused(orders, "EXECUTE of_month('2024-02-01')")
    assert one.message_primary == "archived partition public.orders_2024_02 is in a frozen storage class"
    assert one.message_hint.startswith("SELECT * FROM request_restore('public.orders_2024_02'")
    orders.execute("SET plan_cache_mode = force_generic_plan; PREPARE before(timestamptz) AS SELECT sum(items) FROM archive.orders_all WHERE created_at >= $1 - interval '1 day'")
    assert orders.value("EXECUTE before('2024-03-10')") > 0
    assert refused(orders, "EXECUTE before('2024-02-10')").message_primary.startswith("archived partition public.orders_2024_02")
    orders.execute("RESET plan_cache_mode")
    # What may never be run is not refused before.
    assert orders.value("SELECT EXISTS (SELECT FROM archive.orders_all WHERE items > 0)")
    assert orders.value("SELECT coalesce((SELECT sum(items) FROM orders), (SELECT sum(items) FROM archive.orders))") > 0
    assert refused(orders, "SELECT (SELECT sum(items) FROM archive.orders_all)").message_primary.startswith("archived partition")
    assert refused(orders, "WITH a AS MATERIALIZED (SELECT items FROM archive.orders_all) SELECT sum(items) FROM a").message_primary.startswith("2 archived")
    # Rows of another table decide while the query runs: it is refused when it comes to it.
    orders.execute("CREATE TABLE wanted (at timestamptz)")
    orders.execute("INSERT INTO wanted VALUES ('2024-03-05')")
    joined = "SELECT (SELECT count(*) FROM archive.orders_all o WHERE o.created_at = w.at AND o.items > 0) FROM wanted w"
    assert orders.value(joined) in (0, 1)
    orders.execute("INSERT INTO wanted VALUES ('2024-01-05')")
    assert refused(orders, joined).message_primary == "archived partition public.orders_2024_01 is in a frozen storage class"
    plan = "\n".join(row[0] for row in orders.all("EXPLAIN SELECT sum(items) FROM archive.orders"))
    assert "Storage Class: DEEP_ARCHIVE (1 to be restored first: request_restore)" in plan
    refused(orders, "EXPLAIN ANALYZE SELECT sum(items) FROM archive.orders")
    refused(orders, "COPY (SELECT * FROM archive.orders) TO STDOUT")
    # Statistics stay as they are.
    orders.execute("ANALYZE archive.orders")
    verified = orders.all("SELECT * FROM verify_archive('orders')")
    assert {(row.level, row.result) for row in verified} == {
        ("checksum", "sizes and etags equal; not read: it is in a frozen storage class")}
    assert orders.row("SELECT * FROM reconcile_archive('orders', 100)").sampled == 0
    assert orders.all("SELECT * FROM check_consistency()") == []


def test_a_restore_from_the_request_to_its_end(orders, cluster):
    orders.execute("CREATE TABLE truth AS SELECT * FROM archive.orders_all")
    freeze(orders, "GLACIER")
    orders.bucket.server.restores_take(2)
    with orders.connect() as listener:
        listener.execute("LISTEN archive_ext_restore")
        asked = orders.all("SELECT * FROM request_restore('orders', '2024-01-15', '2024-02-01', tier => 'bulk', days => 3)")
        (one,) = asked
        assert (one.partition, one.status, one.retrieval, one.days, one.objects, one.currency) == (
            "public.orders_2024_01", "pending", "bulk", 3, 1, "USD")
        assert one.bytes == orders.value("SELECT bytes FROM archive_ext.objects WHERE partition_name = 'orders_2024_01'")
        # Asked again it is the same; nothing was sent yet.
        assert orders.value("SELECT request FROM request_restore('orders_2024_01', days => 3)") == one.request
        assert orders.value("SELECT count(*) FROM archive_ext.restores") == 1
        head = orders.bucket.client.head_object(Bucket=orders.bucket.name, Key=orders.bucket.data_keys()[0])
        assert "Restore" not in head
        assert [row.status for row in poll(orders)] == ["in progress"]
        waiting = refused(orders, "SELECT sum(items) FROM archive.orders_2024_01")
        assert "is in progress, expected by" in waiting.message_detail and "(bulk)" in waiting.message_detail
        record = refused(orders, "SELECT get_archived_record('orders', jsonb_build_object('id', 5, 'created_at', '2024-01-02 14:52:48+00'))")
        assert "is in progress, expected by" in record.message_detail
        assert orders.value("SELECT archive_tier_of('orders', jsonb_build_object('id', 5, 'created_at', '2024-01-02 14:52:48+00'))") == "glacier"
        for _ in range(4):
            poll(orders)
        ready = orders.row("SELECT *, extract(day FROM ready_until - clock_timestamp()) AS days_left FROM archive_ext.restores")
        assert ready.status == "ready" and ready.days_left in (2, 3) and ready.ready_at and not ready.ended_at
        notified = [json.loads(n.payload) for n in listener.notifies(timeout=5, stop_after=1)]
        assert (notified[0]["partition"], notified[0]["status"]) == ("public.orders_2024_01", "ready")
        assert_same_rows(orders, "archive.orders_2024_01", "(SELECT * FROM truth WHERE created_at < '2024-02-01') t")
        refused(orders, "SELECT sum(items) FROM archive.orders")
        # For longer.
        longer = orders.row("SELECT * FROM request_restore('orders_2024_01', days => 9)")
        assert (longer.request, longer.days) == (one.request, 9)
        poll(orders)
        assert orders.value("SELECT extract(day FROM ready_until - clock_timestamp()) FROM archive_ext.restores") >= 8
        # Another policy does not forget it, nor does a job that is gone.
        orders.execute("SELECT set_archive_policy('orders', verify_after => '1 year')")
        assert orders.value("SELECT status FROM archive_ext.jobs WHERE operation = 'restore'") == "pending"
        orders.execute("DELETE FROM archive_ext.archival_job WHERE operation = 'restore'")
        lifecycle(orders)
        assert orders.value("SELECT status FROM archive_ext.jobs WHERE operation = 'restore'") == "pending"
        # The time is over.
        orders.execute("UPDATE archive_ext.restore_request SET ready_until = now() - interval '1 s'")
        orders.execute("UPDATE archive_ext.object SET restored_until = now() - interval '1 s'")
        refused(orders, "SELECT sum(items) FROM archive.orders_2024_01")
        assert [row.status for row in poll(orders)] == ["expired"]
        later = [json.loads(n.payload)["status"] for n in listener.notifies(timeout=5, stop_after=2)]
        assert later == ["ready", "expired"]
    events = [row[0] for row in orders.all("SELECT event FROM archive_ext.events WHERE event LIKE 'restore%' ORDER BY at")]
    assert events == ["restore_ready", "restore_ready", "restore_expired"]
    # And again.
    assert orders.value("SELECT request FROM request_restore('orders_2024_01')") != one.request


def test_p12_a_copy_that_lapses_between_check_and_read(orders):
    freeze(orders)
    restored(orders)
    assert orders.value("SELECT sum(items) FROM archive.orders") > 0
    for key in orders.bucket.data_keys():
        orders.bucket.client.copy_object(Bucket=orders.bucket.name, Key=key, CopySource=f"{orders.bucket.name}/{key}",
                                         StorageClass="DEEP_ARCHIVE")
    with orders.connect() as fresh:
        with pytest.raises(FROZEN) as error:
            fresh.execute("SELECT sum(items) FROM archive.orders")
    assert "no restored copy is there" in error.value.diag.message_primary
    assert "InvalidObjectState" in error.value.diag.message_detail
    assert "request_restore('public.orders_2024_0" in error.value.diag.message_hint


def test_a_copy_that_was_lost_is_made_again(orders):
    freeze(orders)
    restored(orders, "orders_2024_01")
    (key,) = [key for key in orders.bucket.data_keys() if "2024_01" in key]
    orders.bucket.client.copy_object(Bucket=orders.bucket.name, Key=key, CopySource=f"{orders.bucket.name}/{key}", StorageClass="DEEP_ARCHIVE")
    assert "no restored copy" in refused(orders, "SELECT sum(items) FROM archive.orders_2024_01").message_primary
    again = orders.row("SELECT * FROM request_restore('orders_2024_01')")
    assert again.status == "pending"
    for _ in range(3):
        poll(orders)
    assert orders.value("SELECT sum(items) FROM archive.orders_2024_01") > 0
    # One whose time is over, before anybody has looked.
    orders.execute("UPDATE archive_ext.restore_request SET ready_until = now() - interval '1 s'")
    orders.execute("UPDATE archive_ext.object SET restored_until = now() - interval '1 s'")
    assert orders.value("SELECT status FROM request_restore('orders_2024_01')") == "pending"
    for _ in range(3):
        poll(orders)
    assert orders.value("SELECT sum(items) FROM archive.orders_2024_01") > 0


def test_what_the_rules_of_a_bucket_froze_is_restored_too(orders):
    (key,) = [key for key in orders.bucket.data_keys() if "2024_01" in key]
    orders.bucket.client.copy_object(Bucket=orders.bucket.name, Key=key, CopySource=f"{orders.bucket.name}/{key}", StorageClass="GLACIER")
    diag = refused(orders, "SELECT sum(items) FROM archive.orders_2024_01")
    assert "no restored copy is there" in diag.message_primary
    assert orders.value("SELECT status FROM request_restore('orders_2024_01')") == "pending"
    for _ in range(3):
        poll(orders)
    assert orders.value("SELECT sum(items) FROM archive.orders_2024_01") > 0
    # Of what is not frozen nothing is to be asked.
    rows, notices = notices_of(orders, "SELECT * FROM request_restore('orders_2024_02')")
    assert rows == [] and any("can be read as it is" in notice for notice in notices)


def test_reattach_waits_for_the_restore_and_then_does_it(orders):
    orders.execute("CREATE TABLE truth AS SELECT * FROM archive.orders_all")
    freeze(orders)
    ((found,),), notices = notices_of(orders, "SELECT reattach_partition('orders_2024_01', keep_for => '2 days', writable => true)")
    assert found is None and any("a job reattaches it when that is there" in notice for notice in notices)
    assert orders.value("SELECT status FROM archive_ext.jobs WHERE operation = 'reattach'") == "pending"
    refused(orders, "SELECT set_lifecycle('archive.orders_2024_02', 'HOT')")
    lifecycle(orders)
    assert not orders.is_attached("orders_2024_01")
    for _ in range(3):
        poll(orders)
    orders.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    lifecycle(orders)
    assert orders.is_attached("orders_2024_01")
    assert_same_rows(orders, "(SELECT * FROM orders WHERE created_at < '2024-02-01') o", "(SELECT * FROM truth WHERE created_at < '2024-02-01') t")
    row = orders.row("SELECT status, writable, keep_until > now() + interval '47 hours' AS kept FROM archive_ext.partitions"
                     " WHERE partition_name = 'orders_2024_01'")
    assert (row.status, row.writable, row.kept) == ("WARM", True, True)
    # Archived again unchanged, while the copy is there: no byte is uploaded, and it stays where it is.
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert orders.all("SELECT DISTINCT storage_class FROM archive_ext.objects WHERE partition_name = 'orders_2024_01'") == [("DEEP_ARCHIVE",)]


def test_p2_an_object_that_is_not_what_was_archived_does_not_move(orders):
    (key,) = [key for key in orders.bucket.data_keys() if "2024_01" in key]
    body = orders.bucket.read(key)
    orders.bucket.write(key, body[:-10] + b"0123456789")
    orders.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', max_attempts => 1, storage => 'cold')")
    with orders.connect() as session:
        session.execute("CALL run_lifecycle()")
    job = orders.row("SELECT status, error FROM archive_ext.jobs WHERE operation = 'glacier' AND partition_name = 'public.orders_2024_01'")
    assert job.status == "failed" and "is not what was archived" in job.error
    assert classes(orders.bucket)["orders_2024_01.v1.00000.parquet"] == "STANDARD"
    assert classes(orders.bucket)["orders_2024_02.v1.00000.parquet"] == "GLACIER"
    assert orders.value("SELECT kind FROM archive_ext.findings WHERE resolved_at IS NULL") == "altered"
    orders.bucket.write(key, body)
    orders.execute("SELECT retry_job(job_id) FROM archive_ext.jobs WHERE status = 'failed'")
    lifecycle(orders)
    assert set(classes(orders.bucket).values()) == {"GLACIER", "STANDARD"}
    assert orders.value("SELECT tier FROM archive_ext.partitions WHERE partition_name = 'orders_2024_01'") == "glacier"


def test_the_local_copy_goes_and_verification_comes_first(db, bucket):
    bucket.create_storage(db.conn)
    create_orders(db.conn, months=2, rows=50)
    db.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', storage => 'cold')")
    db.execute("SELECT archive_partition('orders_2024_01')")
    lifecycle(db)
    assert classes(bucket)["orders_2024_01.v1.00000.parquet"] == "STANDARD", "the local copy is still there"
    db.execute("SELECT drop_local_copy('orders_2024_01')")
    db.execute("UPDATE archive_ext.partition SET reverified_at = NULL")
    db.execute("SELECT set_archive_policy('orders', verify_after => '10 days')")
    lifecycle(db)
    assert classes(bucket)["orders_2024_01.v1.00000.parquet"] == "STANDARD", "it is to be verified again first"
    db.execute("SELECT verify_archive('orders_2024_01')")
    lifecycle(db)
    assert classes(bucket)["orders_2024_01.v1.00000.parquet"] == "GLACIER"


def test_the_bucket_alone_tells_the_classes(orders, cluster, role):
    freeze(orders)
    keep = orders.bucket
    orders.execute("DROP EXTENSION archive_ext CASCADE; DROP SCHEMA archive CASCADE; DROP TABLE orders; CREATE EXTENSION archive_ext")
    keep.create_storage(orders.conn, "cold")
    orders.execute("SELECT adopt_storage('cold')")
    orders.all("SELECT * FROM import_archive('cold', dry_run => false)")
    refused(orders, "SELECT sum(items) FROM archive.orders")
    assert orders.all("SELECT DISTINCT tier FROM archive_ext.partitions") == [("glacier",)]
    restored(orders)
    assert orders.value("SELECT count(*) FROM archive.orders WHERE items > 0") == 200


def test_who_may_ask_and_for_what(orders, role):
    freeze(orders)
    other = role("glacier_reader")
    orders.execute(f"GRANT SELECT ON archive.orders, archive.orders_all, orders TO {other}")
    with orders.connect(user=other) as session:
        with pytest.raises(FROZEN):
            session.execute("SELECT sum(items) FROM archive.orders")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT * FROM request_restore('orders_2024_01')")
        assert session.execute("SELECT count(*) FROM poll_restores()").fetchone()[0] == 0
    for arguments, code, hint in [
        ("'orders', tier => 'fast'", "22023", "'bulk'"),
        ("'orders', tier => 'expedited'", "22023", "'standard' or 'bulk'"),
        ("'orders', days => 0", "22023", None),
        ("'nothing_such'", "42704", "archive_ext.partitions"),
    ]:
        with pytest.raises(psycopg.Error) as error:
            orders.all(f"SELECT * FROM request_restore({arguments})")
        assert error.value.sqlstate == code and (hint is None or hint in error.value.diag.message_hint), arguments
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="would not work"):
        orders.execute("SELECT set_archive_policy('orders', glacier_class => 'COLD')")


def test_a_request_that_the_store_refuses_says_why(orders):
    freeze(orders)
    (key,) = [key for key in orders.bucket.data_keys() if "2024_01" in key]
    orders.bucket.client.delete_object(Bucket=orders.bucket.name, Key=key)
    orders.execute("SELECT request_restore('orders_2024_01')")
    (failed,) = poll(orders)
    assert failed.status == "failed" and "does not exist" in failed.error
    assert [row.alert for row in orders.all("SELECT alert FROM archive_ext.alerts")] == ["restore failed"]
    assert poll(orders) == []



def test_retention_and_hold_go_along(db, moto):
    """The copy in the archive class has what the store locked the object with; in a bucket with versions the former one stays."""
    bucket = Bucket(moto, f"glacier-locked-{next(_numbers)}", locks=True)
    bucket.create_storage(db.conn, object_lock="GOVERNANCE 2 days")
    create_orders(db.conn, months=1, rows=50)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT legal_hold('orders_2024_01', reason => 'case 1')")
    (key,) = bucket.data_keys()
    look = lambda: bucket.client.head_object(Bucket=bucket.name, Key=key)  # noqa: E731
    before = look()
    db.execute("SELECT set_archive_policy('orders', glacier_after => '1 year', glacier_class => 'DEEP_ARCHIVE', storage => 'cold')")
    lifecycle(db)
    assert db.all("SELECT operation, error FROM archive_ext.jobs WHERE status = 'pending'") == []
    after = look()
    assert after["StorageClass"] == "DEEP_ARCHIVE" and after["VersionId"] != before["VersionId"]
    assert after["ObjectLockMode"] == before["ObjectLockMode"] == "GOVERNANCE"
    assert after["ObjectLockRetainUntilDate"] == before["ObjectLockRetainUntilDate"]
    assert after["ObjectLockLegalHoldStatus"] == before["ObjectLockLegalHoldStatus"] == "ON"
    versions = bucket.client.list_object_versions(Bucket=bucket.name, Prefix=key)["Versions"]
    assert sorted(version["StorageClass"] for version in versions) == ["DEEP_ARCHIVE", "STANDARD"]
