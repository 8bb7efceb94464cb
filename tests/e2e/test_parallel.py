"""Parallel queries of archives, and what planning remembers of them: each row is read once, whoever reads it (P9)."""

import pytest

from harness.cluster import Database
from harness.orders import assert_same_rows, create_orders, keep_truth

MONTHS, ROWS = 4, 60_000
# Nothing is too small, and starting workers costs nothing.
EAGER = {"min_parallel_table_scan_size": "0", "parallel_setup_cost": "0", "parallel_tuple_cost": "0", "max_parallel_workers_per_gather": "3"}
SUMS = "SELECT count(*), sum(id), sum(amount), sum(length(note)), count(payload) FROM {}"


def eager(session):
    for name, value in EAGER.items():
        session.execute(f"SET {name} = '{value}'")


def nodes(plan):
    yield plan
    for child in plan.get("Plans", []):
        yield from nodes(child)


def explained(session, query, how="ANALYZE, "):
    (plan,), = session.execute(f"EXPLAIN ({how}FORMAT JSON) {query}").fetchall()
    return list(nodes(plan[0]["Plan"]))


def scans(session, query, how="ANALYZE, "):
    return [node for node in explained(session, query, how) if node["Node Type"] == "Foreign Scan"]


def archived(db, *, months=MONTHS, archived=MONTHS - 1, **settings):
    """Several objects of several row groups each."""
    create_orders(db.conn, months=months, rows=ROWS)
    keep_truth(db, "orders")
    for name, value in {"row_group_rows": "1000", "object_size": "1MB", **settings}.items():
        db.execute(f"SET archive_ext.{name} = '{value}'")
    for month in range(1, archived + 1):
        db.execute(f"SELECT archive_partition('orders_2024_{month:02}')")
    db.execute("ANALYZE")


def storage_of(db, cluster):
    path = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{path}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    return path


@pytest.fixture
def files(db, cluster):
    return storage_of(db, cluster)


@pytest.fixture(scope="module")
def orders(cluster):
    database = Database(cluster, "parallel_scans")
    storage_of(database, cluster)
    archived(database)
    yield database
    database.drop()


@pytest.fixture
def session(orders):
    with orders.connect() as session:
        eager(session)
        yield session


@pytest.mark.parametrize("leader", ["on", "off"])
@pytest.mark.parametrize("source", ["archive.orders", "archive.orders_all", "archive.orders_2024_02"])
def test_p9_processes_share_the_row_groups(orders, session, source, leader):
    session.execute(f"SET parallel_leader_participation = {leader}")
    found = scans(session, SUMS.format(source))
    assert found and all(scan["Parallel Aware"] for scan in found)
    for scan in found:
        assert scan["Files Read"] == scan["Files"] == scan["Files Total"] > 1, scan
        assert (scan["Row Groups Read"], scan["Row Groups Skipped"]) == (ROWS / 1000, 0), scan
        assert scan["Storage Read Bytes"] > 0
    together = session.execute(SUMS.format(source)).fetchone()
    session.execute("SET max_parallel_workers_per_gather = 0")
    assert not scans(session, SUMS.format(source))[0]["Parallel Aware"]
    assert session.execute(SUMS.format(source)).fetchone() == together
    assert_same_rows(orders, "archive.orders_all", "truth")


def test_p9_what_statistics_rule_out_is_counted_once(session):
    query = f"{SUMS.format('archive.orders_2024_02')} WHERE id BETWEEN {ROWS + 2650} AND {ROWS + 2700}"
    (shared,) = scans(session, query)
    session.execute("SET max_parallel_workers_per_gather = 0")
    (alone,) = scans(session, query)
    assert (shared["Parallel Aware"], alone["Parallel Aware"]) == (True, False)
    # Where processes share an object those that find nothing left in it need not open it.
    for counter in ["Files", "Files Total", "Row Groups Read", "Rows Skipped by Page Index"]:
        assert shared[counter] == alone[counter], counter
    assert shared["Row Groups Read"] == 1


