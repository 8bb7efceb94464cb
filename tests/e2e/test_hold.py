"""legal_hold: while one lasts nothing is deleted of what was archived, in whatever version (P2)."""

import itertools
import time

import psycopg
import pytest
from botocore.exceptions import ClientError

from harness.orders import create_orders
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture
def files(db, cluster):
    path = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{path}')")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    db.execute("SET archive_ext.default_storage = 'cold'; SET archive_ext.garbage_retention = 0")
    return path


def collect(db):
    """Times of garbage are in whole seconds."""
    time.sleep(1.1)
    db.execute("SET archive_ext.garbage_retention = 0")
    return db.all("SELECT * FROM collect_garbage('cold', older_than => '0', dry_run => false)")


def keys(path):
    return sorted(str(file.relative_to(path)) for file in path.rglob("*.*") if file.is_file() and "_archive_ext" not in str(file))


def changed_and_archived_again(db):
    create_orders(db.conn, months=2, rows=200)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")


def archive_again(db):
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute("UPDATE orders SET items = items + 1 WHERE created_at < '2024-02-01'")
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")


def test_p2_old_versions_of_a_held_partition_stay(db, files):
    changed_and_archived_again(db)
    first = keys(files)
    (held,) = db.all("SELECT * FROM legal_hold('orders_2024_01', reason => ' case 4711 ')")
    assert (held.partition, held.held_for, held.objects_held_by_store) == ("public.orders_2024_01", "case 4711", 0)
    # Once more is no other hold; another case is.
    db.execute("SELECT legal_hold('orders_2024_01', true, 'case 4711')")
    assert db.value("SELECT held_for FROM legal_hold('orders_2024_01', true, 'audit')") == "case 4711; audit"
    archive_again(db)
    rows = collect(db)
    assert set(first) <= set(keys(files))
    assert {row.detail for row in rows} == {"under legal hold: case 4711; audit"} and not any(row.removed for row in rows)
    assert db.all("SELECT table_name::text, partition_name, reason, released_at FROM archive_ext.legal_holds ORDER BY set_at") == [
        ("orders", "orders_2024_01", "case 4711", None), ("orders", "orders_2024_01", "audit", None)]
    db.execute("SELECT legal_hold('orders_2024_01', false, 'case 4711')")
    assert not any(row.removed for row in collect(db))
    (released,) = db.all("SELECT * FROM legal_hold('orders_2024_01', false)")
    assert released.held_for is None
    assert db.all("SELECT * FROM legal_hold('orders_2024_01', false)") == []
    assert sorted(row.key for row in collect(db) if row.removed) == first
    assert db.value("SELECT count(*) FROM archive_ext.legal_holds WHERE released_by = 'postgres'") == 2
    events = db.all("SELECT event, details ->> 'reason' FROM archive_ext.events WHERE event IN ('held', 'released') ORDER BY at")
    assert events == [("held", "case 4711"), ("held", "audit"), ("released", "case 4711"), ("released", "all")]


def test_p2_replaced_objects_of_held_rows_stay(db, files):
    db.execute("CREATE TABLE ticket (id bigint PRIMARY KEY, closed_at timestamptz, note text)")
    db.execute("INSERT INTO ticket SELECT n, '2024-01-01', md5(n::text) FROM generate_series(1, 600) n")
    for _ in range(3):
        db.execute("SELECT * FROM archive_table_batch('ticket', '2030-01-01', batch_rows => 100)")
    db.execute("SELECT legal_hold('ticket', reason => 'case 1')")
    before = [key for key in keys(files) if key.endswith(".parquet")]
    assert len(before) == 3
    db.execute("SELECT compact_archive('ticket', min_objects => 2)")
    assert not any(row.removed for row in collect(db))
    assert set(before) <= set(keys(files))
    db.execute("SELECT restore_rows('ticket', 'id <= 10')")
    assert not any(row.removed for row in collect(db))
    db.execute("SELECT legal_hold('ticket', false)")
    # The last restore may not have been committed, for all an import knows: what it replaced waits for the next batch.
    db.execute("SELECT * FROM archive_table_batch('ticket', '2030-01-01', batch_rows => 100)")
    assert set(before) <= {row.key for row in collect(db) if row.removed}
    assert db.value("SELECT count(*) FROM archive.ticket_all") == 600


