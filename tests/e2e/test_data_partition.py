"""archive_ext.data_partition narrows what queries of users read, in every session, and never what a dump holds."""

import os
import random
import re
import subprocess

import psycopg
import pytest

from harness.cluster import Cluster, Database

STATUSES = ["LIVE", "HOT", "WARM"]


def create_months(db, name="orders", months=6, rows=50):
    db.execute(f"CREATE TABLE {name} (id int, at date NOT NULL, v int, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    for month in range(1, months + 1):
        db.execute(f"CREATE TABLE {name}_{month:02} PARTITION OF {name}"
                   f" FOR VALUES FROM ('2024-{month:02}-01') TO ('2024-{month + 1:02}-01')")
        db.execute(f"INSERT INTO {name} SELECT n, date '2024-{month:02}-01' + n % 28, n % 7"
                   f" FROM generate_series(1, {rows}) n")
    db.execute("INSERT INTO archive_ext.managed_table (source, kind, archive_name) VALUES (%s::regclass, 'time', %s)",
               [name, name])


def set_status(conn, partition, status, label=None):
    conn.execute("""
        INSERT INTO archive_ext.partition
               (managed_table, schema_name, partition_name, parent, bounds, status, label, hot_table)
        SELECT m.id, 'public', c.relname, i.inhparent, '', %(status)s, %(label)s, c.oid
        FROM pg_class c JOIN pg_inherits i ON i.inhrelid = c.oid
        JOIN archive_ext.managed_table m ON m.source = pg_partition_root(c.oid)
        WHERE c.oid = %(partition)s::regclass
        ON CONFLICT (managed_table, schema_name, partition_name)
        DO UPDATE SET status = excluded.status, label = excluded.label""",
                 {"partition": partition, "status": status, "label": label})


def read(conn, query="SELECT DISTINCT tableoid::regclass::text FROM orders ORDER BY 1"):
    return [row[0] for row in conn.execute(query).fetchall()]


def test_other_sessions_see_a_new_status_at_once(db):
    create_months(db)
    reader = db.connect()
    reader.execute("LOAD 'archive_ext'")
    reader.execute("SET archive_ext.data_partition = 'HOT*'")
    reader.execute("SET plan_cache_mode = force_generic_plan")
    reader.execute("PREPARE parts AS SELECT DISTINCT tableoid::regclass::text FROM orders ORDER BY 1")
    reader.execute("CREATE FUNCTION parts() RETURNS SETOF text LANGUAGE plpgsql AS"
                   " $$ BEGIN RETURN QUERY SELECT DISTINCT tableoid::regclass::text FROM orders ORDER BY 1; END $$")

    def everywhere():
        seen = read(reader)
        assert read(reader, "EXECUTE parts") == seen
        assert read(reader, "SELECT * FROM parts()") == seen
        return seen

    assert everywhere() == []
    set_status(db, "orders_02", "HOT")
    assert everywhere() == ["orders_02"]
    set_status(db, "orders_03", "HOT", "HOT_2024Q1")
    assert everywhere() == ["orders_02", "orders_03"]
    with db.conn.transaction():
        set_status(db, "orders_02", "WARM")
        assert everywhere() == ["orders_02", "orders_03"]
    assert everywhere() == ["orders_03"]
    db.execute("ALTER TABLE orders DETACH PARTITION orders_03")
    assert everywhere() == []
    db.execute("ALTER TABLE orders ATTACH PARTITION orders_03 FOR VALUES FROM ('2024-03-01') TO ('2024-04-01')")
    assert everywhere() == ["orders_03"]
    db.execute("DELETE FROM archive_ext.partition WHERE hot_table = 'orders_03'::regclass")
    assert everywhere() == []
    set_status(db, "orders_01", "HOT")
    with reader.transaction():
        reader.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        reader.execute("SELECT")
        set_status(db, "orders_04", "HOT")
        assert everywhere() == ["orders_01", "orders_04"], "labels are those committed, not those of an old snapshot"
    assert everywhere() == ["orders_01", "orders_04"]


def test_without_the_extension_nothing_is_limited(db):
    create_months(db)
    reader = db.connect()
    reader.execute("LOAD 'archive_ext'")
    reader.execute("SET archive_ext.data_partition = 'HOT*'")
    assert read(reader) == []
    db.execute("DROP EXTENSION archive_ext CASCADE")
    assert len(read(reader)) == 6
    db.execute("CREATE EXTENSION archive_ext")
    assert len(read(reader)) == 6


@pytest.mark.parametrize("options", [[], ["--inserts"], ["--enable-row-security", "--inserts"]])
@pytest.mark.parametrize("name", [None, "backup"])
def test_a_dump_is_complete(db, role, options, name):
    create_months(db, rows=20)
    user = role("dumper")
    db.execute(f"ALTER ROLE {user} SUPERUSER")
    db.execute(f"ALTER ROLE {user} SET archive_ext.data_partition = 'HOT*'")
    db.execute(f"ALTER ROLE {user} SET session_preload_libraries = 'archive_ext'")
    assert read(db.connect(user=user)) == [], "the limit is there"
    bindir = subprocess.check_output([os.environ["PG_CONFIG"], "--bindir"], text=True).strip()
    environment = {**os.environ, **({"PGAPPNAME": name} if name else {})}
    dump = subprocess.run(
        [f"{bindir}/pg_dump", f"--host={db.cluster.dir}", f"--username={user}", "--table=orders*", *options, db.name],
        check=True, capture_output=True, text=True, timeout=120, env=environment).stdout
    rows = re.findall(r"^(?:INSERT INTO .*|\d+\t2024-\d\d-\d\d\t\d)$", dump, re.MULTILINE)
    assert len(rows) == 120


def test_parallel_workers_read_no_more(db):
    create_months(db, rows=2000)
    db.execute("CREATE FUNCTION seen(int) RETURNS bigint LANGUAGE plpgsql PARALLEL SAFE AS"
               " $$ BEGIN RETURN (SELECT count(*) FROM orders WHERE id = $1); END $$")
    set_status(db, "orders_02", "HOT")
    set_status(db, "orders_05", "HOT")
    db.execute("ANALYZE")
    for setting in ("parallel_setup_cost = 0", "parallel_tuple_cost = 0", "min_parallel_table_scan_size = 0",
                    "max_parallel_workers_per_gather = 2", "enable_partitionwise_aggregate = on",
                    "archive_ext.data_partition = 'HOT*'"):
        db.execute(f"SET {setting}")
    plan = "\n".join(read(db, "EXPLAIN (ANALYZE, COSTS OFF) SELECT count(*), sum(seen(id)) FROM orders"))
    assert "Gather" in plan and "Partitions not read" in plan, plan
    assert "orders_02" in plan and "Scan on orders_01" not in plan, plan
    assert db.row("SELECT count(*), sum(seen(id)) FROM orders") == (4000, 8000)
    with db.conn.transaction():
        db.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        assert db.row("SELECT count(*), sum(seen(id)) FROM orders") == (4000, 8000)


def test_beside_other_libraries_with_hooks():
    """Their errors come through our hooks, and auto_explain shows what is not read."""
    cluster = Cluster("shared_preload_libraries=auto_explain,pg_stat_statements,archive_ext",
                      "auto_explain.log_min_duration=0")
    try:
        db = Database(cluster, "hooked")
        create_months(db)
        db.execute("SET archive_ext.data_partition = 'LIVE_202401'")
        for query in ("COPY (SELECT 1 / 0 FROM orders) TO STDOUT", "SELECT 1 / 0 FROM orders", "SELECT no_such FROM orders",
                      "REFRESH MATERIALIZED VIEW no_such", "DO $$ BEGIN PERFORM 1 / 0 FROM orders; END $$"):
            with pytest.raises(psycopg.Error):
                db.execute(query)
            assert read(db) == ["orders_01"], query
        assert "Partitions not read (archive_ext.data_partition): orders_02" in cluster.log()
        db.execute("RESET archive_ext.data_partition")
        assert len(read(db)) == 6
        db.conn.close()
    finally:
        cluster.stop()


def test_explain_names_it_in_every_format(db):
    create_months(db)
    db.execute("SET archive_ext.data_partition = 'LIVE_202401'")
    note = "Partitions not read (archive_ext.data_partition): orders_02, orders_03, orders_04, orders_05, orders_06"
    plan = db.value("EXPLAIN (FORMAT JSON) SELECT * FROM orders")[0]["Plan"]
    assert [below["Subplan Name"] for below in plan["Plans"]] == [note]
    for form in ("XML", "YAML", "TEXT"):
        assert note in "\n".join(read(db, f"EXPLAIN (FORMAT {form}) SELECT * FROM orders"))
    db.execute("CREATE TABLE days (at date) PARTITION BY RANGE (at)")
    db.execute("""DO $$ BEGIN FOR n IN 0..99 LOOP EXECUTE format('CREATE TABLE day_%s PARTITION OF days
                  FOR VALUES FROM (%L) TO (%L)', n, date '2024-01-01' + n, date '2024-01-02' + n); END LOOP; END $$""")
    db.execute("INSERT INTO archive_ext.managed_table (source, kind, archive_name) VALUES ('days', 'time', 'days')")
    assert any(line.endswith(" and 50 more") for line in read(db, "EXPLAIN SELECT * FROM days"))


def test_a_bad_value_waits_for_the_library_and_is_dropped(db):
    session = db.connect()
    with pytest.raises(psycopg.errors.InvalidParameterValue, match="no label matches"):
        session.execute("SET archive_ext.data_partition = 'COLD*'")
    db.execute(f"ALTER DATABASE {db.name} SET archive_ext.data_partition = 'LIVE_202401'")
    create_months(db)
    assert read(db.connect()) == ["orders_01"]


def test_merge_may_not_miss_what_it_does_not_read(db):
    create_months(db)
    db.execute("SET archive_ext.data_partition = 'LIVE_202401'")
    if db.conn.info.server_version >= 150000:
        with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="cannot merge into table"):
            db.execute("MERGE INTO orders o USING orders s ON s.id = o.id WHEN MATCHED THEN DELETE")


