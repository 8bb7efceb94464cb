//! Archiving: what is damaged is noticed before the swap (P2), what the manifest tells, what is refused.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;
    use pgrx::spi::quote_literal;

    use crate::pg_test::storage::{Storage, number, run, text};

    const SETTINGS: &str = "SET timezone = 'UTC'; CREATE SCHEMA hot";

    /// `SQLSTATE message` of a statement that fails, `ok` of one that does not. The failure is in a subtransaction.
    fn outcome(statement: &str) -> String {
        if text("SELECT to_regprocedure('pg_temp.engine_outcome(text)')::text").is_empty() {
            run("CREATE FUNCTION pg_temp.engine_outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
                 BEGIN
                   EXECUTE statement;
                   RETURN 'ok';
                 EXCEPTION WHEN OTHERS THEN
                   RETURN SQLSTATE || ' ' || SQLERRM;
                 END $$");
        }
        text(&format!("SELECT pg_temp.engine_outcome({})", quote_literal(statement)))
    }

    /// Rows of `one` that `other` lacks and the reverse, each compared as text.
    fn difference(one: &str, other: &str) -> i64 {
        let rows = |table: &str| format!("SELECT ROW(x.*)::text FROM {table} x");
        let (one, other) = (rows(one), rows(other));
        number(&format!(
            "SELECT count(*) FROM ((({one}) EXCEPT ALL ({other})) UNION ALL (({other}) EXCEPT ALL ({one}))) x"
        ))
    }

    /// `hot.items` with two partitions, `hot.copy` with the rows of the first.
    fn items() -> Storage {
        let storage = Storage::create(SETTINGS);
        run("CREATE TABLE hot.items (id int NOT NULL, note text) PARTITION BY RANGE (id);
             CREATE TABLE hot.items_1 PARTITION OF hot.items FOR VALUES FROM (0) TO (1000);
             CREATE TABLE hot.items_2 PARTITION OF hot.items FOR VALUES FROM (1000) TO (2000);
             INSERT INTO hot.items SELECT i, md5(i::text) FROM generate_series(0, 1999) i;
             CREATE TABLE hot.copy AS TABLE hot.items_1");
        storage
    }

    /// Begins the job of `archive_partition_steps`.
    fn begin_steps(partition: &str) {
        run(&format!(
            "SELECT set_config('engine.job', archive_ext.begin_archive({}, NULL, 'content', '0')::text, true)",
            quote_literal(partition)
        ));
    }

    const STEP: &str = "SELECT phase FROM archive_ext.archive_step(current_setting('engine.job')::uuid)";

    fn steps_to(phase: &str) {
        for _ in 0..10 {
            if text(STEP) == phase {
                return;
            }
        }
        panic!("phase {phase} was not reached");
    }

    /// The same bytes but for one in the middle of the rows.
    fn damaged(intact: &[u8]) -> Vec<u8> {
        let mut bytes = intact.to_vec();
        bytes[100] ^= 0x55;
        bytes
    }

    #[pg_test]
    fn the_manifest_tells_everything() {
        let storage = items();
        run("SELECT * FROM archive_partition('hot.items_1')");
        let path = storage.file(".v1.json");
        assert_eq!(path, storage.0.join("hot.items/_manifests/items_1.v1.json"));
        let manifest: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(manifest["format"], 2);
        assert_eq!(manifest["version"], 1);
        assert_eq!(manifest["rows"], 1000);
        assert_eq!(manifest["source"]["schema"], "hot");
        assert_eq!(manifest["source"]["table"], "items");
        assert_eq!(manifest["source"]["partition"], "items_1");
        assert_eq!(manifest["source"]["bounds"], "FOR VALUES FROM (0) TO (1000)");
        assert_eq!(manifest["source"]["partition_key"], "RANGE (id)");
        assert!(manifest["ddl"]["create_table"].as_str().unwrap().starts_with("CREATE TABLE hot.items_1 ("));
        let objects = manifest["objects"].as_array().unwrap();
        let sum = |key: &str| objects.iter().map(|object| object[key].as_u64().unwrap()).sum::<u64>();
        assert_eq!(sum("rows"), 1000);
        assert_eq!(manifest["bytes"], sum("bytes"));
        assert_eq!(storage.files(".parquet").len(), objects.len());
        for object in objects {
            let file = storage.0.join(object["key"].as_str().unwrap());
            assert_eq!(std::fs::metadata(&file).unwrap().len(), object["bytes"].as_u64().unwrap());
            let sha256 = text(&format!("SELECT encode(sha256(pg_read_binary_file('{}')), 'hex')", file.display()));
            assert_eq!(object["sha256"], sha256);
        }
    }

    #[pg_test]
    fn a_temporary_partition_is_refused() {
        let storage = Storage::create(SETTINGS);
        run("CREATE TEMP TABLE items (id int NOT NULL) PARTITION BY RANGE (id);
             CREATE TEMP TABLE items_1 PARTITION OF items FOR VALUES FROM (0) TO (1000)");
        let said = outcome("SELECT * FROM archive_partition('items_1')");
        assert!(said.starts_with("42809") && said.contains("is a temporary table"), "{said}");
        assert!(storage.files("").is_empty());
    }

    #[pg_test]
    fn p2_a_damaged_object_is_noticed_before_the_swap() {
        let storage = items();
        begin_steps("hot.items_1");
        steps_to("exported");
        let object = storage.file(".parquet");
        let intact = std::fs::read(&object).unwrap();
        for bytes in [damaged(&intact), intact[..intact.len() - 1].to_vec()] {
            std::fs::write(&object, bytes).unwrap();
            let said = outcome(STEP);
            assert!(said.starts_with("XX001"), "{said}");
        }
        assert_eq!(text("SELECT phase FROM archive_ext.jobs"), "exported");
        assert_eq!(difference("hot.items_1", "hot.copy"), 0);
        assert_eq!(number("SELECT count(*) FROM hot.items"), 2000);
        std::fs::write(&object, intact).unwrap();
        steps_to("done");
        assert_eq!(difference("archive.items_1", "hot.copy"), 0);
    }

    /// Somebody drops a table while we are on our way to it: nothing is opened, and nothing closed.
    #[pg_test]
    fn a_relation_that_is_gone_is_not_opened() {
        use crate::pg::relation::{LockMode, Relation};
        assert!(Relation::peek(pg_sys::Oid::from(1)).is_none());
        assert!(Relation::open(pg_sys::Oid::from(1), LockMode::AccessExclusive).is_none());
    }
}
