"""The second and third phase of archiving: what is in the storage is read back again, and only then the local copy goes."""

import json
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from harness.cluster import Cluster, Database, wait_until
from harness.orders import archive, assert_same_rows, create_orders, keep_truth
from harness.proxy import Stall, Status
from harness.sessions import Call

MONTHS = ["orders_2024_01", "orders_2024_02", "orders_2024_03"]


class Directory:
    """A file:// storage, and what can happen to what is in it."""

    def __init__(self, db):
        self.path = Path(db.cluster.storage) / db.name
        db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{self.path}')")
        db.execute("SET archive_ext.default_storage = 'cold'")
        db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'")

    def read(self, key):
        return (self.path / key).read_bytes()

    def write(self, key, body):
        (self.path / key).write_bytes(body)

    def delete(self, key):
        (self.path / key).unlink()


class InBucket:
    """The same for S3."""

    def __init__(self, db, bucket):
        self.bucket = bucket
        bucket.create_storage(db.conn)

    def read(self, key):
        return self.bucket.read(f"{self.bucket.prefix}/{key}")

    def write(self, key, body):
        self.bucket.write(f"{self.bucket.prefix}/{key}", body)

    def delete(self, key):
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=f"{self.bucket.prefix}/{key}")


@pytest.fixture(params=["file", "s3", "s3_signed"])
def storage(request, db):
    return Directory(db) if request.param == "file" else InBucket(db, request.getfixturevalue(request.param))


@pytest.fixture
def local(db):
    return Directory(db)


def orders(db, *, months=3, rows=400):
    create_orders(db.conn, months=months, rows=rows)
    keep_truth(db, "orders")


def key_of(db, partition):
    return db.value("SELECT key FROM archive_ext.objects WHERE partition_name = %s ORDER BY ordinal LIMIT 1", [partition])


def flip(body, at):
    return body[:at] + bytes([body[at] ^ 1]) + body[at + 1:]


