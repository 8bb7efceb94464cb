"""P5: every type of the corpus is archived, queried and brought back as it was, and DuckDB sees what it can."""

import itertools

import psycopg
import pytest
from psycopg import sql

from harness.cluster import Database
from harness.orders import archive
from harness.sessions import PeakMemory
from harness.typed_tables import (ODD_SETTINGS, OTHER_ODD_SETTINGS, create_partitioned, differences, dump, fill, in_file,
                                  native_values, storage_of)
from type_corpus import MATRIX, SETUP, TYPES, WITHOUT_VALUES, Type, shapes

EXTENSIONS = ("SELECT format('CREATE EXTENSION IF NOT EXISTS %I CASCADE', name) FROM pg_available_extensions"
              " WHERE name NOT IN ('archive_ext', 'pg_cron') ORDER BY 1")
BACKEND = 300 << 20  # of memory, for all but the value
_tables = itertools.count(1)


@pytest.fixture(scope="module")
def db(cluster):
    """One database for the whole file, with everything that contrib has, and the types of the corpus."""
    database = Database(cluster, "types")
    for [statement] in database.all(EXTENSIONS):
        database.execute(statement)
    for statement in SETUP.strip().split(";\n"):  # one by one: a new enum label is usable once committed
        database.execute(statement)
    database.root = storage_of(database)
    yield database
    database.drop()


@pytest.fixture
def odd_session(db):
    """A session with settings under which many types print and read differently."""
    conn = db.connect()
    conn.execute(ODD_SETTINGS)
    yield conn
    conn.close()


@pytest.mark.parametrize("type_", TYPES, ids=str)
def test_p5_every_value_comes_back(db, odd_session, type_matrix, type_):
    """Alone, in arrays, as a domain, in a composite and in arrays of those."""
    type_matrix.trying(type_.name)
    number = next(_tables)
    ddl, columns = shapes(type_, number)
    db.execute(ddl)
    table = f"t{number}"
    create_partitioned(db, table, columns)
    fill(db, table, columns, nullable=type_.nullable)
    before, before_odd = (dump(conn, table, columns, type_.binary) for conn in [db.conn, odd_session])
    natives = native_values(db, table, type_.native)
    db.execute(f"CREATE TABLE {table}_truth AS SELECT k, c FROM {table}")
    db.execute("SET search_path = pg_catalog")  # as in the file, which qualifies names
    in_text = dump(db.conn, f"public.{table}", columns, binary=False)
    db.execute("RESET search_path")

    odd_session.execute("SELECT archive_partition(%s, verify => 'deep', drop_local => '0')", [f"{table}_1"])
    assert differences(before, dump(db.conn, f"archive.{table}", columns, type_.binary)) == []
    odd_session.execute(OTHER_ODD_SETTINGS)
    odd_session.execute(ODD_SETTINGS)
    assert other_images(db, f"archive.{table}", f"{table}_truth") == []
    assert differences(before_odd, dump(odd_session, f"archive.{table}", columns, type_.binary)) == []
    seen_as = in_file(f"{db.root}/public.{table}/**/*.parquet", type_.native, natives, in_text)

    odd_session.execute(OTHER_ODD_SETTINGS)
    odd_session.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
    assert differences(before, dump(db.conn, table, columns, type_.binary)) == []
    assert other_images(db, table, f"{table}_truth") == []
    type_matrix.exact(type_.name, len(type_.values), seen_as)


def other_images(db, table, truth):
    """Rows whose value prints alike but is not the same bytes."""
    return db.all(f"SELECT k, concat(o.c) FROM {table} AS o JOIN {truth} AS t USING (k) WHERE NOT record_image_eq(ROW(o.c), ROW(t.c))")


COLUMN_TYPES = """
    SELECT t.oid::regtype::text FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
    WHERE t.typtype <> 'p' AND NOT EXISTS (SELECT FROM pg_type AS element WHERE element.typarray = t.oid)
      AND (c.relkind IS NULL OR c.relkind = 'c') AND t.typname !~ '^(row|domain)_[0-9]+$'"""


def test_the_corpus_has_every_type(db):
    """Row types of tables and views aside: a_table stands for them."""
    known = {db.value("SELECT %s::regtype::text", [t.name]) for t in TYPES}
    assert {t for [t] in db.all(COLUMN_TYPES)} - known == set(WITHOUT_VALUES)


