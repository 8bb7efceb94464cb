"""Names made to break SQL, paths and keys: each works all the way, or is refused before anything is written."""

import json
import os
import subprocess

import psycopg
import pytest
from psycopg import sql

from harness.cluster import Database

NAMES = {
    "single quote": "o'rders'); DROP TABLE canary; --",
    "double quote": 'or"ders"; DROP TABLE canary; --',
    "dollar": "$$ $1 $x$ orders",
    "backslash": "or\\ders\\'x\\",
    "newline": "or\nders\r\n\tx",
    "dots": "..",
    "traversal": "../../../../tmp/orders",
    "slashes": "/orders//x/",
    "leading dot": ".orders",
    "percent": "%2e%2e%2f %s %I %n",
    "spaces": "  orders  ",
    "emoji": "🗄️🔥 orders 👩‍👩‍👧",
    "unicode": "ÄÖÜ İı ﬁ ＯＲＤＥＲＳ é",
    "right to left": "\u202eorders\u202c",
    "keyword": "select",
    "case": "OrDeRs",
    "question mark": "orders?versionId=1#x&y=z;q",
    "glob": "orders*[a-z]{1,2}",
    "hive": "archive_year=2024",
    "hidden": "_manifests",
    "json": '{"a": [1, "b"]}',
    "63 bytes": "x" * 63,
    "63 bytes of two": "é" * 31 + "x",
    "tilde": "~root",
}


def quoted(*parts):
    return sql.SQL(".").join(map(sql.Identifier, parts))


def text(db, statement, *names):
    return sql.SQL(statement).format(*names).as_string(db.conn)


@pytest.fixture
def stored(db, cluster):
    db.place = cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{db.place}')")
    db.execute("SET archive_ext.default_storage = 'cold'; CREATE TABLE canary (n int)")
    return db


def cut(name, length):
    """A name that leaves room for what is made from it, cut between characters."""
    return name.encode()[:length].decode(errors="ignore")


def digest(db, relation):
    return db.row(sql.SQL("SELECT count(*), md5(string_agg(t::text, '|' ORDER BY t::text COLLATE \"C\")) FROM {} t").format(relation))


def stays_inside(db, before):
    """Nothing was written outside of the storage's directory, and nothing escaped from a statement."""
    assert db.exists("canary")
    assert set(os.listdir(db.place.parent)) - before <= {db.name}
    for directory, _, files in os.walk(db.place):
        for file in files:
            assert (db.place / directory / file).resolve().is_relative_to(db.place.resolve())


