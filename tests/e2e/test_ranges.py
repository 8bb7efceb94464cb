"""The lowest and the highest value that the catalog has of a column are those that PostgreSQL finds, in whatever order they came."""

import pytest

from harness.orders import archive
from harness.typed_tables import storage_of

ROWS = 9000  # more than a batch
# Values of each type that are hard to tell apart, and an expression of n for all the others.
COLUMNS = {
    "numeric(20,4)": (["NaN", "0", "0.0001", "-0.0001", "9999999999999999.9999", "-9999999999999999.9999"], "(n - 4500) / 7.0"),
    "numeric": (["Infinity", "-Infinity", "NaN", "0.00", "1e200", "-1e200", "1e-200"], "(n % 1000 - 500) * 10.0 ^ (n % 50 - 25)"),
    "float8": (["NaN", "Infinity", "-Infinity", "-0", "0", "5e-324", "-5e-324"], "(n - 4500) / 3.0"),
    "float4": (["NaN", "Infinity", "-Infinity", "-0", "0", "1e-45"], "(n - 4500) / 3.0"),
    "uuid": (["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000000",
              "ffffffff-ffff-ffff-ffff-fffffffffffe", "ffffffff-ffff-ffff-ffff-ffffffffffff"], "md5(n::text)::uuid"),
    'text COLLATE "C"': (["", "a", "customer", "customer \x01", "customer é", "customer \U0010ffff"], "'customer ' || n"),
    "text": (["", "a", "customer é"], "'customer ' || n"),
    "bytea": (["\\x", "\\x00", "\\x0000000000000000", "\\x000000000000000000", "\\xffffffffffffffff", "\\xffffffffffffffff00"],
              "decode(md5(n::text), 'hex')"),
    "int2": (["-32768", "32767"], "n % 30000"),
    "int8": (["-9223372036854775808", "9223372036854775807"], "n"),
    "bool": (["false"], "true"),
    "date": (["-infinity", "infinity", "4713-01-01 BC"], "date '2000-01-01' + n"),
    "timestamptz": (["-infinity", "infinity"], "timestamptz '2000-01-01Z' + n * interval '1 hour'"),
    "interval": (["30 days", "1 month", "720 hours", "-1 day"], "n * interval '1 second'"),
}
ORDERS = {"ascending": "v, n", "descending": "v DESC, n DESC", "mixed": "md5(n::text)"}


@pytest.mark.parametrize("pg_type", COLUMNS)
def test_ranges_are_what_postgresql_finds(db, pg_type):
    storage_of(db)
    odd, usual = COLUMNS[pg_type]
    db.execute("CREATE TABLE seen (part text NOT NULL, v " + pg_type + ") PARTITION BY LIST (part)")
    bare = pg_type.split()[0]
    values = f"SELECT n, CASE WHEN n % 4 = 0 THEN NULL ELSE ({usual})::{bare} END v FROM generate_series(1, {ROWS}) n"
    for taken in range(len(odd)):
        # Each of them is the lowest or the highest at one time, with those before it.
        some = odd[:taken + 1] if taken % 2 else odd[taken:]
        for order, by in ORDERS.items():
            part = f"{order}_{taken}"
            db.execute(f"CREATE TABLE {part} PARTITION OF seen FOR VALUES IN ('{part}')")
            db.execute(f"INSERT INTO {part} SELECT '{part}', v FROM ({values.replace('%', '%%')} UNION ALL"
                       f" SELECT n, v::{bare} FROM unnest(%s::text[]) WITH ORDINALITY o (v, n)) x ORDER BY {by}", [some])
            ends = [db.value(f"SELECT t.v::text FROM {part} t WHERE t.v IS NOT NULL ORDER BY t.v {way} LIMIT 1") for way in ("ASC", "DESC")]
            archive(db, part)
            found = db.row("SELECT r ->> 'min', r ->> 'max' FROM archive_ext.object o JOIN archive_ext.partition p ON p.id = o.partition_id,"
                           " jsonb_array_elements(o.ranges) r WHERE p.partition_name = %s AND r ->> 'field_id' = '2'", [part])
            # Values that are equal may look different: -0, 30 days.
            same = db.row(f"SELECT %s::{pg_type} = %s::{pg_type}, %s::{pg_type} = %s::{pg_type}",
                          [found[0], ends[0], found[1], ends[1]])
            assert same == (True, True), (part, found, ends)
