"""`make bench-large`: ten times as many rows must export at the same rate, in the same memory, with as many requests per byte."""

from harness.s3 import Bucket  # noqa: F401 - requests are counted by the local store, too

from . import measure
from .exports import begin, steps
from .tables import create_reference


def exports(db, report, quick):
    """The rate, the peak of memory and the number of objects of a partition of 2 GB and of one of 20 GB."""
    found = {}
    for name, rows in [("small", 1_100_000 if quick else 11_000_000), ("big", 11_000_000 if quick else 110_000_000)]:
        create_reference(db, name, rows)
        gigabytes = db.value(f"SELECT pg_table_size('{name}_1') / 1e9")
        with db.cluster.connect(db.name) as session:
            pid = session.info.backend_pid
            job = begin(session, f"{name}_1")
            measure.forget_peak(pid)
            for phase, cost in steps(session, job):
                if phase == "exported":
                    break
            peak = measure.peak_memory(pid)
            session.execute("SELECT cancel_job(%s)", [job])
        objects = sum(1 for _ in db.cluster.storage.rglob(f"{name}_1.v*.parquet"))
        found[name] = (float(gigabytes), cost, peak, objects)
        db.execute(f"DROP TABLE {name}")
    (small_gb, small, small_peak, small_objects), (big_gb, big, big_peak, big_objects) = found["small"], found["big"]
    note = f"{small_gb:.1f} and {big_gb:.1f} GB"
    report.ratio("large export, wall per GB", "s", big.wall / big_gb, small.wall / small_gb, "2 GB", 1.1, note=note)
    report.ratio("large export, CPU per GB", "s", big.cpu / big_gb, small.cpu / small_gb, "2 GB", 1.1)
    report.ratio("large export, peak memory", "MB", big_peak / 1e6, small_peak / 1e6, "2 GB", 1.1)
    report.ratio("large export, objects per GB", "", big_objects / big_gb, max(small_objects, 1) / small_gb, "2 GB", 1.1)
