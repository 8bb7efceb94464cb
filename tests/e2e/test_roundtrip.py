"""To a directory and back: what comes back is what went, and what is damaged or belongs to somebody else is noticed."""

import json

import psycopg
import pytest

from harness.cluster import Database
from harness.orders import archive, assert_same_rows, assert_untouched, create_orders, keep_truth
from harness.typed_tables import create_partitioned, storage_of

REFUSED = psycopg.errors.ObjectNotInPrerequisiteState


@pytest.fixture
def root(db):
    """The directory of the storage."""
    return storage_of(db)


def test_p5_columns_that_were_dropped_added_or_stand_elsewhere(db, root):
    db.execute("""
        CREATE TABLE items (gone int, id int NOT NULL, lost text, note text, n int) PARTITION BY RANGE (id);
        ALTER TABLE items DROP gone, DROP lost;
        CREATE TABLE items_1 (n int, gone text, note text, id int NOT NULL);
        INSERT INTO items_1 SELECT i * 2, 'gone', 'note ' || i, i FROM generate_series(0, 99) i;
        ALTER TABLE items_1 DROP gone;
        ALTER TABLE items ATTACH PARTITION items_1 FOR VALUES FROM (0) TO (1000);
        ALTER TABLE items ADD late text DEFAULT 'too late';
        INSERT INTO items VALUES (100, 'last', 1, NULL), (101, NULL, NULL, 'in time')""")
    keep_truth(db, "items")
    archive(db, "items_1", drop_local="0")
    assert_same_rows(db, "archive.items_1", "truth", "id, note, n, late")
    assert_same_rows(db, "archive.items_all x", "truth x", "x.*")
    assert db.value("SELECT count(*) FROM archive.items WHERE note = 'note 7' AND n = 14 AND late = 'too late'") == 1
    db.execute("SELECT reattach_partition('items_1', writable => true)")
    assert_same_rows(db, "items x", "truth x", "x.*")
    db.execute("INSERT INTO items (id) VALUES (102)")
    assert db.value("SELECT late FROM items WHERE id = 102") == "too late"


def test_p3_an_empty_partition(db, root):
    create_partitioned(db, "items", [("note", "text", [])])
    assert archive(db, "items_1", drop_local="0").rows == 0
    assert db.value("SELECT count(*) FROM archive.items") == 0
    assert db.value("SELECT count(*) FROM archive.items_1 WHERE k = 5 OR note IS NULL") == 0
    db.execute("SELECT reattach_partition('items_1', writable => true)")
    db.execute("INSERT INTO items VALUES (5, 'new')")
    assert db.value("SELECT count(*) FROM archive.items_all") == 1


def test_p3_quoted_names_and_a_partition_in_another_schema(db, root):
    table, partition = '"Sch ""ema"."Weird ""Table"', '"Other.Schema"."_Week 1/é"'
    db.execute(f"""
        CREATE SCHEMA "Sch ""ema"; CREATE SCHEMA "Other.Schema";
        CREATE TABLE {table} ("I d" int NOT NULL, "Co""l'umn" text DEFAULT 'it''s', "select" int)
            PARTITION BY RANGE ("I d");
        CREATE TABLE {partition} PARTITION OF {table} FOR VALUES FROM (0) TO (1000);
        CREATE INDEX "In ""dex" ON {partition} ("Co""l'umn", "select");
        INSERT INTO {table} SELECT i, 'n' || i, -i FROM generate_series(0, 99) i;
        CREATE TABLE truth AS TABLE {partition}""")
    archive(db, partition, drop_local="0")
    for archived in ['archive."_Week 1/é"', 'archive."Weird ""Table"', 'archive."Weird ""Table_all"']:
        assert_same_rows(db, f"{archived} x", "truth x", "x.*")
    [manifest] = root.rglob("*.v1.json")
    assert manifest == root / "Sch%20%22ema.Weird%20%22Table/_manifests/%5FWeek%201%2F%C3%A9.v1.json"
    assert db.value("SELECT reattach_partition(%s)::text", [partition]) == partition
    assert_same_rows(db, f"{table} x", "truth x", "x.*")
    assert db.exists('"Other.Schema"."In ""dex"')


