"""Who may do what, and where a secret never shows (P8)."""

import json

import psycopg
import pytest

from harness.orders import archive, create_orders

OWNER_REFUSED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def owned(db, role, s3_signed):
    """orders, owned by a role that is no superuser and has the only user mapping; that role's session."""
    owner = role("owner")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    s3_signed.create_storage(db.conn, user=owner)
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    session = db.connect(owner, options="-c archive_ext.default_storage=cold")
    create_orders(session, months=2, rows=500)
    return session


def test_an_owner_needs_no_more_than_usage_of_the_storage(db, owned):
    assert owned.execute("SELECT rows FROM archive_partition('orders_2024_01')").fetchone().rows == 500
    assert owned.execute("SELECT count(*) FROM archive.orders_all").fetchone()[0] == 1000
    owners = db.all("SELECT DISTINCT pg_get_userbyid(relowner) AS name FROM pg_class"
                    " WHERE relnamespace = 'archive'::regnamespace AND relkind IN ('r', 'p', 'f', 'v')")
    assert [r.name for r in owners] == [owned.info.user]


def test_a_reader_needs_select_only(db, role, owned):
    reader = role("reader")
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    db.execute(f"GRANT USAGE ON SCHEMA archive TO {reader}")
    db.execute(f"GRANT SELECT ON archive.orders TO {reader}")
    session = db.connect(reader)

    assert session.execute("SELECT count(*), count(note) FROM archive.orders").fetchone() == (500, 400)
    with pytest.raises(OWNER_REFUSED):
        session.execute("SELECT count(*) FROM orders")


def test_readers_of_the_hot_table_read_the_archived_rows(db, role, owned):
    """Grants on the hot table are carried over to archive.orders and archive.orders_all."""
    reader = role("reader")
    owned.execute(f"GRANT SELECT ON orders TO {reader}")
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    session = db.connect(reader)

    assert session.execute("SELECT count(*) FROM archive.orders_all").fetchone()[0] == 1000
    assert session.execute("SELECT count(*) FROM archive.orders").fetchone()[0] == 500


WITNESSED = {
    "archive": "archive_partition('log_01')",
    "archive deep": "archive_partition('log_01', verify => 'deep')",
    "verify": "verify_archive('log_01')",
    "verify deep": "verify_archive('log_01', 'deep')",
    "reconcile": "reconcile_archive('log', 100)",
    "drop": "drop_local_copy('log_01')",
    "reattach": "reattach_partition('log_01')",
    "archive again": "archive_partition('log_01')",
    "batch": "archive_table_batch('plain', NULL, where_clause => 'true', batch_rows => 1)",
    "another batch": "archive_table_batch('plain', NULL, where_clause => 'true', batch_rows => 1)",
    "compact": "compact_archive('plain')",
}


