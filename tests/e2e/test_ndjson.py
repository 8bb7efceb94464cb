"""Rows archived as lines of JSON: read by anything, exact all the same."""

import gzip
import itertools
import json
import subprocess
from decimal import Decimal

import duckdb
import psycopg
import pytest

from harness.cluster import Database
from harness.typed_tables import ODD_SETTINGS, OTHER_ODD_SETTINGS, differences, dump, fill, storage_of
from test_other_readers import duckdb_on
from type_corpus import SETUP, TYPES, shapes

FORMATS = ["ndjson.gz", "ndjson"]
EVENTS = """
    CREATE TABLE event (id bigint PRIMARY KEY, at timestamptz NOT NULL, day date, price numeric(12,2), exact numeric, share float8,
                        note text, doc jsonb, tags text[], token uuid, raw bytea);
    INSERT INTO event SELECT n, timestamptz '2024-01-01Z' + n * interval '1 hour 0.000001 s', date '2024-01-01' + n, n / 8.0, n / 7.0,
                             n / 3.0::float8, E'line\\n"' || n, jsonb_build_object('n', n, 'half', n / 2.0),
                             ARRAY['a' || n, NULL], md5(n::text)::uuid, decode(md5(n::text), 'hex')
                      FROM generate_series(1, 2000) n;
    INSERT INTO event VALUES (2001, '2024-01-31Z', 'infinity', 'NaN', 'NaN', '-Infinity', NULL, 'null', '{{a,b}}', NULL, NULL)"""
_tables = itertools.count(1)


@pytest.fixture
def events(db, cluster):
    db.root = storage_of(db)
    db.conn.execute(EVENTS)
    db.execute("CREATE TABLE truth AS TABLE event")
    return db


def archive(db, format_, **options):
    given = "".join(f", {name} => {value}" for name, value in options.items())
    db.execute(f"CALL archive_table('event', NULL, where_clause => 'true', time_column => 'at', format => '{format_}'{given})")


def objects(db):
    return sorted(path for path in (db.root / "public.event").rglob("*") if path.is_file() and "_manifests" not in path.parts)


def lines(path):
    with (gzip.open(path, "rt") if path.suffix == ".gz" else path.open()) as file:
        return [json.loads(line, parse_float=Decimal) for line in file]


def is_the_truth(db, relation):
    assert db.all(f"TABLE {relation} EXCEPT TABLE truth") == []
    assert db.value(f"SELECT count(*) FROM {relation}") == db.value("SELECT count(*) FROM truth")


@pytest.mark.parametrize("format_", FORMATS)
def test_p5_rows_are_exact_and_lines_plain(events, format_):
    archive(events, format_, batch_rows=700)
    is_the_truth(events, "archive.event")
    is_the_truth(events, "archive.event_all")
    found = [line for path in objects(events) for line in lines(path)]
    assert all(path.name.endswith(f".{format_}") for path in objects(events)) and len(objects(events)) == 3
    first, last = found[0], found[-1]
    assert first | {"share": 0, "exact": 0} == {
        "id": 1, "at": "2024-01-01T01:00:00.000001Z", "day": "2024-01-02", "price": Decimal("0.13"), "exact": 0, "share": 0,
        "note": 'line\n"1', "doc": {"n": 1, "half": Decimal("0.50000000000000000000")}, "tags": ["a1", None],
        "token": "c4ca4238-a0b9-2382-0dcc-509a6f75849b", "raw": "\\xc4ca4238a0b923820dcc509a6f75849b"}
    assert first["exact"] == events.value("SELECT exact::text FROM truth WHERE id = 1")
    beside = {name: last.pop(name) for name in list(last) if name.endswith("__pg")}
    assert beside == {"day__pg": "infinity", "price__pg": "NaN", "exact__pg": "NaN", "share__pg": "-Infinity", "doc__pg": "null",
                      "tags__pg": "{{a,b}}"}
    assert {name for name, value in last.items() if value is not None} == {"id", "at"}


def test_duckdb_reads_lines(events):
    archive(events, "ndjson.gz")
    sums = "count(*), sum(id), sum(price), max(day), min(note), count(doc)"
    expected = events.row(f"SELECT {sums} FROM truth WHERE id < 2001")
    source = f"read_json('{events.root}/public.event/**/*.ndjson.gz', hive_partitioning => false)"
    connection = duckdb.connect()
    found = connection.execute(f"SELECT {sums.replace('sum(price)', 'sum(price::decimal(12,2))')} FROM {source} WHERE id < 2001").fetchone()
    assert tuple(found) == tuple(expected)
    types = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {source})").fetchall())
    assert (types["id"], types["day"], types["price"], types["token"], types["tags"]) == ("BIGINT", "DATE", "DOUBLE", "UUID", "VARCHAR[]")
    times = connection.execute(f"SELECT epoch_us(max(\"at\"::timestamptz)), epoch_us(min(\"at\"::timestamptz)) FROM {source}").fetchone()
    assert times == events.row("SELECT (extract(epoch FROM max(at)) * 1e6)::bigint, (extract(epoch FROM min(at)) * 1e6)::bigint FROM truth")


def test_duckdb_reads_lines_from_s3(db, s3_signed):
    db.conn.execute(EVENTS)
    s3_signed.create_storage(db.conn)
    db.execute("CALL archive_table('event', NULL, where_clause => 'true', storage => 'cold', format => 'ndjson')")
    source = f"read_json('{s3_signed.location}/public.event/*.ndjson')"
    found = duckdb_on(s3_signed).execute(f"SELECT count(*), sum(id) FROM {source}").fetchone()
    assert found == (2001, 2001 * 1001)
    assert db.row("SELECT count(*), sum(id) FROM archive.event") == found