def test_p9_a_shared_scan_begins_anew(session):
    """A Gather on the inner side of a join is run once for each row of the other side, and may be left early."""
    session.execute("SET enable_material = off")
    for limit in ["", " LIMIT 7"]:
        query = ("SELECT n, found.* FROM generate_series(1, 4) n LEFT JOIN (SELECT count(*) AS rows, sum(id) >= 0 AS positive"
                 f" FROM (SELECT id FROM archive.orders{limit}) AS taken OFFSET 0) AS found ON found.rows > n")
        assert any(node["Node Type"] == "Gather" for node in explained(session, query, ""))
        rows = session.execute(query).fetchall()
        assert rows == [(n, 7 if limit else (MONTHS - 1) * ROWS, True) for n in range(1, 5)]


def test_p9_workers_without_a_start(session):
    """Planned, but none is free: the leader reads all."""
    session.execute("SET max_parallel_workers = 0")
    for leader in ["on", "off"]:
        session.execute(f"SET parallel_leader_participation = {leader}")
        assert session.execute("SELECT count(*), count(note) FROM archive.orders").fetchone()[0] == (MONTHS - 1) * ROWS


def test_p9_cursors_read_on(session):
    """Each FETCH shuts the scan's node down, and the next one goes on."""
    with session.transaction():
        session.execute("DECLARE open CURSOR FOR SELECT id FROM archive.orders")
        seen = [row.id for _ in range(20) for row in session.execute("FETCH 10000 FROM open").fetchall()]
    assert sorted(seen) == list(range(1, (MONTHS - 1) * ROWS + 1))


def test_p9_places_and_old_snapshots_are_one_process_s(orders, session):
    assert not any(scan["Parallel Aware"] for scan in scans(session, "SELECT max(ctid::text) FROM archive.orders_2024_02"))
    with session.transaction():
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert not any(scan["Parallel Aware"] for scan in scans(session, SUMS.format("archive.orders")))


def test_p9_workers_read_what_the_leader_found(orders, session):
    """In a transaction that wrote, too, whose catalog changes no worker could see otherwise."""
    with session.transaction():
        session.execute("CREATE TABLE other (n int)")
        session.execute("INSERT INTO other SELECT generate_series(1, 100)")
        assert any(scan["Parallel Aware"] for scan in scans(session, SUMS.format("archive.orders")))
        assert session.execute("SELECT count(*), count(note) FROM archive.orders").fetchone()[0] == (MONTHS - 1) * ROWS


