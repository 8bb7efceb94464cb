"""expire_after for rows that were archived one by one: each object ends by itself, announced, in every version and every copy, never under a
hold, with a certificate; and the bucket alone tells afterwards what is left (P2, P3, P12)."""

import itertools
from datetime import timedelta

import psycopg
import pytest

from harness.cluster import Database
from harness.s3 import Bucket

_numbers = itertools.count(1)


@pytest.fixture(params=["localstack", "moto"])
def bucket(request):
    return Bucket(request.getfixturevalue(request.param), f"rows-{next(_numbers)}").keep_versions()


@pytest.fixture
def audit(db, bucket):
    """600 hours of rows, of which 500 are archived: 100 in each of five objects."""
    bucket.create_storage(db.conn)
    create_audit(db)
    db.execute("SELECT set_archive_policy('audit', expire_after => '7 years', storage => 'cold')")
    db.bucket = bucket
    return db


def create_audit(db):
    db.execute("""
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
        INSERT INTO audit SELECT n, '2024-01-20Z'::timestamptz + n * interval '1 hour', 'note ' || n FROM generate_series(1, 600) n""")
    db.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 500', batch_rows => 100)")
    assert db.value("SELECT count(*) FROM archive_ext.objects") == 5


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")


def age(db, ordinals, years=8):
    """As if these objects had been archived then."""
    db.execute("UPDATE archive_ext.object SET archived_at = now() - make_interval(years => %s) WHERE ordinal = ANY (%s)", [years, ordinals])


def grace_over(db):
    db.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")


def keys(db):
    return [row[0] for row in db.all("SELECT key FROM archive_ext.object ORDER BY ordinal")]


def versions(bucket, some):
    page = bucket.client.list_object_versions(Bucket=bucket.name)
    assert not page["IsTruncated"]
    return [v["Key"] for kind in ("Versions", "DeleteMarkers") for v in page.get(kind, []) if v["Key"].removeprefix("arch/") in some]


def unfinished(db):
    return db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'cancelled')")


def ids(db, relation="archive.audit_all"):
    return [row[0] for row in db.all(f"SELECT id FROM {relation} ORDER BY id")]


def explained(db):
    return db.row("SELECT next_step, due, reason, freed_by FROM explain_lifecycle('audit') WHERE partition = 'public.audit_rows'")


def imported(db, location, **options):
    """What another database finds in a storage: ids, and what was said."""
    other = Database(db.cluster, f"{db.name}_other")
    try:
        if isinstance(location, Bucket):
            location.create_storage(other.conn)
        else:
            other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{location}')")
        lines = other.all("SELECT * FROM import_archive('cold', verify => true, dry_run => false)")
        assert {line.action for line in lines} <= {"table", "import", "warning"}, lines
        return ids(other, "archive.audit"), lines, other.all("SELECT key, archived_at FROM archive_ext.object ORDER BY ordinal")
    finally:
        other.drop()


