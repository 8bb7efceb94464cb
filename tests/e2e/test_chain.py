"""Manifests are a chain: what is altered, taken away or moved is told by verify_chain, and by scripts/verify-chain without us (P2, P3)."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest

from harness.cluster import wait_until
from harness.orders import accepts_a_write, archive, create_orders
from harness.s3 import Bucket

SCRIPT = Path(__file__).resolve().parents[2] / "scripts/verify-chain"


def as_server(path):
    """The server's user must be able to read, write and remove what root makes."""
    if os.geteuid() == 0:
        shutil.chown(path, "postgres", "postgres")


def files(db, root):
    os.makedirs(root, exist_ok=True)
    as_server(root)
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    db.execute("SET archive_ext.default_storage = 'cold'; SET archive_ext.garbage_retention = 0")
    return root


@pytest.fixture
def root(db, cluster):
    return files(db, cluster.storage / db.name)


@pytest.fixture
def orders(db, root):
    create_orders(db.conn, months=6, rows=40)
    for month in range(1, 4):
        archive(db, f"orders_2024_0{month}", drop_local="0")
    return db


@pytest.fixture
def signing_key(db, cluster):
    """A key as openssl makes it, which PostgreSQL can read and nobody else."""
    path = cluster.storage / f"{db.name}.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", path], check=True)
    path.chmod(0o600)
    as_server(path)
    return path


def manifests(root):
    return sorted(root.glob("*/_manifests/*.json"))


def removals(root):
    return sorted((root / "_archive_ext/removed").glob("*.json"))


def problems(db, storage="cold"):
    return [(row.key, row.problem) for row in db.all("SELECT * FROM verify_chain(%s)", [storage])]


def heads(db):
    return db.value("SELECT heads FROM archive_ext.chains")


def script(root, *arguments):
    """Lines of findings of the stand-alone script, and its last lines."""
    done = subprocess.run([sys.executable, SCRIPT, str(root), *arguments], capture_output=True, text=True, check=False)
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    summary = next(number for number, line in enumerate(lines) if " links, " in line)
    assert done.returncode == (1 if summary else 0), done.stdout
    return [tuple(line.split(": ")[:2]) for line in lines[:summary]], lines[summary:]


def with_heads(db, root, *arguments):
    return script(root, *(f"--head={head}" for head in heads(db)), *arguments)[0]


def key_of(path, root):
    return path.relative_to(root).as_posix()


def test_each_manifest_names_the_one_before(orders, root):
    first, second, third = (json.loads(path.read_text()) for path in manifests(root))
    assert first["previous"] == []
    assert [link["key"] for link in second["previous"]] == ["public.orders/_manifests/orders_2024_01.v1.json"]
    assert [link["key"] for link in third["previous"]] == ["public.orders/_manifests/orders_2024_02.v1.json"]
    notices = []
    orders.conn.add_notice_handler(lambda diag: notices.append(diag.message_primary))
    assert problems(orders) == []
    (notice,) = notices
    assert "3 links of the chain are stored, 3 are on record, 0 of these deleted by right" in notice
    (chain,) = orders.all("SELECT storage, location, links, removed, signed, heads FROM archive_ext.chains")
    assert chain[:5] == ("cold", f"file://{root}", 3, 0, 0)
    (head,) = chain.heads
    assert head.startswith("public.orders/_manifests/orders_2024_03.v1.json=") and notice.endswith(head.replace("=", " "))
    assert script(root) == ([], ["3 links, 0 deleted by right, 0 findings", f"last: {head}"])
    assert with_heads(orders, root) == []


