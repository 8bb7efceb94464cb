"""S3 Object Lock by the policy: what is locked, for how long, what is refused, and what waits until a lock is over (P2)."""

import itertools
from datetime import datetime, timedelta, timezone

import psycopg
import pytest
from botocore.exceptions import ClientError

from harness.orders import create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture(params=["localstack", "moto"])
def server(request):
    """Locks are kept by two implementations."""
    return request.getfixturevalue(request.param)


def locking(db, server, **options):
    bucket = Bucket(server, f"object-lock-{next(_numbers)}", locks=True)
    bucket.create_storage(db.conn, **options)
    return bucket


@pytest.fixture
def bucket(db, server):
    return locking(db, server)


def policy(db, lock, table="orders", **more):
    settings = {"object_lock": lock, "storage": "cold", **more}
    arguments = ", ".join(f"{name} => %s" for name in settings)
    db.execute(f"SELECT set_archive_policy('{table}', {arguments})", list(settings.values()))


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")


def locks(bucket):
    """Mode and days of what is in the bucket, by the end of the key; the store is asked, not the extension."""
    found = {}
    for key in bucket.keys():
        head = bucket.client.head_object(Bucket=bucket.name, Key=key)
        until = head.get("ObjectLockRetainUntilDate")
        days = until and round((until - datetime.now(timezone.utc)) / timedelta(days=1))
        found[key.rsplit("/", 1)[1]] = (head.get("ObjectLockMode"), days)
    assert found.pop("owner.json", (None, None)) == (None, None)
    return found


def years(number):
    today = datetime.now(timezone.utc)
    return round((today.replace(year=today.year + number) - today) / timedelta(days=1))


def error_of(call, *arguments):
    with pytest.raises(psycopg.Error) as caught:
        call(*arguments)
    diag = caught.value.diag
    return diag.sqlstate, " ".join(filter(None, (diag.message_primary, diag.message_detail, diag.message_hint)))


def unlock(bucket, contains=""):
    """As who may bypass governance does."""
    for version in bucket.client.list_object_versions(Bucket=bucket.name).get("Versions", []):
        if contains in version["Key"] and "_archive_ext" not in version["Key"]:
            bucket.client.put_object_retention(Bucket=bucket.name, Key=version["Key"], VersionId=version["VersionId"],
                                               Retention={}, BypassGovernanceRetention=True)


def versions(bucket, contains):
    page = bucket.client.list_object_versions(Bucket=bucket.name)
    return sorted((v["Key"].rsplit("/", 1)[1]) for kind in ("Versions", "DeleteMarkers") for v in page.get(kind, []) if contains in v["Key"])


def test_p2_partitions_and_what_is_written_anew_of_them(db, bucket):
    create_orders(db.conn, months=2, rows=100)
    policy(db, "compliance 7 Years")
    assert db.value("SELECT object_lock FROM archive_ext.policies") == "COMPLIANCE 7 years"
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    locked = ("COMPLIANCE", years(7))
    assert locks(bucket) == {"orders_2024_01.v1.00000.parquet": locked, "orders_2024_01.v1.json": locked}
    rows = db.all("SELECT key, storage, lock_mode, retain_until - now() AS left, legal_hold FROM object_locks('orders')")
    assert {(row.storage, row.lock_mode, round(row.left / timedelta(days=1)), row.legal_hold) for row in rows} == {("cold", *locked, False)}
    assert [row.key for row in rows] == sorted(key.removeprefix("arch/") for key in bucket.keys("orders"))
    db.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8')")
    db.execute("""SELECT update_archived('orders', 'customer_id % 50 = 9', '{"items": "items + 1"}')""")
    assert {version.split(".")[1] for version in locks(bucket)} == {"v1", "v2", "v3"}
    assert set(locks(bucket).values()) == {locked}
    assert db.value("SELECT count(*) FROM archive.orders_all") == 196
    # What is written from now on.
    db.execute("SELECT set_archive_policy('orders', clear => '{object_lock}')")
    db.execute("SELECT archive_partition('orders_2024_02', drop_local => '0')")
    assert {lock for name, lock in locks(bucket).items() if "2024_02" in name} == {(None, None)}
    assert db.value("SELECT count(*) FROM object_locks('orders_2024_02') WHERE lock_mode IS NULL AND retain_until IS NULL") == 2


