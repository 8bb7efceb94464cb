"""Export, its verification, the size of what it writes, and the way back."""

import statistics
import subprocess
import threading
import time

import duckdb
import psycopg

from . import measure
from .tables import COLUMNS, create_reference


def steps(session, job):
    """The phases of a job with what each cost."""
    costs = {}
    while True:
        cost, (row,) = measure.of(session.info.backend_pid,
                                  lambda: session.execute("SELECT more, phase FROM archive_ext.archive_step(%s)", [job]).fetchall())
        costs[row.phase] = cost
        yield row.phase, cost
        if not row.more:
            return


def begin(session, partition):
    return session.execute(f"SELECT archive_ext.begin_archive('{partition}', NULL, 'content', '0')").fetchone()[0]


def run_and_cancel(session, partition):
    """Exports and verifies a partition, and lets it be as it was: the costs of the two."""
    job, costs = begin(session, partition), {}
    for phase, cost in steps(session, job):
        costs[phase] = cost
        if phase == "verified":
            break
    session.execute("SELECT cancel_job(%s)", [job])
    return costs["exported"], costs["verified"]


def beside_copy(db, partition, runs):
    """The costs of COPY in binary form, of the export and of its verification, run by run."""
    copy, export, verify = [], [], []
    statement = f"COPY {partition} TO '/dev/null' (FORMAT binary)"
    db.conn.execute(statement)
    for _ in range(runs):
        copy.append(measure.of(db.conn.info.backend_pid, lambda: db.conn.execute(statement))[0])
        # A fresh session each time: what its threads and caches cost belongs to the export.
        with db.cluster.connect(db.name) as session:
            exported, verified = run_and_cancel(session, partition)
        export.append(exported)
        verify.append(verified)
    return copy, export, verify


def pgbench(db, report, runs, scale):
    """The same for half of pgbench's accounts, rows of three integers and a text of blanks."""
    command = [db.cluster.program("pgbench"), "--initialize", "--quiet", f"--scale={scale}", "--partitions=2", "--partition-method=range",
               f"--host={db.cluster.dir}", "--username=postgres", db.name]
    subprocess.run(command, check=True, capture_output=True)
    db.execute("VACUUM (FREEZE, ANALYZE) pgbench_accounts_1")
    copy, export, _ = beside_copy(db, "pgbench_accounts_1", runs)
    report.ratio("export of pgbench_accounts, CPU", "s", *measure.typical(export, copy, "cpu"), "COPY binary", 1.2, note="not of the targets")


def exports(db, report, runs, rows):
    """CPU and wall time against COPY in binary form."""
    create_reference(db, "r", rows)
    copy, export, verify = beside_copy(db, "r_1", runs)
    ours, theirs = measure.typical(export, copy, "cpu")
    report.ratio("export, CPU", "s", ours, theirs, "COPY binary", 1.2, note=f"{theirs / ours:.2f} times the speed of COPY")
    report.ratio("export, wall", "s", *measure.typical(export, copy, "wall"), "COPY binary", 0.7)
    report.ratio("verification, CPU", "s", *measure.typical(verify, export, "cpu"), "export", 0.7)


def sizes(db, report):
    """The archive of R and what DuckDB makes of the same rows with the same codec."""
    archived = db.row("SELECT archived_bytes, location FROM archive_partition('r_1', drop_local => '0')")
    files = [str(p) for p in db.cluster.storage.rglob("*.parquet") if "archive_year" in str(p)]
    newest = max(files, key=lambda name: name.rsplit(".v", 1)[1])
    target = f"/var/tmp/archive_ext_bench_{db.name}.parquet"
    with duckdb.connect() as duck:
        duck.execute(f"COPY (SELECT * FROM read_parquet('{newest}', hive_partitioning = false))"
                     f" TO '{target}' (FORMAT parquet, CODEC zstd, COMPRESSION_LEVEL 1)")
    theirs = int(subprocess.check_output(["stat", "-c", "%s", target]))
    subprocess.run(["rm", target], check=True)
    report.ratio("export, file size", "MB", archived.archived_bytes / 1e6, theirs / 1e6, "DuckDB", 1.0)


