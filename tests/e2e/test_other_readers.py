"""What DuckDB and pyarrow see in the files is what PostgreSQL held."""

import datetime
import json
from decimal import Decimal
from importlib.resources import files

import duckdb
import pyarrow.dataset
import pyarrow.fs
import pytest

from harness.orders import archive, create_orders
from harness.s3 import REGION

TYPES = """
    id bigint NOT NULL, at timestamptz NOT NULL, local timestamp, day date, hour time, ok boolean,
    small smallint, medium int, single real, double double precision, price numeric(12,2), label text,
    short varchar(20), fixed char(5), raw bytea, uid uuid, doc jsonb, source json, numbers int[], names text[],
    prices numeric(8,3)[]"""

VALUES = """
    n, '2024-01-01 00:00+00'::timestamptz + n * interval '61.000001 seconds',
    '2024-01-01'::timestamp + n * interval '1 hour',
    '2024-01-01'::date + n, '00:00'::time + n * interval '7 seconds', n % 2 = 0, n, n * 1000, n / 8.0, n / 3.0,
    n * 1.01, 'läbel ' || n, 'v' || n, 'c' || n, decode(md5(n::text), 'hex'), md5(n::text)::uuid,
    jsonb_build_object('n', n), json_build_object('n', n), ARRAY[n, NULL, n + 1], ARRAY['a' || n, NULL],
    ARRAY[n * 0.125]"""


@pytest.fixture(params=["file", "s3", "s3_signed"])
def stored(request, db, cluster):
    """Makes the storage `cold`. Gives a function: table -> DuckDB connection, a glob for it, a pyarrow dataset."""
    db.execute("SET timezone = 'Europe/Berlin'")
    if request.param == "file":
        root = cluster.storage / db.name
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
        db.execute("SET archive_ext.default_storage = 'cold'")
        return lambda table: (duckdb.connect(), f"{root}/public.{table}/**/*.parquet",
                              pyarrow.dataset.dataset(f"{root}/public.{table}", format="parquet"))
    bucket = request.getfixturevalue(request.param)
    bucket.create_storage(db.conn)
    return lambda table: (duckdb_on(bucket), f"{bucket.location}/public.{table}/archive_year=*/*/*.parquet",
                          pyarrow.dataset.dataset([f"{bucket.name}/{key}" for key in bucket.data_keys()],
                                                  format="parquet", filesystem=arrow_on(bucket)))


def duckdb_on(bucket):
    connection = duckdb.connect()
    extension = files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    connection.execute(f"LOAD '{extension}'")
    server = bucket.server
    connection.execute(f"""
        CREATE SECRET (TYPE s3, KEY_ID '{server.access_key}', SECRET '{server.secret_key}', REGION '{REGION}',
                       ENDPOINT '127.0.0.1:{server.port}', USE_SSL false, URL_STYLE 'path')""")
    return connection


def arrow_on(bucket):
    server = bucket.server
    return pyarrow.fs.S3FileSystem(access_key=server.access_key, secret_key=server.secret_key, region=REGION,
                                   endpoint_override=f"127.0.0.1:{server.port}", scheme="http")


def test_counts_and_sums_agree(db, stored):
    create_orders(db.conn, months=3, rows=2000)
    aggregates = ("count(*), sum(amount), sum(items), count(note), count(DISTINCT status), min(customer_id),"
                  " max(customer_id)")
    expected = tuple(db.row(f"SELECT {aggregates} FROM orders"
                            " WHERE tableoid IN ('orders_2024_01'::regclass, 'orders_2024_02'::regclass)"))
    archive(db, "orders_2024_01", drop_local="0")
    archive(db, "orders_2024_02", drop_local="0")

    connection, glob, dataset = stored("orders")

    assert connection.execute(f"SELECT {aggregates} FROM read_parquet('{glob}')").fetchone() == expected
    table = dataset.to_table()
    assert table.num_rows == expected[0]
    assert sum(v.as_py() for v in table["amount"]) == expected[1]
    assert sum(table["items"].to_pylist()) == expected[2]
    assert table.num_rows - table["note"].null_count == expected[3]
    assert len(set(table["status"].to_pylist())) == expected[4]


