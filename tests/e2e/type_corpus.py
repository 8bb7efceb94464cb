"""The fixed corpus: every type that a column can have, with the values at which archiving it goes wrong.

`Type.values` are literals, as the type's input function reads them; `shapes()` makes arrays, composites and domains of
each. What other engines see of a natively stored type is compared through `Type.native`.
"""

import json
import struct
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple


class Native(NamedTuple):
    """A natively stored value, brought to the same text by PostgreSQL and by DuckDB; `normal` evens out the rest."""
    postgres: str
    duckdb: str
    normal: object = str


TEXT = Native("concat({})", "CAST({} AS VARCHAR)")
STORED = Native("{}::text", "CAST({} AS VARCHAR)")
BOOL = Native("{}::text", "CAST({} AS VARCHAR)")
FLOAT4 = Native("{}", "{}", lambda v: struct.pack(">f", v).hex())
FLOAT8 = Native("{}", "{}", lambda v: struct.pack(">d", v).hex())
DECIMAL = Native("{}", "CAST({} AS VARCHAR)", lambda v: str(Decimal(v)))
BYTES = Native("encode({}, 'hex')", "lower(hex({}))")
DATE = Native("trunc(extract(epoch FROM {}) / 86400)::text", "date_diff('day', DATE '1970-01-01', {})")
EPOCH = Native("trunc(extract(epoch FROM {}) * 1000000)::text", "epoch_us({})")
OID = Native("{}::oid::text", "CAST({} AS VARCHAR)")
NAMED_OID = Native("{}::oid::text", "CAST({}.oid AS VARCHAR)")
CENTS = Native("({}::numeric * 100)::numeric(30)::text", "CAST({} AS VARCHAR)")
INTERVAL = Native(
    "concat_ws(' ', extract(year FROM {0}) * 12 + extract(month FROM {0}), extract(day FROM {0}),"
    " (extract(hour FROM {0}) * 3600000000 + extract(minute FROM {0}) * 60000000"
    " + extract(microseconds FROM {0}))::numeric(30))",
    "concat_ws(' ', {0}.months, {0}.days, {0}.micros)")


def parts(value):
    """Of a JSON document, without the names: attributes that differ in case only get other ones in Parquet."""
    document = json.loads(value, parse_float=Decimal) if isinstance(value, str) else value
    if isinstance(document, dict):
        document = list(document.values())
    return [parts(v) if isinstance(v, (dict, list)) else v for v in document]


STRUCT = Native("to_json({})::text", "CAST(to_json({}) AS VARCHAR)", parts)

LEAF = Native("concat_ws('|', ({0}).id, ({0}).label, trunc(extract(epoch FROM ({0}).at) * 1000000))",
              "concat_ws('|', {0}.id, {0}.label, epoch_us({0}.at))")
TREE = Native("concat_ws('|', cardinality(({0}).leaves), (({0}).best).id, cardinality(({0}).weights))",
              "concat_ws('|', len({0}.leaves), {0}.best.id, len({0}.weights))")
NASTY_PARTS = Native(
    "concat_ws('|', ({0}).n, (({0}).f = 0)::text, trunc(extract(epoch FROM ({0}).t) * 1000000), ({0}).d, ({0}).j, ({0}).e,"
    " extract(second FROM ({0}).i)::int, ({0}).x, ({0}).r, encode(({0}).b, 'hex'), ({0}).ch)",
    "concat_ws('|', {0}.n, {0}.f = 0, epoch_us({0}.t), {0}.d, {0}.j, {0}.e, {0}.i.micros // 1000000, {0}.x, {0}.r,"
    " lower(hex({0}.b)), {0}.ch)")


@dataclass(frozen=True)
class Type:
    name: str
    values: tuple
    native: Native = TEXT
    binary: bool = True  # has a send function
    delimiter: str = ","
    nullable: bool = True

    def __str__(self):
        return self.name


