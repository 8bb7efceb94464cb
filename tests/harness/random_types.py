"""Random types, and random values of them, for the property test. Everything follows from the `random.Random` given."""

import datetime
import json
import math
import string
import struct
import uuid
from dataclasses import dataclass, field

from type_corpus import array_literal, row_literal

# With a default btree operator class, and equal when printed equal: what a range can be made over.
ORDERED = ["integer", "bigint", "double precision", "numeric", "text", "timestamp with time zone", "date", "interval",
           "time with time zone", "uuid", "inet", "bytea", "name", '"char"', "money", "bit varying", "jsonb"]


@dataclass
class Made:
    """A type and how to make a literal of it (None is NULL)."""
    name: str
    literal: object
    binary: bool = True
    delimiter: str = ","
    is_array: bool = False
    ddl: list = field(default_factory=list)  # what has to be created before, in order


class Maker:
    """Types of one case; their names carry its number."""

    def __init__(self, rng, case, alphabet, scalars):
        """`scalars`: (type of the corpus, those of its values that the database takes)."""
        self.rng, self._prefix, self._alphabet, self._made = rng, f"case_{case}", alphabet, 0
        self._scalars = scalars

    def type(self, depth=3):
        kinds = [self.scalar] * 8 if depth else [self.scalar]
        if depth:
            kinds += [self.array] * 4 + [self.composite] * 2 + [self.domain, self.enum, self.range]
        return self.rng.choice(kinds)(depth)

    def _name(self, kind):
        self._made += 1
        return f"{self._prefix}_{kind}_{self._made}"

    def scalar(self, _depth=0, names=None):
        chosen, corpus = self.rng.choice([s for s in self._scalars if names is None or s[0].name in names])
        invent = INVENT.get(chosen.name)

        def literal():
            if invent and self.rng.random() < 0.5:
                return invent(self.rng, self._alphabet)
            return self.rng.choice(corpus)

        return Made(chosen.name, literal, chosen.binary, chosen.delimiter)

    def array(self, depth):
        element = self.type(depth - 1)
        if element.is_array:
            element = self._domain_over(element)
        rng = self.rng

        def literal():
            if rng.random() < 0.1:
                return "{}"
            lengths = [rng.choice([1, 1, 2, 3, 10]) for _ in range(rng.choice([1, 1, 1, 1, 2, 3]))]
            nulls = rng.choice([0, 0, 0.3, 1])
            text = array_literal(nest(lengths, lambda: None if rng.random() < nulls else element.literal()),
                                 element.delimiter)
            if rng.random() < 0.2:
                lower = [rng.randint(-3, 3) for _ in lengths]
                text = "".join(f"[{n}:{n + length - 1}]" for n, length in zip(lower, lengths)) + "=" + text
            return text

        return Made(f"{element.name}[]", literal, element.binary, element.delimiter, is_array=True, ddl=element.ddl)

    def composite(self, depth):
        name = self._name("row")
        parts = [self.type(depth - 1) for _ in range(self.rng.choice([0, 1, 1, 2, 3, 5]))]
        ddl = [statement for part in parts for statement in part.ddl]
        attributes = [f'"{self.rng.choice(["a", "A", "a b", "element", "__pg"])}{i}" {part.name}'
                      for i, part in enumerate(parts)]
        ddl.append(f"CREATE TYPE {name} AS ({', '.join(attributes)})")
        if parts and self.rng.random() < 0.2:
            ddl += [f"ALTER TYPE {name} ADD ATTRIBUTE gone text", f"ALTER TYPE {name} DROP ATTRIBUTE gone"]

        def literal():
            return row_literal([None if self.rng.random() < 0.2 else part.literal() for part in parts])

        return Made(name, literal, all(part.binary for part in parts), ddl=ddl)

    def domain(self, depth):
        return self._domain_over(self.type(depth - 1))

    def _domain_over(self, base):
        name = self._name("domain")
        check = self.rng.choice(["", " CHECK (true)", " CHECK (VALUE IS DISTINCT FROM NULL OR true)"])
        return Made(name, base.literal, base.binary, base.delimiter,
                    ddl=[*base.ddl, f"CREATE DOMAIN {name} AS {base.name}{check}"])

    def enum(self, _depth):
        name = self._name("enum")
        labels = list({text(self.rng, self._alphabet)[:15] for _ in range(self.rng.randint(1, 12))})
        listed = ", ".join("'" + label.replace("'", "''") + "'" for label in labels)
        return Made(name, lambda: self.rng.choice(labels), ddl=[f"CREATE TYPE {name} AS ENUM ({listed})"])

    def range(self, _depth):
        """Bounds that need no comparing: one value, or none, on either side."""
        name, subtype = self._name("range"), self.scalar(names=ORDERED)

        def literal():
            bound = '"' + subtype.literal().replace("\\", "\\\\").replace('"', '""') + '"'
            one = self.rng.choice(["empty", "(,)", f"[{bound},{bound}]", f"[{bound},)", f"(,{bound})", f"(,{bound}]"])
            return one if not multi else "{}" if self.rng.random() < 0.2 else "{" + one + "}"

        multi = self.rng.random() < 0.3
        return Made(name.replace("range", "multirange") if multi else name, literal, subtype.binary,
                    ddl=[f"CREATE TYPE {name} AS RANGE (subtype = {subtype.name})"])


