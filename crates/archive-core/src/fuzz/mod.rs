//! What fuzzers run on bytes that somebody may have forged. An error is right, and so is an answer that holds together; a
//! panic, much memory or no end are not. `fuzz/` has a libFuzzer target for each, `tests` runs them on mutated seeds.

mod seeds;
#[cfg(test)]
mod tests;

pub use seeds::seeds;

use std::ops::Range;

use bytes::Bytes;

use crate::codec::{
    CompareOp, Decoded, ObjectFormat, ObjectReader, Predicate, RangeReader, Recorded, Scalar, ScanOptions, Sidecar,
    Test, TextOrder, sha256_of,
};
use crate::lifecycle::{Label, Selection};
use crate::manifest::{BatchManifest, Manifest};
use crate::schema::{Attribute, Field, PgType, TableSchema};
use crate::store::{AllowedEndpoints, Location, validate_key};
use crate::{Result, naming};

/// A fuzzer's name and what it runs.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: &[Target] =
    &[("manifest", manifest), ("object_key", object_key), ("label", label), ("decoder", decoder)];

/// Manifests: one that is taken is taken again as it is written.
pub fn manifest(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(manifest) = Manifest::from_json(text) {
        let written = manifest.to_json().unwrap_or_default();
        assert!(Manifest::from_json(&written).is_ok_and(|again| again == manifest), "a manifest is read as another");
        for object in &manifest.objects {
            assert!(validate_key(&object.key).is_ok(), "a manifest names an object outside of its storage");
        }
        let _ = (manifest.root_or_derived(), manifest.schemas());
    }
    if let Ok(manifest) = BatchManifest::from_json(text) {
        let written = manifest.to_json().unwrap_or_default();
        assert!(BatchManifest::from_json(&written).is_ok(), "a batch's manifest is not read again");
    }
}

/// Keys and locations: what is taken stays below the prefix, and names come back from keys as they went in.
pub fn object_key(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if validate_key(&text).is_ok() {
        let path = std::path::Path::new("/base").join(text.as_ref());
        let stays = path.starts_with("/base") && path.components().all(|part| part.as_os_str() != "..");
        assert!(stays, "a key leaves its directory");
    }
    if let Some((schema, table)) = naming::table_of_prefix(&text) {
        assert!(
            text.starts_with(naming::table_prefix(&schema, &table).trim_end_matches('/')),
            "a key has two readings"
        );
    }
    // Nothing has an empty name, nor a longer one.
    if !text.is_empty() && text.len() <= naming::MAX_IDENTIFIER {
        let key = naming::manifest_key(&text, &text, &text, 7);
        assert!(validate_key(&key).is_ok(), "a name makes a key that is refused");
        assert_eq!(naming::version_of(&key, &text), Some(7));
    }
    let _ = (naming::version_of(&text, "orders"), naming::is_batch_manifest(&text));
    if let Ok(location) = Location::parse(&text) {
        assert!(!location.to_string().contains("/../"), "a location climbs");
    }
    if let Ok(allowed) = AllowedEndpoints::parse(&text) {
        let options = [("location", "s3://bucket"), ("endpoint", "http://metadata.google.internal:1")];
        let refused = crate::store::StorageOptions::parse(options).map(|options| allowed.check(&options).is_err());
        assert!(
            refused.is_ok_and(|refused| refused) || text.to_ascii_lowercase().contains("google"),
            "a pattern allows a metadata service"
        );
    }
}

/// Labels and selections of them.
pub fn label(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(label) = text.parse::<Label>() {
        assert!(label.to_string().parse::<Label>().is_ok_and(|again| again == label), "a label is read as another");
    }
    if let Ok(selection) = Selection::parse(text) {
        let patterns = selection.patterns("public", "orders");
        let _ = patterns.map(|patterns| patterns.matches("LIVE_202401"));
        assert!(Selection::parse(&selection.to_string()).is_ok(), "a selection is not read again");
    }
}

