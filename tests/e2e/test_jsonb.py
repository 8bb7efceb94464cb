"""jsonb is read from its bytes, and made of its text, without its output and input function: what is archived must be just what the one
prints, and what comes back, to the last byte, what the other makes of that (P5)."""

import json
import random

import pytest

from harness.cluster import Cluster, Database

SPECIAL = ["", "\"", "\\", "\b\f\n\r\t", "\x01\x1f\x7f", "ä€𝄞", "\u2028", "a" * 200, "'", "/", "null"]
NUMBERS = ["0", "-0", "0.000", "-1.50", "1e400", "1e-400", "123456789012345678901234567890.0123456789", "9999", "10000", "0.0001", "1E2",
           "-99999999", "3.14159265358979", "1" + "0" * 300 + ".5"]


def document(rng, depth=0):
    """JSON text: values of every kind, many keys and elements, so that offsets are used as well as lengths."""
    kind = rng.randrange(10 if depth < 5 else 7)
    if kind < 2:
        return rng.choice(NUMBERS) if rng.random() < 0.5 else str(rng.randrange(-10**9, 10**9) / 10 ** rng.randrange(6))
    if kind < 4:
        return json.dumps(rng.choice(SPECIAL) + str(rng.random())[: rng.randrange(20)], ensure_ascii=rng.random() < 0.5).replace("\\u0000", "")
    if kind < 7:
        return rng.choice(["true", "false", "null"])
    size = rng.choice([0, 1, 2, 3, 40])
    if kind < 8 or depth > 2:
        size = min(size, 40 if depth < 2 else 5)
    if kind % 2:
        return "[" + ",".join(document(rng, depth + 1) for _ in range(size)) + "]"
    keys = (json.dumps(rng.choice(SPECIAL) + str(rng.randrange(50))) for _ in range(size))
    return "{" + ",".join(f"{key}:{document(rng, depth + 1)}" for key in keys) + "}"


def documents(seed):
    rng = random.Random(seed)
    return [document(rng) for _ in range(3000)] + [
        "[" * 300 + "1" + "]" * 300, json.dumps({"k": ["x" * 1000] * 200}), json.dumps(list(range(5000))),
        json.dumps({f"key {n}": {"n": n, "text": "\n" * (n % 7)} for n in range(2000)}),
    ]


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("encoding", ["UTF8", "LATIN1", "SQL_ASCII"])
def test_p5_jsonb_is_archived_as_postgresql_prints_it(cluster, encoding):
    db = Database(cluster, f"json_{encoding.lower()}", f"ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0")
    db.execute(f"CREATE SERVER cold FOREIGN DATA WRAPPER archive_fdw OPTIONS (location 'file://{cluster.storage / db.name}')")
    db.execute("SET archive_ext.default_storage = 'cold'")
    texts = documents(encoding)
    if encoding != "UTF8":
        texts = [text.encode("latin-1", "ignore").decode("latin-1") for text in texts if "\\u" not in text or text.isascii() and "\\ud8" not in text]
        texts = [text for text in texts if all(int(part[:4], 16) < (256 if encoding == "LATIN1" else 128) for part in text.split("\\u")[1:])]
        texts = [text for text in texts if text.isascii() or encoding == "LATIN1"]
    db.execute("CREATE DOMAIN doc AS jsonb CHECK (VALUE IS NOT NULL)")
    db.execute("CREATE TABLE t (id int, j jsonb, d doc, l jsonb[], at date) PARTITION BY RANGE (at)")
    db.execute("CREATE TABLE t_1 PARTITION OF t FOR VALUES FROM ('2024-01-01') TO ('2025-01-01')")
    with db.conn.cursor().copy("COPY t FROM STDIN") as copy:
        for number, text in enumerate(texts):
            copy.write_row([number, text, text, None, "2024-01-01"])
    db.execute("UPDATE t SET l = ARRAY[j, NULL, '1.0'] WHERE id % 3 = 0")
    # A hash of the bytes in memory, which PostgreSQL's comparison of documents does not see all of.
    db.execute("CREATE FUNCTION image(jsonb, bigint) RETURNS bigint LANGUAGE internal IMMUTABLE STRICT AS 'hashvarlenaextended'")
    db.execute("CREATE FUNCTION images(jsonb[]) RETURNS text LANGUAGE sql AS 'SELECT string_agg(image(e, 0)::text, '','') FROM unnest($1) e'")
    row = "id, j::text, d::text, l::text, image(j, 0) AS of_j, image(d, 0) AS of_d, images(l) AS of_l"
    db.execute(f"CREATE TABLE truth AS SELECT {row} FROM t")
    assert db.value("SELECT count(*) FROM truth") > 1000

    db.execute("SELECT archive_partition('t_1', drop_local => '0')")

    wrong = (f"SELECT id FROM truth u FULL JOIN (SELECT {row} FROM {{}}) a USING (id)"
             " WHERE (u.j, u.d, u.l, u.of_j, u.of_d, u.of_l) IS DISTINCT FROM (a.j, a.d, a.l, a.of_j, a.of_d, a.of_l)")
    assert db.all(wrong.format("archive.t")) == []
    db.execute("SELECT reattach_partition('t_1')")
    assert db.all(wrong.format("t")) == []
    db.drop()
