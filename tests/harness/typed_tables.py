"""Partitioned tables of any column types: made, filled, compared byte for byte, and read from the files by DuckDB."""

import re

import duckdb
from psycopg import sql

ODD_SETTINGS = """
    SET datestyle = 'SQL, DMY'; SET intervalstyle = 'sql_standard'; SET timezone = 'America/St_Johns';
    SET bytea_output = 'escape'; SET extra_float_digits = -15; SET xmloption = 'document'; SET array_nulls = off;
    SET quote_all_identifiers = on; SET standard_conforming_strings = off; SET lc_monetary = 'C';
    SET archive_ext.default_storage = 'cold'"""
OTHER_ODD_SETTINGS = """
    SET datestyle = 'German'; SET intervalstyle = 'iso_8601'; SET timezone = 'Asia/Kathmandu'; SET xmloption = 'content';
    SET extra_float_digits = 0"""

IMAGE = re.compile(r"\\b[0-9a-f]+ ?")


def storage_of(db):
    """Makes the storage `cold`, a directory; returns it."""
    root = db.cluster.storage / db.name
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{root}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    db.execute(f'ALTER DATABASE "{db.name}" SET archive_ext.default_storage = \'cold\'')
    return root


def create_partitioned(db, table, columns, partitions=1, each=1000):
    """Columns k and (name, type, values)…; partitions TABLE_1… of `each` values of k."""
    db.execute(sql.SQL("CREATE TABLE {} (k int NOT NULL, {}) PARTITION BY RANGE (k)").format(
        sql.Identifier(table), sql.SQL(", ").join(sql.SQL("{} {}").format(sql.Identifier(n), sql.SQL(t))
                                                  for n, t, _ in columns)))
    for p in range(partitions):
        db.execute(f"CREATE TABLE {table}_{p + 1} PARTITION OF {table} FOR VALUES FROM ({p * each}) TO ({(p + 1) * each})")


def fill(db, table, columns, nullable=True):
    """One row for each value of the longest column, then a row of NULLs."""
    rows = max(len(values) for _, _, values in columns) + nullable
    statement = sql.SQL("INSERT INTO {} VALUES (%s, {})").format(
        sql.Identifier(table), sql.SQL(", ").join(sql.SQL(f"%s::{t.replace('%', '%%')}") for _, t, _ in columns))
    with db.conn.cursor() as cursor:
        cursor.executemany(statement, [
            [k, *(v[k] if k < len(v) else None if nullable else v[0] for _, _, v in columns)] for k in range(rows)])


SEND = """
    WITH RECURSIVE base AS (
        SELECT t.* FROM pg_type AS t WHERE oid = %s::regtype
        UNION ALL SELECT t.* FROM base JOIN pg_type AS t ON t.oid = base.typbasetype WHERE base.typtype = 'd')
    SELECT base.typsend::regproc::text, CASE WHEN argument.typtype = 'p' THEN base.oid ELSE argument.oid END::regtype::text
    FROM base JOIN pg_proc AS send ON send.oid = base.typsend JOIN pg_type AS argument ON argument.oid = send.proargtypes[0]
    WHERE base.typtype <> 'd'"""


def images(conn, column, type_, binary):
    """SQL for what must not change: whether it is NULL, the output text, the cast to text, the binary form."""
    c = sql.Identifier(column).as_string(conn)
    raw = conn.info.parameter_status("server_encoding") == "SQL_ASCII"  # any bytes: the client could not decode them
    text = "encode(convert_to({}, 'SQL_ASCII'), 'hex')" if raw else "{}"
    yield from (f"num_nulls({c})", text.format(f"concat({c})"), text.format(f"{c}::text"))
    if binary and not raw and (found := conn.execute(SEND, [type_]).fetchone()):
        send, argument = found
        yield f"encode({send}({c}::{argument}), 'hex')"


