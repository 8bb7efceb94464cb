"""Policies of the hot table hold for its archive: every way to archived rows shows a reader what the hot table would (P8)."""

import psycopg
import pytest

REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def tenants(db, cluster, role):
    """Two tables of the same owner with a policy: one in partitions, one archived row by row. The reader is tenant 1."""
    owner, reader = role("owner"), role("tenant")
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner};"
               f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    db.owner = db.connect(owner)
    db.owner.execute("""
        CREATE TABLE part (id int NOT NULL, at date NOT NULL, tenant int NOT NULL, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2024-02-01') TO ('2024-03-01');
        CREATE TABLE plain (id int PRIMARY KEY, at date NOT NULL, tenant int NOT NULL, note text);
        INSERT INTO part SELECT n, date '2024-01-01' + n % 60, 1 + n % 2, 'secret of ' || 1 + n % 2 FROM generate_series(0, 119) n;
        INSERT INTO plain SELECT n, date '2024-01-01' + n % 60, 1 + n % 2, 'secret of ' || 1 + n % 2 FROM generate_series(0, 119) n;""")
    for table in ["part", "plain"]:
        db.owner.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY; GRANT SELECT, INSERT, UPDATE, DELETE ON {table} TO {reader};"
                         f"CREATE POLICY own ON {table} USING (tenant = 1)")
    db.reader_name, db.reader = reader, db.connect(reader)
    return db


def value(session, query):
    return session.execute(query).fetchone()[0]


def archive_both(db):
    db.owner.execute("SELECT archive_partition('part_1', drop_local => '0')")
    db.owner.execute("CALL archive_table('plain', '2024-02-01')")


def relations_of_archive(db):
    return [r.name for r in db.all("SELECT oid::regclass::text AS name FROM pg_class WHERE relnamespace = 'archive'::regnamespace"
                                   " AND relkind IN ('r', 'p', 'f', 'v') ORDER BY 1")]


@pytest.mark.parametrize("when", ["before", "after"])
def test_p8_no_way_leads_past_a_policy(tenants, when):
    """Whether the policy was there before the first row was archived or came afterwards."""
    db = tenants
    if when == "after":
        db.owner.execute("ALTER TABLE part DISABLE ROW LEVEL SECURITY; ALTER TABLE plain DISABLE ROW LEVEL SECURITY")
        archive_both(db)
        assert value(db.reader, "SELECT count(*) FROM archive.part_all WHERE tenant = 2") > 0
        db.owner.execute("ALTER TABLE part ENABLE ROW LEVEL SECURITY; ALTER TABLE plain ENABLE ROW LEVEL SECURITY")
    else:
        archive_both(db)

    # Every relation of the archive: those that may be read show no other tenant, the others not at all.
    readable = []
    for relation in relations_of_archive(db):
        try:
            assert value(db.reader, f"SELECT count(*) FROM {relation} WHERE tenant <> 1") == 0, relation
            readable.append(relation)
        except REFUSED:
            pass
    assert readable == ["archive.part", "archive.part_all", "archive.plain", "archive.plain_all"]
    for table in ["part", "plain"]:
        assert value(db.reader, f"SELECT count(*) FROM archive.{table}_all") == 60
        assert 0 < value(db.reader, f"SELECT count(*) FROM archive.{table}") < 60
        # Functions that see a row before the policy does would tell.
        db.reader.execute("CREATE FUNCTION pg_temp.spy(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS $$"
                          "BEGIN IF $1 LIKE '%2' THEN RAISE EXCEPTION 'seen: %', $1; END IF; RETURN true; END$$")
        for relation in [f"archive.{table}", f"archive.{table}_all"]:
            value(db.reader, f"SELECT count(*) FROM {relation} WHERE pg_temp.spy(note)")
            db.reader.execute(f"SELECT 1 / (tenant - 2) FROM {relation}")
        db.reader.execute("DROP FUNCTION pg_temp.spy(text)")

    # One row by its key.
    others = value(db.owner, "SELECT min(id) FROM archive.plain WHERE tenant = 2")
    own = value(db.owner, "SELECT min(id) FROM archive.plain WHERE tenant = 1")
    assert value(db.owner, f"SELECT get_archived_record('plain', '{others}') IS NOT NULL")
    assert value(db.reader, f"SELECT get_archived_record('plain', '{others}')") is None
    assert value(db.reader, f"SELECT archive_tier_of('plain', '{others}')") is None
    assert value(db.reader, f"SELECT get_archived_record('plain', '{own}') ->> 'tenant'") == "1"

    # What would bring rows back, or count them, is the owner's.
    for call in ["SELECT restore_rows('plain', 'true')", "SELECT reconcile_counts('plain')", "SELECT reattach_partition('part_1')",
                 "SELECT archive_table_batch('plain', '2024-03-01')", "CALL archive_table('plain', '2024-03-01')"]:
        with pytest.raises(REFUSED):
            db.reader.execute(call)
    # Numbers that tell of hidden rows, statistics of columns and texts that quote rows.
    assert value(db.reader, "SELECT count(*) FROM archive_ext.month_counts") == 0
    db.owner.execute("ANALYZE archive.part; ANALYZE archive.plain; ANALYZE archive.part_1")
    assert value(db.reader, "SELECT count(*) FROM pg_stats WHERE schemaname = 'archive'") == 0
    assert value(db.reader, "SELECT count(*) FROM archive_ext.events WHERE details IS NOT NULL") == 0
    assert value(db.reader, "SELECT count(*) FROM archive_ext.jobs WHERE error IS NOT NULL") == 0


