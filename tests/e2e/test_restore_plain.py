"""P3 without us: scripts/restore-plain and psql restore a partition into a database that knows no archive_ext."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from psycopg import sql

from harness.orders import archive, create_orders
from harness.s3 import REGION
from harness.typed_tables import create_edges
from test_promises import EDGES

# Beyond what test_promises has: types that nest, and those that are kept as their text.
MORE = {
    "numeric": ["1e-30", "-123456789012345678901234567890.5", "NaN", "Infinity", "0.000"],
    "interval": ["1 year -2 mons 3 days -04:05:06.789", "0", "-178000000 years", "2147483647 days", "-0.000001 secs"],
    "interval[]": ["{1 mon,NULL,-3 days}"],
    "money": ["12.34", "-0.01", "92233720368547758.07", "-92233720368547758.08"],
    "oid": ["0", "4294967295"],
    "regclass": ["pg_class", "-"],
    "regtype": ["integer", "timestamp with time zone"],
    "regprocedure": ["lower(text)"],
    "inet": ["192.168.0.1/24", "::1"],
    "bit(5)": ["10101"],
    "int4range": ["empty", "[1,5)", "(,3)"],
    "tstzrange": ["[2024-01-01 00:00+00,infinity)"],
    "point": ["(1.5,-2)"],
    "box[]": ["{(2,2),(1,1);(4,4),(3,3)}"],
    "tsvector": ["'a':1 'it''s':2"],
    "xml": ["<a>1</a>", "text <b/>"],
    "\"char\"": ["x"],
    "name": ["a name"],
    "timetz": ["12:00:00+05:30"],
    "oidvector": ["1 2 3"],
    "bytea[]": ["{\"\\\\x00ff\",NULL}"],
    "real[]": ["{0.1,NaN,-Infinity}"],
    "jsonpath": ["$.a[*]"],
    "inner_pair": ["(1,\"a, \"\"b\"\" \\\\ c\")", "(,)", "(5,\"\")"],
    "outer_pair": ["(\"(1,\"\"x y\"\")\",\"{1,NULL}\",2024-01-01)", "(,,)", "(\"(,)\",{},infinity)"],
    "inner_pair[]": ["{\"(1,a)\",NULL,\"(,\\\"q \\\\\\\"\\\\\\\" q\\\")\"}"],
    "positive": ["5"],
    "positive[]": ["{1,2}"],
    "text": ["\b\f\v\r", "\\.", "\\N", "a\tb"],
}
TYPES = """
    CREATE TYPE order_status AS ENUM ('new', 'paid', 'shipped', 'delivered');
    CREATE TYPE inner_pair AS (a int, b text);
    CREATE TYPE outer_pair AS (p inner_pair, numbers int[], day date);
    CREATE DOMAIN positive AS int CHECK (VALUE > 0);
