"""What a storage holds against what the catalog names: audits, the removal of garbage, recovery to an earlier time."""

import os
import signal
import subprocess
import time
from pathlib import Path

import psycopg
import pytest

from harness.cluster import SCRIPT, Cluster, Database, wait_until
from harness.orders import (accepts_a_write, archive, assert_same_rows, create_orders, create_wide, keep_truth, summary)
from harness.sessions import Call, Repeat

REFUSED = psycopg.errors.ObjectNotInPrerequisiteState
COLLECT = "SELECT key, kind, removed, detail FROM collect_garbage('cold', '0', {dry_run}) ORDER BY key"


class Directory:
    """A file:// storage as `Bucket` is one of S3."""

    def __init__(self, path):
        self.path = path

    def keys(self, contains=""):
        found = (str(path.relative_to(self.path)) for path in self.path.rglob("*") if path.is_file())
        return sorted(key for key in found if contains in key)

    def read(self, key):
        return (self.path / key).read_bytes()

    def write(self, key, body):
        (self.path / key).write_bytes(body)

    def delete(self, key):
        (self.path / key).unlink()


class Prefix:
    """A bucket below the prefix of the storage."""

    def __init__(self, bucket):
        self.bucket = bucket

    def keys(self, contains=""):
        return [key.removeprefix("arch/") for key in self.bucket.keys(contains)]

    def read(self, key):
        return self.bucket.read(f"arch/{key}")

    def write(self, key, body):
        self.bucket.write(f"arch/{key}", body)

    def delete(self, key):
        self.bucket.client.delete_object(Bucket=self.bucket.name, Key=f"arch/{key}")


def file_storage(db, cluster):
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    return Directory(cluster.storage / db.name)


@pytest.fixture
def files(db, cluster):
    db.execute("SET archive_ext.garbage_retention = 0")
    return file_storage(db, cluster)


@pytest.fixture(params=["file", "s3", "s3_signed"])
def store(request, db, cluster):
    db.execute("SET archive_ext.garbage_retention = 0")
    if request.param == "file":
        return file_storage(db, cluster)
    bucket = request.getfixturevalue(request.param)
    bucket.create_storage(db.conn)
    return Prefix(bucket)


def collect(db, dry_run=False):
    return db.all(COLLECT.format(dry_run=dry_run))


def rolled_back(db, partition):
    with pytest.raises(ZeroDivisionError), db.conn.transaction():
        archive(db, partition, drop_local="0")
        raise ZeroDivisionError
    wait_until(lambda: accepts_a_write(db, partition), 10, f"{partition} to be writable again")


def kinds(db):
    return sorted((row.kind, row.key) for row in db.all("SELECT * FROM audit_storage('cold')"))


def test_an_audit_tells_missing_altered_foreign_and_orphaned(db, store):
    create_orders(db.conn, months=4, rows=100)
    for month in range(1, 4):
        archive(db, f"orders_2024_0{month}", drop_local="0")
    assert kinds(db) == []
    one, two, three = (store.keys(f"orders_2024_0{month}.v1.00000")[0] for month in range(1, 4))
    time.sleep(2.1)  # times of objects are in whole seconds
    bytes_of_two = store.read(two)
    manifest = store.keys("_manifests/orders_2024_03")[0]
    text_of_manifest = store.read(manifest)
    store.delete(one)
    store.write(two, bytes_of_two[:-40] + b"x" * 40)
    store.write(three, store.read(three))  # again, and the same
    store.write(manifest, text_of_manifest.replace(b'"rows": 100', b'"rows": 101'))
    store.write("public.orders/readme.txt", b"mine")
    rolled_back(db, "orders_2024_04")

    orphans = store.keys("orders_2024_04")
    expected = sorted([("missing", one), ("altered", two), ("altered", manifest), ("foreign", "public.orders/readme.txt"),
                       *(("orphaned", key) for key in orphans)])
    assert len(orphans) == 2 and kinds(db) == expected
    assert kinds(db) == expected, "the second time it is the same"
    unresolved = "SELECT kind, key FROM archive_ext.findings WHERE storage = 'cold' AND resolved_at IS NULL ORDER BY 1, 2"
    assert [tuple(row) for row in db.all(unresolved)] == expected, "nothing is recorded twice"
    assert 'storage "cold" is not what the catalog says: 2 altered, 1 foreign, 1 missing, 2 orphaned' in db.cluster.log()
    assert db.all("SELECT DISTINCT event FROM archive_ext.events WHERE table_name = 'orders'::regclass AND event LIKE 'object%'"
                  " ORDER BY 1") == [("object altered",), ("object missing",)]

    store.write(two, bytes_of_two)
    store.write(manifest, text_of_manifest)
    store.delete("public.orders/readme.txt")
    assert [row[0] for row in kinds(db)] == ["missing", "orphaned", "orphaned"]
    assert db.value("SELECT count(*) FROM archive_ext.findings WHERE resolved_at IS NOT NULL") == 3