@pytest.mark.parametrize("name", WITHOUT_VALUES)
def test_types_that_nobody_can_make_a_value_of(db, name):
    """A column of NULLs can be archived all the same."""
    table = f"t{next(_tables)}"
    create_partitioned(db, table, [("c", name, [])])
    db.execute(f"INSERT INTO {table} VALUES (0, NULL)")
    archive(db, f"{table}_1", drop_local="0")
    assert db.row(f"SELECT k, c IS NULL FROM archive.{table}") == (0, True)
    db.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
    assert db.row(f"SELECT k, c IS NULL FROM {table}") == (0, True)


def test_the_published_table_has_the_types_of_the_corpus():
    """Its ticks are made by `make type-matrix`, which fails when one is not exact."""
    rows = [line.split("|")[1].strip(" `") for line in MATRIX.read_text().splitlines()
            if line.startswith("| `")]
    assert rows == [t.name for t in TYPES]


OPERATORS = ["<", "<=", "=", ">=", ">", "<>"]
EACH = 1000  # the smallest archive_ext.row_group_rows


ARRAYS = (
    Type("integer[]", ("{}", "{1}", "{1,NULL}", "{NULL,1}", "{{1,2},{3,4}}", "[0:1]={1,2}", "{1,2}", "{-2147483648}")),
    Type("double precision[]", ("{}", "{NaN}", "{-0}", "{0}", "{{0}}", "{Infinity,NULL}")),
    Type("text[]", ("{}", '{""}', "{NULL}", "{a}", "{{a}}", '{"NULL"}')),
    Type("timestamp[]", ("{}", "{infinity}", "{2024-01-01}", "{{2024-01-01}}")),
)


@pytest.mark.parametrize("type_", [t for t in TYPES + ARRAYS if t.values], ids=str)
def test_p9_predicates_find_what_they_find_in_the_heap(db, type_):
    """Each value fills row groups of its own, so that every comparison prunes as much as it ever will."""
    table = f"t{next(_tables)}"
    values = [v for v in type_.values if db.value(f"SELECT length(concat(%s::{type_.name})) <= 300", [v])][:24]
    create_partitioned(db, table, [("c", type_.name, values)])
    fill(db, table, [("c", type_.name, values)], nullable=type_.nullable)
    truth = f"{table}_truth"
    db.execute(f"CREATE TABLE {truth} AS SELECT * FROM {table}")
    db.execute(f"INSERT INTO {table} SELECT k, c FROM {truth}, generate_series(2, {EACH}) ORDER BY k")
    db.execute(f"CREATE TABLE {table}_sorted AS SELECT * FROM {table} ORDER BY k")
    db.execute(f"TRUNCATE {table}")
    db.execute(f"INSERT INTO {table} SELECT * FROM {table}_sorted")
    db.execute("SET archive_ext.row_group_rows = 1000")
    archive(db, f"{table}_1", drop_local="0")

    literals = [f"{sql.Literal(value).as_string(db.conn)}::{type_.name}" for value in values]
    predicates = ["c IS NULL", "NOT c IS NULL", "c IS NOT NULL", f"c IN ({literals[0]}, {literals[-1]})",
                  f"c IS DISTINCT FROM {literals[0]}",
                  *(f"c {operator} {literal}" for literal in literals for operator in OPERATORS)]
    wrong = []
    for predicate in predicates:
        try:
            expected = db.value(f"SELECT count(*) FROM {truth} WHERE {predicate}") * EACH
        except (psycopg.errors.UndefinedFunction, psycopg.errors.NumericValueOutOfRange):  # no such operator, or range
            continue
        found = db.value(f"SELECT count(*) FROM archive.{table} WHERE {predicate}")
        if found != expected:
            wrong.append((predicate, expected, found))
    assert wrong == []
    db.execute(f"DROP TABLE {table}_sorted, {truth}")


def test_p5_a_column_named_like_a_sidecar(db):
    table = f"t{next(_tables)}"
    columns = [("c", "numeric(5,2)", ["NaN", "1.10"]), ("c__pg", "text", ["mine", ""]), ("C", "int", ["1"]),
               ("c__pg__pg", "timestamptz", ["infinity"]), ("archive_year", "int", ["5"])]
    round_trip(db, table, columns)


