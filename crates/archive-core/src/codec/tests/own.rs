//! Owned values, strategies for them, and PostgreSQL's comparison semantics.

use std::cmp::Ordering;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use crate::codec::digest::put_cell;
use crate::codec::*;
use crate::schema::{Attribute, Field, PgType, TableSchema};

pub(super) type Row = Vec<Option<Own>>;

/// A value that owns what it holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Own {
    Bool(bool),
    Int2(i16),
    Int4(i32),
    Int8(i64),
    Float4(f32),
    Float8(f64),
    Numeric(NumericBuf),
    Text(String),
    Bytes(Vec<u8>),
    Date(i32),
    Time(i64),
    Timestamp(i64),
    Uuid([u8; 16]),
    UInt4(u32),
    Interval(IntervalValue),
    Reg(u32, String),
    Undecodable(Vec<u8>),
    Image(Vec<u8>),
    Composite(Vec<Option<Own>>),
    Array(Vec<(i32, i32)>, Vec<Option<Own>>),
}

impl Own {
    pub(super) fn value(&self) -> Value<'_> {
        match self {
            Own::Bool(v) => Value::Bool(*v),
            Own::Int2(v) => Value::Int2(*v),
            Own::Int4(v) => Value::Int4(*v),
            Own::Int8(v) => Value::Int8(*v),
            Own::Float4(v) => Value::Float4(*v),
            Own::Float8(v) => Value::Float8(*v),
            Own::Numeric(v) => Value::Numeric(v.clone()),
            Own::Text(v) => Value::Text(v),
            Own::Bytes(v) => Value::Bytes(v),
            Own::Date(v) => Value::Date(*v),
            Own::Time(v) => Value::Time(*v),
            Own::Timestamp(v) => Value::Timestamp(*v),
            Own::Uuid(v) => Value::Uuid(*v),
            Own::UInt4(v) => Value::UInt4(*v),
            Own::Interval(v) => Value::Interval(*v),
            Own::Reg(oid, name) => Value::Reg(*oid, name),
            Own::Undecodable(v) => Value::Undecodable(v),
            Own::Image(v) => Value::Image(v),
            Own::Composite(parts) => Value::Composite(parts.iter().map(|part| part.as_ref().map(Own::value)).collect()),
            Own::Array(dims, elements) => Value::Array(ArrayValue {
                dims: dims.clone(),
                elements: elements.iter().map(|e| e.as_ref().map(Own::value)).collect(),
            }),
        }
    }
}

/// A table of columns `c1`, `c2`, … with ids from 1.
pub(in crate::codec) fn table(types: &[PgType]) -> TableSchema {
    let field = |(i, pg_type): (usize, &PgType)| Field {
        id: i as i32 + 1,
        name: format!("c{}", i + 1),
        pg_type: pg_type.clone(),
        type_sql: pg_type.sql_name(),
        collation: None,
        not_null: false,
    };
    TableSchema::new(types.iter().enumerate().map(field).collect())
}

/// Stands for PostgreSQL's text output.
pub(super) fn sidecar_text(value: &Own) -> String {
    format!("{value:?}")
}

const TEXT_MARK: &[u8] = b"text:";

/// Bytes that are the same exactly if the values are, floats by their bits.
pub(super) fn canonical(decoded: &Decoded<'_>) -> Vec<u8> {
    let mut out = Vec::new();
    match decoded {
        Decoded::Null => put_cell(&mut out, None),
        Decoded::Value(value) => put_cell(&mut out, Some(value)),
        Decoded::Text(text) => {
            out.extend_from_slice(TEXT_MARK);
            out.extend_from_slice(text.as_bytes());
        }
    }
    out
}

/// What reading a cell must give.
pub(super) fn expected(pg_type: &PgType, cell: Option<&Own>, format: ObjectFormat) -> Vec<u8> {
    let Some(own) = cell else { return canonical(&Decoded::Null) };
    let value = own.value();
    let native = match format {
        ObjectFormat::Parquet => crate::codec::outlier::cell(&pg_type.storage(), &value).unwrap().is_some(),
        _ => crate::codec::ndjson::has_json(pg_type, &value),
    };
    if native { canonical(&Decoded::Value(value)) } else { canonical(&Decoded::Text(&sidecar_text(own))) }
}

pub(super) fn any_format() -> impl Strategy<Value = ObjectFormat> {
    prop::sample::select(ObjectFormat::ALL.to_vec())
}