def random_query(throw, where):
    """A query on two managed tables; `where` makes of an alias what stands for the limit."""
    o, c = where("o", "orders"), where("c", "children")
    condition = throw.choice(["true", "o.v > 2", "o.at >= '2024-03-10'", "o.at BETWEEN '2024-02-10' AND '2024-04-05'",
                              "o.id = 7", "o.at = '2024-04-03'"])
    join = throw.choice(["JOIN", "LEFT JOIN", "RIGHT JOIN", "FULL JOIN"])
    orders = f"(SELECT *, tableoid AS t FROM orders o WHERE {o})"
    children = f"(SELECT *, tableoid AS t FROM children c WHERE {c})"
    return throw.choice([
        f"SELECT o.t::regclass::text, count(*), sum(o.v) FROM {orders} o WHERE {condition} GROUP BY 1",
        f"SELECT o.at, count(*), min(c.v) FROM {orders} o {join} {children} c ON c.id = o.id AND c.at = o.at"
        f" WHERE {condition} GROUP BY 1",
        f"SELECT o.id FROM {orders} o WHERE {condition} AND NOT EXISTS"
        f" (SELECT FROM {children} c WHERE c.id = o.id AND c.at = o.at AND c.v = o.v)",
        f"SELECT id, v FROM {orders} o WHERE {condition} UNION ALL SELECT id, v FROM {children} c WHERE c.v < 3",
        f"SELECT max(at), min(id) FROM {orders} o WHERE {condition}",
        f"WITH o AS MATERIALIZED (SELECT * FROM {orders} o) SELECT o.id, (SELECT count(*) FROM {children} c"
        f" WHERE c.id = o.id) FROM o WHERE {condition}",
        f"SELECT o.id, x.n FROM {orders} o, LATERAL (SELECT count(*) AS n FROM {children} c WHERE c.at = o.at) x"
        f" WHERE {condition}",
        f"SELECT at, row_number() OVER (ORDER BY at, id) FROM {orders} o WHERE {condition} ORDER BY at, id LIMIT 9",
    ])