def test_p4_what_runs_left_that_rolled_back_goes_and_nothing_else(db, store):
    create_orders(db.conn, months=2, rows=300)
    archive(db, "orders_2024_01", drop_local="0")
    before, expected = store.keys(), summary(db, "archive.orders_all")
    rolled_back(db, "orders_2024_02")
    orphans = sorted(set(store.keys()) - set(before))

    assert [(row.key, row.removed) for row in collect(db, dry_run=True)] == [(key, False) for key in orphans]
    assert sorted(set(store.keys()) - set(before)) == orphans
    assert [(row.key, row.removed, row.detail) for row in collect(db)] == [(key, True, None) for key in orphans]
    # What says that the manifest is gone stays.
    (removal,) = set(store.keys()) - set(before)
    assert removal.startswith("_archive_ext/removed/") and set(before) < set(store.keys())
    assert summary(db, "archive.orders_all") == expected
    archive(db, "orders_2024_02", drop_local="0")
    assert collect(db) == [] and kinds(db) == []
    assert summary(db, "archive.orders_all") == expected


def test_orphans_count_from_when_they_were_first_seen(db, files):
    """Objects written long ago may be nobody's only since a recovery to an earlier time."""
    db.execute("SET archive_ext.garbage_retention = '1 h'")
    create_orders(db.conn, months=1, rows=10)
    archive(db, "orders_2024_01", drop_local="0")
    orphan = "public.orders/orders_2024_01.v7.00000.parquet"
    files.write(orphan, b"old")
    os.utime(files.path / orphan, (1, 1))
    hour = "SELECT key, removed FROM collect_garbage('cold', '1 hour', false)"
    assert db.all(hour) == []
    db.execute("UPDATE archive_ext.storage_finding SET found_at = now() - interval '59 minutes'")
    assert db.all(hour) == []
    db.execute("UPDATE archive_ext.storage_finding SET found_at = now() - interval '61 minutes'")
    assert [tuple(row) for row in db.all(hour)] == [(orphan, True)]
    assert db.value("SELECT count(*) FROM archive_ext.findings WHERE resolved_at IS NULL") == 0


def test_p4_objects_of_a_job_that_is_not_done_stay(db, store):
    create_orders(db.conn, months=1, rows=200)
    keep_truth(db, "orders_2024_01")
    job = db.value("SELECT archive_ext.begin_archive('orders_2024_01', 'cold', 'content', '0')")
    phase = None
    while phase != "exported":
        phase = db.value("SELECT phase FROM archive_ext.archive_step(%s)", [job])
    exported = store.keys("orders_2024_01")
    assert len(exported) == 2
    db.execute("SELECT pause_job(%s)", [job])
    assert kinds(db) == []
    assert {(row.removed, row.detail) for row in collect(db)} == {(False, "a job that is not done may need it")}
    assert store.keys("orders_2024_01") == exported

    # Cancelled they are garbage; begun again the job exports anew.
    db.execute("SELECT cancel_job(%s)", [job])
    assert [row.removed for row in collect(db)] == [True, True]
    db.execute("SELECT retry_job(%s)", [job])
    db.execute("CALL archive_partition_steps('{orders_2024_01}', 'cold', drop_local => '0')")
    assert_same_rows(db, "archive.orders", "truth")
    assert kinds(db) == []


