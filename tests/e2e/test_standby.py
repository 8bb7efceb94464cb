"""A hot standby reads the archive, with the credentials of the primary, and writes nothing, here or to the storage."""

import psycopg
import pytest

from harness.cluster import Cluster, Database, wait_until
from harness.orders import archive, create_orders, summary
from harness.standby import Standby

READ_ONLY = psycopg.errors.ReadOnlySqlTransaction

# What only reads, or sets something of the session. All other functions and procedures for people must refuse.
READS = {
    "archive_cost": "('orders')",
    "archive_plan_cost": "('orders')",
    "archive_query_cost": "('SELECT * FROM archive.plain')",
    "archive_restore_cost": "('orders_2024_01')",
    "archive_tier_of": "('plain', '5')",
    "discover_child_tables": "('orders')",
    "explain_lifecycle": "('orders')",
    "export_policies": "()",
    "family_blockers": "('orders_2024_03')",
    "get_archived_record": "('plain', '5')",
    "lifecycle_map": "('orders')",
    "object_locks": "('orders_2024_01')",
    "partition_label": "('WARM', 'year', '2024-05-05')",
    "plan_archive": "('orders')",
    "use_data_partition": "(NULL)",
    "verify_chain": "('cold')",
}
WRITES = {
    "add_child_table": "('orders', 'orders')",
    "adopt_storage": "('cold')",
    "archive_family": "('orders_2024_03')",
    "archive_family_steps": "('orders_2024_03')",
    "archive_partition": "('orders_2024_03')",
    "archive_partition_steps": "('{orders_2024_03}')",
    "archive_partitions": "('{orders_2024_03}')",
    "archive_table": "('plain', '2024-02-01')",
    "archive_table_batch": "('plain', '2024-02-01')",
    "audit_storage": "('cold')",
    "cancel_job": "('7b3a0a9e-0000-0000-0000-000000000000')",
    "check_consistency": "()",
    "check_storage": "('cold')",
    "collect_garbage": "('cold')",
    "compact_archive": "('plain')",
    "compact_archive_steps": "('plain')",
    "drain_default": "('orders')",
    "drop_archive_policy": "('orders')",
    "drop_child_table": "('orders', 'orders')",
    "drop_local_copy": "('orders_2024_01')",
    "erase_rows": "('orders', 'true')",
    "legal_hold": "('orders_2024_01', true, 'case')",
    "poll_restores": "()",
    "repair_archive": "('orders_2024_01')",
    "request_restore": "('orders_2024_01')",
    "update_archived": """('orders', 'true', '{"items": "1"}')""",
    "forget_marker": "('plain')",
    "import_archive": "('cold', false)",
    "import_policies": """('{"format": 1, "policies": []}', false)""",
    "merge_partitions": "('{orders_2024_03,orders_2024_04}')",
    "merge_partitions_steps": "('{orders_2024_03,orders_2024_04}')",
    "pause_job": "('7b3a0a9e-0000-0000-0000-000000000000')",
    "premake_partitions": "('orders', 1)",
    "purge_marked": "('plain')",
    "purge_marked_steps": "('plain')",
    "reattach_family": "('orders_2024_01')",
    "reattach_partition": "('orders_2024_01')",
    "reconcile_archive": "('orders')",
    "reconcile_counts": "('orders')",
    "register_static_table": "('plain', 'x')",
    "restore_rows": "('plain', 'true')",
    "resume_job": "('7b3a0a9e-0000-0000-0000-000000000000')",
    "retry_job": "('7b3a0a9e-0000-0000-0000-000000000000')",
    "run_lifecycle": "()",
    "set_archive_policy": "('orders', hot_after => '1 day')",
    "set_lifecycle": "('orders_2024_03', 'WARM')",
    "set_lifecycle_where": "('orders', 'true', 'HOT')",
    "set_lifecycle_where_steps": "('orders', 'true', 'HOT')",
    "split_partition": "('orders_2024_03', 'day')",
    "split_partition_steps": "('orders_2024_03', 'day')",
    "unregister_static_table": "('plain')",
    "verify_archive": "('orders')",
    "verify_archive_steps": "('orders')",
}