def imported(stored):
    """A session in an empty database of the same cluster, after import_archive."""
    copy = Database(stored.cluster, f"{stored.name}_import")
    copy.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{stored.place}')")
    lines = copy.all("SELECT * FROM import_archive('cold', dry_run => false)")
    assert lines and not [line for line in lines if line.action in ("failed", "conflict", "incomplete", "unreadable", "warning")], lines
    return copy


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
def test_hostile_names(stored, cluster, name):
    """As schema, table, partition, column, value of a key: archive, query, bring back, import; partitions and single rows."""
    before = set(os.listdir(stored.place.parent))
    db, schema, column = stored, name, name
    table, plain = cut(name, 50), cut(name, 40) + "2"
    part, other = cut(name, 40) + "p", cut(name, 40) + "q"
    db.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
    db.execute(sql.SQL("CREATE TABLE {} (id int NOT NULL, {} text NOT NULL, PRIMARY KEY (id, {})) PARTITION BY LIST ({})").format(
        quoted(schema, table), *[sql.Identifier(column)] * 3))
    for partition, value in ((part, name), (other, "plain")):
        db.execute(sql.SQL("CREATE TABLE {} PARTITION OF {} FOR VALUES IN ({})").format(
            quoted(schema, partition), quoted(schema, table), sql.Literal(value)))
    db.execute(sql.SQL("CREATE TABLE {} ({} text PRIMARY KEY, at date NOT NULL)").format(quoted(schema, plain), sql.Identifier(column)))
    # No parameters: psycopg would look for them in the names.
    db.execute(sql.SQL("INSERT INTO {} SELECT n, CASE n % 2 WHEN 0 THEN {} ELSE 'plain' END FROM generate_series(1, 40) n").format(
        quoted(schema, table), sql.Literal(name)))
    db.execute(sql.SQL("INSERT INTO {} SELECT {} || n, '2024-01-01' FROM generate_series(1, 40) n").format(
        quoted(schema, plain), sql.Literal(name)))
    whole, rows = digest(db, quoted(schema, table)), digest(db, quoted(schema, plain))

    db.execute("SELECT archive_partition(%s, drop_local => '0')", [quoted(schema, part).as_string(db.conn)])
    db.execute(sql.SQL("CALL archive_table({}, '2024-02-01', where_clause => {})").format(
        sql.Literal(quoted(schema, plain).as_string(db.conn)),
        sql.Literal(text(db, "{} <> {}", sql.Identifier(column), sql.Literal(name + "7")))))

    def check(where):
        assert digest(where, quoted("archive", table + "_all")) == whole
        assert digest(where, quoted("archive", plain + "_all")) == rows
        for relation, value, count in ((table, name, 20), (plain, name + "3", 1)):
            counted = sql.SQL("SELECT count(*) FROM {} WHERE {} = {}").format(
                quoted("archive", relation), sql.Identifier(column), sql.Literal(value))
            assert where.value(counted) == count

    check(db)
    record = db.value("SELECT get_archived_record(%s, %s)", [quoted(schema, plain).as_string(db.conn), name + "3"])
    assert record[column] == name + "3"
    copy = imported(db)
    try:
        assert digest(copy, quoted("archive", table)) == digest(db, quoted("archive", table))
        assert digest(copy, quoted("archive", plain)) == digest(db, quoted("archive", plain))
        copy.execute("SELECT adopt_storage('cold')")
        copy.execute("SELECT reattach_partition(%s)", [quoted(schema, part).as_string(db.conn)])
        assert copy.value(sql.SQL("SELECT count(*) FROM {}").format(quoted(schema, table))) == 20
    finally:
        copy.drop()
    db.execute("SELECT adopt_storage('cold')")
    db.execute("SELECT reattach_partition(%s)", [quoted(schema, part).as_string(db.conn)])
    db.execute("SELECT restore_rows(%s, 'true')", [quoted(schema, plain).as_string(db.conn)])
    assert digest(db, quoted(schema, table)) == whole
    assert digest(db, quoted(schema, plain)) == rows
    stays_inside(db, before)


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "a//b", "./x", "a\nb", "%2e%2e/x", "a'b; DROP TABLE canary", ".tmp-x", "x" * 260])
def test_hostile_prefixes(stored, s3, prefix):
    """Refused, or what they say and nothing else."""
    location = sql.Literal(f"s3://{s3.name}/{prefix}")
    create = sql.SQL("CREATE SERVER odd FOREIGN DATA WRAPPER archive_fdw OPTIONS (location {}, region 'eu-west-1', endpoint {})")
    try:
        stored.execute(create.format(location, sql.Literal(s3.server.endpoint)))
    except psycopg.errors.InvalidParameterValue:
        return
    stored.execute("CREATE USER MAPPING FOR CURRENT_USER SERVER odd OPTIONS (access_key_id 'a', secret_access_key 'b')")
    stored.execute("CREATE TABLE part (at date) PARTITION BY RANGE (at); CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    stored.execute("SELECT archive_partition('part_1', 'odd')")
    assert s3.keys() and all(key.startswith(prefix + "/") for key in s3.keys())
    assert stored.exists("canary")


@pytest.fixture
def archived(stored):
    """One archived partition in the directory `place`, and where its files are."""
    stored.execute("""CREATE TABLE part (at date NOT NULL, note text) PARTITION BY RANGE (at);
        CREATE TABLE part_1 PARTITION OF part FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        INSERT INTO part SELECT '2024-05-05', 'note ' || n FROM generate_series(1, 100) n""")
    stored.execute("SELECT archive_partition('part_1', drop_local => '0')")
    stored.data = next(stored.place.glob("**/*.parquet"))
    stored.manifest = next(stored.place.glob("public.part/_manifests/*.json"))
    return stored


@pytest.mark.parametrize("key", ["../../../../etc/passwd", "/etc/passwd", "public.part/../../x", "public.part/..%2f..%2fx\0", "a\\..\\b"])
def test_a_forged_manifest_leads_nowhere(archived, key):
    """Keys in it that leave the storage are refused when it is read."""
    manifest = json.loads(archived.manifest.read_text())
    manifest["objects"][0]["key"] = key
    archived.manifest.chmod(0o600)
    archived.manifest.write_text(json.dumps(manifest))
    copy = Database(archived.cluster, f"{archived.name}_import")
    try:
        copy.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{archived.place}')")
        lines = copy.all("SELECT * FROM import_archive('cold')")
        assert [line.action for line in lines] == ["unreadable"], lines
    finally:
        copy.drop()
    with pytest.raises(psycopg.errors.DataCorrupted):
        archived.execute("SELECT reattach_partition('part_1')")


@pytest.mark.parametrize("what", ["the object", "a directory above it"])
def test_links_inside_a_storage_are_not_followed(archived, cluster, what):
    outside = cluster.dir / "outside"
    outside.mkdir(exist_ok=True)
    target = archived.data if what == "the object" else archived.data.parent
    moved = outside / f"{archived.name}-{target.name}"
    target.rename(moved)
    target.symlink_to(moved)
    subprocess.run(["chown", "-R", "-h", cluster.user, outside, archived.place], check=True)
    with pytest.raises(psycopg.Error) as refused:
        archived.value("SELECT count(note) FROM archive.part")
    assert "symbolic link" in f"{refused.value} {refused.value.diag.message_detail}"
    # Nor is anything written through one.
    with pytest.raises(psycopg.Error):
        archived.execute("SELECT reattach_partition('part_1')")
    assert sorted(p.name for p in outside.iterdir() if p.name.startswith(archived.name)) == [moved.name]


def test_forged_rows_are_noticed_before_they_come_back(archived):
    """A query does not hash the object (docs/security.md); what changes tables compares rows."""
    archived.execute("""CREATE TABLE other (at date NOT NULL, note text) PARTITION BY RANGE (at);
        CREATE TABLE other_1 PARTITION OF other FOR VALUES FROM ('2024-01-01') TO ('2025-01-01');
        INSERT INTO other SELECT '2024-05-05', 'nota ' || n FROM generate_series(1, 100) n""")
    archived.execute("SELECT archive_partition('other_1', drop_local => '0')")
    honest, forged = archived.data.read_bytes(), next(archived.place.glob("public.other/**/*.parquet")).read_bytes()
    assert len(honest) == len(forged) and honest != forged, "the test wants objects of one size"
    archived.data.chmod(0o600)
    archived.data.write_bytes(forged)
    for query in ["SELECT reattach_partition('part_1')", "SELECT reattach_partition('part_1', writable => true)"]:
        with pytest.raises(psycopg.errors.DataCorrupted):
            archived.execute(query)
    archived.data.write_bytes(honest[:-1])
    for query in ["SELECT count(note) FROM archive.part", "SELECT reattach_partition('part_1')"]:
        with pytest.raises(psycopg.errors.DataCorrupted):
            archived.execute(query)
    archived.data.write_bytes(honest)
    assert archived.value("SELECT count(note) FROM archive.part") == 100