"""
ROOT = Path(__file__).resolve().parents[2]
MANIFEST_1 = ROOT / "tests/fixtures/format1/public.orders/_manifests/orders_2024_01.v1.json"


@pytest.fixture
def local(db, cluster):
    root = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    return root


@pytest.fixture
def empty(cluster, db):
    """A database without the extension; returns its name."""
    name = f"{db.name}_plain"
    with cluster.connect() as admin:
        admin.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield name
    with cluster.connect() as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def restore(cluster, database, manifest, *arguments, **environment):
    """restore-plain | psql; what psql had to say."""
    script = subprocess.run([sys.executable, ROOT / "scripts/restore-plain", str(manifest), *arguments],
                            capture_output=True, env={**os.environ, **environment}, timeout=120)
    psql = subprocess.run([cluster.program("psql"), "-X", "-q", "-h", str(cluster.dir), "-U", "postgres", "-d", database],
                          input=script.stdout, capture_output=True, timeout=120)
    return script.returncode, psql.returncode, psql.stderr.decode() + script.stderr.decode()


def texts(connection, table):
    return sorted(r[0] for r in connection.execute(f"SELECT t::text FROM {table} t").fetchall())


@pytest.mark.parametrize("where", ["file", "s3"])
def test_every_type_comes_back(request, db, cluster, empty, where):
    if where == "file":
        root = request.getfixturevalue("local")
    else:
        bucket = request.getfixturevalue("s3")
        bucket.create_storage(db.conn)
    edges = {**EDGES, **{type_: EDGES.get(type_, []) + values for type_, values in MORE.items()}}
    db.execute(TYPES)
    create_edges(db, edges, ', "Odd ""name" text')
    expected = texts(db.conn, "edges")
    archive(db, "edges_1", drop_local="0")

    if where == "file":
        outcome = restore(cluster, empty, root / "public.edges/_manifests/edges_1.v1.json")
    else:
        server = bucket.server
        outcome = restore(cluster, empty, f"{bucket.location}/public.edges/_manifests/edges_1.v1.json",
                          "--endpoint", server.endpoint, "--region", REGION,
                          AWS_ACCESS_KEY_ID=server.access_key, AWS_SECRET_ACCESS_KEY=server.secret_key)

    assert outcome == (0, 0, "")
    with cluster.connect(empty) as plain:
        assert texts(plain, "edges_1") == expected
        assert plain.execute("SELECT count(*) FROM pg_extension WHERE extname = 'archive_ext'").fetchone()[0] == 0


def test_the_table_with_all_that_belongs_to_it(db, cluster, empty, local):
    create_orders(db.conn, months=1, rows=500)
    db.execute("CREATE SEQUENCE numbers; SELECT nextval('numbers') FROM generate_series(1, 7);"
               " ALTER TABLE orders ADD n bigint DEFAULT nextval('numbers')")
    db.execute("CREATE FUNCTION gone() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    db.execute("CREATE TRIGGER gone BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION gone()")
    db.execute("CREATE TRIGGER gone_too BEFORE INSERT ON orders_2024_01 FOR EACH ROW EXECUTE FUNCTION gone()")
    db.execute("COMMENT ON TABLE orders_2024_01 IS 'january'; GRANT SELECT ON orders_2024_01 TO PUBLIC")
    expected = texts(db.conn, "orders")
    archive(db, "orders_2024_01", drop_local="0")
    manifest = local / "public.orders/_manifests/orders_2024_01.v1.json"

    code, psql_code, said = restore(cluster, empty, manifest)

    assert (code, psql_code) == (0, 0)
    assert "function public.gone() does not exist" in said and said.count("ERROR") == 1
    with cluster.connect(empty) as plain:
        assert texts(plain, "orders_2024_01") == expected
        facts = plain.execute("""
            SELECT obj_description('orders_2024_01'::regclass), has_table_privilege('pg_monitor', 'orders_2024_01', 'SELECT'),
                   (SELECT count(*) FROM pg_index WHERE indrelid = 'orders_2024_01'::regclass)""").fetchone()
        assert facts == ("january", True, 2)
        assert plain.execute("SELECT nextval('numbers')").fetchone()[0] == 508

    assert restore(cluster, empty, manifest, "--table", "public.Again") == (0, 0, "")
    with cluster.connect(empty) as plain:
        assert texts(plain, '"Again"') == expected


def test_format_1_is_read(cluster, empty):
    assert restore(cluster, empty, MANIFEST_1) == (0, 0, "")
    with cluster.connect(empty) as plain:
        assert plain.execute("SELECT count(*), sum(double) FILTER (WHERE amount <> 'NaN') FROM orders_2024_01"
                             ).fetchone() == (21, 460)


def test_a_damaged_object_restores_nothing(db, cluster, empty, local):
    create_orders(db.conn, months=1, rows=500)
    archive(db, "orders_2024_01", drop_local="0")
    damaged = next(local.rglob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes().replace(b"note", b"nose", 1))

    code, _, said = restore(cluster, empty, local / "public.orders/_manifests/orders_2024_01.v1.json")

    assert code == 1 and "damaged" in said
    with cluster.connect(empty) as plain:
        assert plain.execute("SELECT to_regclass('orders_2024_01')").fetchone()[0] is None


@pytest.mark.parametrize("encoding", ["LATIN1", "SQL_ASCII"])
def test_other_encodings(cluster, db, encoding):
    """Text that UTF-8 can hold goes into any database; raw bytes of SQL_ASCII into one that takes any bytes."""
    source, target = f"{db.name}_source", f"{db.name}_target"
    template = "TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'"
    with cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {source} ENCODING '{encoding}' {template}")
        admin.execute(f"CREATE DATABASE {target} ENCODING '{'UTF8' if encoding == 'LATIN1' else encoding}' {template}")
    try:
        root = cluster.storage / source
        with cluster.connect(source, client_encoding="SQL_ASCII" if encoding == "SQL_ASCII" else "UTF8") as conn:
            conn.execute("CREATE EXTENSION archive_ext")
            conn.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
            conn.execute("CREATE TABLE words (id int, word text, words text[]) PARTITION BY RANGE (id)")
            conn.execute("CREATE TABLE words_1 PARTITION OF words FOR VALUES FROM (0) TO (100)")
            if encoding == "LATIN1":
                conn.execute("INSERT INTO words VALUES (1, 'Käse', '{ö,NULL}'), (2, 'plain', NULL)")
            else:
                conn.execute("INSERT INTO words SELECT 1, convert_from('\\xff41'::bytea, 'SQL_ASCII'), NULL")
                conn.execute("INSERT INTO words SELECT 2, convert_from('\\xc3a4'::bytea, 'SQL_ASCII'),"
                             " ARRAY[convert_from('\\xfe'::bytea, 'SQL_ASCII'), NULL, 'x y']")
            bytes_of = "SELECT id, convert_to(word, 'UTF8') w, convert_to(words::text, 'UTF8') ws FROM {} ORDER BY id"
            if encoding == "SQL_ASCII":
                bytes_of = bytes_of.replace("'UTF8'", "'SQL_ASCII'")
            expected = conn.execute(bytes_of.format("words")).fetchall()
            conn.execute("SELECT archive_partition('words_1', 'cold', drop_local => '0')")

        assert restore(cluster, target, root / "public.words/_manifests/words_1.v1.json") == (0, 0, "")

        with cluster.connect(target) as plain:
            assert plain.execute(bytes_of.format("words_1")).fetchall() == expected
    finally:
        with cluster.connect() as admin:
            for name in [source, target]:
                admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
