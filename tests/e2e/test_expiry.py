"""expire_after, and nothing else, deletes what was archived: announced, all versions, never under a hold, with a certificate (P2)."""

import itertools
import json

import psycopg
import pytest
from botocore.exceptions import ClientError

from harness.orders import create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture(params=["localstack", "moto"])
def server(request):
    """Versions and locks are kept by two implementations."""
    return request.getfixturevalue(request.param)


@pytest.fixture
def versioned(server):
    return Bucket(server, f"expiry-{next(_numbers)}").keep_versions()


@pytest.fixture
def orders(db, versioned):
    versioned.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=100)
    for month in (1, 2):
        db.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    db.execute("SELECT set_archive_policy('orders', expire_after => '7 years', storage => 'cold')")
    db.bucket = versioned
    return db


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")


def age(db, partition, years=8):
    db.execute("UPDATE archive_ext.partition SET archived_at = now() - make_interval(years => %s) WHERE partition_name = %s", [years, partition])


def grace_over(db):
    """As an administrator's clock would have it a week later."""
    db.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")


def versions(bucket, contains):
    page = bucket.client.list_object_versions(Bucket=bucket.name)
    assert not page["IsTruncated"]
    return sorted((v["Key"], v["VersionId"]) for kind in ("Versions", "DeleteMarkers") for v in page.get(kind, []) if contains in v["Key"])


def explained(db, partition):
    return db.row("SELECT next_step, due, reason, freed_by FROM explain_lifecycle('orders') WHERE partition = %s", [f"public.{partition}"])


def unfinished(db):
    return db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'cancelled')")


def test_p2_what_expires_is_announced_then_deleted_in_every_version(orders):
    # An older version of it, and a delete marker.
    orders.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    orders.execute("UPDATE orders SET items = items + 1 WHERE created_at < '2024-02-01'")
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    key = next(key for key in orders.bucket.data_keys() if "orders_2024_01.v2" in key)
    body = orders.bucket.read(key)
    orders.bucket.client.delete_object(Bucket=orders.bucket.name, Key=key)
    orders.bucket.write(key, body)
    assert len(versions(orders.bucket, "orders_2024_01.v2.0")) == 3
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.expiring") == 0
    age(orders, "orders_2024_01")
    lifecycle(orders)
    (announced,) = orders.all("SELECT partition_name, rows, held_for, local_copy, delete_after - announced_at AS grace FROM archive_ext.expiring")
    assert (announced.partition_name, announced.rows, announced.held_for, announced.local_copy, announced.grace.days) == (
        "orders_2024_01", 100, None, None, 7)
    assert "all its objects will be deleted" in explained(orders, "orders_2024_01").reason
    planned = orders.row("SELECT action, archived_bytes, note FROM plan_archive('orders') WHERE partitions = 'public.orders_2024_01'")
    assert planned.action == "expire" and planned.archived_bytes > 0 and planned.note.startswith("announced")
    before = versions(orders.bucket, "orders_2024_01")
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == before
    assert orders.value("SELECT count(*) FROM archive.orders_all") == 300

    digest = orders.value("SELECT digest FROM archive_ext.partition WHERE partition_name = 'orders_2024_01'")
    sums = dict(orders.all("SELECT key, sha256 FROM archive_ext.objects WHERE partition_name = 'orders_2024_01'"))
    grace_over(orders)
    lifecycle(orders)
    assert not unfinished(orders)
    assert versions(orders.bucket, "orders_2024_01") == []
    assert len(versions(orders.bucket, "orders_2024_02")) == 2, "the other partition stays"
    assert orders.value("SELECT count(*) FROM archive.orders_all") == 200
    assert not orders.exists("archive.orders_2024_01")
    (certificate,) = orders.all("SELECT * FROM archive_ext.deletions")
    assert (certificate.partition_name, certificate.storage, certificate.location, certificate.rows) == (
        "public.orders_2024_01", "cold", orders.bucket.location, 100)
    assert (certificate.expire_after.days, certificate.policy_owner, certificate.withdrawn_by) == (7 * 365, "postgres", "postgres")
    assert certificate.digest == digest and certificate.deleted_at >= certificate.withdrawn_at >= certificate.announced_at
    assert {o["key"]: o["sha256"] for o in certificate.objects} == sums and len(sums) == 2
    assert [key.rsplit("/", 1)[1] for key in certificate.manifests] == ["orders_2024_01.v1.json", "orders_2024_01.v2.json"]
    # Two manifests, v1, and v2 twice: the marker is none.
    assert (certificate.deleted_versions, certificate.kept) == (5, [])
    assert orders.value("SELECT count(*) FROM archive_ext.objects WHERE partition_name = 'orders_2024_01'") == 0
    events = [row[0] for row in orders.all("SELECT event FROM archive_ext.events WHERE partition_name = 'public.orders_2024_01' ORDER BY at")]
    assert events[-3:] == ["expiring", "expired", "deleted"]
    # Nothing is wrong with what is left, and the name is free.
    assert orders.all("SELECT * FROM audit_storage('cold')") == []
    assert orders.all("SELECT * FROM check_consistency()") == []
    orders.execute("CREATE TABLE orders_2024_01 PARTITION OF orders FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2024-02-01 00:00+00')")
    orders.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-01-05', 1, 1)")
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert orders.value("SELECT count(*) FROM archive.orders_2024_01") == 1


