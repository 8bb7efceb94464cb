"""Millions of rows archived while pgbench changes the table and the server is killed again and again: all rows accounted for, none twice.

`make test-heavy` takes ten million (ARCHIVE_EXT_ROWS says how many)."""

import os
import random
import subprocess
import threading
import time

import psycopg
import pytest

WRITES = """
\\set id random(1, :rows)
\\set fate random(1, 100)
BEGIN;
\\if :fate <= 60
WITH changed AS (UPDATE ledger SET balance = balance + 1 WHERE id = :id RETURNING id) INSERT INTO changes SELECT id FROM changed;
\\elif :fate <= 80
WITH gone AS (DELETE FROM ledger WHERE id = :id RETURNING id, balance) INSERT INTO deletions SELECT id, balance FROM gone;
\\else
WITH new AS (INSERT INTO ledger VALUES (nextval('fresh'), now(), 0, 'new') RETURNING id) INSERT INTO insertions SELECT id FROM new;
\\endif
END;
"""


@pytest.fixture(params=[pytest.param(int(os.environ.get("ARCHIVE_EXT_ROWS", 10_000_000)), marks=pytest.mark.heavy), 100_000])
def ledger(request, db, cluster):
    rows = request.param
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        ALTER DATABASE {db.name} SET synchronous_commit = on;
        CREATE TABLE ledger (id bigint PRIMARY KEY, at timestamptz NOT NULL, balance int NOT NULL, note text);
        INSERT INTO ledger SELECT n, timestamptz '2020-01-01Z' + n * interval '1 second', 0, 'entry ' || n
        FROM generate_series(1, {rows}) n;
        CREATE SEQUENCE fresh START {rows + 1};
        CREATE TABLE changes (id bigint);
        CREATE TABLE deletions (id bigint, balance int);
        CREATE TABLE insertions (id bigint);""")
    db.conn = db.connect()
    db.rows = rows
    return db


@pytest.mark.timeout(3600)
def test_p1_p4_every_row_is_accounted_for(ledger, cluster, tmp_path):
    """Nine tenths are archived. Each kill takes pgbench and the archiver along; both begin again."""
    script = tmp_path / "writes.sql"
    script.write_text(WRITES)
    heavy = ledger.rows > 1_000_000
    kills, pause, batch = (8, (5, 15), 20_000) if heavy else (2, (0.5, 1.5), 1_000)
    call = f"CALL archive_table('ledger', timestamptz '2020-01-01Z' + {ledger.rows * 9 // 10} * interval '1 second', batch_rows => {batch})"
    dice, stop = random.Random(7), threading.Event()

    def write():
        while not stop.is_set():
            bench = subprocess.Popen(
                [cluster.program("pgbench"), "-n", "-h", str(cluster.dir), "-U", "postgres", "-c", "4", "-T", "3600", "-D",
                 f"rows={ledger.rows}", "-f", str(script), ledger.name],
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            while bench.poll() is None and not stop.is_set():
                time.sleep(0.2)
            bench.terminate()
            bench.wait()
            time.sleep(0.2)

    def archive():
        """Until a whole call has gone through."""
        while not stop.is_set():
            try:
                with cluster.connect(ledger.name) as conn:
                    conn.execute(call)
                return
            except psycopg.Error:
                time.sleep(0.2)

    writer, archiver = threading.Thread(target=write), threading.Thread(target=archive)
    writer.start()
    archiver.start()
    try:
        for _ in range(kills):
            archiver.join(dice.uniform(*pause))
            if not archiver.is_alive():
                break
            cluster.kill_and_restart()
        archiver.join(3000)
        assert not archiver.is_alive(), "the archive came to no end"
    finally:
        stop.set()
        writer.join()
        archiver.join()
    ledger.reconnect()
    inserted, deleted, changed = ledger.row(
        "SELECT (SELECT count(*) FROM insertions), (SELECT count(*) FROM deletions), (SELECT count(*) FROM changes)")
    assert changed > 0 and deleted > 0 and inserted > 0
    rows, ids, balance = ledger.row("SELECT count(*), count(DISTINCT id), coalesce(sum(balance), 0) FROM archive.ledger_all")
    assert rows == ids == ledger.rows + inserted - deleted
    assert balance + ledger.value("SELECT coalesce(sum(balance), 0) FROM deletions") == changed
    assert ledger.value(f"SELECT count(*) FROM ledger WHERE id <= {ledger.rows * 9 // 10 - 1}") == 0
    archived = ledger.value("SELECT count(*) FROM archive.ledger")
    assert archived > ledger.rows * 8 // 10
    assert ledger.value("SELECT count(*) FROM archive.ledger a JOIN deletions USING (id)") == 0
