"""Promises that no other file holds, and that each of P1 to P12 is held by tests that bear its name."""

import json
import re
import signal
import subprocess
from pathlib import Path

import duckdb
import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import archive, assert_same_rows, create_orders, keep_truth
from harness.proxy import Stall
from harness.sessions import Call
from harness.typed_tables import create_edges

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("number", range(1, 13))
def test_each_promise_has_tests_that_bear_its_name(number):
    named = re.compile(rf"\b(?:def|fn) (?:test_)?p{number}_\w+")
    sources = [*REPOSITORY.glob("tests/**/*.py"), *REPOSITORY.glob("pg_test/**/*.rs"),
               *REPOSITORY.glob("crates/**/*.rs")]
    assert any(named.search(source.read_text()) for source in sources)


@pytest.mark.parametrize("document", ["safety.md", "concurrency.md"])
def test_the_tests_that_documents_name_are_there(document):
    text = (REPOSITORY / "docs" / document).read_text()
    functions = "\n".join(source.read_text() for source in REPOSITORY.glob("tests/**/*.py"))
    named = set(re.findall(r"`(test_\w+)`", text))
    assert named and {name for name in named if f"def {name}(" not in functions} == set()
    files = set(re.findall(r"`(test_\w+\.py)`", text))
    assert {name for name in files if not list(REPOSITORY.glob(f"tests/*/{name}"))} == set()


@pytest.fixture
def local(db, cluster):
    """A file:// storage; its directory."""
    root = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    return root


def test_p3_manifest_and_files_alone_restore_the_table(db, cluster, local, tmp_path):
    """Into a database that never heard of the extension, with psql's means and DuckDB as the Parquet reader."""
    create_orders(db.conn, months=1, rows=2000)
    db.execute("COMMENT ON TABLE orders_2024_01 IS 'what customers bought'")
    db.execute("CREATE INDEX by_note ON orders_2024_01 (note) WHERE note IS NOT NULL")
    db.execute("GRANT SELECT ON orders_2024_01 TO pg_monitor")
    catalog = """
        SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass
        UNION ALL SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conrelid = 'orders_2024_01'::regclass
        UNION ALL SELECT format('%s %s %s', attname, format_type(atttypid, atttypmod), attnotnull) FROM pg_attribute
                  WHERE attrelid = 'orders_2024_01'::regclass AND attnum > 0
        UNION ALL SELECT obj_description('orders_2024_01'::regclass)
        UNION ALL SELECT relacl::text FROM pg_class WHERE oid = 'orders_2024_01'::regclass
        ORDER BY 1"""
    rows = "SELECT o::text FROM orders_2024_01 AS o ORDER BY 1"
    expected = [r[0] for r in db.all(catalog)], [r[0] for r in db.all(rows)]
    archive(db, "orders_2024_01", drop_local="0")

    manifest = json.loads((local / "public.orders/_manifests/orders_2024_01.v1.json").read_text())
    ddl, csv = manifest["ddl"], tmp_path / "rows.csv"
    data = [str(local / o["key"]) for o in manifest["objects"]]
    duckdb.connect().execute(
        f"COPY (SELECT * FROM read_parquet({data}, hive_partitioning => false)) TO '{csv}' (HEADER)")
    with cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {db.name}_restored")
    try:
        with cluster.connect(f"{db.name}_restored") as plain:
            for statement in [*ddl["prerequisites"], ddl["create_table"], *ddl["defaults"], *ddl["storage_parameters"]]:
                plain.execute(statement)
            header, _, body = csv.read_text().partition("\n")
            with plain.cursor().copy(f"COPY orders_2024_01 ({header}) FROM STDIN (FORMAT csv)") as copy:
                copy.write(body)
            for group in ["identity", "indexes", "constraints", "statistics", "triggers", "policies", "comments",
                          "grants"]:
                for entry in ddl[group]:
                    plain.execute(entry["sql"] if isinstance(entry, dict) else entry)
            assert [r[0] for r in plain.execute(rows)] == expected[1]
            assert [r[0] for r in plain.execute(catalog)] == expected[0]
    finally:
        with cluster.connect() as admin:
            admin.execute(f"DROP DATABASE {db.name}_restored")


