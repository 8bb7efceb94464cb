use super::*;
use crate::chain::{Link, Signature};
use crate::codec::{DIGEST_ALGORITHM, Digest, RowHasher, Value};
use crate::schema::{EnumType, Field, PgType, TableSchema};
use crate::{Error, ErrorKind};

fn schema() -> TableSchema {
    let field = Field {
        id: 1,
        name: "id".into(),
        pg_type: PgType::Int4,
        type_sql: "integer".into(),
        collation: Some("C".into()),
        not_null: true,
    };
    let mood = EnumType { oid: 16_400, name: "public.mood".into(), labels: vec![(16_402, "fine".into())] };
    TableSchema { fields: vec![field], origin: Some("7212345678901234567/5".into()), enums: vec![mood] }
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
        sidecars: vec![1],
        ranges: vec![ColumnRange {
            field_id: 1,
            min: "1".into(),
            max: "9".into(),
            collation: Some("C".into()),
            collation_version: Some(String::new()),
        }],
        archived_at: Some("2026-01-01T00:00:00Z".into()),
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
            local_bytes: Some(8192),
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
        ddl: Ddl {
            prerequisites: vec!["CREATE SCHEMA IF NOT EXISTS public".into(), "CREATE TYPE public.t AS (a int)".into()],
            create_table: "CREATE TABLE public.orders_2024_01 (id integer NOT NULL);".into(),
            ..everything()
        },
        database: Some(DatabaseFacts { encoding: "UTF8".into(), ..DatabaseFacts::default() }),
        collations: vec![CollationFact { version: Some("153.120".into()), ..CollationFact::default() }],
        extensions: vec![Extension { name: "hstore".into(), schema: "Ext".into(), version: "1.8".into() }],
        sequences: vec![Sequence::default()],
        root: Some(Root {
            partition_key: "RANGE (created_at)".into(),
            ddl: everything(),
            levels: vec![Level { schema: "deep".into(), ..Level::default() }],
            parents: Some(vec![key_to_orders()]),
        }),
        archive: Some(ArchiveRelations { schema: "archive".into(), table: "orders".into() }),
        column_map: vec![mapped_column()],
        family: Some(family()),
        previous: Some(vec![Link {
            key: "public.orders/_manifests/orders_2023_12.v1.json".into(),
            sha256: "cd".repeat(32),
        }]),
        signature: Some(Signature { algorithm: "ed25519".into(), public_key: "AA==".into(), value: "AQ==".into() }),
    }
}

fn family() -> Family {
    let member = |table: &str| FamilyMember {
        schema: "public".into(),
        table: table.into(),
        partition_schema: "public".into(),
        partition: format!("{table}_2024_01"),
        parents: Vec::new(),
    };
    let line = FamilyMember { parents: vec![key_to_orders()], ..member("order_line") };
    Family { id: "public.orders/orders_2024_01".into(), members: vec![line, member("orders")] }
}

fn key_to_orders() -> FamilyKey {
    FamilyKey { schema: "public".into(), table: "orders".into(), foreign_key: "order_line_fkey".into() }
}

#[test]
fn the_parents_of_a_table_are_its_own_or_those_of_its_family() {
    let of = |root: Option<Root>, family: Option<Family>| {
        let mut manifest = manifest();
        (manifest.root, manifest.family) = (root, family);
        manifest.source.table = "order_line".into();
        manifest.managed_parents().map(<[FamilyKey]>::to_vec)
    };
    let own = |parents| Some(Root { parents, ..Root::default() });
    assert_eq!(of(own(Some(vec![key_to_orders()])), None), Some(vec![key_to_orders()]));
    // Not a child any more, whatever the family was.
    assert_eq!(of(own(Some(Vec::new())), Some(family())), Some(Vec::new()));
    // Older versions.
    assert_eq!(of(own(None), Some(family())), Some(vec![key_to_orders()]));
    assert_eq!(of(None, None), None);
    assert!(!serde_json::to_string(&Root::default()).unwrap().contains("parents"));
}

fn mapped_column() -> MappedColumn {
    MappedColumn {
        field_id: 1,
        name: Some("id".into()),
        former_name: "id".into(),
        attnum: Some(1),
        root: "7212345678901234567/5/16390".into(),
        types: vec![TypeStep {
            names: vec!["integer".into()],
            oid: 23,
            typmod: -1,
            casts: vec!["text".into()],
            by_expression: false,
            settings: CastSettings::default(),
            since: 0,
        }],
        fill: Fill::Constant("7".into()),
    }
}