pub(super) fn scalar_type() -> impl Strategy<Value = PgType> {
    let plain = [
        PgType::Bool,
        PgType::Int2,
        PgType::Int4,
        PgType::Int8,
        PgType::Float4,
        PgType::Float8,
        PgType::Text,
        PgType::Varchar,
        PgType::Bpchar,
        PgType::Bytea,
        PgType::Date,
        PgType::Time,
        PgType::Timestamp,
        PgType::TimestampTz,
        PgType::Uuid,
        PgType::Json,
        PgType::Jsonb,
        PgType::Enum,
        PgType::UnboundedNumeric,
        PgType::Interval,
        PgType::Money,
        PgType::Oid,
        PgType::Reg,
        PgType::Xml,
        PgType::Other,
        PgType::Opaque,
    ];
    let numeric = [(5, 2), (9, 0), (18, 6), (38, 10), (38, 38), (50, 5), (4, -2), (2, 4)];
    let numeric = numeric.map(|(precision, scale)| PgType::Numeric { precision, scale });
    proptest::sample::select([plain.to_vec(), numeric.to_vec()].concat())
}

pub(super) fn any_type() -> impl Strategy<Value = PgType> {
    prop_oneof![
        4 => scalar_type(),
        3 => scalar_type().prop_recursive(3, 8, 3, |inner| {
            prop_oneof![inner.clone().prop_map(PgType::array), vec(inner, 1..4).prop_map(composite)]
        })
    ]
}

fn composite(types: Vec<PgType>) -> PgType {
    let attribute = |(i, pg_type)| Attribute { id: i as i32 + 1, name: format!("a{i}"), pg_type };
    PgType::Composite(types.into_iter().enumerate().map(attribute).collect())
}

fn numeric(precision: u16, scale: i16) -> BoxedStrategy<Own> {
    let digits = i32::from(precision.min(37));
    let limit = 10i128.pow(digits.unsigned_abs());
    let scale = scale.unsigned_abs();
    let fixed = move |v: i128| Own::Numeric(Numeric::from_i128(v, scale));
    prop_oneof![
        6 => (-limit + 1..limit).prop_map(fixed),
        4 => (-9i128..10).prop_map(fixed),
        1 => (-limit + 1..limit, 0u16..12).prop_map(|(v, s)| Own::Numeric(Numeric::from_i128(v, s))),
        1 => proptest::sample::select(vec![NumericSign::NaN, NumericSign::PositiveInfinity, NumericSign::NegativeInfinity])
            .prop_map(|sign| Own::Numeric(Numeric::special(sign))),
    ]
    .boxed()
}

fn text() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-d]{0,2}",
        1 => ".{0,6}",
        1 => ("[a-b]{60,70}", "[\u{0}\u{7f}\u{80}\u{7ff}\u{10ffff}]{0,4}").prop_map(|(a, b)| a + &b),
    ]
    .prop_map(|text: String| text.replace('\0', ""))
    .boxed()
}

fn document() -> BoxedStrategy<String> {
    let texts = [
        "null",
        "true",
        "[]",
        "{}",
        "{\"a\": 1, \"a\": 2}",
        "{\"b\":[1.50, 1e400]}",
        " 1",
        "1 ",
        "[1,\n2]",
        "[1,\r\n2]",
        "\"\\ud800\"",
        "\"\\uD7FF\"",
        "\"\\u0000\"",
        "\"x\\\"y\"",
        "[null]",
        "\"\\\\ud800\"",
        "-0.0",
    ];
    proptest::sample::select(texts.map(str::to_owned).to_vec()).boxed()
}

fn float() -> BoxedStrategy<f64> {
    let special = vec![0.0, -0.0, f64::NAN, -f64::NAN, f64::INFINITY, f64::NEG_INFINITY, 1.0, -1.0, f64::MIN_POSITIVE];
    prop_oneof![2 => proptest::sample::select(special), 2 => -3.0f64..3.0, 1 => any::<u64>().prop_map(f64::from_bits)]
        .boxed()
}

fn timestamp() -> BoxedStrategy<i64> {
    let special = vec![i64::MIN, i64::MAX, i64::MAX - 1, -211_813_488_000_000_000, 9_223_371_331_199_999_999];
    prop_oneof![4 => -5i64..5, 2 => any::<i32>().prop_map(|v| i64::from(v) * 1000), 1 => proptest::sample::select(special)].boxed()
}

