"""From one major version of PostgreSQL to another and back: import_archive, pg_dump, pg_upgrade."""

import itertools
import os

import psycopg
import pytest

from harness.cluster import Cluster, Database
from harness.orders import archive, create_orders, summary
from harness.typed_tables import create_partitioned, differences, dump, fill, storage_of
from test_clones import Copy, assert_one_writer, assert_reads_alike, check_upgrade, dump_and_restore
from test_disaster import RICH, TICKETS, file_storage, import_archive, odd_functions, text_of
from test_restore_plain import restore
from test_types import EXTENSIONS
from type_corpus import SETUP, TYPES, shapes

pytestmark = pytest.mark.majors
OTHER = os.environ["OTHER_PG_CONFIG"]
TYPES_IN_A_TABLE = 15
# Text that reads as another value, so they move as bytes; composites of them only their own database reads.
BYTES_ONLY = ["seg", "issn", "upc"]
_numbers = itertools.count(1)


@pytest.fixture(scope="module")
def other_cluster():
    other = Cluster(pg_config=OTHER)
    yield other
    log = other.log()
    other.stop()
    crashes = [line for line in log.splitlines() if "PANIC" in line or "was terminated by signal" in line]
    assert not crashes, crashes


@pytest.fixture(params=["to the other", "from the other"])
def clusters(request, cluster, other_cluster):
    """(source, target)"""
    return (cluster, other_cluster) if request.param == "to the other" else (other_cluster, cluster)


@pytest.fixture
def databases(clusters):
    """(source, target), with the extension."""
    name = f"moved_{next(_numbers)}"
    made = [Database(c, name) for c in clusters]
    yield made
    for database in made:
        database.drop()


def test_the_versions_differ(cluster, other_cluster):
    majors = []
    for c in [cluster, other_cluster]:
        with c.connect() as conn:
            majors.append(conn.info.server_version // 10000)
    assert majors[0] < majors[1]


def prepare_for_types(db):
    """What a manifest does not hold: base types with their functions, and objects that values name."""
    for [statement] in db.all(EXTENSIONS):
        db.execute(statement)
    for statement in SETUP.strip().split(";\n"):
        db.execute(statement)


def type_tables():
    """(table, DDL of its types, columns): types with and without NULLs apart."""
    for nullable in [True, False]:
        types = [t for t in TYPES if t.nullable == nullable]
        for start in range(0, len(types), TYPES_IN_A_TABLE):
            ddl, columns = [], []
            for i, type_ in enumerate(types[start:start + TYPES_IN_A_TABLE]):
                number = f"{'n' if nullable else 'm'}{start + i}"
                types_ddl, shaped = shapes(type_, number)
                ddl.append(types_ddl)
                if type_.name in BYTES_ONLY:
                    shaped = [column for column in shaped if column[0] not in ("r", "ra")]
                columns += [(f"{name}{i}", *rest) for name, *rest in shaped]
            yield f"{'nullable' if nullable else 'never_null'}_{start}", ";".join(ddl), columns, nullable


def test_p5_every_type_moves(databases):
    source, target = databases
    before = {}
    for db in databases:
        prepare_for_types(db)
    root = storage_of(source)
    for table, ddl, columns, nullable in type_tables():
        source.execute(ddl)
        create_partitioned(source, table, columns)
        fill(source, table, columns, nullable=nullable)
        # The binary form of composites and arrays has the OIDs of types in it, which are other ones there.
        before[table] = dump(source.conn, table, columns, binary=False)
        archive(source, f"{table}_1", drop_local="0")

    file_storage(target, root)
    done = import_archive(target, dry_run=False, verify=True)

    assert {line.action for line in done} == {"table", "import"}
    for table, _, columns, _ in type_tables():
        assert differences(before[table], dump(target.conn, f"archive.{table}", columns, binary=False)) == [], table
        target.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
        assert differences(before[table], dump(target.conn, table, columns, binary=False)) == [], table


def test_p12_a_value_that_only_its_own_database_can_read_is_refused(databases):
    source, target = databases
    root = storage_of(source)
    source.execute("CREATE EXTENSION seg; CREATE TYPE measured AS (value seg)")
    create_partitioned(source, "t", [("c", "measured", [])])
    source.execute("INSERT INTO t VALUES (0, '(1.5)'), (1, '(~1.23456789)')")
    archive(source, "t_1", drop_local="0")
    file_storage(target, root)
    import_archive(target, dry_run=False)
    assert target.value("SELECT count(*) FROM archive.t WHERE k = 1") == 1
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="the database that it comes from only"):
        target.execute("SELECT c FROM archive.t")


