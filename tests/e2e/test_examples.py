"""The examples run as they are given, and end as they say."""

import subprocess
from pathlib import Path

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"


def run(db, cluster, name):
    done = subprocess.run(
        [cluster.program("psql"), "-X", "-h", cluster.dir, "-U", "postgres", "-d", db.name,
         "-v", f"storage=file://{cluster.storage / db.name}", "-f", EXAMPLES / f"{name}.sql"],
        capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "ERROR" not in done.stderr
    return done.stdout


def test_tickets_walk_to_the_archive_and_back(db, cluster):
    printed = run(db, cluster, "ticketing")
    for step in ["HOT              | INC-23 INC-24 INC-25 INC-26",
                 "WARM_2024        | INC-23 INC-24 INC-25 INC-26 | 2025-09-01 00:00:00+00",
                 "ARCHIVE_202509   | INC-23 INC-24 INC-25 INC-26"]:
        assert step in printed
    assert db.value("SELECT string_agg(id, ' ' ORDER BY id) FROM ticket WHERE lifecycle_status = 'ARCHIVE_202509'") \
        == "INC-23 INC-24 INC-25 INC-26"
    assert db.value("SELECT count(*) FROM archive.ticket") == 0
    moves = db.all("SELECT from_status, status FROM archive_ext.events WHERE table_name = 'ticket'::regclass"
                   " AND event = 'moved' ORDER BY at")
    assert ("LIVE", "HOT") in moves and ("HOT", "WARM") in moves and ("WARM", "ARCHIVED") in moves


def test_an_audit_log_ages_by_itself(db, cluster):
    printed = run(db, cluster, "audit_log")
    assert "ARCHIVED: 5 partitions" in printed
    assert db.value("SELECT count(*) FROM audit_log") == 601
    assert db.value("SELECT count(*) FROM archive.audit_log_all") == 6 * 601


def test_orders_and_their_lines_stay_together(db, cluster):
    run(db, cluster, "orders")
    assert db.value("SELECT count(*) FROM orders JOIN order_line ON order_id = id") == 8400
    assert db.is_attached("order_line_2024_01", "order_line")