SETUP = r"""
CREATE TYPE odd_enum AS ENUM ('plain', 'it''s', 'a,b', 'back\slash', ' blank ', 'NULL', '{}', '"quoted"', 'ünï€😀', 'last');
ALTER TYPE odd_enum ADD VALUE 'between' BEFORE 'last';
ALTER TYPE odd_enum ADD VALUE 'first' BEFORE 'plain';
CREATE TYPE no_labels AS ENUM ();

CREATE DOMAIN positive AS int CHECK (VALUE > 0);
CREATE DOMAIN lower_text AS text CHECK (VALUE ~ '^[a-z]*$');
CREATE DOMAIN short_text AS varchar(5);
CREATE DOMAIN price AS numeric(12,2);
CREATE DOMAIN two_ints AS int[] CHECK (cardinality(VALUE) = 2);
CREATE DOMAIN enum_domain AS odd_enum CHECK (VALUE <> 'last');
CREATE DOMAIN smaller AS positive CHECK (VALUE < 100);
CREATE DOMAIN range_domain AS int4range;
CREATE DOMAIN json_domain AS jsonb;
CREATE DOMAIN never_null AS int NOT NULL;
CREATE DOMAIN icu_text AS text COLLATE "und-x-icu";
CREATE COLLATION insensitive (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
CREATE DOMAIN insensitive_text AS text COLLATE insensitive;

CREATE TYPE pair AS (a int, b text);
CREATE DOMAIN pair_domain AS pair CHECK ((VALUE).a IS NULL OR (VALUE).a < 1000);
CREATE TYPE nested AS (p pair, q pair, n int);
CREATE TYPE leaf AS (id positive, label lower_text, at timestamptz);
CREATE TYPE tree AS (leaves leaf[], best leaf, weights numeric(8,3)[]);
CREATE TYPE nothing AS ();
CREATE TYPE single AS (v text);
CREATE TYPE with_dropped AS (a int, gone text, b int);
ALTER TYPE with_dropped DROP ATTRIBUTE gone;
ALTER TYPE with_dropped ADD ATTRIBUTE added text;
CREATE TYPE odd_names AS ("A" int, a int, "a b" text, "a__pg" text, "ü""," int, element int);
CREATE TYPE nasty_parts AS (n numeric(5,2), f float8, t timestamptz, d date, j json, e odd_enum, i interval, x numeric,
    r int4range, b bytea, ch char(3));
CREATE TABLE a_table (id int, gone int, label text, doubled int GENERATED ALWAYS AS (id * 2) STORED);
ALTER TABLE a_table DROP COLUMN gone;

CREATE TYPE textrange AS RANGE (subtype = text, collation = "C");
CREATE TYPE floatrange AS RANGE (subtype = float8, subtype_diff = float8mi);
CREATE TYPE intervalrange AS RANGE (subtype = interval);
CREATE TYPE timetzrange AS RANGE (subtype = timetz);
CREATE TYPE pairrange AS RANGE (subtype = pair);
CREATE TYPE enumrange AS RANGE (subtype = odd_enum);
CREATE TYPE arrayrange AS RANGE (subtype = int[]);
CREATE TYPE rangerange AS RANGE (subtype = int4range);

CREATE TYPE strange_text;
CREATE FUNCTION strange_text_in(cstring) RETURNS strange_text LANGUAGE internal IMMUTABLE STRICT AS 'textin';
CREATE FUNCTION strange_text_out(strange_text) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'textout';
CREATE TYPE strange_text (INPUT = strange_text_in, OUTPUT = strange_text_out, LIKE = text);
CREATE TYPE strange_int;
CREATE FUNCTION strange_int_in(cstring) RETURNS strange_int LANGUAGE internal IMMUTABLE STRICT AS 'int8in';
CREATE FUNCTION strange_int_out(strange_int) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'int8out';
CREATE FUNCTION strange_int_send(strange_int) RETURNS bytea LANGUAGE internal IMMUTABLE STRICT AS 'int8send';
CREATE FUNCTION strange_int_recv(internal) RETURNS strange_int LANGUAGE internal IMMUTABLE STRICT AS 'int8recv';
CREATE TYPE strange_int (INPUT = strange_int_in, OUTPUT = strange_int_out, SEND = strange_int_send,
    RECEIVE = strange_int_recv, LIKE = int8);
CREATE TYPE strange_point;
CREATE FUNCTION strange_point_in(cstring) RETURNS strange_point LANGUAGE internal IMMUTABLE STRICT AS 'point_in';
CREATE FUNCTION strange_point_out(strange_point) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'point_out';
CREATE TYPE strange_point (INPUT = strange_point_in, OUTPUT = strange_point_out, LIKE = point);
CREATE TYPE strange_char;
CREATE FUNCTION strange_char_in(cstring) RETURNS strange_char LANGUAGE internal IMMUTABLE STRICT AS 'charin';
CREATE FUNCTION strange_char_out(strange_char) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'charout';
CREATE TYPE strange_char (INPUT = strange_char_in, OUTPUT = strange_char_out, LIKE = "char");
CREATE TYPE strange_cstring;
CREATE FUNCTION strange_cstring_in(cstring) RETURNS strange_cstring LANGUAGE internal IMMUTABLE STRICT AS 'cstring_in';
CREATE FUNCTION strange_cstring_out(strange_cstring) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT
    AS 'cstring_out';
CREATE TYPE strange_cstring (INPUT = strange_cstring_in, OUTPUT = strange_cstring_out, LIKE = cstring);
CREATE TYPE strange_numeric;
CREATE FUNCTION strange_numeric_in(cstring, oid, int) RETURNS strange_numeric LANGUAGE internal IMMUTABLE STRICT
    AS 'numeric_in';
CREATE FUNCTION strange_numeric_out(strange_numeric) RETURNS cstring LANGUAGE internal IMMUTABLE STRICT AS 'numeric_out';
CREATE TYPE strange_numeric (INPUT = strange_numeric_in, OUTPUT = strange_numeric_out, LIKE = numeric,
    TYPMOD_IN = numerictypmodin, TYPMOD_OUT = numerictypmodout);

CREATE TABLE "Odd ""name" ();
"""