# What PostgreSQL says about `goods_1`, one line for each thing on it.
DESCRIBED = """
    SELECT pg_get_indexdef(i.indexrelid) || concat_ws(' ', '', i.indisprimary, i.indisvalid,
               obj_description(i.indexrelid), (SELECT count(*) FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))
    FROM pg_index i WHERE i.indrelid = 'goods_1'::regclass
    UNION ALL
    SELECT concat_ws(' ', conname, pg_get_constraintdef(oid), conislocal, coninhcount, obj_description(oid))
    FROM pg_constraint WHERE conrelid = 'goods_1'::regclass
    UNION ALL
    SELECT concat_ws(' ', a.attname, a.atttypid::regtype, a.attcollation::regcollation, a.attnotnull, a.attstattarget,
               a.attstorage, a.attgenerated, a.attacl, pg_get_expr(d.adbin, d.adrelid),
               col_description(a.attrelid, a.attnum))
    FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
    WHERE a.attrelid = 'goods_1'::regclass AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT concat_ws(' ', pg_get_triggerdef(oid), tgenabled, obj_description(oid))
    FROM pg_trigger WHERE tgrelid = 'goods_1'::regclass
    UNION ALL
    SELECT concat_ws(' ', pg_get_statisticsobjdef(oid), obj_description(oid))
    FROM pg_statistic_ext WHERE stxrelid = 'goods_1'::regclass
    UNION ALL
    SELECT concat_ws(' ', relowner::regrole, reloptions, relreplident, pg_get_expr(relpartbound, oid),
               obj_description(oid), (SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest(relacl) acl))
    FROM pg_class WHERE oid = 'goods_1'::regclass
    ORDER BY 1"""


def test_p3_everything_on_the_partition_comes_back(db, root, role):
    owner, reader = role("owner"), role("reader")
    db.execute(f"""
        GRANT ALL ON SCHEMA public TO {owner}; GRANT USAGE ON FOREIGN SERVER cold TO {owner};
        CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
        CREATE SEQUENCE numbers;
        GRANT USAGE ON SEQUENCE numbers TO {owner};
        CREATE TABLE goods (
            id bigint GENERATED BY DEFAULT AS IDENTITY, at date NOT NULL, price numeric(10, 2) DEFAULT 1,
            tax numeric(10, 2) GENERATED ALWAYS AS (price * 0.2) STORED, name text COLLATE "C", amount int,
            PRIMARY KEY (id, at), CONSTRAINT price_is_positive CHECK (price >= 0)) PARTITION BY RANGE (at);
        CREATE INDEX goods_name ON goods (name DESC NULLS LAST) INCLUDE (price);
        CREATE TABLE goods_1 PARTITION OF goods (
            amount DEFAULT nextval('numbers') NOT NULL, UNIQUE (name, at), CONSTRAINT amount_range CHECK (amount > -5))
            FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') WITH (fillfactor = 80, autovacuum_enabled = off);
        CREATE INDEX goods_1_lower ON goods_1 (lower(name)) WHERE price > 0;
        CREATE INDEX goods_1_brin ON goods_1 USING brin (at) WITH (pages_per_range = 4);
        CREATE STATISTICS goods_1_stats (ndistinct) ON name, at FROM goods_1;
        CREATE TRIGGER touch BEFORE UPDATE OF price ON goods_1
            FOR EACH ROW WHEN (OLD.price <> NEW.price) EXECUTE FUNCTION touch();
        CREATE TRIGGER off AFTER INSERT ON goods_1 FOR EACH ROW EXECUTE FUNCTION touch();
        ALTER TABLE goods_1 DISABLE TRIGGER off;
        ALTER TABLE goods_1 ALTER COLUMN name SET STATISTICS 77, ALTER COLUMN name SET STORAGE EXTERNAL;
        ALTER TABLE goods_1 REPLICA IDENTITY FULL;
        COMMENT ON TABLE goods_1 IS 'it''s goods';
        COMMENT ON COLUMN goods_1.name IS 'a name';
        COMMENT ON INDEX goods_1_lower IS 'an index';
        COMMENT ON CONSTRAINT amount_range ON goods_1 IS 'a range';
        COMMENT ON TRIGGER touch ON goods_1 IS 'a trigger';
        COMMENT ON STATISTICS goods_1_stats IS 'correlated';
        ALTER TABLE goods OWNER TO {owner};
        ALTER TABLE goods_1 OWNER TO {owner};
        ALTER STATISTICS goods_1_stats OWNER TO {owner};
        GRANT SELECT, UPDATE ON goods_1 TO {reader} WITH GRANT OPTION;
        GRANT INSERT (name) ON goods_1 TO PUBLIC;
        INSERT INTO goods (at, price, name, amount)
            SELECT date '2024-01-01' + i, i, 'n' || i, i FROM generate_series(0, 99) i""")
    keep_truth(db, "goods_1")
    described = db.all(DESCRIBED)
    archive(db, "goods_1", drop_local="0")
    db.execute("SELECT reattach_partition('goods_1', writable => true)")
    assert db.all(DESCRIBED) == described
    assert_same_rows(db, "goods_1 x", "truth x", "x.*")
    # What is restored works: identity and generated column, the partition's own default, constraints.
    db.execute("INSERT INTO goods (at, price, name, amount) VALUES ('2024-05-05', 10, 'new', 7)")
    db.execute("INSERT INTO goods_1 (id, at, name) VALUES (500, '2024-06-06', 'direct')")
    assert db.value("SELECT concat_ws(' ', id, tax, amount) FROM goods WHERE name = 'new'") == "101 2.00 7"
    assert db.value("SELECT concat_ws(' ', tax, amount) FROM goods WHERE name = 'direct'") == "0.20 1"
    with pytest.raises(psycopg.errors.CheckViolation):
        db.execute("UPDATE goods_1 SET amount = -6")
    with pytest.raises(psycopg.errors.UniqueViolation):
        db.execute("INSERT INTO goods (id, at, amount) VALUES (1, '2024-01-01', 1)")


