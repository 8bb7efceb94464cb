"""A partition that came back and is archived again uploads only the objects whose rows changed."""

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import (accepts_a_write, archive, assert_same_rows, create_orders, create_wide, keep_truth,
                            summary)
from harness.proxy import Stall
from harness.sessions import Call


@pytest.fixture
def objects(db, cluster):
    """Small objects in a directory; call it for the keys of a version of orders_2024_01."""
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw"
               f" OPTIONS (location 'file://{cluster.storage / db.name}')")
    for setting in ["default_storage = 'cold'", "object_size = '1MB'", "row_group_size = '1MB'"]:
        db.execute(f"SET archive_ext.{setting}")

    def keys(version):
        return [row.key for row in db.all(
            "SELECT key FROM archive_ext.objects WHERE version = %s ORDER BY ordinal", [version])]

    def files():
        return {str(path.relative_to(cluster.storage / db.name))
                for path in (cluster.storage / db.name).rglob("*.parquet")}

    keys.files = files
    keys.directory = cluster.storage / db.name
    return keys


def test_p6_no_deadlock_with_who_locks_the_table_before_its_partitions(db, s3, fault_proxy):
    """A partition that came back unchanged, but for a grant: its new manifest describes the table above, too."""
    s3.create_storage(db.conn, endpoint=fault_proxy.endpoint)
    create_orders(db.conn, months=2, rows=100)
    archive(db, "orders_2024_01")
    db.execute("SELECT reattach_partition('orders_2024_01')")
    db.execute("GRANT SELECT ON orders_2024_01 TO PUBLIC")
    stalled = fault_proxy.on("GET", r"\.parquet", fault=Stall(), times=1)
    other, pid = db.connect(), db.conn.info.backend_pid
    other.autocommit = False
    call = Call(archive, db, "orders_2024_01")
    assert stalled.hit.wait(60)
    other.execute("LOCK TABLE ONLY orders IN ACCESS EXCLUSIVE MODE")
    fault_proxy.heal()
    waits = "SELECT count(*) > 0 FROM pg_locks WHERE pid = %s AND NOT granted AND relation = 'orders'::regclass"
    watch = db.connect()
    wait_until(lambda: watch.execute(waits, [pid]).fetchone()[0], 30, "the archiver to look at the table")
    other.execute("LOCK TABLE ONLY orders_2024_01 IN ACCESS EXCLUSIVE MODE")
    other.commit()
    assert call.result(60).rows == 100
    assert db.value("SELECT version FROM archive_ext.partition WHERE partition_name = 'orders_2024_01'") == 2


WIDE = "id, created_at, note"


def wide(db, rows=40000):
    create_wide(db.conn, rows=rows)
    keep_truth(db, "orders_2024_01")


def change(db, statement):
    """The same to the table and to the truth."""
    for table in ["orders_2024_01", "truth"]:
        db.execute(statement.format(table=table))


@pytest.mark.parametrize("drop_local", ["0", "1 day"], ids=["from objects", "from the local copy"])
def test_only_objects_with_changed_rows_are_written_again(db, objects, drop_local):
    wide(db)
    archive(db, "orders_2024_01", drop_local=drop_local)
    first = objects(1)
    assert len(first) > 6
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    change(db, "UPDATE {table} SET note = repeat('changed', 150) WHERE id = 20000")
    change(db, "DELETE FROM {table} WHERE id = 1")
    archive(db, "orders_2024_01", drop_local=drop_local)
    second = objects(2)
    kept = [key for key in second if ".v1." in key]
    # The first and the one with row 20000, and the last if its new version found no room on its page.
    assert len(first) - 3 <= len(kept) <= len(first) - 2
    assert set(second) - set(kept) == objects.files() - set(first)
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)
    # Again, from a mixture of versions.
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    assert_same_rows(db, "orders_2024_01", "truth", WIDE)
    change(db, "DELETE FROM {table} WHERE id BETWEEN 10000 AND 11000")
    db.execute("CALL archive_partition_steps(ARRAY['orders_2024_01'::regclass], drop_local => '0')")
    third = objects(3)
    assert any(".v1." in key for key in third) and any(".v3." in key for key in third)
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "orders_2024_01", "truth", WIDE)


def test_rows_that_moved_are_written_again(db, objects):
    wide(db)
    archive(db, "orders_2024_01", drop_local="0")
    before = objects(1)
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    change(db, "UPDATE {table} SET note = 'short' WHERE id = 20000")
    db.execute("VACUUM FULL orders_2024_01")
    archive(db, "orders_2024_01", drop_local="0")
    assert all(".v2." in key for key in objects(2))
    assert len(objects(2)) == len(before)
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)


def test_free_space_that_is_filled_changes_the_object_around_it(db, objects):
    """The place of a row is only a hint: what counts is the digest of what lies there."""
    wide(db)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    change(db, "DELETE FROM {table} WHERE id BETWEEN 15000 AND 15009")
    db.execute("VACUUM orders_2024_01")
    change(db, "INSERT INTO {table} SELECT 90000 + n, '2024-01-20', repeat('x', 1300) FROM generate_series(1, 10) n")
    assert db.value("SELECT min(ctid) < (SELECT max(ctid) FROM orders_2024_01 WHERE id < 40001) FROM orders_2024_01"
                    " WHERE id > 90000"), "no row went into the free space"
    archive(db, "orders_2024_01", drop_local="0")
    assert any(".v1." in key for key in objects(2))
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)


