"""One row by its key, wherever it is; and looking for a key that is not archived costs no request."""

import json
import re
import uuid

import psycopg
import pytest

from harness.cluster import Database
from harness.orders import create_orders


@pytest.fixture
def archive(db, cluster):
    db.conn.execute(f"""
        CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{db.name}');
        ALTER DATABASE {db.name} SET archive_ext.default_storage = 'cold';""")
    db.conn = db.connect()
    return db


def record(db, table, key, of_type=""):
    return db.value(f"SELECT get_archived_record('{table}', %s{of_type})", [key])


def tier(db, table, key, of_type=""):
    return db.value(f"SELECT archive_tier_of('{table}', %s{of_type})", [key])


def scans(plan):
    """The foreign scans of a plan in JSON."""
    found = [plan] if plan["Node Type"] == "Foreign Scan" else []
    return found + [scan for below in plan.get("Plans", []) for scan in scans(below)]


def explain(db, query, params=None, how="ANALYZE, "):
    plan = db.value(f"EXPLAIN ({how}FORMAT JSON) {query}", params)
    return scans(plan[0]["Plan"])


def requests(db, query, params=None):
    return sum(scan["Storage Read Requests"] for scan in explain(db, query, params))


FILES, ROWS = 1000, 20


@pytest.fixture
def random_keys(archive):
    """Makes objects of random keys, in the order in which they came: the ranges tell nothing."""
    def make(files):
        archive.execute("CREATE TABLE doc (id uuid PRIMARY KEY, n int NOT NULL UNIQUE, at date NOT NULL, note text)")
        archive.execute(f"INSERT INTO doc SELECT gen_random_uuid(), n, '2020-01-01', 'note ' || n"
                        f" FROM generate_series(1, {files * ROWS}) n")
        archive.keys = [row[0] for row in archive.all("SELECT id FROM doc ORDER BY n")]
        archive.execute(f"CALL archive_table('doc', '2021-01-01', order_key => '{{n}}', batch_rows => {ROWS})")
        return archive

    return make