def test_p2_what_is_altered_taken_away_or_moved_is_told(orders, root):
    first, second, third = manifests(root)
    texts = [path.read_bytes() for path in (first, second, third)]
    altered = lambda *paths: [(key_of(path, root), "altered") for path in paths]  # noqa: E731
    missing = lambda *paths: [(key_of(path, root), "missing") for path in paths]  # noqa: E731
    # One digit.
    first.write_bytes(texts[0].replace(b'"rows": 40', b'"rows": 41', 1))
    assert problems(orders) == altered(first) and script(root)[0] == altered(first)
    first.unlink()
    assert problems(orders) == missing(first) and script(root)[0] == missing(first)
    first.write_bytes(texts[1])
    second.write_bytes(texts[0])
    assert problems(orders) == altered(first, second) and script(root)[0] != []
    first.write_bytes(texts[0])
    second.write_bytes(texts[1])
    # The last one only a record tells.
    third.unlink()
    assert problems(orders) == missing(third) and script(root)[0] == []
    assert with_heads(orders, root) == missing(third)
    third.write_bytes(texts[2])
    assert problems(orders) == []
    # Somebody who writes the whole chain anew is told by the record, too.
    document = json.loads(texts[2])
    document["previous"], document["rows"] = [], 1
    third.write_text(json.dumps(document))
    assert problems(orders) == altered(third) and with_heads(orders, root) == altered(third)


def test_what_is_deleted_by_right_says_so_first(orders, root, cluster):
    # A second version, and the first one is garbage.
    orders.execute("SELECT reattach_partition('orders_2024_02', writable => true)")
    orders.execute("UPDATE orders SET items = items + 1 WHERE created_at >= '2024-02-01' AND created_at < '2024-03-01'")
    archive(orders, "orders_2024_02", drop_local="0")
    removed = orders.all("SELECT key FROM collect_garbage('cold', '0', false) WHERE removed AND kind = 'manifest'")
    assert [row.key for row in removed] == ["public.orders/_manifests/orders_2024_02.v1.json"]
    # One that expires.
    orders.execute("SELECT set_archive_policy('orders', expire_after => '7 years', storage => 'cold')")
    orders.execute("UPDATE archive_ext.partition SET archived_at = now() - interval '8 years' WHERE partition_name = 'orders_2024_01'")
    lifecycle(orders)
    orders.execute("UPDATE archive_ext.expiry SET delete_after = now() - interval '1 second'")
    lifecycle(orders)
    assert orders.value("SELECT deleted_at FROM archive_ext.deletions")
    # Rows that are erased at once.
    orders.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)")
    lifecycle(orders)
    assert orders.value("SELECT deleted_at FROM archive_ext.erasures")
    said = [json.loads(path.read_text()) for path in removals(root)]
    assert [one["reason"].split(",")[0] for one in said] == ["garbage", "expired", "erased"]
    assert [link["key"].rsplit("/", 1)[1] for one in said[:2] for link in one["removed"]] == ["orders_2024_02.v1.json", "orders_2024_01.v1.json"]
    assert {path.name for path in manifests(root)} == {"orders_2024_02.v3.json", "orders_2024_03.v2.json"}
    assert problems(orders) == [] and script(root)[0] == [] and with_heads(orders, root) == []
    (chain,) = orders.all("SELECT links, removed FROM archive_ext.chains")
    assert chain == (9, 4), "six manifests and three removals"
    assert orders.all("SELECT * FROM audit_storage('cold')") == []
    # They stay, and are missed themselves.
    assert orders.all("SELECT * FROM collect_garbage('cold', '0', false)") == []
    removals(root)[0].unlink()
    found = [(key, problem) for key, problem in problems(orders)]
    assert [problem for _, problem in found] == ["missing"] and "_archive_ext/removed/" in found[0][0]
    assert {problem for _, problem in script(root)[0]} == {"missing"} and len(script(root)[0]) == 2


def lifecycle(db):
    with db.connect() as session:
        session.execute("CALL run_lifecycle()")
    assert not db.all("SELECT operation, status, error FROM archive_ext.jobs WHERE status NOT IN ('completed', 'pending')")


