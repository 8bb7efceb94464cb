"""Reading archives: full scans, selective scans, aggregates from the manifest, planning."""

import json
import os
import statistics

import pyarrow.parquet

from . import measure
from .tables import COLUMNS, NO_JSON, ROW, create_reference


def explained(session, query, analyze=False):
    """The nodes of a plan, the outer ones first."""
    options = "ANALYZE, FORMAT JSON" if analyze else "FORMAT JSON"
    (plan,), = session.execute(f"EXPLAIN ({options}) {query}").fetchall()

    def nodes(node):
        yield node
        for below in node.get("Plans", []):
            yield from nodes(below)

    return list(nodes(plan[0]["Plan"]))


def scans(db, report, runs, rows):
    """Table R as it was archived, against a heap table of the same rows; one process each."""
    create_reference(db, "s", rows)
    db.execute("CREATE TABLE heap AS SELECT * FROM s")
    db.execute("CREATE TABLE heap_text AS SELECT doc::text AS doc FROM s")
    db.execute("VACUUM (FREEZE, ANALYZE) heap")
    db.execute("VACUUM (FREEZE, ANALYZE) heap_text")
    db.execute("SELECT archive_partition('s_1', drop_local => '0')")
    db.execute("SET max_parallel_workers_per_gather = 0")
    every = ", ".join(f"count({column})" for column in NO_JSON)
    for what, ours, heap, limit in [
        ("scan, one column aggregated, CPU", "SELECT sum(n) FROM archive.s", "SELECT sum(n) FROM heap", 1.0),
        ("scan, all columns but jsonb, CPU", f"SELECT {every} FROM archive.s", f"SELECT {every} FROM heap", 4.0),
        ("scan, a jsonb column, CPU", "SELECT count(doc) FROM archive.s", "SELECT count(doc::jsonb) FROM heap_text", 1.3),
    ]:
        assert db.row(ours) == db.row(heap)
        costs = measure.interleaved(db.conn, {"ours": ours, "heap": heap}, runs)
        report.ratio(what, "s", costs["ours"].cpu, costs["heap"].cpu, "heap", limit)
    db.execute("RESET max_parallel_workers_per_gather")


def from_manifest(db, report):
    """Aggregates that the manifest knows open no object: one leaf, the archive, and the view over hot and archived rows."""
    aggregates = ["count(*)", "min(id)", "max(id)", "min(at)", "max(at)", "min(n)", "max(amount)", "max(ratio)", "min(key::text)",
                  "count(*), min(at), max(at)"]
    for source, hot in [("archive.s_1", "heap"), ("archive.s", "heap"), ("archive.s_all", "heap")]:
        opened = []
        for aggregate in aggregates:
            if aggregate == "min(key::text)":
                continue  # an expression, of which no manifest knows
            query = f"SELECT {aggregate} FROM {source}"
            assert db.row(query) == db.row(f"SELECT {aggregate} FROM {hot}"), query
            nodes = explained(db.conn, query, analyze=True)
            reads = sum(node.get("Files Read", 0) + node.get("Storage Read Requests", 0) for node in nodes)
            if reads:
                opened.append(aggregate)
        report.holds(f"count, min, max of {source.removeprefix('archive.')}", not opened, "no object", ", ".join(opened))