def test_p2_rows_that_are_archived_one_by_one(db, bucket):
    db.execute("CREATE TABLE ticket (id int PRIMARY KEY, at timestamptz NOT NULL, note text)")
    db.execute("INSERT INTO ticket SELECT n, timestamptz '2024-01-01' + n * interval '1 hour', 'note ' || n FROM generate_series(1, 300) n")
    policy(db, "GOVERNANCE 30 days", "ticket")
    for day in (3, 6, 9):
        db.execute(f"CALL archive_table('ticket', '2024-01-0{day}')")
    assert db.row("SELECT sum(objects) AS merged FROM compact_archive('ticket', min_objects => 2)").merged == 3
    db.execute("SELECT restore_rows('ticket', 'id = 5')")
    db.execute("SELECT erase_rows('ticket', 'id = 6')")
    found = locks(bucket)
    assert len(found) > 8 and set(found.values()) == {("GOVERNANCE", 30)}
    assert db.value("SELECT count(*) FROM archive.ticket_all") == 299


def make_big(db):
    db.execute("CREATE TABLE big (at date NOT NULL, noise text) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE big_2020 PARTITION OF big FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')")
    db.execute("INSERT INTO big SELECT '2020-05-05', (SELECT string_agg(gen_random_uuid()::text, '') FROM generate_series(1, 100) WHERE n > 0)"
               " FROM generate_series(1, 6000) n")


def test_p2_objects_of_many_parts(db, localstack):
    bucket = locking(db, localstack)
    make_big(db)
    policy(db, "COMPLIANCE 2 days", "big")
    db.execute("SELECT archive_partition('big_2020', drop_local => '0')")
    (key,) = bucket.data_keys()
    assert "-" in bucket.client.head_object(Bucket=bucket.name, Key=key)["ETag"], "several parts"
    assert locks(bucket) == {name: ("COMPLIANCE", 2) for name in ("big_2020.v1.00000.parquet", "big_2020.v1.json")}


def test_p2_a_store_that_forgets_the_lock_gets_no_rows(db, moto):
    """moto takes a lock with an upload of several parts, and keeps none."""
    bucket = locking(db, moto)
    make_big(db)
    policy(db, "COMPLIANCE 2 days", "big")
    state, text = error_of(db.execute, "SELECT archive_partition('big_2020', drop_local => '0')")
    assert state == "0A000" and "was written and is not locked" in text, text
    assert db.value("SELECT count(*) FROM big") == 6000 and bucket.manifest_keys() == []


def test_p2_another_class_keeps_the_lock(db, moto):
    bucket = locking(db, moto)
    create_orders(db.conn, months=1, rows=20)
    policy(db, "COMPLIANCE 2 days", glacier_after="1 year", glacier_class="DEEP_ARCHIVE")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    before = locks(bucket)
    # Whatever the policy says by now.
    db.execute("SELECT set_archive_policy('orders', clear => '{object_lock}')")
    lifecycle(db)
    (key,) = bucket.data_keys()
    assert bucket.client.head_object(Bucket=bucket.name, Key=key)["StorageClass"] == "DEEP_ARCHIVE"
    assert locks(bucket) == before and set(before.values()) == {("COMPLIANCE", 2)}


def test_the_stricter_of_storage_and_policy_counts(db, server):
    bucket = locking(db, server, object_lock="GOVERNANCE 100 days")
    create_orders(db.conn, months=3, rows=20)
    said = []
    db.conn.add_notice_handler(lambda diag: said.append(diag.message_primary))
    for month, lock, stricter in [(1, "GOVERNANCE 200 days", ("GOVERNANCE", 200)), (2, "COMPLIANCE 50 days", ("COMPLIANCE", 100)), (3, None, ("GOVERNANCE", 100))]:
        if lock:
            policy(db, lock)
        else:
            db.execute("SELECT set_archive_policy('orders', clear => '{object_lock}')")
        db.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
        assert {found for name, found in locks(bucket).items() if f"2024_0{month}" in name} == {stricter}
    assert [line for line in said if "asks for" in line] == [
        'policy of "public.orders": object_lock: storage "cold" asks for GOVERNANCE 100 days, so that objects are locked as '
        "COMPLIANCE 100 days; name a storage that asks for less, or ask for as much"]
    # The storage's own lock is why, so it is a warning.
    db.execute("SELECT set_archive_policy('orders', expire_after => '60 days')")
    assert "what storage \"cold\" locks as GOVERNANCE 100 days" in said[-1]


