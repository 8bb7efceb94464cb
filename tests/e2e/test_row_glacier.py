"""glacier_after for rows that were archived one by one: objects move by the time of their rows, each after its second verification, and what a
query needs of them is refused whole until it was restored (P2, P12)."""

import itertools

import psycopg
import pytest

from harness.s3 import Bucket

_numbers = itertools.count(1)
FROZEN = psycopg.errors.ObjectNotInPrerequisiteState


@pytest.fixture
def bucket(moto):
    moto.restores_take(1)
    return Bucket(moto, f"row-glacier-{next(_numbers)}")


@pytest.fixture
def audit(db, bucket):
    """A row an hour: 300 of 2021, 200 of last month, in five objects."""
    bucket.create_storage(db.conn)
    db.execute("""
        CREATE TABLE audit (id bigint PRIMARY KEY, at timestamptz NOT NULL, note text);
        INSERT INTO audit SELECT n, CASE WHEN n <= 300 THEN '2021-03-01Z'::timestamptz ELSE date_trunc('day', now()) - interval '40 days' END
                                    + n * interval '1 hour', 'note ' || n FROM generate_series(1, 600) n""")
    db.execute("CALL archive_table('audit', NULL, where_clause => 'id <= 500', batch_rows => 100)")
    db.bucket = bucket
    return db


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert not db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'pending')")


def policy(db, **settings):
    given = "".join(f", {name} => {value!r}" for name, value in settings.items())
    db.execute(f"SELECT set_archive_policy('audit', storage => 'cold'{given})")


def verified(db):
    db.execute("UPDATE archive_ext.object SET verified_at = now()")


def freeze(db, glacier_class="DEEP_ARCHIVE"):
    verified(db)
    policy(db, glacier_after="1 year", glacier_class=glacier_class)
    lifecycle(db)
    assert classes(db) == [glacier_class] * 3 + [None] * 2


def classes(db):
    """By the catalog, which has what the store has."""
    known = db.all("SELECT key, storage_class FROM archive_ext.object ORDER BY ordinal")
    stored = {o["Key"].removeprefix("arch/"): o["StorageClass"] for o in db.bucket.client.list_objects_v2(Bucket=db.bucket.name)["Contents"]}
    assert [stored[key] for key, _ in known] == [glacier or "STANDARD" for _, glacier in known]
    assert {stored[key] for key in stored if key.endswith(".json")} == {"STANDARD"}
    return [row.storage_class for row in known]


def refused(db, query):
    before = db.bucket.server.reads()
    with pytest.raises(FROZEN) as error:
        db.all(query)
    assert db.bucket.server.reads() == before, "nothing is read"
    return error.value.diag


def poll(db, times=3):
    for _ in range(times):
        db.all("SELECT * FROM poll_restores()")


def test_objects_move_by_the_time_of_their_rows_after_their_verification(audit):
    before = {key: audit.bucket.read(key) for key in audit.bucket.data_keys()}
    notices = []
    audit.conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    policy(audit, glacier_after="1 year", glacier_class="GLACIER_IR", verify_after="3 days")
    assert notices == []
    lifecycle(audit)
    assert classes(audit) == [None] * 5, "none was verified again"
    audit.execute("UPDATE archive_ext.object SET uploaded_at = now() - interval '4 days' WHERE ordinal IN (0, 1, 3)")
    lifecycle(audit)
    # Verified, and scheduled anew.
    lifecycle(audit)
    assert classes(audit) == ["GLACIER_IR", "GLACIER_IR", None, None, None]
    coming = audit.row("SELECT partitions, reason, starts FROM plan_archive('audit') WHERE action IN ('verify', 'glacier')")
    assert coming.partitions == "public.audit_rows"
    verified(audit)
    coming = audit.row("SELECT partitions, reason, saved_per_month FROM plan_archive('audit') WHERE action = 'glacier'")
    assert coming.reason == "glacier_after 1 year counts from the last time in each object; those move to GLACIER_IR"
    explained = audit.row("SELECT next_step, reason FROM explain_lifecycle('audit') WHERE partition = 'public.audit_rows'")
    assert explained.next_step == "glacier" and "GLACIER_IR" in explained.reason
    lifecycle(audit)
    assert classes(audit) == ["GLACIER_IR"] * 3 + [None] * 2
    later = audit.row("SELECT starts > now() + interval '10 months' FROM plan_archive('audit') WHERE action = 'glacier'")
    assert later[0]
    assert {key: audit.bucket.read(key) for key in audit.bucket.data_keys()} == before
    assert audit.value("SELECT count(*) FROM archive.audit_all WHERE note <> ''") == 600
    assert [row.details["objects"] for row in audit.all("SELECT details FROM archive_ext.events WHERE event = 'moved_to_glacier' ORDER BY at")] == [2, 1]
    costs = {row.tier: (row.storage_class, row.bytes) for row in audit.all("SELECT * FROM archive_cost('audit') WHERE tier <> 'local'")}
    size = lambda which: audit.value(f"SELECT sum(bytes) FROM archive_ext.object WHERE ordinal {which}")  # noqa: E731
    assert costs == {"glacier": ("GLACIER_IR", size("< 3")), "cold": ("STANDARD", size(">= 3"))}
    # What has no time counts from its archiving.
    audit.execute("UPDATE archive_ext.object SET ranges = '[]' WHERE ordinal = 3")
    lifecycle(audit)
    assert classes(audit)[3] is None
    audit.execute("UPDATE archive_ext.object SET archived_at = now() - interval '2 years' WHERE ordinal = 3")
    lifecycle(audit)
    assert classes(audit) == ["GLACIER_IR"] * 4 + [None]


