//! What fuzzers begin with: whole inputs of each kind.

use bytes::Bytes;

use super::schema;
use crate::codec::{
    Appended, ArrayValue, IntervalValue, Numeric, ObjectFormat, ObjectSink, PartitionWriter, RowHasher, Sidecar, Value,
    WriterOptions,
};
use crate::manifest::BatchManifest;
use crate::{Result, naming};

/// The seeds of a target.
pub fn seeds(target: &str) -> Vec<Vec<u8>> {
    match target {
        "manifest" => [Ok(MANIFEST.to_vec()), batch()].into_iter().flatten().collect(),
        "object_key" => keys().into_iter().map(String::into_bytes).collect(),
        "label" => LABELS.iter().map(|label| label.as_bytes().to_vec()).collect(),
        "decoder" => {
            let of = |format| [0, 1, 40].into_iter().filter_map(move |rows| object(rows, format).ok());
            ObjectFormat::ALL.into_iter().flat_map(of).collect()
        }
        _ => Vec::new(),
    }
}

const MANIFEST: &[u8] =
    include_bytes!("../../../../tests/fixtures/format1/public.orders/_manifests/orders_2024_01.v1.json");

fn batch() -> Result<Vec<u8>> {
    let (set, created) = ("public.orders/_manifests/orders_rows_1.v1.json", "2024-01-01T00:00:00Z".to_owned());
    let digest = RowHasher::new(&schema()).digest();
    let batch = BatchManifest::new(set, ("0123", 1), created, digest, Vec::new(), None);
    batch.written_by("1234".to_owned()).to_json().map(String::into_bytes)
}

const LABELS: &[&str] = &[
    "LIVE_202401",
    "LIVE_2024010105",
    "LIVE_202401W1",
    "HOT_2024Q1",
    "WARM_2024",
    "ARCHIVED_202509",
    "orders=LIVE_2024*; public.tickets=HOT*,WARM_2024; LIVE*",
];

fn keys() -> Vec<String> {
    vec![
        naming::manifest_key("public", "orders", "orders_2024_01", 3),
        naming::data_key("a.b", "é/..", "%2E%2E", None, 1, 12),
        "../../etc/passwd".to_owned(),
        "s3://bucket/prefix".to_owned(),
        "file:///var/lib/archive".to_owned(),
        "*.example.com, minio:9000, [::1]:9000".to_owned(),
    ]
}

#[derive(Default)]
struct Memory(Vec<u8>);

impl ObjectSink for Memory {
    fn begin(&mut self, _ordinal: u32) -> Result<()> {
        self.0.clear();
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

/// An object with several pages and row groups, NULLs, sidecars and bloom filters.
fn object(rows: i32, format: ObjectFormat) -> Result<Vec<u8>> {
    let bloom_fields = vec![1, 2];
    let options = WriterOptions { batch_rows: 5, row_group_rows: 16, bloom_fields, format, ..WriterOptions::default() };
    let mut writer = PartitionWriter::new(schema(), options, Memory::default())?;
    for row in 0..rows {
        let (text, bytes) = (format!("text {row}"), row.to_be_bytes());
        let interval = IntervalValue { months: row, days: 1, micros: 2 };
        let array = ArrayValue { dims: vec![(2, 1)], elements: vec![Some(Value::Int8(row.into())), None] };
        let composite = vec![Some(Value::Bool(row % 2 == 0)), Some(Value::Float8(0.5))];
        let values = [
            Value::Int4(row),
            Value::Text(&text),
            Value::Numeric(Numeric::from_i128(row.into(), 2)),
            Value::Numeric(Numeric::from_i128(row.into(), 7)),
            // The first is an infinity, which goes into the sidecar.
            Value::Timestamp(if row == 0 { i64::MAX } else { row.into() }),
            Value::Uuid([7; 16]),
            Value::Bytes(&bytes),
            Value::Interval(interval),
            if row % 5 == 3 { Value::Image(&bytes) } else { Value::Text("(1,2)") },
            Value::Array(array),
            Value::Composite(composite),
        ];
        for (column, value) in values.iter().enumerate() {
            let value = Some(value).filter(|_| row % 7 != 6);
            if writer.append(column, value)? == Appended::NeedsText {
                let text = if column == 8 { Sidecar::of_image(&bytes, None) } else { "infinity".to_owned() };
                writer.append_text(column, &text)?;
            }
        }
        writer.end_row()?;
        if writer.is_full() {
            writer.flush()?;
        }
    }
    Ok(writer.finish()?.2.0)
}