EDGES = {
    "boolean": ["true", "false"],
    "smallint": ["-32768", "32767"],
    "int": ["-2147483648", "2147483647"],
    "bigint": ["-9223372036854775808", "9223372036854775807"],
    "real": ["NaN", "Infinity", "-Infinity", "-0", "1e-45", "3.4028235e38", "0.1"],
    "double precision": ["NaN", "Infinity", "-Infinity", "-0", "5e-324", "1.7976931348623157e308", "0.1"],
    "numeric(12,2)": ["NaN", "9999999999.99", "-9999999999.99", "0.00"],
    "numeric(38,0)": ["99999999999999999999999999999999999999", "-1"],
    "text": ["", " ", "a\nb\tc\\", "äöü€😀", "NULL", "x" * 100_000],
    "varchar(10)": ["", "0123456789"],
    "char(5)": ["", "ab", "abcde"],
    "bytea": ["", "\\x00ff", "\\x" + "00" * 50_000],
    "date": ["infinity", "-infinity", "4713-01-01 BC", "5874897-12-31", "2024-02-29"],
    "time": ["00:00", "23:59:59.999999", "24:00"],
    "timestamp": ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999",
                  "2024-01-01 00:00:00.000001"],
    "timestamptz": ["infinity", "-infinity", "4713-01-01 BC", "294276-12-31 23:59:59.999999+00", "2024-01-01+00"],
    "uuid": ["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"],
    "json": ['{"b": 1,  "a": [1, null], "b": 2}', "null", '"x"', " 1 "],
    "jsonb": ['{"b": 1, "a": [1, null]}', "null", '{"n": 1e400}'],
    "int[]": ["{}", "{1,NULL,3}", "[0:1]={1,2}", "{{1,2},{3,4}}"],
    "text[]": ["{}", '{NULL,"NULL","","a,b"}'],
    "numeric(8,3)[]": ["{1.5,NULL,NaN}"],
    "timestamptz[]": ["{infinity,2024-01-01 00:00+00}"],
    "order_status[]": ["{new,NULL,paid}"],
    "order_status": ["new", "delivered"],
}


def test_p5_every_value_comes_back_as_it_was(db, local):
    """One column for each type, one row for each edge, and a row of NULLs; compared by text, queried and reattached."""
    db.execute("CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'delivered')")
    columns = create_edges(db, EDGES)
    text = "SELECT id, " + ", ".join(f"{c}::text" for c in columns) + " FROM {} ORDER BY id"
    expected = db.all(text.format("edges"))

    archive(db, "edges_1", drop_local="0")
    assert db.all(text.format("archive.edges")) == expected

    db.execute("SELECT reattach_partition('edges_1')")
    assert db.all(text.format("edges")) == expected


def test_p5_what_cannot_be_kept_is_refused(db, local):
    """A type that cannot read what it prints: the column and the reason are named, and nothing was removed."""
    db.execute("""
        CREATE TYPE odd;
        CREATE FUNCTION odd_in(cstring) RETURNS odd LANGUAGE internal IMMUTABLE STRICT AS 'int4in';
        CREATE FUNCTION odd_out(odd) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'oidout';
        CREATE TYPE odd (INPUT = odd_in, OUTPUT = odd_out, LIKE = int4);
        CREATE TABLE odds (id int, strange odd) PARTITION BY RANGE (id);
        CREATE TABLE odds_1 PARTITION OF odds FOR VALUES FROM (0) TO (10);
        INSERT INTO odds VALUES (1, '-1')""")

    with pytest.raises(psycopg.errors.NumericValueOutOfRange, match="out of range for type integer") as refused:
        archive(db, "odds_1")

    assert 'column "strange"' in refused.value.diag.message_detail
    assert db.is_attached("odds_1", "odds")
    assert db.value("SELECT count(*) FROM odds") == 1


PREDICATES = [
    "id = 777", "id IN (1, 777, 999999)", "id > 29990", "id BETWEEN 100 AND 200", "id <> 5", "id = 777::smallint",
    "id = 777.0", "id < 0", "NOT id > 10", "id % 1000 = 0", "id = ANY (ARRAY[5, NULL, 7])",
    "created_at >= '2024-01-20'", "created_at < '2024-01-01 00:30+00'", "created_at = '2024-01-01 00:00+00'",
    "created_at > '2024-01-31'::date", "created_at < 'infinity'",
    "amount = 1.0", "amount = 1.000", "amount > 5000", "amount >= 'NaN'", "amount <> 'NaN'", "amount < 2",
    "note IS NULL", "note IS NOT NULL AND id < 20", "note = 'note c4ca4238a0b923820dcc509a6f75849b'", "note < 'note 1'",
    "note COLLATE \"C\" < 'note 1'", "note LIKE 'note 00%'", "note >= 'NOTE'", "note > 'note z'",
    "status = 'paid'", "status > 'paid'", "status IN ('new', 'shipped') AND items = 3",
    "customer_id = 42", "customer_id = 42 OR id = 3", "customer_id = 42 AND created_at > '2024-01-15'",
    "payload @> '{\"n\": 12}'", "payload ->> 'n' = '12'", "payload IS NULL",
    "ratio = 0", "ratio = -0.0::float8", "ratio > 1e300", "ratio = 'NaN'", "ratio < 'NaN'", "ratio IS NULL",
    "code = 'k7'", "code = 'k7   '", "code < 'k2'", "code = 'k7'::text",
    "false", "NULL::boolean", "id = NULL",
]