def test_p2_objects_that_expire_are_announced_then_deleted_in_every_version(audit):
    first, second, *rest = keys(audit)
    for key in (first, second):
        audit.bucket.write(f"arch/{key}", audit.bucket.read(f"arch/{key}"))
    assert len(versions(audit.bucket, [first, second])) == 4
    lifecycle(audit)
    assert audit.value("SELECT count(*) FROM archive_ext.expiring") == 0
    planned = audit.row("SELECT * FROM plan_archive('audit') WHERE action = 'expire'")
    assert planned.reason == "expire_after 7 years counts from the time each object was archived" and planned.note.startswith("it is announced first")
    assert planned.starts > audit.value("SELECT now() + interval '7 years'")
    age(audit, [0, 1])
    lifecycle(audit)
    (announced,) = audit.all("SELECT partition_name, rows, held_for, local_copy, delete_after - announced_at AS grace FROM archive_ext.expiring")
    assert (announced.partition_name, announced.rows, announced.held_for, announced.local_copy, announced.grace.days) == ("audit_rows", 200, None, None, 7)
    planned = audit.row("SELECT partitions, rows, objects, archived_bytes, note FROM plan_archive('audit') WHERE action = 'expire'")
    assert (planned.partitions, planned.rows, planned.objects) == ("public.audit_rows", 200, 2)
    assert planned.archived_bytes == audit.value("SELECT sum(bytes) FROM archive_ext.object WHERE ordinal < 2") and planned.note.startswith("announced")
    assert explained(audit).next_step == "expire" and "objects of it have expired" in explained(audit).reason
    # What expires meanwhile was not announced.
    age(audit, [2])
    audit.execute("UPDATE archive_ext.object SET archived_at = archived_at + interval '1 hour' WHERE ordinal = 2")
    lifecycle(audit)
    assert len(ids(audit)) == 600 and len(versions(audit.bucket, [first, second])) == 4

    sums = dict(audit.all("SELECT key, sha256 FROM archive_ext.object WHERE ordinal < 2"))
    grace_over(audit)
    lifecycle(audit)
    assert not unfinished(audit)
    assert versions(audit.bucket, [first, second]) == []
    assert len(versions(audit.bucket, rest)) == 3
    assert ids(audit) == list(range(201, 601))
    (certificate,) = audit.all("SELECT * FROM archive_ext.deletions")
    assert (certificate.partition_name, certificate.rows, certificate.manifests, certificate.kept) == ("public.audit_rows", 200, [], [])
    assert {o["key"]: o["sha256"] for o in certificate.objects} == sums and certificate.digest["rows"] == 200
    assert certificate.deleted_versions == 4 and certificate.deleted_at >= certificate.withdrawn_at >= certificate.announced_at
    events = [row[0] for row in audit.all("SELECT event FROM archive_ext.events WHERE partition_name = 'public.audit_rows' ORDER BY at")]
    assert events[-4:] == ["expiring", "expired", "deleted", "expiring"]
    assert audit.row("SELECT rows, archived_bytes FROM archive_ext.partition WHERE row_set") == audit.row(
        "SELECT sum(rows), sum(bytes) FROM archive_ext.object")
    assert [row.result for row in audit.all("SELECT * FROM verify_archive('audit')")] == ["equal"]
    assert audit.all("SELECT * FROM audit_storage('cold')") == []
    assert audit.all("SELECT * FROM check_consistency()") == []
    assert audit.value("SELECT count(*) FROM archive_ext.replaced_object") == 0
    # The next announcement is about the third.
    assert audit.value("SELECT rows FROM archive_ext.expiring") == 100
    # More is archived, and the storage alone tells all of it.
    audit.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 550')")
    found, lines, _ = imported(audit, audit.bucket)
    assert found == list(range(201, 551)) and "warning" not in {line.action for line in lines}


def test_p2_nothing_else_expires(audit):
    """Not without expire_after, nor by removal_time or a rehearsal's clock."""
    age(audit, [0, 1])
    audit.execute("UPDATE archive_ext.partition SET removal_time = now() - interval '1 year', archived_at = now() - interval '20 years'")
    audit.execute("SELECT set_archive_policy('audit', clear => '{expire_after}', verify_after => '1 year')")
    lifecycle(audit)
    age(audit, [0, 1], 0)
    audit.execute("SELECT set_archive_policy('audit', expire_after => '7 years')")
    with audit.connect() as session:
        for year in (2040, 2041):
            session.execute(f"SET archive_ext.now = '{year}-01-01'")
            session.execute("CALL run_lifecycle()")
    assert audit.value("SELECT count(*) FROM archive_ext.expiring") == 0
    assert len(versions(audit.bucket, keys(audit))) == 5 and len(ids(audit)) == 600


def test_p2_a_hold_or_another_policy_keeps_what_has_expired(audit):
    age(audit, [0])
    audit.execute("SELECT legal_hold('audit', reason => 'case 1')")
    lifecycle(audit)
    grace_over(audit)
    assert "under a legal hold: case 1" in explained(audit).reason
    lifecycle(audit)
    assert len(versions(audit.bucket, keys(audit))) == 5
    assert [row.held_for for row in audit.all("SELECT held_for FROM archive_ext.expiring")] == ["case 1"]
    audit.execute("SELECT set_archive_policy('audit', expire_after => '10 years')")
    audit.execute("SELECT legal_hold('audit', false)")
    lifecycle(audit)
    assert audit.value("SELECT count(*) FROM archive_ext.expiring") == 0
    audit.execute("SELECT set_archive_policy('audit', expire_after => '7 years')")
    lifecycle(audit)
    assert audit.value("SELECT count(*) FROM archive_ext.expiring WHERE delete_after > now() + interval '6 days'") == 1
    assert len(versions(audit.bucket, keys(audit))) == 5
    # What was announced comes back: nothing is left of it.
    audit.execute("SELECT restore_rows('audit', 'id <= 100')")
    lifecycle(audit)
    assert audit.value("SELECT count(*) FROM archive_ext.expiring") == 0
    assert len(ids(audit)) == 600


