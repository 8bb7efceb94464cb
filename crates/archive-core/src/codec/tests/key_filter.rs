//! Key filters: a key that is there is always found (P9), hardly any other is, and a key takes 4 bytes.

use proptest::collection::vec;
use proptest::prelude::*;

use super::own::{Own, Row, compare, scalar_for, scalar_type, table, table_and_rows};
use super::store::{tiny, write};
use crate::codec::*;
use crate::schema::{PgType, TableSchema};

fn equals(field_id: i32, value: Scalar) -> Predicate {
    Predicate { field_id, test: Test::Compare { op: CompareOp::Eq, value, text_order: TextOrder::EqualityOnly } }
}

/// A query for the key of a row.
fn query(schema: &TableSchema, row: &Row) -> Option<Vec<Predicate>> {
    let one =
        |(cell, field): (&Option<Own>, &crate::schema::Field)| Some(equals(field.id, scalar_for(cell.as_ref()?)?));
    row.iter().zip(&schema.fields).map(one).collect()
}

fn keys_of(schema: &TableSchema, predicates: &[Predicate]) -> Option<Vec<KeyHash>> {
    // In another order than the writer's.
    let fields: Vec<_> = schema.fields.iter().rev().map(|field| (field.id, &field.pg_type)).collect();
    wanted_keys(&fields, predicates)
}

fn meets(predicates: &[Predicate], row: &Row) -> bool {
    predicates.iter().zip(row).all(|(predicate, cell)| match (&predicate.test, cell) {
        (Test::Compare { value, .. }, Some(own)) => compare(own, value).is_some_and(|order| order.is_eq()),
        _ => false,
    })
}

