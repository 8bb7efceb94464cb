//! `docs/types.md`, made from the table of types itself.

use std::fmt::Write as _;

use super::{Attribute, PgType, Storage};
use crate::codec::{is_pruned_by_equality, is_pruned_by_order};

/// One row of the document: the SQL types that share it, and an example of the codec's type.
struct Kind {
    sql: &'static str,
    example: PgType,
    /// What readers that show the column as something else than its Parquet type see.
    duckdb: &'static str,
    spark: &'static str,
    athena: &'static str,
    /// Values that go into the sidecar.
    sidecar: &'static str,
}

const NEVER: &str = "never";
const ENCODING: &str = "text that UTF-8 cannot represent";

fn kind(sql: &'static str, example: PgType, [duckdb, spark, athena]: [&'static str; 3], sidecar: &'static str) -> Kind {
    Kind { sql, example, duckdb, spark, athena, sidecar }
}

fn kinds() -> Vec<Kind> {
    let decimal = PgType::Numeric { precision: 12, scale: 2 };
    let wide = PgType::Numeric { precision: 50, scale: 5 };
    let text = ["VARCHAR", "string", "varchar"];
    let far = "±infinity, and what lies beyond 64 bits of microseconds since 1970";
    let attribute = |id, name: &str, pg_type| Attribute { id, name: name.to_owned(), pg_type };
    let composite = PgType::Composite(vec![attribute(1, "street", PgType::Text), attribute(2, "number", PgType::Int4)]);
    vec![
        kind("boolean", PgType::Bool, ["BOOLEAN", "boolean", "boolean"], NEVER),
        kind("smallint", PgType::Int2, ["SMALLINT", "smallint", "smallint"], NEVER),
        kind("integer", PgType::Int4, ["INTEGER", "int", "int"], NEVER),
        kind("bigint", PgType::Int8, ["BIGINT", "bigint", "bigint"], NEVER),
        kind("real", PgType::Float4, ["FLOAT", "float", "float"], NEVER),
        kind("double precision", PgType::Float8, ["DOUBLE", "double", "double"], NEVER),
        kind(
            "numeric(p,s), p ≤ 38, 0 ≤ s ≤ p",
            decimal,
            ["DECIMAL(p,s)", "decimal(p,s)", "decimal(p,s)"],
            "NaN, ±Infinity",
        ),
        kind("numeric(p,s) otherwise", wide, text, NEVER),
        kind("numeric", PgType::UnboundedNumeric, text, NEVER),
        kind("money", PgType::Money, ["BIGINT", "bigint", "bigint"], NEVER),
        kind("text, varchar(n)", PgType::Text, text, ENCODING),
        kind("char(n), with its padding", PgType::Bpchar, text, ENCODING),
        kind("bytea", PgType::Bytea, ["BLOB", "binary", "varbinary"], NEVER),
        kind("date", PgType::Date, ["DATE", "date", "date"], "±infinity"),
        kind("time", PgType::Time, ["TIME", "not supported", "not supported"], "24:00:00"),
        kind("timestamp", PgType::Timestamp, ["TIMESTAMP", "timestamp_ntz", "timestamp"], far),
        kind("timestamptz", PgType::TimestampTz, ["TIMESTAMP WITH TIME ZONE", "timestamp", "timestamp"], far),
        kind("interval", PgType::Interval, ["STRUCT", "struct", "row"], NEVER),
        kind("uuid", PgType::Uuid, ["UUID", "binary", "varbinary"], NEVER),
        kind("json, its text as it is", PgType::Json, ["JSON", "string", "varchar"], ENCODING),
        kind("jsonb, as PostgreSQL prints it", PgType::Jsonb, ["JSON", "string", "varchar"], ENCODING),
        kind("xml, its text as it is", PgType::Xml, text, ENCODING),
        kind("enums, by label", PgType::Enum, text, ENCODING),
        kind("oid, xid, cid", PgType::Oid, ["UINTEGER", "bigint", "bigint"], NEVER),
        kind("regclass, regtype and all other reg* types", PgType::Reg, ["STRUCT", "struct", "row"], NEVER),
        kind(
            "one-dimensional arrays of any type",
            PgType::array(PgType::Int4),
            ["LIST", "array", "array"],
            "more dimensions, a lower bound other than 1, an element that would go into a sidecar",
        ),
        kind("composite types", composite, ["STRUCT", "struct", "row"], "an attribute that would go into a sidecar"),
        kind(
            "aclitem, ranges and multiranges over enums",
            PgType::Other,
            ["sidecar only", "sidecar only", "sidecar only"],
            "every value",
        ),
        kind(
            "timetz, bit, varbit, inet, cidr, macaddr, macaddr8, point, line, lseg, box, path, polygon, circle, ranges, \
             multiranges, tsvector, tsquery, jsonpath, pg_lsn, \"char\", name, tid, xid8, pg_snapshot, txid_snapshot, \
             int2vector, oidvector, refcursor, hstore, citext, ltree, cube, isn and every other type of an \
             extension, as the text that PostgreSQL prints",
            PgType::Other,
            text,
            "text that UTF-8 cannot represent, or that does not say everything",
        ),
        kind(
            "pg_ndistinct, pg_dependencies, pg_mcv_list, gtsvector and other types that cannot be read from text",
            PgType::Opaque,
            ["BLOB", "binary", "varbinary"],
            NEVER,
        ),
    ]
}

