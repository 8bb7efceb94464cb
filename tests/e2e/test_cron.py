"""pg_cron carries policies out where archive_ext is not preloaded and has no worker."""

import os
import subprocess
from pathlib import Path

import pytest

from harness.cluster import Cluster, wait_until
from harness.orders import create_orders


@pytest.fixture(scope="module")
def cluster():
    libraries = subprocess.check_output([os.environ["PG_CONFIG"], "--pkglibdir"], text=True).strip()
    if not (Path(libraries) / "pg_cron.so").exists():
        pytest.skip("pg_cron is not installed for this PostgreSQL")
    cluster = Cluster("shared_preload_libraries=pg_cron", "cron.database_name=postgres", "cron.use_background_workers=on")
    yield cluster
    cluster.stop()


def test_pg_cron_archives_what_is_due_as_the_owner_of_the_policy(cluster):
    """In 1.4 a schedule is of a minute at least."""
    db = cluster.connect()
    db.execute("CREATE EXTENSION archive_ext; CREATE EXTENSION pg_cron; CREATE ROLE owner LOGIN")
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/cron')")
    db.execute("GRANT USAGE ON FOREIGN SERVER cold TO owner; GRANT CREATE ON SCHEMA public TO owner;"
               " GRANT USAGE ON SCHEMA cron TO owner")
    session = cluster.connect(user="owner")
    create_orders(session, months=2, rows=50)
    session.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold', drop_after => '0')")
    assert "shared_preload_libraries" in session.execute("SELECT archive_ext.worker_hold()").fetchone()[0]

    session.execute("SELECT cron.schedule('archive', '* * * * *', 'CALL run_lifecycle()')")
    runs = "SELECT status, return_message, username FROM cron.job_run_details WHERE status IN ('succeeded', 'failed')"
    run = wait_until(lambda: db.execute(runs).fetchone(), 90, "the next minute, and the end of the run")

    assert (run.status, run.username) == ("succeeded", "owner"), run.return_message
    jobs = db.execute("SELECT partition_name, status, started_by FROM archive_ext.jobs ORDER BY 1").fetchall()
    assert jobs == [("public.orders_2024_01", "completed", "owner"), ("public.orders_2024_02", "completed", "owner")]
    assert session.execute("SELECT count(*) FROM archive.orders").fetchone()[0] == 100
    assert session.execute("SELECT count(*) FROM orders").fetchone()[0] == 0
    for conn in [session, db]:
        conn.close()