def test_p5_dropped_generated_identity_columns(db):
    table = f"t{next(_tables)}"
    db.execute(f"""
        CREATE TABLE {table} (gone1 int, k int NOT NULL, gone2 text, id bigint GENERATED ALWAYS AS IDENTITY, c inet,
            twice int GENERATED ALWAYS AS (k * 2) STORED, upper text GENERATED ALWAYS AS (upper(host(c))) STORED,
            gone3 point, n numeric DEFAULT 'NaN') PARTITION BY RANGE (k);
        ALTER TABLE {table} DROP COLUMN gone1;
        CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (1000);
        INSERT INTO {table} (k, c) VALUES (1, '::1/64'), (2, NULL);
        ALTER TABLE {table} DROP COLUMN gone2, DROP COLUMN gone3;
        ALTER TABLE {table} ADD COLUMN late interval DEFAULT '1 mon -1 day';
        INSERT INTO {table} (k, c) VALUES (3, '10.0.0.1')""")
    columns = [(c, None, []) for c in ["id", "c", "twice", "upper", "n", "late"]]
    compare_round_trip(db, table, columns, writable="true")
    db.execute(f"INSERT INTO {table} (k) VALUES (4)")
    assert db.row(f"SELECT id, twice FROM {table} WHERE k = 4") == (4, 8)


def test_p5_three_hundred_columns(db):
    table = f"t{next(_tables)}"
    some = [t for t in TYPES if t.values and t.nullable and t.binary]
    columns = [(f"c{i}", t.name, [v for v in t.values if len(v) < 100][:3])
               for i, t in enumerate(itertools.islice(itertools.cycle(some), 320))]
    round_trip(db, table, columns)


@pytest.mark.parametrize("compression", ["pglz", "lz4"])
@pytest.mark.parametrize("storage", ["PLAIN", "MAIN", "EXTERNAL", "EXTENDED"])
def test_p5_toasted_values(db, compression, storage):
    """In line, compressed, out of line; alone and inside arrays, composites, ranges and documents."""
    table = f"t{next(_tables)}"
    size = 1500 if storage == "PLAIN" else 200_000
    columns = [("c", "text", []), ("b", "bytea", []), ("j", "jsonb", []), ("l", "text[]", []), ("p", "pair", []),
               ("n", "numeric", []), ("r", "textrange", []), ("v", "tsvector", []), ("s", "strange_text", []),
               ("h", "hstore", []), ("o", "polygon", []), ("x", "xml", []), ("bits", "bit varying", [])]
    create_partitioned(db, table, columns)
    for name, *_ in columns:
        db.execute(f"ALTER TABLE {table}_1 ALTER {name} SET STORAGE {storage}")
        db.execute(f"ALTER TABLE {table}_1 ALTER {name} SET COMPRESSION {compression}")
    for row, unit in enumerate(["'ab'", "md5(n::text)"]):
        source = f"(SELECT string_agg({unit}, '') AS t FROM generate_series(1, {size // len(columns) // 8}) AS n) AS s"
        db.execute(f"""
            INSERT INTO {table} SELECT {row}, t, t::bytea, to_jsonb(t), ARRAY[t, NULL, t], (1, t)::pair,
                ('1' || regexp_replace(t, '[^0-9]', '7', 'g'))::numeric, textrange(t, NULL), array_to_tsvector(ARRAY[left(t, 1000)]),
                t::strange_text, hstore('k', t), polygon(path('((0,0),(1,1))')), xmlelement(name a, t), repeat('10', length(t))::varbit
            FROM {source}""")
    compare_round_trip(db, table, [c for c in columns if c[0] != "s"])


def test_p5_a_value_that_the_domain_would_refuse_now(db):
    """NOT VALID constraints leave old values alone; so does archiving."""
    table = f"t{next(_tables)}"
    db.execute("CREATE DOMAIN tightened AS int; CREATE TYPE with_tightened AS (d tightened)")
    columns = [("c", "tightened", ["-1"]), ("a", "tightened[]", ["{-1}"]), ("r", "with_tightened", ["(-1)"]),
               ("m", "tightened[]", ["[0:0]={-1}"])]
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    db.execute("ALTER DOMAIN tightened ADD CHECK (VALUE > 0) NOT VALID")
    compare_round_trip(db, table, columns)


def test_p5_other_names_on_the_search_path_change_nothing(db):
    """Types, functions and operators that hide the built-in ones."""
    table = f"t{next(_tables)}"
    columns = [("c", "public.odd_enum", ["last"]), ("r", "public.pair", ["(1,x)"]), ("h", "public.hstore", ["a=>1"]),
               ("g", "regclass", ["a_table"])]
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    db.execute("""
        CREATE SCHEMA hiding; CREATE TYPE hiding.pair AS (x date); CREATE TYPE hiding.odd_enum AS ENUM ('other');
        CREATE TABLE hiding.a_table (); CREATE DOMAIN hiding.text AS pg_catalog.int4;
        CREATE FUNCTION hiding.count(text) RETURNS int LANGUAGE sql AS 'SELECT 1'""")
    before = dump(db.conn, table, columns)
    conn = db.connect(options="-c search_path=hiding,pg_catalog -c archive_ext.default_storage=cold")
    conn.execute("SELECT public.archive_partition(%s, drop_local => '0')", [f"public.{table}_1"])
    assert differences(before, dump(db.conn, f"archive.{table}", columns)) == []
    conn.execute("SELECT public.reattach_partition(%s)", [f"archive.{table}_1"])
    assert differences(before, dump(db.conn, table, columns)) == []


