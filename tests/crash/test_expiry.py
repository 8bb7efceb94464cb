"""A server that dies while an archive that has expired is deleted: the partition is in the archive with all its objects, or it left it,
and the next run goes on (P2, P4)."""

import pytest

from harness.cluster import Database
from harness.failpoints import killed_at
from harness.orders import create_orders


@pytest.mark.parametrize("point", ["step_begins", "step_done", "step_begins@2", "step_done@2"])
def test_p2_p4_killed_while_an_archive_is_deleted(cold, cluster, point):
    create_orders(cold.conn, months=3, rows=50)
    for month in (1, 2):
        cold.execute(f"SELECT archive_partition('orders_2024_0{month}', drop_local => '0')")
    cold.execute("SELECT set_archive_policy('orders', expire_after => '7 years', storage => 'cold')")
    cold.execute("UPDATE archive_ext.partition SET archived_at = now() - interval '8 years' WHERE partition_name = 'orders_2024_01'")
    cold.execute("CALL run_lifecycle()")
    cold.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")
    files = lambda month: [file.name for file in (cluster.storage / cold.name).rglob(f"*orders_2024_0{month}*") if file.is_file()]
    assert len(files(1)) == 2
    killed_at(cold, point, "CALL run_lifecycle()")
    left = not cold.exists("archive.orders_2024_01")
    assert cold.value("SELECT count(*) FROM archive.orders_all") == (100 if left else 150)
    assert len(files(1)) == 2 or left
    assert cold.value("SELECT count(*) FROM archive_ext.deletions") == left
    # A job whose session is gone is tried again, half a minute later at first.
    cold.execute("CALL run_lifecycle()")
    cold.execute("UPDATE archive_ext.archival_job SET next_attempt_at = now() WHERE status = 'pending'")
    cold.execute("CALL run_lifecycle()")
    assert files(1) == [] and len(files(2)) == 2
    (certificate,) = cold.all("SELECT partition_name, deleted_at, jsonb_array_length(objects) AS objects FROM archive_ext.deletions")
    assert (certificate.partition_name, certificate.objects) == ("public.orders_2024_01", 1) and certificate.deleted_at
    assert cold.value("SELECT count(*) FROM archive.orders_all") == 100
    assert cold.all("SELECT * FROM verify_chain('cold')") == []
    assert cold.all("SELECT * FROM check_consistency()") == [] and cold.all("SELECT * FROM audit_storage('cold')") == []


@pytest.mark.parametrize("point", ["step_begins", "rewrite_locked", "batch_manifest_put", "rewrite_replaced", "step_done", "step_begins@2",
                                   "batch_manifest_put@2", "step_done@2", "step_begins@3", "step_done@3"])
def test_p2_p4_killed_while_objects_of_rows_are_deleted(cold, cluster, point):
    cold.execute("CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text)")
    cold.execute("INSERT INTO audit SELECT n, '2024-01-01Z', 'note ' || n FROM generate_series(1, 50) n")
    cold.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 40', batch_rows => 10)")
    cold.execute("SELECT set_archive_policy('audit', expire_after => '7 years', storage => 'cold')")
    cold.execute("UPDATE archive_ext.object SET archived_at = now() - interval '8 years' WHERE ordinal < 2")
    cold.execute("CALL run_lifecycle()")
    cold.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")
    files = lambda: len(list((cluster.storage / cold.name).rglob("*.parquet")))  # noqa: E731
    assert files() == 4
    killed_at(cold, point, "CALL run_lifecycle()")
    left = cold.value("SELECT count(*) FROM archive.audit") == 20
    assert [row[0] for row in cold.all("SELECT id FROM archive.audit_all ORDER BY id")] == list(range(21 if left else 1, 51))
    assert files() == 4 or left
    assert cold.value("SELECT count(*) FROM archive_ext.deletions") == left
    cold.execute("CALL run_lifecycle()")
    cold.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    cold.execute("CALL run_lifecycle()")
    assert files() == 2
    (certificate,) = cold.all("SELECT partition_name, rows, deleted_at, jsonb_array_length(objects) AS objects FROM archive_ext.deletions")
    assert (certificate.partition_name, certificate.rows, certificate.objects) == ("public.audit_rows", 20, 2) and certificate.deleted_at
    assert [row[0] for row in cold.all("SELECT id FROM archive.audit_all ORDER BY id")] == list(range(21, 51))
    # Manifests of attempts that were rolled back are nobody's, and an import is not misled by them.
    assert all("collect_garbage removes it" in str(row) for row in cold.all("SELECT * FROM check_consistency()"))
    assert {row.kind for row in cold.all("SELECT kind FROM audit_storage('cold')")} <= {"orphaned"}
    other = Database(cluster, f"{cold.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{cold.name}')")
    other.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert [row[0] for row in other.all("SELECT id FROM archive.audit ORDER BY id")] == list(range(21, 41))
    other.drop()
