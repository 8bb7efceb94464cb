use super::*;
use crate::codec::{DIGEST_ALGORITHM, Digest, RowHasher, Value};
use crate::schema::{Field, PgType, TableSchema};
use crate::{Error, ErrorKind};

fn schema() -> TableSchema {
    let field = Field {
        id: 1,
        name: "id".into(),
        pg_type: PgType::Int4,
        type_sql: "integer".into(),
        collation: None,
        not_null: true,
    };
    TableSchema::new(vec![field])
}

fn object(ordinal: u32, values: &[i32]) -> ManifestObject {
    let mut hasher = RowHasher::new(&schema());
    for value in values {
        hasher.column(0, Some(&Value::Int4(*value)));
        hasher.end_row();
    }
    ManifestObject {
        key: format!("public.orders/orders_2024_01.v1.{ordinal:05}.parquet"),
        bytes: 100,
        rows: values.len() as u64,
        sha256: "ab".repeat(32),
        digest: hasher.take(),
        row_groups: 1,
        null_counts: vec![(1, 0)],
        sidecars: vec![],
        ranges: vec![ColumnRange {
            field_id: 1,
            min: "1".into(),
            max: "9".into(),
            collation: None,
            collation_version: None,
        }],
    }
}

fn manifest() -> Manifest {
    let objects = vec![object(0, &[1, 2]), object(1, &[3])];
    let mut digest = Digest::default();
    objects.iter().for_each(|object| digest.merge(&object.digest));
    Manifest {
        format: MANIFEST_FORMAT,
        source: Source {
            database: "shop".into(),
            schema: "public".into(),
            table: "orders".into(),
            partition_schema: "public".into(),
            partition: "orders_2024_01".into(),
            bounds: Some("FOR VALUES FROM ('2024-01-01') TO ('2024-02-01')".into()),
            partition_key: Some("RANGE (created_at)".into()),
        },
        version: 1,
        created_at: "2026-01-01T00:00:00Z".into(),
        server_version: "15.14".into(),
        database_encoding: "UTF8".into(),
        extension_version: "0.1.0".into(),
        system_identifier: "7212345678901234567".into(),
        schema: schema(),
        digest_algorithm: DIGEST_ALGORITHM.into(),
        digest,
        rows: 3,
        bytes: 200,
        objects,
        ddl: Ddl { create_table: "CREATE TABLE public.orders_2024_01 (id integer NOT NULL);".into(), ..Ddl::default() },
    }
}

fn read_changed(change: impl FnOnce(&mut Manifest)) -> Error {
    let mut manifest = manifest();
    change(&mut manifest);
    Manifest::from_json(&manifest.to_json().unwrap()).unwrap_err()
}

#[test]
fn json_comes_back() {
    let json = manifest().to_json().unwrap();
    assert_eq!(Manifest::from_json(&json).unwrap(), manifest());
    assert!(json.starts_with("{\n  \"format\": 1,"));
}

#[test]
fn newer_formats_are_refused_whatever_else_they_hold() {
    let error = Manifest::from_json(r#"{"format": 2, "other": true}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.hint_text().is_some());
    assert_eq!(read_changed(|m| m.digest_algorithm = "sha3".into()).kind(), ErrorKind::Unsupported);
}

#[test]
fn contradictions_are_corrupt() {
    let changes: [fn(&mut Manifest); 8] = [
        |m| m.rows = 4,
        |m| m.bytes = 1,
        |m| m.digest.sum ^= 1,
        |m| m.objects[0].rows = 1,
        |m| m.objects[0].sha256.truncate(3),
        |m| m.objects[0].sidecars.push(9),
        |m| m.objects[1].key = m.objects[0].key.clone(),
        |m| m.objects.truncate(1),
    ];
    for change in changes {
        assert_eq!(read_changed(change).kind(), ErrorKind::Corrupt);
    }
    assert_eq!(Manifest::from_json("{}").unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn statements_are_in_replay_order() {
    let named = |name: &str, sql: &str| NamedDdl { name: name.into(), sql: sql.into() };
    let ddl = Ddl {
        create_table: "table".into(),
        defaults: vec!["default".into()],
        indexes: vec![named("i", "index")],
        constraints: vec![named("c", "constraint")],
        grants: vec!["grant".into()],
        ..Ddl::default()
    };
    assert_eq!(ddl.statements().collect::<Vec<_>>(), ["table", "default", "index", "constraint", "grant"]);
    assert_eq!(ddl.before_load().count(), 2);
}