def test_p8_functions_of_types_run_as_the_tables_owner(db, role, cluster):
    """A domain's CHECK is its owner's code. A superuser who archives or verifies must not lend it the own rights."""
    owner = role("owner")
    db.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        GRANT USAGE ON FOREIGN SERVER cold TO {owner};
        GRANT CREATE ON SCHEMA public TO {owner};
        SET archive_ext.default_storage = 'cold'""")
    db.connect(owner).execute("""
        CREATE TABLE witness (who name);
        CREATE FUNCTION seen(int) RETURNS bool LANGUAGE plpgsql AS
            $$ BEGIN INSERT INTO public.witness VALUES (current_user); RETURN true; END $$;
        CREATE DOMAIN small AS int CHECK (public.seen(VALUE));
        CREATE TYPE span AS RANGE (subtype = small);
        CREATE TYPE pair AS (small small, at timestamptz);
        CREATE TABLE log (id int, day date, many small[], pair pair, span span) PARTITION BY RANGE (day);
        CREATE TABLE log_01 PARTITION OF log FOR VALUES FROM ('2024-01-01') TO ('2024-02-01');
        INSERT INTO log VALUES (1, '2024-01-02', '{{1,2},{3,4}}', '(1,infinity)', '[1,5)');
        CREATE TABLE plain (id int PRIMARY KEY, many small[], pair pair, span span);
        INSERT INTO plain SELECT n, '{{1,2},{3,4}}', '(1,infinity)', '[1,5)' FROM generate_series(1, 4) n""")
    for what, call in WITNESSED.items():
        if what == "archive deep":
            db.execute("SELECT reattach_partition('log_01')")
        if what == "reattach":
            assert not db.value("SELECT local_copy FROM archive_ext.partitions WHERE partition_name = 'log_01'")
        db.execute("TRUNCATE witness")
        db.execute(f"SELECT {call}")
        assert db.all("SELECT DISTINCT who FROM witness") == [(owner,)], what


def test_others_may_neither_read_nor_archive_nor_reattach(db, role, owned):
    stranger = db.connect(role("stranger"), options="-c archive_ext.default_storage=cold")

    for call in ["SELECT archive_partition('orders_2024_01')",
                 "SELECT archive_partitions(ARRAY['orders_2024_01']::regclass[])",
                 "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[])"]:
        with pytest.raises(OWNER_REFUSED):
            stranger.execute(call)
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    for call in ["SELECT reattach_partition('orders_2024_01')", "SELECT count(*) FROM archive.orders",
                 "SELECT count(*) FROM archive.orders_all"]:
        with pytest.raises(OWNER_REFUSED):
            stranger.execute(call)
    assert db.value("SELECT count(*) FROM archive.orders_all") == 1000


def test_the_views_show_only_what_the_caller_may_select(db, role, owned):
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    stranger = db.connect(role("stranger"))

    for view in ["partitions", "jobs", "objects"]:
        assert stranger.execute(f"SELECT count(*) FROM archive_ext.{view}").fetchone()[0] == 0, view
        assert owned.execute(f"SELECT count(*) FROM archive_ext.{view}").fetchone()[0] > 0, view
    for table in ["archival_job", "partition", "object", "lifecycle_event", "managed_table"]:
        with pytest.raises(OWNER_REFUSED):
            stranger.execute(f"SELECT * FROM archive_ext.{table}")


def test_an_owner_without_usage_of_the_storage_is_refused(db, role, s3_signed):
    owner = role("owner")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
    s3_signed.create_storage(db.conn, user=owner)
    session = db.connect(owner, options="-c archive_ext.default_storage=cold")
    create_orders(session, months=1, rows=10)

    with pytest.raises(OWNER_REFUSED):
        session.execute("SELECT archive_partition('orders_2024_01')")


def test_a_foreign_table_of_ones_own_making_is_refused(db, owned):
    """A partition id is no capability: only the registered table may use it."""
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    options = db.value("SELECT array_to_string(ftoptions, ',') FROM pg_foreign_table"
                       " WHERE ftrelid = 'archive.orders_2024_01'::regclass")
    definition = ", ".join(f"{name} '{value}'" for name, _, value in
                           (option.partition("=") for option in options.split(",")))
    columns = "id bigint, created_at timestamptz, note text"

    with pytest.raises(OWNER_REFUSED):
        owned.execute(f"CREATE FOREIGN TABLE mine ({columns}) SERVER cold OPTIONS ({definition})")
        owned.execute("SELECT * FROM mine")


def test_p12_no_storage_is_an_error_with_the_whole_remedy(db):
    create_orders(db.conn, months=1, rows=10)
    with pytest.raises(psycopg.Error) as refused:
        archive(db, "orders_2024_01")
    assert "CREATE SERVER" in refused.value.diag.message_hint
    assert "archive_fdw" in refused.value.diag.message_hint


def test_p12_no_credentials_are_an_error_with_the_remedy(db, s3_signed):
    s3_signed.create_storage(db.conn)
    db.execute("DROP USER MAPPING FOR CURRENT_USER SERVER cold")
    create_orders(db.conn, months=1, rows=10)
    with pytest.raises(psycopg.Error) as refused:
        archive(db, "orders_2024_01")
    assert "CREATE USER MAPPING" in refused.value.diag.message_hint


@pytest.mark.parametrize("option", ["credentials 'environment'", "credentials 'file:/etc/hostname'"])
def test_p8_only_a_superuser_lends_the_servers_own_credentials(db, role, option):
    user = role("app")
    db.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO {user}")
    session = db.connect(user)
    with pytest.raises(OWNER_REFUSED):
        session.execute(f"CREATE SERVER sneaky FOREIGN DATA WRAPPER archive_fdw"
                        f" OPTIONS (location 's3://bucket/x', region 'eu-west-1', {option})")


def test_p8_a_file_location_needs_the_file_roles(db, role, cluster):
    user = role("app")
    db.execute(f"GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO {user}")
    session = db.connect(user)
    create = ("CREATE SERVER local FOREIGN DATA WRAPPER archive_fdw"
              f" OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    with pytest.raises(OWNER_REFUSED):
        session.execute(create)
    db.execute(f"GRANT pg_read_server_files, pg_write_server_files TO {user}")
    session.execute(create)
    session.execute("DROP SERVER local")


def test_p8_user_code_never_runs_with_more_rights_than_its_own(db, role, owned):
    """A trap that the owner of the table lays must see the caller's rights, not ours, whoever runs the archive."""
    owned.execute("CREATE FUNCTION trap(amount numeric) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN"
                  " IF (SELECT rolsuper FROM pg_roles WHERE rolname = current_user) THEN"
                  " RAISE EXCEPTION 'ran as a superuser'; END IF; RETURN true; END$$")
    owned.execute("ALTER TABLE orders ADD CONSTRAINT trap CHECK (trap(amount))")
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    owned.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    owned.execute("UPDATE orders SET amount = amount + 1 WHERE created_at = '2024-01-01'")