fn options(schema: &TableSchema) -> WriterOptions {
    WriterOptions { filter_fields: schema.fields.iter().map(|field| field.id).collect(), ..tiny() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn p9_a_filter_knows_every_key_that_equals_one_of_its_object(
        (schema, rows) in table_and_rows(vec(scalar_type(), 1..4), 1..14)
    ) {
        let written = write(&schema, options(&schema), &rows);
        let queries: Vec<_> = rows.iter().filter_map(|row| query(&schema, row)).collect();
        let mut from = 0;
        for summary in &written.summaries {
            let held = &rows[from..from + summary.rows as usize];
            from += held.len();
            let Some(filter) = &summary.key_filter else { continue };
            for predicates in queries.iter().filter(|query| held.iter().any(|row| meets(query, row))) {
                let Some(wanted) = keys_of(&schema, predicates) else { continue };
                prop_assert!(wanted.iter().any(|key| filter.may_hold(*key)), "{predicates:?} hidden");
            }
        }
    }
}

fn int_filter(keys: std::ops::Range<i64>) -> KeyFilter {
    let schema = table(&[PgType::Int8]);
    let rows: Vec<Row> = keys.map(|key| vec![Some(Own::Int8(key))]).collect();
    let options = WriterOptions { filter_fields: vec![1], ..WriterOptions::default() };
    write(&schema, options, &rows).summaries.remove(0).key_filter.unwrap()
}

fn int_key(key: i64) -> KeyHash {
    wanted_keys(&[(1, &PgType::Int8)], &[equals(1, Scalar::Int(key))]).unwrap()[0]
}

#[test]
fn a_key_takes_four_bytes_and_hardly_any_other_passes() {
    for keys in [1, 2, 10, 127, 128, 129, 1000, 5000] {
        let filter = int_filter(0..keys);
        assert!(filter.bytes.len() as i64 <= 4 * keys && filter.keys == keys as u64, "{keys}: {}", filter.bytes.len());
        assert_eq!(filter.bytes.len() % filter.blocks as usize, 0);
        assert!((0..keys).all(|key| filter.may_hold(int_key(key))));
        let passed = (keys..keys + 200_000).filter(|key| filter.may_hold(int_key(*key))).count();
        assert!(passed <= 3, "{passed} of 200000 other keys passed a filter of {keys}");
    }
}

#[test]
fn a_thousand_filters_let_pass_far_less_than_one_lookup_in_a_hundred() {
    let filters: Vec<_> = (0..1000).map(|n| int_filter(n * 100..(n + 1) * 100)).collect();
    let absent = 100_000..102_000;
    let asked = absent.filter(|key| filters.iter().any(|filter| filter.may_hold(int_key(*key)))).count();
    assert!(asked <= 20, "{asked} of 2000 lookups would have asked the storage");
}

/// The format is in catalogs: a change needs another number.
#[test]
fn the_format_stays_as_it_is() {
    let schema = table(&[PgType::Int4, PgType::Text]);
    let rows: Vec<Row> = (0..3).map(|n| vec![Some(Own::Int4(n)), Some(Own::Text(format!("k{n}")))]).collect();
    let filter = write(&schema, options(&schema), &rows).summaries.remove(0).key_filter.unwrap();
    assert_eq!((KEY_FILTER_FORMAT, filter.fields, filter.keys, filter.blocks), (1, vec![1, 2], 3, 1));
    let hex: String = filter.bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(hex, "fb19ad56b64a400862c04814");
}

#[test]
fn equal_values_are_one_key() {
    let numeric = |text: (i128, u16)| Scalar::Decimal(Numeric::from_i128(text.0, text.1));
    let interval = |months, days, micros| Scalar::Interval(IntervalValue { months, days, micros });
    let pairs = [
        (PgType::UnboundedNumeric, numeric((10, 1)), numeric((100, 2))),
        (PgType::UnboundedNumeric, numeric((0, 0)), numeric((0, 5))),
        (PgType::Float8, Scalar::Float(0.0), Scalar::Float(-0.0)),
        (PgType::Float4, Scalar::Float(f64::NAN), Scalar::Float(-f64::NAN)),
        (PgType::Bpchar, Scalar::Text("a".into()), Scalar::Text("a   ".into())),
        (PgType::Interval, interval(1, 0, 0), interval(0, 29, 86_400_000_000)),
    ];
    for (pg_type, one, other) in pairs {
        let key = |value: &Scalar| wanted_keys(&[(1, &pg_type)], &[equals(1, value.clone())]);
        assert!(key(&one).is_some());
        assert_eq!(key(&one), key(&other), "{one:?}");
    }
}

#[test]
fn keys_that_nobody_can_tell_are_not_asked_for() {
    let int = PgType::Int4;
    assert_eq!(wanted_keys(&[(1, &int), (2, &int)], &[equals(1, Scalar::Int(1))]), None);
    assert_eq!(wanted_keys(&[(1, &PgType::Other)], &[equals(1, Scalar::Text("a".into()))]), None);
    let any = |values: std::ops::Range<i64>| Predicate {
        field_id: 1,
        test: Test::In { values: values.map(Scalar::Int).collect(), text_order: TextOrder::EqualityOnly },
    };
    assert_eq!(wanted_keys(&[(1, &int)], &[any(0..64)]).map(|keys| keys.len()), Some(64));
    assert_eq!(wanted_keys(&[(1, &int)], &[any(0..65)]), None);
    assert_eq!(equality_fields(&[any(0..2), equals(7, Scalar::Int(0))]), [1, 7]);
}

#[test]
fn a_key_without_a_form_leaves_the_object_without_filter() {
    let schema = table(&[PgType::Text]);
    let rows = vec![vec![Some(Own::Text("a".into()))], vec![Some(Own::Undecodable(vec![0xff]))]];
    assert_eq!(write(&schema, options(&schema), &rows).summaries[0].key_filter, None);
    let nulls = vec![vec![Some(Own::Text("a".into()))], vec![None]];
    assert_eq!(write(&schema, options(&schema), &nulls).summaries[0].key_filter.as_ref().map(|f| f.keys), Some(1));
}
