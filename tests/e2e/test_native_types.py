"""What DuckDB and pyarrow make of the types: native columns, nested ones too, and the sidecars of what those cannot hold.

That each value of the corpus is found by DuckDB, natively or in a sidecar, is shown by test_types.py; here are the Parquet
types themselves, and what is inside lists and structs.
"""

import uuid
from datetime import date, datetime, time, timezone
from decimal import Decimal

import duckdb
import pyarrow as pa
import pyarrow.parquet
import pytest

from harness.cluster import Database
from harness.orders import archive
from harness.typed_tables import create_partitioned, fill, storage_of

UTC = timezone.utc
# SQL type -> DuckDB's type, Arrow's type, and (literal, what Python gets to see)…; OUTLIER where only the sidecar has it
OUTLIER = object()
NATIVE = {
    "boolean": ("BOOLEAN", pa.bool_(), [("true", True), ("false", False)]),
    "smallint": ("SMALLINT", pa.int16(), [("-32768", -32768)]),
    "integer": ("INTEGER", pa.int32(), [("2147483647", 2147483647)]),
    "bigint": ("BIGINT", pa.int64(), [("-9223372036854775808", -2**63)]),
    "real": ("FLOAT", pa.float32(), [("0.5", 0.5), ("Infinity", float("inf"))]),
    "double precision": ("DOUBLE", pa.float64(), [("0.1", 0.1), ("1e300", 1e300)]),
    "numeric(12,2)": ("DECIMAL(12,2)", pa.decimal128(12, 2), [("1.10", Decimal("1.10")), ("NaN", OUTLIER)]),
    "numeric(38,38)": ("DECIMAL(38,38)", pa.decimal128(38, 38), [("0." + "9" * 38, Decimal("0." + "9" * 38))]),
    "numeric": ("VARCHAR", pa.string(), [("1.10", "1.10"), ("NaN", "NaN")]),
    "text": ("VARCHAR", pa.string(), [("ä€😀", "ä€😀"), ("", "")]),
    "varchar(5)": ("VARCHAR", pa.string(), [("ab", "ab")]),
    "bytea": ("BLOB", pa.binary(), [("\\x00ff", b"\x00\xff")]),
    "date": ("DATE", pa.date32(), [("2024-02-29", date(2024, 2, 29)), ("infinity", OUTLIER)]),
    "time": ("TIME", pa.time64("us"), [("12:34:56.789", time(12, 34, 56, 789000)), ("24:00:00", OUTLIER)]),
    "timestamp": ("TIMESTAMP", pa.timestamp("us"), [("2024-01-01 00:00:00.000001", datetime(2024, 1, 1, 0, 0, 0, 1)),
                                                    ("-infinity", OUTLIER)]),
    "timestamptz": ("TIMESTAMP WITH TIME ZONE", pa.timestamp("us", tz="UTC"), [
        ("2024-01-01 00:00:00+05", datetime(2023, 12, 31, 19, tzinfo=UTC)), ("infinity", OUTLIER)]),
    "uuid": ("UUID", pa.uuid(), [("01234567-89ab-cdef-0123-456789abcdef",
                                      uuid.UUID("01234567-89ab-cdef-0123-456789abcdef"))]),
    "json": ("JSON", None, [('{"a":  1.10}', '{"a":  1.10}')]),
    "jsonb": ("JSON", None, [('{"a": 1.10}', '{"a": 1.10}')]),
    "money": ("BIGINT", pa.int64(), [("1.10", 110), ("-0.01", -1)]),
    "oid": ("UINTEGER", pa.uint32(), [("4294967295", 4294967295)]),
    "regclass": ("STRUCT(oid UINTEGER, name VARCHAR)", pa.struct([("oid", pa.uint32()), ("name", pa.string())]), [
        ("pg_class", {"oid": 1259, "name": "pg_class"})]),
    "interval": ("STRUCT(months INTEGER, days INTEGER, micros BIGINT)",
                 pa.struct([("months", pa.int32()), ("days", pa.int32()), ("micros", pa.int64())]),
                 [("1 mon -1 day 00:00:00.000001", {"months": 1, "days": -1, "micros": 1})]),
    "mood": ("VARCHAR", pa.string(), [("happy", "happy")]),
    "amount": ("DECIMAL(8,3)", pa.decimal128(8, 3), [("1.5", Decimal("1.500"))]),
    "integer[]": ("INTEGER[]", pa.list_(pa.int32()), [
        ("{1,NULL,3}", [1, None, 3]), ("{}", []), ("{{1,2},{3,4}}", OUTLIER), ("[0:1]={1,2}", OUTLIER)]),
    "text[]": ("VARCHAR[]", pa.list_(pa.string()), [('{a,NULL,"NULL",""}', ["a", None, "NULL", ""])]),
    "uuid[]": ("UUID[]", pa.list_(pa.uuid()), []),
    "timestamptz[]": ("TIMESTAMP WITH TIME ZONE[]", pa.list_(pa.timestamp("us", tz="UTC")), [
        ("{2024-01-01 00:00:00+00}", [datetime(2024, 1, 1, tzinfo=UTC)])]),
    "place": ("STRUCT(x INTEGER, label VARCHAR, price DECIMAL(8,3))",
              pa.struct([("x", pa.int32()), ("label", pa.string()), ("price", pa.decimal128(8, 3))]),
              [("(1,a,1.5)", {"x": 1, "label": "a", "price": Decimal("1.500")}),
               ("(,,)", {"x": None, "label": None, "price": None}), ("(1,a,NaN)", OUTLIER)]),
    "place[]": ("STRUCT(x INTEGER, label VARCHAR, price DECIMAL(8,3))[]", None, [
        ('{"(1,a,)",NULL}', [{"x": 1, "label": "a", "price": None}, None])]),
    "trip": ("STRUCT(stops STRUCT(x INTEGER, label VARCHAR, price DECIMAL(8,3))[], start STRUCT(x INTEGER, label VARCHAR,"
             " price DECIMAL(8,3)))", None, [
                 ('("{""(1,a,2)""}","(2,b,)")', {"stops": [{"x": 1, "label": "a", "price": Decimal("2.000")}],
                                                 "start": {"x": 2, "label": "b", "price": None}})]),
    "point": ("VARCHAR", pa.string(), [("(1,0.1)", "(1,0.1)")]),
    "inet": ("VARCHAR", pa.string(), [("10.0.0.1/8", "10.0.0.1/8")]),
    "int4range": ("VARCHAR", pa.string(), [("[1,5)", "[1,5)"), ("empty", "empty")]),
    "tstzrange": ("VARCHAR", pa.string(), [("[2024-01-01 00:00:00+05,)", '["2023-12-31 19:00:00+00",)')]),
    "time with time zone": ("VARCHAR", pa.string(), [("12:00:00+05:30", "12:00:00+05:30")]),
    "bit(3)": ("VARCHAR", pa.string(), [("101", "101")]),
    "hstore": ("VARCHAR", pa.string(), [("a=>1", '"a"=>"1"')]),
}


