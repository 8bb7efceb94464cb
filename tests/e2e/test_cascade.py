"""Rows archived with all that reference them: in one commit, through any number of tables, each row once."""

import psycopg
import pytest

from harness.cluster import Database, wait_until
from harness.sessions import Call, Repeat

CASCADE = "referenced => 'cascade'"


@pytest.fixture
def shop(db, cluster):
    """Customers, their orders, and the lines of these."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE customer (id int PRIMARY KEY, seen date NOT NULL, name text);
        CREATE TABLE "order" (id int PRIMARY KEY, customer int NOT NULL REFERENCES customer, note text);
        CREATE TABLE line ("order" int REFERENCES "order" ON DELETE CASCADE, no int, what text, PRIMARY KEY ("order", no));
        INSERT INTO customer SELECT n, date '2020-01-01' + n, 'customer ' || n FROM generate_series(1, 300) n;
        INSERT INTO "order" SELECT n, n % 300 + 1, 'order ' || n FROM generate_series(1, 900) n;
        INSERT INTO line SELECT o.id, no, repeat('x', 50) FROM "order" o, generate_series(1, 4) no;""")
    db.conn = db.connect()
    return db


TABLES = {"customer": 300, '"order"': 900, "line": 3600}


def counts(conn):
    each = ", ".join(f"""(SELECT count(*) FROM archive.{name.replace('"', '') + '_all'})""" for name in ["customer", "order", "line"])
    return tuple(conn.execute(f"SELECT {each}").fetchone())


def test_p1_three_levels_go_together(shop):
    """A reader sees all of a customer's rows in the tables, or all in the archive."""
    shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    assert counts(shop.conn) == (300, 900, 3600)
    reader, old = shop.connect(), shop.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    assert counts(old) == (300, 900, 3600)

    def read():
        assert counts(reader) == (300, 900, 3600)
        orphans = """SELECT count(*) FROM archive."order" o WHERE NOT EXISTS (SELECT FROM archive.customer c WHERE c.id = o.customer)"""
        assert reader.execute(orphans).fetchone()[0] == 0

    with Repeat(read) as reads:
        shop.execute(f"CALL archive_table('customer', '2020-05-01', batch_rows => 20, {CASCADE})")
    assert reads.steps > 2
    assert counts(old) == (300, 900, 3600)
    old.rollback()
    assert shop.value("SELECT count(*) FROM customer WHERE seen < '2020-05-01'") == 0
    archived = shop.value("SELECT count(*) FROM archive.customer")
    assert shop.value('SELECT count(*) FROM archive."order"') == 3 * archived
    assert shop.value("SELECT count(*) FROM archive.line") == 12 * archived
    event = shop.value("SELECT details -> 'with' FROM archive_ext.events WHERE event = 'archived' ORDER BY at DESC LIMIT 1")
    assert event == {"public.order": 3 * archived, "public.line": 12 * archived} or set(event) == {'public."order"', "public.line"}


def test_p3_the_bucket_has_all_of_them(shop, cluster):
    shop.execute(f"CALL archive_table('customer', '2020-03-01', batch_rows => 30, batch_bytes => 5000, {CASCADE})")
    queries = [f"SELECT * FROM archive.{table} ORDER BY 1, 2" for table in ["customer", '"order"', "line"]]
    before = [shop.all(query) for query in queries]
    assert [len(rows) for rows in before] == [59, 177, 708]
    other = Database(cluster, f"{shop.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{shop.name}')")
    other.execute("SELECT * FROM import_archive('cold', dry_run => false)")
    assert [other.all(query) for query in queries] == before
    other.drop()


