"""P3: what is archived comes back from nothing but the bucket, by import_archive into another cluster."""

import json
import shutil
from pathlib import Path

import jsonschema
import psycopg
import pytest

from harness.cluster import Cluster, Database
from harness.orders import archive, create_orders
from test_restore_plain import restore

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"

# Every kind of prerequisite: collation, nested composite, domain over an enum, range, extension, sequence, deep tree.
RICH = """
    CREATE SCHEMA "Odd schema";
    CREATE EXTENSION citext SCHEMA public;
    CREATE COLLATION "Odd schema".german (PROVIDER = icu, LOCALE = 'de-u-ks-level2', DETERMINISTIC = false);
    CREATE TYPE "Odd schema".mood AS ENUM ('so''so', 'fine');
    CREATE DOMAIN "Odd schema".good_mood AS "Odd schema".mood DEFAULT 'fine' CHECK (VALUE <> 'so''so');
    CREATE TYPE "Odd schema".inner_part AS ("a b" "Odd schema".good_mood, t text COLLATE "C");
    CREATE TYPE "Odd schema".part AS (i "Odd schema".inner_part[], c public.citext);
    CREATE TYPE "Odd schema".float_range AS RANGE (SUBTYPE = float8, SUBTYPE_DIFF = float8mi);
    CREATE SEQUENCE "Odd schema".ticket_seq INCREMENT BY 5 START 100;
    CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE FUNCTION helper(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1;
    CREATE TABLE "Odd schema"."Tickets" (
        id       bigint GENERATED ALWAYS AS IDENTITY (START WITH 1000),
        at       timestamptz NOT NULL,
        region   text NOT NULL,
        ticket   int NOT NULL DEFAULT nextval('"Odd schema".ticket_seq'),
        mood     "Odd schema".mood DEFAULT 'fine',
        name     text COLLATE "Odd schema".german,
        twice    int GENERATED ALWAYS AS (ticket * 2) STORED,
        helped   int DEFAULT helper(3),
        part     "Odd schema".part,
        spans    "Odd schema".float_multirange,
        good     "Odd schema".good_mood,
        PRIMARY KEY (id, at, region),
        CONSTRAINT positive CHECK (ticket > 0)
    ) PARTITION BY RANGE (at);
    ALTER SEQUENCE "Odd schema".ticket_seq OWNED BY "Odd schema"."Tickets".ticket;
    CREATE INDEX by_name ON "Odd schema"."Tickets" (name);
    CREATE INDEX by_mood ON "Odd schema"."Tickets" (mood) WHERE mood = 'fine';
    COMMENT ON TABLE "Odd schema"."Tickets" IS 'it''s odd';
    COMMENT ON COLUMN "Odd schema"."Tickets".name IS 'a name';
    CREATE TRIGGER stamp BEFORE INSERT ON "Odd schema"."Tickets" FOR EACH ROW EXECUTE FUNCTION stamp();
    CREATE TABLE "Odd schema".t2024 PARTITION OF "Odd schema"."Tickets"
        FOR VALUES FROM ('2024-01-01+00') TO ('2025-01-01+00') PARTITION BY LIST (region);
    CREATE TABLE "Odd schema".t2024_eu PARTITION OF "Odd schema".t2024 FOR VALUES IN ('eu', 'uk');
    CREATE TABLE "Odd schema".t2024_us PARTITION OF "Odd schema".t2024 FOR VALUES IN ('us');
    CREATE TABLE "Odd schema".t2025 PARTITION OF "Odd schema"."Tickets"
        FOR VALUES FROM ('2025-01-01+00') TO ('2026-01-01+00') PARTITION BY LIST (region);
    CREATE TABLE "Odd schema".t2025_eu PARTITION OF "Odd schema".t2025 FOR VALUES IN ('eu');
    INSERT INTO "Odd schema"."Tickets" (at, region, name, part, spans)
        SELECT '2024-01-01+00'::timestamptz + n * interval '17 hours', (ARRAY['eu', 'us', 'uk'])[1 + n % 3], 'Näme ' || n,
               ROW(ARRAY[ROW('fine', 'it''s, "' || n)::"Odd schema".inner_part, NULL], 'Citext ' || n)::"Odd schema".part,
               "Odd schema".float_multirange("Odd schema".float_range(n, n + 0.1))
        FROM generate_series(1, 300) n;
    INSERT INTO "Odd schema"."Tickets" (at, region) VALUES ('2025-06-01+00', 'eu');
"""
TICKETS = '"Odd schema"."Tickets"'