FLOATS = ("NaN", "Infinity", "-Infinity", "0", "-0", "0.1", "1", "-1.5")
NUMERICS = ("NaN", "0", "1", "-1", "0.1", "-0.5")
DATES = ("infinity", "-infinity", "4714-11-24 BC", "0001-12-31 BC", "0001-01-01", "1582-10-15", "1969-12-31",
         "1970-01-01", "2000-01-01", "2024-02-29", "9999-12-31", "10000-01-01", "5874897-12-31")
TIMESTAMPS = ("infinity", "-infinity", "4713-01-01 00:00:00 BC", "4714-11-24 00:00:00 BC", "0001-01-01 00:00:00",
              "1969-12-31 23:59:59.999999", "1970-01-01 00:00:00", "2000-01-01 00:00:00.000001",
              "2024-10-27 01:30:00", "9999-12-31 23:59:59.999999", "294246-12-31 23:59:59.999999",
              "294247-01-10 04:00:54.775806", "294247-01-10 04:00:54.775807", "294247-01-10 04:00:54.775808",
              "294276-12-31 23:59:59.999999")
TEXTS = ("", " ", "  two  ", "a", "NULL", "null", "\\", "\\\\", "\\N", '"', "'", "''", '"quoted", and more', "{}", "{a,b}",
         "(1,2)", "a\nb\r\nc\td\v\f\b", "\x01\x1f\x7f", "\ufeff", "\ufeffbom", "e\u0301", "é", "\u200b", "\u2028", "%s", "$1",
         "".join(chr(plane << 16 | 0x1234) for plane in range(17)), "\uffff\ufffe\U0010ffff", "k" * 63, "k" * 64, "k" * 65,
         "p" * 63 + "é", "prefix" * 20 + "a", "prefix" * 20 + "b", "ä" * 3000)
EVERY_BMP_CHARACTER = "".join(chr(c) for c in range(1, 0x10000) if not 0xD800 <= c < 0xE000)
JSONS = (' {"b": 1,  "a": [1, null], "b": 2} ', "1.10", "1e400", "-0", "-0.0", "null", " null ", '"x"', '""', '"\\\\u0000"',
         '"\\ud83d\\ude00"', '"\\u00e9\\n\\"\\/"', "true", "[]", "{}", '{"": {"": []}}', "[" * 1000 + "]" * 1000,
         '{"a":' * 500 + "1.0" + "}" * 500, "123456789012345678901234567890.12345678901234567890", "1E+2", "0.000")
RANGE = ("empty", "(,)")
POINTS = ("(0,0)", "(-0,0)", "(0.1,0.30000000000000004)", "(1e-300,-1.7976931348623157e+308)",
          "(Infinity,-Infinity)", "(NaN,NaN)", "(5e-324,1)")
STRANGE = ("0", "1")

DIGITS = "1234567890" * 13108


def numbers(*more):
    return NUMERICS + more