DAMAGE = {
    "missing": lambda s, key: s.delete(key),
    "cut": lambda s, key: s.write(key, s.read(key)[:-100]),
    "longer": lambda s, key: s.write(key, s.read(key) + b"x"),
    "flipped": lambda s, key: s.write(key, flip(s.read(key), len(s.read(key)) // 3)),
    "empty": lambda s, key: s.write(key, b""),
}


def open_findings(db):
    return {(f.key, f.kind) for f in db.all("SELECT key, kind FROM archive_ext.findings WHERE resolved_at IS NULL")}


def local_copies(db):
    return {p.partition_name for p in db.all("SELECT partition_name FROM archive_ext.partitions WHERE local_copy IS NOT NULL")}


@contextmanager
def damaged(storage, key, how):
    body = storage.read(key)
    DAMAGE[how](storage, key)
    yield
    storage.write(key, body)


@pytest.mark.parametrize("how", DAMAGE)
def test_p2_no_local_copy_goes_when_the_archive_is_damaged(db, storage, how):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    key = key_of(db, "orders_2024_01")
    kind = "missing" if how == "missing" else "altered"

    with damaged(storage, key, how):
        with pytest.raises(psycopg.errors.DataCorrupted) as refused:
            db.execute("SELECT drop_local_copy('orders_2024_01')")
        assert key in refused.value.diag.message_detail and "local copy stays" in refused.value.diag.message_hint
        found = db.row("SELECT * FROM verify_archive('orders_2024_01')")
        assert found.verified_at is None and key in found.result
        db.execute("SELECT verify_archive('orders_2024_01')")
        assert open_findings(db) == {(key, kind)}
        assert db.value("SELECT count(*) FROM archive_ext.findings") == 1, "the same finding twice"
        assert db.value("SELECT count(*) FROM archive_ext.events WHERE event LIKE 'object %'") == 1
        assert f'object "{key}" in storage "cold" is {kind}' in db.cluster.log()
        assert local_copies(db) == {"orders_2024_01"}

    assert db.value("SELECT result FROM verify_archive('orders_2024_01')") == "equal"
    assert open_findings(db) == set(), "it was put back"
    assert db.row("SELECT * FROM drop_local_copy('orders_2024_01')").rows == 400
    assert local_copies(db) == set()
    assert_same_rows(db, "truth", "archive.orders_all")


def test_p2_a_damaged_manifest_keeps_the_local_copy(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    key = db.value("SELECT manifest_key FROM archive_ext.partition")
    manifest = json.loads(local.read(key))
    manifest["source"]["partition"] = "orders_2024_07"
    manifest["digest"]["sum"] = "0" * 32
    body = local.read(key)
    for broken in [json.dumps(manifest).encode(), b"{", None]:
        local.delete(key) if broken is None else local.write(key, broken)
        with pytest.raises(psycopg.errors.DataCorrupted):
            db.execute("SELECT drop_local_copy('orders_2024_01')")
        assert key in db.value("SELECT result FROM verify_archive('orders_2024_01')")
    local.write(key, body)
    db.execute("SELECT drop_local_copy('orders_2024_01')")
    assert local_copies(db) == set()


def test_checksum_knows_what_the_store_called_the_object(db, s3):
    """The bytes are others, the size is the same: a HEAD alone finds it, because the etag is."""
    storage = InBucket(db, s3)
    orders(db, months=1)
    archive(db, "orders_2024_01")
    key = key_of(db, "orders_2024_01")
    checksum = "SELECT result FROM verify_archive('orders_2024_01', 'checksum')"
    assert db.value(checksum).startswith("sizes equal; of 1 of 1 objects no etag"), "nobody has read it since it was written"
    db.execute("SELECT verify_archive('orders_2024_01')")
    assert db.value(checksum) == "sizes and etags equal"
    body = storage.read(key)
    storage.write(key, flip(body, 1000))
    assert "SHA-256" in db.value(checksum)
    assert open_findings(db) == {(key, "altered")}
    storage.write(key, body)
    db.execute("SELECT verify_archive('orders_2024_01')")
    assert db.value(checksum) == "sizes and etags equal"


def test_reconcile_finds_what_is_gone_without_reading_it(db, local):
    orders(db, months=3)
    db.execute("SELECT archive_partitions(ARRAY['orders_2024_01', 'orders_2024_02', 'orders_2024_03']::regclass[])")
    sampled = db.row("SELECT * FROM reconcile_archive('orders')")
    assert (sampled.objects, sampled.sampled, sampled.rows, sampled.damaged) == (3, 1, 400, 0)
    keys = [key_of(db, month) for month in MONTHS]
    DAMAGE["missing"](local, keys[1])
    DAMAGE["cut"](local, keys[2])
    assert db.row("SELECT * FROM reconcile_archive('orders')").damaged == 2
    assert open_findings(db) == {(keys[1], "missing"), (keys[2], "altered")}
    DAMAGE["flipped"](local, keys[0])
    assert db.row("SELECT * FROM reconcile_archive('orders', 100)").damaged == 3
    assert {kind for _, kind in open_findings(db)} == {"missing", "altered"}
    with pytest.raises(psycopg.errors.DataCorrupted) as failed:
        db.execute("CALL verify_archive_steps('orders')")
    assert "3 of 3 partitions" in str(failed.value)


def test_p12_a_storage_that_does_not_answer_is_an_error_and_no_finding(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    orders(db, months=1)
    archive(db, "orders_2024_01")
    fault_proxy.on("GET|HEAD", r"\.parquet", fault=Status(403, "AccessDenied"), times=None)
    for call in ["verify_archive('orders')", "drop_local_copy('orders_2024_01')", "reconcile_archive('orders')"]:
        with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification):
            db.execute(f"SELECT {call}")
    fault_proxy.heal()
    assert open_findings(db) == set()
    assert local_copies(db) == {"orders_2024_01"}


def jobs(db, *operations):
    return [tuple(job) for job in db.all(
        "SELECT operation, partition_name, status FROM archive_ext.jobs WHERE operation = ANY (%s) ORDER BY started_at, 2",
        [list(operations or ("verify", "drop_local"))])]


@pytest.mark.parametrize("policy", [True, False])
def test_p2_three_phases_one_after_the_other(db, local, policy):
    """With a policy, and without one by the settings: archived, verified again, dropped."""
    orders(db, months=2)
    if policy:
        db.execute("SELECT set_archive_policy('orders', verify_after => '2 days', drop_after => '5 days')")
    else:
        db.execute("SET archive_ext.verify_after = '2d'; SET archive_ext.drop_after = '5d'")
    archive(db, "orders_2024_01")
    archive(db, "orders_2024_02", drop_local="9 days")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == []

    at(db, "3 days")
    explained = db.all("SELECT partition, next_step FROM explain_lifecycle('orders') WHERE status = 'ARCHIVED'")
    assert [tuple(e) for e in explained] == [(f"public.{m}", "verify") for m in MONTHS[:2]]
    assert {tuple(p) for p in db.all("SELECT action, bytes_freed FROM plan_archive('orders')")} == {("verify", 0)}
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("verify", f"public.{m}", "completed") for m in MONTHS[:2]]
    db.execute("CALL run_lifecycle()")
    assert len(jobs(db)) == 2, "twice is enough"
    assert local_copies(db) == set(MONTHS[:2])
    assert db.value("SELECT count(*) FROM archive_ext.partition WHERE reverified_at > archived_at") == 2

    at(db, "6 days")
    db.execute("CALL run_lifecycle()")
    assert jobs(db, "drop_local") == [("drop_local", "public.orders_2024_01", "completed")]
    assert local_copies(db) == {"orders_2024_02"}, "the call said nine days"
    at(db, "10 days")
    db.execute("CALL run_lifecycle()")
    assert local_copies(db) == set()
    assert db.value("SELECT count(*) FROM pg_class WHERE relname LIKE '%\\_\\_local\\_%' AND relkind = 'r'") == 0
    assert db.value("SELECT count(*) FROM archive_ext.events WHERE event = 'local_copy_dropped'") == 2
    assert_same_rows(db, "truth", "archive.orders_all")
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "truth", "archive.orders_all")


def at(db, later):
    db.execute(f"SELECT set_config('archive_ext.now', (now() + interval '{later}')::text, false)")


def test_p2_a_failed_second_verification_drops_nothing_and_tells(db, local):
    orders(db, months=2)
    db.execute("SELECT set_archive_policy('orders', drop_after => '30 days', max_attempts => 2)")
    for month in MONTHS[:2]:
        archive(db, month)
    key = key_of(db, "orders_2024_01")
    listener = db.connect()
    listener.execute("LISTEN archive_ext")

    with damaged(local, key, "flipped"):
        at(db, "8 days")
        db.execute("CALL run_lifecycle()")
        job = db.row("SELECT * FROM archive_ext.archival_job WHERE partition_name LIKE '%01' AND operation = 'verify'")
        assert (job.status, job.attempts, job.error_code) == ("pending", 1, "XX001")
        assert key in job.error
        alert = db.row("SELECT * FROM archive_ext.alerts WHERE partition_name = 'public.orders_2024_01'")
        assert alert.alert == "verification failed"
        assert open_findings(db) == {(key, "altered")}, "the finding stays although the job failed"
        assert db.value("SELECT count(*) FROM archive_ext.events WHERE event = 'verification_failed'") == 1
        told = [json.loads(n.payload) for n in listener.notifies(timeout=20, stop_after=1)]
        assert told[0]["event"] == "verification_failed" and told[0]["partition"] == "public.orders_2024_01"

        at(db, "31 days")
        db.execute("CALL run_lifecycle()")
        assert local_copies(db) == {"orders_2024_01"}, "that of the other partition went"
        assert ("verify", "public.orders_2024_01", "failed") in jobs(db)
        at(db, "60 days")
        db.execute("CALL run_lifecycle()")
        assert local_copies(db) == {"orders_2024_01"}, "given up, it waits for somebody"
        held = db.row("SELECT * FROM explain_lifecycle('orders') WHERE partition = 'public.orders_2024_01'")
        assert "verify was given up after 2 attempts" in held.reason
        assert "retry_job" in held.freed_by

    db.execute("SELECT retry_job(job_id) FROM archive_ext.jobs WHERE status = 'failed'")
    db.execute("CALL run_lifecycle()")
    assert local_copies(db) == set()
    assert open_findings(db) == set()
    assert db.value("SELECT count(*) FROM archive_ext.alerts WHERE partition_name IS NOT NULL") == 0
    assert_same_rows(db, "truth", "archive.orders_all")


def test_p2_an_archive_damaged_after_the_second_verification_keeps_the_local_copy(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    at(db, "8 days")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("verify", "public.orders_2024_01", "completed")]
    with damaged(local, key_of(db, "orders_2024_01"), "cut"):
        at(db, "31 days")
        db.execute("CALL run_lifecycle()")
        assert jobs(db, "drop_local") == [("drop_local", "public.orders_2024_01", "pending")]
        assert local_copies(db) == {"orders_2024_01"}
    at(db, "32 days")
    db.execute("CALL run_lifecycle()")
    assert local_copies(db) == set()


def test_p2_a_local_copy_that_was_changed_stays(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    copy = db.value("SELECT local_copy::text FROM archive_ext.partitions")
    db.execute(f"ALTER TABLE {copy} DISABLE TRIGGER ALL")
    db.execute(f"UPDATE {copy} SET note = 'late' WHERE items = 2")
    at(db, "31 days")
    db.execute("CALL run_lifecycle()")
    assert local_copies(db) == {"orders_2024_01"}
    job = db.row("SELECT * FROM archive_ext.archival_job WHERE operation = 'drop_local'")
    assert job.error_code == "55000" and '"note"' in job.error
    assert open_findings(db) == set(), "nothing is wrong with the objects"


def test_p4_a_killed_drop_goes_on(db, s3, fault_proxy):
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    orders(db, months=1)
    archive(db, "orders_2024_01")
    stalled = fault_proxy.on("GET", r"\.parquet", fault=Stall())
    victim = db.connect()
    at(db, "31 days")
    victim.execute("SELECT set_config('archive_ext.now', %s, false)", [db.value("SHOW archive_ext.now")])
    call = Call(victim.execute, "CALL run_lifecycle()")
    assert stalled.hit.wait(60)
    db.execute("SELECT pg_terminate_backend(%s)", [victim.info.backend_pid])
    with pytest.raises(psycopg.Error):
        call.result(60)
    fault_proxy.heal()
    wait_until(lambda: not db.value("SELECT count(*) FROM pg_stat_activity WHERE pid = %s", [victim.info.backend_pid]),
               20, "the session to end")
    assert local_copies(db) == {"orders_2024_01"}
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("drop_local", "public.orders_2024_01", "completed")]
    assert local_copies(db) == set()
    assert_same_rows(db, "truth", "archive.orders_all")


def test_what_was_imported_is_verified_too(db, local):
    """Values that hash otherwise in another database are no damage."""
    orders(db, months=1)
    archive(db, "orders_2024_01")
    db.execute("ALTER TYPE order_status RENAME VALUE 'paid' TO 'settled'")
    assert db.value("SELECT result FROM verify_archive('orders')") == "equal"
    other = Database(db.cluster, f"{db.name}_other")
    try:
        other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{local.path}')")
        other.execute("SELECT import_archive('cold', dry_run => false)")
        assert other.value("SELECT verified_level FROM archive_ext.partitions") is None
        assert other.value("SELECT result FROM verify_archive('orders')") == "equal"
        assert other.row("SELECT * FROM reconcile_archive('orders', 100)").damaged == 0
        DAMAGE["flipped"](local, key_of(db, "orders_2024_01"))
        assert "SHA-256" in other.value("SELECT result FROM verify_archive('orders')")
    finally:
        other.drop()


def test_a_column_whose_type_is_gone_is_compared_by_its_bytes(db, local):
    db.execute("CREATE TYPE place AS (x int, y int)")
    db.execute("CREATE TABLE walk (id int NOT NULL, at place) PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE walk_1 PARTITION OF walk FOR VALUES FROM (0) TO (100)")
    db.execute("INSERT INTO walk SELECT n, ROW(n, -n)::place FROM generate_series(0, 99) n")
    archive(db, "walk_1")
    db.execute("DROP TYPE place CASCADE")
    assert db.value("SELECT result FROM verify_archive('walk')").startswith("equal by SHA-256 alone: It was archived with type")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState) as refused:
        db.execute("SELECT drop_local_copy('walk_1')")
    assert 'has no column "at" any more' in refused.value.diag.message_detail
    assert local_copies(db) == {"walk_1"}
    DAMAGE["flipped"](local, key_of(db, "walk_1"))
    assert "SHA-256 is" in db.value("SELECT result FROM verify_archive('walk')")