# What a value names is looked up by OID: (type and DDL before, column types and values, DDL after)
LATER = {
    "tables renamed and dropped": (
        "CREATE TABLE later_a (); CREATE TABLE later_b ()",
        {"regclass": "later_a", "regclass[]": "{later_a,later_b}", "regclass[][]": "{{later_a,later_b}}"},
        'ALTER TABLE later_a RENAME TO "Later"; DROP TABLE later_b'),
    "enum labels renamed": (
        "CREATE TYPE later_enum AS ENUM ('a', 'b'); CREATE TYPE later_range AS RANGE (subtype = later_enum);"
        "CREATE TYPE later_row AS (e later_enum, n numeric(4,1))",
        {"later_enum": "a", "later_enum[]": "{a,b}", "later_enum[][]": "{{a,b}}", "later_range": "[a,b]",
         "later_row": "(a,NaN)", "later_row[]": '{"(a,1)"}'},
        "ALTER TYPE later_enum RENAME VALUE 'a' TO 'A!'; ALTER TYPE later_enum ADD VALUE 'c' BEFORE 'A!'"),
    "types renamed": (
        "CREATE TYPE later_mood AS ENUM ('a'); CREATE DOMAIN later_domain AS numeric(4,1);"
        "CREATE TYPE later_pair AS (e later_mood, n later_domain); CREATE SCHEMA later",
        {"later_mood": "a", "later_domain": "1", "later_pair": "(a,1)", "later_pair[]": '{"(a,NaN)"}'},
        "ALTER TYPE later_pair RENAME ATTRIBUTE e TO mood; ALTER TYPE later_pair RENAME TO later_two;"
        "ALTER TYPE later_mood RENAME TO later_temper; ALTER TYPE later_two SET SCHEMA later; ALTER DOMAIN later_domain RENAME TO later_number"),
    "a role dropped": (
        "CREATE ROLE later_role", {"aclitem": "later_role=r/postgres", "regrole": "later_role", "regrole[][]": "{{later_role}}"},
        "DROP ROLE later_role"),
}


@pytest.mark.parametrize("change", LATER)
def test_p5_what_a_value_names_is_changed_later(db, change):
    before, types, after = LATER[change]
    db.execute(before)
    truth = f"t{next(_tables)}"
    table = f"t{next(_tables)}"
    columns = [(f"c{i}", type_, [value]) for i, (type_, value) in enumerate(types.items())]
    for name in [table, truth]:
        create_partitioned(db, name, columns)
        fill(db, name, columns)
    archive(db, f"{table}_1", drop_local="0")
    for statement in after.split("; "):
        db.execute(statement)
    expected = dump(db.conn, truth, columns)
    assert differences(expected, dump(db.conn, f"archive.{table}", columns)) == []
    if "enum" in change:
        assert db.value(f"SELECT count(*) FROM archive.{table} WHERE c0 = 'A!'") == 1
    db.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
    assert differences(expected, dump(db.conn, table, columns)) == []


def test_p5_an_aclitem_of_a_role_that_is_gone(db):
    """It prints as a number, which nobody can read back."""
    db.execute("CREATE ROLE already_gone")
    table = f"t{next(_tables)}"
    columns = [("c", "aclitem", ["already_gone=r/postgres"]), ("a", "aclitem[]", ["{{already_gone=r/postgres}}"])]
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    db.execute("DROP ROLE already_gone")
    compare_round_trip(db, table, columns, binary=False)


def test_p5_a_reader_needs_no_rights_on_types(db, role):
    """As for a heap: SELECT is enough, whatever schema types and named objects are in."""
    db.execute("""
        CREATE SCHEMA hidden; CREATE TYPE hidden.e AS ENUM ('a', 'b'); CREATE DOMAIN hidden.d AS int; CREATE TABLE hidden.t ();
        CREATE TYPE hidden.c AS (e hidden.e, d hidden.d, n numeric(4,1)); CREATE TYPE hidden.r AS RANGE (subtype = hidden.e)""")
    table = f"t{next(_tables)}"
    columns = [(f"c{i}", type_, [value]) for i, (type_, value) in enumerate({
        "hidden.e": "a", "hidden.e[]": "{{a,b}}", "hidden.d[]": "{{1}}", "hidden.c": "(a,1,NaN)", "hidden.r": "[a,b]",
        "regclass": "hidden.t", "regclass[]": "{{hidden.t}}", "regtype[]": "[0:0]={hidden.e}"}.items())]
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    reader = role("reader")
    db.execute(f"GRANT SELECT ON {table} TO {reader}")
    conn = db.connect(user=reader)
    select = f"SELECT concat_ws('|', {', '.join(c for c, *_ in columns)}) FROM {{}} ORDER BY k"
    before = conn.execute(select.format(table)).fetchall()
    archive(db, f"{table}_1", drop_local="0")
    db.execute(f"GRANT USAGE ON SCHEMA archive TO {reader}; GRANT SELECT ON archive.{table} TO {reader}")
    try:
        assert conn.execute(select.format(f"archive.{table}")).fetchall() == before
    finally:
        conn.close()
        db.execute(f"DROP OWNED BY {reader}")