TYPES = (
    Type("boolean", ("true", "false"), BOOL),
    Type("smallint", ("-32768", "-1", "0", "1", "32767")),
    Type("integer", ("-2147483648", "-1", "0", "1", "2147483647")),
    Type("bigint", ("-9223372036854775808", "-1", "0", "1", "9007199254740993", "9223372036854775807")),
    Type("real", (*FLOATS, "1e-45", "-1e-45", "1.17549435e-38", "3.4028235e38", "16777217", "0.3"), FLOAT4),
    Type("double precision", (*FLOATS, "5e-324", "2.2250738585072011e-308", "1.7976931348623157e308",
                              "0.30000000000000004", "9007199254740993", "1e22", "123456789.12345679"), FLOAT8),
    Type("numeric", numbers(
        "Infinity", "-Infinity", "0.000", "-0.0", "1.0", "1.00", "100", "1e131071", "1e-16383", "-1e-16383",
        DIGITS[:131072] + "." + DIGITS[:16383], "-" + "9" * 131072, "0." + "0" * 16382 + "1",
        "12345678901234567890123456789012345678.5", "10000", "9999.9999", "1e20", "0.00001")),
    Type("numeric(4)", numbers("9999", "-9999"), DECIMAL),
    Type("numeric(9,2)", numbers("9999999.99", "-9999999.99", "1.10"), DECIMAL),
    Type("numeric(18,3)", numbers("999999999999999.999"), DECIMAL),
    Type("numeric(38,0)", numbers("9" * 38, "-" + "9" * 38), DECIMAL),
    Type("numeric(38,38)", ("NaN", "0", "0." + "9" * 38, "-0." + "9" * 38, "1e-38", "0.1"), DECIMAL),
    Type("numeric(38,10)", numbers("9" * 28 + "." + "9" * 10), DECIMAL),
    Type("numeric(39,0)", numbers("9" * 39, "-" + "9" * 39)),
    Type("numeric(1000,500)", numbers("9" * 500 + "." + "9" * 500, "1e-500")),
    Type("numeric(1000,1000)", ("NaN", "0", "1e-1000", "0." + "9" * 1000)),
    Type("numeric(5,-3)", ("NaN", "0", "1000", "-99999000", "1499", "500")),
    Type("numeric(2,4)", ("NaN", "0", "0.0099", "-0.0001")),
    Type("text", (*TEXTS, EVERY_BMP_CHARACTER)),
    Type("character varying", TEXTS),
    Type("character varying(3)", ("", "a", "abc", "äö€", "😀😀😀", "a  ", "   ")),
    Type("character(1)", ("", "a", "€", "'")),
    Type("character(5)", ("", "ab", "ab   ", "abcde", "  ab", "äöü", "\t\n")),
    Type("bpchar", ("", "ab", "ab   ", "  ", "x" * 200)),
    Type("name", ("", "n", "n" * 63, "é" * 31, 'quo"ted, \\ name', " ")),
    Type('"char"', ("", *(chr(c) for c in range(1, 128)), *(f"\\{c:03o}" for c in range(128, 256)))),
    Type("bytea", ("", "\\x00", "\\x" + bytes(range(256)).hex(), "\\xdeadbeef", "\\x" + "00" * 2500, "\\x5c78"), BYTES),
    Type("date", DATES, DATE),
    Type("time without time zone", ("00:00:00", "00:00:00.000001", "12:34:56.789", "23:59:59.999999", "24:00:00"), EPOCH),
    Type("time(0)", ("00:00:00", "23:59:59.4", "23:59:59.9"), EPOCH),
    Type("time with time zone", ("00:00:00+15:59:59", "00:00:00-15:59:59", "24:00:00+00", "24:00:00-15:59:59",
                                 "12:00:00.000001+05:30", "12:00:00-00:00:01", "12:00:00+02", "11:00:00+01")),
    Type("timestamp without time zone", TIMESTAMPS, EPOCH),
    Type("timestamp(0)", ("infinity", "2024-01-01 00:00:00.6", "4713-01-01 00:00:00 BC"), EPOCH),
    Type("timestamp with time zone", tuple(t + "+00" if t[-1] != "C" and "inf" not in t else
                                           t.replace(" BC", "+00 BC") for t in TIMESTAMPS), EPOCH),
    Type("timestamp(3) with time zone", ("-infinity", "2024-01-01 00:00:00.0006+00"), EPOCH),
    Type("interval", ("0", "1 mon -1 day +00:00:00.000001", "-1 mon +1 day -00:00:00.000001", "1 month", "30 days",
                      "720:00:00", "178000000 years", "-178000000 years", "2147483647 days", "-2147483648 days",
                      "2562047788:00:54.775807", "-2562047788:00:54.775807", "-1 year -2 mons +3 days -04:05:06.789",
                      "1 year -1 days", "-0.000001 seconds"), INTERVAL),
    Type("interval(0)", ("1.6 seconds", "-1 mon"), INTERVAL),
    Type("interval year to month", ("1-2", "-1 mon"), INTERVAL),
    Type("money", ("92233720368547758.07", "-92233720368547758.08", "0", "-0.01", "1.10"), CENTS),
    Type("bit(1)", ("0", "1")),
    Type("bit(7)", ("0000000", "1010101", "1111111")),
    Type("bit varying", ("", "0", "00", "1", "10110", "01" * 5000)),
    Type("bit varying(5)", ("", "00000", "101")),
    Type("inet", ("0.0.0.0/0", "192.168.1.5/24", "192.168.1.5", "255.255.255.255", "::", "::/0", "::1", "::ffff:1.2.3.4/96",
                  "fe80::1/64", "10.0.0.1/32", "10.0.0.1/31")),
    Type("cidr", ("0.0.0.0/0", "10.0.0.0/8", "192.168.1.5/32", "2001:db8::/32", "::/0", "::1/128")),
    Type("macaddr", ("00:00:00:00:00:00", "08:00:2b:01:02:03", "ff:ff:ff:ff:ff:ff")),
    Type("macaddr8", ("00:00:00:00:00:00:00:00", "08:00:2b:01:02:03:04:05", "ff:ff:ff:ff:ff:ff:ff:ff")),
    Type("uuid", ("00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff",
                  "01234567-89ab-cdef-0123-456789abcdef")),
    Type("point", POINTS),
    Type("line", ("{1,0,0}", "{0,1,-0}", "{0.1,-1,1e-300}", "{1,NaN,Infinity}")),
    Type("lseg", tuple(f"[{p},(1,-0)]" for p in POINTS)),
    Type("box", tuple(f"{p},(1,-0)" for p in POINTS), delimiter=";"),
    Type("path", (*(f"({p},(1,-0))" for p in POINTS), *(f"[{p},(1,2)]" for p in POINTS), "((1,1))", "[(1,1)]",
                  "[" + ",".join(["(0.1,0.2)"] * 200) + "]")),
    Type("polygon", (*(f"({p},(1,-0),(2,3))" for p in POINTS), "((1,1))")),
    Type("circle", tuple(f"<{p},{r}>" for p, r in zip(POINTS, ("0", "1", "0.1", "1e-300", "Infinity", "NaN", "-0")))),
    Type("json", (*JSONS, '"\\u0000"', '{"a":1,"a":1}', '\n[1 ,\t2]\n', '"' + "ä" * 3000 + '"')),
    Type("jsonb", (*JSONS, "1e131071", "[1.10, 1.1]", '{"aa": 1, "b": 2, "a": 3}', '"' + "ä" * 3000 + '"')),
    Type("jsonpath", ("$", 'strict $."a"[*]?(@."b" > 1.10 && @."c" like_regex "^a" flag "i")', "lax $[last]", '"x"',
                      '$."ключ 😀"', "$.a.b ? (@ == null)", "-$.x.size()")),
    Type("xml", ("", "text only", "<a/>", '<?xml version="1.0"?><a/>', '<?xml version="1.1" standalone="yes"?><a b="c"/>',
                 '<?xml version="1.0" encoding="UTF-8"?><a>ä€</a>', '<?xml version="1.0" encoding="ISO-8859-1"?><a/>',
                 "<a><![CDATA[<&>]]></a>", "<!-- comment --><a/>", "<a/><b/> tail", "<a>&amp;&lt;&#10;</a>",
                 " <a\n x='1'  />\r\n", "<?pi data?><a/>", "<!DOCTYPE a><a/>"), STORED),
    Type("tsvector", ("", "'a':1A,2B,3C,4 'b':16383 'fat'", "'it''s':1 'back\\\\slash' ' ' 'ä€😀':2", "a fat cat", "'x':1A,1B",
                      " ".join(f"w{n}:{n}" for n in range(1, 300)))),
    Type("tsquery", ("", "'fat' & !( 'rat':*AB | 'cat' )", "'a' <-> 'b' <5> 'c'", "'it''s' | 'back\\\\slash'", "!!'x':*",
                     "'a' <0> 'b'", "'ä€😀':D")),
    Type("int4range", (*RANGE, "[1,5)", "(1,5]", "[-2147483648,2147483647)", "(,3)", "[3,)")),
    Type("int8range", (*RANGE, "[1,5)", "[-9223372036854775808,9223372036854775807)", "(,3)")),
    Type("numrange", (*RANGE, "[0.0,1.00)", "(1,1.0000)", "[NaN,NaN]", "[-Infinity,Infinity]", "[1e-16383,1e1000]", "(,3]")),
    Type("tsrange", (*RANGE, '["2024-01-01 00:00:00",infinity)', "[-infinity,infinity]", '("4713-01-01 00:00:00 BC",)',
                     '[,"294276-12-31 23:59:59.999999")')),
    Type("tstzrange", (*RANGE, '["2024-01-01 00:00:00+05",infinity)', '("4713-01-01 00:00:00+00 BC",)',
                       '["2024-10-27 00:30:00+00","2024-10-27 01:30:00+00"]')),
    Type("daterange", (*RANGE, "[2024-01-01,2024-02-01]", "[-infinity,infinity]", '["4713-01-01 BC",5874897-12-31)')),
    Type("int4multirange", ("{}", "{[1,3),[5,9)}", "{(,)}", "{(,1),[3,)}", "{[1,3),[3,5)}")),
    Type("int8multirange", ("{}", "{[1,3),[5,9)}", "{(,-9223372036854775808]}")),
    Type("nummultirange", ("{}", "{[1.0,1.00],(2,NaN]}", "{(,)}")),
    Type("tsmultirange", ("{}", '{[2024-01-01,2024-01-02),["2024-01-03 00:00:00.000001",infinity)}')),
    Type("tstzmultirange", ("{}", '{["2024-01-01 00:00:00+05",infinity)}')),
    Type("datemultirange", ("{}", '{["4713-01-01 BC",2024-01-01),[2024-01-03,infinity)}')),
    Type("textrange", (*RANGE, '["a,b","c""d\\\\"]', '["",]', '[" "," "]', '["[(","{}"]', '[NULL,"ä€")')),
    Type("textmultirange", ("{}", '{["a,b","c""d"],["x{","z\\\\"]}')),
    Type("floatrange", (*RANGE, "[-0,0]", "[0.30000000000000004,NaN]", "[-Infinity,1e-300)")),
    Type("floatmultirange", ("{}", "{[-1,-0],[0.1,0.30000000000000004]}")),
    Type("intervalrange", (*RANGE, '["-1 mon +1 day -00:00:00.000001","1 year 2 mons -3 days"]')),
    Type("intervalmultirange", ("{}", '{["-1 mon +1 day","1 year -2 days +00:00:01"]}')),
    Type("timetzrange", (*RANGE, '["00:00:00+15:59:59","24:00:00-15:59:59"]')),
    Type("timetzmultirange", ("{}", '{["00:00:00+15:59:59","24:00:00-15:59:59"]}')),
    Type("pairrange", (*RANGE, '["(1,""a,b"")","(2,)"]', '["(1,)","(1,)"]')),
    Type("pairmultirange", ("{}", '{["(1,""a,b"")","(2,)"]}')),
    Type("enumrange", (*RANGE, "[first,last]", '["a,b","back\\\\slash"]')),
    Type("enummultirange", ("{}", '{[first,"it\'s"],["a,b",last]}')),
    Type("arrayrange", (*RANGE, '["{1,NULL}","[0:1]={2,3}"]')),
    Type("arraymultirange", ("{}", '{["{1,2}","{2,3}"]}')),
    Type("rangerange", (*RANGE, '["[1,2)","[3,)"]', "[empty,]")),
    Type("multirangerange", ("{}", '{["[1,2)","[3,)"]}')),
    Type("oid", ("0", "1", "2147483648", "4294967295"), OID),
    Type("xid", ("0", "3", "4294967295")),
    Type("xid8", ("0", "9223372036854775808", "18446744073709551615")),
    Type("cid", ("0", "4294967295")),
    Type("tid", ("(0,0)", "(0,1)", "(4294967295,65535)")),
    Type("regclass", ("-", "pg_class", "4294967295", "a_table", '"Odd ""name"'), NAMED_OID),
    Type("regproc", ("-", "now", "4294967295", "strange_text_in"), NAMED_OID),
    Type("regprocedure", ("-", "abs(numeric)", "4294967295", "now()"), NAMED_OID),
    Type("regoper", ("0", "||/", "4294967295"), NAMED_OID),
    Type("regoperator", ("0", "+(integer,integer)", "-(NONE,integer)", "4294967295"), NAMED_OID),
    Type("regtype", ("-", "integer", "timestamp with time zone", "odd_enum", "pair[]", "4294967295"), NAMED_OID),
    Type("regrole", ("-", "postgres", "4294967295"), NAMED_OID),
    Type("regnamespace", ("-", "pg_catalog", "4294967295"), NAMED_OID),
    Type("regconfig", ("-", "english", "4294967295"), NAMED_OID),
    Type("regdictionary", ("-", "simple", "4294967295"), NAMED_OID),
    Type("regcollation", ("-", '"C"', "insensitive", "4294967295"), NAMED_OID),
    Type("pg_lsn", ("0/0", "16/B374D848", "FFFFFFFF/FFFFFFFF")),
    Type("txid_snapshot", ("1:1:", "10:20:10,14,15", "1:9223372036854775807:3")),
    Type("pg_snapshot", ("1:1:", "10:20:10,14,15", "1:9223372036854775807:3")),
    Type("refcursor", ("", "my cursor", '"')),
    Type("aclitem", ("=r/postgres", "postgres=arwdDxt/postgres", "pg_monitor=r*w/postgres"), binary=False),
    Type("int2vector", ("", "1", "-32768 0 32767")),
    Type("oidvector", ("", "0", "4294967295 1")),

    Type("odd_enum", ("plain", "it's", "a,b", "back\\slash", " blank ", "NULL", "{}", '"quoted"', "ünï€😀", "last", "between",
                      "first")),
    Type("no_labels", ()),
    Type("positive", ("1", "2147483647")),
    Type("lower_text", ("", "abc")),
    Type("short_text", ("", "abc", "äöü€😀", "a    ")),
    Type("price", ("NaN", "1.10", "-9999999999.99"), DECIMAL),
    Type("two_ints", ("{1,2}", "{NULL,NULL}", "[0:1]={1,2}", "{{1},{2}}"), STRUCT),
    Type("enum_domain", ("plain", "a,b")),
    Type("smaller", ("1", "99")),
    Type("range_domain", ("empty", "[1,5)")),
    Type("json_domain", ("1.10", '{"a": null}', "null")),
    Type("never_null", ("0", "-1"), nullable=False),
    Type("icu_text", ("", "a", "B", "ä", "Z", "é", "e\u0301")),
    Type("insensitive_text", ("", "a", "A", "ä", "Ä")),
    Type("pair", ("(1,a)", "(,)", "(1,)", '(,"")', '(2,"q""uo\\\\te, (x)")', '(3," ")', "(4,NULL)", "(-2147483648,ä€😀)"), STRUCT),
    Type("pair_domain", ("(1,a)", "(,)", '(999,"x,y")'), STRUCT),
    Type("nested", ('("(1,a)","(,)",3)', "(,,)", '(,"(2,""q""""uote"")",)', '("(,)",,)'), STRUCT),
    Type("leaf", ('(1,abc,"2024-01-01 00:00:00+00")', "(,,infinity)", '(2,"",-infinity)'), LEAF),
    Type("tree", ('("{""(1,abc,)"",NULL,""(,,infinity)""}","(5,x,""2024-01-01 00:00:00+00"")","{1.5,NULL,NaN}")', "(,,)",
                  '({},,{})', '("[0:0]={""(1,abc,)""}",,"{{1},{2}}")'), TREE),
    Type("nothing", ("()",)),
    Type("single", ("()", '("")', '("(a,b)")', "(NULL)"), STRUCT),
    Type("with_dropped", ("(1,2,x)", "(,,)", "(1,,)"), STRUCT),
    Type("odd_names", ("(1,2,x,y,3,4)", "(,,,,,)"), STRUCT),
    Type("nasty_parts", (
        '(NaN,NaN,infinity,-infinity,"{""a"": 1,  ""a"": 2}",last,"1 mon -1 days",Infinity,empty,"\\\\x00ff","a  ")',
        '(1.10,-0,"2024-01-01 00:00:00+00",2024-01-01,1.10,first,00:00:01,1.100,"[1,2)","\\\\x","abc")',
        "(,,,,,,,,,,)"), NASTY_PARTS),
    Type("a_table", ("(1,x,2)", "(,,)"), STRUCT),
    Type("strange_text", TEXTS, binary=False),
    Type("strange_int", ("-9223372036854775808", "0", "9223372036854775807")),
    Type("strange_point", POINTS, binary=False),
    Type("strange_char", ("", "a", "\\377"), binary=False),
    Type("strange_cstring", ("", "a", "ä" * 300, "NULL"), binary=False),
    Type("strange_numeric", ("NaN", "1.10", "1e100"), binary=False),

    Type("information_schema.cardinal_number", ("0", "2147483647")),
    Type("information_schema.character_data", ("", "x")),
    Type("information_schema.sql_identifier", ("", "x" * 63)),
    Type("information_schema.time_stamp", ("infinity", "2024-01-01 00:00:00.129+00"), EPOCH),
    Type("information_schema.yes_or_no", ("YES", "NO")),
    Type("archive_ext.lifecycle_status", ("LIVE", "HOT", "WARM", "ARCHIVED")),

    Type("hstore", ("", '"a"=>NULL, "b"=>"NULL"', '"q\\"uote"=>"c,=>\\\\", ""=>""', '"ä"=>"€😀"',
                    ", ".join(f'"k{n}"=>"{n}"' for n in range(200)))),
    Type("citext", ("", "a", "A", "Ä", "ä", "x y", "NULL", '"')),
    Type("ltree", ("", "a", "Top.Science.Astronomy", "a" * 255, "_1.2_3")),
    Type("lquery", ("*", "Top.*{1,2}.a|b@*.!x%", "a.*{,5}.b%@", "!a|b.*")),
    Type("ltxtquery", ("a", "a & !b@* | c%", "(a | b) & c")),
    Type("cube", ("(0)", "(1,2),(3,4)", "()", "(Infinity, -0, 1e-300)", "(NaN)", "(0.1, 0.30000000000000004)",
                  "(3,4),(1,2)")),
    Type("earth", ("(6378168, 0, 0)", "(-0, 6378168, 0)")),
    Type("seg", ("1.5", "1.50", "~5", "<10", "> 0 .. 1e10", "-1e-30 .. 3.00", "5(+-)0.3", ".. 10", "5 ..", "1.23456789", "0"),
         binary=False),
    Type("query_int", ("1", "1 & (2 | !3)", "!(1 | 2147483647)"), binary=False),
    Type("lo", ("0", "4294967295"), OID),
    Type("ean13", ("978-0-393-04002-9", "220-500896569-4!", "0000000000000"), binary=False),
    Type("isbn13", ("978-0-393-04002-9", "9780393040021!"), binary=False),
    Type("isbn", ("0-393-04002-X", "0-471-95869-7", "0393040021!"), binary=False),
    Type("issn13", ("977-1436-452-00-8", "9771436452001!"), binary=False),
    Type("issn", ("1436-4522", "14364521!"), binary=False),
    Type("ismn13", ("979-0-060-11561-5", "9790060115611!"), binary=False),
    Type("ismn", ("M-060-11561-5", "M060115611!"), binary=False),
    Type("upc", ("220356483481", "220356483482!"), binary=False),
    Type("tablefunc_crosstab_2", ("(a,b,c)", "(,,)"), STRUCT),
    Type("tablefunc_crosstab_3", ("(a,b,c,d)", "(,,,)"), STRUCT),
    Type("tablefunc_crosstab_4", ('(a,b,c,d,"")', "(,,,,)"), STRUCT),
    Type("dblink_pkey_results", ("(1,id)", "(,)"), STRUCT),
)