def test_p2_p4_runs_that_commit_while_garbage_is_collected_lose_nothing(db, files):
    """Runs commit, roll back and come back while a second session removes whatever nobody names, at once."""
    create_orders(db.conn, months=2, rows=400)
    keep_truth(db, "orders")
    collector, removed = db.connect(), []
    collector.execute("SET archive_ext.garbage_retention = 0")

    def remove():
        found = collector.execute(COLLECT.format(dry_run=False)).fetchall()
        removed.extend(row.key for row in found if row.removed)

    archive(db, "orders_2024_02", drop_local="0")
    with Repeat(remove, pause=0) as collecting:
        for turn in range(8):
            rolled_back(db, "orders_2024_01")
            archive(db, "orders_2024_01", drop_local="0")
            db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
            for table in ["orders", "truth"]:
                db.execute(f"UPDATE {table} SET items = items + 1 WHERE id %% 3 = %s AND created_at < '2024-02-01'", [turn % 3])
        archive(db, "orders_2024_01", drop_local="0")
    assert collecting.steps > 3 and len(removed) > 8
    remove()
    assert_same_rows(db, "archive.orders_all", "truth")
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "archive.orders_all", "truth")
    assert kinds(db) == []


def tickets(db, rows=600):
    db.execute("CREATE TABLE ticket (id int PRIMARY KEY, at timestamptz NOT NULL, note text)")
    db.execute("INSERT INTO ticket SELECT n, timestamptz '2024-01-01' + n * interval '1 hour', md5(n::text)"
               f" FROM generate_series(1, {rows}) n")
    db.execute("CREATE TABLE truth AS SELECT * FROM ticket")


BATCH = "SELECT * FROM archive_table_batch('ticket', '2030-01-01', batch_rows => 60)"
WHOLE = "id, at, note"


def test_p2_p4_batches_that_commit_while_garbage_is_collected_lose_nothing(db, files):
    """A batch that is done again finds the objects of the attempt that rolled back, and takes them up."""
    tickets(db)
    collector, removed = db.connect(), []
    collector.execute("SET archive_ext.garbage_retention = 0")

    def remove():
        found = collector.execute(COLLECT.format(dry_run=False)).fetchall()
        removed.extend(row.key for row in found if row.removed)

    db.execute(BATCH)
    with Repeat(remove, pause=0) as collecting:
        for _ in range(6):
            with pytest.raises(ZeroDivisionError), db.conn.transaction():
                db.execute(BATCH)
                raise ZeroDivisionError
            db.execute(BATCH)
        db.execute("SELECT compact_archive('ticket', min_objects => 2)")
        db.execute("SELECT restore_rows('ticket', 'id % 50 = 1')")
    assert collecting.steps > 1
    remove()
    assert_same_rows(db, "archive.ticket_all", "truth", WHOLE)
    assert kinds(db) == []
    db.execute("SELECT compact_archive('ticket', min_objects => 2)")
    collect(db)
    assert_same_rows(db, "archive.ticket_all", "truth", WHOLE)


def test_p2_objects_of_an_open_transaction_stay(db, store):
    """Nothing in the catalog names them, nor their job: only the lock of the run tells."""
    tickets(db, 120)
    create_orders(db.conn, months=1, rows=50)
    collector = db.connect(options="-c archive_ext.garbage_retention=0")
    with db.conn.transaction():
        db.execute(BATCH)
        archive(db, "orders_2024_01", drop_local="0")
        written = store.keys("public.")
        assert len(written) == 5
        found = collector.execute(COLLECT.format(dry_run=False)).fetchall()
        assert {(row.key, row.removed) for row in found} == {(key, False) for key in written}
        assert {row.detail for row in found} == {"another session works on it"}
        assert collector.execute("SELECT * FROM audit_storage('cold')").fetchall() == []
    assert store.keys("public.") == written
    assert_same_rows(db, "archive.ticket_all", "truth", WHOLE)
    assert db.value("SELECT count(*) FROM archive.orders") == 50
    assert collect(db) == [] and kinds(db) == []