def test_a_removal_of_somebody_else_excuses_nothing(orders, root):
    victim = manifests(root)[0]
    link = {"key": key_of(victim, root), "sha256": sha256(victim)}
    forged = {"format": 1, "created_at": "2026-01-01T00:00:00Z", "reason": "expired", "removed": [{**link, "previous": []}],
              "previous": [dict(zip(("key", "sha256"), heads(orders)[0].rsplit("=", 1)))]}
    path = root / "_archive_ext/removed/20260101T000000Z.abababababababab.json"
    path.parent.mkdir(exist_ok=True)
    as_server(path.parent)
    path.write_text(json.dumps(forged))
    path.chmod(0o644)
    victim.unlink()
    (found,) = orders.all("SELECT * FROM verify_chain('cold')")
    assert (found.key, found.problem) == (link["key"], "unconfirmed") and path.name in found.detail
    assert with_heads(orders, root) == [(link["key"], "unconfirmed")]
    # Nor does a collection take it for one of ours: the manifest is needed.
    orders.execute("SELECT collect_garbage('cold', '0', false)")
    assert problems(orders) == [(link["key"], "unconfirmed")]


def sha256(path):
    return subprocess.run(["sha256sum", path], capture_output=True, text=True, check=True).stdout.split()[0]


def test_runs_that_were_rolled_back_and_collected_leave_no_gap(orders, root):
    with pytest.raises(ZeroDivisionError), orders.conn.transaction():
        archive(orders, "orders_2024_04", drop_local="0")
        raise ZeroDivisionError
    wait_until(lambda: accepts_a_write(orders, "orders_2024_04"), 10, "the partition to be writable again")
    assert len(manifests(root)) == 4 and problems(orders) == []
    archive(orders, "orders_2024_05", drop_local="0")
    orders.all("SELECT * FROM audit_storage('cold')")
    orders.all("SELECT * FROM collect_garbage('cold', '0', false)")
    orders.all("SELECT * FROM collect_garbage('cold', '0', false)")
    # Nobody can know that nothing names it.
    (removal,) = removals(root)
    assert json.loads(removal.read_text())["removed"][0]["key"].endswith("orders_2024_04.v1.json")
    assert len(manifests(root)) == 4 and problems(orders) == [] and script(root)[0] == []


def test_transactions_that_write_at_once_wait_for_nobody(orders, root):
    with orders.connect() as one, orders.connect() as other:
        one.execute("BEGIN")
        one.execute("SELECT archive_partition('orders_2024_04', 'cold', drop_local => '0')")
        # Another table: the partition's own is locked.
        other.execute("SET lock_timeout = '2s'; SET archive_ext.default_storage = 'cold'")
        other.execute("CREATE TABLE tickets (id bigint PRIMARY KEY, at timestamptz NOT NULL)")
        other.execute("INSERT INTO tickets SELECT n, '2020-01-01' FROM generate_series(1, 50) n")
        other.execute("SELECT archive_table_batch('tickets', '2021-01-01')")
        one.execute("COMMIT")
    assert len(heads(orders)) == 2 and problems(orders) == []
    archive(orders, "orders_2024_05", drop_local="0")
    assert len(heads(orders)) == 1
    assert problems(orders) == [] and script(root)[0] == [] and with_heads(orders, root) == []
    # Rows that were archived one by one are of the chain.
    batch = next(path for path in manifests(root) if ".b" in path.name)
    batch.write_bytes(batch.read_bytes().replace(b'"rows": 50', b'"rows": 51', 1))
    assert problems(orders) == [(key_of(batch, root), "altered")]