@pytest.fixture(scope="module")
def primary():
    cluster = Cluster("wal_level=replica", "max_wal_senders=4")
    yield cluster
    cluster.stop()


@pytest.fixture
def standby_of(primary, s3_signed):
    """A primary's database with archived partitions and rows in a bucket that verifies signatures, and its standby."""
    original = Database(primary, f"shop_{s3_signed.name.replace('-', '_')}")
    s3_signed.create_storage(original.conn)
    original.conn = original.connect()
    create_orders(original.conn, months=4, rows=200)
    original.execute("CREATE TABLE plain AS SELECT n AS id, timestamptz '2024-01-01' + n * interval '1 day' AS at, 'note ' || n AS note"
                     " FROM generate_series(1, 60) n; ALTER TABLE plain ADD PRIMARY KEY (id); ALTER TABLE plain ALTER at SET NOT NULL")
    archive(original, "orders_2024_01", drop_local="0")
    archive(original, "orders_2024_02")
    original.execute("CALL archive_table('plain', '2024-02-01')")
    standby = Standby(primary)
    copy = standby.connect(original.name)
    wait_until(lambda: copy.execute("SELECT pg_is_in_recovery()").fetchone()[0], 20, "the standby")
    yield original, copy
    copy.close()
    standby.stop()
    original.drop()


def test_a_standby_reads_and_every_function_that_writes_refuses(standby_of):
    original, copy = standby_of
    value = lambda query: copy.execute(query).fetchone()[0]  # noqa: E731

    class Here:
        row = staticmethod(lambda query: copy.execute(query).fetchone())

    for relation in ["archive.orders", "archive.orders_all"]:
        assert summary(Here, relation) == summary(original, relation)
    assert value("SELECT count(*) FROM archive.plain_all") == 60
    assert value("SELECT count(note) FROM archive.plain") == original.value("SELECT count(*) FROM archive.plain") > 0
    assert value("SELECT note FROM archive.plain WHERE id = 7") == "note 7"
    assert value("SELECT get_archived_record('plain', '7') ->> 'note'") == "note 7"
    for view in ["partitions", "jobs", "objects", "events", "workers", "policies", "alerts", "month_counts", "progress"]:
        copy.execute(f"SELECT * FROM archive_ext.{view}").fetchall()
    copy.execute("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM archive.orders_all WHERE id = 5")

    functions = original.all(
        "SELECT p.proname, p.prokind FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid"
        " WHERE d.classid = 'pg_proc'::regclass AND d.deptype = 'e' AND p.pronamespace = 'public'::regnamespace"
        " AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'archive_ext')")
    assert {f.proname for f in functions} == READS.keys() | WRITES.keys(), "a function is neither said to read nor to write"
    refused = {}
    for name, kind in sorted(set(map(tuple, functions))):
        try:
            copy.execute(f"{'CALL' if kind == 'p' else 'SELECT'} {name}{(READS | WRITES)[name]}")
        except psycopg.Error as error:
            refused[name] = f"{error.sqlstate} {error} {error.diag.context}"
    assert {name: error for name, error in refused.items() if not error.startswith("25006")} == {}
    assert refused.keys() == WRITES.keys()
    keys = original.all("SELECT key FROM archive_ext.objects")
    assert value("SELECT count(*) FROM archive_ext.objects") == len(keys)


def test_writes_are_refused_in_a_read_only_transaction_too(db, cluster):
    """Before anything is written to the storage."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=2, rows=10)
    db.execute("SET default_transaction_read_only = on")
    for call in ["SELECT archive_partition('orders_2024_01')", "CALL archive_partition_steps('{orders_2024_01}')",
                 "SELECT check_storage('cold')"]:
        with pytest.raises(READ_ONLY):
            db.execute(call)
    assert not (cluster.storage / db.name).exists()