def way_back(db, report, runs):
    """reattach_partition from objects against COPY FROM of the same rows, indexes included in both."""
    copy, back = [], []
    file = f"/var/tmp/archive_ext_bench_{db.name}.copy"
    for run in range(runs):
        if run:
            db.execute("SELECT archive_partition('r_1', drop_local => '0')")
        back.append(measure.of(db.conn.info.backend_pid,
                               lambda: db.execute("SELECT reattach_partition('r_1', writable => true)"))[0])
        if not run:
            db.execute(f"COPY r_1 TO '{file}' (FORMAT binary)")
        with db.conn.transaction():
            db.execute(f"CREATE TABLE twin ({COLUMNS}, PRIMARY KEY (id, at))")
            db.execute("CREATE INDEX ON twin (at)")
            copy.append(measure.of(db.conn.info.backend_pid, lambda: db.execute(f"COPY twin FROM '{file}' (FORMAT binary)"))[0])
        db.execute("DROP TABLE twin")
    subprocess.run(["rm", file], check=True)
    report.ratio("reattach from objects, CPU", "s", *measure.typical(back, copy, "cpu"), "COPY FROM", 0.8)
    report.ratio("reattach from objects, wall", "s", *measure.typical(back, copy, "wall"), "COPY FROM", 0.8)


class Latecomer(threading.Thread):
    """Locks a table as a reader does, again and again: how long it had to wait at most since it was asked last."""

    def __init__(self, db, table):
        super().__init__(daemon=True)
        self.session, self.table, self.stop, self.longest = db.cluster.connect(db.name), table, threading.Event(), 0.0

    def run(self):
        while not self.stop.is_set():
            began = time.perf_counter()
            with self.session.transaction():
                self.session.execute(f"LOCK TABLE ONLY {self.table} IN ACCESS SHARE MODE")
            self.longest = max(self.longest, time.perf_counter() - began)

    def take(self):
        longest, self.longest = self.longest, 0.0
        return longest


def swaps(db, report, partitions, swapped):
    """How long readers of a table with many partitions and columns wait for a swap."""
    columns = ", ".join(f"c{n} int" for n in range(48))
    db.execute(f"CREATE TABLE wide (id int, day date, {columns}) PARTITION BY RANGE (day)")
    db.execute(f"""DO $$ BEGIN FOR n IN 0..{partitions - 1} LOOP
        EXECUTE format('CREATE TABLE wide_%s PARTITION OF wide FOR VALUES FROM (%L) TO (%L)', n, date '2000-01-01' + n, date '2000-01-02' + n);
        END LOOP; END $$""")
    db.execute(f"INSERT INTO wide (id, day) SELECT n, date '2000-01-01' + n % {partitions} FROM generate_series(1, {10 * partitions}) n")
    db.execute("ANALYZE wide")
    db.execute("SELECT archive_partition('wide_0', drop_local => '0')")
    late = Latecomer(db, "wide")
    idle = []
    late.start()
    for _ in range(20):
        time.sleep(0.05)
        idle.append(late.take())
    waits = []
    for n in range(1, swapped + 1):
        job = begin(db.conn, f"wide_{n}")
        late.take()
        for phase, _ in steps(db.conn, job):
            waited = late.take()
            if phase not in ("frozen", "exported", "verified"):
                waits.append(waited)
    late.stop.set()
    late.join()
    waits.sort()
    p99 = waits[min(len(waits) - 1, int(len(waits) * 0.99))] * 1000
    report.bound("swap, longest wait of a reader, p99", "ms", p99, 20,
                 f"{partitions} partitions, 50 columns, {len(waits)} swaps, median {statistics.median(waits) * 1000:.1f} ms,"
                 f" without a swap {max(idle) * 1000:.1f} ms at most")
