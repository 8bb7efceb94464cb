"""P5 in databases that are not UTF-8: every character, in values and in names; the files hold UTF-8 all the same."""

import itertools

import duckdb
import psycopg
import pytest

from harness.cluster import Database
from harness.orders import archive
from harness.typed_tables import differences, dump, storage_of

TEXT = {"LATIN1": "Größe ÿé½¿", "EUC_JP": "漢字かなカナ。", "WIN1251": "Жизнь Ёё№", "EUC_KR": "한국어", "SQL_ASCII": "漢字 äЖ😀"}
_numbers = itertools.count(1)


@pytest.fixture(params=TEXT)
def db(request, cluster):
    database = Database(cluster, f"encoding_{request.param.lower()}_{next(_numbers)}",
                        f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
    database.encoding, database.text, database.root = request.param, TEXT[request.param], storage_of(database)
    yield database
    database.drop()


def test_p5_values_and_names_in_other_encodings(db):
    t, word = db.text, db.text[:4].strip()
    db.execute(f"""
        CREATE TYPE "e{word}" AS ENUM ('{t}', 'a', ''); CREATE DOMAIN "d{word}" AS text;
        CREATE TYPE "r{word}" AS ("{word}" text, e "e{word}", l text[], "{word}__pg" numeric(4,1));
        CREATE TABLE "t{word}" (k int NOT NULL, "{word}" text, v varchar(40), n name, ch char(40), j json, jb jsonb,
            a text[], e "e{word}", r "r{word}", ra "r{word}"[], d "d{word}", x xml, ts tsvector, b bytea) PARTITION BY RANGE (k);
        CREATE TABLE "t{word}_1" PARTITION OF "t{word}" FOR VALUES FROM (0) TO (1000);
        COMMENT ON TABLE "t{word}_1" IS '{t}'""")
    as_json = f'{{"{t}": ["{t}"]}}'
    array, two = f'{{"{t}",NULL,""}}', f'[0:0][1:2]={{{{"{t}","{t}"}}}}'
    row = f'("{t}","{t}","{{""{t}""}}",NaN)'
    for k, (r, a) in enumerate([(row, array), (row, two), ("(,,,)", "{}")]):
        db.execute(f'INSERT INTO "t{word}" VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, ARRAY[%s, NULL]::"r{word}"[], %s, %s,'
                   " %s, '\\x00ff')", [k, t, t, t, t, as_json, as_json, a, t, r, r, t, f"<a>{t}</a>", f"'{t}':1"])
    db.execute(f'INSERT INTO "t{word}" VALUES (999)')
    columns = [(c, None, None) for c in [word, "v", "n", "ch", "j", "jb", "a", "e", "r", "ra", "d", "x", "ts", "b"]]
    before = dump(db.conn, f'"t{word}"', columns)

    db.execute("SELECT archive_partition(%s, verify => 'deep', drop_local => '0')", [f'"t{word}_1"'])
    assert differences(before, dump(db.conn, f'archive."t{word}"', columns)) == []
    found = f'SELECT count(*) FROM {{}} WHERE "{word}" = %s AND e = %s AND d >= %s'
    assert db.value(found.format(f'archive."t{word}"'), [t, t, t]) == 3
    files = [str(f) for f in db.root.rglob("*.parquet")]
    names = [c for c, *_ in duckdb.execute(f"DESCRIBE SELECT * FROM read_parquet({files})").fetchall()]
    assert names[1] == word
    assert duckdb.execute(f'SELECT "{word}", e FROM read_parquet({files}) WHERE k = 0').fetchone() == (t, t)

    db.execute("SELECT reattach_partition(%s)", [f'"t{word}_1"'])
    assert differences(before, dump(db.conn, f'"t{word}"', columns)) == []
    assert db.value(f"SELECT obj_description('\"t{word}_1\"'::regclass)") == t


def test_p5_every_character_of_the_encoding(db):
    """Some are valid and yet have no Unicode equivalent: those come back too, or the run is refused."""
    db.execute("""
        CREATE FUNCTION in_unicode(c text) RETURNS bool LANGUAGE plpgsql AS
            'BEGIN PERFORM convert_to(c, ''UTF8''); RETURN true; EXCEPTION WHEN others THEN RETURN false; END';
        CREATE FUNCTION character_of(b bytea) RETURNS text LANGUAGE plpgsql AS
            'BEGIN RETURN convert_from(b, getdatabaseencoding()); EXCEPTION WHEN others THEN RETURN NULL; END';
        CREATE TABLE characters AS
            SELECT c FROM (SELECT character_of(substr(int4send(n), 4)) AS c FROM generate_series(1, 255) AS n
                 UNION ALL SELECT character_of(substr(int4send(n), 3)) FROM generate_series(161, 254) AS a,
                                                                         generate_series(a * 256 + 161, a * 256 + 254) AS n) AS s
            WHERE c IS NOT NULL""")
    if db.encoding == "SQL_ASCII":
        db.execute("DELETE FROM characters WHERE length(c) > 1; CREATE TABLE kinds AS SELECT c, c < E'\\x80' AS mapped FROM characters")
    else:
        db.execute("CREATE TABLE kinds AS SELECT c, in_unicode(c) AS mapped FROM characters")
    image = "SELECT k, encode(convert_to(c, getdatabaseencoding()), 'hex'), encode(convert_to(a::text, getdatabaseencoding()), 'hex') FROM {} ORDER BY k"
    for mapped in [True, False]:
        table = f"characters_{mapped}".lower()
        db.execute(f"""
            CREATE TABLE {table} (k int NOT NULL, c text, a text[]) PARTITION BY RANGE (k);
            CREATE TABLE {table}_1 PARTITION OF {table} FOR VALUES FROM (0) TO (100000);
            INSERT INTO {table} SELECT row_number() OVER (), c, ARRAY[[c]] FROM kinds WHERE mapped = {mapped}""")
        before = db.all(image.format(table))
        try:
            archive(db, f"{table}_1", drop_local="0")
        except psycopg.Error as refused:
            assert not mapped, refused
            assert "column" in str(refused) or "encoding" in str(refused)
            assert db.all(image.format(table)) == before
            continue
        assert db.all(image.format(f"archive.{table}")) == before
        db.execute("SELECT reattach_partition(%s)", [f"{table}_1"])
        assert db.all(image.format(table)) == before
