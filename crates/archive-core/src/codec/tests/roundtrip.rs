//! Rows come back as they went in.

use std::time::Duration;

use proptest::collection::vec;
use proptest::prelude::*;

use super::own::{Own, Row, any_format, any_type, expected, table, table_and_rows};
use super::store::{Memory, append, read, scan_all, tiny, write, write_with};
use crate::codec::*;
use crate::schema::{PgType, TableSchema};

fn expected_rows(schema: &TableSchema, rows: &[Row], format: ObjectFormat) -> Vec<Vec<Vec<u8>>> {
    let cell = |(i, cell): (usize, &Option<Own>)| expected(&schema.fields[i].pg_type, cell.as_ref(), format);
    rows.iter().map(|row| row.iter().enumerate().map(cell).collect()).collect()
}

fn digest_of(schema: &TableSchema, rows: &[Row]) -> Digest {
    let mut hasher = RowHasher::new(schema);
    for row in rows {
        for (i, cell) in row.iter().enumerate() {
            hasher.column(i, cell.as_ref().map(Own::value).as_ref());
        }
        hasher.end_row();
    }
    hasher.digest()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn tables_come_back(
        (schema, rows) in table_and_rows(vec(any_type(), 1..6), 0..12),
        object_bytes in prop_oneof![Just(u64::MAX), Just(1u64), Just(3000)],
        batch_bytes in prop_oneof![Just(8usize << 20), Just(20)],
        format in any_format(),
    ) {
        let opts = WriterOptions { object_bytes, batch_bytes, bloom_fields: vec![1, 2], format, ..tiny() };
        let written = write(&schema, opts, &rows);
        let mut total = Digest { columns: digest_of(&schema, &[]).columns, ..Digest::default() };
        let (mut seen, mut homes) = (Vec::new(), Vec::new());
        for (stored, summary) in written.objects.iter().zip(&written.summaries) {
            let (found, metrics) = read(&schema, stored, scan_all(&schema)).unwrap();
            prop_assert_eq!(metrics.rows_read, summary.rows);
            prop_assert_eq!(stored.bytes.len() as u64, summary.bytes);
            prop_assert_eq!(sha256_of_bytes(&stored.bytes), summary.sha256.clone());
            homes.extend(std::iter::repeat_n(summary.ordinal, found.len()));
            seen.extend(found);
            total.merge(&summary.digest);
        }
        prop_assert_eq!(&seen, &expected_rows(&schema, &rows, format));
        prop_assert_eq!(homes, written.homes);
        prop_assert_eq!(total, digest_of(&schema, &rows));
        for (i, field) in schema.fields.iter().enumerate() {
            let nulls: u64 = written.summaries.iter().map(|s| s.null_counts[i].1).sum();
            prop_assert_eq!(nulls, rows.iter().filter(|row| row[i].is_none()).count() as u64, "{}", field.name);
        }
    }

    /// Batches are hashed column by column, some hundred rows at a time.
    #[test]
    fn large_batches_have_the_digest_of_their_rows((schema, rows) in table_and_rows(vec(any_type(), 1..6), 1..12)) {
        let rows: Vec<Row> = rows.iter().cycle().take(700).cloned().collect();
        let written = write(&schema, WriterOptions::default(), &rows);
        let mut total = Digest { columns: digest_of(&schema, &[]).columns, ..Digest::default() };
        written.summaries.iter().for_each(|summary| total.merge(&summary.digest));
        prop_assert_eq!(total, digest_of(&schema, &rows));
    }

    #[test]
    fn samples_and_projections(
        (schema, rows) in table_and_rows(vec(any_type(), 2..4), 4..12),
        start in 0u64..20,
        format in any_format(),
    ) {
        let written = write(&schema, WriterOptions { format, ..tiny() }, &rows);
        let all = expected_rows(&schema, &rows, format);
        let mut first = 0;
        for (stored, summary) in written.objects.iter().zip(&written.summaries) {
            let own = &all[first..first + summary.rows as usize];
            first += own.len();
            let opts = ScanOptions {
                columns: vec![2, 1, 2],
                row_ranges: Some(vec![start + 2..start + 9, start..start + 1]),
                max_batch_rows: 2,
                ..ScanOptions::default()
            };
            let (found, _) = read(&schema, stored, opts).unwrap();
            let picked = own.iter().enumerate().filter(|(i, _)| {
                let i = *i as u64;
                i == start || (start + 2..start + 9).contains(&i)
            });
            let picked: Vec<_> = picked.map(|(_, r)| vec![r[1].clone(), r[0].clone(), r[1].clone()]).collect();
            prop_assert_eq!(found, picked);
        }
    }
}