def test_replaced_objects_go_when_no_snapshot_sees_them(db, files):
    tickets(db, 120)
    db.execute(BATCH)
    db.execute(BATCH)
    reader = db.connect()
    reader.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    before = reader.execute("SELECT count(*), sum(id) FROM archive.ticket").fetchone()
    small = [row.key for row in db.all("SELECT key FROM archive_ext.objects")]
    db.execute("SELECT compact_archive('ticket', min_objects => 2)")
    assert collect(db) == [] and set(small) < set(files.keys())
    assert reader.execute("SELECT count(*), sum(id) FROM archive.ticket").fetchone() == before
    reader.execute("COMMIT")
    time.sleep(1.1)
    assert sorted(row.key for row in collect(db) if row.removed) == sorted(small)
    assert db.value("SELECT count(*) FROM archive_ext.replaced_object") == 0
    assert_same_rows(db, "archive.ticket_all", "truth", WHOLE)


def test_p3_an_import_after_a_collection_is_whole(db, cluster, files):
    """The manifests of all batches stay, and objects of which rows were taken out last: nobody can tell whether that was committed."""
    tickets(db, 180)
    for _ in range(3):
        db.execute(BATCH)
    db.execute("SELECT compact_archive('ticket', min_objects => 2)")
    db.execute("SELECT restore_rows('ticket', 'id % 60 = 1')")
    replaced = db.value("SELECT count(*) FROM archive_ext.replaced_object")
    removed = [row for row in collect(db) if row.removed]
    left = db.value("SELECT count(*) FROM archive_ext.replaced_object")
    assert len(removed) > 0 and left == replaced - len(removed) > 0
    other = Database(cluster, f"{db.name}_copy")
    try:
        other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{files.path}')")
        actions = {row.action for row in other.all("SELECT * FROM import_archive('cold', dry_run => false)")}
        assert actions <= {"table", "import", "warning"}
        assert other.value("SELECT count(*) FROM archive.ticket") == 180, "rows that went back are imported, too: better than none"
        # The copy looks, and touches nothing.
        assert other.all("SELECT * FROM audit_storage('cold')") == []
        with pytest.raises(REFUSED, match="belongs to another cluster"):
            other.execute("SELECT * FROM collect_garbage('cold')")
    finally:
        other.drop()


def forgotten(db, table="orders"):
    """As after recovery to a time before the table was made: nothing in the catalog names its objects."""
    db.execute(f"DROP TABLE archive.{table}, {table} CASCADE")
    db.execute("DELETE FROM archive_ext.partition; DELETE FROM archive_ext.managed_table")


IMPORT = "SELECT * FROM import_archive('cold', dry_run => false)"


def test_p2_nothing_goes_that_an_open_transaction_has_imported(db, files):
    create_orders(db.conn, months=2, rows=200)
    expected = summary(db, "orders")
    for month in "12":
        archive(db, f"orders_2024_0{month}", drop_local="0")
    there = files.keys()
    forgotten(db)
    collector = db.connect(options="-c archive_ext.garbage_retention=0")
    with db.conn.transaction():
        assert [row.action for row in db.all(IMPORT)] == ["table", "import", "import"]
        found = collector.execute(COLLECT.format(dry_run=False)).fetchall()
        assert len(found) == 4 and {(row.removed, row.detail) for row in found} == {(False, "another session works on it")}
    assert files.keys() == there
    assert collect(db) == [] and kinds(db) == []
    assert summary(db, "archive.orders_all") == expected


def test_p12_an_import_looks_again_when_a_collection_is_over(db, files):
    """The listing is older than the locks: what went meanwhile is told, not imported."""
    create_orders(db.conn, months=2, rows=50)
    for month in "12":
        archive(db, f"orders_2024_0{month}", drop_local="0")
    forgotten(db)
    remover = db.connect()
    db.execute("SET archive_ext.lock_timeout = '30s'")
    with remover.transaction():
        remover.execute("SELECT pg_advisory_xact_lock(hashtextextended('archive_ext ' || %s, 0))",
                        ["public.orders/_manifests/orders_2024_01.v0.json"])
        importing = Call(db.all, IMPORT)
        waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND NOT granted)"
        wait_until(lambda: remover.execute(waits).fetchone()[0], 20, "the import to wait")
        for key in files.keys("orders_2024_01.v1.00000"):
            files.delete(key)
    done = {row.partition: row.action for row in importing.result()}
    assert done == {"public.orders": "table", "public.orders_2024_01": "incomplete", "public.orders_2024_02": "import"}
    assert db.value("SELECT count(*) FROM archive.orders_all") == 50