@pytest.fixture(scope="module")
def other_cluster():
    other = Cluster()
    yield other
    other.stop()


@pytest.fixture
def other(other_cluster, request):
    """An empty database of another cluster, with the extension."""
    database = Database(other_cluster, f"rebuilt_{abs(hash(request.node.name))}")
    yield database
    database.drop()


def file_storage(db, root, name="cold"):
    db.execute(f"CREATE SERVER {name} FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    db.execute(f"SET archive_ext.default_storage = {name}")


def import_archive(db, **arguments):
    named = "".join(f", {name} => %({name})s" for name in arguments)
    return db.all(f"SELECT * FROM import_archive('cold'{named})", arguments)


def odd_functions(db):
    """What manifests do not hold."""
    db.execute("CREATE FUNCTION stamp() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'")
    db.execute("CREATE FUNCTION helper(int) RETURNS int IMMUTABLE LANGUAGE sql RETURN $1")


def by_partition(lines, action="import"):
    return {line.partition: line for line in lines if line.action == action}


def text_of(db, table):
    return sorted(r[0] for r in db.all(f"SELECT t::text FROM {table} t"))


def test_everything_comes_back_in_another_cluster(db, cluster, other):
    root = cluster.storage / db.name
    file_storage(db, root)
    db.execute(RICH)
    expected = text_of(db, TICKETS)
    for leaf in ["t2024_eu", "t2024_us", "t2025_eu"]:
        archive(db, f'"Odd schema".{leaf}', drop_local="0")

    file_storage(other, root)
    before = other.value("SELECT count(*) FROM pg_class")
    planned = import_archive(other)
    assert other.value("SELECT count(*) FROM pg_class") == before
    done = import_archive(other, dry_run=False)

    assert [tuple(line) for line in planned] == [tuple(line) for line in done]
    assert sorted(by_partition(done)) == ['"Odd schema".t2024_eu', '"Odd schema".t2024_us', '"Odd schema".t2025_eu']
    assert by_partition(done)['"Odd schema".t2025_eu'].rows == 1
    assert text_of(other, 'archive."Tickets"') == expected
    assert text_of(other, 'archive."Tickets_all"') == expected
    assert other.value(f"SELECT count(*) FROM {TICKETS}") == 0
    # What called functions that are not in the bucket is reported, the rest is there.
    warnings = " ".join(line.detail for line in done if line.action == "warning")
    assert "helper" in warnings and "stamp" in warnings
    facts = """SELECT (SELECT string_agg(indexrelid::regclass::text, ' ' ORDER BY indexrelid::regclass::text) FROM pg_index
                       WHERE indrelid = '"Odd schema"."Tickets"'::regclass),
                      (SELECT string_agg(conname || pg_get_constraintdef(oid), ' ' ORDER BY conname) FROM pg_constraint
                       WHERE conrelid = '"Odd schema"."Tickets"'::regclass),
                      obj_description('"Odd schema"."Tickets"'::regclass, 'pg_class'),
                      col_description('"Odd schema"."Tickets"'::regclass, 6),
                      pg_get_serial_sequence('"Odd schema"."Tickets"', 'ticket'),
                      (SELECT string_agg(relid::text || parentrelid::text || isleaf::text, ' ' ORDER BY relid::text)
                       FROM pg_partition_tree('archive."Tickets"'))"""
    assert other.row(facts) == db.row(facts)

    assert other.all("SELECT field_id, column_name FROM archive_ext.column_map ORDER BY 1") == db.all(
        "SELECT field_id, column_name FROM archive_ext.column_map ORDER BY 1")

    # The sequences go on where they were, and partitions come back as if they had been archived here.
    assert other.value("SELECT nextval('\"Odd schema\".ticket_seq')") == db.value(
        "SELECT nextval('\"Odd schema\".ticket_seq')")
    assert other.value("SELECT nextval(pg_get_serial_sequence('\"Odd schema\".\"Tickets\"', 'id'))") == 1301
    odd_functions(other)
    other.execute("SELECT reattach_partition('\"Odd schema\".t2024_us')")
    assert other.value(f"SELECT count(*) FROM {TICKETS}") == 100
    assert text_of(other, 'archive."Tickets_all"') == expected

    again = import_archive(other, dry_run=False)
    assert {line.action for line in again} == {"known"}
    # The bucket is still the first cluster's.
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="belongs to another cluster"):
        archive(other, '"Odd schema".t2024_us')
    other.execute("SELECT adopt_storage('cold')")
    archive(other, '"Odd schema".t2024_us')
    assert text_of(other, 'archive."Tickets"') == expected