def test_p8_a_bypassing_role_and_the_owner_see_all(tenants, role):
    db = tenants
    archive_both(db)
    auditor = role("auditor")
    db.execute(f"ALTER ROLE {auditor} BYPASSRLS; GRANT SELECT ON part, plain TO {auditor}")
    for session in [db.owner, db.connect(auditor)]:
        assert value(session, "SELECT count(*) FROM archive.part_all") == 120
        assert value(session, "SELECT count(*) FROM archive.plain_all") == 120
    # FORCE holds the owner to the policy, in the archive as in the table.
    db.owner.execute("ALTER TABLE part FORCE ROW LEVEL SECURITY; ALTER TABLE plain FORCE ROW LEVEL SECURITY")
    for table in ["part", "plain"]:
        assert value(db.owner, f"SELECT count(*) FROM archive.{table}_all") == 60
        assert value(db.owner, f"SELECT count(*) FROM archive.{table} WHERE tenant = 2") == 0


def test_p8_policies_follow(tenants):
    """Changed, added, restrictive and dropped policies hold for the archive from the same commit on."""
    db = tenants
    archive_both(db)
    for table in ["part", "plain"]:
        tenants_seen = lambda: db.reader.execute(f"SELECT array_agg(DISTINCT tenant ORDER BY tenant) FROM archive.{table}").fetchone()[0]  # noqa: E731, B023
        db.owner.execute(f"ALTER POLICY own ON {table} USING (tenant = 2)")
        assert tenants_seen() == [2]
        db.owner.execute(f"CREATE POLICY more ON {table} FOR SELECT USING (tenant = 1)")
        assert tenants_seen() == [1, 2]
        db.owner.execute(f"CREATE POLICY less ON {table} AS RESTRICTIVE USING (id > 1000)")
        assert tenants_seen() is None
        db.owner.execute(f"DROP POLICY less ON {table}; DROP POLICY more ON {table}; DROP POLICY own ON {table}")
        assert tenants_seen() is None
        with db.owner.transaction(force_rollback=True):
            db.owner.execute(f"CREATE POLICY own ON {table} USING (true)")
        assert tenants_seen() is None


def test_p8_rows_that_come_back_are_hidden_again(tenants):
    db = tenants
    archive_both(db)
    db.owner.execute("SELECT restore_rows('plain', 'true')")
    db.owner.execute("SELECT reattach_partition('part_1')")
    for table in ["part", "plain"]:
        assert value(db.reader, f"SELECT count(*) FROM {table}") == 60
    with pytest.raises(REFUSED):
        db.reader.execute("SELECT FROM part_1")


def test_grants_follow(db, role, cluster):
    """Columns, groups, later GRANT and REVOKE, WITH GRANT OPTION: archive.<table> answers as the table does."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("""CREATE TABLE part (id int NOT NULL, at date NOT NULL, salary int) PARTITION BY RANGE (at);
        CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        INSERT INTO part VALUES (1, '2024-01-05', 100)""")
    group, member, column, outsider = role("grp"), role("member"), role("col"), role("outsider")
    db.execute(f"GRANT {group} TO {member}; GRANT SELECT ON part TO {group}; GRANT SELECT (id, at) ON part TO {column}")
    db.execute("SELECT archive_partition('part_1', drop_local => '0')")
    sessions = {name: db.connect(name) for name in (group, member, column, outsider)}

    def may(name, what="*"):
        answers = set()
        for relation in ["part", "archive.part", "archive.part_all"]:
            try:
                sessions[name].execute(f"SELECT {what} FROM {relation}")
                answers.add(True)
            except REFUSED:
                answers.add(False)
        assert len(answers) == 1, f"{name} may {what} here and not there"
        return answers.pop()

    assert may(group) and may(member) and may(column, "id, at")
    assert not may(column) and not may(column, "salary") and not may(outsider, "id")
    db.execute(f"GRANT SELECT (salary) ON part TO {column}; GRANT {group} TO {outsider}")
    assert may(column, "salary") and may(outsider)
    db.execute(f"REVOKE SELECT (salary) ON part FROM {column}; REVOKE SELECT ON part FROM {group}")
    assert not may(column, "salary") and may(column, "id") and not may(group) and not may(member) and not may(outsider)
    db.execute("GRANT SELECT ON part TO PUBLIC")
    assert may(outsider) and may(column, "salary")
    db.execute("REVOKE SELECT ON part FROM PUBLIC")
    assert not may(outsider) and not may(column, "salary")
    # With others that are archived later it is the same.
    db.execute("CREATE TABLE part_2 PARTITION OF part FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
    db.execute("SELECT archive_partition('part_2', drop_local => '0')")
    assert not may(outsider) and may(column, "id") and not may(column, "salary")