def test_signed_manifests(db, root, signing_key):
    create_orders(db.conn, months=4, rows=40)
    archive(db, "orders_2024_01", drop_local="0")
    db.execute(f"ALTER SERVER cold OPTIONS (ADD signing_key 'file:{signing_key}')")
    (check,) = db.all("SELECT ok, detail FROM check_storage('cold') WHERE check_name = 'signing key'")
    public_key = check.detail.removeprefix("public key ")
    assert check.ok
    for month in (2, 3):
        archive(db, f"orders_2024_0{month}", drop_local="0")
    unsigned, signed, last = manifests(root)
    assert "signature" not in json.loads(unsigned.read_text())
    assert json.loads(signed.read_text())["signature"]["public_key"] == public_key
    assert problems(db) == [] and db.value("SELECT signed FROM archive_ext.chains") == 2
    assert script(root)[0] == []
    assert script(root, f"--public-key={public_key}")[0] == [(key_of(unsigned, root), "unsigned")]
    # Who can write to the bucket can write its end anew, but not sign it.
    document = json.loads(last.read_text())
    last.write_text(json.dumps({**document, "rows": 1}, indent=2))
    assert (key_of(last, root), "unsigned") in script(root, f"--public-key={public_key}")[0]
    assert problems(db) == [(key_of(last, root), "altered"), (key_of(last, root), "unsigned")]
    del document["signature"]
    last.write_text(json.dumps(document, indent=2))
    assert (key_of(last, root), "unsigned") in script(root, f"--public-key={public_key}")[0]
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="is not a public key"):
        db.execute("SELECT verify_chain('cold', '{nonsense}')")
    # Wanted is another's key.
    other = "A" * 43 + "="
    assert (key_of(signed, root), "unsigned") in [tuple(row[:2]) for row in db.all("SELECT * FROM verify_chain('cold', %s)", [[other]])]


def test_a_key_that_cannot_be_read_stops_the_run_before_anything_is_written(db, root, signing_key):
    create_orders(db.conn, months=2, rows=40)
    db.execute(f"ALTER SERVER cold OPTIONS (ADD signing_key 'file:{signing_key}')")
    signing_key.chmod(0o644)
    with pytest.raises(psycopg.errors.InvalidAuthorizationSpecification, match="has group or world access"):
        archive(db, "orders_2024_01", drop_local="0")
    signing_key.unlink()
    with pytest.raises(psycopg.errors.UndefinedFile, match="could not read key file"):
        archive(db, "orders_2024_01", drop_local="0")
    assert manifests(root) == [] and db.is_attached("orders_2024_01")
    (check,) = db.all("SELECT ok, detail FROM check_storage('cold') WHERE check_name = 'signing key'")
    assert not check.ok and "could not read key file" in check.detail
    db.execute("CREATE ROLE chain_keeper; GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO chain_keeper")
    try:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="signing_key"):
            db.execute("SET ROLE chain_keeper; CREATE SERVER other FOREIGN DATA WRAPPER archive_fdw"
                       " OPTIONS (location 's3://other', signing_key 'file:/etc/key.pem')")
        db.execute("SET ROLE chain_keeper")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            db.execute("SELECT verify_chain('cold')")
    finally:
        db.execute("RESET ROLE; DROP OWNED BY chain_keeper; DROP ROLE chain_keeper")


def test_p3_an_import_takes_the_chain_over(orders, root, other):
    orders.execute("SELECT erase_rows('orders', 'customer_id % 50 = 8', at_once => true)")
    lifecycle(orders)
    truth = orders.all("SELECT id, amount FROM archive.orders_all WHERE created_at < '2024-04-01' ORDER BY id")
    before = orders.row("SELECT links, removed, heads FROM archive_ext.chains")
    files(other, root)
    other.execute("SELECT import_archive('cold', true)")
    assert other.all("SELECT * FROM archive_ext.chains") == []
    other.execute("SELECT import_archive('cold', false)")
    assert other.all("SELECT id, amount FROM archive.orders_all ORDER BY id") == truth
    assert other.row("SELECT links, removed, heads FROM archive_ext.chains") == before
    assert problems(other) == []
    other.execute("SELECT adopt_storage('cold')")
    other.execute("SELECT reattach_partition('orders_2024_03', writable => true)")
    other.execute("UPDATE orders SET items = 99")
    archive(other, "orders_2024_03", drop_local="0")
    assert problems(other) == [] and script(root)[0] == []
    manifests(root)[0].unlink()
    assert [problem for _, problem in problems(other)] == ["missing"]


