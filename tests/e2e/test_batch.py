"""Tables that are archived row by row: each row is in the table or in its archive, once, whatever happens meanwhile."""

import threading

import psycopg
import pyarrow.parquet as pq
import pytest

from harness.cluster import Database, wait_until
from harness.proxy import CorruptAnswer
from harness.sessions import Call, Repeat

ROWS = 20_000


@pytest.fixture
def audit(db, cluster, tmp_path):
    """A plain table of hourly rows from 2022 on."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
        INSERT INTO audit SELECT n, '2022-01-01'::timestamptz + n * interval '1 hour', 'note ' || n
        FROM generate_series(1, {ROWS}) n;""")
    db.conn = db.connect()
    return db


def batch(db, *arguments, table="audit"):
    given = ", ".join(str(argument) for argument in arguments)
    return db.row(f"SELECT * FROM archive_table_batch('{table}', {given})")


def ids(db, relation):
    return [row[0] for row in db.all(f"SELECT id FROM {relation} ORDER BY id")]


def everything_once(db, expected, table="audit"):
    everything = ids(db, f"archive.{table}_all")
    assert everything == sorted(expected)
    return everything


def test_p1_readers_count_each_row_once_while_batches_go(audit):
    """Read committed and repeatable read: the archive's objects are seen by the snapshot that sees the table."""
    first = batch(audit, "'2022-02-01'", "batch_rows => 100")
    assert (first.rows, first.first_key, first.last_key, first.done) == (100, "1", "100", False)
    reader, old = audit.connect(), audit.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM archive.audit_all"
    expected = (ROWS, ROWS, ROWS * (ROWS + 1) // 2)
    archived_then = old.execute("SELECT count(*) FROM archive.audit").fetchone()
    assert tuple(old.execute(counted).fetchone()) == expected

    def read():
        assert tuple(reader.execute(counted).fetchone()) == expected

    with Repeat(read) as reads:
        audit.execute("CALL archive_table('audit', '2023-06-01', batch_rows => 500)")
    assert reads.steps > 2
    assert tuple(old.execute(counted).fetchone()) == expected
    assert old.execute("SELECT count(*) FROM archive.audit").fetchone() == archived_then == (100,)
    old.rollback()
    assert audit.value("SELECT count(*) FROM audit WHERE at < '2023-06-01'") == 0
    assert audit.value("SELECT status FROM archive_ext.jobs WHERE operation = 'batch' ORDER BY started_at DESC LIMIT 1") == "completed"


KEYS = {
    "int": "(n)::int", "numeric": "n / 7.0", "uuid": "md5(n::text)::uuid", "text COLLATE \"C\"": "'k' || n",
    "text": "chr(200 + n) || ' ''\\'", "timestamptz": "'2020-01-01'::timestamptz + n * interval '1.5 s'",
    "date": "date '2020-01-01' + n", "bytea": "decode(md5(n::text), 'hex')", "interval": "n * interval '1 hour 3 s'",
    "float8": "n / 3.0::float8", "inet": "'10.0.0.0'::inet + n", "ltree": "('a.b' || n)::ltree",
}


@pytest.mark.parametrize("kind", KEYS)
def test_every_kind_of_key(audit, kind):
    """Batches of 7 rows of 100: the checkpoint is read as it was printed, whatever the session's settings are."""
    audit.execute("CREATE EXTENSION ltree")
    audit.execute(f"CREATE TABLE t (k {kind} PRIMARY KEY, at date NOT NULL, v int)")
    audit.execute(f"INSERT INTO t SELECT {KEYS[kind]}, '2020-01-01', n FROM generate_series(1, 100) n")
    expected = audit.all("SELECT k::text, v FROM t ORDER BY v")
    styles = ["'ISO'", "'German'", "'SQL, DMY'", "'Postgres'"]
    calls = 0
    while True:
        audit.execute(f"SET datestyle = {styles[calls % 4]}")
        result = batch(audit, "'2021-01-01'", "batch_rows => 7", "time_column => 'at'", table="t")
        calls += 1
        if result.done:
            break
        assert 0 < result.rows <= 7
    audit.execute("RESET datestyle")
    assert calls == 100 // 7 + 2
    assert audit.value("SELECT count(*) FROM t") == 0
    assert audit.all("SELECT k::text, v FROM archive.t ORDER BY v") == expected


def test_composite_key_and_chosen_order(audit):
    audit.execute("CREATE TABLE t (a int, b text, c int NOT NULL UNIQUE, at date NOT NULL, PRIMARY KEY (a, b))")
    audit.execute("INSERT INTO t SELECT n % 3, 'b' || n, 100 - n, '2020-01-01' FROM generate_series(1, 30) n")
    by_key = batch(audit, "'2021-01-01'", "batch_rows => 4", table="t")
    assert (by_key.first_key, by_key.last_key) == ("(0, b12)", "(0, b21)")
    by_order = batch(audit, "'2021-01-01'", "batch_rows => 4", "order_key => '{c}'", table="t")
    assert by_order.first_key == "70" and by_order.job_id != by_key.job_id
    with pytest.raises(psycopg.errors.InvalidObjectDefinition, match="no unique key"):
        batch(audit, "'2021-01-01'", "order_key => '{at}'", table="t")


def test_rows_that_others_have_locked_are_left_for_later_or_waited_for(audit):
    writer = audit.connect()
    writer.autocommit = False
    writer.execute("UPDATE audit SET note = 'changed' WHERE id = 3")
    assert batch(audit, "'2022-01-01 10:00Z'").rows == 8
    assert ids(audit, "audit")[0] == 3
    left = batch(audit, "'2022-01-01 10:00Z'")
    assert (left.rows, left.done) == (0, False)
    audit.execute("SET archive_ext.lock_timeout = '200ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable):
        batch(audit, "'2022-01-01 10:00Z'", "locked => 'wait'")
    writer.commit()
    after = batch(audit, "'2022-01-01 10:00Z'")
    assert (after.rows, after.first_key) == (1, "3")
    assert audit.value("SELECT note FROM archive.audit WHERE id = 3") == "changed"
    assert batch(audit, "'2022-01-01 10:00Z'").done
    everything_once(audit, range(1, ROWS + 1))


def test_referenced_rows_stay_until_nothing_references_them(audit):
    audit.execute("CREATE TABLE remark (id int PRIMARY KEY, audit bigint REFERENCES audit ON DELETE CASCADE)")
    audit.execute("CREATE INDEX ON remark (audit)")
    audit.execute("INSERT INTO remark VALUES (1, 2), (2, 4)")
    assert batch(audit, "'2022-01-01 06:00Z'").rows == 3
    assert audit.value("SELECT count(*) FROM remark") == 2, "nothing was cascaded to"
    assert batch(audit, "'2022-01-01 06:00Z'").done
    with pytest.raises(psycopg.errors.ForeignKeyViolation, match="referenced"):
        batch(audit, "'2022-01-01 06:00Z'", "referenced => 'refuse'")
    audit.execute("DELETE FROM remark WHERE id = 1")
    assert batch(audit, "'2022-01-01 06:00Z'").rows == 1
    assert ids(audit, "audit")[:2] == [4, 6]


def test_a_tree_that_references_itself_goes_from_its_leaves(audit):
    audit.execute("CREATE TABLE node (id int PRIMARY KEY, parent int REFERENCES node, at date NOT NULL)")
    audit.execute("INSERT INTO node SELECT n, nullif(n / 2, 0), '2020-01-01' FROM generate_series(1, 63) n")
    audit.execute("UPDATE node SET parent = 1 WHERE id = 1")
    audit.execute("CALL archive_table('node', '2021-01-01', batch_rows => 10)")
    assert audit.value("SELECT count(*) FROM node") == 0
    assert ids(audit, "archive.node") == list(range(1, 64))


def test_p2_rows_stay_when_what_is_read_back_differs(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, at date NOT NULL, note text)")
    db.execute("INSERT INTO audit SELECT n, '2020-01-01', 'note ' || n FROM generate_series(1, 100) n")
    assert batch(db, "'2021-01-01'", "batch_rows => 10").rows == 10
    before = set(s3.keys())
    fault_proxy.on("GET", r"\.parquet", fault=CorruptAnswer())
    with pytest.raises(psycopg.Error):
        batch(db, "'2021-01-01'", "batch_rows => 10")
    fault_proxy.heal()
    assert len(set(s3.keys()) - before) > 0, "the batch was written before it failed"
    everything_once(db, range(1, 101))
    assert db.value("SELECT count(*) FROM archive.audit") == 10
    assert batch(db, "'2021-01-01'", "batch_rows => 10").rows == 10
    everything_once(db, range(1, 101))


def test_a_trigger_that_keeps_rows_stops_the_batch(audit):
    audit.execute("""
        CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS
        $$ BEGIN IF old.id = 5 THEN RETURN NULL; END IF; RETURN old; END $$;
        CREATE TRIGGER keep BEFORE DELETE ON audit FOR EACH ROW EXECUTE FUNCTION keep()""")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="9 of 10 archived rows"):
        batch(audit, "'2023-01-01'", "batch_rows => 10")
    assert not audit.exists("archive.audit")
    assert ids(audit, "audit") == list(range(1, ROWS + 1))
    audit.execute("CALL archive_table('audit', '2022-02-01', where_clause => 'id <> 5', batch_rows => 10, max_batches => 2)")
    everything_once(audit, range(1, ROWS + 1))


def test_columns_that_change_between_batches_get_another_row_set(audit):
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    audit.execute("ALTER TABLE audit ADD COLUMN kind text DEFAULT 'plain'")
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    audit.execute("ALTER TABLE audit ALTER COLUMN note TYPE varchar(50)")
    audit.execute("ALTER TABLE audit RENAME COLUMN kind TO sort")
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    sets = [row[0] for row in audit.all("SELECT partition_name FROM archive_ext.partitions ORDER BY 1")]
    assert sets == ["audit_rows", "audit_rows2", "audit_rows3"]
    assert audit.row("SELECT count(*), count(sort), min(sort), count(note) FROM archive.audit") == (30, 30, "plain", 30)
    everything_once(audit, range(1, ROWS + 1))


def test_customers_by_hash_are_archived_one_by_one(audit):
    """The partitions' columns stand in another order than the table's."""
    audit.execute("CREATE TABLE customer (id int, name text, active bool, PRIMARY KEY (id)) PARTITION BY HASH (id)")
    audit.execute("CREATE TABLE customer_0 (junk int, active bool, name text, id int NOT NULL)")
    audit.execute("ALTER TABLE customer_0 DROP COLUMN junk")
    audit.execute("ALTER TABLE customer ATTACH PARTITION customer_0 FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    audit.execute("CREATE TABLE customer_1 PARTITION OF customer FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    audit.execute("INSERT INTO customer SELECT n, 'c' || n, n % 3 > 0 FROM generate_series(1, 100) n")
    before = audit.all("SELECT * FROM customer ORDER BY id")
    assert audit.value("SELECT set_lifecycle_where('customer', 'NOT active', 'ARCHIVED')") == 33
    audit.execute("CALL set_lifecycle_where_steps('customer', 'id < 10', 'ARCHIVED', batch_rows => 2)")
    assert audit.all("SELECT * FROM archive.customer ORDER BY id") == [row for row in before if row[0] < 10 or not row[2]]
    assert audit.all("SELECT * FROM archive.customer_all ORDER BY id") == before
    with pytest.raises(psycopg.errors.FeatureNotSupported, match="partitioned by hash"):
        audit.execute("SELECT set_lifecycle_where('customer', 'active', 'HOT')")


def test_objects_are_plain_parquet_in_hive_directories(audit, cluster):
    audit.execute("CALL archive_table('audit', '2022-03-01', batch_rows => 500)")
    keys = [row[0] for row in audit.all("SELECT key FROM archive_ext.objects ORDER BY ordinal")]
    assert keys[0].startswith("public.audit/archive_year=2022/archive_month=01/audit.b")
    files = [cluster.storage / audit.name / key for key in keys]
    rows = sum(pq.read_table(file).num_rows for file in files)
    assert rows == audit.value("SELECT count(*) FROM archive.audit") == (31 + 28) * 24 - 1


def test_p1_kill_9_in_the_middle_of_a_run(audit, cluster):
    """Rows of the table or of its archive, each once; the next run takes up the same job."""
    audit.execute("ALTER SYSTEM SET fsync = on")
    for turn in range(3):
        caller = audit.connect()

        def call():
            try:
                caller.execute("CALL archive_table('audit', '2024-01-01', batch_rows => 100)")
            except psycopg.OperationalError:
                pass

        runner = threading.Thread(target=call)
        runner.start()
        goal = (turn + 1) * 500
        wait_until(lambda: ROWS - audit.value("SELECT count(*) FROM audit") >= goal, 60, "some batches")
        cluster.kill_and_restart()
        runner.join()
        audit.reconnect()
        everything_once(audit, range(1, ROWS + 1))
    assert audit.value("SELECT count(*) FROM archive_ext.jobs WHERE operation = 'batch'") == 1
    audit.execute("CALL archive_table('audit', '2024-01-01', batch_rows => 5000)")
    assert audit.value("SELECT count(*) FROM audit WHERE at < '2024-01-01'") == 0
    everything_once(audit, range(1, ROWS + 1))


def test_p3_the_bucket_alone_is_enough(audit, cluster):
    """An attempt that rolled back left a batch behind, which belongs to no row set."""
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    audit.execute("BEGIN")
    batch(audit, "'2023-01-01'", "batch_rows => 20")
    audit.execute("ROLLBACK")
    batch(audit, "'2023-01-01'", "batch_rows => 15")
    audit.execute("ALTER TABLE audit ADD COLUMN kind text DEFAULT 'plain'")
    batch(audit, "'2023-01-01'", "batch_rows => 5")
    audit.execute("CREATE TABLE customer (id int PRIMARY KEY, name text) PARTITION BY HASH (id)")
    audit.execute("CREATE TABLE customer_0 PARTITION OF customer FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    audit.execute("INSERT INTO customer SELECT n, 'c' || n FROM generate_series(1, 9) n")
    audit.execute("SELECT set_lifecycle_where('customer', 'id < 4', 'ARCHIVED')")
    before = {table: audit.all(f"SELECT * FROM archive.{table} ORDER BY id") for table in ["audit", "customer"]}
    other = Database(cluster, f"{audit.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{audit.name}')")
    lines = other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert {line.action for line in lines} <= {"table", "import"}, lines
    assert {table: other.all(f"SELECT * FROM archive.{table} ORDER BY id") for table in before} == before
    again = other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert {line.action for line in again} == {"known"}
    other.drop()


def test_strangers_may_not(audit, role):
    reader = role("reader")
    audit.execute(f"GRANT SELECT, DELETE ON audit TO {reader}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        audit.connect(reader).execute("SELECT archive_table_batch('audit', now())")


def test_a_policy_ages_a_plain_table_too(audit):
    """By run_lifecycle: what the policy says is due goes in batches of one job, and nothing is due after it."""
    audit.execute("CREATE TABLE remark (id int PRIMARY KEY, audit bigint REFERENCES audit)")
    audit.execute("INSERT INTO remark VALUES (1, 7)")
    audit.execute("SELECT set_archive_policy('audit', archive_after => '90 days', storage => 'cold')")
    audit.execute("SET archive_ext.now = '2022-05-01'")
    planned = audit.row("SELECT action, reason FROM plan_archive('audit')")
    assert planned == ("batch", "at is before 2022-01-31 00:00:00+00, now less archive_after")
    assert audit.row("SELECT next_step, freed_by FROM explain_lifecycle('audit')").next_step == "batch"
    audit.execute("CALL run_lifecycle()")
    assert audit.all("SELECT action FROM plan_archive('audit')") == [("verify",)]
    waiting = audit.all("SELECT freed_by FROM explain_lifecycle('audit') WHERE status = 'LIVE'")
    assert waiting == [("time",)]
    assert audit.value("SELECT min(at)::text FROM audit WHERE id <> 7") == "2022-01-31 00:00:00+00"
    jobs = audit.all("SELECT operation, status, rows_archived FROM archive_ext.jobs")
    assert jobs == [("batch", "completed", 30 * 24 - 2)]
    audit.execute("CALL run_lifecycle()")
    assert audit.value("SELECT count(*) FROM archive_ext.jobs") == 1
    audit.execute("DELETE FROM remark")
    audit.execute("SET archive_ext.now = '2022-05-02'")
    audit.execute("CALL run_lifecycle()")
    assert audit.value("SELECT min(at)::text FROM audit") == "2022-02-01 00:00:00+00"
    everything_once(audit, range(1, ROWS + 1))


def test_a_dump_reads_the_same_archive(audit):
    """pg_dump and psql into another database: its foreign tables read the objects that are there."""
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    audit.execute("ALTER TABLE audit ADD COLUMN kind text DEFAULT 'plain'")
    batch(audit, "'2023-01-01'", "batch_rows => 10")
    with audit.copied() as copy:
        for query in ["SELECT * FROM archive.audit ORDER BY id", "SELECT count(*), sum(id) FROM archive.audit_all"]:
            assert copy.execute(query).fetchall() == audit.all(query)


def test_p1_children_that_come_while_rows_are_chosen_are_not_cascaded_to(audit):
    """They are committed after the batch's snapshot and before its locks."""
    audit.execute("CREATE TABLE remark (id int PRIMARY KEY, audit bigint REFERENCES audit ON DELETE CASCADE)")
    writer = audit.connect()
    slow = "where_clause => 'id <= 4 AND pg_sleep(0.4) IS NOT NULL'"

    def archive(session, how):
        return session.execute(f"SELECT * FROM archive_table_batch('audit', '2023-01-01', {slow}, referenced => '{how}')")

    archiver = audit.connect()
    call = Call(lambda: archive(archiver, "skip").fetchone())
    wait_until(lambda: audit.value("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") > 0, 10, "the batch")
    writer.execute("INSERT INTO remark VALUES (1, 3)")
    assert call.result().rows == 3
    assert audit.value("SELECT count(*) FROM remark") == 1 and ids(audit, "audit")[0] == 3
    everything_once(audit, range(1, ROWS + 1))


def test_a_foreign_key_to_one_hash_partition_counts(audit):
    audit.execute("CREATE TABLE h (id int PRIMARY KEY) PARTITION BY HASH (id)")
    audit.execute("CREATE TABLE h0 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 0)")
    audit.execute("CREATE TABLE h1 PARTITION OF h FOR VALUES WITH (MODULUS 2, REMAINDER 1)")
    audit.execute("INSERT INTO h SELECT generate_series(1, 10)")
    audit.execute("CREATE TABLE hc (id int PRIMARY KEY, hid int REFERENCES h0 ON DELETE CASCADE)")
    audit.execute("INSERT INTO hc SELECT id, id FROM h0")
    batch(audit, "NULL", "where_clause => 'true'", table="h")
    assert audit.value("SELECT count(*) FROM hc") == audit.value("SELECT count(*) FROM h0") > 0
    assert audit.value("SELECT count(*) FROM h1") == 0


def test_p1_references_that_row_security_hides_are_no_licence(audit, role):
    owner = role("owner")
    audit.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}")
    audit.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    audit.execute(f"CREATE TABLE doc (id int PRIMARY KEY, at date NOT NULL); ALTER TABLE doc OWNER TO {owner}")
    audit.execute("INSERT INTO doc VALUES (1, '2020-01-01')")
    audit.execute("CREATE TABLE secret (id int PRIMARY KEY, doc int REFERENCES doc ON DELETE CASCADE)")
    audit.execute("INSERT INTO secret VALUES (1, 1)")
    archiver = audit.connect(owner)
    for prepare in [f"GRANT SELECT ON secret TO {owner}", "ALTER TABLE secret ENABLE ROW LEVEL SECURITY"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="can be seen"):
            if "GRANT" not in prepare:
                audit.execute(prepare)
            archiver.execute("SELECT archive_table_batch('doc', '2021-01-01')")
        audit.execute(prepare)
    assert audit.value("SELECT count(*) FROM secret") == 1
    audit.execute("DROP TABLE doc CASCADE")
    audit.execute(f"REVOKE ALL ON SCHEMA public FROM {owner}; REVOKE ALL ON FOREIGN SERVER cold FROM {owner};"
                  f" DROP OWNED BY {owner}")


def test_p3_what_attempts_left_that_rolled_back_does_not_confuse_an_import(audit, cluster):
    """The very same batch twice, once rolled back; and one that another job's batches overtook."""
    def rolled_back(*arguments):
        audit.execute("BEGIN")
        batch(audit, *arguments)
        audit.execute("ROLLBACK")

    first = ["'2023-01-01'", "batch_rows => 3"]
    other = ["'2023-01-01'", "batch_rows => 3", "where_clause => 'id > 100'"]
    rolled_back(*first)
    batch(audit, *first)
    rolled_back(*first)
    batch(audit, *other)
    batch(audit, *first)
    audit.execute("ALTER TABLE audit RENAME TO audit_trail")
    batch(audit, *first, table="audit_trail")
    expected = audit.all("SELECT * FROM archive.audit ORDER BY id")
    assert len(expected) == 12
    other = Database(cluster, f"{audit.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{audit.name}')")
    lines = other.all("SELECT * FROM import_archive('cold', dry_run => false, tables => 'public.audit')")
    assert [line.rows for line in lines if line.action == "import"] == [12], lines
    assert other.all("SELECT * FROM archive.audit ORDER BY id") == expected
    other.drop()


def test_readers_that_lose_the_table_lose_its_archived_rows(audit, role):
    reader = role("reader")
    audit.execute(f"GRANT SELECT ON audit TO {reader}")
    batch(audit, "'2023-01-01'", "batch_rows => 3")
    session = audit.connect(reader)
    assert session.execute("SELECT count(*) FROM archive.audit").fetchone()[0] == 3
    audit.execute(f"REVOKE SELECT ON audit FROM {reader}")
    for relation in ["archive.audit", "archive.audit_rows", "archive.audit_all"]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            session.execute(f"SELECT count(*) FROM {relation}")


def test_a_job_can_be_paused_and_goes_on(audit):
    caller = audit.connect()
    call = Call(lambda: caller.execute("CALL archive_table('audit', '2023-01-01', batch_rows => 10, sleep => '100 ms')"))
    wait_until(lambda: audit.value("SELECT count(*) FROM archive_ext.jobs WHERE rows_archived > 0") == 1, 20, "a batch")
    job = audit.value("SELECT job_id FROM archive_ext.jobs")
    audit.execute("SELECT pause_job(%s)", [job])
    call.result()
    assert audit.value("SELECT status FROM archive_ext.jobs") == "paused"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="paused"):
        batch(audit, "'2023-01-01'")
    audit.execute("SELECT resume_job(%s)", [job])
    audit.execute("CALL archive_table('audit', '2022-02-01')")
    assert audit.all("SELECT job_id, status FROM archive_ext.jobs") == [(job, "completed")]


def test_deferred_constraints_are_checked_by_the_step_itself(audit, role):
    owner = role("owner")
    audit.execute(f"GRANT USAGE, CREATE ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
    session = audit.connect(owner)
    session.execute("CREATE TABLE doc (id int PRIMARY KEY, at date NOT NULL)")
    session.execute("INSERT INTO doc VALUES (1, '2020-01-01')")
    session.execute("CREATE TABLE line (id int PRIMARY KEY, doc int REFERENCES doc DEFERRABLE INITIALLY DEFERRED)")
    session.execute("SELECT set_archive_policy('doc', archive_after => '1 year', storage => 'cold')")
    audit.execute("CALL run_lifecycle()")
    assert audit.all("SELECT status, error FROM archive_ext.jobs") == [("completed", None)]
    assert audit.value("SELECT count(*) FROM archive.doc") == 1
    audit.execute("DROP TABLE doc, archive.doc CASCADE")
    audit.execute(f"REVOKE ALL ON SCHEMA public FROM {owner}; REVOKE ALL ON FOREIGN SERVER cold FROM {owner};"
                  f" DROP OWNED BY {owner} CASCADE")


def test_names_that_are_taken_are_refused_before_anything_is_written(audit, cluster):
    batch(audit, "'2023-01-01'", "batch_rows => 3")
    audit.execute("CREATE SCHEMA other; CREATE TABLE other.audit (LIKE audit INCLUDING ALL)")
    before = sorted((cluster.storage / audit.name).rglob("*"))
    with pytest.raises(psycopg.errors.DuplicateTable) as refused:
        audit.execute("SELECT archive_table_batch('other.audit', '2023-01-01')")
    assert "archive_name" in refused.value.diag.message_hint
    assert sorted((cluster.storage / audit.name).rglob("*")) == before


def test_nobody_puts_rows_into_the_archive_parent(audit):
    batch(audit, "'2023-01-01'", "batch_rows => 3")
    with pytest.raises(psycopg.errors.CheckViolation):
        audit.execute("INSERT INTO archive.audit VALUES (1, now(), 'forged')")


def test_tables_with_rules_are_archived(audit):
    audit.execute("CREATE TABLE log (id bigint); CREATE RULE log AS ON DELETE TO audit DO ALSO INSERT INTO log VALUES (old.id)")
    assert batch(audit, "'2022-02-01'", "batch_rows => 10").rows == 10
    everything_once(audit, range(1, ROWS + 1))
