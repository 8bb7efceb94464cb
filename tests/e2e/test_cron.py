"""pg_cron carries policies out where no background worker of ours does."""

import pytest

from harness.cluster import Cluster, wait_until
from harness.orders import create_orders


@pytest.fixture(scope="module")
def cluster():
    """archive_ext is not preloaded: what settings of ours the file holds are placeholders until it is loaded."""
    cluster = Cluster("shared_preload_libraries=pg_cron", "cron.database_name=cron", "cron.use_background_workers=off")
    with cluster.connect() as conn:
        conn.execute(f"ALTER SYSTEM SET cron.host = '{cluster.dir}'")
        conn.execute("SELECT pg_reload_conf()")
    yield cluster
    cluster.stop()


def test_pg_cron_calls_run_lifecycle(cluster, role):
    owner = role("owner")
    with cluster.connect() as conn:
        conn.execute("CREATE DATABASE cron")
    db = cluster.connect("cron")
    db.execute("CREATE EXTENSION archive_ext; CREATE EXTENSION pg_cron")
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/cron')")
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}; GRANT CREATE ON SCHEMA public TO {owner};"
               f" GRANT USAGE ON SCHEMA cron TO {owner}")
    session = cluster.connect("cron", owner)
    create_orders(session, months=2, rows=50)
    session.execute("SELECT set_archive_policy('orders', archive_after => '1 month', storage => 'cold', drop_after => '0')")
    assert "shared_preload_libraries" in db.execute("SELECT archive_ext.worker_hold()").fetchone()[0]
    session.execute("SELECT cron.schedule('archive', '* * * * *', 'CALL run_lifecycle()')")
    done = "SELECT count(*) = 2 FROM archive_ext.archival_job WHERE status = 'completed'"
    try:
        wait_until(lambda: db.execute(done).fetchone()[0], 100, "the minute to pass and pg_cron to archive")
    except AssertionError:
        raise AssertionError(db.execute("SELECT status, return_message FROM cron.job_run_details").fetchall()) from None
    assert session.execute("SELECT count(*) FROM archive.orders").fetchone()[0] == 100
    for conn in (session, db):
        conn.close()
    with cluster.connect() as conn:
        conn.execute("DROP DATABASE cron WITH (FORCE)")