def test_a_damaged_object_is_replaced_and_the_others_are_kept(db, objects):
    wide(db)
    archive(db, "orders_2024_01", drop_local="1 day")
    damaged = objects(1)[2]
    db.execute("SELECT reattach_partition('orders_2024_01')")
    with open(objects.directory / damaged, "r+b") as file:
        file.seek(1000)
        file.write(b"damage")
    archive(db, "orders_2024_01", drop_local="0")
    second = objects(2)
    assert damaged not in second and sum(".v2." in key for key in second) == 1
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)


def test_deep_verification_after_a_change(db, objects):
    wide(db, rows=4000)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    change(db, "UPDATE {table} SET note = note || '!' WHERE id % 1000 = 1")
    archive(db, "orders_2024_01", verify="deep", drop_local="0")
    assert_same_rows(db, "archive.orders_all", "truth", WIDE)


CALLS = ["SELECT archive_partition('orders_2024_01', drop_local => '0')",
         "CALL archive_partition_steps(ARRAY['orders_2024_01']::regclass[], drop_local => '0')"]


@pytest.mark.parametrize("again", CALLS, ids=["function", "steps"])
def test_an_unchanged_partition_uploads_nothing(db, objects, again):
    """Nor does it write anything a second time: objects and manifests are as old as they were."""
    create_orders(db.conn, months=1, rows=3000)
    before = summary(db, "orders")
    archive(db, "orders_2024_01", drop_local="0")

    def written():
        return {path: path.stat().st_mtime_ns for path in objects.directory.rglob("*") if path.suffix in (".parquet", ".json")}

    files = written()
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute(again)
    assert written() == files and len(files) > 1
    assert db.value("SELECT version FROM archive_ext.partition") == 1
    assert summary(db, "archive.orders_all") == before


@pytest.mark.parametrize("again", CALLS, ids=["function", "steps"])
def test_p2_a_row_in_the_place_of_another_is_a_change(db, objects, again):
    """Counts and the values of each column may agree; the digest of whole rows does not."""
    create_orders(db.conn, months=1, rows=300)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    first, second = [row[0] for row in db.all("SELECT id FROM orders ORDER BY id LIMIT 2")]
    db.execute("UPDATE orders SET note = CASE id WHEN %s THEN 'two' ELSE 'one' END WHERE id IN (%s, %s)", [first, first, second])
    db.execute(again)
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute("UPDATE orders SET note = CASE note WHEN 'one' THEN 'two' ELSE 'one' END WHERE id IN (%s, %s)", [first, second])
    db.execute(again)
    assert db.value("SELECT version FROM archive_ext.partition") == 3
    assert db.all("SELECT note FROM archive.orders WHERE id IN (%s, %s) ORDER BY id", [first, second]) == [("one",), ("two",)]


def test_restored_to_be_corrected(db, objects):
    """Reattach -> WARM (writable) -> update -> archive again, by itself when keep_for is over."""
    create_orders(db.conn, months=1, rows=500)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT set_archive_policy('orders', archive_after => '1 year', warm_granularity => 'year', drop_after => '0')")
    db.execute("SELECT reattach_partition('orders_2024_01', keep_for => '7 days', writable => true)")

    def state():
        return tuple(db.row("SELECT status::text, label, tier, writable FROM archive_ext.partitions"))

    assert state() == ("WARM", "WARM_2024", "warm", True)
    assert not db.value("SELECT EXISTS (SELECT FROM pg_trigger WHERE tgrelid = 'orders_2024_01'::regclass"
                        " AND tgname LIKE 'archive_ext_guard%%')")
    db.execute("UPDATE orders SET note = 'corrected' WHERE id = 7")
    next_step, freed_by = db.row("SELECT next_step, freed_by FROM explain_lifecycle('orders')")
    assert (next_step, freed_by) == ("ARCHIVED", "time")
    db.execute("CALL run_lifecycle('orders')")
    assert state()[0] == "WARM", "it was taken away before its time"

    # A run that fails leaves it as it was: writable.
    db.execute("ALTER SERVER cold OPTIONS (SET location 'file:///nowhere/at/all')")
    with pytest.raises(psycopg.Error):
        archive(db, "orders_2024_01")
    db.execute(f"ALTER SERVER cold OPTIONS (SET location 'file://{objects.directory}')")
    wait_until(lambda: accepts_a_write(db, "orders_2024_01"), 10, "the partition to be writable again")
    assert state() == ("WARM", "WARM_2024", "warm", True)

    # Closed by hand and opened again, as any WARM partition.
    db.execute("SELECT set_lifecycle('orders_2024_01', 'WARM')")
    assert state() == ("WARM", "WARM_2024", "warm", False)
    assert not accepts_a_write(db, "orders_2024_01")

    db.execute("SET archive_ext.now = '2099-01-01'")
    db.execute("CALL run_lifecycle('orders')")
    assert state()[:2] == ("ARCHIVED", "ARCHIVE_202401")
    assert db.value("SELECT note FROM archive.orders WHERE id = 7") == "corrected"
def test_deep_verification_after_a_change_that_was_taken_back(db, objects):
    """The rows are those of the last version, in another order: digests say equal, `deep` compares row by row."""
    create_orders(db.conn, months=1, rows=3000)
    keep_truth(db, "orders_2024_01")
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT reattach_partition('orders_2024_01', writable => true)")
    db.execute("UPDATE orders_2024_01 SET items = items + 1 WHERE id % 7 = 0")
    db.execute("UPDATE orders_2024_01 SET items = items - 1 WHERE id % 7 = 0")
    archive(db, "orders_2024_01", verify="deep", drop_local="0")
    assert_same_rows(db, "archive.orders_all", "truth")
    assert all(".v2." in key for key in objects(2))