def test_what_cannot_be_locked_is_refused_and_the_rows_stay(db, cluster, server):
    create_orders(db.conn, months=1, rows=20)
    db.execute(f"CREATE SERVER files FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    plain = Bucket(server, f"object-lock-{next(_numbers)}")
    plain.create_storage(db.conn, "unsure", checksum="none")
    plain.create_storage(db.conn)
    for setting, why in [
        ("object_lock => 'SOME DAY'", '"SOME DAY" is no mode and period'),
        ("object_lock => 'COMPLIANCE 1 year', storage => 'files'", 'storage "files" is a directory'),
        ("object_lock => 'COMPLIANCE 1 year', storage => 'unsure'", "storage \"unsure\" has checksum 'none'"),
        ("object_lock => 'COMPLIANCE 1 year', expire_after => '11 months'", "11 mons after it was archived S3 still refuses"),
    ]:
        state, text = error_of(db.execute, f"SELECT set_archive_policy('orders', {setting})")
        assert state == "22023" and why in text, text
    assert db.all("SELECT * FROM archive_ext.policies") == []
    policy(db, "COMPLIANCE 1 year", expire_after="1 year", archive_after="1 day")
    assert db.value("SELECT note FROM plan_archive('orders') WHERE action = 'archive'") == (
        "the storage locks the objects when they are written: COMPLIANCE 1 year")
    for storage, why in [("files", "is a directory, which locks no objects"), ("unsure", "has checksum 'none'")]:
        state, text = error_of(db.execute, f"SELECT archive_partition('orders_2024_01', '{storage}', drop_local => '0')")
        assert state == "0A000" and why in text, text
        assert db.value("SELECT count(*) FROM orders") == 20
    assert plain.data_keys() == []


def test_a_bucket_without_object_lock_gets_no_rows(db, moto):
    """LocalStack keeps a retention in any bucket."""
    bucket = Bucket(moto, f"object-lock-{next(_numbers)}")
    bucket.create_storage(db.conn)
    create_orders(db.conn, months=1, rows=20)
    policy(db, "COMPLIANCE 1 year")
    state, text = error_of(db.execute, "SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert state == "0A000" and "Use a bucket that has Object Lock" in text, text
    assert db.value("SELECT count(*) FROM orders") == 20 and bucket.data_keys() == []


def test_legal_holds_of_the_store_follow_the_policy(db, bucket):
    create_orders(db.conn, months=2, rows=20)
    policy(db, "GOVERNANCE 1 day")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', reason => 'case')") == 2
    assert db.all("SELECT DISTINCT legal_hold FROM object_locks('orders')") == [(True,)]
    unlock(bucket)
    key = bucket.data_keys()[0]
    version = bucket.client.head_object(Bucket=bucket.name, Key=key)["VersionId"]
    with pytest.raises(ClientError):
        bucket.client.delete_object(Bucket=bucket.name, Key=key, VersionId=version)
    # The policy says nothing any more; the store still lets go.
    db.execute("SELECT set_archive_policy('orders', clear => '{object_lock}')")
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', false)") == 2
    assert db.all("SELECT DISTINCT legal_hold FROM object_locks('orders')") == [(False,)]
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', reason => 'another')") == 0


def test_a_hold_on_what_is_in_a_bucket_that_locks_nothing(db, server):
    """The policy is about new objects; those of before are held by the catalog."""
    Bucket(server, f"object-lock-{next(_numbers)}").create_storage(db.conn, "old")
    create_orders(db.conn, months=1, rows=20)
    db.execute("SELECT archive_partition('orders_2024_01', 'old', drop_local => '0')")
    locking(db, server)
    policy(db, "GOVERNANCE 1 day")
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', reason => 'case')") == 0
    assert db.value("SELECT count(*) FROM archive_ext.legal_holds WHERE released_at IS NULL") == 1


def test_p2_what_has_expired_is_deleted_when_its_lock_is_over(db, bucket):
    create_orders(db.conn, months=1, rows=10)
    policy(db, "GOVERNANCE 1 year", expire_after="1 year", max_attempts=1)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("UPDATE archive_ext.partition SET archived_at = now() - interval '2 years'")
    lifecycle(db)
    db.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")
    until = db.value("SELECT to_char(min(retain_until) AT TIME ZONE 'UTC', 'YYYY-MM-DD') FROM object_locks('orders')")
    before = versions(bucket, "orders")
    for _ in range(3):
        lifecycle(db)
        job = db.row("SELECT status, attempts, error, error_code, next_attempt_at - now() AS wait FROM archive_ext.archival_job WHERE operation = 'expire'")
        assert (job.status, job.attempts, job.error_code) == ("pending", 0, "55000")
        assert "the storage locks it" in job.error and f"retained until {until}T" in job.error and "mode GOVERNANCE" in job.error
        assert timedelta(0) < job.wait <= timedelta(hours=1)
        db.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    # It waits, and is not late.
    db.execute("UPDATE archive_ext.archival_job SET started_at = now() - interval '3 days' WHERE operation = 'expire'")
    assert db.all("SELECT alert, detail FROM archive_ext.alerts") == []
    assert versions(bucket, "orders") == before
    assert db.value("SELECT deleted_at FROM archive_ext.deletions") is None
    unlock(bucket)
    lifecycle(db)
    assert versions(bucket, "orders") == []
    assert db.value("SELECT deleted_at FROM archive_ext.deletions") is not None


def test_p2_what_was_erased_is_deleted_when_its_lock_is_over(db, bucket):
    create_orders(db.conn, months=1, rows=100)
    policy(db, "GOVERNANCE 1 year", max_attempts=1)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)")
    for _ in range(2):
        lifecycle(db)
        db.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    job = db.row("SELECT status, attempts, error FROM archive_ext.archival_job WHERE operation = 'erase'")
    assert (job.status, job.attempts) == ("pending", 0) and "mode GOVERNANCE" in job.error
    assert db.all("SELECT alert FROM archive_ext.alerts") == []
    assert db.value("SELECT count(*) FROM archive.orders_all WHERE customer_id % 50 = 8") == 0
    assert len(versions(bucket, "orders_2024_01.v1")) == 2
    # It was said once that it goes, and it is there still.
    assert db.value("SELECT removed FROM archive_ext.chains") == 0 and len([key for key in bucket.keys() if "/removed/" in key]) == 1
    unlock(bucket, "orders_2024_01.v1")
    lifecycle(db)
    assert db.value("SELECT removed FROM archive_ext.chains") == 1 and len([key for key in bucket.keys() if "/removed/" in key]) == 1
    assert db.all("SELECT * FROM verify_chain('cold')") == []
    assert versions(bucket, "orders_2024_01") == ["orders_2024_01.v2.00000.parquet", "orders_2024_01.v2.json"]
    assert db.value("SELECT deleted_versions FROM archive_ext.erasures") == 2
    assert set(locks(bucket).values()) == {("GOVERNANCE", years(1))}


def test_garbage_that_is_locked_leaves_its_version(db, bucket):
    """A delete without a version leaves a marker, which no lock forbids; the version stays."""
    create_orders(db.conn, months=1, rows=20)
    policy(db, "COMPLIANCE 1 day")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT update_archived('orders', 'true', '{\"items\": \"items + 1\"}')")
    db.execute("SET archive_ext.garbage_retention = 0; SELECT pg_sleep(1.1)")
    rows = db.all("SELECT * FROM collect_garbage('cold', older_than => '0', dry_run => false)")
    assert len(rows) == 2 and all(row.removed for row in rows)
    assert [name for name in versions(bucket, "v1")] == sorted(2 * ["orders_2024_01.v1.00000.parquet"] + 2 * ["orders_2024_01.v1.json"])
    assert db.value("SELECT count(*) FROM archive.orders_all") == 20


def test_a_second_storage_has_a_lock_of_its_own(db, server):
    first = locking(db, server)
    second = Bucket(server, f"object-lock-{next(_numbers)}", locks=True)
    second.create_storage(db.conn, "far", object_lock="GOVERNANCE 5 days")
    create_orders(db.conn, months=1, rows=20)
    policy(db, "COMPLIANCE 9 days", copy_storage="far")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert (set(locks(first).values()), set(locks(second).values())) == ({("COMPLIANCE", 9)}, {("GOVERNANCE", 5)})
    assert db.all("SELECT storage, lock_mode, count(*) FROM object_locks('orders') GROUP BY 1, 2 ORDER BY 1") == [
        ("cold", "COMPLIANCE", 2), ("far", "GOVERNANCE", 2)]
    # What is put back into the first is locked as the policy says.
    key = first.data_keys()[0]
    first.client.delete_object(Bucket=first.name, Key=key)
    assert db.value("SELECT repaired FROM repair_archive('orders')")
    assert set(locks(first).values()) == {("COMPLIANCE", 9)}


def test_old_archives_where_nothing_can_be_locked_are_erased_and_corrected(db, cluster, moto):
    """The policy is about the storage that it names; what is elsewhere had no lock, and has none."""
    db.execute(f"CREATE SERVER files FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    create_orders(db.conn, months=2, rows=100)
    db.execute("SELECT archive_partition('orders_2024_01', 'files', drop_local => '0')")
    bucket = locking(db, moto)
    policy(db, "COMPLIANCE 1 day")
    assert db.value("SELECT rows_of_archive FROM erase_rows('orders', 'customer_id % 50 = 8', at_once => true)") > 0
    lifecycle(db)
    assert db.value("SELECT deleted_at FROM archive_ext.erasures") is not None
    db.execute("SELECT archive_partition('orders_2024_02', drop_local => '0')")
    assert db.all("SELECT storage, lock_mode, count(*) FROM object_locks('orders') GROUP BY 1, 2 ORDER BY 1") == [
        ("cold", "COMPLIANCE", 2), ("files", None, 2)]
    assert set(locks(bucket).values()) == {("COMPLIANCE", 1)}