/// The document.
pub fn types_document() -> String {
    let mut text = HEAD.to_owned();
    for kind in kinds() {
        let parquet = match kind.example {
            PgType::Numeric { .. } if matches!(kind.example.storage(), Storage::Decimal(..)) => {
                "DECIMAL(p, s)".to_owned()
            }
            PgType::Array(_) => "LIST of the element's type".to_owned(),
            PgType::Composite(_) => "STRUCT of the attributes' types".to_owned(),
            ref example => example.parquet_description(),
        };
        let exact =
            if kind.sidecar == NEVER { "exact".to_owned() } else { format!("exact; sidecar for {}", kind.sidecar) };
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "| {} | {parquet} | {} | {} | {} | {exact} | {} |",
            kind.sql,
            kind.duckdb,
            kind.spark,
            kind.athena,
            pruning(&kind.example)
        );
    }
    text.push_str(TAIL);
    text
}

fn pruning(pg_type: &PgType) -> &'static str {
    match (is_pruned_by_order(pg_type), is_pruned_by_equality(pg_type)) {
        (true, _) => "file, row group, page",
        (false, true) => "file; `=` also row group, page",
        (false, false) if has_file_ranges(pg_type) => "file",
        (false, false) => "NULLs only",
    }
}

/// Types that have a default btree operator class, so that the catalog keeps the range of each file.
fn has_file_ranges(pg_type: &PgType) -> bool {
    pg_type.has_useful_order()
}

const HEAD: &str = "<!-- Generated: `make types-doc` writes this file from crates/archive-core/src/schema. -->

# Types

What each PostgreSQL type becomes in Parquet, and what other engines see. Every value comes back from the archive as it
was, byte for byte in its text form. A domain is stored as its base type; nested types nest in Parquet too.

A value that the native Parquet type cannot hold goes, as PostgreSQL's text, into a *sidecar* column `<column>__pg`. The
native column is NULL there. The sidecar exists only in files that need it: archive_ext reads it, other engines may. Two
kinds of text in it are marked:

* `\\x` and hexadecimal digits: text in the encoding of the database that UTF-8 cannot represent.
* `\\b` and hexadecimal digits: the value's bytes in PostgreSQL's memory, where its text does not say everything that it is
  (`seg` prints a rounded number) or names what may be renamed. In the latter case, for arrays and composites with enums or
  `reg*` types that have to go into the sidecar, for ranges over enums and for `aclitem`, a blank and the text follow; the
  text is what counts in another database.

Statistics prune whole *files* by the catalog's ranges, computed with the type's own btree comparison, and *row groups* and
*pages* by Parquet's statistics. Text order is used below files for `C` and `POSIX` collations only. The column shows what
is used for range comparisons; where there is no order, `IS NULL` and `IS NOT NULL` still prune.

DuckDB's column is what the tests see. Spark's and Athena's are what their documentation says; they are not run here.

| PostgreSQL | Parquet | DuckDB | Spark | Athena | values | pruned by |
| --- | --- | --- | --- | --- | --- | --- |
";

const TAIL: &str = "
* `money` is in the smallest unit of the currency (`lc_monetary` of the database decides how it is printed).
* `oid`, `xid`, `cid` are numbers that mean something in the database they come from only. A `reg*` value keeps both: in the
  database it comes from its OID is read, in another one the name is looked up.
* The OIDs of enum values are kept in the file's metadata, so a renamed label is read as what it is called now.
* Every type with every value of a corpus of nasty ones, and the command that tries them: [type-matrix.md](type-matrix.md).
* Composite types: attributes are matched by number; one that the type lost is not shown, one that it gained is NULL.
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_document_is_up_to_date() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/types.md");
        if std::env::var_os("ARCHIVE_EXT_WRITE_DOCS").is_some() {
            std::fs::write(path, types_document()).unwrap();
        }
        let published = std::fs::read_to_string(path).unwrap_or_default();
        assert!(published == types_document(), "docs/types.md is stale: run `make types-doc`");
    }

    #[test]
    fn every_storage_is_documented() {
        let documented: Vec<_> = kinds().into_iter().map(|kind| kind.example.storage()).collect();
        let scalars = PgType::all_scalars();
        for pg_type in scalars {
            assert!(documented.contains(&pg_type.storage()), "{pg_type:?}");
        }
    }
}