def test_zcat_and_jq_read_lines(events):
    archive(events, "ndjson.gz", batch_rows=500)
    names = " ".join(f"'{path}'" for path in objects(events))
    count = "jq -s 'map(select(.price >= 100 and .doc.n % 2 == 0)) | [length, (map(.id) | add)]'"
    done = subprocess.run(f"zcat {names} | {count}", shell=True, check=True, capture_output=True, text=True, timeout=60)
    expected = events.row("SELECT count(*), sum(id) FROM truth WHERE price >= 100 AND price <> 'NaN' AND (doc->>'n')::int % 2 = 0")
    assert json.loads(done.stdout) == list(map(int, expected))


@pytest.mark.parametrize("format_", FORMATS)
def test_lines_are_merged_restored_marked_and_imported(events, format_):
    """What is done with Parquet objects is done with these, and they stay what they are."""
    events.execute("ALTER TABLE event ADD is_archived boolean NOT NULL DEFAULT false")
    events.execute("ALTER TABLE truth ADD is_archived boolean NOT NULL DEFAULT false")
    archive(events, format_, batch_rows=100, mode="'mark'")
    assert events.value("SELECT purge_marked('event')") == 2001
    before = len(objects(events))
    events.execute("SELECT compact_archive('event', time_column => 'at', min_objects => 2)")
    assert events.value("SELECT count(*) FROM archive_ext.objects") < before
    is_the_truth(events, "archive.event")
    assert events.value("SELECT restore_rows('event', 'id IN (5, 2001)')") == 2
    is_the_truth(events, "archive.event_all")
    assert {key[key.rindex("/"):].partition(".")[2].split(".", 3)[3] for [key] in events.all("SELECT key FROM archive_ext.objects")} == {format_}
    assert events.value("SELECT get_archived_record('event', 7) ->> 'token'") == str(events.value("SELECT token FROM truth WHERE id = 7"))
    assert events.value("SELECT get_archived_record('event', 999999)") is None
    archive(events, format_)  # of the very last call a storage alone cannot tell whether it was committed
    copy = Database(events.cluster, "lines_copy")
    try:
        storage_of_copy = f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{events.root}')"
        copy.execute(storage_of_copy)
        copy.execute("SELECT import_archive('cold', dry_run => false)")
        assert copy.row("SELECT count(*), sum(id) FROM archive.event") == events.row("SELECT count(*), sum(id) FROM archive.event")
    finally:
        copy.drop()


def test_a_policy_names_the_format(events):
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="format must be 'parquet', 'ndjson.gz' or 'ndjson'"):
        archive(events, "csv")
    events.execute("SELECT set_archive_policy('event', archive_after => '1 day', format => 'ndjson', storage => 'cold', time_column => 'at')")
    events.execute("CALL run_lifecycle()")
    is_the_truth(events, "archive.event")
    assert {path.suffix for path in objects(events)} == {".ndjson"}
    events.execute("CREATE TABLE t (at date NOT NULL) PARTITION BY RANGE (at)")
    with pytest.raises(psycopg.Error) as refused:
        events.execute("SELECT set_archive_policy('t', archive_after => '1 day', format => 'ndjson')")
    assert "partitions are archived as parquet" in str(refused.value.diag.message_detail)


def damaged(path, change):
    data = path.read_bytes()
    path.write_bytes(change(data))


@pytest.mark.parametrize("change, error", [
    (lambda data: data[:-100], "shorter than expected"),
    (lambda data: data[:-30] + b"}" * 30, "not what was written"),
    (lambda data: data[:1000] + bytes([data[1000] ^ 1]) + data[1001:], "not what was written"),
], ids=["cut", "end", "flipped"])
def test_p12_damaged_lines_are_errors(events, change, error):
    archive(events, "ndjson.gz")
    [path] = objects(events)
    path.chmod(0o600)
    damaged(path, change)
    with pytest.raises(psycopg.Error, match=error):
        events.value("SELECT count(note) FROM archive.event")


@pytest.fixture(scope="module")
def typed(cluster):
    database = Database(cluster, "lines_of_types")
    names = database.all("SELECT name FROM pg_available_extensions WHERE name NOT IN ('archive_ext', 'pg_cron') ORDER BY 1")
    for [name] in names:
        database.execute(f'CREATE EXTENSION IF NOT EXISTS "{name}" CASCADE')
    for statement in SETUP.strip().split(";\n"):
        database.execute(statement)
    storage_of(database)
    yield database
    database.drop()


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_p5_every_value_comes_back_from_lines(typed, type_):
    """As test_p5_every_value_comes_back of test_types.py, by rows."""
    number = next(_tables)
    ddl, columns = shapes(type_, number)
    typed.execute(ddl)
    table = f"t{number}"
    typed.execute(f"CREATE TABLE {table} (k int PRIMARY KEY, " + ", ".join(f"{name} {kind}" for name, kind, _ in columns) + ")")
    fill(typed, table, columns, nullable=type_.nullable)
    before = dump(typed.conn, table, columns, type_.binary)
    odd = typed.connect()
    odd.execute(ODD_SETTINGS)
    odd.execute(f"SELECT archive_table_batch('{table}', NULL, where_clause => 'true', format => 'ndjson.gz')")
    assert typed.value(f"SELECT count(*) FROM {table}") == 0
    assert differences(before, dump(typed.conn, f"archive.{table}", columns, type_.binary)) == []
    odd.execute(OTHER_ODD_SETTINGS)
    odd.execute(f"SELECT restore_rows('{table}', 'true')")
    odd.close()
    assert differences(before, dump(typed.conn, table, columns, type_.binary)) == []