def test_p2_a_damaged_object_is_never_reattached(db, root):
    """Nor from a manifest that was changed, least of all with the SQL in it."""
    create_orders(db.conn, months=1)
    keep_truth(db, "orders_2024_01")
    archive(db, "orders_2024_01", drop_local="0")
    [data], [manifest] = root.rglob("*.parquet"), root.rglob("*.v1.json")
    intact, told = data.read_bytes(), manifest.read_bytes()

    def refused(error):
        with pytest.raises(error):
            db.execute("SELECT reattach_partition('orders_2024_01')")
        assert not db.exists("orders_2024_01")
        assert db.value("SELECT status FROM archive_ext.partitions") == "ARCHIVED"
        assert db.is_attached("archive.orders_2024_01", "archive.orders")

    data.write_bytes(intact[:100] + bytes([intact[100] ^ 0x55]) + intact[101:])
    refused(psycopg.errors.DataCorrupted)
    data.unlink()
    refused(psycopg.Error)
    data.write_bytes(intact)

    forged = json.loads(told)
    forged["ddl"]["comments"] = ["CREATE TABLE injected ()"]
    manifest.write_text(json.dumps(forged))
    refused(psycopg.errors.DataCorrupted)
    manifest.write_bytes(told)
    db.execute("SELECT reattach_partition('orders_2024_01')")
    assert_same_rows(db, "orders_2024_01", "truth")
    assert not db.exists("injected")


@pytest.fixture
def thief(db, cluster, root):
    """Another database with the same storage."""
    other = Database(cluster, f"{db.name}_thief")
    other.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    yield other
    other.drop()


def test_a_prefix_has_one_owner(db, root, role, thief):
    """The marker in the storage is asked at the first object of every job, whatever the catalog says."""
    create_orders(db.conn, months=2)
    keep_truth(db, "orders_2024_01")
    marker = root / "_archive_ext/owner.json"

    def files():
        return sorted(path for path in root.rglob("*") if path.is_file())

    def begin(partition):
        job = db.value("SELECT archive_ext.begin_archive(%s, NULL, 'content', '0')", [partition])
        step_to(job, "frozen")
        return job

    def step_to(job, phase):
        while db.value("SELECT phase FROM archive_ext.archive_step(%s)", [job]) != phase:
            pass

    thief.execute("SELECT adopt_storage('cold')")
    with pytest.raises(REFUSED, match="belongs to another cluster"):
        archive(db, "orders_2024_01", drop_local="0")
    assert files() == [marker]
    assert_untouched(db, "orders_2024_01", 1000)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        db.connect(role("nobody")).execute("SELECT adopt_storage('cold')")
    db.execute("SELECT adopt_storage('cold')")
    archive(db, "orders_2024_01", drop_local="0")

    # Taken over by somebody else: what is archived can be read, nothing can be written.
    thief.execute("SELECT adopt_storage('cold')")
    before = files()
    assert_same_rows(db, "archive.orders_2024_01", "truth")
    job = begin("orders_2024_02")
    with pytest.raises(REFUSED, match="belongs to another cluster"):
        step_to(job, "exported")
    assert files() == before
    db.execute("SELECT adopt_storage('cold')")
    step_to(job, "done")

    # A prefix without its marker is another place.
    marker.unlink()
    db.execute("SELECT reattach_partition('orders_2024_02', writable => true)")
    db.execute("UPDATE orders SET note = 'changed'")
    job = begin("orders_2024_02")
    with pytest.raises(REFUSED):
        step_to(job, "exported")
