"""Archived rows that stay, marked or as stubs: each row is read once through `_all`, and what stays does not change."""

import psycopg
import pytest

from harness.cluster import Database, wait_until
from harness.proxy import CorruptAnswer
from harness.sessions import Call, Repeat

ROWS = 3_000
STUBS = "mode => 'offload', payload => '{body, headers}'"
MODES = {"mark": "mode => 'mark'", "offload": STUBS}
REMNANT = {"mark": "is_archived", "offload": "archived_at IS NOT NULL"}


@pytest.fixture
def mail(db, cluster):
    """A plain table with a payload, ready for either mode."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE mail (id bigint PRIMARY KEY, at timestamptz NOT NULL, subject text, body text, headers jsonb,
                           is_archived boolean NOT NULL DEFAULT false,
                           archived_at timestamptz, archive_tier text, archive_key text);
        INSERT INTO mail SELECT n, '2022-01-01'::timestamptz + n * interval '1 hour', 'subject ' || n, repeat('body ' || n, 20),
                                jsonb_build_object('n', n) FROM generate_series(1, {ROWS}) n;""")
    db.conn = db.connect()
    return db


EVERYTHING = "SELECT count(*), count(DISTINCT id), sum(id), count(body), count(headers) FROM archive.mail_all"
EXPECTED = (ROWS, ROWS, ROWS * (ROWS + 1) // 2, ROWS, ROWS)


@pytest.mark.parametrize("mode", MODES)
def test_p1_readers_see_each_row_once_and_whole_while_batches_go(mail, mode):
    first = mail.row(f"SELECT * FROM archive_table_batch('mail', '2022-02-01', batch_rows => 100, {MODES[mode]})")
    assert first.rows == 100
    reader, old = mail.connect(), mail.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert tuple(old.execute(EVERYTHING).fetchone()) == EXPECTED

    def read():
        assert tuple(reader.execute(EVERYTHING).fetchone()) == EXPECTED

    with Repeat(read) as reads:
        mail.execute(f"CALL archive_table('mail', '2022-04-01', batch_rows => 150, {MODES[mode]})")
    assert reads.steps > 2
    assert tuple(old.execute(EVERYTHING).fetchone()) == EXPECTED
    old.rollback()
    remnants = mail.value(f"SELECT count(*) FROM mail WHERE {REMNANT[mode]}")
    assert remnants == mail.value("SELECT count(*) FROM mail WHERE at < '2022-04-01'") == mail.value("SELECT count(*) FROM archive.mail")
    assert mail.value("SELECT count(*) FROM mail") == ROWS


@pytest.mark.parametrize("mode", MODES)
def test_remnants_survive_a_dump(mail, mode):
    """The marker is catalog data: where the dump is restored, remnants are left out and guarded as before."""
    mail.execute(f"CALL archive_table('mail', '2022-02-01', {MODES[mode]})")
    with mail.copied() as restored:
        assert tuple(restored.execute(EVERYTHING).fetchone()) == EXPECTED
        with pytest.raises(psycopg.errors.ObjectInUse, match="is in the archive"):
            restored.execute("UPDATE mail SET subject = 'x' WHERE id = 1")


@pytest.mark.parametrize("mode", MODES)
def test_p2_rows_stay_as_they_are_when_what_is_read_back_differs(db, s3, fault_proxy, mode):
    """The object is damaged on its way back: no row is marked, no payload goes."""
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("""
        CREATE TABLE mail (id int PRIMARY KEY, at date NOT NULL, body text, headers jsonb, is_archived boolean,
                           archived_at timestamptz, archive_tier text, archive_key text)""")
    db.execute("INSERT INTO mail SELECT n, '2020-01-01', 'body ' || n, '{}' FROM generate_series(1, 100) n")
    call = f"SELECT rows FROM archive_table_batch('mail', '2021-01-01', batch_rows => 10, {MODES[mode]})"
    assert db.value(call) == 10
    fault_proxy.on("GET", r"\.parquet", fault=CorruptAnswer())
    with pytest.raises(psycopg.Error):
        db.execute(call)
    fault_proxy.heal()
    assert db.value(f"SELECT count(*) FROM mail WHERE {REMNANT[mode]}") == 10
    assert db.value("SELECT count(body) FROM archive.mail_all") == 100
    assert db.value(call) == 10
    assert db.value("SELECT count(body) FROM archive.mail_all") == 100


def test_kill_9_while_stubs_are_made(mail, cluster):
    """What a killed run left is gone on with: every row whole, once."""
    killed = mail.connect()
    call = f"CALL archive_table('mail', '2023-01-01', batch_rows => 50, {STUBS})"
    running = Call(lambda: killed.execute(call))
    try:
        wait_until(lambda: mail.value("SELECT count(*) FROM mail WHERE archived_at IS NOT NULL") > 100, 30, "some stubs")
    finally:
        cluster.kill_and_restart()
    with pytest.raises(psycopg.Error):
        running.result()
    mail.reconnect()
    assert tuple(mail.row(EVERYTHING)) == EXPECTED
    mail.execute(call)
    assert tuple(mail.row(EVERYTHING)) == EXPECTED
    assert mail.value("SELECT count(*) FROM mail WHERE archived_at IS NULL OR body IS NOT NULL") == 0


def test_stubs_satisfy_foreign_keys(mail):
    """Live children keep their parents' keys; a parent that is locked for its key is offloaded all the same."""
    mail.execute("CREATE TABLE attachment (id int PRIMARY KEY, mail bigint NOT NULL REFERENCES mail)")
    mail.execute("INSERT INTO attachment SELECT n, n FROM generate_series(1, 50) n")
    child = mail.connect()
    child.autocommit = False
    child.execute("INSERT INTO attachment VALUES (1001, 7)")
    mail.execute(f"CALL archive_table('mail', '2022-01-02', {STUBS})")
    child.commit()
    assert mail.value("SELECT count(*) FROM mail WHERE archived_at IS NOT NULL") == 23
    mail.execute("INSERT INTO attachment VALUES (1002, 5)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        mail.execute("DELETE FROM mail WHERE id = 5")
    joined = "SELECT count(*), count(m.body) FROM attachment a JOIN archive.mail_all m ON m.id = a.mail"
    assert tuple(mail.row(joined)) == (52, 52)


def test_marked_rows_that_are_referenced_are_not_purged(mail):
    mail.execute("CALL archive_table('mail', '2022-01-02', mode => 'mark')")
    mail.execute("CREATE TABLE attachment (id int PRIMARY KEY, mail bigint NOT NULL REFERENCES mail ON DELETE CASCADE)")
    mail.execute("INSERT INTO attachment VALUES (1, 7)")
    locked = mail.connect()
    locked.autocommit = False
    locked.execute("SELECT FROM mail WHERE id = 9 FOR UPDATE")
    assert mail.value("SELECT purge_marked('mail')") == 21
    locked.rollback()
    assert [row[0] for row in mail.all("SELECT id FROM mail WHERE is_archived ORDER BY id")] == [7, 9]
    mail.execute("DELETE FROM attachment")
    mail.execute("CALL purge_marked_steps('mail', batch_rows => 1)")
    assert mail.value("SELECT count(*) FROM mail WHERE is_archived") == 0
    assert tuple(mail.row(EVERYTHING)) == EXPECTED


def test_purging_goes_by_the_order_of_the_key(mail):
    """Every value is compared once more with the archive."""
    mail.execute("CALL archive_table('mail', '2023-01-01', batch_rows => 100, mode => 'mark')")
    assert mail.value("SELECT count(*) FROM archive_ext.objects") == 30
    assert mail.value("SELECT purge_marked('mail', 100)") == 100
    assert mail.value("SELECT min(id) FROM mail") == 101


def test_stubs_follow_alter_table(mail):
    """The payload may be retyped, renamed and dropped; the marker may be renamed."""
    mail.execute(f"CALL archive_table('mail', '2022-02-01', {STUBS})")
    mail.execute("ALTER TABLE mail RENAME COLUMN body TO content; ALTER TABLE mail DROP COLUMN headers")
    assert mail.value("SELECT count(content) FROM archive.mail_all") == ROWS
    assert mail.value("SELECT count(*) FROM archive.mail_all") == ROWS
    mail.execute("CALL archive_table('mail', '2022-03-01', mode => 'offload', payload => '{content}')")
    assert mail.value("SELECT count(content) FROM archive.mail_all") == ROWS


def test_owners_offload_without_other_rights(mail):
    """Triggers and views belong to the table's owner; strangers cannot archive, mark or forget."""
    mail.execute("""
        CREATE ROLE postmistress; CREATE ROLE stranger; GRANT USAGE ON FOREIGN SERVER cold TO postmistress;
        ALTER TABLE mail OWNER TO postmistress; GRANT SELECT, UPDATE, DELETE ON mail TO stranger""")
    try:
        mail.execute("SET SESSION AUTHORIZATION postmistress")
        mail.execute(f"CALL archive_table('mail', '2022-02-01', {STUBS})")
        mail.execute("SET SESSION AUTHORIZATION stranger")
        for call in ["SELECT purge_marked('mail')", "SELECT forget_marker('mail')",
                     f"SELECT * FROM archive_table_batch('mail', '2022-03-01', {STUBS})"]:
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                mail.execute(call)
        with pytest.raises(psycopg.errors.ObjectInUse):
            mail.execute("UPDATE mail SET subject = 'x' WHERE id = 1")
        mail.execute("RESET SESSION AUTHORIZATION")
        assert tuple(mail.row(EVERYTHING)) == EXPECTED
    finally:
        mail.execute("RESET SESSION AUTHORIZATION; ALTER TABLE mail OWNER TO postgres")
        mail.execute("DROP OWNED BY postmistress, stranger; DROP ROLE postmistress, stranger")


@pytest.fixture
def sales(db, cluster):
    """Sales with lines by month, and refunds that reference sales and are no child."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE sale (id int, day date, customer text, total numeric, archived_at timestamptz, archive_tier text, archive_key text,
                           PRIMARY KEY (id, day)) PARTITION BY RANGE (day);
        CREATE TABLE line (sale int, day date, no int, PRIMARY KEY (sale, day, no), FOREIGN KEY (sale, day) REFERENCES sale)
            PARTITION BY RANGE (day);
        CREATE TABLE refund (id int PRIMARY KEY, sale int, day date, FOREIGN KEY (sale, day) REFERENCES sale);""")
    for month in range(1, 4):
        for table in ["sale", "line"]:
            db.execute(f"CREATE TABLE {table}_{month} PARTITION OF {table} FOR VALUES FROM ('2024-0{month}-01') TO ('2024-0{month + 1}-01')")
    db.execute("INSERT INTO sale SELECT n, date '2024-01-01' + n % 90, 'customer ' || n, n * 1.10 FROM generate_series(1, 9000) n")
    db.execute("INSERT INTO line SELECT id, day, no FROM sale, generate_series(1, 2) no")
    db.execute("INSERT INTO refund SELECT id, id, day FROM sale WHERE id % 100 = 0")
    db.execute("SELECT add_child_table('sale', 'line')")
    db.conn = db.connect()
    return db


SALES = "SELECT count(*), count(DISTINCT id), count(customer), sum(total) FROM archive.sale_all"


def test_p1_a_family_whose_keys_are_kept_is_read_once(sales):
    """By readers beside it, and by a snapshot that is older: the rows of stubs come to the archive by MVCC."""
    sales.execute("SELECT archive_family('sale_1', keep_keys => true)")
    expected = tuple(sales.row(SALES))
    assert expected[:3] == (9000, 9000, 9000)
    reader, old = sales.connect(), sales.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert tuple(old.execute(SALES).fetchone()) == expected

    def read():
        assert tuple(reader.execute(SALES).fetchone()) == expected

    writer = sales.connect()
    with Repeat(read) as reads, Repeat(lambda: writer.execute("INSERT INTO refund SELECT max(id) + 1, 31, '2024-02-01' FROM refund")):
        sales.execute("CALL archive_table('sale_2', NULL, where_clause => 'true', mode => 'offload', batch_rows => 500)")
        assert tuple(old.execute(SALES).fetchone()) == expected
        # The swap of the lines waits for whoever reads the sales.
        old.rollback()
        sales.execute("SELECT archive_family('sale_2', keep_keys => true)")
    assert reads.steps > 2
    assert sales.value("SELECT count(*) FROM sale WHERE archived_at IS NOT NULL AND customer IS NULL") == 9000 - sales.value(
        "SELECT count(*) FROM sale_3")
    assert sales.value("SELECT count(*) FROM archive.line_all") == 18000


def test_p3_stubs_of_a_partition_come_back_whole_from_the_bucket(sales, cluster):
    sales.execute("SELECT archive_family('sale_1', keep_keys => true)")
    sales.execute("INSERT INTO sale SELECT 10000 + n, '2024-01-07', 'late', 1 FROM generate_series(1, 9) n")
    sales.execute("SELECT archive_table_batch('sale_1', NULL, where_clause => 'true', mode => 'offload')")
    before = sales.all("SELECT id, day, customer, total FROM archive.sale ORDER BY id, day")
    assert len(before) == 3109
    name = f"{sales.name}_again"
    again = Database(cluster, name)
    again.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{sales.name}')")
    lines = again.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert {line.action for line in lines} <= {"table", "import", "child"}, lines
    assert again.all("SELECT id, day, customer, total FROM archive.sale ORDER BY id, day") == before
    assert again.value("SELECT count(*) FROM archive.sale_all") == 3109
    again.drop()


@pytest.mark.parametrize("mode", MODES)
def test_lookups_and_counts_go_past_remnants(mail, mode):
    mail.execute("SELECT reconcile_counts('mail')")
    mail.execute(f"CALL archive_table('mail', '2022-02-01', {MODES[mode]})")
    assert mail.value("SELECT archive_tier_of('mail', '7')") == "cold"
    assert mail.value("SELECT archive_tier_of('mail', '2900')") == "hot"
    assert mail.value("SELECT get_archived_record('mail', '7')")["headers"] == {"n": 7}
    assert mail.value("SELECT sum(hot + archived) FROM reconcile_counts('mail')") == ROWS


@pytest.mark.parametrize("mode", MODES)
def test_remnants_become_rows_again(mail, mode):
    """restore_rows fills them up; what the table has besides is a conflict as ever."""
    before = mail.all("SELECT id, at, subject, body, headers FROM mail ORDER BY id")
    mail.execute(f"CALL archive_table('mail', '2022-02-01', {MODES[mode]})")
    mail.execute("CREATE TABLE attachment (id int PRIMARY KEY, mail bigint NOT NULL REFERENCES mail)")
    mail.execute("INSERT INTO attachment SELECT n, n FROM generate_series(1, 50) n")
    assert mail.value("SELECT restore_rows('mail', 'id BETWEEN 5 AND 14')") == 10
    assert tuple(mail.row(EVERYTHING)) == EXPECTED
    assert mail.value(f"SELECT count(*) FROM mail WHERE id BETWEEN 5 AND 14 AND NOT ({REMNANT[mode]}) AND archive_key IS NULL") == 10
    mail.execute("UPDATE mail SET subject = 'corrected' WHERE id = 7")
    mail.execute("DELETE FROM mail WHERE id = 100")
    assert mail.value("SELECT restore_rows('mail', 'true')") == 743 - 10
    assert mail.value("SELECT count(*) FROM archive.mail") == 0
    mail.execute("UPDATE mail SET subject = 'subject 7' WHERE id = 7")
    assert mail.all("SELECT id, at, subject, body, headers FROM mail ORDER BY id") == before
    mail.execute("SELECT forget_marker('mail')")
    mail.execute("UPDATE mail SET is_archived = true WHERE id = 1")


def test_restoring_stubs_reports_rows_that_took_their_keys(mail):
    mail.execute(f"CALL archive_table('mail', '2022-01-02', {STUBS})")
    mail.execute("DELETE FROM mail WHERE id = 3; INSERT INTO mail VALUES (3, now(), 'another')")
    with pytest.raises(psycopg.errors.UniqueViolation):
        mail.execute("SELECT restore_rows('mail', 'true')")
    assert mail.value("SELECT restore_rows('mail', 'true', on_conflict => 'skip')") == 22
    assert mail.value("SELECT subject FROM mail WHERE id = 3") == "another"
    assert mail.value("SELECT restore_rows('mail', 'true', on_conflict => 'replace')") == 1
    assert mail.value("SELECT subject FROM mail WHERE id = 3") == "subject 3"
    assert mail.value("SELECT count(*) FROM archive.mail") == 0


def test_stubs_of_a_partition_become_rows_again(sales):
    """Then the partition is one like others: it can be archived as a whole."""
    before = sales.all("SELECT id, day, customer, total FROM sale ORDER BY id, day")
    sales.execute("SELECT archive_family('sale_1', keep_keys => true)")
    sales.execute("SELECT archive_family('sale_3', keep_keys => true)")
    assert sales.value("SELECT restore_rows('sale', 'day < ''2024-01-11''')") == 1000
    assert sales.value("SELECT restore_rows('sale', 'day < ''2024-02-01''')") == 2100
    assert sales.value("SELECT count(*) FROM archive.sale") == 3000
    sales.execute("SELECT reattach_family('line_1'); DELETE FROM refund WHERE day < '2024-02-01'")
    sales.execute("SELECT archive_family('sale_1')")
    assert not sales.exists("archive.sale_1_rows")
    assert sales.all("SELECT id, day, customer, total FROM archive.sale_all ORDER BY id, day") == before
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="holds stubs"):
        sales.execute("SELECT archive_partition('sale_3')")
    # Compaction and lookups know such rows, too.
    assert sales.value("SELECT archive_tier_of('sale', '{\"id\": 60, \"day\": \"2024-03-01\"}')") == "cold"
    assert sales.value("SELECT restore_rows('sale', 'true')") == 3000
    assert sales.value("SELECT count(*) FROM sale WHERE archived_at IS NOT NULL") == 0