def test_p3_an_odd_table_moves(databases):
    """Collations, domains, ranges, sequences, identity, generated columns and a deep tree are made by the import."""
    source, target = databases
    root = storage_of(source)
    source.execute(RICH)
    expected = text_of(source, TICKETS)
    for leaf in ["t2024_eu", "t2024_us", "t2025_eu"]:
        archive(source, f'"Odd schema".{leaf}', drop_local="0")

    file_storage(target, root)
    import_archive(target, dry_run=False, verify=True)

    assert text_of(target, 'archive."Tickets_all"') == expected
    odd_functions(target)
    target.execute("SELECT reattach_partition('\"Odd schema\".t2024_us', writable => true)")
    assert text_of(target, 'archive."Tickets_all"') == expected
    target.execute(f"INSERT INTO {TICKETS} (at, region) VALUES ('2024-06-01+00', 'us')")
    assert target.value(f"SELECT max(id) FROM {TICKETS}") == 1301
    # It is archived there, and what came from elsewhere was not touched.
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="belongs to another cluster"):
        archive(target, '"Odd schema".t2024_us')
    target.execute("SELECT adopt_storage('cold')")
    archive(target, '"Odd schema".t2024_us', drop_local="0")
    assert len(text_of(target, 'archive."Tickets"')) == len(expected) + 1
    assert set(expected) < set(text_of(target, 'archive."Tickets"'))


def test_p3_psql_alone_restores_it(clusters):
    """The DDL in a manifest is what both versions understand."""
    source, target = clusters
    db = Database(source, f"plain_{next(_numbers)}")
    root = storage_of(db)
    create_orders(db.conn, months=1, rows=100)
    expected = text_of(db, "orders_2024_01")
    archive(db, "orders_2024_01", drop_local="0")
    with target.connect() as admin:
        admin.execute("CREATE DATABASE plain_target")

    code, psql_code, said = restore(target, "plain_target", root / "public.orders/_manifests/orders_2024_01.v1.json")

    assert (code, psql_code) == (0, 0) and "ERROR" not in said, said
    with target.connect("plain_target") as plain:
        assert sorted(r[0] for r in plain.execute("SELECT t::text FROM orders_2024_01 t")) == expected
    with target.connect() as admin:
        admin.execute("DROP DATABASE plain_target")
    db.drop()


def test_pg_dump_into_the_next_version(cluster, other_cluster):
    original = Database(cluster, "dumped")
    storage_of(original)
    create_orders(original.conn, months=5, rows=200)
    archive(original, "orders_2024_01", drop_local="0")
    archive(original, "orders_2024_02")
    archive(original, "orders_2024_03", drop_local="0")
    original.execute("SELECT reattach_partition('orders_2024_03')")

    dump_and_restore(original, other_cluster, "restored")

    copy = Copy(other_cluster, "restored")
    assert_reads_alike(copy, original)
    expected = summary(original, "archive.orders_all")
    for partition in ["orders_2024_01", "orders_2024_02"]:
        copy.execute("SELECT reattach_partition(%s)", [partition])
    assert summary(copy, "archive.orders_all") == expected
    assert copy.value("SELECT count(*) FROM archive.orders") == 0
    assert_one_writer(copy, original)
    copy.drop()
    original.drop()


def test_from_16_on_the_last_scan_tells_since_when_a_partition_is_idle(other_cluster):
    """The time of the scan counts, not that of the look which found the counters moved."""
    db = Database(other_cluster, "idle")
    storage_of(db)
    create_orders(db.conn, months=2, rows=50)
    db.execute("SELECT set_archive_policy('orders', archive_after => '1 month', idle_for => '10 days', storage => 'cold')")
    db.execute("SELECT count(*) FROM orders")
    db.execute("SELECT pg_stat_force_next_flush()")

    def run_in(days):
        db.execute("SELECT set_config('archive_ext.now', (now() + %s * interval '1 day')::text, false)", [days])
        db.execute("CALL run_lifecycle()")
        return db.value("SELECT count(*) FROM archive_ext.partitions WHERE status = 'ARCHIVED'")

    assert run_in(9) == 0
    assert {"idle_for 10 days" in r.reason for r in db.all("SELECT reason FROM explain_lifecycle('orders')")} == {True}
    db.execute("SELECT count(*) FROM orders_2024_02")
    db.execute("SELECT pg_stat_force_next_flush()")
    assert run_in(11) == 1, "the look of the ninth day was no use of it"
    assert db.value("SELECT partition_name FROM archive_ext.partitions") == "orders_2024_01"
    assert run_in(22) == 2
    db.drop()


@pytest.fixture
def old_and_new():
    clusters = [Cluster(), Cluster(pg_config=OTHER)]
    yield clusters
    for cluster in clusters:
        cluster.stop()


def test_pg_upgrade_to_the_next_version(old_and_new):
    check_upgrade(*old_and_new)