def test_a_partition_that_came_back_is_left_alone(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    db.execute("SET archive_ext.now = '2030-01-01'")
    db.execute("SELECT archive_ext.schedule_jobs('orders')")
    assert jobs(db) == [("drop_local", "public.orders_2024_01", "pending")]
    db.execute("SELECT reattach_partition('orders_2024_01')")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("drop_local", "public.orders_2024_01", "completed")]
    assert_same_rows(db, "truth", "orders")


def test_a_local_copy_that_nobody_drops_is_an_alert(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    db.execute("UPDATE archive_ext.partition SET local_copy_until = now() - interval '2 days'")
    overdue = "SELECT partition_name FROM archive_ext.alerts WHERE alert = 'overdue'"
    assert db.value(overdue) == "public.orders_2024_01"
    db.execute("CALL run_lifecycle()")
    assert db.all(overdue) == []
    assert local_copies(db) == set()


def test_p6_a_reader_of_the_local_copy_is_waited_for_and_named(db, local):
    orders(db, months=1)
    archive(db, "orders_2024_01")
    copy = db.value("SELECT local_copy::text FROM archive_ext.partitions")
    reader = db.connect()
    reader.autocommit = False
    reader.execute(f"SELECT count(*) FROM {copy}")
    db.execute("SET archive_ext.lock_timeout = '300ms'")
    with pytest.raises(psycopg.errors.LockNotAvailable) as refused:
        db.execute("SELECT drop_local_copy('orders_2024_01')")
    assert str(reader.info.backend_pid) in refused.value.diag.message_detail
    reader.rollback()
    db.execute("SELECT drop_local_copy('orders_2024_01')")


@pytest.fixture
def rows(db, local):
    """Three objects of an archive of single rows, whose table has a policy: two of now, and one of two days before."""
    db.execute("CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text)")
    db.execute("INSERT INTO audit SELECT n, timestamptz '2022-01-01Z' + n * interval '1 hour', 'note ' || n"
               " FROM generate_series(1, 300) n")
    db.execute("SELECT set_archive_policy('audit', archive_after => '100 years', verify_after => '5 days')")
    for _ in range(3):
        db.execute("SELECT archive_table_batch('audit', '2023-01-01', batch_rows => 100)")
    db.execute("UPDATE archive_ext.object SET uploaded_at = uploaded_at - interval '2 days' WHERE ordinal = 0")
    return [key for (key,) in db.all("SELECT key FROM archive_ext.objects ORDER BY ordinal")]


def verified(db):
    return [done for (done,) in db.all("SELECT verified_at IS NOT NULL FROM archive_ext.objects ORDER BY ordinal")]


def test_p2_objects_of_single_rows_are_verified_again(db, local, rows):
    """Each by its own age, and once."""
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == []
    assert db.all("SELECT action FROM plan_archive('audit')") == [("verify",)], "later"

    at(db, "4 days")
    assert db.value("SELECT next_step FROM explain_lifecycle('audit') WHERE status = 'ARCHIVED'") == "verify"
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("verify", "public.audit_rows", "completed")]
    assert verified(db) == [True, False, False]
    event = db.row("SELECT details FROM archive_ext.events WHERE event = 'verified'")
    assert (event.details["objects"], event.details["rows"], event.details["level"]) == (1, 100, "content")
    db.execute("CALL run_lifecycle()")
    assert len(jobs(db)) == 1, "once is enough"

    at(db, "6 days")
    db.execute("CALL run_lifecycle()")
    assert verified(db) == [True, True, True]
    db.execute("CALL run_lifecycle()")
    assert len(jobs(db)) == 2
    assert db.all("SELECT action FROM plan_archive('audit')") == []
    assert db.value("SELECT count(*) FROM archive.audit_all") == 300