def test_p9_a_key_that_is_not_archived_costs_no_request(random_keys):
    thousand = random_keys(FILES)
    assert thousand.value("SELECT count(*) FROM archive_ext.objects") == FILES
    size = thousand.row("SELECT max(key_filter_bytes_per_key), sum(key_filter_bytes), count(key_filter_bytes)"
                        " FROM archive_ext.objects")
    assert size[0] <= 4 and size[1] <= 4 * FILES * ROWS and size[2] == FILES
    absent = "SELECT * FROM archive.doc WHERE id = %s"
    free = sum(requests(thousand, absent, [uuid.uuid4()]) == 0 for _ in range(1000))
    print(f"{free} of 1000 absent keys cost no request")
    assert free >= 990
    for key in thousand.keys[:: FILES * ROWS // 200]:
        scan, = explain(thousand, absent, [key])
        assert scan["Actual Rows"] == 1 and scan["Files Read"] <= 2, scan
    # Every key there is, by queries that ask the filters.
    thousand.execute("CREATE TABLE wanted AS SELECT unnest(%s::uuid[]) AS id", [thousand.keys[::97]])
    found = thousand.value("SELECT count(*) FROM wanted w, LATERAL (SELECT FROM archive.doc d WHERE d.id = w.id OFFSET 0) d")
    assert found == len(thousand.keys[::97])


def test_filters_work_with_values_known_late(random_keys):
    """Arrays, parameters of prepared statements and of nested loops."""
    docs = random_keys(50)
    some = [docs.keys[5], docs.keys[-5], uuid.uuid4()]
    scan, = explain(docs, "SELECT * FROM archive.doc WHERE id = ANY (%s)", [some])
    assert (scan["Actual Rows"], scan["Files"]) == (2, 2)
    assert scan["Files Ruled Out by Key Filters"] > 30
    docs.execute("PREPARE q(uuid) AS SELECT * FROM archive.doc WHERE id = $1")
    docs.execute("SET plan_cache_mode = force_generic_plan")
    scan, = explain(docs, f"EXECUTE q('{some[0]}')")
    assert (scan["Actual Rows"], scan["Files Read"]) == (1, 1)
    docs.execute("CREATE TABLE wanted AS SELECT unnest(%s::uuid[]) AS id", [some])
    docs.execute("ANALYZE wanted")
    docs.execute("SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off")
    scan, = explain(docs, "SELECT * FROM wanted w JOIN archive.doc d ON d.id = w.id")
    assert (scan["Actual Loops"], scan["Files Read"]) == (3, 2)
    text = docs.all(f"EXPLAIN SELECT * FROM archive.doc WHERE id = '{some[0]}'")
    assert any(re.search(r"Files: 1 of 50 \(\d+ ruled out by key filters\)", line[0]) for line in text), text


def test_nobody_but_the_extension_reads_filters(random_keys, role):
    docs = random_keys(2)
    reader = role("reader")
    docs.execute(f"GRANT SELECT ON doc TO {reader}")
    session = docs.connect(reader)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        session.execute("SELECT * FROM archive_ext.key_filter")
    assert session.execute("SELECT count(*) FROM archive.doc WHERE id = %s", [docs.keys[0]]).fetchone()[0] == 1
    other = docs.connect(role("other"))
    assert other.execute("SELECT count(*) FROM archive_ext.objects").fetchone()[0] == 0


KEYS = {
    "smallint": "n", "int": "n", "bigint": "n * 10000000000", "numeric": "n / 7.0", "numeric(8,3)": "n / 8.0",
    "real": "n / 4.0", "float8": "n / 3.0::float8", "uuid": "md5(n::text)::uuid", 'text COLLATE "C"': "'k' || n",
    "text": "chr(200 + n) || ' ''\\ {'", "varchar(8)": "'k' || n", "char(8)": "'k' || n", "bytea": "decode(md5(n::text), 'hex')",
    "date": "date '2020-01-01' + n", "time": "time '00:00' + n * interval '1.5 min'",
    "timestamp": "timestamp '2020-01-01' + n * interval '1.5 s'", "timestamptz": "'2020-01-01'::timestamptz + n * interval '1.5 s'",
    "interval": "n * interval '1 hour 3 s'", "inet": "'10.0.0.0'::inet + n", "ltree": "('a.b' || n)::ltree", "mood": "moods[n]",
    "money": "n::text::money", "oid": "n::text::oid", "pair": "ROW(n, 'p' || n)::pair", "pos": "n", "boolean": "n = 1",
    "int[]": "ARRAY[n, 2]", "jsonb": "to_jsonb(n)", "citext": "'K' || n", 'text COLLATE nondet': "'K' || n",
    "macaddr": "('08:00:2b:01:02:' || lpad(to_hex(n), 2, '0'))::macaddr", "int4range": "int4range(n, n + 1)",
}
WITHOUT_FILTER = ["inet", "ltree", "pair", "int[]", "jsonb", "citext", "text COLLATE nondet", "macaddr", "int4range"]


@pytest.mark.parametrize("kind", KEYS)
def test_p9_every_type_of_key_is_found(archive, kind):
    """By its text, and by a value of its type; in the table and in the archive."""
    rows = 2 if kind == "boolean" else 40
    archive.execute("""CREATE EXTENSION ltree; CREATE EXTENSION citext; CREATE TYPE pair AS (a int, b text);
        CREATE DOMAIN pos AS int CHECK (VALUE > 0);
        CREATE COLLATION nondet (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
        SET lc_monetary = 'C'""")
    moods = [f"m{n}" for n in range(1, 41)]
    archive.execute(f"CREATE TYPE mood AS ENUM ({', '.join(repr(mood) for mood in moods)})")
    archive.execute(f"CREATE TABLE t (k {kind} PRIMARY KEY, at date NOT NULL, v int)")
    value = KEYS[kind].replace("moods[n]", f"('m' || n)::mood")
    archive.execute(f"INSERT INTO t SELECT {value}, '2020-01-01', n FROM generate_series(1, {rows}) n")
    keys = archive.all("SELECT k::text, v FROM t ORDER BY v")
    archive.execute(f"CALL archive_table('t', '2021-01-01', time_column => 'at', batch_rows => 7, where_clause => 'v > {rows // 4}')")
    has_filter = kind not in WITHOUT_FILTER
    assert archive.value("SELECT bool_and(key_filter_bytes IS NOT NULL) FROM archive_ext.objects") == has_filter
    for key, n in keys:
        expected = archive.value("SELECT to_jsonb(a.*) FROM archive.t_all a WHERE v = %s", [n])
        assert record(archive, "t", key) == expected and expected["v"] == n
        assert tier(archive, "t", key) == ("hot" if n <= rows // 4 else "cold")
        name = kind.split(" COLLATE")[0]
        typed = archive.value(f"SELECT get_archived_record('t', k) FROM archive.t_all WHERE v = %s", [n])
        assert typed == expected, name
    if kind != "boolean":
        assert record(archive, "t", archive.value(f"SELECT ({value})::{name}::text FROM (VALUES (41)) x(n)") if kind != "mood"
                      else "m40") == (None if kind != "mood" else expected)


def test_equal_is_what_the_operator_says(archive):
    """1.0 = 1.00, blanks of char, -0 = 0, 1 month = 30 days, constants of other types, dates and times."""
    archive.execute("CREATE TABLE t (a numeric, b char(5), c float8, d interval, e bigint, f timestamptz, at date NOT NULL,"
                    " PRIMARY KEY (a, b, c, d, e, f))")
    archive.execute("INSERT INTO t VALUES (1.00, 'x', '-0', '1 month', 7, '2020-02-03Z', '2020-01-01')")
    archive.execute("SELECT archive_table_batch('t', '2021-01-01', time_column => 'at')")
    archive.execute("SET timezone = 'UTC'")
    where = "a = 1.000 AND b = 'x' AND c = 0 AND d = interval '30 days' AND e = 7::smallint AND f = date '2020-02-03'"
    scan, = explain(archive, f"SELECT * FROM archive.t WHERE {where}")
    assert (scan["Actual Rows"], scan["Files"]) == (1, 1)
    scan, = explain(archive, f"SELECT * FROM archive.t WHERE {where.replace('1.000', '1')} AND e = 7")
    assert scan["Actual Rows"] == 1
    key = {"a": 1, "b": "x", "c": 0, "d": "30 days", "e": 7, "f": "2020-02-03 01:00+01"}
    assert record(archive, "t", json.dumps(key))["e"] == 7


def test_composite_and_other_unique_keys(archive):
    archive.execute("CREATE TABLE t (tenant int, ref text, mail text UNIQUE, at date NOT NULL, big numeric, PRIMARY KEY (tenant, ref))")
    archive.execute("INSERT INTO t VALUES (1, 'x', 'a@b', '2020-01-01', 12345678901234567890.123456789), (1, 'y', NULL, '2022-01-01', 1)")
    archive.execute("SELECT archive_table_batch('t', '2021-01-01')")
    exact = archive.value("SELECT get_archived_record('t', '{\"tenant\": 1, \"ref\": \"x\"}')::text")
    assert '"big": 12345678901234567890.123456789' in exact
    assert tier(archive, "t", '{"mail": "a@b"}', "::jsonb") == "cold"
    assert tier(archive, "t", '{"ref": "y", "tenant": 1}') == "hot"
    assert tier(archive, "t", '{"ref": "z", "tenant": 1}') is None
    for key, error, said in [
        ("1", "InvalidParameterValue", "JSON object"), ("[1]", "InvalidParameterValue", "JSON object"),
        ('{"tenant": 1}', "InvalidObjectDefinition", r"\(tenant\) is no unique key"),
        ('{"tenant": 1, "reff": "x"}', "UndefinedColumn", '"reff"'),
        ('{"tenant": null, "ref": "x"}', "NullValueNotAllowed", '"tenant"'),
        ('{"tenant": "one", "ref": "x"}', "InvalidTextRepresentation", "integer"),
    ]:
        with pytest.raises(getattr(psycopg.errors, error), match=said):
            record(archive, "t", key)


def test_a_key_is_not_cut_to_the_columns_length(archive):
    archive.execute("CREATE TABLE t (k varchar(3) PRIMARY KEY, n numeric(4,1) UNIQUE, at date NOT NULL)")
    archive.execute("INSERT INTO t VALUES ('abc', 1.2, '2020-01-01')")
    assert record(archive, "t", "abcd") is None and record(archive, "t", "abc") is not None
    assert record(archive, "t", '{"n": 1.24}', "::jsonb") is None


def test_partitions_are_looked_up_too(archive):
    archive.execute("""CREATE TABLE orders (id bigint, at date, PRIMARY KEY (id, at)) PARTITION BY RANGE (at);
        CREATE TABLE orders_2020 PARTITION OF orders FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
        CREATE TABLE orders_2021 PARTITION OF orders FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
        CREATE TABLE orders_2022 PARTITION OF orders FOR VALUES FROM ('2022-01-01') TO ('2023-01-01');
        INSERT INTO orders SELECT n, date '2020-01-01' + n FROM generate_series(0, 1000) n""")
    archive.execute("CALL archive_partition_steps('{orders_2020}', drop_local => '0')")
    archive.execute("SELECT set_lifecycle('orders_2021', 'WARM')")
    key = '{{"id": {}, "at": "{}"}}'.format
    assert record(archive, "orders", key(1, "2020-01-02")) == {"id": 1, "at": "2020-01-02"}
    places = [tier(archive, "orders", key(*k)) for k in [(1, "2020-01-02"), (366, "2021-01-01"), (800, "2022-03-11"), (2, "2020-01-02")]]
    assert places == ["cold", "warm", "hot", None]
    with pytest.raises(psycopg.errors.WrongObjectType, match="is a partition"):
        record(archive, "orders_2021", key(1, "2020-01-02"))


def test_in_glacier_it_says_so_and_how_to_request_it(archive):
    archive.execute("CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL)")
    archive.execute("INSERT INTO t VALUES (1, '2020-01-01'), (2, '2022-01-01')")
    archive.execute("SELECT archive_table_batch('t', '2021-01-01')")
    archive.execute("UPDATE archive_ext.partition SET tier = 'glacier'; UPDATE archive_ext.object SET storage_class = 'GLACIER'")
    assert [tier(archive, "t", key) for key in ["1", "2", "3"]] == ["glacier", "hot", None]
    assert record(archive, "t", "2") == {"id": 2, "at": "2022-01-01"} and record(archive, "t", "3") is None
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is in a frozen storage class") as refused:
        record(archive, "t", "1")
    assert "request_restore('public.t_rows', tier" in refused.value.diag.message_hint, refused.value.diag.message_hint
    with pytest.raises(psycopg.errors.InvalidTextRepresentation):
        tier(archive, "t", "one")


def test_the_rights_are_the_callers(archive, role):
    archive.execute("CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, who name, secret text)")
    reader, partly, other = role("reader"), role("partly"), role("other")
    archive.execute(f"INSERT INTO t SELECT n, date '2020-01-01' + n * 400, CASE WHEN n % 2 = 0 THEN '{reader}' ELSE 'x' END, 's'"
                    " FROM generate_series(0, 3) n")
    archive.execute(f"GRANT SELECT ON t TO {reader}; GRANT SELECT (id, at) ON t TO {partly}")
    archive.execute("ALTER TABLE t ENABLE ROW LEVEL SECURITY; CREATE POLICY mine ON t USING (who = current_user)")
    archive.execute("SELECT archive_table_batch('t', '2021-06-01')")
    assert archive.value("SELECT count(*) FROM t") == 2
    session = archive.connect(reader)
    seen = [session.execute(f"SELECT archive_tier_of('t', '{n}'), get_archived_record('t', '{n}') IS NOT NULL").fetchone()
            for n in range(4)]
    assert [tuple(row) for row in seen] == [("cold", True), (None, False), ("hot", True), (None, False)]
    for who in [partly, other]:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            archive.connect(who).execute("SELECT get_archived_record('t', '0')")


def test_an_import_is_looked_up_without_filters(archive, cluster):
    archive.execute("CREATE TABLE t (id uuid PRIMARY KEY, at date NOT NULL)")
    archive.execute("INSERT INTO t SELECT gen_random_uuid(), '2020-01-01' FROM generate_series(1, 30)")
    keys = [row[0] for row in archive.all("SELECT id::text FROM t")]
    archive.execute("CALL archive_table('t', '2021-01-01', batch_rows => 10)")
    other = Database(cluster, f"{archive.name}_other")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage}/{archive.name}')")
    other.execute("SELECT * FROM import_archive('cold', dry_run => false)")
    assert other.value("SELECT count(key_filter_bytes) FROM archive_ext.objects") == 0
    assert all(tier(other, "t", key) == "cold" for key in keys)
    other.drop()


def test_stubs_are_whole_and_counted_once(archive):
    archive.execute("CREATE TABLE t (id int PRIMARY KEY, at date NOT NULL, body text, archived_at timestamptz, archive_tier text,"
                    " archive_key text)")
    archive.execute("INSERT INTO t (id, at, body) VALUES (1, '2020-01-01', 'one'), (2, '2022-01-01', 'two')")
    archive.execute("SELECT archive_table_batch('t', '2021-01-01', mode => 'offload', payload => '{body}')")
    assert archive.value("SELECT body FROM t WHERE id = 1") is None
    assert [record(archive, "t", key)["body"] for key in "12"] == ["one", "two"]
    assert [tier(archive, "t", key) for key in "12"] == ["cold", "hot"]
    counted = archive.all("SELECT month::text, hot, archived FROM reconcile_counts('t', 'at')")
    assert [tuple(row) for row in counted] == [("2020-01-01", 0, 1), ("2022-01-01", 1, 0)]


def test_rows_are_found_and_counted_through_compaction_and_restore(archive):
    archive.execute("CREATE TABLE t (id uuid PRIMARY KEY, n int NOT NULL UNIQUE, at date NOT NULL)")
    archive.execute("INSERT INTO t SELECT md5(n::text)::uuid, n, '2020-01-01' FROM generate_series(1, 200) n")
    archive.execute("CALL archive_table('t', '2021-01-01', batch_rows => 20, order_key => '{n}')")
    counted = "SELECT sum(total), sum(missing) FROM reconcile_counts('t')"
    keys = [row[0] for row in archive.all("SELECT id::text FROM archive.t ORDER BY n")]
    assert tuple(archive.row(counted)) == (200, 0)
    for change, hot in [("CALL compact_archive_steps('t')", 0), ("SELECT restore_rows('t', 'n <= 50')", 50)]:
        archive.execute(change)
        assert tuple(archive.row(counted)) == (200, 0)
        assert [tier(archive, "t", key) for key in keys] == ["hot"] * hot + ["cold"] * (200 - hot)
        assert archive.value("SELECT bool_and(key_filter_bytes IS NOT NULL) FROM archive_ext.objects WHERE rows > 0"), change
        absent = requests(archive, "SELECT * FROM archive.t WHERE id = %s", [uuid.uuid4()])
        assert absent == 0


def test_p9_a_session_remembers_footers(archive):
    """The next query asks for its pages only, as long as there is room for the footers; and what it reads is the same."""
    create_orders(archive.conn, months=3, rows=500)
    archive.execute("SELECT count(*) FROM archive_partitions(ARRAY['orders_2024_01', 'orders_2024_02']::regclass[])")
    query = "SELECT sum(amount), count(note) FROM archive.orders WHERE id % 2 = 0"
    archive.execute("SET archive_ext.metadata_cache = 0")
    cold = requests(archive, query)
    rows = archive.row(query)
    assert requests(archive, query) == cold
    archive.execute("SET archive_ext.metadata_cache = '16MB'")
    assert requests(archive, query) == cold
    assert requests(archive, query) == cold - 2
    assert archive.row(query) == rows
    archive.execute("SET archive_ext.metadata_cache = 0")
    assert requests(archive, query) == cold
    assert archive.row(query) == rows
