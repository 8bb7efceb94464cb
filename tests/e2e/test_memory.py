"""P7: memory is bounded by settings, not by the size of the partition."""

import pytest

from harness.orders import create_wide
from harness.sessions import PeakMemory

GIB = 1 << 30
BOUND = 300 << 20


@pytest.mark.timeout(900)
@pytest.mark.parametrize("gigabytes", [1, pytest.param(2, marks=pytest.mark.heavy)])
def test_p7_archiving_and_scanning_gigabytes_stays_under_300_mb(db, s3_signed, gigabytes):
    """On the S3 server that keeps objects on disk. A fresh backend each time, so that the peaks are their own."""
    s3_signed.create_storage(db.conn)
    rows = gigabytes * 750_000
    create_wide(db.conn, rows=rows)
    assert db.value("SELECT pg_table_size('orders_2024_01')") >= gigabytes * GIB
    expected = db.row("SELECT count(*), sum(length(note)), sum(id) FROM orders")

    archiver = db.connect(options="-c archive_ext.default_storage=cold")
    with PeakMemory(archiver.info.backend_pid) as archiving:
        result = archiver.execute("SELECT * FROM archive_partition('orders_2024_01', drop_local => '0')").fetchone()
    assert result.rows == rows
    assert result.archived_bytes > gigabytes * GIB // 2, "the rows were to be hard to compress"
    assert archiving.peak < BOUND

    scanner = db.connect()
    with PeakMemory(scanner.info.backend_pid) as scanning:
        found = scanner.execute("SELECT count(*), sum(length(note)), sum(id) FROM archive.orders").fetchone()
    assert found == expected
    assert scanning.peak < BOUND

    loader = db.connect(options="-c archive_ext.default_storage=cold")
    with PeakMemory(loader.info.backend_pid) as loading:
        loader.execute("SELECT reattach_partition('orders_2024_01')")
    assert db.row("SELECT count(*), sum(length(note)), sum(id) FROM orders") == expected
    assert loading.peak < BOUND
