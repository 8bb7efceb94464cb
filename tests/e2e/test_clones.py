"""Copies of a database: pg_dump, pg_upgrade, a promoted physical copy. All read the archive, one of them writes it."""

import psycopg
import pytest

from harness.cluster import Cluster, Database, wait_until
from harness.orders import archive, create_orders, summary
from harness.standby import Standby, pg_ctl, run

REFUSED = psycopg.errors.ObjectNotInPrerequisiteState
CONFIG_TABLES = ["managed_table", "archive_policy", "partition", "archival_job", "object", "lifecycle_event",
                 "storage_claim", "archive_schema", "column_map", "storage_price"]


def dump_and_restore(source, target_cluster, target):
    """pg_dump -Fc | pg_restore into a new, empty database, both of the target's version; any error fails."""
    dump = source.cluster.dir / f"{source.name}.dump"
    run(target_cluster.program("pg_dump"), "-Fc", "-h", source.cluster.dir, "-U", "postgres", "-f", dump, source.name)
    with target_cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {target}")
    run(target_cluster.program("pg_restore"), "--exit-on-error", "-h", target_cluster.dir, "-U", "postgres", "-d", target, dump)
    dump.unlink()


class Copy(Database):
    """A database that is there already."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self._sessions = cluster, name, []
        self.conn = self.connect(options="-c archive_ext.default_storage=cold")


@pytest.fixture(params=["file", "s3"])
def stored(request, db, cluster):
    """`db` with a storage `cold`."""
    if request.param == "file":
        db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
                   f" OPTIONS (location 'file://{cluster.storage / db.name}')")
        db.execute("SET archive_ext.default_storage = 'cold'")
    else:
        request.getfixturevalue("s3").create_storage(db.conn)
    return db


@pytest.fixture
def lived_in(stored, role):
    """Archived partitions with and without local copy, a reattached one, a hot one; policy, owner, grants."""
    db, owner, reader = stored, role("owner"), role("reader")
    create_orders(db.conn, months=5, rows=200)
    db.execute(f"GRANT SELECT ON orders TO {reader}")
    db.execute("SELECT set_archive_policy('orders', storage => 'cold', drop_after => '10 days')")
    archive(db, "orders_2024_01", drop_local="0")
    archive(db, "orders_2024_02")
    archive(db, "orders_2024_03", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_03')")
    # A price of the list that the DBA edited, and one of his own.
    db.execute("UPDATE archive_ext.storage_price SET gb_month = 0.5 WHERE storage_class = 'LOCAL'")
    db.execute("INSERT INTO archive_ext.storage_price (storage, storage_class, gb_month) VALUES ('cold', 'DIRECTORY', 0.01)")
    db.reader, db.owner = reader, owner
    return db


def catalog_text(db):
    """The catalog as text: regclass columns print names, so they are compared whatever their OIDs are.

    But a job's partition that was dropped is a number, which may be another table's where it is restored.
    """
    rows = dict.fromkeys(CONFIG_TABLES, "t::text")
    rows["archival_job"] = "concat(to_jsonb(t) - 'partition', CASE WHEN partition_name LIKE '%.' || partition::text THEN partition END)"
    return {table: db.all(f"SELECT {row} FROM archive_ext.{table} t ORDER BY 1") for table, row in rows.items()}


def assert_reads_alike(copy, original):
    assert summary(copy, "archive.orders_all") == summary(original, "archive.orders_all")
    assert summary(copy, "archive.orders") == summary(original, "archive.orders")
    assert catalog_text(copy) == catalog_text(original)
    wrong = copy.all("SELECT partition_name FROM archive_ext.partition p WHERE status = 'ARCHIVED'"
                     " AND NOT EXISTS (SELECT FROM pg_foreign_table f WHERE f.ftrelid = p.foreign_table)")
    assert wrong == []


def assert_one_writer(copy, original):
    """The copy is refused, the original is not; after adopt_storage it is the other way round."""
    with pytest.raises(REFUSED, match="belongs to another cluster"):
        archive(copy, "orders_2024_04")
    assert copy.value("SELECT count(*) FROM orders_2024_04") == 200
    archive(original, "orders_2024_04", drop_local="0")

    copy.execute("SELECT adopt_storage('cold')")
    archive(copy, "orders_2024_05", drop_local="0")
    with pytest.raises(REFUSED, match="belongs to another cluster"):
        archive(original, "orders_2024_05")
    expected = summary(original, "archive.orders_all")
    assert summary(copy, "archive.orders_all") == expected


def assert_ids_go_on(copy):
    for table in ["managed_table", "partition", "object", "lifecycle_event"]:
        assert copy.value(f"SELECT nextval(pg_get_serial_sequence('archive_ext.{table}', 'id'))"
                          f" > (SELECT max(id) FROM archive_ext.{table})"), table


def test_pg_dump_into_the_same_cluster(lived_in, cluster):
    name = f"{lived_in.name}_copy"
    dump_and_restore(lived_in, cluster, name)
    copy = Copy(cluster, name)
    try:
        assert_reads_alike(copy, lived_in)
        assert_ids_go_on(copy)
        reader = copy.connect(lived_in.reader)
        assert reader.execute("SELECT count(*) FROM archive.orders_all").fetchone()[0] == 1000
        # What was frozen, kept or reattached is so here too.
        with pytest.raises(psycopg.errors.ObjectInUse):
            copy.execute("DELETE FROM orders_2024_03")
        assert copy.value("SELECT reattach_partition('orders_2024_01')::text") == "orders_2024_01"
        assert copy.value("SELECT reattach_partition('orders_2024_02')::text") == "orders_2024_02"
        assert summary(copy, "archive.orders_all") == summary(lived_in, "archive.orders_all")
        assert copy.value("SELECT count(*) FROM archive.orders") == 0
        assert_one_writer(copy, lived_in)
    finally:
        copy.drop()


def test_pg_dump_into_another_cluster(lived_in):
    other = Cluster()
    try:
        with other.connect() as admin:
            admin.execute(f"CREATE ROLE {lived_in.reader}; CREATE ROLE {lived_in.owner}")
        dump_and_restore(lived_in, other, "elsewhere")
        copy = Copy(other, "elsewhere")
        assert_reads_alike(copy, lived_in)
        assert_one_writer(copy, lived_in)
    finally:
        other.stop()


def test_the_sections_that_pg_upgrade_dumps(lived_in, cluster):
    """pg_dump --binary-upgrade prints every object of the extension; the script must be complete."""
    dump = run(cluster.program("pg_dump"), "--schema-only", "--quote-all-identifiers", "--binary-upgrade", "-h",
               cluster.dir, "-U", "postgres", lived_in.name).stdout
    assert "binary_upgrade_create_empty_extension('archive_ext'" in dump
    for relation in CONFIG_TABLES:
        assert f'CREATE TABLE "archive_ext"."{relation}"' in dump


@pytest.fixture
def old_and_new():
    clusters = [Cluster(), Cluster()]
    yield clusters
    for cluster in clusters:
        cluster.stop()


def upgrade(old, new):
    """pg_upgrade of a cluster into an empty one; the old one is stopped for good, the new one runs."""
    pg_ctl(old, "stop")
    pg_ctl(new, "stop")
    run(new.program("pg_upgrade"), "-b", old.program("."), "-B", new.program("."), "-d", old.dir / "data",
        "-D", new.dir / "data", "-U", "postgres", "--socketdir", new.dir, user=new.user, cwd=new.dir)
    pg_ctl(new, "start")


def test_pg_upgrade(old_and_new):
    check_upgrade(*old_and_new)


def check_upgrade(old, new):
    """Archived partitions with and without local copy, and a hot one, are after pg_upgrade what they were before."""
    original = Database(old, "shop")
    original.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{old.storage}')")
    original.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(original.conn, months=3, rows=200)
    archive(original, "orders_2024_01", drop_local="0")
    archive(original, "orders_2024_02")
    expected = summary(original, "archive.orders_all"), catalog_text(original)
    original.conn.close()
    upgrade(old, new)

    copy = Copy(new, "shop")
    assert (summary(copy, "archive.orders_all"), catalog_text(copy)) == expected
    # The new cluster has another system identifier: taking the storage over is a decision.
    with pytest.raises(REFUSED, match="belongs to another cluster"):
        archive(copy, "orders_2024_03")
    copy.execute("SELECT adopt_storage('cold')")
    archive(copy, "orders_2024_03", drop_local="0")
    for month in ["01", "02"]:
        copy.execute(f"SELECT reattach_partition('orders_2024_{month}')")
        assert summary(copy, "archive.orders_all") == expected[0]
    copy.conn.close()


@pytest.fixture
def primary():
    primary = Cluster("wal_level=replica", "max_wal_senders=4")
    yield primary
    primary.stop()


def test_a_promoted_physical_copy(primary):
    original = Database(primary, "shop")
    location = f"file://{primary.storage}"
    original.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location '{location}')")
    original.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(original.conn, months=5, rows=200)
    archive(original, "orders_2024_01", drop_local="0")
    archive(original, "orders_2024_02")
    standby = Standby(primary)
    try:
        copy = Copy(standby, "shop")
        # A hot standby reads the archive.
        wait_until(lambda: copy.value("SELECT pg_is_in_recovery()"), 10, "the standby")
        assert_reads_alike(copy, original)
        standby.promote()
        # At once: the first checkpoint of the new timeline may still be under way.
        with pytest.raises(REFUSED, match="belongs to another cluster"):
            archive(copy, "orders_2024_03")
        assert summary(copy, "archive.orders_all") == summary(original, "archive.orders_all")
        assert_one_writer(copy, original)
        copy.execute("SELECT reattach_partition('orders_2024_02')")
        assert summary(copy, "archive.orders_all") == summary(original, "archive.orders_all")
        copy.conn.close()
    finally:
        standby.stop()


def test_reading_an_archive_takes_no_transaction_id(stored):
    create_orders(stored.conn, months=2, rows=2000)
    archive(stored, "orders_2024_01", drop_local="0")
    parallel = "debug_parallel_query" if stored.conn.info.server_version >= 160000 else "force_parallel_mode"
    with stored.conn.transaction():
        for value in ["off", "on"]:
            stored.execute(f"SET LOCAL {parallel} = {value}")
            assert stored.value("SELECT count(*) FROM archive.orders_all") == 4000
            stored.execute("SELECT * FROM archive.orders WHERE id = 5")
        stored.execute("SET LOCAL min_parallel_table_scan_size = 0")
        stored.execute("SET LOCAL parallel_setup_cost = 0; SET LOCAL parallel_tuple_cost = 0")
        assert stored.value("SELECT count(*) FROM archive.orders_all a JOIN orders b USING (customer_id)") > 0
        assert stored.value("SELECT pg_current_xact_id_if_assigned()") is None
    with stored.conn.transaction():
        stored.execute("SET TRANSACTION READ ONLY, ISOLATION LEVEL SERIALIZABLE, DEFERRABLE")
        assert stored.value("SELECT count(*) FROM archive.orders_all") == 4000


def test_a_dropped_local_copy_is_not_taken_for_another_table(db, cluster):
    """pg_dump prints the OID of a relation that is gone as a number, which means another table where it is restored."""
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    create_orders(db.conn, months=1, rows=100)
    archive(db, "orders_2024_01")
    local_copy = db.value("SELECT local_copy::text FROM archive_ext.partition")
    db.execute(f"CREATE TABLE innocent AS SELECT * FROM {local_copy} LIMIT 1; DROP TABLE {local_copy}")
    db.execute("UPDATE archive_ext.partition SET local_copy = 'innocent'::regclass")

    db.execute("SELECT reattach_partition('orders_2024_01')")

    assert db.value("SELECT count(*) FROM orders") == 100
    assert db.value("SELECT count(*) FROM innocent") == 1