# Types of which no column can hold a value, or that nobody can make one of: their input functions only raise errors.
WITHOUT_VALUES = {
    "pg_node_tree": "input refused", "pg_ndistinct": "input refused", "pg_dependencies": "input refused",
    "pg_mcv_list": "input refused", "pg_brin_bloom_summary": "input refused",
    "pg_brin_minmax_multi_summary": "input refused", "gtsvector": "GiST's own", "gtrgm": "GiST's own",
    "ltree_gist": "GiST's own", "ghstore": "GiST's own", "intbig_gkey": "GiST's own", "gbtreekey2": "GiST's own",
    "gbtreekey4": "GiST's own", "gbtreekey8": "GiST's own", "gbtreekey16": "GiST's own", "gbtreekey32": "GiST's own",
    "gbtreekey_var": "GiST's own",
}

# Longer values stand alone, not in arrays and composites too.
LONGEST_PART = 5000

MATRIX = Path(__file__).resolve().parents[2] / "docs" / "type-matrix.md"


def quoted(value):
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


def array_literal(values, delimiter=","):
    """One level; a nested list is another dimension."""
    return "{" + delimiter.join(
        array_literal(v, delimiter) if isinstance(v, list) else "NULL" if v is None else quoted(v) for v in values) + "}"


def row_literal(values):
    return "(" + ",".join("" if v is None else quoted(v) for v in values) + ")"