def test_p2_who_claims_a_storage_without_its_marker_removes_nothing_that_was_there(db, cluster, files):
    """A bucket that was copied without it, or somebody deleted it: the new catalog knows nothing of the objects."""
    create_orders(db.conn, months=1, rows=50)
    tickets(db, 120)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute(BATCH)
    there = files.keys("public.")
    files.delete("_archive_ext/owner.json")
    other = Database(cluster, f"{db.name}_next")
    try:
        other.execute("SET archive_ext.garbage_retention = 0")
        other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{files.path}')")
        other.execute("SET archive_ext.default_storage = 'cold'")
        create_orders(other.conn, months=2, rows=10, name="others")
        # It claims the storage, and its catalog forgets that again.
        rolled_back(other, "others_2024_01")
        assert {row.removed for row in collect(other)} == {False}
        archive(other, "others_2024_01", drop_local="0")
        why = {row.detail for row in collect(other) if row.key in there}
        assert len(why) == 1 and "import_archive brings it back" in why.pop()
        assert set(there) <= set(files.keys())
        other.execute(IMPORT)
        assert other.value("SELECT count(*) FROM archive.orders_all") == 50
        assert_same_rows(other, "archive.ticket", "(SELECT * FROM archive.ticket_all) t", WHOLE)
        assert other.value("SELECT count(*) FROM archive.ticket_all") == 60
    finally:
        other.drop()


def test_p2_objects_go_when_what_replaced_them_is_durable():
    """With synchronous_commit = off others see a commit before it is in the log on disk, and a crash takes it back."""
    cluster = Cluster("synchronous_commit=off", "wal_writer_delay=10s", "bgwriter_lru_maxpages=0", "autovacuum=off")
    try:
        db = Database(cluster, "shop")
        file_storage(db, cluster)
        db.execute("SET archive_ext.garbage_retention = 0")
        tickets(db, 120)
        db.execute(BATCH)
        db.execute(BATCH)
        db.execute("CHECKPOINT")
        writer = db.value("SELECT pid FROM pg_stat_activity WHERE backend_type = 'walwriter'")
        os.kill(writer, signal.SIGSTOP)
        db.execute("SELECT compact_archive('ticket', min_objects => 2)")
        time.sleep(1.1)  # times of garbage are in whole seconds
        assert len([row for row in collect(db) if row.removed]) == 2
        os.kill(writer, signal.SIGKILL)  # takes the server along
        crash = "was terminated by signal 9"
        wait_until(lambda: "database system is ready" in cluster.log().partition(crash)[2], 60, "recovery")
        db.reconnect()
        assert db.value("SELECT count(*) FROM archive.ticket") == 120
        assert_same_rows(db, "archive.ticket_all", "truth", WHOLE)
    finally:
        cluster.stop()


@pytest.mark.parametrize("then", ["batch", "compact", "restore"])
def test_p3_an_import_of_what_another_import_went_on_with_is_whole(db, cluster, files, then):
    """Rows went back, others were archived, all in the last transaction: an import keeps both, and so does the next one."""
    tickets(db, 180)
    db.execute(BATCH)
    db.execute(BATCH)
    with db.conn.transaction():
        db.execute("SELECT restore_rows('ticket', 'id <= 10')")
        db.execute("SELECT * FROM archive_table_batch('ticket', '2030-01-01', where_clause => 'id > 120')")
    rows = "SELECT id, note FROM archive.ticket ORDER BY id"
    copies = [Database(cluster, f"{db.name}_{name}") for name in ("second", "third")]
    try:
        for copy in copies:
            copy.execute("SET archive_ext.garbage_retention = 0")
            copy.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{files.path}')")
            copy.execute("SET archive_ext.default_storage = 'cold'")
        second, third = copies
        if then == "batch":
            # Batches go on with the row set where its types are the database's own.
            second = db
            forgotten(db, "ticket")
        second.execute(IMPORT)
        assert [row.id for row in second.all(rows)] == list(range(1, 181)), "better rows that went back than none"
        second.execute("SELECT adopt_storage('cold')")
        kept = second.all(rows)
        if then == "batch":
            second.execute("INSERT INTO ticket SELECT n, now(), 'new' FROM generate_series(1001, 1030) n")
            second.execute("SELECT * FROM archive_table_batch('ticket', '2030-01-01')")
            kept += [(n, "new") for n in range(1001, 1031)]
        elif then == "compact":
            assert second.row("SELECT * FROM compact_archive('ticket', min_objects => 2)").objects == 3
        else:
            # Of the last transaction nobody can tell either, so its rows are imported as well.
            assert second.value("SELECT restore_rows('ticket', 'id BETWEEN 70 AND 80')") == 11
        assert second.value("SELECT count(*) FROM archive_ext.partition WHERE row_set") == 1
        assert second.value("SELECT count(unsettled) FROM archive_ext.partition") == 0
        collect(second)
        third.execute(IMPORT)
        assert third.all(rows) == kept
    finally:
        for copy in copies:
            copy.drop()