def test_p2_nothing_else_expires(orders):
    """Not without expire_after, whatever else passed; nor by a rehearsal's clock."""
    age(orders, "orders_2024_01")
    orders.execute("UPDATE archive_ext.partition SET removal_time = now() - interval '1 year'")
    before = versions(orders.bucket, "orders")
    orders.execute("SELECT set_archive_policy('orders', clear => '{expire_after}', glacier_after => '1 day')")
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.expiring") == 0
    # Of the other one alone the end would come, in 2040.
    age(orders, "orders_2024_01", 0)
    orders.execute("SELECT set_archive_policy('orders', clear => '{glacier_after}', expire_after => '7 years')")
    with orders.connect() as session:
        session.execute("SET archive_ext.now = '2040-01-01'")
        session.execute("CALL run_lifecycle()")
        session.execute("SET archive_ext.now = '2041-01-01'")
        session.execute("CALL run_lifecycle()")
    assert orders.value("SELECT count(*) FROM archive_ext.expiring") == 0
    # What moved to an archive class is a version more; none is gone.
    assert set(before) < set(versions(orders.bucket, "orders"))
    assert orders.value("SELECT sum(rows) FROM archive_ext.partitions WHERE status = 'ARCHIVED'") == 200


def test_p2_a_hold_or_another_policy_keeps_what_has_expired(orders):
    for partition in ("orders_2024_01", "orders_2024_02"):
        age(orders, partition)
    orders.execute("SELECT legal_hold('orders_2024_01', reason => 'case 1')")
    lifecycle(orders)
    grace_over(orders)
    before = versions(orders.bucket, "orders_2024_01")
    assert "under a legal hold: case 1" in explained(orders, "orders_2024_01").reason
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == before
    assert versions(orders.bucket, "orders_2024_02") == []
    assert [row.held_for for row in orders.all("SELECT held_for FROM archive_ext.expiring")] == ["case 1"]
    # Another policy takes the announcement back; it is announced anew.
    orders.execute("SELECT set_archive_policy('orders', expire_after => '10 years')")
    orders.execute("SELECT legal_hold('orders_2024_01', false)")
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.expiring") == 0
    orders.execute("SELECT set_archive_policy('orders', expire_after => '7 years')")
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.expiring WHERE delete_after > now() + interval '6 days'") == 1
    assert versions(orders.bucket, "orders_2024_01") == before
    # What comes back does not expire.
    grace_over(orders)
    orders.execute("SELECT reattach_partition('orders_2024_01')")
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.expiring") == 0
    assert orders.value("SELECT count(*) FROM orders WHERE created_at < '2024-02-01'") == 100