def test_p9_pruning_hides_no_row_that_matches(db, local):
    """Many files, row groups and pages, with values (NaN, -0, padding, NULL) at which statistics go wrong."""
    db.execute("SET archive_ext.object_size = '1MB'")
    db.execute("SET archive_ext.row_group_rows = 1000")
    create_orders(db.conn, months=1, rows=30_000)
    db.execute("ALTER TABLE orders ADD ratio float8, ADD code char(8)")
    db.execute("UPDATE orders SET code = 'k' || id % 9, ratio = CASE id % 5000 WHEN 0 THEN 'NaN' WHEN 1 THEN '-0'"
               " WHEN 2 THEN 'Infinity' WHEN 3 THEN 0 WHEN 4 THEN NULL ELSE id::float8 END")
    db.execute("UPDATE orders SET amount = 'NaN' WHERE id % 7000 = 0")
    keep_truth(db, "orders")
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("ANALYZE archive.orders")

    count = "SELECT count(*), sum(id), count(note) FROM {} WHERE {}"
    wrong = [p for p in PREDICATES if db.row(count.format("archive.orders", p)) != db.row(count.format("truth", p))]
    assert wrong == []
    db.execute("SET plan_cache_mode = force_generic_plan")
    for value in [1, 777, 29_999, 30_000, 30_001, None]:
        found = [db.value(f"SELECT count(*) FROM {t} WHERE id = %s::int", [value]) for t in ["archive.orders", "truth"]]
        assert found[0] == found[1]


def test_p10_partitions_go_by_their_bounds_and_not_by_their_names(db, local):
    db.execute("CREATE TABLE t (at date NOT NULL, n int) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE t_2031_12 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
    db.execute("CREATE TABLE t_1999_01 PARTITION OF t FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
    db.execute("INSERT INTO t VALUES ('2024-01-10', 1), ('2024-02-10', 2)")

    archive(db, "t_2031_12", drop_local="0")

    [file] = local.rglob("*.parquet")
    assert file.parent == local / "public.t/archive_year=2024/archive_month=01"
    assert db.value("SELECT n FROM archive.t WHERE at = '2024-01-10'") == 1
    bounds = "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE oid = 'archive.t_2031_12'::regclass"
    assert db.value(bounds) == "FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')"


def test_p11_helper_threads_block_all_signals(db, s3, fault_proxy):
    """Caught in the middle of an upload: PostgreSQL's handlers may run on the main thread only."""
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=1, rows=3000)
    rule = fault_proxy.on("PUT|POST", r"\.parquet", fault=Stall())
    pid = db.conn.info.backend_pid
    call = Call(archive, db, "orders_2024_01")
    assert rule.hit.wait(60)

    helpers = [task for task in Path(f"/proc/{pid}/task").iterdir() if int(task.name) != pid]
    masks = [int(re.search(r"SigBlk:\s*(\w+)", (task / "status").read_text())[1], 16) for task in helpers]
    fault_proxy.heal()
    call.result(120)

    assert masks, "the upload runs on threads of its own"
    handled = [signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2,
               signal.SIGALRM, signal.SIGCHLD]
    assert not [(hex(mask), s.name) for mask in masks for s in handled if not mask >> (s - 1) & 1]


def test_p4_a_full_disk_fails_cleanly(db, cluster):
    """file:// on a file system of 512 kB."""
    disk = cluster.storage / f"{db.name}_small"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=512k,mode=0777", "tmpfs", disk], check=True)
    try:
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{disk}/a')")
        db.execute("SET archive_ext.default_storage = 'cold'")
        create_orders(db.conn, months=1, rows=100_000)
        keep_truth(db, "orders")
        with pytest.raises(psycopg.errors.DiskFull):
            archive(db, "orders_2024_01", drop_local="0")
        assert db.is_attached("orders_2024_01")
        assert_same_rows(db, "orders", "truth")
        wait_until(lambda: not list(disk.rglob("*.parquet")), 5, "the unfinished file to be removed")
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)