def test_p9_commands_that_write_read_in_parallel(orders, session):
    """They have begun to write when the workers start; in a transaction with an id, besides."""
    whole = (MONTHS - 1) * ROWS
    session.execute("""CREATE FUNCTION archived_rows() RETURNS bigint STABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN (SELECT count(note) + count(*) FILTER (WHERE note IS NULL) FROM archive.orders WHERE status = 'paid'); END $$""")
    with session.transaction(force_rollback=True):
        session.execute("CREATE TABLE earlier (n int)")
        session.execute("CREATE TABLE taken AS SELECT id, status FROM archive.orders WHERE status <> 'new'")
        assert session.execute("SELECT count(*) FROM taken").fetchone()[0] == whole * 3 // 4
        session.execute("CREATE MATERIALIZED VIEW seen AS SELECT customer_id, count(*) FROM archive.orders GROUP BY 1")
        session.execute("REFRESH MATERIALIZED VIEW seen")
        assert session.execute("SELECT sum(count) FROM seen").fetchone()[0] == whole
        session.execute("INSERT INTO earlier SELECT archived_rows() FROM generate_series(1, 2)")
        assert session.execute("SELECT array_agg(n) FROM earlier").fetchone()[0] == [whole // 4] * 2
        session.execute("UPDATE earlier SET n = n + archived_rows()")
    session.execute("DROP FUNCTION archived_rows()")


def test_p9_functions_of_users_stay_in_one_process(db, files):
    """A generated column that was added later calls one for each archived row, which need not be safe in parallel."""
    archived(db, months=2, archived=1)
    db.execute("""CREATE FUNCTION digits(text) RETURNS int IMMUTABLE LANGUAGE plpgsql AS $$
        BEGIN RETURN substr($1, 6, 2)::int; EXCEPTION WHEN others THEN RETURN -1; END $$""")
    db.execute("ALTER TABLE orders ADD digits int GENERATED ALWAYS AS (digits(note)) STORED")
    with db.connect() as session:
        eager(session)
        query = "SELECT count(*), sum(digits) FROM archive.orders"
        assert not any(scan["Parallel Aware"] for scan in scans(session, query))
        assert session.execute(query).fetchone()[0] == ROWS


def test_p12_a_damaged_object_stops_all_processes(db, cluster, files):
    archived(db, months=2, archived=1)
    with db.connect() as session:
        eager(session)
        for damaged in sorted(files.rglob("*orders_2024_01*.parquet"))[-1:]:
            content = bytearray(damaged.read_bytes())
            content[len(content) // 2:len(content) // 2 + 64] = bytes(64)
            damaged.write_bytes(content)
        with pytest.raises(Exception, match="is not what was written|could not be read|corrupt"):
            session.execute(SUMS.format("archive.orders")).fetchall()
        # The session goes on.
        assert session.execute("SELECT count(*) FROM orders").fetchone()[0] == ROWS


@pytest.mark.parametrize("format", ["parquet", "ndjson.gz"])
def test_p9_row_sets_are_shared(db, files, format):
    """Lines are read from their first on, so of these a process takes whole objects."""
    db.execute("CREATE TABLE doc (id bigint PRIMARY KEY, at timestamptz NOT NULL, body text)")
    db.execute("INSERT INTO doc SELECT n, timestamptz '2024-01-01' + n * interval '1 hour', md5(n::text) FROM generate_series(1, 8000) n")
    db.execute("SET archive_ext.row_group_rows = 1000")
    db.execute(f"CALL archive_table('doc', NULL, where_clause => 'id <= 7000', format => '{format}', batch_rows => 1400)")
    query = "SELECT count(*), count(body), sum(id) FROM archive.doc_all"
    with db.connect() as session:
        eager(session)
        for scan in scans(session, query):
            assert scan["Parallel Aware"] and scan["Files Read"] == scan["Files Total"] == 5, scan
        assert tuple(session.execute(query).fetchone()) == (8000, 8000, 8000 * 8001 // 2)
        # The leader alone, with what a batch adds in this transaction, which no worker could see by itself.
        with session.transaction():
            session.execute("SET LOCAL archive_ext.default_storage = 'cold'")
            session.execute("SELECT * FROM archive_table_batch('doc', '2030-01-01', batch_rows => 500)")
            assert tuple(session.execute(query).fetchone()) == (8000, 8000, 8000 * 8001 // 2)


def test_planning_remembers_archives_until_they_change(db, files):
    """Estimates follow what is archived, compacted and brought back, in every session."""
    archived(db, months=3, archived=1)
    with db.connect() as other:
        rows = "SELECT * FROM archive.orders"
        estimate = lambda: sum(scan["Plan Rows"] for scan in scans(other, rows, ""))
        assert estimate() == estimate() == ROWS
        db.execute("SELECT archive_partition('orders_2024_02')")
        assert estimate() == 2 * ROWS
        db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
        assert estimate() == ROWS
        db.execute("DELETE FROM orders WHERE created_at < '2024-02-01' AND id % 3 > 0")
        db.execute("SELECT archive_partition('orders_2024_01')")
        assert estimate() == ROWS + ROWS // 3
        db.execute("ALTER TABLE orders DROP COLUMN note")
        assert estimate() == ROWS + ROWS // 3
        assert "note" not in [column.name for column in other.execute(rows + " LIMIT 1").description]
        with db.conn.transaction(force_rollback=True):
            db.execute("SELECT reattach_partition('orders_2024_01')")
            assert sum(scan["Plan Rows"] for scan in scans(db.conn, rows, "")) == ROWS
        assert sum(scan["Plan Rows"] for scan in scans(db.conn, rows, "")) == ROWS + ROWS // 3