def test_a_manifest_of_format_1_is_imported(other, other_cluster, cluster):
    root = cluster.storage / "format1"
    shutil.copytree(FIXTURES / "format1", root)
    for path in [root, *root.rglob("*")]:
        shutil.chown(path, cluster.user)
    file_storage(other, root)

    done = import_archive(other, dry_run=False, verify=True)

    assert [(line.partition, line.rows) for line in done if line.action == "import"] == [("public.orders_2024_01", 21)]
    assert other.row("SELECT count(*), sum(double), count(DISTINCT status) FROM archive.orders_all"
                     " WHERE amount <> 'NaN'") == (20, 460, 1)
    assert other.value("SELECT verified_at > archived_at FROM archive_ext.partition")
    other.execute("SELECT reattach_partition('orders_2024_01')")
    assert other.value("SELECT count(*) FROM orders WHERE tags[2] IS NULL AND amount = 'NaN'") == 1


def test_import_from_s3_needs_nothing_but_credentials(db, any_s3, other):
    any_s3.create_storage(db.conn)
    create_orders(db.conn, months=3, rows=300)
    expected = text_of(db, "orders")
    db.execute("SELECT archive_partitions('{orders_2024_01, orders_2024_02, orders_2024_03}', drop_local => '0')")
    any_s3.create_storage(other.conn)

    done = import_archive(other, dry_run=False, verify=True)

    assert sorted(line.action for line in done) == ["import"] * 3 + ["table"]
    assert text_of(other, "archive.orders_all") == expected
    assert other.value("SELECT count(*) FROM archive.orders WHERE id = 450") == 1


def test_odd_tables_are_restored_without_the_extension(db, cluster, other_cluster):
    root = cluster.storage / db.name
    file_storage(db, root)
    db.execute(RICH)
    expected = text_of(db, '"Odd schema".t2024_eu')
    archive(db, '"Odd schema".t2024_eu', drop_local="0")
    with other_cluster.connect() as admin:
        admin.execute("CREATE DATABASE odd_plain")

    code, psql_code, said = restore(other_cluster, "odd_plain", root / "Odd%20schema.Tickets/_manifests/t2024_eu.v1.json")

    assert (code, psql_code) == (0, 0)
    assert said.count("ERROR") == 1 and "helper(integer) does not exist" in said
    with other_cluster.connect("odd_plain") as plain:
        assert sorted(r[0] for r in plain.execute('SELECT t::text FROM "Odd schema".t2024_eu t')) == expected