#[test]
fn an_empty_partition_is_one_object() {
    let schema = table(&[PgType::Int4, PgType::array(PgType::Text)]);
    for format in ObjectFormat::ALL {
        let written = write(&schema, WriterOptions { format, ..tiny() }, &[]);
        assert_eq!(written.summaries.len(), 1);
        assert_eq!((written.summaries[0].rows, written.summaries[0].row_groups), (0, 0));
        assert!(read(&schema, &written.objects[0], scan_all(&schema)).unwrap().0.is_empty());
    }
}

#[test]
fn a_table_without_columns_is_refused() {
    let refused = PartitionWriter::new(TableSchema::default(), tiny(), Memory::default()).err();
    assert_eq!(refused.map(|error| error.kind()), Some(crate::ErrorKind::Unsupported));
}

#[test]
fn counting_decodes_nothing() {
    let schema = table(&[PgType::Int4]);
    let rows: Vec<Row> = (0..20).map(|i| vec![Some(Own::Int4(i))]).collect();
    for format in ObjectFormat::ALL {
        let stored = write(&schema, WriterOptions { format, ..tiny() }, &rows).objects.remove(0);
        let object = super::store::Object::new(stored.bytes.clone());
        let mut reader = ObjectReader::open(object, stored.recorded, &schema, ScanOptions::default()).unwrap();
        let mut rows = 0;
        while let Some(batch) = reader.next_batch().unwrap() {
            rows += batch.rows();
        }
        assert_eq!((rows, reader.reader().requests), (20, 1));
    }
}

#[test]
fn sidecars_begin_a_new_object_only_when_rows_are_in_the_old() {
    let schema = table(&[PgType::Date]);
    let dates = |dates: &[i32]| -> Vec<Row> { dates.iter().map(|d| vec![Some(Own::Date(*d))]).collect() };
    let late = write(&schema, tiny(), &dates(&[1, 2, 3, 4, i32::MAX]));
    assert_eq!(late.summaries.iter().map(|s| (s.rows, s.sidecars.len())).collect::<Vec<_>>(), [(3, 0), (2, 1)]);
    let early = write(&schema, tiny(), &dates(&[1, i32::MAX, 3, 4, 5, 6]));
    assert_eq!(early.summaries.iter().map(|s| (s.rows, s.sidecars.clone())).collect::<Vec<_>>(), [(6, vec![1])]);
}

#[test]
fn objects_rotate_by_size() {
    let schema = table(&[PgType::Text]);
    let rows: Vec<Row> = (0..100).map(|i| vec![Some(Own::Text(format!("value {i}")))]).collect();
    let written = write(&schema, WriterOptions { object_bytes: 300, ..tiny() }, &rows);
    assert!(written.summaries.len() > 2, "{}", written.summaries.len());
    assert_eq!(written.summaries.iter().map(|s| s.rows).sum::<u64>(), 100);
}