@pytest.mark.parametrize("expression", [
    "repeat('ab€', 10000000)", "convert_to(repeat('ab€', 10000000), 'UTF8')", "to_jsonb(repeat('ab€', 10000000))",
    "array_fill(repeat('x', 50), ARRAY[1000000])", "array_fill(1.5::numeric, ARRAY[3, 500000])",
    "row(1, repeat('x', 50000000))::pair", "ARRAY[row(1, repeat('x', 50000000))::pair]",
    "textrange(repeat('x', 50000000), NULL)", "repeat('10', 20000000)::varbit", "hstore('k', repeat('x', 50000000))",
    "repeat('x', 50000000)::strange_text", "xmlelement(name a, repeat('x', 5000000))"])
def test_p5_fifty_megabytes_in_one_value(db, expression):
    large_value(db, expression)


@pytest.mark.heavy
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("expression", [
    "repeat('abcde', 100000000)", "convert_to(repeat('abcde', 100000000), 'UTF8')", "to_jsonb(repeat('x', 260000000))",
    "(SELECT jsonb_agg(repeat('x', 1000000)) FROM generate_series(1, 250))",
    "array_fill(repeat('x', 500), ARRAY[1000000])", "row(1, repeat('x', 500000000))::pair",
    "array_fill(repeat('x', 250), ARRAY[2, 1000000])"])
def test_p5_five_hundred_megabytes_in_one_value(db, expression):
    large_value(db, expression)


def large_value(db, expression):
    """Also P7: at most three times the size of the value in memory, besides what every backend needs.

    What has to be printed, or is nested, takes more than that: PostgreSQL's own text of it, and the copy in the column.
    """
    table = f"t{next(_tables)}"
    type_ = db.value(f"SELECT pg_typeof({expression.replace('00000', '')})::text")
    create_partitioned(db, table, [("c", type_, [])])
    db.execute(f"INSERT INTO {table} SELECT 0, {expression}")
    db.execute(f"INSERT INTO {table} VALUES (1, NULL)")
    size = db.value(f"SELECT octet_length(c::text) FROM {table} WHERE k = 0") if type_ != "bytea" else \
        db.value(f"SELECT length(c) FROM {table} WHERE k = 0")
    image = f"SELECT k, num_nulls(c), {'md5(c)' if type_ in ('bytea', 'text') else 'md5(c::text)'} FROM {{}} ORDER BY k"
    before = db.all(image.format(table))
    archiver, loader = db.connect(), db.connect()
    with PeakMemory(archiver.info.backend_pid) as archiving:
        archiver.execute("SELECT archive_partition(%s, drop_local => '0')", [f"{table}_1"])
    assert db.all(image.format(f"archive.{table}")) == before
    with PeakMemory(loader.info.backend_pid) as loading:
        loader.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
    assert db.all(image.format(table)) == before
    archiver.close(), loader.close()
    db.execute(f"DROP TABLE {table} CASCADE")
    mib = {"value": size >> 20, "archiving": archiving.peak >> 20, "loading": loading.peak >> 20}
    factor = 3 if type_ in ("text", "bytea") else 7
    assert max(archiving.peak, loading.peak) < factor * size + BACKEND, f"MiB: {mib}"


def round_trip(db, table, columns):
    create_partitioned(db, table, columns)
    fill(db, table, columns)
    compare_round_trip(db, table, columns)


def compare_round_trip(db, table, columns, writable="false", binary=True):
    before = dump(db.conn, table, columns, binary)
    archive(db, f"{table}_1", verify="deep", drop_local="0")
    assert differences(before, dump(db.conn, f"archive.{table}", columns, binary)) == []
    db.execute(f"SELECT reattach_partition(%s, writable => {writable})", [f"{table}_1"])
    assert differences(before, dump(db.conn, table, columns, binary)) == []
