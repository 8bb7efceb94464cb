"""What goes over HTTP: lookups over many objects, and DuckDB beside us. The server is s3s-fs, whose CPU is not counted."""

import statistics
import time
from importlib.resources import files

import duckdb

from harness.s3 import Bucket, S3sFs

from .scans import explained


def duck_for(server):
    duck = duckdb.connect()
    extension = files("duckdb_extension_httpfs") / "extensions" / f"v{duckdb.__version__}" / "httpfs.duckdb_extension"
    duck.execute(f"LOAD '{extension}'")
    duck.execute(f"""CREATE SECRET (TYPE s3, KEY_ID '{server.access_key}', SECRET '{server.secret_key}', REGION 'eu-west-1',
                     ENDPOINT '{server.endpoint.removeprefix("http://")}', URL_STYLE 'path', USE_SSL false)""")
    return duck


def lookups(db, report, bucket, objects):
    """A row by its key in an archive of many objects; a raw GET in the same run is what it is measured against."""
    rows = objects * 200
    db.execute("CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, what text, payload text)")
    db.execute("INSERT INTO audit SELECT n, timestamptz '2024-01-01Z' + n * interval '1 minute', 'login ' || n, md5(n::text)"
               f" FROM generate_series(1, {rows}) n")
    # Keys are spread over all objects, so that ranges rule none out.
    db.execute("UPDATE audit SET at = timestamptz '2024-01-01Z' + (id * 7919 %% %s) * interval '1 minute'", [rows])
    db.execute("CALL archive_table('audit', archive_before => '2044-01-01Z', batch_rows => 200)")
    found = db.value("SELECT count(*) FROM archive_ext.objects WHERE table_name = 'audit'::regclass")
    keys = [1 + n * 7907 % rows for n in range(40)]
    requests, ours = [], []
    for key in keys:
        query = f"SELECT what FROM archive.audit WHERE id = {key}"
        began = time.perf_counter()
        assert db.row(query) == (f"login {key}",)
        ours.append(time.perf_counter() - began)
        nodes = explained(db.conn, query, analyze=True)
        requests.append(sum(node.get("Storage Read Requests", 0) for node in nodes))
    raw, key = [], bucket.data_keys()[0]
    for _ in range(len(keys)):
        began = time.perf_counter()
        bucket.read(key)
        raw.append(time.perf_counter() - began)
    report.bound(f"point lookup over {found} files, requests", "", max(requests[1:]), 3)
    report.ratio("point lookup, wall", "ms", statistics.median(ours) * 1e3, statistics.median(raw) * 1e3, "raw GET", 3.0)
    absent = 0
    for n in range(200):
        nodes = explained(db.conn, f"SELECT what FROM archive.audit WHERE id = {rows + 1 + n * 13}", analyze=True)
        absent += sum(node.get("Storage Read Requests", 0) for node in nodes) == 0
    report.ratio("point lookup of an absent key, no request", "", absent, 200, "lookups", 0.99, at_least=True)


def beside_duckdb(db, report, bucket, runs):
    """The same file from the same server: scans of one column and of several, and one row by its key."""
    db.execute("SELECT archive_partition('s3_1', drop_local => '0')")
    (key,) = [key for key in bucket.data_keys() if "/s3_1." in key]
    file = f"read_parquet('s3://{bucket.name}/{key}')"
    duck = duck_for(bucket.server)
    duck.execute("SET threads = 1")
    # Both read from the server; what DuckDB keeps of files that it has read would be measured otherwise.
    duck.execute("SET enable_external_file_cache = false")
    db.execute("SET max_parallel_workers_per_gather = 0")
    row = db.value("SELECT max(id) / 2 FROM archive.s3")
    queries = {
        "scan of one column": ("SELECT sum(n) FROM {}", 2.0),
        "scan of five columns": ("SELECT sum(n), sum(ratio), max(name), count(key), max(id) FROM {}", 2.0),
        "row by its key": (f"SELECT name FROM {{}} WHERE id = {row}", 1.0),
    }
    for what, (query, limit) in queries.items():
        ours, theirs = [], []
        for run in range(runs + 1):
            began = time.perf_counter()
            mine = db.row(query.format("archive.s3"))
            middle = time.perf_counter()
            other = duck.execute(query.format(file)).fetchone()
            ended = time.perf_counter()
            assert mine[0] == other[0], (mine, other)
            if run:
                ours.append(middle - began)
                theirs.append(ended - middle)
        report.ratio(f"S3, {what}, wall", "ms", statistics.median(ours) * 1e3, statistics.median(theirs) * 1e3, "DuckDB", limit,
                     note="one thread each")
    db.execute("RESET max_parallel_workers_per_gather")


def server(tmp):
    root = tmp / "s3s"
    root.mkdir()
    return S3sFs(root, "bench", "bench-secret-key")


def bucket(server, name):
    return Bucket(server, name)
