"""Rows per month: hot + archived is what there ever was, as far as it was counted; what is missing is an alert."""

import psycopg
import pytest

from harness.sessions import Repeat


@pytest.fixture
def audit(db, cluster):
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL);
        INSERT INTO audit SELECT n, '2023-01-01Z'::timestamptz + n * interval '1 hour' FROM generate_series(0, 24 * 90 - 1) n""")
    db.conn = db.connect()
    return db


def counts(db, *arguments):
    given = ", ".join(["'audit'", *arguments])
    return [tuple(row) for row in db.all(f"SELECT month::text, hot, archived, recorded, missing FROM reconcile_counts({given})")]


def alerts(db):
    return db.all("SELECT detail, remedy FROM archive_ext.alerts WHERE alert = 'rows are missing'")


def test_archiving_changes_no_sum(audit):
    whole = {"2023-01-01": 744, "2023-02-01": 672, "2023-03-01": 744}
    assert counts(audit) == [(month, rows, 0, None, 0) for month, rows in whole.items()]
    writer = audit.connect()
    writer.execute("SET timezone = 'Asia/Tokyo'")

    def archive():
        writer.execute("SELECT archive_table_batch('audit', '2023-02-10Z', batch_rows => 50)")

    with Repeat(archive):
        for _ in range(8):
            assert all(missing == 0 and hot + archived == whole[month] for month, hot, archived, _, missing in counts(audit))
    audit.execute("CALL archive_table('audit', '2023-02-10Z')")
    audit.execute("SET timezone = 'America/New_York'")
    assert counts(audit)[:2] == [("2023-01-01", 0, 744, 744, 0), ("2023-02-01", 456, 216, 672, 0)]
    assert alerts(audit) == []


def test_what_is_missing_is_told_until_it_is_accepted_or_comes_back(audit):
    audit.execute("CALL archive_table('audit', '2023-02-01Z')")
    counts(audit)
    audit.execute("DELETE FROM audit WHERE at < '2023-02-02Z'")
    audit.execute("DELETE FROM audit WHERE at >= '2023-03-01Z'")
    audit.execute("INSERT INTO audit VALUES (100000, '2023-04-05Z')")
    assert alerts(audit) == [], "nothing is known before it is counted"
    found = counts(audit)
    assert found == [("2023-01-01", 0, 744, 744, 0), ("2023-02-01", 648, 0, 672, 24), ("2023-03-01", 0, 0, 744, 744),
                     ("2023-04-01", 1, 0, None, 0)]
    (detail, remedy), = alerts(audit)
    assert detail == "768 rows of 2023-02, 2023-03 are gone that were counted before" and "accept => true" in remedy
    since = audit.value("SELECT missing_since FROM archive_ext.month_counts WHERE month = '2023-02-01'")
    audit.execute("INSERT INTO audit SELECT -n, '2023-02-01 12:00Z' FROM generate_series(1, 20) n")
    assert counts(audit)[1] == ("2023-02-01", 668, 0, 672, 4)
    assert audit.value("SELECT missing_since FROM archive_ext.month_counts WHERE month = '2023-02-01'") == since
    assert counts(audit, "accept => true")[1][4] == 4
    assert alerts(audit) == [] and counts(audit)[1] == ("2023-02-01", 668, 0, 668, 0)
    events = audit.all("SELECT event, details ->> 'missing' FROM archive_ext.events WHERE event = 'counts accepted'")
    assert [tuple(event) for event in events] == [("counts accepted", "748")]


def test_rows_lost_from_the_archive_are_missing(audit, cluster):
    """Somebody took a batch out of the catalog: sums agree there, but not with what was counted."""
    audit.execute("CALL archive_table('audit', '2023-02-01Z', batch_rows => 100)")
    counts(audit)
    audit.execute("""WITH gone AS (DELETE FROM archive_ext.object WHERE ordinal = 3 RETURNING rows)
                     UPDATE archive_ext.partition SET rows = partition.rows - gone.rows FROM gone""")
    assert counts(audit)[0] == ("2023-01-01", 0, 644, 744, 100)
    assert len(alerts(audit)) == 1


def test_only_who_sees_everything_counts(audit, role):
    reader, owner = role("reader"), role("owner")
    audit.execute("CREATE TABLE doc (id int PRIMARY KEY, at date, who name)")
    audit.execute(f"GRANT SELECT ON audit, doc TO {reader}")
    audit.execute("INSERT INTO doc VALUES (1, '2020-01-01', 'x'), (2, NULL, 'x'), (3, 'infinity', 'x')")
    audit.execute(f"ALTER TABLE doc OWNER TO {owner}; ALTER TABLE doc ENABLE ROW LEVEL SECURITY")
    audit.execute("CREATE POLICY own ON doc USING (who = current_user)")
    for who, table, said in [(reader, "audit", "must be owner"), (reader, "doc", "must be owner")]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=said):
            audit.connect(who).execute(f"SELECT reconcile_counts('{table}')")
    session = audit.connect(owner)
    months = session.execute("SELECT month::text, hot FROM reconcile_counts('doc')").fetchall()
    assert [tuple(month) for month in months] == [(None, 1), ("2020-01-01", 1), ("infinity", 1)]
    assert session.execute("SELECT count(*) FROM archive_ext.month_counts").fetchone()[0] == 3
    assert audit.connect(reader).execute("SELECT count(*) FROM archive_ext.month_counts").fetchone()[0] == 0
    session.execute("ALTER TABLE doc FORCE ROW LEVEL SECURITY")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="hides rows"):
        session.execute("SELECT reconcile_counts('doc')")
    audit.execute("DROP TABLE doc")


def test_a_dump_keeps_what_was_counted_and_the_filters(audit):
    audit.execute("CALL archive_table('audit', '2023-02-01Z', batch_rows => 100)")
    counts(audit)
    audit.execute("DELETE FROM audit WHERE at < '2023-02-02Z'")
    counts(audit)
    with audit.copied() as copy:
        for query in ["SELECT * FROM archive_ext.month_counts", "SELECT ordinal, key_filter_bytes FROM archive_ext.objects",
                      "SELECT archive_tier_of('audit', id) FROM generate_series(0, 800, 100) id",
                      "SELECT detail FROM archive_ext.alerts WHERE alert = 'rows are missing'"]:
            assert copy.execute(query).fetchall() == audit.all(query)