def test_owner_filter_and_missing_roles(db, cluster, role, other, other_cluster):
    owner, reader = role("owner"), role("reader")
    root = cluster.storage / db.name
    file_storage(db, root)
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    session = db.connect(owner, options="-c archive_ext.default_storage=cold")
    for name in ["orders", "invoices"]:
        create_orders(session, name=name, months=2, rows=50)
        session.execute(f"GRANT SELECT ON {name} TO {reader}")
        session.execute("SELECT archive_partition(%s, drop_local => '0')", [f"{name}_2024_01"])
    file_storage(other, root)
    other.execute("CREATE ROLE heir LOGIN")
    other.execute("GRANT USAGE ON FOREIGN SERVER cold TO heir")
    try:
        planned = import_archive(other, tables="public.inv%")
        assert sorted(by_partition(planned)) == ["public.invoices_2024_01"]
        assert owner in " ".join(line.detail for line in planned if line.action == "warning")

        done = import_archive(other, tables="public.orders", dry_run=False, owner="heir")

        assert sorted(by_partition(done)) == ["public.orders_2024_01"]
        assert reader in " ".join(line.detail for line in done if line.action == "warning")
        owners = other.all("SELECT DISTINCT pg_get_userbyid(relowner)::text AS name FROM pg_class WHERE relname ~ 'orders'")
        assert [r.name for r in owners] == ["heir"]
        assert not other.value("SELECT has_schema_privilege('heir', 'public', 'CREATE')")
        heir = other.connect("heir")
        assert heir.execute("SELECT count(*) FROM archive.orders_all").fetchone()[0] == 50
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            heir.execute("SELECT import_archive('cold')")
        with pytest.raises(psycopg.errors.UndefinedObject):
            import_archive(other, owner="nobody")
    finally:
        other.execute("DROP OWNED BY heir CASCADE")
        other.execute("DROP ROLE heir")


def test_what_cannot_be_imported_is_reported_and_left_alone(db, cluster, other):
    root = cluster.storage / db.name
    file_storage(db, root)
    create_orders(db.conn, months=5, rows=40)
    for month in range(1, 6):
        archive(db, f"orders_2024_0{month}", drop_local="0")
    next((root / "public.orders/archive_year=2024/archive_month=01").glob("*.parquet")).unlink()
    damaged = next((root / "public.orders/archive_year=2024/archive_month=02").glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:-9] + b"x" * 9)
    (root / "public.orders/_manifests/orders_2024_03.v1.json").write_text("{")
    moved = root / "public.orders/_manifests/orders_2024_09.v1.json"
    shutil.copy(root / "public.orders/_manifests/orders_2024_04.v1.json", moved)
    shutil.chown(moved, cluster.user)
    file_storage(other, root)
    create_orders(other.conn, months=0)
    other.execute("CREATE TABLE mine PARTITION OF orders FOR VALUES FROM ('2024-05-10+00') TO ('2024-05-11+00')")

    done = import_archive(other, dry_run=False, verify=True)

    actions = {line.partition: line.action for line in done}
    assert actions == {
        "public.orders_2024_01": "incomplete", "public.orders_2024_02": "incomplete",
        "public.orders/_manifests/orders_2024_03.v1.json": "unreadable",
        "public.orders_2024_04": "import", "public.orders/_manifests/orders_2024_09.v1.json": "unreadable",
        "public.orders_2024_05": "conflict", "chain of cold": "warning"}
    assert "overlap" in by_partition(done, "conflict")["public.orders_2024_05"].detail
    assert other.value("SELECT count(*) FROM archive.orders_all") == 40
    assert other.value("SELECT count(*) FROM archive_ext.partition") == 1


def test_the_newest_version_is_imported_and_overlaps_are_reported(db, cluster, other):
    root = cluster.storage / db.name
    file_storage(db, root)
    create_orders(db.conn, months=1, rows=40)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute("DELETE FROM orders WHERE id <= 10")
    archive(db, "orders_2024_01", drop_local="0")
    assert db.value("SELECT version FROM archive_ext.partition") == 2
    # The table is made anew with other partitions, and archived again.
    db.execute("DROP TABLE archive.orders, orders CASCADE")
    db.execute("DELETE FROM archive_ext.partition; DELETE FROM archive_ext.managed_table")
    create_orders(db.conn, months=0)
    db.execute("CREATE TABLE orders_half PARTITION OF orders FOR VALUES FROM ('2024-01-01+00') TO ('2024-01-16+00')")
    db.execute("INSERT INTO orders (created_at, customer_id, amount) VALUES ('2024-01-02', 1, 1)")
    archive(db, "orders_half", drop_local="0")
    file_storage(other, root)

    done = import_archive(other, dry_run=False)

    assert [(line.partition, line.action, line.version) for line in done if line.action != "table"] == [
        ("public.orders_half", "import", 1), ("public.orders_2024_01", "conflict", 2)]
    assert other.value("SELECT count(*) FROM archive.orders_all") == 1