def test_p8_the_secret_shows_nowhere(db, cluster, owned, s3_signed):
    """Not in the log, EXPLAIN, errors, our catalog and views, nor in the bucket, when things go right and wrong."""
    secret, said = s3_signed.server.secret_key, []
    logged_before = len(cluster.log())
    db.execute(f"ALTER ROLE {owned.info.user} SET client_min_messages = debug1")
    db.execute("ALTER SYSTEM SET log_min_messages = debug1")
    db.execute("SELECT pg_reload_conf()")
    session = db.connect(owned.info.user, options="-c archive_ext.default_storage=cold")
    session.add_notice_handler(lambda n: said.append(f"{n.message_primary} {n.message_detail} {n.message_hint}"))

    session.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    for options in ["VERBOSE", "VERBOSE, ANALYZE", "VERBOSE, FORMAT JSON"]:
        said += [str(r) for r in session.execute(f"EXPLAIN ({options}) SELECT * FROM archive.orders_all").fetchall()]
    said += [str(r) for r in session.execute("SELECT * FROM check_storage('cold')").fetchall()]

    db.execute("ALTER SERVER cold OPTIONS (SET endpoint 'http://127.0.0.1:9')")
    for query in ["SELECT count(note) FROM archive.orders", "SELECT archive_partition('orders_2024_02')"]:
        with pytest.raises(psycopg.Error) as failed:
            session.execute(query)
        said += [str(failed.value), str(failed.value.diag.message_detail), str(failed.value.diag.context)]

    for relation in db.all("SELECT c.oid::regclass::text AS name FROM pg_class c"
                           " WHERE relnamespace = 'archive_ext'::regnamespace AND relkind IN ('r', 'v', 'm')"):
        said += [str(r) for r in db.all(f"SELECT t::text FROM {relation.name} AS t")]
    db.execute("ALTER SYSTEM RESET log_min_messages")
    db.execute("SELECT pg_reload_conf()")
    assert said
    assert not [text for text in said if secret in text]
    assert secret not in cluster.log()[logged_before:]
    assert not [key for key in s3_signed.keys() if secret.encode() in s3_signed.read(key)]


def test_p8_a_refused_secret_is_not_repeated(db, cluster, s3_signed):
    s3_signed.create_storage(db.conn, secret_key="wrong-but-still-secret-0123456789")
    create_orders(db.conn, months=1, rows=10)

    with pytest.raises(psycopg.Error) as failed:
        archive(db, "orders_2024_01")

    everything = json.dumps([str(failed.value), failed.value.diag.message_detail, failed.value.diag.message_hint])
    assert "wrong-but-still-secret" not in everything
    assert failed.value.sqlstate != "XX000"
    assert db.is_attached("public.orders_2024_01")


def test_p8_default_privileges_do_not_open_the_archive(db, role, owned):
    """Without this, the view, which reads with its owner's rights, would show hot rows to whoever may read new tables."""
    reader = role("reader")
    owned.execute(f"ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {reader}")
    owned.execute("SELECT archive_partition('orders_2024_01')")
    owned.execute("ALTER TABLE orders ADD added int; ALTER TABLE orders DROP added")

    for relation in ["orders", "orders_all", "orders_2024_01"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.connect(reader).execute(f"SELECT FROM archive.{relation}")


def test_p8_a_cascading_revoke_reaches_the_archive(db, role, owned):
    first, second = role("first"), role("second")
    owned.execute("SELECT archive_partition('orders_2024_01')")
    owned.execute(f"GRANT SELECT ON orders TO {first} WITH GRANT OPTION")
    db.connect(first).execute(f"GRANT SELECT ON orders TO {second}")
    reading = db.connect(second)
    assert reading.execute("SELECT count(*) FROM archive.orders_all").fetchone()[0] == 1000

    owned.execute(f"REVOKE SELECT ON orders FROM {first} CASCADE")

    for relation in ["orders", "orders_all"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            reading.execute(f"SELECT FROM archive.{relation}")


def test_p8_a_policy_without_using_hides_every_archived_row(db, role, owned):
    writer = role("writer")
    owned.execute("SELECT archive_partition('orders_2024_01')")
    owned.execute(f"GRANT SELECT, INSERT ON orders TO {writer}")
    owned.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    owned.execute(f"CREATE POLICY writes ON orders TO {writer} WITH CHECK (true)")

    session = db.connect(writer)
    for relation in ["orders", "archive.orders", "archive.orders_all"]:
        assert session.execute(f"SELECT count(*) FROM {relation}").fetchone()[0] == 0


def test_alter_table_by_a_stranger_holds_no_reader_up(db, role, owned):
    owned.execute("SELECT archive_partition('orders_2024_01')")
    owned.execute("BEGIN; SELECT count(*) FROM archive.orders_all")

    stranger = db.connect(role("stranger"), options="-c statement_timeout=10s")
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        stranger.execute("ALTER TABLE orders ADD added int")
    owned.execute("COMMIT")