def dump(conn, table, columns, binary=True):
    """k -> {(column, image): text} of a table."""
    types = dict(conn.execute("SELECT attname::text, format_type(atttypid, NULL) FROM pg_attribute WHERE attrelid = %s::regclass",
                              [table]).fetchall())
    names = [(name, i, image) for name, _, _ in columns
             for i, image in enumerate(images(conn, name, types[name], binary))]
    rows = conn.execute(f"SELECT k, {', '.join(image for *_, image in names)} FROM {table} ORDER BY k".replace("%", "%%"))
    return {k: {(name, image): value for (name, _, image), value in zip(names, values, strict=True)}
            for k, *values in rows}


def differences(before, after, limit=3):
    """The first few values that are not what they were."""
    if list(before) != list(after):
        return [f"rows {short(list(before))} became {short(list(after))}"]
    changed = [(k, image, short(value), short(after[k][image])) for k, row in before.items()
               for image, value in row.items() if after[k][image] != value]
    return changed[:limit]


def short(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:150]}…{text[-100:]} ({len(text)} characters)"


def native_values(db, table, native):
    """Of column `c`: k -> what a reader of the native value should find."""
    return dict(db.all(f"SELECT k, {native.postgres.format('c')} FROM {table}"))


def in_file(files, native, expected, before):
    """DuckDB's type of column `c`. Fails unless each value is in the file, natively or as its text in the sidecar."""
    connection = duckdb.connect()
    source = f"read_parquet('{files}', hive_partitioning => false)"
    types = dict(connection.execute(f"SELECT column_name, column_type FROM (DESCRIBE SELECT * FROM {source})").fetchall())
    for column in types.keys() - {"k"}:
        if not column.endswith("__pg"):
            check_sidecar(connection, source, column, f"{column}__pg" if f"{column}__pg" in types else "NULL", before)
    for k, value in connection.execute(f"SELECT k, {native.duckdb.format('c')} FROM {source} WHERE c IS NOT NULL").fetchall():
        assert native.normal(value) == native.normal(expected[k]), f"row {k}: {short(value)} for {short(expected[k])}"
    return types["c"]


def check_sidecar(connection, source, column, sidecar, before):
    """Either the native column or the sidecar has a value, the sidecar PostgreSQL's text; neither where it is NULL."""
    found = connection.execute(f"SELECT k, {column} IS NULL, {sidecar} FROM {source} ORDER BY k").fetchall()
    assert [k for k, *_ in found] == list(before)
    for k, is_null, outlier in found:
        text = before[k][column, f'concat("{column}")'] if before[k][column, f'num_nulls("{column}")'] == 0 else None
        if outlier is not None and (image := IMAGE.match(outlier)):  # the datum's bytes, then its text if it has one
            outlier = outlier[image.end():] or text
        if outlier is not None or text is None:
            assert is_null and outlier == text, f"row {k}: sidecar of {column} has {short(outlier)} for {short(text)}"
        else:
            assert not is_null, f"row {k}: {column} is NULL for {short(text)}"


def create_edges(db, edges, more_columns=""):
    """The table `edges` with one column c0, c1, … for each type, one row for each edge, and a row of NULLs. Its columns."""
    columns = {f"c{i}": type_ for i, type_ in enumerate(edges)}
    db.execute("CREATE TABLE edges (id int NOT NULL, " + ", ".join(f"{c} {t}" for c, t in columns.items())
               + more_columns + ") PARTITION BY RANGE (id)")
    db.execute("CREATE TABLE edges_1 PARTITION OF edges FOR VALUES FROM (0) TO (1000)")
    for row in range(max(map(len, edges.values())) + 1):
        present = [(c, t, edges[t][row]) for c, t in columns.items() if row < len(edges[t])]
        db.execute(f"INSERT INTO edges ({', '.join(['id', *(c for c, _, _ in present)])})"
                   f" VALUES ({', '.join(['%s', *(f'%s::{t}' for _, t, _ in present)])})",
                   [row, *(v for _, _, v in present)])
    return columns
