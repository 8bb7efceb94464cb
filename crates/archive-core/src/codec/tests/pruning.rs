//! P9: pruning never hides a row that matches.

use std::ops::Range;
use std::rc::Rc;
use std::sync::{Arc, Barrier};

use proptest::collection::vec;
use proptest::prelude::*;

use super::own::{Own, Row, any_format, any_type, compare, expected, scalar_for, table, table_and_rows, value_of};
use super::store::{read, scan_all, tiny, write};
use crate::codec::*;
use crate::schema::{PgType, TableSchema};

fn passes(test: &Test, cell: Option<&Own>) -> bool {
    match (test, cell) {
        (Test::IsNull, cell) => cell.is_none(),
        (Test::IsNotNull, cell) => cell.is_some(),
        (_, None) => false,
        (Test::Compare { op, value, .. }, Some(own)) => compare(own, value).is_some_and(|order| match op {
            CompareOp::Lt => order.is_lt(),
            CompareOp::Le => order.is_le(),
            CompareOp::Eq => order.is_eq(),
            CompareOp::Ge => order.is_ge(),
            CompareOp::Gt => order.is_gt(),
        }),
        (Test::In { values, .. }, Some(own)) => {
            values.iter().any(|value| compare(own, value).is_some_and(|order| order.is_eq()))
        }
    }
}

fn op() -> impl Strategy<Value = CompareOp> {
    proptest::sample::select(vec![CompareOp::Lt, CompareOp::Le, CompareOp::Eq, CompareOp::Ge, CompareOp::Gt])
}

/// A test of a column of this type with constants that are about as large as its values.
fn test_of(pg_type: &PgType) -> BoxedStrategy<Test> {
    let scalar = || value_of(pg_type).prop_filter_map("no constant", |own| scalar_for(&own));
    let nulls = prop_oneof![Just(Test::IsNull), Just(Test::IsNotNull)];
    if !pg_type.is_scalar() || matches!(pg_type, PgType::Oid) {
        return nulls.boxed();
    }
    let compare = (op(), scalar()).prop_map(|(op, value)| Test::Compare { op, value, text_order: TextOrder::Bytewise });
    let any_of = vec(scalar(), 0..4).prop_map(|values| Test::In { values, text_order: TextOrder::EqualityOnly });
    prop_oneof![5 => compare, 2 => any_of, 1 => nulls].boxed()
}

type Case = (TableSchema, Vec<Row>, Vec<Predicate>);

fn case() -> impl Strategy<Value = Case> {
    table_and_rows(vec(any_type(), 1..4), 1..14).prop_flat_map(|(schema, rows)| {
        let one = |field: &crate::schema::Field| {
            let field_id = field.id;
            proptest::option::weighted(0.7, test_of(&field.pg_type).prop_map(move |test| Predicate { field_id, test }))
        };
        let tests: Vec<_> = schema.fields.iter().map(one).collect();
        (Just(schema), Just(rows), tests.prop_map(|tests| tests.into_iter().flatten().collect()))
    })
}

fn matches(predicates: &[Predicate], row: &Row) -> bool {
    predicates.iter().all(|p| passes(&p.test, row[(p.field_id - 1) as usize].as_ref()))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn nothing_that_matches_is_skipped(
        (schema, rows, predicates) in case(),
        wide in any::<bool>(),
        format in any_format(),
    ) {
        let batch_bytes = if wide { 8 } else { 8 << 20 };
        let opts = WriterOptions { bloom_fields: vec![1, 2, 3], batch_bytes, format, ..tiny() };
        let written = write(&schema, opts, &rows);
        let mut seen = Vec::new();
        for stored in &written.objects {
            let opts = ScanOptions { predicates: predicates.clone(), ..scan_all(&schema) };
            seen.extend(read(&schema, stored, opts).unwrap().0);
        }
        let mut seen = seen.into_iter();
        for row in rows.iter().filter(|row| matches(&predicates, row)) {
            let wanted: Vec<_> =
                row.iter().zip(&schema.fields).map(|(cell, f)| expected(&f.pg_type, cell.as_ref(), format)).collect();
            prop_assert!(seen.any(|row| row == wanted), "a row that matches {predicates:?} was hidden");
        }
    }
}

/// A reader's part of one object.
#[derive(Debug)]
struct Part {
    position: Arc<SharedPosition>,
    first: u64,
}