def test_a_marker_that_changed_stops_the_collection(db, cluster, files):
    """Whatever the catalog says: the marker is read from the storage."""
    create_orders(db.conn, months=2, rows=50)
    archive(db, "orders_2024_01", drop_local="0")
    rolled_back(db, "orders_2024_02")
    there = files.keys()
    other = Database(cluster, f"{db.name}_thief")
    try:
        other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{files.path}')")
        other.execute("SELECT adopt_storage('cold')")
        for dry_run in [True, False]:
            with pytest.raises(REFUSED, match="belongs to another cluster"):
                collect(db, dry_run)
        assert files.keys() == there
    finally:
        other.drop()
    db.execute("SELECT adopt_storage('cold')")
    assert len(collect(db)) == 2


def test_what_the_store_refuses_is_told_and_the_rest_goes(db, files):
    create_orders(db.conn, months=2, rows=50)
    archive(db, "orders_2024_02", drop_local="0")
    rolled_back(db, "orders_2024_01")
    (key,) = files.keys("orders_2024_01.v1.00000")
    (manifest,) = files.keys("_manifests/orders_2024_01")
    stray = "public.orders/orders_2024_02.v9.00000.parquet"
    files.write(stray, b"x")
    directory = (files.path / key).parent
    directory.chmod(0o500)
    try:
        found = {row.key: row for row in collect(db)}
    finally:
        directory.chmod(0o700)
    assert found[key].removed is False and "could not delete file" in found[key].detail
    assert found[manifest].removed and found[stray].removed
    assert [row.key for row in collect(db) if row.removed] == [key]


def test_unfinished_uploads_and_temporary_files_go(db, cluster, s3, files):
    temporary = files.path / "public.orders" / ".tmp-0123"
    create_orders(db.conn, months=1, rows=10)
    archive(db, "orders_2024_01", drop_local="0")
    temporary.write_bytes(b"half")
    mine = files.path / "public.orders" / ".hidden"
    mine.write_bytes(b"mine")
    assert [(row.kind, row.key) for row in collect(db)] == [("upload", "public.orders/.tmp-0123")]
    assert not temporary.exists() and mine.exists()

    s3.create_storage(db.conn, "bucket")
    create_orders(db.conn, months=1, rows=10, name="others")
    archive(db, "others_2024_01", storage="bucket", drop_local="0")
    for key in ["public.others/others_2024_01.v2.00000.parquet", "public.others/film.mov"]:
        s3.client.create_multipart_upload(Bucket=s3.name, Key=f"arch/{key}")
    found = db.all("SELECT key, kind, removed FROM collect_garbage('bucket', '0', false)")
    assert [tuple(row) for row in found] == [("public.others/others_2024_01.v2.00000.parquet", "upload", True)]
    assert s3.open_uploads() == ["arch/public.others/film.mov"]


