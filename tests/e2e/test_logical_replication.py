"""Logical replication: publishers go on, subscribers are not stopped by what the archive freezes. docs/replication.md says the same."""

import psycopg
import pytest

from harness.cluster import Cluster, Database, wait_until
from harness.orders import archive

PREREQUISITE = psycopg.errors.ObjectNotInPrerequisiteState
LOGICAL = ["wal_level=logical", "max_wal_senders=8", "max_replication_slots=8", "wal_retrieve_retry_interval=200ms"]
TABLES = """
    CREATE TABLE orders (id bigint, at date, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
    CREATE TABLE orders_1 PARTITION OF orders FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
    CREATE TABLE orders_2 PARTITION OF orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
    CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);"""


@pytest.fixture(scope="module")
def clusters():
    pair = [Cluster(*LOGICAL), Cluster(*LOGICAL)]
    yield pair
    for cluster in pair:
        cluster.stop()


@pytest.fixture(params=[False, True], ids=["by leaf", "by root"])
def pair(request, clusters):
    """A publisher and its subscriber, both with an archive of their own, in step."""
    name = f"logical_{int(request.param)}"
    publisher, subscriber = (Database(cluster, name) for cluster in clusters)
    for db in (publisher, subscriber):
        db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
                   f" OPTIONS (location 'file://{db.cluster.storage}/{name}')")
        db.execute(f"ALTER DATABASE {name} SET archive_ext.default_storage = 'cold'")
        db.execute(TABLES)
        db.conn = db.connect()
    publisher.execute("INSERT INTO orders SELECT n, date '2024-01-01' + n % 60, 'order ' || n FROM generate_series(1, 300) n;"
                      "INSERT INTO audit SELECT n, timestamptz '2024-01-01' + n * interval '1 day', 'audit ' || n FROM generate_series(1, 60) n")
    via_root = "true" if request.param else "false"
    publisher.execute(f"CREATE PUBLICATION pub FOR TABLE orders, audit WITH (publish_via_partition_root = {via_root})")
    # The walsender of a connection string without slot creation: both clusters are on this machine, by sockets.
    subscriber.execute(f"CREATE SUBSCRIPTION {name} CONNECTION 'host={publisher.cluster.dir} user=postgres dbname={name}' PUBLICATION pub")
    in_step(publisher, subscriber)
    yield publisher, subscriber
    subscriber.execute(f"DROP SUBSCRIPTION {name}")
    publisher.drop()
    subscriber.drop()


def rows(db, relation):
    return db.all(f"SELECT * FROM {relation} ORDER BY 1, 2")


def in_step(publisher, subscriber, relations=("orders", "audit")):
    for relation in relations:
        wait_until(lambda: rows(subscriber, relation) == rows(publisher, relation), 30, f"{relation} to be alike")


def synced(publisher, subscriber):
    """Waits until the subscriber has got what is sent for now."""
    publisher.execute("CREATE TABLE IF NOT EXISTS unpublished (n int); INSERT INTO unpublished VALUES (1)")
    lsn = publisher.value("SELECT pg_current_wal_lsn()")
    wait_until(lambda: publisher.value("SELECT bool_and(confirmed_flush_lsn >= %s) FROM pg_replication_slots", [lsn]), 30, "the subscriber")


def test_a_publisher_archives(pair):
    publisher, subscriber = pair
    before = rows(publisher, "archive.orders_all") if publisher.exists("archive.orders_all") else rows(publisher, "orders")

    # The partition leaves the table by DETACH, of which nothing is sent: the subscriber keeps the rows.
    archive(publisher, "orders_1", drop_local="0")
    assert rows(publisher, "archive.orders_all") == before
    publisher.execute("INSERT INTO orders VALUES (9001, '2024-02-05', 'late but live')")
    synced(publisher, subscriber)
    assert subscriber.value("SELECT count(*) FROM orders") == len(before) + 1
    assert subscriber.value("SELECT count(*) FROM orders_1") == publisher.value("SELECT count(*) FROM archive.orders")

    # Batches delete rows, and DELETE is sent: they are gone at the subscriber, too.
    publisher.execute("CALL archive_table('audit', '2024-02-01')")
    assert publisher.value("SELECT count(*) FROM archive.audit_all") == 60
    in_step(publisher, subscriber, ["audit"])
    assert subscriber.value("SELECT count(*) FROM audit") < 60

    # Coming back, rows are loaded before the partition is attached, frozen: nothing is sent, and nothing is there twice.
    publisher.execute("SELECT reattach_partition('orders_1', writable => true)")
    synced(publisher, subscriber)
    assert rows(publisher, "orders") == rows(subscriber, "orders")

    # Rows that restore_rows puts back are inserted, and sent.
    publisher.execute("SELECT restore_rows('audit', 'true')")
    in_step(publisher, subscriber, ["audit"])


def test_a_subscriber_does_not_freeze_what_it_gets(pair):
    publisher, subscriber = pair
    calls = ["SELECT archive_partition('orders_1')", "SELECT archive_partition('orders_1', dry_run => true)",
             "SELECT archive_partitions('{orders_1,orders_2}')", "CALL archive_partition_steps('{orders_1}')",
             "SELECT archive_family('orders_1')", "CALL archive_family_steps('orders_1')",
             "SELECT set_lifecycle('orders_1', 'WARM')", "SELECT set_lifecycle('orders_1', 'ARCHIVED')",
             "CALL merge_partitions_steps('{orders_1,orders_2}')",
             "CALL split_partition_steps('orders_1', 'day')"]
    for call in calls:
        with pytest.raises(PREREQUISITE) as refused:
            subscriber.execute(call)
        diag = refused.value.diag
        assert "logical replication" in diag.message_primary, call
        assert f"subscription {subscriber.name}" in diag.message_detail and "allow_subscribed" in diag.message_hint, call
    # Nothing was frozen, so nothing stops.
    publisher.execute("UPDATE orders SET note = 'changed' WHERE id = 5; INSERT INTO orders VALUES (9002, '2024-01-05', 'late')")
    in_step(publisher, subscriber)

    # Rows that are archived one by one do not freeze anything. Changes of archived rows do not arrive: the row is not there.
    subscriber.execute("CALL archive_table('audit', '2024-02-01')")
    archived = rows(subscriber, "archive.audit")
    publisher.execute("UPDATE audit SET note = 'changed at the publisher' WHERE id IN (3, 59); DELETE FROM audit WHERE id = 4;"
                      "INSERT INTO audit VALUES (100, '2024-01-05', 'late')")
    synced(publisher, subscriber)
    assert rows(subscriber, "archive.audit") == archived
    assert subscriber.value("SELECT note FROM audit WHERE id = 59") == "changed at the publisher"
    assert subscriber.value("SELECT note FROM audit WHERE id = 100") == "late"

    # Who knows that no row changes any more may.
    archive(subscriber, "orders_1", allow_subscribed=True, drop_local="0")
    subscriber.execute("CALL archive_partition_steps('{orders_2}', drop_local => '0', allow_subscribed => true)")
    assert subscriber.value("SELECT count(*) FROM orders") == 0
    assert rows(subscriber, "archive.orders_all") == rows(publisher, "orders")


def test_a_session_may_allow_it(pair):
    _, subscriber = pair
    subscriber.execute("SET archive_ext.allow_subscribed = on")
    assert subscriber.value("SELECT set_lifecycle('orders_1', 'WARM')") == "WARM_202401"
    with pytest.raises(psycopg.errors.ObjectInUse):
        subscriber.execute("DELETE FROM orders_1")