@pytest.fixture
def other(cluster, db):
    """Another database with the extension."""
    from harness.cluster import Database

    database = Database(cluster, f"{db.name}_other")
    yield database
    database.drop()


def test_copies_are_compared_with_the_chain_of_their_storage(db, other, localstack, s3s_fs):
    first, second = Bucket(localstack, "chain-first"), Bucket(s3s_fs, "chain-second")
    second.create_storage(db.conn, "far")
    first.create_storage(db.conn, "cold")
    create_orders(db.conn, months=3, rows=40)
    # The first is not copied, and the second names it.
    archive(db, "orders_2024_01", drop_local="0")
    db.execute("SELECT set_archive_policy('orders', storage => 'cold', copy_storage => 'far')")
    archive(db, "orders_2024_02", drop_local="0")
    assert problems(db) == [] and problems(db, "far") == []
    # All there is, when the first storage is lost: what these name is not missed.
    second.create_storage(other.conn, "far")
    lines = other.all("SELECT * FROM import_archive('far', false)")
    assert [line.detail for line in lines if line.partition == "chain of far"] == [
        "1 manifests that others name are not there, or were altered: that is not told again"]
    assert problems(other, "far") == []
    (key,) = second.manifest_keys()
    second.write(key, second.read(key).replace(b'"rows": 40', b'"rows": 41', 1))
    assert [problem for _, problem in problems(db, "far")] == ["altered"] and problems(db) == []
    assert [problem for _, problem in problems(other, "far")] == ["altered"]


def test_hostile_documents_stop_nobody(orders, root):
    for number, text in enumerate(['{"previous": [{"key": "a\\u0000", "sha256": "00"}]}', '{"previous": 5, "removed": true}', "[" * 20000, "{}",
                                   '{"previous": [], "signature": 7}']):
        path = root / f"public.orders/_manifests/hostile_{number}.v1.json"
        path.write_text(text)
        as_server(path)
        removal = root / f"_archive_ext/removed/hostile_{number}.json"
        removal.parent.mkdir(exist_ok=True)
        removal.write_text(text)
        as_server(removal)
    as_server(removal.parent)
    assert problems(orders) == [] and script(root)[0] == []
    assert len(script(root, "--public-key=" + "A" * 43 + "=")[0]) == 13
    orders.all("SELECT * FROM audit_storage('cold')")
    orders.all("SELECT * FROM collect_garbage('cold', '0', false)")
    orders.all("SELECT * FROM collect_garbage('cold', '0', false)")
    assert problems(orders) == [] and script(root)[0] == []


def test_the_chain_stays_with_a_storage_whose_objects_were_moved(orders, root, cluster):
    before = orders.row("SELECT links, heads FROM archive_ext.chains")
    there = cluster.storage / f"{orders.name}_moved"
    subprocess.run(["cp", "-a", root, there], check=True)
    orders.execute(f"ALTER SERVER cold OPTIONS (SET location 'file://{there}')")
    orders.execute("SELECT adopt_storage('cold')")
    assert orders.row("SELECT links, heads FROM archive_ext.chains") == before
    archive(orders, "orders_2024_04", drop_local="0")
    assert problems(orders) == [] and script(there)[0] == []
    # What an import found at a place is as good as what was written there.
    further = cluster.storage / f"{orders.name}_further"
    subprocess.run(["cp", "-a", there, further], check=True)
    orders.execute(f"ALTER SERVER cold OPTIONS (SET location 'file://{further}')")
    orders.execute("SELECT import_archive('cold', false)")
    orders.execute("SELECT adopt_storage('cold'); SELECT adopt_storage('cold')")
    (chain,) = orders.all("SELECT links, location FROM archive_ext.chains")
    assert chain == (4, f"file://{further}") and problems(orders) == []