#[test]
fn values_wider_than_a_batch_come_back() {
    let schema = table(&[PgType::Text, PgType::Bytea, PgType::array(PgType::Text)]);
    let wide = "x".repeat(100_000);
    let row = |text: &str| -> Row {
        vec![
            Some(Own::Text(text.to_owned())),
            Some(Own::Bytes(text.as_bytes().to_vec())),
            Some(Own::Array(vec![(1, 1)], vec![Some(Own::Text(text.to_owned()))])),
        ]
    };
    let rows = vec![row("a"), row("b"), row(&wide), row("c"), row(&wide)];
    for format in ObjectFormat::ALL {
        let written = write(&schema, WriterOptions { batch_bytes: 1000, format, ..tiny() }, &rows);
        let seen: Vec<_> =
            written.objects.iter().flat_map(|stored| read(&schema, stored, scan_all(&schema)).unwrap().0).collect();
        assert_eq!(seen, expected_rows(&schema, &rows, format));
        assert_eq!(written.summaries.len(), 1, "the first batch holds the wide row already");
    }
}

#[test]
fn the_sink_gets_bounded_chunks() {
    let schema = table(&[PgType::Bytea]);
    let mut writer = PartitionWriter::new(schema, WriterOptions::default(), Memory::default()).unwrap();
    let mut state = 1u64;
    for _ in 0..12 {
        let noise = std::iter::repeat_with(|| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (state >> 56) as u8
        });
        let _ = append(&mut writer, &[Some(Own::Bytes(noise.take(1 << 20).collect()))]);
    }
    let (summaries, _, sink) = writer.finish().unwrap();
    assert_eq!((summaries.len(), sink.largest_write), (1, 8 << 20));
}

/// So far behind as a thread may be, and then at once.
#[test]
fn a_thread_that_is_late_makes_the_same_objects() {
    let schema = table(&[PgType::Int4, PgType::Text]);
    let row = |n| vec![Some(Own::Int4(n)), (n % 3 > 0).then(|| Own::Text(format!("text {n}")))];
    let rows: Vec<Row> = (0..100).map(row).collect();
    let opts = WriterOptions { object_bytes: 2000, ..tiny() };
    let late = |task: Box<dyn FnOnce() + Send>| {
        std::thread::spawn(|| {
            std::thread::sleep(Duration::from_millis(100));
            task();
        });
        Ok(())
    };
    let writer = || PartitionWriter::new(schema.clone(), opts.clone(), Memory::default()).unwrap();
    let here = write_with(writer(), opts.format, &rows);
    let there = write_with(writer().encoding_in(Background::new(late, || ())), opts.format, &rows);
    assert!(here.summaries.len() > 1);
    assert_eq!((here.homes, here.summaries), (there.homes, there.summaries));
}

/// Their slots take memory, too (P7).
#[test]
fn rows_without_values_fill_a_batch() {
    let schema = table(&vec![PgType::Numeric { precision: 10, scale: 2 }; 300]);
    let opts = WriterOptions::default();
    let mut writer = PartitionWriter::new(schema, opts.clone(), Memory::default()).unwrap();
    while !writer.is_full() {
        (0..300).for_each(|column| assert_eq!(writer.append(column, None).unwrap(), Appended::Stored));
        writer.end_row().unwrap();
    }
    assert!(writer.rows() as usize * 300 * size_of::<i128>() < opts.batch_bytes, "{}", writer.rows());
}

#[test]
fn misuse_is_an_error() {
    let mut writer = PartitionWriter::new(table(&[PgType::Date, PgType::Int4]), tiny(), Memory::default()).unwrap();
    assert!(writer.append(1, None).is_err(), "columns come in order");
    assert_eq!(writer.append(0, Some(&Value::Date(i32::MAX))).unwrap(), Appended::NeedsText);
    assert!(writer.append(1, None).is_err(), "the text is owed");
    assert!(writer.end_row().is_err());
    assert!(
        PartitionWriter::new(table(&[PgType::Bool]), WriterOptions { batch_rows: 0, ..tiny() }, Memory::default())
            .is_err()
    );
}