@pytest.mark.parametrize("fault", ["missing", "damaged"])
def test_p3_an_older_version_is_imported_where_the_newest_is_not_complete(db, cluster, other, fault):
    """A manifest that a run left which rolled back, or an object that was lost: what is whole is not passed over, and it is told."""
    root = cluster.storage / db.name
    file_storage(db, root)
    create_orders(db.conn, months=2, rows=40)
    for month in "12":
        archive(db, f"orders_2024_0{month}", drop_local="0")
    for _ in range(2):
        db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
        db.execute("DELETE FROM orders_2024_01 WHERE id = (SELECT min(id) FROM orders_2024_01)")
        archive(db, "orders_2024_01", drop_local="0")
    (newest,) = root.rglob("orders_2024_01.v3.*.parquet")
    if fault == "missing":
        newest.unlink()
    else:
        newest.write_bytes(newest.read_bytes()[:-9] + b"x" * 9)
    file_storage(other, root)
    notices = []
    other.conn.add_notice_handler(lambda notice: notices.append((notice.severity, notice.message_primary)))
    planned = import_archive(other, verify=True)
    notices.clear()

    done = import_archive(other, dry_run=False, verify=True)

    assert [tuple(line) for line in planned] == [tuple(line) for line in done]
    assert {name: (line.version, line.rows) for name, line in by_partition(done).items()} == {
        "public.orders_2024_01": (2, 39), "public.orders_2024_02": (1, 40)}
    (warning,) = by_partition(done, "warning").values()
    assert warning.partition == "public.orders_2024_01"
    assert warning.detail.startswith("version 3 is not complete, version 2 is imported as it was: object")
    assert notices == [("WARNING", "version 3 of public.orders_2024_01 is not complete; version 2 is imported in its place")]
    assert other.value("SELECT count(*) FROM archive.orders_all") == 79
    if fault == "missing":
        assert {line.action for line in import_archive(other, dry_run=False)} == {"known"}
    # None is complete: the newest is told.
    for path in root.rglob("orders_2024_01.v*.parquet"):
        path.unlink()
    other.execute("DROP TABLE archive.orders, orders CASCADE")
    other.execute("DELETE FROM archive_ext.partition; DELETE FROM archive_ext.managed_table")
    (incomplete,) = by_partition(import_archive(other, dry_run=False), "incomplete").values()
    assert (incomplete.version, "orders_2024_01.v3.00000.parquet" in incomplete.detail) == (3, True)
    assert other.value("SELECT count(*) FROM archive.orders_all") == 40