impl ClaimRows for Part {
    fn claim(&self, rows: Range<u64>) -> bool {
        self.position.claim(self.first + rows.start..self.first + rows.end)
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn readers_that_share_objects_read_each_row_once(
        (schema, rows, predicates) in case(),
        readers in 1_usize..4,
        format in any_format(),
    ) {
        let written = write(&schema, WriterOptions { bloom_fields: vec![1, 2, 3], format, ..tiny() }, &rows);
        let (position, barrier) = (Arc::new(SharedPosition::default()), Barrier::new(readers));
        let read_with = |share: &dyn Fn(u64) -> Option<Rc<dyn ClaimRows>>| {
            let (mut seen, mut metrics, mut first) = (Vec::new(), Vec::new(), 0);
            for stored in &written.objects {
                let share = share(first);
                let opts = ScanOptions { predicates: predicates.clone(), share, ..scan_all(&schema) };
                let (rows, read) = read(&schema, stored, opts).unwrap();
                seen.extend(rows);
                metrics.push(read);
                first += stored.recorded.rows.unwrap_or(0);
            }
            (seen, metrics)
        };
        let part = |first| {
            let part: Rc<dyn ClaimRows> = Rc::new(Part { position: Arc::clone(&position), first });
            Some(part)
        };
        let one_of_them = || {
            barrier.wait();
            read_with(&part)
        };
        let (mut together, metrics) = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..readers).map(|_| scope.spawn(one_of_them)).collect();
            let parts = threads.into_iter().map(|thread| thread.join().unwrap());
            parts.reduce(|(rows, metrics), (more, others)| ([rows, more].concat(), [metrics, others].concat())).unwrap()
        });
        let (mut alone, once) = read_with(&|_| None);
        together.sort();
        alone.sort();
        prop_assert_eq!(together, alone);
        let counts = |metrics: &[ReadMetrics]| {
            let each = metrics.iter().map(|read| {
                let skipped = [read.row_groups_skipped, read.row_groups_skipped_by_bloom, read.rows_skipped_by_page_index];
                [[read.row_groups_read, read.rows_read].as_slice(), &skipped].concat()
            });
            each.fold(vec![0; 5], |sums, more| sums.iter().zip(more).map(|(sum, more)| sum + more).collect())
        };
        prop_assert_eq!(counts(&metrics), counts(&once));
    }
}

fn int_rows(rows: i32) -> Vec<Row> {
    (0..rows).map(|i| vec![Some(Own::Int4(i)), Some(Own::Text(format!("k{}", (i * 7919) % 1000)))]).collect()
}

fn metrics(predicates: Vec<Predicate>) -> ReadMetrics {
    let schema = table(&[PgType::Int4, PgType::Text]);
    let opts = WriterOptions { batch_rows: 10, row_group_rows: 100, bloom_fields: vec![2], ..WriterOptions::default() };
    let stored = write(&schema, opts, &int_rows(1000)).objects.remove(0);
    read(&schema, &stored, ScanOptions { predicates, ..scan_all(&schema) }).unwrap().1
}

fn equals(field_id: i32, value: Scalar) -> Predicate {
    Predicate { field_id, test: Test::Compare { op: CompareOp::Eq, value, text_order: TextOrder::EqualityOnly } }
}

#[test]
fn statistics_and_pages_skip_what_cannot_match() {
    let found = metrics(vec![equals(1, Scalar::Int(555))]);
    assert_eq!((found.row_groups_read, found.row_groups_skipped), (1, 9));
    assert_eq!((found.rows_read, found.rows_skipped_by_page_index), (20, 80));
}

#[test]
fn bloom_filters_skip_row_groups() {
    // Row 1 has this key, and the ranges of all row groups hold it.
    let found = metrics(vec![equals(2, Scalar::Text("k919".into()))]);
    assert!(found.row_groups_skipped_by_bloom >= 7, "{found:?}");
    assert!(found.row_groups_read >= 1);
}

#[test]
fn a_constant_beyond_the_type_matches_nothing() {
    assert_eq!(metrics(vec![equals(1, Scalar::Int(i64::MAX))]).row_groups_read, 0);
    let infinite = Test::Compare { op: CompareOp::Le, value: Scalar::Int(-1), text_order: TextOrder::Bytewise };
    assert_eq!(metrics(vec![Predicate { field_id: 1, test: infinite }]).row_groups_read, 0);
}

#[test]
fn the_order_of_text_is_used_for_bytewise_collations_only() {
    let test = |text_order| Test::Compare { op: CompareOp::Gt, value: Scalar::Text("z".into()), text_order };
    let read = |text_order| metrics(vec![Predicate { field_id: 2, test: test(text_order) }]).row_groups_read;
    assert_eq!((read(TextOrder::Bytewise), read(TextOrder::EqualityOnly)), (0, 10));
}
