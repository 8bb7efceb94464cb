//! Lines as other programs see them, and lines that nobody wrote.

use super::own::{Own, Row, table};
use super::store::{Stored, read, scan_all, write};
use crate::ErrorKind;
use crate::codec::*;
use crate::schema::{Attribute, PgType, TableSchema};

fn lines(schema: &TableSchema, rows: &[Row]) -> String {
    let opts = WriterOptions { format: ObjectFormat::Ndjson, ..WriterOptions::default() };
    String::from_utf8(write(schema, opts, rows).objects.remove(0).bytes.to_vec()).unwrap()
}

fn numeric(text: &str) -> Option<Own> {
    Some(Own::Numeric(Numeric::parse_text(text).unwrap()))
}

#[test]
fn values_look_as_others_expect_them() {
    let composite = |id, name: &str, pg_type| Attribute { id, name: name.to_owned(), pg_type };
    let cases: Vec<(PgType, Option<Own>, &str)> = vec![
        (PgType::Bool, Some(Own::Bool(true)), "true"),
        (PgType::Int8, Some(Own::Int8(i64::MIN)), "-9223372036854775808"),
        (PgType::Int4, None, "null"),
        (PgType::Float8, Some(Own::Float8(-0.0)), "-0.0"),
        (PgType::Float8, Some(Own::Float8(1e300)), "1e+300"),
        (PgType::Float4, Some(Own::Float4(0.1)), "0.1"),
        (PgType::Numeric { precision: 15, scale: 2 }, numeric("-1234567890123.40"), "-1234567890123.40"),
        (PgType::Numeric { precision: 16, scale: 2 }, numeric("1.40"), "\"1.40\""),
        (PgType::UnboundedNumeric, numeric("0.000"), "\"0.000\""),
        (PgType::Text, Some(Own::Text("a\n\"ü\u{1}".into())), "\"a\\n\\\"ü\\u0001\""),
        (PgType::Bytea, Some(Own::Bytes(vec![0, 255])), "\"\\\\x00ff\""),
        (PgType::Date, Some(Own::Date(-1)), "\"1999-12-31\""),
        (PgType::Time, Some(Own::Time(1)), "\"00:00:00.000001\""),
        (PgType::Timestamp, Some(Own::Timestamp(0)), "\"2000-01-01T00:00:00\""),
        (PgType::TimestampTz, Some(Own::Timestamp(500_000)), "\"2000-01-01T00:00:00.500000Z\""),
        (PgType::Uuid, Some(Own::Uuid([0xab; 16])), "\"abababab-abab-abab-abab-abababababab\""),
        (PgType::Jsonb, Some(Own::Text("{\"a\": [1.50, null]}".into())), "{\"a\": [1.50, null]}"),
        (
            PgType::Interval,
            Some(Own::Interval(IntervalValue { months: 1, days: -2, micros: 3 })),
            "{\"months\":1,\"days\":-2,\"micros\":3}",
        ),
        (PgType::Reg, Some(Own::Reg(1259, "pg_class".into())), "{\"oid\":1259,\"name\":\"pg_class\"}"),
        (PgType::array(PgType::Int4), Some(Own::Array(vec![(2, 1)], vec![Some(Own::Int4(1)), None])), "[1,null]"),
        (
            PgType::Composite(vec![composite(1, "a", PgType::Int4), composite(3, "b\"", PgType::Text)]),
            Some(Own::Composite(vec![Some(Own::Int4(1)), Some(Own::Text("x".into()))])),
            "{\"a\":1,\"b\\\"\":\"x\"}",
        ),
    ];
    for (pg_type, value, json) in cases {
        assert_eq!(lines(&table(&[pg_type]), &[vec![value]]), format!("{{\"c1\":{json}}}\n"));
    }
}

#[test]
fn what_has_no_form_is_beside() {
    let schema = table(&[PgType::Float8, PgType::Jsonb, PgType::Int4]);
    let rows = [vec![Some(Own::Float8(f64::NAN)), Some(Own::Text("null".into())), Some(Own::Int4(1))]];
    let text = lines(&schema, &rows);
    let beside = r#""c1__pg":"Float8(NaN)","c2__pg":"Text(\"null\")""#;
    assert_eq!(text, format!("{{\"c1\":null,\"c2\":null,\"c3\":1,{beside}}}\n"));
}

#[test]
fn the_same_rows_are_the_same_bytes() {
    let schema = table(&[PgType::Int4]);
    let rows: Vec<Row> = (0..1000).map(|i| vec![Some(Own::Int4(i))]).collect();
    let opts = WriterOptions { format: ObjectFormat::NdjsonGz, ..WriterOptions::default() };
    let [first, second] = [(), ()].map(|()| write(&schema, opts.clone(), &rows).summaries.remove(0));
    assert_eq!((first.sha256, first.row_groups), (second.sha256, 0));
    assert!(first.bytes < 5_000, "{} bytes", first.bytes);
}

#[test]
fn foreign_lines_are_corrupt() {
    let schema = table(&[PgType::Int4, PgType::Text]);
    let good = r#"{"c1":1,"c2":"x"}"#;
    let read_lines = |text: &str, rows| {
        let stored = Stored::new(text.to_owned().into_bytes(), ObjectFormat::Ndjson, rows);
        read(&schema, &stored, scan_all(&schema)).map(|(rows, _)| rows.len()).map_err(|error| error.kind())
    };
    assert_eq!(read_lines(&format!("{good}\n{good}\n"), 2), Ok(2));
    assert_eq!(read_lines("{\"more\":[{}], \"c2\" : null,\"c1\":2}\n", 1), Ok(1));
    for (text, rows) in [
        (format!("{good}\n"), 2),
        (format!("{good}\n{good}\n"), 1),
        (format!("{good}\n{good}"), 2),
        (format!("{good}\n\n"), 2),
        (format!("{good}{good}\n"), 1),
        (r#"{"c1":1}"#.to_owned() + "\n", 1),
        (r#"{"c1":1,"c2":"x","c1":1}"#.to_owned() + "\n", 1),
        (r#"{"c1":1.0,"c2":"x"}"#.to_owned() + "\n", 1),
        (r#"{"c1":4294967296,"c2":"x"}"#.to_owned() + "\n", 1),
        (r#"{"c1":"1","c2":"x"}"#.to_owned() + "\n", 1),
        (r#"[1,"x"]"#.to_owned() + "\n", 1),
        ("null\n".to_owned(), 1),
    ] {
        assert_eq!(read_lines(&text, rows), Err(ErrorKind::Corrupt), "{text}");
    }
}

#[test]
fn bytes_after_the_end_of_a_gzip_are_corrupt() {
    let schema = table(&[PgType::Int4]);
    let opts = WriterOptions { format: ObjectFormat::NdjsonGz, ..WriterOptions::default() };
    let stored = write(&schema, opts, &[vec![Some(Own::Int4(1))]]).objects.remove(0);
    let twice = stored.with([stored.bytes.clone(), stored.bytes.clone()].concat());
    let more = stored.with([stored.bytes.clone(), b"more".as_slice().into()].concat());
    for damaged in [twice, more] {
        assert_eq!(read(&schema, &damaged, scan_all(&schema)).unwrap_err().kind(), ErrorKind::Corrupt);
    }
}