def test_rows_that_reference_each_other_in_a_circle(shop):
    """Trees of a table in itself, and two tables that reference each other."""
    shop.execute("""
        CREATE TABLE person (id int PRIMARY KEY, born date NOT NULL, boss int REFERENCES person);
        INSERT INTO person SELECT n, date '1950-01-01' + n * 100, CASE WHEN n > 1 THEN n / 2 END FROM generate_series(1, 63) n;
        UPDATE person SET boss = 63 WHERE id = 1;
        CREATE TABLE team (id int PRIMARY KEY, since date NOT NULL, lead int);
        CREATE TABLE member (id int PRIMARY KEY, team int NOT NULL REFERENCES team);
        ALTER TABLE team ADD FOREIGN KEY (lead) REFERENCES member;
        INSERT INTO team SELECT n, date '2020-01-01' + n FROM generate_series(1, 20) n;
        INSERT INTO member SELECT n, n % 20 + 1 FROM generate_series(1, 100) n;
        UPDATE team SET lead = (SELECT min(m.id) FROM member m WHERE m.team <> team.id AND m.team % 2 = team.id % 2);""")
    assert shop.value(f"SELECT rows FROM archive_table_batch('person', '1950-06-01', {CASCADE})") == 63
    assert shop.value("SELECT count(*) FROM archive.person") == 63
    shop.execute(f"CALL archive_table('team', '2020-01-03', {CASCADE})")
    assert shop.value("SELECT count(*) FROM team") + shop.value("SELECT count(*) FROM archive.team") == 20
    assert shop.value("SELECT count(*) FROM member") + shop.value("SELECT count(*) FROM archive.member") == 100
    assert shop.value("SELECT count(*) FROM archive.member m WHERE NOT EXISTS (SELECT FROM archive.team t WHERE t.id = m.team)") == 0
    assert shop.value("SELECT count(*) FROM archive.member") > 0


def test_rows_that_others_hold_are_waited_for(shop):
    """Nothing is archived without them; the next call finds them."""
    holder = shop.connect()
    holder.autocommit = False
    holder.execute("""SELECT FROM line WHERE "order" = 300 FOR UPDATE""")
    shop.execute("SET archive_ext.lock_timeout = '300ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    assert shop.value("SELECT count(*) FROM customer") == 300
    holder.rollback()
    shop.execute(f"CALL archive_table('customer', '2020-01-05', {CASCADE})")
    assert counts(shop.conn) == (300, 900, 3600)


def test_what_cannot_go_along_stops_the_batch(shop):
    """A referencing table that cannot be archived by rows is named, and nothing has changed."""
    shop.execute("""CREATE TABLE visit (at date NOT NULL, customer int REFERENCES customer) PARTITION BY RANGE (at);
                    CREATE TABLE visit_1 PARTITION OF visit FOR VALUES FROM ('2020-01-01') TO ('2021-01-01')""")
    with pytest.raises(psycopg.errors.WrongObjectType, match="visit"):
        shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    shop.execute("DROP TABLE visit; CREATE TABLE note (customer int REFERENCES customer, what text)")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="no unique key"):
        shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    shop.execute("""DROP TABLE note; CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
                    $$ BEGIN IF old.no = 3 THEN RETURN NULL; END IF; RETURN old; END $$;
                    CREATE TRIGGER keep BEFORE DELETE ON line FOR EACH ROW EXECUTE FUNCTION keep()""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="could be deleted"):
        shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    assert [shop.value(f"SELECT count(*) FROM {table}") for table in TABLES] == list(TABLES.values())


def test_p1_kill_9_while_families_go(shop, cluster):
    caller = shop.connect()
    call = f"CALL archive_table('customer', '2020-12-01', batch_rows => 5, {CASCADE})"
    running = Call(lambda: caller.execute(call))
    try:
        wait_until(lambda: shop.value("SELECT count(*) FROM customer") < 280, 60, "some batches")
    finally:
        cluster.kill_and_restart()
    with pytest.raises(psycopg.Error):
        running.result()
    shop.reconnect()
    assert counts(shop.conn) == (300, 900, 3600)
    shop.execute(call)
    assert counts(shop.conn) == (300, 900, 3600)
    assert shop.value("SELECT count(*) FROM line") == 0


def test_remnants_are_not_archived_again(shop):
    """A stub that references a row of the batch is in the archive already."""
    shop.execute("""ALTER TABLE "order" ADD COLUMN archived_at timestamptz, ADD COLUMN archive_tier text, ADD COLUMN archive_key text""")
    shop.execute("""SELECT archive_table_batch('"order"', NULL, where_clause => 'customer = 2', mode => 'offload')""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="in the archive already"):
        shop.execute(f"SELECT archive_table_batch('customer', '2020-01-05', {CASCADE})")
    assert shop.value('SELECT count(*) FROM archive.order_all') == 900
    shop.execute("""SELECT restore_rows('"order"', 'true')""")
    shop.execute(f"CALL archive_table('customer', '2020-01-05', {CASCADE})")
    assert counts(shop.conn) == (300, 900, 3600)