/// Objects: read whole and with predicates; every value is looked at.
pub fn decoder(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let schema = schema();
    let everything =
        || ScanOptions { columns: schema.fields.iter().map(|field| field.id).collect(), ..ScanOptions::default() };
    for format in formats(data) {
        let scan = |options| scan(&bytes, *format, &schema, options);
        let _ = scan(everything());
        for predicates in predicates() {
            let _ = scan(ScanOptions { predicates, ..everything() });
        }
        let _ = scan(ScanOptions { row_ranges: Some(vec![1..2, 5..9]), ..everything() });
        let _ = scan(ScanOptions::default());
    }
    let _ = sha256_of(&mut Memory(bytes));
}

/// What the bytes may be, by how they begin: reading them as anything else ends at once.
fn formats(data: &[u8]) -> &'static [ObjectFormat] {
    match data {
        [b'{', ..] => &[ObjectFormat::Ndjson],
        [0x1f, 0x8b, ..] => &[ObjectFormat::NdjsonGz],
        _ => &[ObjectFormat::Parquet, ObjectFormat::Ndjson],
    }
}

/// A column of each way in which values are stored.
fn schema() -> TableSchema {
    let member = |id, pg_type| Attribute { id, name: format!("a{id}"), pg_type };
    let types = [
        PgType::Int4,
        PgType::Text,
        PgType::Numeric { precision: 12, scale: 2 },
        PgType::UnboundedNumeric,
        PgType::TimestampTz,
        PgType::Uuid,
        PgType::Bytea,
        PgType::Interval,
        PgType::Other,
        PgType::Array(Box::new(PgType::Int8)),
        PgType::Composite(vec![member(1, PgType::Bool), member(2, PgType::Float8)]),
    ];
    let field = |(at, pg_type): (usize, PgType)| {
        let id = i32::try_from(at).unwrap_or_default() + 1;
        let type_sql = pg_type.sql_name();
        Field { id, name: format!("c{id}"), pg_type, type_sql, collation: None, not_null: false }
    };
    TableSchema::new(types.into_iter().enumerate().map(field).collect())
}

fn predicates() -> [Vec<Predicate>; 3] {
    let compare = |op, value| Test::Compare { op, value, text_order: TextOrder::Bytewise };
    let text = |text: &str| Scalar::Text(text.to_owned());
    [
        vec![Predicate { field_id: 1, test: compare(CompareOp::Ge, Scalar::Int(3)) }],
        vec![
            Predicate { field_id: 2, test: compare(CompareOp::Eq, text("two")) },
            Predicate { field_id: 1, test: Test::IsNotNull },
        ],
        vec![Predicate {
            field_id: 2,
            test: Test::In { values: vec![text("a"), text("z")], text_order: TextOrder::EqualityOnly },
        }],
    ]
}

fn scan(bytes: &Bytes, format: ObjectFormat, schema: &TableSchema, options: ScanOptions) -> Result<u64> {
    // Objects that no table of so few bytes has are not gone through to the end.
    const ROWS: u64 = 100_000;
    let columns = options.columns.len();
    let recorded = Recorded { key: "t/o", format, bytes: bytes.len() as u64, rows: None, sha256: None };
    let mut reader = ObjectReader::open(Memory(bytes.clone()), recorded, schema, options)?;
    let mut rows = 0;
    while let Some(batch) = reader.next_batch()?.filter(|_| rows < ROWS) {
        for row in 0..batch.rows() {
            for column in 0..columns {
                if let Decoded::Text(text) = batch.get(column, row)? {
                    let _ = Sidecar::parse(text);
                }
            }
        }
        rows += batch.rows() as u64;
    }
    Ok(rows)
}

struct Memory(Bytes);

impl RangeReader for Memory {
    fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn read_ranges(&mut self, ranges: &[Range<u64>]) -> Result<Vec<Bytes>> {
        let at = |offset: u64| usize::try_from(offset).unwrap_or(usize::MAX).min(self.0.len());
        Ok(ranges.iter().map(|range| self.0.slice(at(range.start)..at(range.end))).collect())
    }
}