def test_p2_a_hold_that_comes_after_the_partition_left(orders):
    """The objects are still there: they stay until it is released."""
    age(orders, "orders_2024_01")
    lifecycle(orders)
    grace_over(orders)
    job = None
    with orders.connect() as session:
        assert session.execute("SELECT archive_ext.schedule_jobs('orders')").fetchone()[0] == 1
        job = session.execute("SELECT archive_ext.next_job('orders')").fetchone()[0]
        assert tuple(session.execute("SELECT * FROM archive_ext.lifecycle_step(%s)", [job]).fetchone()) == (True, "withdrawn")
    before = versions(orders.bucket, "orders_2024_01")
    orders.execute("SELECT legal_hold('orders_2024_01', reason => 'late')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is under a legal hold"):
        orders.execute("SELECT archive_ext.lifecycle_step(%s)", [job])
    assert versions(orders.bucket, "orders_2024_01") == before
    orders.execute("SELECT legal_hold('orders_2024_01', false)")
    assert tuple(orders.row("SELECT * FROM archive_ext.lifecycle_step(%s)", [job])) == (False, "done")
    assert versions(orders.bucket, "orders_2024_01") == []


def test_p2_a_deletion_that_was_cancelled_or_given_up(orders):
    """Nothing begins it again but retry_job; and it goes on where it was."""
    age(orders, "orders_2024_01")
    lifecycle(orders)
    grace_over(orders)
    assert orders.value("SELECT archive_ext.schedule_jobs('orders')") == 1
    job = orders.value("SELECT job_id FROM archive_ext.jobs WHERE operation = 'expire'")
    orders.execute("SELECT cancel_job(%s)", [job])
    lifecycle(orders)
    assert orders.value("SELECT count(*) FROM archive_ext.jobs WHERE operation = 'expire'") == 1
    assert orders.value("SELECT count(*) FROM archive.orders_2024_01") == 100
    assert "is cancelled" in explained(orders, "orders_2024_01").reason
    orders.execute("SELECT retry_job(%s)", [job])
    # It leaves the archive, and cannot be deleted: the storage is another place by now.
    orders.execute("SELECT archive_ext.next_job('orders')")
    assert orders.row("SELECT * FROM archive_ext.lifecycle_step(%s)", [job]).phase == "withdrawn"
    orders.execute("ALTER SERVER cold OPTIONS (SET location 's3://elsewhere/x')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is another place"):
        orders.execute("SELECT archive_ext.lifecycle_step(%s)", [job])
    orders.execute("SELECT cancel_job(%s)", [job])
    orders.execute(f"ALTER SERVER cold OPTIONS (SET location '{orders.bucket.location}')")
    assert len(versions(orders.bucket, "orders_2024_01")) == 2
    # Without the policy, too: it has left the archive by it.
    orders.execute("SELECT drop_archive_policy('orders')")
    orders.execute("SELECT retry_job(%s)", [job])
    lifecycle(orders)
    assert versions(orders.bucket, "orders_2024_01") == []
    assert orders.row("SELECT deleted_at IS NOT NULL, deleted_versions FROM archive_ext.deletions") == (True, 2)


def test_p2_the_same_rows_archived_again_while_the_old_ones_are_deleted(orders):
    """They are exported anew: nothing that is about to be deleted is taken up."""
    orders.execute("CREATE TABLE kept AS SELECT * FROM archive.orders_2024_01")
    age(orders, "orders_2024_01")
    lifecycle(orders)
    grace_over(orders)
    orders.execute("SELECT archive_ext.schedule_jobs('orders')")
    job = orders.value("SELECT archive_ext.next_job('orders')")
    assert orders.row("SELECT * FROM archive_ext.lifecycle_step(%s)", [job]).phase == "withdrawn"
    orders.execute("CREATE TABLE orders_2024_01 PARTITION OF orders FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2024-02-01 00:00+00')")
    orders.execute("INSERT INTO orders SELECT * FROM kept")
    orders.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    assert orders.row("SELECT * FROM archive_ext.lifecycle_step(%s)", [job]) == (False, "done")
    assert orders.value("SELECT count(*) FROM archive.orders_2024_01") == 100
    assert orders.all("SELECT result FROM verify_archive('orders_2024_01') WHERE verified_at IS NULL") == []
    assert {key.rsplit("/", 1)[1].split(".")[1] for key, _ in versions(orders.bucket, "orders_2024_01")} == {"v2"}
    assert orders.all("SELECT * FROM audit_storage('cold')") == []


