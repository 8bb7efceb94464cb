"""`make bench`: one table, every figure with what it is to be and a reference of the same run.

    --quick        less data and fewer runs, three minutes
    --only WORD    the groups whose name begins with WORD
    --json FILE    where the same goes as JSON
    --large        instead: export of 2 GB and of 20 GB
"""

import argparse
import tempfile
import time
from pathlib import Path

from harness.cluster import Cluster, Database

from . import exports, large, s3, scans
from .report import Report
from .tables import create_reference


def main():
    arguments = argparse.ArgumentParser(prog="make bench", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    arguments.add_argument("--quick", action="store_true")
    arguments.add_argument("--only", default="")
    arguments.add_argument("--large", action="store_true")
    arguments.add_argument("--json", default="/var/tmp/archive_ext_bench.json")
    chosen = arguments.parse_args()
    quick, runs = chosen.quick, 3 if chosen.quick else 5
    rows = 200_000 if quick else 1_000_000
    report = Report(quick)
    cluster = Cluster("shared_buffers=2GB", "max_wal_size=16GB", "work_mem=256MB", "maintenance_work_mem=512MB", "jit=off",
                      "max_locks_per_transaction=4096", "autovacuum=off", "checkpoint_timeout=1h",
                      "archive_ext.enable_catalog_answers=on", "archive_ext.metadata_cache=16MB")
    temporary = tempfile.TemporaryDirectory(prefix="archive_ext_bench.")
    server = None
    began = time.monotonic()

    def database(name):
        db = Database(cluster, name)
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / name}')")
        for setting in ["archive_ext.default_storage = 'cold'", "archive_ext.max_swap_time = 0"]:
            db.execute(f"ALTER DATABASE {name} SET {setting}")
        db.reconnect()
        return db

    def group(name, work):
        if not name.startswith(chosen.only):
            return
        db = database(name)
        try:
            work(db)
        finally:
            db.drop()

    def export(db):
        exports.exports(db, report, 2 * runs + 1, rows)
        exports.sizes(db, report)
        exports.way_back(db, report, runs)
        exports.pgbench(db, report, runs, 4 if quick else 20)

    def scan(db):
        scans.scans(db, report, runs, rows)
        scans.from_manifest(db, report)
        scans.parallel(db, report)

    def over_http(db):
        bucket = s3.bucket(server, "lookups")
        bucket.create_storage(db.conn, "remote")
        db.reconnect()
        s3.lookups(db, report, bucket, 100 if quick else 1000)

    def beside_duckdb(db):
        bucket = s3.bucket(server, "duckdb")
        bucket.create_storage(db.conn, "remote")
        db.reconnect()
        create_reference(db, "s3", rows)
        s3.beside_duckdb(db, report, bucket, runs)

    try:
        if chosen.large:
            group("planning", lambda db: scans.planning(db, report, 1000 if quick else 10_000))
            group("large", lambda db: large.exports(db, report, quick))
        else:
            group("export", export)
            group("swap", lambda db: exports.swaps(db, report, 200 if quick else 1000, 30 if quick else 100))
            group("scan", scan)
            group("selective", lambda db: scans.selective(db, report, 100 if quick else 1000))
            server = s3.server(Path(temporary.name))
            group("lookup", over_http)
            group("duckdb", beside_duckdb)
            # 10,000 take a quarter of an hour to be archived: bench-large.
            group("planning", lambda db: scans.planning(db, report, 1000))
        with cluster.connect() as session:
            version = session.execute("SHOW server_version").fetchone()[0]
        report.write(chosen.json, version.split()[0])
        print(f"it took {time.monotonic() - began:.0f} s")
    finally:
        if server:
            server.stop()
        cluster.stop()
        temporary.cleanup()


main()