def test_owners_hold_and_administrators_release(db, files, role):
    owner, stranger, admin = role("owner"), role("stranger"), role("admin")
    db.execute(f"GRANT archive_ext_admin TO {admin}; GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    with db.connect(owner) as session:
        create_orders(session, months=1, rows=10)
        session.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
        with pytest.raises(psycopg.errors.InvalidParameterValue, match="a legal hold needs a reason"):
            session.execute("SELECT legal_hold('orders_2024_01')")
        session.execute("SELECT legal_hold('orders_2024_01', reason => 'case')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied to release a legal hold"):
            session.execute("SELECT legal_hold('orders_2024_01', false)")
    with db.connect(stranger) as session:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute("SELECT legal_hold('orders_2024_01', reason => 'mine')")
        assert session.execute("SELECT count(*) FROM archive_ext.legal_holds").fetchone()[0] == 0
    with db.connect(admin) as session:
        session.execute("SELECT legal_hold('orders_2024_01', reason => 'another case')")
        session.execute("SELECT legal_hold('orders_2024_01', false)")
        assert session.execute("SELECT count(*) FROM archive_ext.legal_holds WHERE released_at IS NULL").fetchone()[0] == 0
    # Its objects are still there when it has come back.
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert db.value("SELECT held_for FROM legal_hold('public.orders_2024_01', reason => 'late')") == "late"
    assert db.value("SELECT count(*) FROM legal_hold('orders_2024_01', false)") == 1
    with pytest.raises(psycopg.errors.UndefinedObject):
        db.execute("SELECT legal_hold('orders_2024_02', reason => 'of what')")


def test_p2_a_hold_that_is_set_while_garbage_is_collected(db, files):
    """Either the collection is over, or it did not begin."""
    changed_and_archived_again(db)
    with db.connect() as other:
        other.execute("SET archive_ext.garbage_retention = 0")
        with other.transaction():
            other.execute("SELECT * FROM collect_garbage('cold', older_than => '0', dry_run => false)")
            with pytest.raises(psycopg.errors.ObjectInUse, match="another session collects the garbage"):
                db.execute("SELECT legal_hold('orders_2024_01', reason => 'case')")
        with db.conn.transaction():
            db.execute("SELECT legal_hold('orders_2024_01', reason => 'case')")
            with pytest.raises(psycopg.errors.ObjectInUse):
                other.execute("SELECT * FROM collect_garbage('cold', older_than => '0', dry_run => false)")


@pytest.mark.parametrize("server", ["localstack", "moto"])
def test_the_store_holds_the_objects_too(db, request, server):
    """Where the storage locks objects S3 itself refuses to delete the versions that are held; in two implementations."""
    bucket = Bucket(request.getfixturevalue(server), f"locked-{next(_numbers)}", locks=True)
    bucket.create_storage(db.conn, object_lock="GOVERNANCE 1 day")
    create_orders(db.conn, months=1, rows=50)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")

    def status():
        found = {}
        for key in bucket.data_keys() + bucket.manifest_keys():
            try:
                found[key] = bucket.client.get_object_legal_hold(Bucket=bucket.name, Key=key)["LegalHold"].get("Status", "OFF")
            except ClientError:
                found[key] = "OFF"
        return found

    assert set(status().values()) == {"OFF"}
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', reason => 'case')") == len(status()) == 2
    assert set(status().values()) == {"ON"}
    key = bucket.data_keys()[0]
    version = bucket.client.head_object(Bucket=bucket.name, Key=key)["VersionId"]
    with pytest.raises(ClientError, match="AccessDenied|Access Denied"):
        bucket.client.delete_object(Bucket=bucket.name, Key=key, VersionId=version, BypassGovernanceRetention=True)
    db.execute("SELECT legal_hold('orders_2024_01', true, 'another')")
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', false, 'case')") == 0
    assert set(status().values()) == {"ON"}
    assert db.value("SELECT objects_held_by_store FROM legal_hold('orders_2024_01', false)") == 2
    assert set(status().values()) == {"OFF"}
    assert db.value("SELECT count(*) FROM archive.orders") == 50


def test_a_store_that_refuses_leaves_no_hold_in_the_catalog(db, s3):
    """A bucket without Object Lock whose storage says that it locks."""
    s3.create_storage(db.conn)
    create_orders(db.conn, months=1, rows=50)
    db.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute("ALTER SERVER cold OPTIONS (ADD object_lock 'GOVERNANCE 1 day')")
    with pytest.raises(psycopg.Error):
        db.execute("SELECT legal_hold('orders_2024_01', reason => 'case')")
    assert db.value("SELECT count(*) FROM archive_ext.legal_holds") == 0