KEEPS_OLD = """CREATE FUNCTION keep_old() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN old; END $$;
               CREATE TRIGGER zz BEFORE UPDATE ON mail FOR EACH ROW EXECUTE FUNCTION keep_old()"""


@pytest.mark.parametrize("mode", MODES)
def test_p1_triggers_that_keep_old_values_stop_the_batch_and_the_restore(mail, mode):
    mail.execute(KEEPS_OLD)
    call = f"SELECT archive_table_batch('mail', '2022-01-02', {MODES[mode]})"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="0 of 23"):
        mail.execute(call)
    mail.execute("DROP TRIGGER zz ON mail")
    mail.execute(call)
    mail.execute("CREATE TRIGGER zz BEFORE UPDATE ON mail FOR EACH ROW EXECUTE FUNCTION keep_old()")
    for on_conflict in ["error", "skip", "replace"]:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="archived values"):
            mail.execute(f"SELECT restore_rows('mail', 'true', on_conflict => '{on_conflict}')")
    assert tuple(mail.row(EVERYTHING)) == EXPECTED


def test_marking_fails_where_a_trigger_changes_more(mail):
    """purge_marked would find every row to differ from its archive."""
    mail.execute("""CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.subject := 'touched'; RETURN new; END $$;
                    CREATE TRIGGER touch BEFORE UPDATE ON mail FOR EACH ROW EXECUTE FUNCTION touch()""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="0 of 23"):
        mail.execute("SELECT archive_table_batch('mail', '2022-01-02', mode => 'mark')")


def test_p1_triggers_do_not_get_past_the_guards(mail):
    """What a trigger marks while rows are marked is refused, as is a marker that it sets on rows that come in."""
    mail.execute("""CREATE FUNCTION spread() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN UPDATE mail SET is_archived = true WHERE id = new.id + 1000; RETURN NULL; END $$;
                    CREATE TRIGGER spread AFTER UPDATE OF is_archived ON mail FOR EACH ROW EXECUTE FUNCTION spread()""")
    with pytest.raises(psycopg.errors.ObjectInUse, match="only archiving sets"):
        mail.execute("SELECT archive_table_batch('mail', '2022-01-02', mode => 'mark')")
    mail.execute("DROP TRIGGER spread ON mail; SELECT archive_table_batch('mail', '2022-01-02', mode => 'mark')")
    mail.execute("""CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN new.is_archived := true; RETURN new; END $$;
                    CREATE TRIGGER zz BEFORE INSERT ON mail FOR EACH ROW EXECUTE FUNCTION mark()""")
    with pytest.raises(psycopg.errors.ObjectInUse, match="only archiving sets"):
        mail.execute("INSERT INTO mail (id, at) VALUES (9999, now())")


def test_p1_rows_archived_with_a_marker_of_their_own_stay_there(mail):
    mail.execute("UPDATE mail SET is_archived = true WHERE id < 10")
    mail.execute("SELECT archive_table_batch('mail', NULL, where_clause => 'id < 10')")
    mail.execute("SELECT archive_table_batch('mail', NULL, where_clause => 'id < 20', mode => 'mark')")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="set themselves"):
        mail.execute("SELECT restore_rows('mail', 'id < 20')")
    assert mail.value("SELECT restore_rows('mail', 'id BETWEEN 10 AND 20')") == 10
    assert tuple(mail.row(EVERYTHING)) == EXPECTED


def test_what_policies_hide_is_counted_too(mail, role):
    owner = role("postmaster_of_mail")
    mail.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}; ALTER TABLE mail OWNER TO {owner}")
    mail.execute("SELECT archive_table_batch('mail', '2022-01-02', mode => 'mark')")
    mail.execute("""ALTER TABLE mail ENABLE ROW LEVEL SECURITY; ALTER TABLE mail FORCE ROW LEVEL SECURITY;
                    CREATE POLICY p ON mail USING (NOT is_archived)""")
    mail.execute(f"SET SESSION AUTHORIZATION {owner}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        mail.execute("SELECT forget_marker('mail')")
    mail.execute("RESET SESSION AUTHORIZATION; ALTER TABLE mail OWNER TO postgres")