pub(super) fn value_of(pg_type: &PgType) -> BoxedStrategy<Own> {
    match pg_type {
        PgType::Bool => any::<bool>().prop_map(Own::Bool).boxed(),
        PgType::Int2 => prop_oneof![-4i16..4, any::<i16>()].prop_map(Own::Int2).boxed(),
        PgType::Int4 => prop_oneof![-4i32..4, any::<i32>()].prop_map(Own::Int4).boxed(),
        PgType::Int8 => prop_oneof![-4i64..4, any::<i64>()].prop_map(Own::Int8).boxed(),
        PgType::Float4 => float().prop_map(|v| Own::Float4(v as f32)).boxed(),
        PgType::Float8 => float().prop_map(Own::Float8).boxed(),
        PgType::Numeric { precision, scale } => numeric(*precision, *scale),
        PgType::Json | PgType::Jsonb => prop_oneof![2 => text(), 8 => document()].prop_map(Own::Text).boxed(),
        PgType::Text | PgType::Varchar | PgType::Bpchar | PgType::Enum | PgType::Xml | PgType::Other => {
            prop_oneof![9 => text().prop_map(Own::Text), 1 => vec(any::<u8>(), 1..4).prop_map(Own::Undecodable),
                1 => vec(any::<u8>(), 1..4).prop_map(Own::Image)
            ]
            .boxed()
        }
        PgType::UnboundedNumeric => prop_oneof![numeric(30, 2), numeric(30, 0), numeric(5, 9)].boxed(),
        PgType::Money => any::<i64>().prop_map(Own::Int8).boxed(),
        PgType::Oid => any::<u32>().prop_map(Own::UInt4).boxed(),
        PgType::Reg => (any::<u32>(), "[a-z]{0,3}").prop_map(|(oid, name)| Own::Reg(oid, name)).boxed(),
        PgType::Interval => (any::<i32>(), any::<i32>(), any::<i64>())
            .prop_map(|(months, days, micros)| Own::Interval(IntervalValue { months, days, micros }))
            .boxed(),
        PgType::Composite(attributes) => {
            let parts: Vec<_> = attributes.iter().map(|a| option::weighted(0.8, value_of(&a.pg_type))).collect();
            parts.prop_map(Own::Composite).boxed()
        }
        PgType::Bytea | PgType::Opaque => {
            prop_oneof![3 => vec(0u8..3, 0..3), 1 => vec(any::<u8>(), 0..8), 1 => vec(Just(255u8), 60..70)]
                .prop_map(Own::Bytes)
                .boxed()
        }
        PgType::Date => prop_oneof![6 => -4i32..4, 1 => Just(i32::MAX), 1 => Just(i32::MIN), 1 => Just(2_142_580_403)]
            .prop_map(Own::Date)
            .boxed(),
        PgType::Time => prop_oneof![6 => 0i64..5, 1 => 0..86_400_000_000i64, 1 => Just(86_400_000_000i64)]
            .prop_map(Own::Time)
            .boxed(),
        PgType::Timestamp | PgType::TimestampTz => timestamp().prop_map(Own::Timestamp).boxed(),
        PgType::Uuid => prop_oneof![(0u8..4).prop_map(|v| [v; 16]), any::<[u8; 16]>()].prop_map(Own::Uuid).boxed(),
        PgType::Array(element) => array_of(element),
    }
}

fn array_of(element: &PgType) -> BoxedStrategy<Own> {
    let elements = vec(option::weighted(0.8, value_of(element)), 0..4);
    (elements, 0u8..10)
        .prop_map(|(elements, kind)| {
            let length = elements.len() as i32;
            let dims = match (length, kind) {
                (0, _) => vec![],
                (_, 0) => vec![(length, 0)],
                (_, 1) => vec![(1, 1), (length, 1)],
                _ => vec![(length, 1)],
            };
            Own::Array(dims, elements)
        })
        .boxed()
}

/// A table and its rows. Neighbouring rows are alike, so that statistics tell something.
pub(super) fn table_and_rows(
    types: impl Strategy<Value = Vec<PgType>>,
    rows: std::ops::Range<usize>,
) -> impl Strategy<Value = (TableSchema, Vec<Row>)> {
    types.prop_flat_map(move |types| {
        let row: Vec<_> = types.iter().map(|pg_type| option::weighted(0.85, value_of(pg_type))).collect();
        let repeated = vec((row, 1usize..5), rows.clone());
        (
            Just(table(&types)),
            repeated
                .prop_map(|runs| runs.into_iter().flat_map(|(row, times)| std::iter::repeat_n(row, times)).collect()),
        )
    })
}