def nest(lengths, make):
    return [nest(lengths[1:], make) if lengths[1:] else make() for _ in range(lengths[0])]


def text(rng, alphabet):
    some = alphabet or string.printable + "\\\"'{}(),äöü€😀\u0301\ufeff\u200bЖ漢字" + chr(rng.randint(0x10000, 0x10FFFF))
    return "".join(rng.choice(some) for _ in range(rng.choice([0, 1, 3, 10, 40])))


def integer(bits):
    return lambda rng, _: str(rng.randint(-(1 << bits - 1), (1 << bits - 1) - 1) >> rng.randrange(bits))


def floating(code, bits):
    def invent(rng, _):
        [value] = struct.unpack(code, rng.getrandbits(bits).to_bytes(bits // 8, "big"))
        return "NaN" if math.isnan(value) else repr(value).replace("inf", "Infinity")
    return invent


def numeric(precision, scale):
    def invent(rng, _):
        digits = "".join(rng.choice("0059") if rng.random() < 0.3 else rng.choice(string.digits)
                         for _ in range(rng.randint(1, precision)))
        places = rng.randint(0, min(scale, len(digits)))
        whole, fraction = digits[:len(digits) - places][-(precision - scale):] or "0", digits[len(digits) - places:]
        return rng.choice(["", "-"]) + whole + ("." + fraction if fraction else "")
    return invent


def moment(zone):
    def invent(rng, _):
        at = datetime.datetime(1, 1, 2) + datetime.timedelta(microseconds=rng.randrange(315_000_000_000_000_000))
        return at.isoformat(sep=" ") + zone
    return invent


def interval(rng, _):
    return (f"{rng.randint(-2**31, 2**31 - 1) >> rng.randrange(31)} mons {rng.randint(-2**31, 2**31 - 1) >> rng.randrange(31)}"
            f" days {rng.randint(-2**62, 2**62) >> rng.randrange(62)} microseconds")


def document(rng, alphabet, depth=3):
    kind = rng.randrange(7 if depth else 5)
    if kind == 5:
        return [document(rng, alphabet, depth - 1) for _ in range(rng.randrange(4))]
    if kind == 6:
        return {plain(rng, alphabet): document(rng, alphabet, depth - 1) for _ in range(rng.randrange(4))}
    return [None, True, rng.randint(-10**20, 10**20), rng.random() * 10 ** rng.randint(-300, 300), plain(rng, alphabet)][kind]


def plain(rng, alphabet):
    return text(rng, alphabet).replace("\x00", "")


def json_text(rng, alphabet):
    return json.dumps(document(rng, alphabet), ensure_ascii=rng.random() < 0.3 and alphabet is None,
                      indent=rng.choice([None, 1]))


def inet(rng, _):
    return f"{'.'.join(str(rng.randrange(256)) for _ in range(4))}/{rng.randrange(33)}"


INVENT = {
    "smallint": integer(16), "integer": integer(32), "bigint": integer(64), "real": floating(">f", 32),
    "double precision": floating(">d", 64), "numeric": numeric(60, 20), "numeric(9,2)": numeric(9, 2),
    "numeric(18,3)": numeric(18, 3), "numeric(38,0)": numeric(38, 0), "numeric(38,10)": numeric(38, 10),
    "numeric(1000,500)": numeric(1000, 500), "text": text, "character varying": text, "bpchar": text,
    "bytea": lambda rng, _: "\\x" + rng.randbytes(rng.choice([0, 1, 5, 100])).hex(),
    "date": lambda rng, _: str(datetime.date.fromordinal(rng.randrange(1, 3_652_059))),
    "time without time zone": lambda rng, _: moment("")(rng, _)[11:],
    "time with time zone": lambda rng, _: moment("")(rng, _)[11:] + f"{rng.randint(-15, 15):+03}:{rng.randrange(60):02}",
    "timestamp without time zone": moment(""), "timestamp with time zone": moment("+00"), "interval": interval,
    "uuid": lambda rng, _: str(uuid.UUID(int=rng.getrandbits(128))), "json": json_text, "jsonb": json_text, "inet": inet,
    "bit varying": lambda rng, _: "".join(rng.choice("01") for _ in range(rng.randrange(70))),
    "oid": lambda rng, _: str(rng.getrandbits(32)), "money": lambda rng, _: f"{rng.getrandbits(50) / 100:.2f}",
    "pg_lsn": lambda rng, _: f"{rng.getrandbits(32):X}/{rng.getrandbits(32):X}", "hstore": lambda rng, alphabet: ", ".join(
        f"{json.dumps(plain(rng, alphabet), ensure_ascii=False)}=>NULL" for _ in range(3)).replace("\\n", "n"),
}
