"""archive_ext_admin and archive_ext_reader: what they may, and what stays the owner's or a superuser's (P8)."""

import psycopg
import pytest

from harness.orders import archive, create_orders
from harness.sessions import Call

REFUSED = psycopg.errors.InsufficientPrivilege
VIEWS = ["partitions", "jobs", "objects", "events", "policies", "alerts", "month_counts", "storage_price", "workers", "progress"]


@pytest.fixture
def owned(db, cluster, role):
    """orders and a plain table of a role that is no superuser, in its session."""
    owner = role("owner")
    db.execute("CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner};"
               f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")
    session = db.connect(owner)
    create_orders(session, months=3, rows=50)
    return session


@pytest.fixture
def member_of(db, role):
    """member_of("archive_ext_admin"): a session of a new member."""

    def make(group):
        member = role(group.removeprefix("archive_ext_"))
        db.execute(f"GRANT {group} TO {member}")
        return db.connect(member)

    return make


def counts(session):
    return {view: session.execute(f"SELECT count(*) FROM archive_ext.{view}").fetchone()[0] for view in VIEWS}


def test_a_reader_sees_all_that_the_views_hold_and_nothing_of_the_tables(db, owned, member_of, role):
    owned.execute("SELECT archive_partition('orders_2024_01', drop_local => '0')")
    owned.execute("SELECT set_archive_policy('orders', archive_after => '1 year', storage => 'cold')")
    owned.execute("SELECT count(*) FROM reconcile_counts('orders')")
    owned.execute("ALTER TABLE orders ENABLE ROW LEVEL SECURITY")
    expected = counts(db)
    assert all(expected[view] > 0 for view in ["partitions", "jobs", "objects", "events", "policies", "month_counts"])
    reader, nobody = member_of("archive_ext_reader"), db.connect(role("nobody"))
    assert counts(reader) == expected
    assert counts(nobody)["partitions"] == 0
    assert reader.execute("SELECT * FROM explain_lifecycle('orders')").fetchall()
    for refused in ["SELECT FROM orders", "SELECT FROM archive.orders", "SELECT FROM archive.orders_all", "SELECT FROM archive_ext.object",
                    "SELECT set_archive_policy('orders', hot_after => '1 day')", "SELECT archive_partition('orders_2024_02')",
                    "SELECT adopt_storage('cold')", "CREATE SERVER mine FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 's3://bucket/x')",
                    "UPDATE archive_ext.storage_price SET gb_month = 0", "SELECT reconcile_counts('orders')"]:
        with pytest.raises(REFUSED):
            reader.execute(refused)


def test_an_admin_sets_policies_that_run_as_the_owner(db, owned, member_of, role):
    admin = member_of("archive_ext_admin")
    assert counts(admin) == counts(db)
    admin.execute("SELECT set_archive_policy('orders', archive_after => '1 month', drop_after => '0', storage => 'cold')")
    policy = db.row("SELECT owner, changed_by FROM archive_ext.archive_policy")
    assert (policy.owner, policy.changed_by) == (owned.info.user, admin.info.user)
    # Its jobs are the owner's to run: an administrator has no rights on the rows.
    admin.execute("CALL run_lifecycle()")
    assert db.value("SELECT count(*) FROM archive_ext.partition WHERE status = 'ARCHIVED'") == 0
    owned.execute("CALL run_lifecycle()")
    assert db.value("SELECT count(*) FROM archive_ext.partition WHERE status = 'ARCHIVED'") == 3
    exported = admin.execute("SELECT policy.value FROM jsonb_array_elements(export_policies() -> 'policies') policy").fetchall()
    assert exported == []
    assert admin.execute("SELECT drop_archive_policy('orders')").fetchone()[0]
    for refused in ["SELECT count(*) FROM archive.orders", "SELECT reattach_partition('orders_2024_01')", "SELECT reconcile_counts('orders')",
                    "SELECT register_static_table('orders', 'x')", "SELECT * FROM import_archive('cold')"]:
        with pytest.raises(REFUSED):
            admin.execute(refused)


def test_a_superusers_tables_are_not_an_admins(db, owned, member_of):
    """Jobs run with the rights of the table's owner."""
    admin = member_of("archive_ext_admin")
    db.execute("CREATE TABLE crown (at date) PARTITION BY RANGE (at)")
    for refused in ["SELECT set_archive_policy('crown', archive_after => '1 month')", "SELECT drop_archive_policy('crown')"]:
        with pytest.raises(REFUSED):
            admin.execute(refused)


def test_an_admin_steers_the_jobs_of_others(db, owned, member_of, role):
    admin, nobody = member_of("archive_ext_admin"), db.connect(role("nobody"))
    job = owned.execute("SELECT archive_ext.begin_archive('orders_2024_01', 'cold', 'content', '0')").fetchone()[0]
    owned.execute(f"SELECT archive_ext.archive_step('{job}')")
    with pytest.raises(psycopg.errors.ObjectInUse):
        owned.execute("DELETE FROM orders_2024_01")
    for verb in ["pause_job", "resume_job", "cancel_job"]:
        with pytest.raises(REFUSED):
            nobody.execute(f"SELECT {verb}('{job}')")
        admin.execute(f"SELECT {verb}('{job}')")
    job_after = db.row("SELECT status, error FROM archive_ext.archival_job")
    assert (job_after.status, job_after.error) == ("cancelled", f"cancelled by {admin.info.user}")
    owned.execute("DELETE FROM orders_2024_01 WHERE id = 1")
    admin.execute(f"SELECT retry_job('{job}')")
    # Running its steps stays with those whose rows they are.
    with pytest.raises(REFUSED):
        admin.execute(f"SELECT archive_ext.archive_step('{job}')")


def test_an_admin_makes_and_adopts_storages(db, owned, member_of, cluster):
    admin = member_of("archive_ext_admin")
    admin.execute("CREATE SERVER mine FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 's3://bucket/x', region 'eu-west-1')")
    admin.execute("DROP SERVER mine")
    # Directories and the server's own credentials are not an administrator's to give.
    for options in ["location 'file:///var/tmp/x'", "location 's3://bucket/x', credentials 'environment'",
                    "location 's3://bucket/x', endpoint 'http://169.254.169.254'"]:
        with pytest.raises(REFUSED):
            admin.execute(f"CREATE SERVER mine FOREIGN DATA WRAPPER archive_fdw OPTIONS ({options})")
    owned.execute("SELECT archive_partition('orders_2024_01')")
    with pytest.raises(REFUSED):
        admin.execute("SELECT adopt_storage('cold')")
    db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {admin.info.user}")
    before = db.value("SELECT incarnation FROM archive_ext.storage_claim")
    admin.execute("SELECT adopt_storage('cold')")
    assert db.value("SELECT incarnation FROM archive_ext.storage_claim") != before
    admin.execute("UPDATE archive_ext.storage_price SET gb_month = 0.1 WHERE storage_class = 'LOCAL'")


def test_roles_are_made_where_they_are_missing_and_stay(db, cluster):
    """They belong to the cluster: two databases at once, one without them, one that is dropped."""
    names = "SELECT string_agg(rolname || ' ' || rolcanlogin || ' ' || rolsuper, ', ' ORDER BY 1) FROM pg_roles WHERE rolname LIKE 'archive\\_ext\\_%'"
    expected = "archive_ext_admin false false, archive_ext_reader false false"
    assert db.value(names) == expected
    with pytest.raises(psycopg.errors.DependentObjectsStillExist):
        db.execute("DROP ROLE archive_ext_admin")
    db.execute("DROP EXTENSION archive_ext CASCADE")
    assert db.value(names) == expected


def test_create_extension_in_two_databases_at_once():
    from harness.cluster import Cluster

    fresh = Cluster()
    try:
        with fresh.connect() as conn:
            conn.execute("CREATE DATABASE one"), conn.execute("CREATE DATABASE two")
        one, two = fresh.connect("one"), fresh.connect("two")
        with one.transaction():
            one.execute("CREATE EXTENSION archive_ext")
            late = Call(two.execute, "CREATE EXTENSION archive_ext")
            one.execute("SELECT pg_sleep(1)")
        late.result(60)
        with one.transaction(force_rollback=True):
            one.execute("DROP EXTENSION archive_ext CASCADE")
        # A dump does not hold the roles: the script makes them again.
        one.execute("DROP EXTENSION archive_ext CASCADE"), two.execute("DROP EXTENSION archive_ext CASCADE")
        one.execute("DROP ROLE archive_ext_admin, archive_ext_reader")
        two.execute("CREATE EXTENSION archive_ext")
        assert two.execute("SELECT count(*) FROM pg_roles WHERE rolname LIKE 'archive\\_ext\\_%'").fetchone()[0] == 2
        # Only a superuser creates it: it has a handler in C, event triggers and code that runs elevated.
        one.execute("CREATE ROLE app LOGIN; GRANT CREATE ON DATABASE one TO app")
        app = fresh.connect("one", "app")
        with pytest.raises(REFUSED):
            app.execute("CREATE EXTENSION archive_ext")
        for session in (one, two, app):
            session.close()
    finally:
        fresh.stop()


def test_p8_functions_that_run_as_another_have_a_fixed_search_path(db):
    """SECURITY DEFINER functions of ours: none, or each with one; functions in SQL and PL/pgSQL name their schemas."""
    ours = ("FROM pg_depend d JOIN pg_proc p ON p.oid = d.objid JOIN pg_language l ON l.oid = p.prolang WHERE d.classid = 'pg_proc'::regclass"
            " AND d.deptype = 'e' AND d.refobjid = (SELECT oid FROM pg_extension WHERE extname = 'archive_ext')")
    assert db.value(f"SELECT count(*) {ours}") > 60
    loose = db.all(f"SELECT p.oid::regprocedure::text AS name {ours} AND p.prosecdef"
                   " AND NOT coalesce(p.proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)")
    assert loose == []
    # archive_query_cost explains a query of the caller's by the path that he wrote it for, and names the schema of all that is its own.
    loose = db.all(f"SELECT p.oid::regprocedure::text AS name {ours} AND l.lanname IN ('sql', 'plpgsql') AND p.prokind <> 'p'"
                   " AND p.proname <> 'archive_query_cost'"
                   " AND NOT coalesce(p.proconfig::text LIKE '%search_path=pg_catalog, pg_temp%', false)")
    assert loose == []


def test_p8_procedures_are_not_led_astray_by_the_callers_search_path(db, cluster):
    """A procedure that commits can have no search_path of its own: it names the schema of everything that it calls."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    create_orders(db.conn, months=1, rows=10)
    db.execute("""CREATE SCHEMA trap;
        CREATE FUNCTION trap.format(text, VARIADIC text[]) RETURNS text LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
        CREATE FUNCTION trap.pg_sleep(float8) RETURNS void LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
        CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
        CREATE FUNCTION trap.least(float8, float8) RETURNS float8 LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'trapped'; END$$;
        SET search_path = trap, public, pg_catalog""")
    db.execute("CALL archive_partition_steps('{orders_2024_01}', 'cold', drop_local => '0')")
    db.execute("RESET search_path")
    assert archive_count(db) == 10


def archive_count(db):
    return db.value("SELECT count(*) FROM archive.orders")