def arrays_of(type_, values):
    """Array literals: empty, flat, with NULLs, of nothing else, of several dimensions, with lower bounds."""
    null = None if type_.nullable else values[0]
    yield "{}"
    if not values:
        yield "{NULL,NULL}"
        return
    first, last = values[0], values[-1]
    flat = [list(values), [*values, null], [null, first], [null, null], [first]]
    yield from (array_literal(v, type_.delimiter) for v in flat)
    square = array_literal([[first, last], [null, first]], type_.delimiter)
    yield square
    yield "[-2:-1][3:4]=" + square
    yield "[0:1]=" + array_literal([first, null], type_.delimiter)
    yield "[2:2]=" + array_literal([last], type_.delimiter)
    yield "[3:4]=" + array_literal([null, null], type_.delimiter)
    yield array_literal([[null], [null]], type_.delimiter)
    yield "[0:1][5:5][1:2]=" + array_literal([[[first, last]], [[null, first]]], type_.delimiter)
    yield array_literal([[[[[[first]]]]]], type_.delimiter)


def shapes(type_, number):
    """DDL of the types made of this one, and the columns (name, type, values) of its table."""
    small = [v for v in type_.values if len(v) <= LONGEST_PART]
    arrays = list(arrays_of(type_, small))
    null = None if type_.nullable else small[0]
    rows = [row_literal([v, a, v]) for v, a in zip(small, arrays * len(small))]
    rows += [row_literal([null, None, null]), row_literal([null, arrays[-1], null])]
    ddl = (f"CREATE DOMAIN domain_{number} AS {type_.name};"
           f"CREATE TYPE row_{number} AS (value {type_.name}, list {type_.name}[], domain domain_{number})")
    return ddl, [
        ("c", type_.name, list(type_.values)),
        ("a", f"{type_.name}[]", arrays),
        ("d", f"domain_{number}", small),
        ("da", f"domain_{number}[]", arrays),
        ("r", f"row_{number}", rows),
        ("ra", f"row_{number}[]", ["{}", array_literal(rows), array_literal([[rows[0]], [rows[-1]]]), "{NULL}"]),
    ]
