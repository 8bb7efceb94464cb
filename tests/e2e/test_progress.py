"""What another session sees of a run while it lasts."""

import psycopg
import pytest

from harness.orders import archive, create_orders
from harness.proxy import Stall
from harness.sessions import Call

ROWS = 20_000


@pytest.fixture
def orders(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=1, rows=ROWS)
    db.execute("ANALYZE orders_2024_01")
    yield fault_proxy
    fault_proxy.heal()


def cancel(db, call):
    db.connect().execute("SELECT pg_cancel_backend(%s)", [db.conn.info.backend_pid])
    with pytest.raises(psycopg.errors.QueryCanceled):
        call.result(60)


@pytest.mark.parametrize("method, phase", [("PUT|POST", "exporting"), ("GET", "verifying")])
def test_a_run_shows_its_phase_and_rows(db, orders, method, phase):
    rule = orders.on(method, r"\.parquet", fault=Stall())
    call = Call(db.execute, "SELECT archive_partition('orders_2024_01')")
    assert rule.hit.wait(60)

    shown = db.connect().execute(
        "SELECT pid, relation::text, phase, rows_total, percent BETWEEN 0 AND 100 FROM archive_ext.progress").fetchall()
    job = db.connect().execute("SELECT status, phase FROM archive_ext.jobs WHERE partition_name LIKE '%orders_2024_01'")

    assert [tuple(row) for row in shown] == [(db.conn.info.backend_pid, "orders_2024_01", phase, ROWS, True)]
    assert tuple(job.fetchone()) == ("running", "frozen")
    cancel(db, call)


def test_nothing_is_shown_when_nothing_runs(db, orders):
    archive(db, "orders_2024_01")
    assert db.value("SELECT count(*) FROM archive_ext.progress") == 0