def test_p12_what_needs_frozen_objects_is_refused_whole(audit):
    freeze(audit)
    diag = refused(audit, "SELECT sum(length(note)) FROM archive.audit_all")
    assert diag.message_primary == "archived partition public.audit_rows is in a frozen storage class"
    assert diag.message_detail.startswith("public.audit_rows: 3 objects, ") and "DEEP_ARCHIVE" in diag.message_detail
    assert "request_restore('public.audit_rows'" in diag.message_hint
    # What needs none of them reads on.
    assert audit.value("SELECT count(*) FROM archive.audit_all WHERE at > '2022-01-01' AND note <> ''") == 300
    assert audit.value("SELECT get_archived_record('audit', 450) ->> 'note'") == "note 450"
    assert refused(audit, "SELECT get_archived_record('audit', 50)").message_hint
    assert audit.value("SELECT archive_tier_of('audit', 50)") == "glacier"
    for call in (
        "SELECT restore_rows('audit', 'id = 50')",
        "SELECT erase_rows('audit', 'id = 50')",
        "SELECT update_archived('audit', 'id = 50', '{\"note\": \"''x''\"}')",
    ):
        assert "request_restore" in refused(audit, call).message_hint, call
    audit.execute("SELECT erase_rows('audit', 'id = 450 AND at > ''2022-01-01''')")
    audit.execute("SELECT restore_rows('audit', 'id = 451 AND at > ''2022-01-01''')")
    # What is frozen stays as it is; the others are merged.
    audit.execute("CALL compact_archive_steps('audit')")
    assert audit.value("SELECT count(*) FROM archive_ext.object WHERE storage_class = 'DEEP_ARCHIVE' AND rows = 100") == 3
    assert audit.value("SELECT count(*) FROM archive.audit_all WHERE at > '2022-01-01' AND note <> ''") == 299
    (found,) = audit.all("SELECT * FROM verify_archive('audit')")
    assert found.result.startswith("equal; 3 of them not read") and found.verified_at
    audit.execute("UPDATE archive_ext.object SET verified_at = NULL, uploaded_at = now() - interval '1 year'")
    lifecycle(audit)
    assert audit.value("SELECT count(*) FROM archive_ext.object WHERE verified_at IS NULL") == 3
    assert audit.all("SELECT * FROM audit_storage('cold')") == [] and audit.all("SELECT * FROM check_consistency()") == []


@pytest.mark.parametrize("name", ["audit", "audit_rows"])
def test_a_restore_of_a_row_set(audit, name):
    audit.execute("CREATE TABLE truth AS SELECT * FROM archive.audit_all")
    freeze(audit, "GLACIER")
    (asked,) = audit.all(f"SELECT * FROM request_restore('{name}', days => 3)")
    assert (asked.partition, asked.status, asked.objects) == ("public.audit_rows", "pending", 3)
    assert asked.bytes == audit.value("SELECT sum(bytes) FROM archive_ext.object WHERE ordinal < 3")
    poll(audit)
    assert audit.row("SELECT status, objects FROM archive_ext.restores") == ("ready", 3)
    assert audit.all("SELECT * FROM archive.audit_all EXCEPT SELECT * FROM truth") == []
    assert audit.value("SELECT count(*) FROM archive.audit_all WHERE note <> ''") == 600
    # What was frozen is changed like anything else, and is not frozen then.
    assert audit.value("SELECT restore_rows('audit', 'id <= 50')") == 50
    assert classes(audit).count("GLACIER") == 2
    # The time is over.
    audit.execute("UPDATE archive_ext.restore_request SET ready_until = now() - interval '1 s'")
    audit.execute("UPDATE archive_ext.object SET restored_until = now() - interval '1 s' WHERE restored_until IS NOT NULL")
    assert [row.status for row in audit.all("SELECT * FROM poll_restores()")] == ["expired"]
    assert refused(audit, "SELECT sum(length(note)) FROM archive.audit_all").message_detail.startswith("public.audit_rows: 2 objects")


