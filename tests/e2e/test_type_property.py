"""P5 as a property: thousands of random tables of random types are archived, queried, reattached, and stay the same.

`make test-heavy` runs more of them; ARCHIVE_EXT_CASES says how many, ARCHIVE_EXT_SEED where the dice start.
"""

import os
import random
import time
import traceback

import psycopg
import pytest
from psycopg import sql

from harness.cluster import Database
from harness.random_types import Maker
from harness.typed_tables import ODD_SETTINGS, OTHER_ODD_SETTINGS, differences, dump, storage_of
from type_corpus import SETUP, TYPES

SEED = int(os.environ["ARCHIVE_EXT_SEED"])
CASES = int(os.environ["ARCHIVE_EXT_CASES"])
EXTENSIONS = ["hstore", "citext", "ltree", "cube", "seg", "isn", "intarray", "lo", "earthdistance"]
# encoding -> some of its characters
ENCODINGS = {
    "UTF8": None,
    "LATIN1": "aZ 09\\\"'{},()äöüßÿé½¿",
    "EUC_JP": "aZ 09\\\"'{},()漢字かなカナ。ｱ",
    "WIN1251": "aZ 09\\\"'{},()ЖжЯяЁё№",
    "SQL_ASCII": "aZ 09\\\"'{},()漢字äЖ😀",
}
PER_PARTITION = 10_000
LONGEST_VALUE = 300
FAILURES_SHOWN = 10


@pytest.fixture(scope="module", params=ENCODINGS)
def db(request, cluster):
    options = "" if request.param == "UTF8" else \
        f"ENCODING '{request.param}' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0"
    database = Database(cluster, f"property_{request.param.lower()}", options)
    if request.param == "UTF8":
        for extension in EXTENSIONS:
            database.execute(f"CREATE EXTENSION {extension} CASCADE")
        for statement in SETUP.strip().split(";\n"):
            database.execute(statement)
    # What enum_send() gives is in the client's encoding, but in a parallel worker in the database's.
    database.execute(f"ALTER DATABASE {database.name} SET max_parallel_workers_per_gather = 0")
    database.execute("SET max_parallel_workers_per_gather = 0")
    database.encoding = request.param
    database.scalars = [(t, values) for t in TYPES if t.nullable and (values := accepted(database, t))]
    storage_of(database)
    yield database
    database.drop()


def accepted(db, type_):
    """Those values of the corpus that fit this database's encoding and are not too long."""
    return [v for v in type_.values if len(v) <= LONGEST_VALUE and is_accepted(db, type_.name, v)]


def is_accepted(db, type_, value):
    """A cast cuts what is too long; within arrays and rows, where the input function reads it, that is an error."""
    try:
        if type_.startswith(("character", "bit")) and not type_.endswith("[]"):
            db.execute(f"SELECT (ARRAY[%s::text])::text::{type_}[]", [value])
        return db.value(f"SELECT concat(%s::{type_}) IS NOT NULL", [value])
    except psycopg.Error:
        return False


def test_p5_random_tables(db):
    cases(db, 160 if db.encoding == "UTF8" else 30)