def test_p2_what_is_kept_locally_does_not_expire_yet(db, versioned):
    versioned.create_storage(db.conn)
    create_orders(db.conn, months=2, rows=10)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '100 years')")
    db.execute("SELECT set_archive_policy('orders', expire_after => '1 day', storage => 'cold')")
    age(db, "orders_2024_01")
    lifecycle(db)
    grace_over(db)
    lifecycle(db)
    assert db.value("SELECT count(*) FROM archive_ext.expiring WHERE local_copy IS NOT NULL") == 1
    assert len(versions(versioned, "orders_2024_01")) == 2


def test_p2_what_the_store_locks_stays_and_is_told(db, server):
    bucket = Bucket(server, f"expiry-locked-{next(_numbers)}", locks=True)
    bucket.create_storage(db.conn, object_lock="GOVERNANCE 1 year")
    create_orders(db.conn, months=1, rows=10)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT set_archive_policy('orders', expire_after => '1 day', storage => 'cold')")
    age(db, "orders_2024_01")
    lifecycle(db)
    grace_over(db)
    before = versions(bucket, "orders_2024_01")
    lifecycle(db)
    (job,) = unfinished(db)
    assert job.operation == "expire" and job.error, job
    assert versions(bucket, "orders_2024_01") == before
    assert db.value("SELECT deleted_at FROM archive_ext.deletions") is None
    with pytest.raises(ClientError):
        bucket.client.delete_object(Bucket=bucket.name, Key=before[0][0], VersionId=before[0][1])


@pytest.mark.parametrize("store", ["file", "s3_signed"])
def test_p2_stores_without_versions(db, cluster, request, store):
    if store == "file":
        path = cluster.storage / db.name
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{path}')")
        db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'; SET archive_ext.default_storage = 'cold'")
        keys = lambda: [str(file) for file in path.rglob("*orders_2024*") if file.is_file()]
    else:
        bucket = request.getfixturevalue(store)
        bucket.create_storage(db.conn)
        keys = lambda: bucket.keys("orders_2024")
    create_orders(db.conn, months=1, rows=10)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("SELECT set_archive_policy('orders', expire_after => '1 day', storage => 'cold')")
    age(db, "orders_2024_01")
    assert len(keys()) == 2
    lifecycle(db)
    grace_over(db)
    lifecycle(db)
    assert not unfinished(db) and keys() == []
    assert db.row("SELECT deleted_versions, kept FROM archive_ext.deletions") == (2, [])


def test_counts_do_not_miss_what_expired(orders):
    orders.execute("SELECT * FROM reconcile_counts('orders')")
    age(orders, "orders_2024_01")
    lifecycle(orders)
    grace_over(orders)
    lifecycle(orders)
    orders.execute("SELECT * FROM reconcile_counts('orders')")
    assert orders.value("SELECT sum(missing) FROM archive_ext.month_counts") == 0
    assert json.dumps(orders.value("SELECT array_agg(alert) FROM archive_ext.alerts")) in ("null", "[]")


def test_each_sees_the_certificates_of_what_he_may_read(orders, role):
    stranger, reader = role("stranger"), role("reader")
    orders.execute(f"GRANT SELECT ON orders TO {reader}")
    age(orders, "orders_2024_01")
    age(orders, "orders_2024_02")
    lifecycle(orders)
    orders.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second' WHERE partition_id = (SELECT min(partition_id) FROM archive_ext.expiry)")
    lifecycle(orders)
    seen = "SELECT (SELECT count(*) FROM archive_ext.expiring), (SELECT count(*) FROM archive_ext.deletions)"
    with orders.connect(stranger) as session:
        assert tuple(session.execute(seen).fetchone()) == (0, 0)
    with orders.connect(reader) as session:
        assert tuple(session.execute(seen).fetchone()) == (1, 1)
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SET archive_ext.expire_grace = 0")