@pytest.mark.parametrize("by_hand", ["verify_archive('audit')", "reconcile_archive('audit', 100)"])
def test_a_verification_of_single_rows_by_hand_counts(db, local, rows, by_hand):
    db.execute("SELECT verify_archive('audit', 'checksum')")
    assert verified(db) == [False, False, False]
    db.execute(f"SELECT {by_hand}")
    assert verified(db) == [True, True, True]
    at(db, "9 days")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == []


def test_p2_damaged_objects_of_single_rows_are_found_and_told(db, local, rows):
    """All that is due is read although the first object is damaged; tried again, nothing else is."""
    db.execute("SELECT set_archive_policy('audit', max_attempts => 2)")
    at(db, "6 days")
    with damaged(local, rows[0], "flipped"):
        db.execute("CALL run_lifecycle()")
        assert db.row("SELECT status, error_code FROM archive_ext.archival_job WHERE operation = 'verify'") == ("pending", "XX001")
        assert verified(db) == [False, True, True]
        assert open_findings(db) == {(rows[0], "altered")}
        assert db.value("SELECT count(*) FROM archive_ext.events WHERE event = 'verification_failed'") == 1
        assert f'object "{rows[0]}" in storage "cold" is altered' in db.cluster.log()
        at(db, "7 days")
        db.execute("CALL run_lifecycle()")
        job = db.row("SELECT job_id, status, error FROM archive_ext.jobs WHERE operation = 'verify'")
        assert job.status == "failed" and rows[0] in job.error
        assert db.value("SELECT count(*) FROM archive_ext.alerts") > 0
        db.execute("CALL run_lifecycle()")
        assert len(jobs(db)) == 1, "given up until somebody calls retry_job"
    db.execute("SELECT retry_job(%s)", [job.job_id])
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == [("verify", "public.audit_rows", "completed")]
    assert open_findings(db) == set()
    assert verified(db) == [True, True, True]