/// Every list has an element, so that every member is in the JSON.
fn everything() -> Ddl {
    let named = || vec![NamedDdl { name: "n".into(), sql: "s".into() }];
    let text = || vec!["s".to_owned()];
    Ddl {
        prerequisites: text(),
        create_table: "s".into(),
        defaults: text(),
        identity: vec![Identity { column: "c".into(), sql: "s".into() }],
        generated: named(),
        storage_parameters: text(),
        indexes: named(),
        constraints: named(),
        statistics: text(),
        triggers: named(),
        policies: text(),
        comments: text(),
        owner: "o".into(),
        grants: text(),
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
    assert!(json.starts_with("{\n  \"format\": 2,"));
}

#[test]
fn newer_formats_are_refused_whatever_else_they_hold() {
    let error = Manifest::from_json(r#"{"format": 3, "other": true}"#).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported);
    assert!(error.hint_text().is_some());
    assert_eq!(read_changed(|m| m.digest_algorithm = "sha3".into()).kind(), ErrorKind::Unsupported);
}

#[test]
fn contradictions_are_corrupt() {
    let changes: [fn(&mut Manifest); 10] = [
        |m| m.rows = 4,
        |m| m.bytes = 1,
        |m| m.digest.sum ^= 1,
        |m| m.objects[0].rows = 1,
        |m| m.objects[0].sha256.truncate(3),
        |m| m.objects[0].sidecars.push(9),
        |m| m.objects[1].key = m.objects[0].key.clone(),
        |m| m.objects.truncate(1),
        |m| m.column_map[0].types.clear(),
        |m| m.column_map.push(m.column_map[0].clone()),
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

/// A storage that format 1 wrote, but for its digests, which are of the algorithm of today; the e2e tests import it too.
const FORMAT_1: &str =
    include_str!("../../../../tests/fixtures/format1/public.orders/_manifests/orders_2024_01.v1.json");

#[test]
fn format_1_is_still_read() {
    let manifest = Manifest::from_json(FORMAT_1).unwrap();
    assert_eq!((manifest.format, manifest.rows, manifest.root.is_none()), (1, 21, true));
    let root = manifest.root_or_derived().unwrap();
    assert!(root.ddl.create_table.starts_with("CREATE TABLE \"public\".\"orders\" (\n    id bigint NOT NULL,"));
    assert!(root.ddl.create_table.ends_with(") PARTITION BY RANGE (created_at)"));
    assert_eq!(
        root.ddl.defaults,
        ["ALTER TABLE \"public\".\"orders\" ALTER COLUMN status SET DEFAULT 'new'::public.order_status"]
    );
    assert_eq!(root.ddl.owner, "postgres");
}

/// A manifest without a family is what format 2 was before there were families.
#[test]
fn a_partition_archived_alone_names_no_family() {
    let alone = Manifest { family: None, ..manifest() };
    let json = alone.to_json().unwrap();
    assert!(!json.contains("family"));
    assert_eq!(Manifest::from_json(&json).unwrap(), alone);
}

#[test]
fn a_family_must_have_the_partition() {
    let error = read_changed(|manifest| {
        if let Some(family) = &mut manifest.family {
            family.members.retain(|member| member.table != "orders");
        }
    });
    assert_eq!(error.kind(), ErrorKind::Corrupt);
}

#[test]
fn what_an_import_needs() {
    let manifest = manifest();
    assert_eq!(manifest.schemas(), ["public", "deep", "Ext"]);
    assert_eq!(manifest.own_prerequisites().collect::<Vec<_>>(), ["CREATE TYPE public.t AS (a int)"]);
    assert_eq!(manifest.extensions[0].create(), "CREATE EXTENSION IF NOT EXISTS \"hstore\" SCHEMA \"Ext\"");
    assert_eq!(manifest.root_or_derived(), manifest.root);
}

/// Every member of the JSON is described in docs/manifest.schema.json, and nothing else is.
#[test]
fn the_published_schema_is_current() {
    let schema: serde_json::Value =
        serde_json::from_str(include_str!("../../../../docs/manifest.schema.json")).unwrap();
    let manifest: serde_json::Value = serde_json::from_str(&manifest().to_json().unwrap()).unwrap();
    let mut differences = Vec::new();
    compare(&schema, &schema, &manifest, "manifest", &mut differences);
    assert_eq!(differences, Vec::<String>::new());
    assert_eq!(schema["properties"]["format"]["maximum"], MANIFEST_FORMAT);
}

fn compare(
    document: &serde_json::Value,
    schema: &serde_json::Value,
    value: &serde_json::Value,
    path: &str,
    out: &mut Vec<String>,
) {
    let schema = match schema["$ref"].as_str() {
        Some(reference) => document.pointer(reference.trim_start_matches('#')).unwrap(),
        None => schema,
    };
    match value {
        // Types are recursive and have a grammar of their own.
        _ if schema["$comment"] == "opaque" => {}
        serde_json::Value::Array(items) => match items.first() {
            Some(first) if schema.get("items").is_some() => {
                compare(document, &schema["items"], first, &format!("{path}[]"), out);
            }
            Some(_) if schema.get("prefixItems").is_some() => {}
            Some(_) => out.push(format!("{path}: no items")),
            None => out.push(format!("{path}: the sample has no element")),
        },
        serde_json::Value::Object(members) => {
            let Some(described) = schema["properties"].as_object() else {
                return out.push(format!("{path}: no properties"));
            };
            out.extend(
                described.keys().filter(|key| !members.contains_key(*key)).map(|key| format!("{path}.{key}: gone")),
            );
            for (key, member) in members {
                match described.get(key) {
                    Some(found) => compare(document, found, member, &format!("{path}.{key}"), out),
                    None => out.push(format!("{path}.{key}: not described")),
                }
            }
        }
        _ => {}
    }
}