def selective(db, report, groups):
    """One row group of many: bytes against those of its columns in the file, and requests."""
    rows = groups * 10_000
    db.execute("CREATE TABLE sel (id bigint NOT NULL, at timestamptz NOT NULL, n int, name text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE sel_1 PARTITION OF sel FOR VALUES FROM ('2024-01-01Z') TO ('2034-01-01Z')")
    db.execute("INSERT INTO sel_1 SELECT n, timestamptz '2024-01-01Z' + n * interval '1 second', n % 977, 'name ' || md5(n::text)"
               f" FROM generate_series(1, {rows}) n")
    db.execute("SET archive_ext.row_group_rows = 10000")
    db.execute("SELECT archive_partition('sel_1', drop_local => '0')")
    db.execute("RESET archive_ext.row_group_rows")
    group = groups // 2
    low, high = group * 10_000 + 1, (group + 1) * 10_000
    # A worker would be another process, which has read no footer yet.
    db.execute("SET max_parallel_workers_per_gather = 0")
    query = f"SELECT sum(n) FROM archive.sel WHERE id BETWEEN {low} AND {high}"
    assert db.row(query) == (sum(n % 977 for n in range(low, high + 1)),)
    # The footer is remembered by now: a session's second look at a file asks for pages only.
    scan = next(node for node in explained(db.conn, query, analyze=True) if node["Node Type"] == "Foreign Scan")
    (file,) = [p for p in db.cluster.storage.rglob("sel_1.v*.parquet")]
    columns = pyarrow.parquet.ParquetFile(file).metadata.row_group(group)
    chunks = {columns.column(i).path_in_schema: columns.column(i).total_compressed_size for i in range(columns.num_columns)}
    ideal = chunks["id"] + chunks["n"]
    report.ratio(f"selective scan, 1 of {groups} row groups", "kB", scan["Storage Read Bytes"] / 1e3, ideal / 1e3, "ideal", 1.2)
    report.bound("selective scan, requests", "", scan["Storage Read Requests"], 4, "2 + 2 columns")


def planning(db, report, partitions):
    """Planning a query of 5 of many archived partitions, and of the same heap partitions. Of two levels: PostgreSQL reads the list of a
    table's partitions anew after each that goes, which for 10,000 of one table would take an hour."""
    below = 500
    db.execute("CREATE TABLE plan (id int, day date) PARTITION BY RANGE (day)")
    db.execute("CREATE TABLE twin (id int, day date) PARTITION BY RANGE (day)")
    for table in ["plan", "twin"]:
        for first in range(0, partitions, below):
            end = min(first + below, partitions)
            db.execute(f"""DO $$ BEGIN
                EXECUTE format('CREATE TABLE {table}_from_{first} PARTITION OF {table} FOR VALUES FROM (%L) TO (%L) PARTITION BY RANGE (day)',
                               date '2000-01-01' + {first}, date '2000-01-01' + {end});
                FOR n IN {first}..{end - 1} LOOP
                EXECUTE format('CREATE TABLE {table}_%s PARTITION OF {table}_from_{first} FOR VALUES FROM (%L) TO (%L)', n,
                               date '2000-01-01' + n, date '2000-01-02' + n); END LOOP; END $$""")
        db.execute(f"INSERT INTO {table} SELECT n, date '2000-01-01' + n FROM generate_series(0, {partitions - 1}) n")
        db.execute(f"ANALYZE {table}")
    for first in range(0, partitions, 250):
        names = ", ".join(f"'plan_{n}'" for n in range(first, min(first + 250, partitions)))
        db.execute(f"SELECT count(*) FROM archive_partitions(ARRAY[{names}]::regclass[], drop_local => '0')")
    days = f"day >= date '2000-01-01' + {partitions // 2 + 10} AND day < date '2000-01-01' + {partitions // 2 + 15}"
    times = {}
    with db.cluster.connect(db.name) as session:
        for table in ["archive.plan", "twin"] * 40:
            ((plan,),) = session.execute(f"EXPLAIN (SUMMARY, FORMAT JSON) SELECT count(id) FROM {table} WHERE {days}").fetchall()
            times.setdefault(table, []).append(plan[0]["Planning Time"])
    ours, heap = (statistics.median(times[table][1:]) for table in ["archive.plan", "twin"])
    report.ratio(f"planning, 5 of {partitions} partitions", "ms", ours, heap, "heap", 2.0)


def parallel(db, report):
    """Two workers without the leader against one process."""
    cores = os.cpu_count()
    if cores < 3:
        report.unmeasured("parallel query, 2 workers", "≥ 1.7 ×", f"{cores} cores; two workers and the leader want three")
        return
    query = "SELECT sum(n), count(name), sum(amount) FROM archive.s"
    db.execute("SET parallel_leader_participation = off; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0")
    walls = {}
    for workers in [0, 2]:
        db.execute(f"SET max_parallel_workers_per_gather = {workers}")
        walls[workers] = measure.statement(db.conn, query).wall
    db.execute("RESET ALL")
    report.ratio("parallel query, 2 workers, speed", "s", walls[0], walls[2], "2 workers", 1.7, at_least=True)
