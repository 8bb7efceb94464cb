"""No credential is to be found anywhere that the extension writes or that PostgreSQL shows of its work (P8)."""

import re
import subprocess

import psycopg
import pytest

from harness.cluster import Cluster, Database
from harness.orders import create_orders

TOKEN = "tOkEn/Canary+0123456789abcdefghijklmnopqrstuvwxyz=="


@pytest.fixture(scope="module")
def noisy():
    """A cluster that logs everything it can, and dumps core."""
    cluster = Cluster("log_min_messages=debug5", "log_statement=all", "log_min_duration_statement=0", "log_error_verbosity=verbose",
                      "debug_print_plan=on", "debug_print_parse=on", "debug_print_rewritten=on", "log_parameter_max_length=-1",
                      "log_parameter_max_length_on_error=-1", "track_activity_query_size=16384")
    yield cluster
    cluster.stop()


def mapping(server, **options):
    listed = ", ".join(f"{name} '{value}'" for name, value in options.items())
    return f"CREATE USER MAPPING FOR CURRENT_USER SERVER {server} OPTIONS ({listed})"


def test_p8_no_secret_is_found_anywhere(noisy, s3_signed):
    db = Database(noisy, "secrets")
    key, secret = s3_signed.server.access_key, s3_signed.server.secret_key
    wrong = "wrong/Secret+Canary0123456789abcdefghijkl"
    needles = [secret, TOKEN, wrong, key]
    endpoint = s3_signed.server.endpoint
    options = f"location '{s3_signed.location}', region 'eu-west-1', endpoint '{endpoint}', path_style 'true'"
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS ({options})")
    db.execute(f"CREATE SERVER bad FOREIGN DATA WRAPPER archive_fdw OPTIONS ({options}, max_attempts '1')")
    # Core logs the text of these statements, which the docs say; everything after them is ours.
    db.execute(mapping("cold", access_key_id=key, secret_access_key=secret))
    db.execute(mapping("bad", access_key_id=key, secret_access_key=wrong, session_token=TOKEN))
    db.conn.close()
    logged_before, said = len(noisy.log()), []
    session = db.connect(options="-c archive_ext.default_storage=cold -c client_min_messages=debug5")
    session.add_notice_handler(lambda n: said.append(f"{n.message_primary} {n.message_detail} {n.message_hint} {n.context}"))

    def do(query):
        said.extend(str(row) for row in session.execute(query).fetchall())

    def fails(query):
        with pytest.raises(psycopg.Error) as failed:
            session.execute(query)
        diag = failed.value.diag
        said.extend(map(str, [failed.value, diag.message_detail, diag.message_hint, diag.context, diag.internal_query]))

    create_orders(session, months=2, rows=300)
    session.execute("CREATE TABLE audit (id int PRIMARY KEY, at date NOT NULL, note text);"
                    "INSERT INTO audit SELECT n, '2024-01-01', 'x' FROM generate_series(1, 50) n")
    do("SELECT * FROM archive_partition('orders_2024_01', drop_local => '0')")
    do("SELECT * FROM archive_table_batch('audit', '2024-02-01')")
    for explain in ["VERBOSE", "ANALYZE, VERBOSE, BUFFERS", "VERBOSE, FORMAT JSON"]:
        do(f"EXPLAIN ({explain}) SELECT * FROM archive.orders_all")
    do("SELECT * FROM check_storage('cold')")
    do("SELECT * FROM check_storage('bad')")
    fails("SELECT * FROM archive_partition('orders_2024_02', 'bad')")
    fails(f"CREATE USER MAPPING FOR PUBLIC SERVER cold OPTIONS (acces_key '{'x' * 8}')")
    session.execute("ALTER SERVER cold OPTIONS (SET endpoint 'http://127.0.0.1:9', ADD max_attempts '1')")
    fails("SELECT count(note) FROM archive.orders")
    session.execute(f"ALTER SERVER cold OPTIONS (SET endpoint '{endpoint}')")
    do("SELECT * FROM import_archive('cold')")
    do("SELECT query, backend_type, application_name FROM pg_stat_activity WHERE query NOT LIKE '%USER MAPPING%'")
    for relation in session.execute("SELECT c.oid::regclass::text FROM pg_class c WHERE relkind IN ('r', 'v', 'm')"
                                    " AND relnamespace IN ('archive_ext'::regnamespace, 'archive'::regnamespace)").fetchall():
        do(f"SELECT t::text FROM {relation[0]} t")
    # Whoever is no superuser and not the mapping's user does not see its options.
    session.execute("CREATE ROLE stranger LOGIN")
    stranger = db.connect("stranger")
    said.extend(str(row) for row in stranger.execute("SELECT m::text FROM pg_user_mappings m").fetchall())
    stranger.close()

    log = noisy.log()[logged_before:]
    for needle in needles:
        assert not [text for text in said if needle in text], needle
        assert needle not in log, log[max(log.find(needle) - 500, 0):][:700]
        assert not [k for k in s3_signed.keys() if needle.encode() in s3_signed.read(k)]
    dump = subprocess.run([noisy.program("pg_dump"), "-h", noisy.dir, "-U", "postgres", "--data-only", "secrets"],
                          check=True, capture_output=True, text=True, timeout=60).stdout
    assert not [needle for needle in needles if needle in dump]
    session.close()
    db.drop()


def test_p8_what_core_says_of_a_user_mapping(noisy):
    """docs/security.md names the places; this is to notice when that changes."""
    with noisy.connect("postgres") as conn:
        before = len(noisy.log())
        conn.execute("CREATE EXTENSION archive_ext; CREATE SERVER s FOREIGN DATA WRAPPER archive_fdw"
                     " OPTIONS (location 's3://bucket/x', region 'eu-west-1')")
        conn.execute(mapping("s", access_key_id="AKIA", secret_access_key="seen-in-the-log"))
        assert re.search("seen-in-the-log", noisy.log()[before:])
        assert conn.execute("SELECT count(*) FROM pg_user_mapping WHERE umoptions::text LIKE '%seen-in-the-log%'").fetchone()[0] == 1
        conn.execute("DROP EXTENSION archive_ext CASCADE")


def test_p8_a_credentials_file_is_named_and_not_shown(db, cluster, s3_signed):
    place = cluster.dir / "credentials"
    place.write_text(f"access_key_id = {s3_signed.server.access_key}\nsecret_access_key = {s3_signed.server.secret_key}\n")
    place.chmod(0o644)
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location '{s3_signed.location}', region 'eu-west-1',"
               f" endpoint '{s3_signed.server.endpoint}', credentials 'file:{place}')")
    subprocess.run(["chown", cluster.user, place], check=True)
    with pytest.raises(psycopg.Error) as refused:
        db.execute("SELECT * FROM check_storage('cold')")
    assert s3_signed.server.secret_key not in f"{refused.value} {refused.value.diag.message_detail}"
    place.chmod(0o600)
    assert all(check.ok for check in db.all("SELECT * FROM check_storage('cold')"))
