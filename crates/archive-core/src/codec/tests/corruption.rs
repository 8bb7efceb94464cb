//! Damaged objects give errors, never panics and never other rows under the same digest.

use proptest::collection::vec;
use proptest::prelude::*;

use super::own::{Own, Row, any_format, any_type, table, table_and_rows};
use super::store::{Memory, Object, Stored, read, scan_all, tiny, write};
use crate::codec::*;
use crate::schema::PgType;
use crate::{ErrorKind, Result};

fn is_clean(result: Result<impl Sized>) -> bool {
    result.is_err_and(|error| error.kind() != ErrorKind::Internal)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn flipped_bytes_never_panic(
        (schema, rows) in table_and_rows(vec(any_type(), 1..4), 1..8),
        flips in vec((any::<prop::sample::Index>(), 1u8..=255), 1..3),
        format in any_format(),
    ) {
        let stored = write(&schema, WriterOptions { bloom_fields: vec![1], format, ..tiny() }, &rows).objects.remove(0);
        let mut bytes = stored.bytes.to_vec();
        for (at, mask) in flips {
            let i = at.index(bytes.len());
            bytes[i] ^= mask;
        }
        let predicates = vec![Predicate { field_id: 1, test: Test::In { values: vec![Scalar::Int(1)], text_order: TextOrder::Bytewise } }];
        for predicates in [Vec::new(), predicates] {
            let result = read(&schema, &stored.with(bytes.clone()), ScanOptions { predicates, ..scan_all(&schema) });
            if let Err(error) = result {
                prop_assert_ne!(error.kind(), ErrorKind::Internal, "{}", error);
            }
        }
    }

    #[test]
    fn truncated_objects_are_refused(
        (schema, rows) in table_and_rows(vec(any_type(), 1..3), 1..6),
        cut in any::<prop::sample::Index>(),
        format in any_format(),
    ) {
        let whole = write(&schema, WriterOptions { format, ..tiny() }, &rows).objects.remove(0);
        let cut = whole.with(whole.bytes.slice(..cut.index(whole.bytes.len())));
        prop_assert!(is_clean(read(&schema, &cut, scan_all(&schema))));
    }
}

fn numbers() -> (crate::schema::TableSchema, Stored) {
    let schema = table(&[PgType::Int8]);
    let rows: Vec<Row> = (0..50).map(|i| vec![Some(Own::Int8(i))]).collect();
    let stored = write(&schema, tiny(), &rows).objects.remove(0);
    (schema, stored)
}

#[test]
fn another_size_or_type_is_corrupt() {
    let (schema, stored) = numbers();
    let open = |schema: &_, recorded| {
        ObjectReader::open(Object::new(stored.bytes.clone()), recorded, schema, ScanOptions::default()).err()
    };
    let right = stored.recorded;
    let kind = |error: Option<crate::Error>| error.map(|error| error.kind());
    assert_eq!(kind(open(&schema, right)), None);
    assert_eq!(kind(open(&schema, Recorded { bytes: right.bytes - 1, ..right })), Some(ErrorKind::Corrupt));
    assert_eq!(
        kind(open(&schema, Recorded { rows: right.rows.map(|rows| rows + 1), ..right })),
        Some(ErrorKind::Corrupt)
    );
    assert_eq!(kind(open(&table(&[PgType::Int4]), right)), Some(ErrorKind::Corrupt));
    let error = open(&table(&[PgType::Int8, PgType::Text]), right).unwrap();
    assert_eq!((error.kind(), error.message()), (ErrorKind::Corrupt, "archive object \"t/o\" is not what was written"));
    assert_eq!(error.detail_text().as_deref(), Some("Object lacks column \"c2\". No column has field id 2."));
}

#[test]
fn bytes_that_are_no_parquet_are_corrupt() {
    for bytes in [&b""[..], b"PAR1", b"12345678", b"PAR1\xff\xff\xff\x7fPAR1"] {
        let result =
            read(&table(&[PgType::Int4]), &Stored::new(bytes, ObjectFormat::Parquet, 0), ScanOptions::default());
        assert_eq!(result.unwrap_err().kind(), ErrorKind::Corrupt);
    }
}

/// An object of one row, whose sidecar holds this text.
fn with_sidecar(schema: &crate::schema::TableSchema, text: &str, format: ObjectFormat) -> Stored {
    let options = WriterOptions { format, ..tiny() };
    let mut writer = PartitionWriter::new(schema.clone(), options, Memory::default()).unwrap();
    assert_eq!(writer.append(0, Some(&Value::Image(b"x"))).unwrap(), Appended::NeedsText);
    writer.append_text(0, text).unwrap();
    writer.end_row().unwrap();
    Stored::new(writer.finish().unwrap().2.objects.remove(0), format, 1)
}

#[test]
fn bytes_in_memory_are_handed_out_only_from_the_object_that_was_written() {
    let schema = table(&[PgType::Other]);
    for format in ObjectFormat::ALL {
        let [honest, forged, plain, server_text] =
            ["\\b00", "\\b01", "plain", "\\x01"].map(|text| with_sidecar(&schema, text, format));
        let honest_sha256 = sha256_of_bytes(&honest.bytes);
        let rows = |stored: &Stored| {
            let recorded = Recorded { sha256: Some(&honest_sha256), ..stored.recorded };
            let object = Object::new(stored.bytes.clone());
            let mut reader = ObjectReader::open(object, recorded, &schema, scan_all(&schema)).unwrap();
            reader.next_batch().map(|batch| batch.map_or(0, |batch| batch.rows()))
        };
        assert_eq!(rows(&honest).unwrap(), 1);
        for forged in [forged, server_text] {
            assert_eq!(rows(&forged).unwrap_err().kind(), ErrorKind::Corrupt);
        }
        assert_eq!(rows(&plain).unwrap(), 1, "text goes through the type's input function");
    }
}