def test_p4_a_killed_run_is_found_and_cleared(tmp_path):
    """kill -9 of the backend while it uploads: a job without a session, guards, a temporary file."""
    cluster = Cluster()
    try:
        db = Database(cluster, "shop")
        files = file_storage(db, cluster)
        create_wide(db.conn, rows=20000)
        keep_truth(db, "orders_2024_01")
        for size in ["object_size", "row_group_size"]:
            db.execute(f"ALTER DATABASE shop SET archive_ext.{size} = '1MB'")
        db.execute("ALTER DATABASE shop SET archive_ext.garbage_retention = 0")
        victim = db.connect()
        pid = victim.info.backend_pid
        killer = Repeat(lambda: kill_when(lambda: len(files.keys(".parquet")) > 2, pid), pause=0)
        with killer, pytest.raises(psycopg.OperationalError):
            victim.execute("SELECT archive_partition('orders_2024_01', 'cold')")
        db.reconnect()
        db.execute("SET archive_ext.default_storage = 'cold'")
        left = files.keys("orders")
        assert len(left) > 2

        # While the job runs as the catalog says, its objects are not touched.
        found = {row.key: row for row in collect(db)}
        assert all(not row.removed for row in found.values() if row.kind == "object")
        lines = db.all("SELECT object, problem, repaired FROM check_consistency()")
        assert [line.problem for line in lines if line.object.startswith("job")] == [
            "it runs as the catalog says, and its session is gone"]
        assert not accepts_a_write(db, "orders_2024_01")
        assert {line.repaired for line in db.all("SELECT * FROM check_consistency(true)")} == {True}
        assert accepts_a_write(db, "orders_2024_01")
        assert db.all("SELECT * FROM check_consistency()") == []

        assert all(row.removed for row in collect(db))
        # Their table has nothing in the catalog, but no manifest either: there is nothing to import.
        assert files.keys("orders") == [] and files.keys(".tmp-") == []
        archive(db, "orders_2024_01", drop_local="0")
        assert_same_rows(db, "archive.orders_all", "truth", "id, created_at, note")
    finally:
        cluster.stop()


def kill_when(condition, pid):
    if condition() and Path(f"/proc/{pid}").exists():
        os.kill(pid, signal.SIGKILL)


def test_an_extension_that_is_created_again_takes_no_storage_for_its_own(db, cluster, files):
    create_orders(db.conn, months=3, rows=100)
    expected = summary(db, "orders")
    archive(db, "orders_2024_01", drop_local="0")
    archive(db, "orders_2024_02", drop_local="0")
    there = files.keys()
    db.execute("DROP EXTENSION archive_ext CASCADE")
    assert files.keys() == there
    db.execute("CREATE EXTENSION archive_ext")
    file_storage(db, cluster)
    with pytest.raises(psycopg.errors.DuplicateTable):
        archive(db, "orders_2024_03")
    create_orders(db.conn, months=1, rows=10, name="others")
    for refused in ["SELECT archive_partition('others_2024_01', 'cold')", "SELECT * FROM collect_garbage('cold', '14 days', false)"]:
        with pytest.raises(REFUSED, match="belongs to another catalog of this database") as error:
            db.execute(refused)
        assert "import_archive" in error.value.diag.message_hint
    # Who takes it over without importing still loses nothing.
    db.execute("SELECT adopt_storage('cold')")
    db.execute("SET archive_ext.garbage_retention = 0")
    assert {row.removed for row in collect(db)} == {False} and files.keys() == there
    assert {row.kind for row in db.all("SELECT * FROM audit_storage('cold')")} == {"orphaned"}
    # What is left of the old archive's relations is in the way, and empty.
    db.execute("DROP TABLE archive.orders CASCADE")
    done = db.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert [row.action for row in done] == ["import", "import"]
    assert collect(db) == [] and kinds(db) == []
    assert summary(db, "archive.orders_all") == expected


class Recovered:
    """A cluster restored from a base backup and archived WAL up to a restore point, in a directory like scripts/cluster's."""

    def __init__(self, primary, backup, wal, target):
        made = as_user(primary, "mktemp", "-d", "/var/tmp/archive_ext.XXXXXX")
        self.dir, self.user, self.pg_config = Path(made.strip()), primary.user, primary.pg_config
        self.dir.chmod(0o755)
        as_user(primary, "cp", "-a", backup, self.dir / "data")
        with (self.dir / "data/postgresql.auto.conf").open("a") as settings:
            settings.write(f"unix_socket_directories = '{self.dir}'\narchive_mode = off\n"
                           f"restore_command = 'cp {wal}/%f %p'\n"
                           f"recovery_target_name = '{target}'\nrecovery_target_action = 'promote'\n")
        as_user(primary, "touch", self.dir / "data/recovery.signal")
        as_user(self, self.program("pg_ctl"), "start", "--wait", "--silent", f"--pgdata={self.dir}/data", f"--log={self.dir}/log")
        wait_until(lambda: not self.connect().execute("SELECT pg_is_in_recovery()").fetchone()[0], 60, "the end of recovery")

    connect, log, program = Cluster.connect, Cluster.log, Cluster.program

    def stop(self):
        subprocess.run([SCRIPT, "stop", self.dir], check=True, timeout=120)