def test_without_a_policy_nobody_reads_single_rows_again(db, local, rows):
    db.execute("SELECT drop_archive_policy('audit')")
    at(db, "99 days")
    db.execute("CALL run_lifecycle()")
    assert jobs(db) == []


def test_p2_the_worker_drops_local_copies_of_tables_without_a_policy():
    """As the table's owner; nobody calls anything."""
    cluster = Cluster("archive_ext.worker_enabled=on", "archive_ext.naptime=1s")
    try:
        db = Database(cluster, "worked")
        owner = "keeper"
        db.execute(f"CREATE ROLE {owner} LOGIN")
        local = Directory(db)
        db.execute(f"GRANT USAGE ON FOREIGN SERVER cold TO {owner}")
        db.execute(f"GRANT CREATE ON SCHEMA public TO {owner}")
        mine = db.connect(owner)
        create_orders(mine, months=2, rows=200)
        mine.execute("SELECT archive_partition('orders_2024_01', drop_local => '1 second')")
        mine.execute("SELECT archive_partition('orders_2024_02', drop_local => '1 day')")
        wait_until(lambda: local_copies(db) == {"orders_2024_02"}, 60, "the worker to drop the local copy")
        job = db.row("SELECT * FROM archive_ext.jobs WHERE operation = 'drop_local'")
        assert (job.status, job.started_by) == ("completed", owner)
        assert db.value("SELECT actor::text FROM archive_ext.events WHERE event = 'local_copy_dropped'") == owner
        assert local.path.exists()
    finally:
        cluster.stop()