/// PostgreSQL's order of two values of one type, numeric cross-type included; `None` for types without one here.
pub(super) fn compare(own: &Own, scalar: &Scalar) -> Option<Ordering> {
    let floats = |a: f64, b: f64| match (a.is_nan(), b.is_nan()) {
        (true, true) => Some(Ordering::Equal),
        (true, false) => Some(Ordering::Greater),
        (false, true) => Some(Ordering::Less),
        _ => a.partial_cmp(&b),
    };
    match (own, scalar) {
        (Own::Bool(a), Scalar::Bool(b)) => Some(a.cmp(b)),
        (Own::Int2(a), Scalar::Int(b)) => Some(i64::from(*a).cmp(b)),
        (Own::Int4(a), Scalar::Int(b)) => Some(i64::from(*a).cmp(b)),
        (Own::Int8(a), Scalar::Int(b)) => Some(a.cmp(b)),
        (Own::Float4(a), Scalar::Float(b)) => floats(f64::from(*a), *b),
        (Own::Float8(a), Scalar::Float(b)) => floats(*a, *b),
        (Own::Numeric(a), Scalar::Decimal(b)) => Some(compare_numeric(a, b)),
        (Own::Text(a), Scalar::Text(b)) => Some(a.as_bytes().cmp(b.as_bytes())),
        (Own::Bytes(a), Scalar::Bytes(b)) => Some(a.cmp(b)),
        (Own::Uuid(a), Scalar::Uuid(b)) => Some(a.cmp(b)),
        (Own::UInt4(a), Scalar::Int(b)) => Some(i64::from(*a).cmp(b)),
        (Own::Interval(a), Scalar::Interval(b)) => Some(interval_micros(a).cmp(&interval_micros(b))),
        (Own::Date(a), Scalar::Date(b)) => Some(a.cmp(b)),
        (Own::Time(a), Scalar::Time(b)) => Some(a.cmp(b)),
        (Own::Timestamp(a), Scalar::Timestamp(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

fn compare_numeric(a: &NumericBuf, b: &NumericBuf) -> Ordering {
    let rank = |n: &NumericBuf| match n.sign {
        NumericSign::NegativeInfinity => -1,
        NumericSign::PositiveInfinity => 1,
        NumericSign::NaN => 2,
        _ => 0,
    };
    rank(a).cmp(&rank(b)).then_with(|| if rank(a) == 0 { decimal_order(a, b) } else { Ordering::Equal })
}

/// Compares by text, independent of the arithmetic under test.
fn decimal_order(a: &NumericBuf, b: &NumericBuf) -> Ordering {
    let parts = |n: &NumericBuf| {
        let text = n.to_string();
        let negative = text.starts_with('-');
        let (integer, fraction) = text.trim_start_matches('-').split_once('.').map_or_else(
            || (text.trim_start_matches('-').to_owned(), String::new()),
            |(integer, fraction)| (integer.to_owned(), fraction.to_owned()),
        );
        let magnitude = format!("{integer:0>60}.{fraction:0<60}");
        (negative && magnitude.bytes().any(|byte| byte != b'0' && byte != b'.'), magnitude)
    };
    let ((a_negative, a), (b_negative, b)) = (parts(a), parts(b));
    match (a_negative, b_negative) {
        (true, false) => Ordering::Less,
        (false, true) => Ordering::Greater,
        (false, false) => a.cmp(&b),
        (true, true) => b.cmp(&a),
    }
}

/// A constant that a query on the column might have.
pub(super) fn scalar_for(own: &Own) -> Option<Scalar> {
    Some(match own {
        Own::Bool(v) => Scalar::Bool(*v),
        Own::Int2(v) => Scalar::Int(i64::from(*v)),
        Own::Int4(v) => Scalar::Int(i64::from(*v)),
        Own::Int8(v) => Scalar::Int(*v),
        Own::Float4(v) => Scalar::Float(f64::from(*v)),
        Own::Float8(v) => Scalar::Float(*v),
        Own::Numeric(v) => Scalar::Decimal(v.clone()),
        Own::Text(v) => Scalar::Text(v.clone()),
        Own::Bytes(v) => Scalar::Bytes(v.clone()),
        Own::Uuid(v) => Scalar::Uuid(*v),
        Own::Date(v) => Scalar::Date(*v),
        Own::Time(v) => Scalar::Time(*v),
        Own::Timestamp(v) => Scalar::Timestamp(*v),
        Own::UInt4(v) => Scalar::Int(i64::from(*v)),
        Own::Interval(v) => Scalar::Interval(*v),
        Own::Reg(..) | Own::Undecodable(_) | Own::Image(_) | Own::Composite(_) | Own::Array(..) => {
            return None;
        }
    })
}

/// As `interval_cmp_value()` counts.
fn interval_micros(interval: &IntervalValue) -> i128 {
    (i128::from(interval.months) * 30 + i128::from(interval.days)) * 86_400_000_000 + i128::from(interval.micros)
}