def test_a_limit_is_a_where_clause(db):
    """What a limited session reads is what WHERE tableoid IN (…) reads, whatever the query and the planner do."""
    seed = int(os.environ.get("ARCHIVE_EXT_SEED", random.randrange(1 << 30)))
    throw = random.Random(seed)
    print("seed", seed)
    create_months(db)
    create_months(db, name="children", rows=30)
    labels = {f"{table}_{month:02}": f"LIVE_2024{month:02}" for table in ("orders", "children") for month in range(1, 7)}
    limited = db.connect()
    for _ in range(150):
        if throw.random() < 0.2:
            partition, status = throw.choice(list(labels)), throw.choice(STATUSES)
            set_status(db, partition, status)
            labels[partition] = re.sub("^[A-Z]+", status, labels[partition])
        lists = [sorted(throw.sample(["LIVE*", "HOT*", "WARM_2024*", "LIVE_202403", "HOT_202402"], throw.randint(1, 3)))
                 for _ in range(2)]
        limited.execute("SELECT use_data_partition(%s)", [f"{','.join(lists[0])}; children={','.join(lists[1])}"])
        for switch in ("partitionwise_join", "partitionwise_aggregate", "hashjoin", "mergejoin", "seqscan"):
            limited.execute(f"SET enable_{switch} = {throw.choice(['on', 'off'])}")

        def by_hand(alias, table):
            patterns = [re.escape(p).replace(r"\*", ".*") for p in lists[table == "children"]]
            oids = [f"'{part}'::regclass" for part, label in labels.items()
                    if part.startswith(table) and any(re.fullmatch(p, label) for p in patterns)]
            return f"{alias}.tableoid IN ({', '.join(oids)})" if oids else "false"

        state = throw.getstate()
        expected = db.all(random_query(throw, by_hand))
        throw.setstate(state)
        query = random_query(throw, lambda *_: "true")
        assert sorted(limited.execute(query).fetchall(), key=str) == sorted(expected, key=str), (seed, lists, query)
