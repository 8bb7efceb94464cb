//! What the codec costs without PostgreSQL: rows to Parquet, Parquet to values, ruling out row groups, hashing rows.
#![allow(missing_docs, clippy::unwrap_used)] // criterion's macros have no documentation; what fails here ends the run.

use std::hint::black_box;
use std::ops::Range;

use archive_core::Result;
use archive_core::codec::{
    Appended, CompareOp, Numeric, ObjectReader, ObjectSink, ObjectSummary, PartitionWriter, Predicate, RangeReader,
    Recorded, RowHasher, Scalar, ScanOptions, Test, TextOrder, Value, WriterOptions,
};
use archive_core::schema::{Field, PgType, TableSchema};
use bytes::{Bytes, BytesMut};
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

const ROWS: i64 = 50_000;

/// The columns of table R of `make bench`.
fn schema() -> TableSchema {
    let types = [
        PgType::Int8,
        PgType::TimestampTz,
        PgType::Int4,
        PgType::Text,
        PgType::Numeric { precision: 12, scale: 2 },
        PgType::Float8,
        PgType::Bool,
        PgType::Uuid,
        PgType::Jsonb,
        PgType::Text,
    ];
    let field = |(id, pg_type): (i32, PgType)| Field {
        id,
        name: format!("c{id}"),
        type_sql: pg_type.sql_name(),
        pg_type,
        collation: None,
        not_null: false,
    };
    TableSchema { fields: (1..).zip(types).map(field).collect(), origin: None, enums: Vec::new() }
}

/// The texts of a row, which its values borrow.
struct Texts {
    name: String,
    doc: String,
    note: String,
}

fn texts(n: i64) -> Texts {
    Texts {
        name: format!("customer {}", n % 5000),
        doc: format!(r#"{{"n": {n}, "tags": ["a", {}], "level": {}}}"#, n % 17, n % 5),
        note: format!("note {:032x}", (n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835)),
    }
}

fn values(n: i64, texts: &Texts) -> [Option<Value<'_>>; 10] {
    [
        Some(Value::Int8(n)),
        Some(Value::Timestamp(757_382_400_000_000 + n * 2_000_000)),
        Some(Value::Int4((n % 1000) as i32)),
        Some(Value::Text(&texts.name)),
        Some(Value::Numeric(Numeric::from_i128((n % 1_000_000).into(), 2))),
        Some(Value::Float8(n as f64 / 7.0)),
        Some(Value::Bool(n % 3 == 0)),
        Some(Value::Uuid((n as u128).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835).to_le_bytes())),
        Some(Value::Text(&texts.doc)),
        Some(Value::Text(&texts.note)),
    ]
}

/// An object in memory.
#[derive(Default)]
struct Memory(BytesMut);

impl ObjectSink for Memory {
    fn begin(&mut self, _ordinal: u32) -> Result<()> {
        Ok(())
    }
    fn write(&mut self, bytes: Bytes) -> Result<()> {
        self.0.extend_from_slice(&bytes);
        Ok(())
    }
    fn finish(&mut self) -> Result<()> {
        Ok(())
    }
}

struct Object(Bytes);

impl RangeReader for Object {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        Ok(ranges.iter().map(|range| self.0.slice(range.start as usize..range.end as usize)).collect())
    }
}

fn write(rows: &[Texts], row_group_rows: usize) -> (ObjectSummary, Bytes) {
    let options = WriterOptions { row_group_rows, ..WriterOptions::default() };
    let mut writer = PartitionWriter::new(schema(), options, Memory::default()).unwrap();
    for (n, texts) in (0..).zip(rows) {
        for (column, value) in values(n, texts).iter().enumerate() {
            assert_eq!(writer.append(column, value.as_ref()).unwrap(), Appended::Stored);
        }
        writer.end_row().unwrap();
        if writer.is_full() {
            writer.flush().unwrap();
        }
    }
    let (mut summaries, _, Memory(bytes)) = writer.finish().unwrap();
    (summaries.remove(0), bytes.freeze())
}

fn open(summary: &ObjectSummary, bytes: &Bytes, options: ScanOptions) -> ObjectReader<Object> {
    let recorded = Recorded::of("t.v1.00000.parquet", summary.bytes, summary.rows, &summary.sha256).unwrap();
    ObjectReader::open(Object(bytes.clone()), recorded, &schema(), options).unwrap()
}

fn codec(criterion: &mut Criterion) {
    let rows: Vec<_> = (0..ROWS).map(texts).collect();
    let mut group = criterion.benchmark_group("codec");
    group.throughput(Throughput::Elements(ROWS as u64)).sample_size(20);

    group.bench_function("digest", |b| {
        b.iter(|| {
            let mut hasher = RowHasher::new(&schema());
            for (n, texts) in (0..).zip(&rows) {
                values(n, texts).iter().enumerate().for_each(|(at, value)| hasher.column(at, value.as_ref()));
                hasher.end_row();
            }
            black_box(hasher.digest())
        });
    });
    group.bench_function("encode", |b| b.iter(|| black_box(write(&rows, 1_000_000))));

    let (summary, bytes) = write(&rows, 1_000_000);
    let all = || ScanOptions { columns: (1..=10).collect(), ..ScanOptions::default() };
    group.bench_function("decode", |b| {
        b.iter_batched(
            || open(&summary, &bytes, all()),
            |mut reader| {
                while let Some(batch) = reader.next_batch().unwrap() {
                    for row in 0..batch.rows() {
                        (0..10).for_each(|column| drop(black_box(batch.get(column, row))));
                    }
                }
            },
            BatchSize::LargeInput,
        );
    });

    let (summary, bytes) = write(&rows, 1_000);
    let one = Test::Compare { op: CompareOp::Eq, value: Scalar::Int(ROWS / 2), text_order: TextOrder::Bytewise };
    let few = ScanOptions { predicates: vec![Predicate { field_id: 1, test: one }], ..all() };
    group.throughput(Throughput::Elements(u64::from(summary.row_groups)));
    group.bench_function("prune", |b| {
        b.iter(|| {
            let mut reader = open(&summary, &bytes, few.clone());
            while let Some(batch) = reader.next_batch().unwrap() {
                black_box(batch.rows());
            }
            assert!(reader.metrics().row_groups_read <= 1);
        });
    });
    group.finish();
}

criterion_group!(benches, codec);
criterion_main!(benches);