def test_hive_partitions_are_columns_that_hide_nobodys(db, stored):
    create_orders(db.conn, months=2, rows=100)
    archive(db, "orders_2024_01", drop_local="0")

    connection, glob, _ = stored("orders")

    found = connection.execute(
        f"SELECT DISTINCT archive_year::int, archive_month::int FROM read_parquet('{glob}', hive_partitioning => true)")
    assert found.fetchall() == [(2024, 1)]


def test_types_are_native_and_values_equal(db, stored):
    db.execute(f"CREATE TABLE things ({TYPES}) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE things_1 PARTITION OF things"
               " FOR VALUES FROM ('2024-01-01 00:00+00') TO ('2024-02-01 00:00+00')")
    db.execute(f"INSERT INTO things SELECT {VALUES} FROM generate_series(1, 500) AS n")
    db.execute("INSERT INTO things (id, at) VALUES (501, '2024-01-31 00:00+00')")
    expected = db.all("SELECT *, extract(epoch FROM at) * 1000000 AS micros FROM things ORDER BY id")
    archive(db, "things_1", drop_local="0")

    connection, glob, dataset = stored("things")

    duck = connection.execute(f"""
        SELECT id, epoch_us("at"), "local", "day", "hour", ok, small, medium, single, "double", price, label, short,
               rtrim(fixed), raw, uid::text, doc->>'n', source->>'n', numbers, names, prices
        FROM read_parquet('{glob}') ORDER BY id""").fetchall()
    types = dict(connection.execute(
        f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM read_parquet('{glob}'))").fetchall())
    assert [normal(r) for r in duck] == [
        normal((r.id, int(r.micros), r.local, r.day, r.hour, r.ok, r.small, r.medium, r.single, r.double, r.price,
                r.label, r.short, r.fixed and r.fixed.rstrip(), r.raw, r.uid and str(r.uid),
                r.doc and str(r.doc["n"]), r.source and str(r.source["n"]), r.numbers, r.names, r.prices))
        for r in expected]
    assert types["price"] == "DECIMAL(12,2)"
    assert types["uid"] == "UUID"
    assert types["at"] == "TIMESTAMP WITH TIME ZONE"
    assert types["local"] == "TIMESTAMP"
    assert types["day"] == "DATE"
    assert types["hour"] == "TIME"
    assert types["raw"] == "BLOB"
    assert types["numbers"] == "INTEGER[]"
    assert types["prices"] == "DECIMAL(8,3)[]"
    assert types["doc"] == "JSON"

    arrow = dataset.to_table().sort_by("id")
    assert arrow["at"].type == pyarrow.timestamp("us", tz="UTC")
    assert arrow["local"].type == pyarrow.timestamp("us")
    assert arrow["price"].type == pyarrow.decimal128(12, 2)
    assert arrow["numbers"].type.value_type == pyarrow.int32()
    assert arrow["at"].to_pylist() == [r.at.astimezone(datetime.timezone.utc) for r in expected]
    assert arrow["price"].to_pylist() == [r.price for r in expected]
    assert arrow["numbers"].to_pylist() == [r.numbers for r in expected]
    assert [v and json.loads(v) for v in arrow["doc"].to_pylist()] == [r.doc for r in expected]
    assert arrow["raw"].to_pylist() == [r.raw for r in expected]


def normal(row):
    """Decimals compare by value whatever their scale; bytes-likes as bytes."""
    return tuple(
        [normal_value(v) for v in value] if isinstance(value, list) else normal_value(value) for value in row)


def normal_value(value):
    if isinstance(value, Decimal):
        return value.normalize()
    return bytes(value) if isinstance(value, (bytearray, memoryview)) else value