@pytest.fixture(scope="module")
def db(cluster):
    database = Database(cluster, "native_types")
    database.execute("""
        CREATE EXTENSION hstore; CREATE TYPE mood AS ENUM ('happy', 'sad'); CREATE DOMAIN amount AS numeric(8,3);
        CREATE TYPE place AS (x int, label text, price amount); CREATE TYPE trip AS (stops place[], start place)""")
    database.root = storage_of(database)
    yield database
    database.drop()


@pytest.mark.parametrize("type_", NATIVE)
def test_other_engines_read_it(db, type_):
    duck, arrow, values = NATIVE[type_]
    table = f"t{list(NATIVE).index(type_)}"
    columns = [("c", type_, [literal for literal, _ in values])]
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    texts = dict(db.all(f"SELECT k, c::text FROM {table}"))
    db.execute("SET timezone = 'Asia/Tokyo'")
    archive(db, f"{table}_1", drop_local="0")
    db.execute("RESET timezone")
    [file] = (db.root / f"public.{table}").rglob("*.parquet")

    connection = duckdb.connect()
    connection.execute("SET timezone = 'UTC'")
    column = f"CAST(c AS {duck.replace(' WITH TIME ZONE', '')})" if "ZONE" in duck else "c"  # Python has no zones for it
    rows = f"SELECT * FROM read_parquet('{file}', hive_partitioning => false) ORDER BY k"
    assert {c: t for c, t, *_ in connection.execute(f"DESCRIBE {rows}").fetchall()}["c"].replace('"', "") == duck
    table = pa.parquet.read_table(file).to_pylist()
    if arrow is not None:
        assert pa.parquet.read_schema(file).field("c").type == arrow
    for k, (literal, expected) in enumerate([*values, ("NULL", None)]):
        seen = connection.execute(f"SELECT {column} FROM ({rows}) WHERE k = {k}").fetchone()[0]
        outlier = table[k].get("c__pg")
        if expected is OUTLIER:
            assert (seen, table[k]["c"], outlier) == (None, None, texts[k]), literal
        else:
            assert (seen, table[k]["c"], outlier) == (naive(expected), expected, None), literal
    has_outliers = any(expected is OUTLIER for _, expected in values)
    assert ("c__pg" in table[0]) == has_outliers, "a sidecar exists only when a file needs it"


def naive(value):
    if isinstance(value, list):
        return [naive(v) for v in value]
    return value.replace(tzinfo=None) if isinstance(value, datetime) else value