@pytest.mark.heavy
@pytest.mark.timeout(0)
def test_p5_thousands_of_random_tables(db):
    cases(db, CASES if db.encoding == "UTF8" else CASES // 10)


def cases(db, count):
    began, failed = time.monotonic(), []
    for case in range(count):
        random_case = Case(db, case)
        try:
            random_case.run()
        except (psycopg.Error, AssertionError):
            failed.append(f"case {case} of seed {SEED} in {db.encoding}\n{random_case.ddl}\n{traceback.format_exc(limit=-2)}")
            if len(failed) == FAILURES_SHOWN:
                break
    print(f"{db.encoding}: {case + 1} cases in {time.monotonic() - began:.0f} s")
    assert not failed, "\n\n".join(failed)


class Case:
    """One partitioned table with a few partitions."""

    def __init__(self, db, number):
        self._db, self._rng = db, random.Random(f"{SEED} {number}")
        self._table = f"random_{number}"
        alphabet = ENCODINGS[db.encoding]
        maker = Maker(self._rng, number, alphabet, db.scalars)
        self._types = [maker.type() for _ in range(self._rng.choice([1, 2, 3, 5, 8]))]
        self._names = [self._name(i, alphabet) for i in range(len(self._types))]
        self._partitions = [f"{self._table}_{p}" for p in range(self._rng.choice([1, 2, 3]))]
        self._ddl = list(self._statements())
        self.ddl = ";\n".join(self._ddl)

    def _name(self, number, alphabet):
        odd = ["c", "C ", "c__pg", 'q"', "x" * 60, alphabet[-2] if alphabet else "ä"]
        return f"{self._rng.choice(odd)}{number}"

    def _statements(self):
        for type_ in self._types:
            yield from type_.ddl
        columns = ", ".join(f"{sql.Identifier(n).as_string(self._db.conn)} {t.name}"
                            for n, t in zip(self._names, self._types))
        yield f"CREATE TABLE {self._table} (k int NOT NULL, {columns}) PARTITION BY RANGE (k)"
        for p, name in enumerate(self._partitions):
            yield (f"CREATE TABLE {name} PARTITION OF {self._table}"
                   f" FOR VALUES FROM ({p * PER_PARTITION}) TO ({(p + 1) * PER_PARTITION})")

    def run(self):
        for statement in self._ddl:
            self._db.execute(statement)
        for p in range(len(self._partitions)):
            self._fill(p)
        binary = all(t.binary for t in self._types)
        columns = [(name, None, None) for name in self._names]
        self._db.execute(f"CREATE TABLE {self._table}_truth AS SELECT * FROM {self._table}")
        before = dump(self._db.conn, self._table, columns, binary)
        with self._db.conn.transaction():
            self._db.execute(self._rng.choice(["SELECT 1", ODD_SETTINGS, OTHER_ODD_SETTINGS]).replace("SET ", "SET LOCAL "))
            self._db.execute("SELECT archive_partitions(%s::regclass[], drop_local => '0')", [self._partitions])
        self._same(before, f"archive.{self._table}", columns, binary, "queried")
        for name in self._partitions:
            self._db.execute("SELECT reattach_partition(%s)", [name])
        self._same(before, self._table, columns, binary, "reattached")

    def _fill(self, partition):
        rng, rows = self._rng, self._rng.choice([0, 1, 2, 5, 20, 100])
        nulls = [rng.choice([0, 0.1, 0.9, 1]) for _ in self._types]
        statement = f"INSERT INTO {self._table} VALUES (%s, {', '.join(f'%s::{t.name}' for t in self._types)})"
        with self._db.conn.cursor() as cursor:
            cursor.executemany(statement, [
                [partition * PER_PARTITION + k, *(None if rng.random() < null else t.literal()
                                                  for t, null in zip(self._types, nulls))] for k in range(rows)])
        if rows and rng.random() < 0.05:  # across batches and row groups
            self._db.execute("SET archive_ext.row_group_rows = 1000")
            columns = sql.SQL(", ").join(map(sql.Identifier, self._names))
            self._db.execute(sql.SQL("INSERT INTO {0} SELECT k + n * {1}, {2} FROM {3}, generate_series(1, {4}) AS n").format(
                sql.Identifier(self._table), sql.Literal(rows), columns, sql.Identifier(self._partitions[partition]),
                sql.Literal(rng.choice([1000, 1024, 2500]) // rows)))

    def _same(self, before, table, columns, binary, step):
        different = differences(before, dump(self._db.conn, table, columns, binary))
        assert not different, f"{step}: {different}"
        rows = [", ".join(f"{side}.{sql.Identifier(name).as_string(self._db.conn)}" for name in self._names) for side in "ot"]
        images = self._db.all(f"SELECT k FROM {table} AS o JOIN {self._table}_truth AS t USING (k)"
                              f" WHERE NOT record_image_eq(ROW({rows[0]}), ROW({rows[1]})) LIMIT 3")
        assert not images, f"{step}: prints alike but is not the same bytes, k = {images}"