def test_a_restore_of_some_times_of_a_row_set(audit):
    """Only what may have such rows is asked for, and paid for."""
    freeze(audit, "GLACIER")
    ready = lambda: audit.value("SELECT count(*) FROM archive_ext.object WHERE restored_until > now()")  # noqa: E731
    (asked,) = audit.all("SELECT * FROM request_restore('audit', '2021-03-02', '2021-03-03')")
    assert (asked.partition, asked.objects) == ("public.audit_rows", 1)
    poll(audit)
    assert audit.row("SELECT status, objects FROM archive_ext.restores") == ("ready", 1) and ready() == 1
    march = "SELECT count(*) FROM archive.audit WHERE note <> '' AND at >= '2021-03-02' AND at < "
    assert audit.value(march + "'2021-03-03'") == 24
    refused(audit, march + "'2021-03-10'")
    # More of it is the same request.
    again = audit.row("SELECT * FROM request_restore('audit_rows', from_time => '2021-03-03', to_time => '2021-03-08')")
    assert (again.request, again.objects, again.status) == (asked.request, 1, "pending")
    poll(audit)
    assert audit.value("SELECT status = 'ready' AND times = '{[2021-03-02,2021-03-08)}' FROM archive_ext.restores") and ready() == 2
    assert audit.value(march + "'2021-03-08'") == 6 * 24
    # Nothing of these times is frozen; what is between is not asked for.
    audit.execute("SELECT request_restore('audit', now() - interval '100 days', now())")
    poll(audit)
    assert ready() == 2


def test_p2_an_object_that_is_not_what_was_archived_does_not_move(audit):
    keys = [f"arch/{row[0]}" for row in audit.all("SELECT key FROM archive_ext.object ORDER BY ordinal")]
    body = audit.bucket.read(keys[0])
    audit.bucket.write(keys[0], body[:-10] + b"0123456789")
    verified(audit)
    policy(audit, glacier_after="1 year", max_attempts="1")
    with audit.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert classes(audit) == [None] * 5
    assert "is not what was archived" in audit.value("SELECT error FROM archive_ext.jobs WHERE status = 'failed'")
    # The others go on without it.
    audit.execute("SELECT retry_job(job_id) FROM archive_ext.jobs WHERE status = 'failed'")
    lifecycle(audit)
    assert classes(audit) == [None, "GLACIER", "GLACIER", None, None]
    audit.bucket.write(keys[0], body)
    assert [row.result for row in audit.all("SELECT * FROM verify_archive('audit', level => 'content')")][0].startswith("equal")
    lifecycle(audit)
    assert classes(audit) == ["GLACIER"] * 3 + [None] * 2


def test_frozen_objects_expire_and_are_copied_before(audit, cluster):
    """What is deleted soon does not move; what is frozen is deleted like anything else."""
    policy(audit, expire_after="2 years", glacier_after="1 year")
    audit.execute("UPDATE archive_ext.object SET archived_at = now() - interval '3 years', verified_at = now() WHERE ordinal = 0")
    lifecycle(audit)
    assert classes(audit) == [None] * 5
    verified(audit)
    lifecycle(audit)
    assert classes(audit) == [None, "GLACIER", "GLACIER", None, None]
    audit.execute("UPDATE archive_ext.object SET archived_at = now() - interval '3 years' WHERE ordinal = 1")
    audit.execute("UPDATE archive_ext.expiry SET archived_until = now()")
    audit.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")
    lifecycle(audit)
    assert classes(audit) == ["GLACIER", None, None]
    assert audit.value("SELECT rows FROM archive_ext.deletions") == 200
    # Copies of what can be read are made all the same.
    far = cluster.storage / f"{audit.name}_far"
    audit.execute(f"CREATE SERVER far FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{far}')")
    policy(audit, copy_storage="far")
    lifecycle(audit)
    assert audit.row("SELECT objects, copied FROM archive_ext.copies") == (3, 2)


def test_the_bucket_alone_tells_the_classes(audit):
    freeze(audit)
    audit.execute("DROP EXTENSION archive_ext CASCADE; DROP SCHEMA archive CASCADE; DROP TABLE audit; CREATE EXTENSION archive_ext")
    audit.bucket.create_storage(audit.conn)
    audit.execute("SELECT adopt_storage('cold')")
    audit.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert classes(audit) == ["DEEP_ARCHIVE"] * 3 + [None] * 2
    refused(audit, "SELECT sum(length(note)) FROM archive.audit")
    audit.execute("SELECT request_restore('audit')")
    poll(audit)
    assert audit.value("SELECT count(*) FROM archive.audit WHERE note <> ''") == 500