def as_user(cluster, *command):
    done = subprocess.run(["runuser", "-u", cluster.user, "--", *map(str, command)], capture_output=True, text=True,
                          timeout=240, cwd="/")
    assert done.returncode == 0, f"{command}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Copied(Database):
    """A database that is there already."""

    def __init__(self, cluster, name):
        self.cluster, self.name, self._sessions = cluster, name, []
        self.conn = self.connect(options="-c archive_ext.default_storage=cold")


def test_p1_p12_recovery_to_an_earlier_time(tmp_path):
    """Partitions archived after the target are in the table again, and their objects wait for the retention."""
    primary = Cluster("wal_level=replica", "max_wal_senders=4", "archive_mode=on",
                      "archive_command=test -d %p.none || cp %p /var/tmp/$(basename $(dirname $PWD)).wal/%f")
    wal, backup, recovered = Path(f"/var/tmp/{primary.dir.name}.wal"), primary.dir / "backup", None
    try:
        as_user(primary, "mkdir", wal)
        db = Database(primary, "shop")
        files = file_storage(db, primary)
        create_orders(db.conn, months=4, rows=200)
        expected = summary(db, "orders")
        archive(db, "orders_2024_01", drop_local="0")
        as_user(primary, primary.program("pg_basebackup"), "-h", primary.dir, "-U", "postgres", "-D", backup,
                "--checkpoint=fast", "--no-sync")
        archive(db, "orders_2024_02")
        db.execute("SELECT pg_create_restore_point('before')")
        archive(db, "orders_2024_03", drop_local="0")
        db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
        db.execute("UPDATE orders_2024_01 SET items = items + 1")
        archive(db, "orders_2024_01", drop_local="0")
        db.execute("SELECT pg_switch_wal()")
        wait_until(lambda: db.value("SELECT last_archived_wal >= pg_walfile_name(pg_current_wal_lsn() - 1) OR"
                                    " last_archived_time > now() - interval '1 s' FROM pg_stat_archiver"), 30, "the WAL to be archived")
        there = files.keys()
        db.conn.close()

        recovered = Recovered(primary, backup, wal, "before")
        now = Copied(recovered, "shop")
        now.execute("SET archive_ext.garbage_retention = 0")
        assert summary(now, "archive.orders_all") == expected
        assert now.value("SELECT count(*) FROM orders_2024_03") == 200
        told = {line.object: line for line in now.all("SELECT * FROM check_consistency(repair => true)")}
        assert "belongs to another cluster" in told["storage cold"].problem
        (first, third) = [f"public.orders/_manifests/orders_2024_{name}.json" for name in ["01.v2", "03.v1"]]
        assert set(told) == {"storage cold", first, third}
        assert "version 2, and the catalog version 1 (ARCHIVED)" in told[first].problem
        assert "does not know it to be archived" in told[third].problem
        assert not any(line.repaired for line in told.values())

        # Another timeline: the storage is not its own, until somebody says so.
        with pytest.raises(REFUSED, match="belongs to another cluster"):
            collect(now)
        now.execute("SELECT adopt_storage('cold')")
        assert now.all("SELECT * FROM check_consistency(true) WHERE object LIKE 'storage%'") == []
        now.execute("SET archive_ext.garbage_retention = '14 d'")
        kept = now.all("SELECT * FROM collect_garbage('cold', dry_run => false)")
        assert all("orders_2024_03" in row.key and not row.removed for row in kept), kept
        assert files.keys() == there
        assert summary(now, "archive.orders_all") == expected
        archive(now, "orders_2024_03", drop_local="0")
        assert summary(now, "archive.orders_all") == expected
        now.execute("SET archive_ext.garbage_retention = 0")
        assert {row.removed for row in collect(now)} == {True}
        assert now.all("SELECT * FROM check_consistency()") == []
        assert summary(now, "archive.orders_all") == expected
        now.conn.close()
    finally:
        if recovered:
            recovered.stop()
        as_user(primary, "rm", "-rf", wal)
        primary.stop()
