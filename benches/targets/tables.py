"""The tables that are measured."""

# Ten columns of the usual types, some 180 bytes a row.
COLUMNS = """id bigint NOT NULL, at timestamptz NOT NULL, n int, name text, amount numeric(12,2), ratio float8, done bool, key uuid,
             doc jsonb, note text"""

ROW = """n, timestamptz '2024-01-01Z' + n * interval '2 seconds', n % 1000, 'customer ' || n % 5000, n % 1000000 / 100.0,
         n / 7.0, n % 3 = 0, md5(n::text)::uuid,
         jsonb_build_object('n', n, 'level', n % 5, 'tags', jsonb_build_array('a', n % 17)), 'note ' || md5((n * 7)::text)"""

NO_JSON = ["id", "at", "n", "name", "amount", "ratio", "done", "key", "note"]


def create_reference(db, table, rows):
    """Table R: one partition `<table>_1` with `rows` rows, a primary key and an index, vacuumed and in the cache."""
    db.execute(f"CREATE TABLE {table} ({COLUMNS}, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)")
    db.execute(f"CREATE INDEX ON {table} (at)")
    db.execute(f"CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM ('2024-01-01Z') TO ('2034-01-01Z')")
    db.execute(f"INSERT INTO {table}_1 SELECT {ROW} FROM generate_series(1, {rows}) n")
    db.execute(f"VACUUM (FREEZE, ANALYZE) {table}_1")
    db.execute("CHECKPOINT")