def test_p2_a_hold_that_comes_after_the_objects_left(audit):
    age(audit, [0])
    first = keys(audit)[:1]
    lifecycle(audit)
    grace_over(audit)
    with audit.connect() as session:
        assert session.execute("SELECT archive_ext.schedule_jobs('audit')").fetchone()[0] == 1
        job = session.execute("SELECT archive_ext.next_job('audit')").fetchone()[0]
        step = lambda: tuple(session.execute("SELECT * FROM archive_ext.lifecycle_step(%s)", [job]).fetchone())  # noqa: E731
        assert step() == (True, "withdrawn")
        assert len(ids(audit)) == 500
        # It may have been rolled back, for all the storage knows; the objects are there.
        found, lines, _ = imported(audit, audit.bucket)
        assert found == list(range(1, 501)) and "warning" in {line.action for line in lines}
        audit.execute("SELECT legal_hold('audit', reason => 'late')")
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is under a legal hold"):
            step()
        assert len(versions(audit.bucket, first)) == 1
        audit.execute("SELECT legal_hold('audit', false)")
        assert step() == (True, "settled")
        assert imported(audit, audit.bucket)[0] == list(range(101, 501))
        assert step() == (False, "done")
    assert versions(audit.bucket, first) == []
    assert imported(audit, audit.bucket)[0] == list(range(101, 501))


def test_p12_older_snapshots_read_what_has_left(audit):
    age(audit, [0, 1])
    lifecycle(audit)
    grace_over(audit)
    first, second, *_ = keys(audit)
    with audit.connect() as old:
        old.autocommit = False
        old.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert old.execute("SELECT count(*) FROM audit").fetchone()[0] == 100
        lifecycle(audit)
        assert [row.status for row in unfinished(audit)] == ["pending"]
        assert len(versions(audit.bucket, [first, second])) == 2
        assert old.execute("SELECT count(*), sum(length(note)) > 0 FROM archive.audit_all").fetchone()[0] == 600
        assert ids(audit) == list(range(201, 601))
        old.rollback()
    audit.execute("UPDATE archive_ext.archival_job SET next_attempt_at = NULL WHERE status = 'pending'")
    lifecycle(audit)
    assert not unfinished(audit) and versions(audit.bucket, [first, second]) == []


def test_p2_a_deletion_that_was_cancelled_is_begun_again_by_retry_alone(audit):
    age(audit, [0])
    lifecycle(audit)
    grace_over(audit)
    audit.execute("SELECT archive_ext.schedule_jobs('audit')")
    job = audit.value("SELECT job_id FROM archive_ext.jobs WHERE operation = 'expire'")
    audit.execute("SELECT cancel_job(%s)", [job])
    lifecycle(audit)
    assert len(ids(audit)) == 600 and "is cancelled" in explained(audit).reason
    audit.execute("SELECT retry_job(%s)", [job])
    lifecycle(audit)
    assert len(ids(audit)) == 500 and not unfinished(audit)


