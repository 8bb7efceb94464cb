"""Many small objects become few large ones: no reader misses a row or sees it twice, and the bucket alone stays enough."""

import threading

import psycopg
import pyarrow.parquet as pq
import pytest

from harness.cluster import Database, wait_until
from harness.proxy import CorruptAnswer
from harness.sessions import Call, PeakMemory, Repeat

ROWS = 6000


@pytest.fixture
def audit(db, cluster):
    """A plain table whose keys do not follow its times: a batch has rows of every month."""
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
        INSERT INTO audit SELECT n, '2022-01-01Z'::timestamptz + (n * 7919 % {ROWS}) * interval '1 hour', 'note ' || n
        FROM generate_series(1, {ROWS}) n;""")
    db.conn = db.connect()
    return db


def archive(db, before="2022-06-01Z", batch_rows=100, **more):
    given = "".join(f", {name} => {value}" for name, value in more.items())
    db.execute(f"CALL archive_table('audit', '{before}', batch_rows => {batch_rows}{given})")


def compact(db, *arguments, table="audit"):
    return db.row(f"SELECT * FROM compact_archive({', '.join([repr(table), *arguments])})")


def objects(db):
    return [row[0] for row in db.all("SELECT key FROM archive_ext.objects ORDER BY key")]


def archived(db, table="audit"):
    return db.all(f"SELECT * FROM archive.{table} ORDER BY id")


def imported(db, cluster, table="audit"):
    """What another database finds in the storage."""
    other = Database(cluster, f"{db.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}')")
    lines = other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert {line.action for line in lines} <= {"table", "import"}, lines
    rows = archived(other, table)
    other.drop()
    return rows


def test_objects_are_merged_by_month_and_sorted(audit, cluster):
    archive(audit)
    before, rows = objects(audit), archived(audit)
    assert len(before) == 37
    audit.execute("CALL compact_archive_steps('audit')")
    after = objects(audit)
    months = [f"public.audit/archive_year=2022/archive_month={month:02}/" for month in range(1, 6)]
    assert [key.rsplit("/", 1)[0] + "/" for key in after] == months
    assert archived(audit) == rows
    assert audit.value("SELECT count(*) FROM archive.audit_all") == ROWS
    for month, key in enumerate(after, 1):
        times = pq.read_table(cluster.storage / audit.name / key).column("at").to_pylist()
        assert times == sorted(times) and {time.month for time in times} == {month}
    replaced = {row[0] for row in audit.all("SELECT key FROM archive_ext.replaced_object")}
    assert set(before) <= replaced and replaced.isdisjoint(after)
    assert all((cluster.storage / audit.name / key).exists() for key in replaced), "older snapshots read them"
    stored = audit.row("SELECT rows, archived_bytes FROM archive_ext.partition WHERE row_set")
    assert stored == audit.row("SELECT sum(rows), sum(bytes) FROM archive_ext.objects")
    assert audit.row("SELECT status, rows_archived > 0 FROM archive_ext.jobs WHERE operation = 'compact'") == ("completed", True)
    nothing = compact(audit)
    assert (nothing.job_id, nothing.objects, nothing.done) == (None, 0, True)


def test_one_call_does_bounded_work(audit):
    archive(audit)
    rows = archived(audit)
    sizes = [row[0] for row in audit.all("SELECT bytes FROM archive_ext.objects ORDER BY ordinal")]
    first = compact(audit, f"max_bytes => {sum(sizes[:4])}")
    assert (first.objects, first.bytes, first.rows, first.done) == (4, sum(sizes[:4]), 400, False)
    assert archived(audit) == rows
    assert compact(audit, "min_objects => 1000").done
    assert audit.all("SELECT operation, status, rows_archived FROM archive_ext.jobs WHERE operation = 'compact'") == [
        ("compact", "completed", 400)]


def test_a_job_whose_session_went_away_is_ended_by_who_finds_nothing_left(audit):
    """And not before: what another request would merge is none of its business."""
    archive(audit)
    with audit.connect() as lost:
        job = lost.execute("SELECT archive_ext.begin_compaction('audit', NULL, 2, NULL)").fetchone()[0]
    status = f"SELECT status, phase FROM archive_ext.jobs WHERE job_id = '{job}'"
    assert compact(audit, "min_objects => 1000").done
    assert audit.row(status) == ("running", "compacting")
    while not compact(audit).done:
        assert audit.row(status) == ("running", "compacting")
    assert audit.row(status) == ("completed", "done")


def test_p1_readers_count_each_row_once_while_objects_are_merged(audit):
    """Read committed, and a snapshot that is older than every merge; batches go on meanwhile."""
    archive(audit, before="2022-03-01Z")
    reader, old, writer = audit.connect(), audit.connect(), audit.connect()
    old.autocommit = False
    old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    counted = "SELECT count(*), count(DISTINCT id), sum(id) FROM archive.audit_all"
    expected = (ROWS, ROWS, ROWS * (ROWS + 1) // 2)
    archived_then = archived_by(old)
    # Of these the catalog has the answer: by the same snapshot.
    known = "SELECT count(*) FROM archive.audit_all"
    for session in (reader, old):
        session.execute("SET archive_ext.enable_catalog_answers = on")

    def read():
        assert tuple(reader.execute(counted).fetchone()) == expected
        assert reader.execute(known).fetchone() == (ROWS,)

    with Repeat(read) as reads:
        batches = Call(lambda: writer.execute("CALL archive_table('audit', '2022-06-01Z', batch_rows => 50)"))
        while batches.seconds is None:
            audit.execute("CALL compact_archive_steps('audit', max_bytes => 20000)")
        batches.result()
        audit.execute("CALL compact_archive_steps('audit')")
    assert reads.steps > 2
    assert tuple(old.execute(counted).fetchone()) == expected
    assert old.execute(known).fetchone() == (ROWS,)
    assert archived_by(old) == archived_then
    old.rollback()
    assert len(objects(audit)) == 5
    assert audit.value("SELECT count(*) FROM audit WHERE at < '2022-06-01Z'") == 0


def archived_by(session):
    return session.execute("SELECT count(*), sum(id) FROM archive.audit").fetchall()


def test_p3_the_bucket_alone_is_enough_after_a_compaction(audit, cluster):
    archive(audit)
    audit.execute("CALL compact_archive_steps('audit')")
    assert imported(audit, cluster) == archived(audit)


def test_p3_a_compaction_that_rolled_back_leaves_nothing_that_counts(audit, cluster):
    """At the end of the chain, where nothing tells that it rolled back, and in its middle."""
    archive(audit, before="2022-02-01Z")
    audit.execute("BEGIN")
    assert compact(audit).objects > 2
    audit.execute("ROLLBACK")
    assert imported(audit, cluster) == archived(audit)
    archive(audit, before="2022-03-01Z")
    assert imported(audit, cluster) == archived(audit)
    audit.execute("CALL compact_archive_steps('audit')")
    assert imported(audit, cluster) == archived(audit)


def test_p3_batches_and_compactions_by_turns(audit, cluster):
    for month in range(2, 6):
        archive(audit, before=f"2022-{month:02}-01Z", batch_rows=250)
        compact(audit, "min_objects => 3")
    archive(audit, before="2022-06-01Z")
    expected = archived(audit)
    assert imported(audit, cluster) == expected
    # What was replaced is needed by nobody who imports.
    for key, in audit.all("SELECT key FROM archive_ext.replaced_object"):
        (cluster.storage / audit.name / key).unlink()
    assert imported(audit, cluster) == expected == archived(audit)


def test_p2_objects_stay_when_what_is_read_back_differs(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute("CREATE TABLE audit (id int PRIMARY KEY, at date NOT NULL, note text)")
    db.execute("INSERT INTO audit SELECT n, '2020-01-01', 'note ' || n FROM generate_series(1, 100) n")
    archive(db, before="2021-01-01", batch_rows=10)
    before, rows = objects(db), archived(db)
    batches = before[0].rsplit(".", 3)[0].rsplit(".", 1)[1]
    fault_proxy.on("GET", rf"t\.b(?!{batches[1:]})[0-9a-f]+\.[^/]*parquet", fault=CorruptAnswer())
    with pytest.raises(psycopg.Error):
        compact(db)
    fault_proxy.heal()
    assert objects(db) == before and archived(db) == rows
    assert db.value("SELECT count(*) FROM archive_ext.replaced_object") == 0
    assert compact(db).into_objects == 1
    assert archived(db) == rows


def test_p2_an_object_that_is_not_what_was_archived_is_not_merged(audit, cluster):
    """Its rows are those of another object; sizes, footers and checksums within are in order."""
    archive(audit, before="2022-03-01Z")
    by_size = audit.all("SELECT array_agg(key) AS keys FROM archive_ext.objects GROUP BY bytes, rows HAVING count(*) > 1")
    one, other = by_size[0].keys[:2]
    folder = cluster.storage / audit.name
    (folder / one).write_bytes((folder / other).read_bytes())
    before = objects(audit)
    with pytest.raises(psycopg.errors.DataCorrupted, match="not those that were archived"):
        compact(audit)
    assert objects(audit) == before


TYPES = {
    "numeric": "'NaN'::numeric", "timestamptz": "'-infinity'::timestamptz", "jsonb": "jsonb_build_object('n', n)",
    "json": """'{"a": 1,  "a": 2}'::json""", "int[]": "ARRAY[[n, 2], [3, NULL]]", "bytea": "decode(md5(n::text), 'hex')",
    "interval": "n * interval '1 month 2 days 3.4 s'", "inet": "'10.0.0.0/8'::inet", "float8": "'-0'::float8",
    "text": "repeat('long ', 5000) || n", "mood": "(ARRAY['sad', 'happy'])[1 + n % 2]::mood", "pair": "ROW(n, NULL)::pair",
    "date": "'4713-01-01 BC'::date", "tstzrange": "tstzrange(NULL, '2024-01-01Z')", "regclass": "'pg_class'::regclass",
    "varbit": "B'101'::varbit", "char(7)": "'ab  '", "timetz": "'12:00:00.5+03'::timetz",
}


def test_p5_every_value_comes_through(audit):
    audit.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); CREATE TYPE pair AS (a int, b text)")
    columns = ", ".join(f'"{name}" {name}' for name in TYPES)
    audit.execute(f"CREATE TABLE t (id int PRIMARY KEY, {columns}, twice int GENERATED ALWAYS AS (id * 2) STORED, at date NOT NULL)")
    values = ", ".join(TYPES.values())
    named = ", ".join(f'"{name}"' for name in TYPES)
    audit.execute(f"INSERT INTO t (id, {named}, at) SELECT n, {values}, '2020-01-01' FROM generate_series(1, 40) n")
    nulls = ", ".join("NULL" for _ in TYPES)
    audit.execute(f"INSERT INTO t (id, {named}, at) SELECT n, {nulls}, 'infinity' FROM generate_series(41, 50) n")
    audit.execute("ALTER TABLE t DROP COLUMN varbit")
    before = audit.all("SELECT t::text FROM t ORDER BY id")
    audit.execute("SELECT archive_table_batch('t', NULL, where_clause => 'true', batch_rows => 7) FROM generate_series(1, 8)")
    audit.execute("CALL compact_archive_steps('t', 'at')")
    assert audit.all("SELECT t::text FROM archive.t ORDER BY id") == before
    keys = objects(audit)
    assert len(keys) == 2
    assert keys[0].startswith("public.t/archive_year=2020/archive_month=01/") and keys[1].startswith("public.t/t.b")


def test_rows_of_other_columns_are_merged_as_they_were_archived(audit):
    """A label was renamed, columns were added, dropped and retyped since."""
    audit.execute("CREATE TYPE mood AS ENUM ('sad', 'happy'); ALTER TABLE audit ADD COLUMN m mood DEFAULT 'sad', ADD COLUMN n int")
    archive(audit, before="2022-02-01Z")
    audit.execute("ALTER TYPE mood RENAME VALUE 'sad' TO 'gloomy'")
    audit.execute("ALTER TABLE audit ADD COLUMN kind text DEFAULT 'plain', DROP COLUMN note, ALTER COLUMN n TYPE bigint")
    archive(audit, before="2022-03-01Z")
    expected = archived(audit)
    assert {row.m for row in expected} == {"gloomy"}
    audit.execute("CALL compact_archive_steps('audit')")
    assert archived(audit) == expected
    by_set = audit.all("SELECT partition_name, count(*) FROM archive_ext.objects GROUP BY 1 ORDER BY 1")
    assert by_set == [("audit_rows", 1), ("audit_rows2", 1)]


def test_customers_by_hash_are_merged_by_their_key(audit):
    audit.execute("CREATE TABLE customer (id int PRIMARY KEY, name text) PARTITION BY HASH (id)")
    audit.execute("CREATE TABLE customer_0 PARTITION OF customer FOR VALUES WITH (MODULUS 1, REMAINDER 0)")
    audit.execute("INSERT INTO customer SELECT n, 'c' || n FROM generate_series(1, 100) n")
    audit.execute("CALL archive_table('customer', NULL, where_clause => 'id % 3 = 0', batch_rows => 10)")
    audit.execute("CALL archive_table('customer', NULL, where_clause => 'true', batch_rows => 10)")
    assert compact(audit, table="customer").into_objects == 1
    assert [row.id for row in audit.all("SELECT id FROM archive.customer")] == list(range(1, 101)), "in the order of the key"


def test_a_policy_merges_when_it_pays(audit):
    audit.execute("SELECT set_archive_policy('audit', archive_after => '30 days', storage => 'cold')")
    audit.execute("SET archive_ext.now = '2022-03-03Z'")
    archive(audit, before="2022-02-01Z")
    audit.execute("CALL run_lifecycle()")
    assert audit.value("SELECT count(*) FROM archive_ext.jobs WHERE operation = 'compact'") == 0
    audit.execute("SET archive_ext.compact_objects = 5")
    planned = audit.row("SELECT action, reason FROM plan_archive('audit')")
    assert planned.action == "compact" and "archive_ext.compact_objects is 5" in planned.reason
    audit.execute("CALL run_lifecycle()")
    assert audit.all("SELECT status FROM archive_ext.jobs WHERE operation = 'compact'") == [("completed",)]
    assert audit.all("SELECT action FROM plan_archive('audit') WHERE action <> 'verify'") == []
    assert len(objects(audit)) == 1
    assert audit.value("SELECT count(*) FROM archive.audit_all") == ROWS


def test_a_job_can_be_paused_and_goes_on(audit):
    archive(audit)
    rows = archived(audit)
    caller = audit.connect()
    call = Call(lambda: caller.execute("CALL compact_archive_steps('audit', max_bytes => 10000, sleep => '200 ms')"))
    running = "SELECT count(*) FROM archive_ext.events WHERE event = 'compacted'"
    wait_until(lambda: audit.value(running) > 0, 20, "a merge")
    job = audit.value("SELECT job_id FROM archive_ext.jobs WHERE operation = 'compact'")
    audit.execute("SELECT pause_job(%s)", [job])
    call.result()
    assert audit.value("SELECT status FROM archive_ext.jobs WHERE operation = 'compact'") == "paused"
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="paused"):
        audit.execute("CALL compact_archive_steps('audit')")
    audit.execute("SELECT resume_job(%s)", [job])
    audit.execute("CALL compact_archive_steps('audit')")
    assert audit.all("SELECT job_id, status FROM archive_ext.jobs WHERE operation = 'compact'") == [(job, "completed")]
    assert archived(audit) == rows


def test_p1_kill_9_while_objects_are_merged(audit, cluster):
    """Each row once, whatever the attempt left; the next run takes up the job, and the bucket tells the same."""
    audit.execute("ALTER SYSTEM SET fsync = on")
    archive(audit, batch_rows=50)
    rows = archived(audit)
    for turn in range(3):
        merged = audit.value("SELECT count(*) FROM archive_ext.events WHERE event = 'compacted'")
        caller = audit.connect()

        def call():
            try:
                caller.execute("CALL compact_archive_steps('audit', max_bytes => 12000)")
            except psycopg.OperationalError:
                pass

        runner = threading.Thread(target=call)
        runner.start()
        more = "SELECT count(*) FROM archive_ext.events WHERE event = 'compacted'"
        wait_until(lambda: audit.value(more) > merged or not runner.is_alive(), 60, "a merge")
        cluster.kill_and_restart()
        runner.join()
        audit.reconnect()
        assert archived(audit) == rows, turn
        assert audit.value("SELECT count(*) FROM archive.audit_all") == ROWS
    audit.execute("CALL compact_archive_steps('audit')")
    assert len(objects(audit)) == 5 and archived(audit) == rows
    assert imported(audit, cluster) == rows


def test_who_may_and_what_for(audit, role):
    archive(audit, before="2022-01-15Z")
    reader = role("reader")
    audit.execute(f"GRANT SELECT ON audit TO {reader}")
    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="must be owner"):
        audit.connect(reader).execute("SELECT compact_archive('audit')")
    audit.execute("CREATE TABLE m (at date NOT NULL) PARTITION BY RANGE (at)")
    with pytest.raises(psycopg.errors.WrongObjectType) as refused:
        compact(audit, table="m")
    assert "archived by partitions" in refused.value.diag.message_detail
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="min_objects"):
        compact(audit, "min_objects => 1")
    with pytest.raises(psycopg.errors.ActiveSqlTransaction):
        audit.execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT compact_archive('audit')")
    audit.execute("ROLLBACK")
    audit.execute("CREATE TABLE never (id int PRIMARY KEY)")
    assert compact(audit, table="never").done


def test_a_dump_knows_what_was_replaced(audit):
    archive(audit, before="2022-02-01Z")
    compact(audit)
    dumped = audit.value("SELECT count(*) FROM pg_extension, unnest(extconfig) c WHERE c = 'archive_ext.replaced_object'::regclass")
    assert dumped == 1


@pytest.mark.timeout(600)
def test_p7_merging_and_restoring_stay_under_300_mb(audit):
    """700 MB of text that is hard to compress, in objects of 10 MB; a fresh backend each time."""
    audit.execute("CREATE TABLE big (id int PRIMARY KEY, at date NOT NULL, note text)")
    audit.execute("""
        INSERT INTO big SELECT n, date '2022-01-01' + (n % 28), (SELECT string_agg(md5((n * 31 + i)::text), '') FROM generate_series(1, 31) i)
        FROM generate_series(1, 700000) n""")
    counted = "SELECT count(*), sum(id), sum(hashtext(note)) FROM {}"
    expected = audit.row(counted.format("big"))
    audit.execute("CALL archive_table('big', '2023-01-01', batch_rows => 20000, batch_bytes => 1000000000)")
    assert audit.value("SELECT sum(bytes) FROM archive_ext.objects") > 330 << 20
    merger = audit.connect(options="-c maintenance_work_mem=64MB")
    with PeakMemory(merger.info.backend_pid) as merging:
        merged = merger.execute("SELECT * FROM compact_archive('big')").fetchone()
    assert (merged.objects, merged.into_objects) == (35, 1)
    assert audit.row(counted.format("archive.big")) == expected
    assert merging.peak < 300 << 20
    restorer = audit.connect()
    with PeakMemory(restorer.info.backend_pid) as restoring:
        assert restorer.execute("SELECT restore_rows('big', 'id % 2 = 0')").fetchone()[0] == 350_000
    assert audit.row(counted.format("archive.big_all")) == expected
    assert restoring.peak < 300 << 20