def test_bounds_are_the_same_text_in_every_time_zone(db, cluster):
    root = cluster.storage / db.name
    file_storage(db, root)
    db.execute("SET timezone = 'America/New_York'")
    create_orders(db.conn, months=1, rows=30)
    db.execute("CREATE TABLE orders_ny PARTITION OF orders FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
    first = archive(db, "orders_2024_01", drop_local="0")
    archive(db, "orders_ny", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01')")

    db.execute("SET timezone = 'Asia/Tokyo'")
    again = archive(db, "orders_2024_01", drop_local="0")

    assert again.location == first.location, "an unmodified partition was uploaded again"
    assert sorted(p.name for p in (root / "public.orders/archive_year=2024").iterdir()) == [
        "archive_month=01", "archive_month=02"]
    assert db.all("SELECT label, bounds FROM archive_ext.partition ORDER BY id") == [
        ("ARCHIVE_202401", "FOR VALUES FROM ('2024-01-01 00:00:00+00') TO ('2024-02-01 00:00:00+00')"),
        ("ARCHIVE_202402", "FOR VALUES FROM ('2024-02-01 05:00:00+00') TO ('2024-03-01 05:00:00+00')")]


def test_manifests_keep_to_the_published_schema(db, cluster):
    schema = json.loads((FIXTURES.parents[1] / "docs/manifest.schema.json").read_text())
    root = cluster.storage / db.name
    file_storage(db, root)
    db.execute(RICH)
    archive(db, '"Odd schema".t2024_eu')
    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)

    manifests = [*root.glob("*/_manifests/*.json"), *FIXTURES.glob("format1/*/_manifests/*.json")]

    assert len(manifests) == 2
    for manifest in manifests:
        assert [e.message for e in validator.iter_errors(json.loads(manifest.read_text()))] == []
    written = json.loads(manifests[0].read_text())
    assert written["database"]["timezone"] == "UTC" and "/" in written["database"]["lsn"]
    assert {c["name"] for c in written["collations"]} >= {'"Odd schema".german', 'pg_catalog."default"'}


def test_an_archive_in_another_encoding_is_imported(cluster, db, other):
    source, root = f"{db.name}_latin1", cluster.storage / f"{db.name}_latin1"
    with cluster.connect() as admin:
        admin.execute(f"CREATE DATABASE {source} ENCODING 'LATIN1' TEMPLATE template0 LC_COLLATE 'C' LC_CTYPE 'C'")
    try:
        with cluster.connect(source) as conn:
            conn.execute("CREATE EXTENSION archive_ext")
            conn.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
            conn.execute("CREATE TABLE käse (id int, größe text DEFAULT 'weiß') PARTITION BY LIST (größe)")
            conn.execute("CREATE TABLE käse_übrig PARTITION OF käse FOR VALUES IN ('weiß', 'süß')")
            conn.execute("COMMENT ON TABLE käse IS 'schön'; INSERT INTO käse VALUES (1, 'süß'), (2, DEFAULT)")
            conn.execute("SELECT archive_partition('käse_übrig', 'cold', drop_local => '0')")
        file_storage(other, root)

        done = import_archive(other, dry_run=False, tables="%käse")

        assert [(line.partition, line.action) for line in done] == [
            ('public."käse"', "table"), ('public."käse"', "warning"), ('public."käse_übrig"', "import")]
        assert "LATIN1" in done[1].detail
        assert other.all("SELECT id, größe FROM archive.käse_all WHERE größe = 'weiß'") == [(2, "weiß")]
        other.execute("SELECT reattach_partition('käse_übrig')")
        assert other.all("SELECT * FROM käse ORDER BY id") == [(1, "süß"), (2, "weiß")]
        assert other.value("SELECT obj_description('käse'::regclass)") == "schön"
    finally:
        with cluster.connect() as admin:
            admin.execute(f"DROP DATABASE {source} WITH (FORCE)")


def test_the_columns_of_a_table_that_changed_keep_their_fields(db, cluster, other):
    """Dropped, renamed, retyped and added columns: what the old database showed is what the new one shows."""
    file_storage(db, cluster.storage / db.name)
    db.execute("CREATE TABLE t (gone int, id int, old text, n int) PARTITION BY RANGE (id)")
    for i in range(3):
        db.execute(f"CREATE TABLE t_{i} PARTITION OF t FOR VALUES FROM ({i}) TO ({i + 1})")
        db.execute(f"INSERT INTO t (id, {'renamed' if i else 'old'}, n) VALUES ({i}, 'text {i}', {i})")
        archive(db, f"t_{i}", drop_local="0")
        if i == 0:
            db.execute("ALTER TABLE t DROP gone; ALTER TABLE t RENAME old TO renamed; ALTER TABLE t ALTER n TYPE bigint")
        elif i == 1:
            db.execute("ALTER TABLE t ADD added text")
    expected = text_of(db, "archive.t_all")
    file_storage(other, cluster.storage / db.name)

    import_archive(other, dry_run=False)

    assert text_of(other, "archive.t_all") == expected
    for i in range(3):
        other.execute(f"SELECT reattach_partition('t_{i}')")
    assert text_of(other, "t") == expected


def test_the_column_map_is_imported(db, cluster, other):
    """Defaults of columns that were added later, and conversions that nobody can repeat, are what they were."""
    file_storage(db, cluster.storage / db.name)
    db.execute("CREATE TABLE t (id int, amount int, gone int) PARTITION BY RANGE (id)")
    for i in (1, 2):
        db.execute(f"CREATE TABLE t_{i} PARTITION OF t FOR VALUES FROM ({i}) TO ({i + 1})")
    db.execute("INSERT INTO t VALUES (1, 7, 1), (2, 8, 2)")
    archive(db, "t_1", drop_local="0")
    db.execute("ALTER TABLE t ADD st text NOT NULL DEFAULT 'new'")
    db.execute("ALTER TABLE t ALTER amount TYPE bigint USING amount * 100")
    db.execute("ALTER TABLE t DROP gone")
    archive(db, "t_2", drop_local="0")
    file_storage(other, cluster.storage / db.name)

    assert len(by_partition(import_archive(other, dry_run=False))) == 2

    refusals = []
    for database in (db, other):
        assert database.value("SELECT array_agg(DISTINCT st) FROM archive.t") == ["new"]
        assert database.value("SELECT amount FROM archive.t WHERE id = 2") == 800
        with pytest.raises(psycopg.Error) as query:
            database.all("SELECT amount FROM archive.t WHERE id = 1")
        refusals.append((query.value.sqlstate, query.value.diag.message_primary))
        try:
            database.execute("SELECT reattach_partition('t_1')")
            refusals.append(database.all("SELECT * FROM t_1"))
        except psycopg.Error as error:
            refusals.append((error.sqlstate, error.diag.message_primary))
    assert refusals[:2] == refusals[2:]
    columns = """SELECT field_id, column_name::text, jsonb_array_length(types) AS types, fill_kind, fill_text
                 FROM archive_ext.column_map ORDER BY field_id"""
    assert db.all(columns) == other.all(columns)


def test_without_its_policies_a_table_is_not_granted(db, cluster, other, role):
    reader = role("policy_reader")
    file_storage(db, cluster.storage / db.name)
    for database in (db, other):
        make_role = f"DO $$ BEGIN CREATE ROLE {reader}; EXCEPTION WHEN duplicate_object THEN END $$"
        database.execute(make_role)
    db.execute(f"""
        CREATE FUNCTION allowed(int) RETURNS bool LANGUAGE sql RETURN $1 > 1;
        CREATE TABLE t (id int GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (1) TO (5);
        INSERT INTO t DEFAULT VALUES;
        ALTER TABLE t ENABLE ROW LEVEL SECURITY;
        CREATE POLICY everything ON t USING (true);
        CREATE POLICY few ON t AS RESTRICTIVE USING (allowed(id));
        GRANT SELECT ON t TO {reader}""")
    archive(db, "t_1", drop_local="0")
    file_storage(other, cluster.storage / db.name)
    try:
        done = import_archive(other, dry_run=False)

        warnings = " ".join(line.detail for line in done if line.action == "warning")
        assert "allowed(integer) does not exist" in warnings and "grants were not run" in warnings
        for table in ("t", "archive.t"):
            assert not other.value(f"SELECT has_table_privilege('{reader}', '{table}', 'SELECT')")
    finally:
        other.execute(f"DROP OWNED BY {reader}")
        other.execute(f"DROP ROLE {reader}")


def test_a_dry_run_leaves_sequences_alone(db, cluster, other):
    file_storage(db, cluster.storage / db.name)
    db.execute("""CREATE SEQUENCE numbers;
        CREATE TABLE t (id int DEFAULT nextval('numbers')) PARTITION BY RANGE (id);
        CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM (1) TO (50);
        INSERT INTO t SELECT FROM generate_series(1, 9)""")
    archive(db, "t_1", drop_local="0")
    file_storage(other, cluster.storage / db.name)
    other.execute("CREATE SEQUENCE numbers")
    import_archive(other)
    assert other.value("SELECT last_value FROM numbers") == 1
    import_archive(other, dry_run=False)
    assert other.value("SELECT last_value FROM numbers") == 9


def orders_and_lines(db):
    """A child whose name, and with it its manifests, comes before its parent's."""
    db.execute("CREATE TABLE invoice (id int, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE a_detail (invoice int, at date, line int, CONSTRAINT of_invoice FOREIGN KEY (invoice, at)"
               " REFERENCES invoice) PARTITION BY RANGE (at)")
    for table in ["invoice", "a_detail"]:
        db.execute(f"CREATE TABLE {table}_2024_01 PARTITION OF {table} FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')")
        db.execute(f"CREATE TABLE {table}_2024_02 PARTITION OF {table} FOR VALUES FROM ('2024-02-01') TO ('2024-03-01')")
    db.execute("INSERT INTO invoice SELECT n, date '2024-01-01' + n FROM generate_series(0, 50) n")
    db.execute("INSERT INTO a_detail SELECT id, at, l FROM invoice, generate_series(1, 2) l")
    db.execute("SELECT add_child_table('invoice', 'a_detail')")


def forget(root, change):
    """Rewrites every manifest as an older version would have written it."""
    for path in Path(root).rglob("*.v1.json"):
        manifest = json.loads(path.read_text())
        change(manifest)
        path.write_text(json.dumps(manifest))


@pytest.mark.parametrize("written_by", ["this version", "an older one"])
def test_families_are_families_again(db, cluster, other, written_by):
    root = cluster.storage / db.name
    file_storage(db, root)
    orders_and_lines(db)
    for month in ["01", "02"]:
        db.execute(f"SELECT archive_family('invoice_2024_{month}', drop_local => '0')")
    if written_by == "an older one":
        forget(root, lambda manifest: manifest["root"].pop("parents"))
    file_storage(other, root)
    lines = import_archive(other, dry_run=False)
    assert [(line.partition, line.detail) for line in lines if line.action == "child"] \
        == [("public.a_detail", "ages with public.invoice by of_invoice")]
    # Manifests that were rewritten are not those that others name.
    assert {line.partition for line in lines if line.action == "warning"} <= {"chain of cold"}
    assert [tuple(row) for row in other.all("SELECT parent::text, child::text, foreign_key FROM archive_ext.child_table")] \
        == [("invoice", "a_detail", "of_invoice")]
    # Nothing is registered twice.
    assert not [line for line in import_archive(other, dry_run=False) if line.action == "child"]
    other.execute("SELECT reattach_family('invoice_2024_01')")
    assert other.value("SELECT count(*) FROM invoice JOIN a_detail ON invoice = id") == 62


def test_a_child_that_was_archived_alone_is_a_child_again(db, cluster, other):
    """No manifest names a family: the table's own says whose child it was."""
    root = cluster.storage / db.name
    file_storage(db, root)
    orders_and_lines(db)
    db.execute("SELECT archive_partition('a_detail_2024_01', drop_local => '0')")
    db.execute("SELECT archive_partition('invoice_2024_01', drop_local => '0')")
    file_storage(other, root)
    # Without its parent it would come alone, and says so.
    alone = import_archive(other, tables="public.a\\_detail")
    assert any(line.action == "warning" and "does not age with public.invoice" in line.detail for line in alone)
    tried = import_archive(other)
    assert [line.action for line in tried].count("child") == 1
    assert other.value("SELECT count(*) FROM archive_ext.child_table") == 0
    assert [tuple(line) for line in import_archive(other, dry_run=False)] == [tuple(line) for line in tried]
    assert other.value("SELECT count(*) FROM archive_ext.child_table") == 1