def test_p2_what_is_written_anew_is_as_old_as_its_youngest_rows(audit):
    """Merged, shrunk and corrected, here and after an import; and what they were made of goes with them."""
    for ordinal, years in ((0, 9), (1, 8), (3, 6)):
        age(audit, [ordinal], years)
    stamps = dict(audit.all("SELECT ordinal, archived_at FROM archive_ext.object"))
    former = keys(audit)
    audit.execute("SELECT erase_rows('audit', 'id IN (50, 150)')")
    audit.execute("SELECT update_archived('audit', 'id = 160', '{\"note\": \"''x''\"}')")
    found = dict(audit.all("SELECT archived_at, count(*) FROM archive_ext.object GROUP BY 1"))
    # What has 160 in it is two objects now, of the same age.
    assert found[stamps[0]] == 1 and found[stamps[1]] == 2 and found[stamps[3]] == 1
    # Merged with younger ones, but not what has expired.
    audit.execute("CALL compact_archive_steps('audit')")
    found = audit.all("SELECT archived_at, rows FROM archive_ext.object ORDER BY archived_at, rows")
    assert [row.archived_at for row in found[:3]] == sorted([stamps[0], stamps[1], stamps[1]])
    assert sum(row.rows for row in found[3:]) == 300 and {row.archived_at for row in found[3:]} == {stamps[2], stamps[4]}
    _, _, elsewhere = imported(audit, audit.bucket)
    here = dict(audit.all("SELECT key, archived_at FROM archive_ext.object"))
    # The third was never written anew: it counts from its manifest.
    assert {key: at for key, at in elsewhere if at != here[key]}.keys() <= {former[2]}
    assert all(here[key] - at < timedelta(minutes=1) for key, at in elsewhere)
    lifecycle(audit)
    assert audit.value("SELECT rows FROM archive_ext.expiring") == 198
    grace_over(audit)
    lifecycle(audit)
    assert not [job for job in unfinished(audit) if job.operation == "expire"]
    assert ids(audit) == list(range(201, 601))
    # The first forms of these objects as well.
    assert versions(audit.bucket, former[:2]) == [] and len(versions(audit.bucket, former[3:])) == 2
    assert audit.all("SELECT * FROM audit_storage('cold')") == []
    assert imported(audit, audit.bucket)[0] == list(range(201, 501))


def test_p2_copies_go_too_and_the_second_storage_alone_is_enough(audit, db):
    far = db.cluster.storage / f"{db.name}_far"
    audit.execute(f"CREATE SERVER far FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{far}')")
    audit.execute("SELECT set_archive_policy('audit', copy_storage => 'far')")
    lifecycle(audit)
    first, *rest = keys(audit)
    assert (far / first).exists()
    age(audit, [0])
    lifecycle(audit)
    grace_over(audit)
    lifecycle(audit)
    assert not unfinished(audit)
    assert not (far / first).exists() and all((far / key).exists() for key in rest)
    assert audit.value("SELECT deleted_versions FROM archive_ext.deletions") == 2
    assert imported(audit, far)[0] == list(range(101, 501))


def test_counts_do_not_miss_what_expired(audit):
    audit.execute("SELECT * FROM reconcile_counts('audit')")
    age(audit, [0, 1, 2])
    lifecycle(audit)
    grace_over(audit)
    lifecycle(audit)
    assert len(ids(audit)) == 300
    audit.execute("SELECT * FROM reconcile_counts('audit')")
    assert audit.value("SELECT sum(missing) FROM archive_ext.month_counts") == 0
    assert audit.all("SELECT alert FROM archive_ext.alerts") == []


def test_p2_rows_that_left_something_in_the_table_do_not_expire(db, bucket):
    bucket.create_storage(db.conn)
    db.execute("CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text, archived boolean NOT NULL DEFAULT false)")
    db.execute("INSERT INTO audit SELECT n, '2024-01-20Z', 'note' FROM generate_series(1, 20) n")
    db.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 10', mode => 'mark', mark_column => 'archived')")
    notices = []
    db.conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    db.execute("SELECT set_archive_policy('audit', expire_after => '7 years', storage => 'cold')")
    assert any("purge_marked" in notice for notice in notices), notices
    age(db, [0])
    lifecycle(db)
    assert db.value("SELECT count(*) FROM archive_ext.expiring") == 0
    assert len(versions(bucket, keys(db))) == 1


def test_p2_stores_without_versions(db, cluster):
    path = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{path}')")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold'; SET archive_ext.default_storage = 'cold'")
    create_audit(db)
    db.execute("SELECT set_archive_policy('audit', expire_after => '7 years', storage => 'cold')")
    age(db, [0, 1, 2, 3, 4])
    gone = keys(db)
    lifecycle(db)
    grace_over(db)
    lifecycle(db)
    assert not unfinished(db) and not [key for key in gone if (path / key).exists()]
    assert ids(db) == list(range(501, 601))
    # All that was archived has gone; the next batch begins where the chain ends.
    assert imported(db, path)[0] == []
    db.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 510')")
    assert imported(db, path)[0] == list(range(501, 511))
