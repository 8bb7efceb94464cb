//! Archiving and reattaching: what comes back is what went (P3, P5), and what is damaged is noticed (P2).
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

#[pgrx::pg_schema]
mod tests {
    use std::path::PathBuf;

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

    /// Rows of `one` that `other` lacks and the reverse, each compared as the text of `columns`.
    fn difference(columns: &str, one: &str, other: &str) -> i64 {
        let rows = |table: &str| format!("SELECT ROW({columns})::text FROM {table}");
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

    /// Begins the job of `archive_partition_steps`: one transaction may archive several times with it, not with
    /// `archive_partition`.
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

    /// Each type with values of every kind: extremes, and those that Parquet's own types do not hold.
    const TYPES: &[(&str, &[&str])] = &[
        ("boolean", &["true", "false"]),
        ("smallint", &["-32768", "0", "32767"]),
        ("integer", &["-2147483648", "0", "2147483647"]),
        ("bigint", &["-9223372036854775808", "0", "9223372036854775807"]),
        ("real", &["NaN", "infinity", "-infinity", "-0", "0", "1e-45", "-3.4028235e38", "0.1"]),
        ("double precision", &["NaN", "infinity", "-infinity", "-0", "0", "5e-324", "1.7976931348623157e308", "0.1"]),
        ("numeric(12, 2)", &["NaN", "0", "-0.01", "1.10", "9999999999.99", "-9999999999.99"]),
        ("numeric(38, 10)", &["NaN", "9999999999999999999999999999.9999999999", "-0.0000000001"]),
        ("numeric(100, 40)", &["NaN", "123456789012345678901234567890123456789012345678901234567890.5", "-1e-40"]),
        ("text", &["", " ", "NULL", "é", "e\u{301}", "🐘", "line\nand\ttab", "quo\"te' \\ back", "{a,b}", "\u{1}"]),
        ("varchar(10)", &["", "abc  ", "ééééé", "🐘"]),
        ("character(5)", &["", "ab", "ab  ", "abcde", "éé"]),
        ("bytea", &["", "\\x00", "\\x00ff00", "\\xdeadbeef", "\\x5c78"]),
        (
            "date",
            &["infinity", "-infinity", "4714-11-24 BC", "5874897-12-31", "1970-01-01", "0001-12-31 BC", "2024-02-29"],
        ),
        ("time", &["00:00:00", "24:00:00", "23:59:59.999999", "12:34:56.7"]),
        (
            "timestamp",
            &[
                "infinity",
                "-infinity",
                "4714-11-24 00:00:00 BC",
                "294276-12-31 23:59:59.999999",
                "1969-12-31 23:59:59.999999",
            ],
        ),
        (
            "timestamptz",
            &[
                "infinity",
                "-infinity",
                "4714-11-24 00:00:00+00 BC",
                "294276-12-31 23:59:59.999999+00",
                "2024-03-31 02:30+01",
            ],
        ),
        ("uuid", &["00000000-0000-0000-0000-000000000000", "ffffffff-ffff-ffff-ffff-ffffffffffff"]),
        ("hot.mood", &["sad", "it's \"fine\"", "ünï, {x}", "NULL"]),
        ("json", &["null", "{\"a\": 1, \"a\" : 2}", " [1 , 2.0]  ", "\"\\u00e9\""]),
        ("jsonb", &["null", "{\"b\": [1, null, {}], \"a\": 1.10}", "1e400", "\"é\"", "[]"]),
    ];

    /// `hot.types`: a column of each type and one of its arrays, and `hot.copy` with the same rows.
    fn every_type() -> Storage {
        let storage = Storage::create(SETTINGS);
        run("CREATE TYPE hot.mood AS ENUM ('sad', 'it''s \"fine\"', 'ünï, {x}', 'NULL', 'unused')");
        let columns = TYPES.iter().enumerate().map(|(i, (name, _))| format!("c{i} {name}, a{i} {name}[]"));
        let columns = columns.collect::<Vec<_>>().join(", ");
        run(&format!("CREATE TABLE hot.types (id serial, {columns}) PARTITION BY RANGE (id)"));
        run("CREATE TABLE hot.types_1 PARTITION OF hot.types FOR VALUES FROM (0) TO (100000);
             INSERT INTO hot.types DEFAULT VALUES");
        for (i, (name, values)) in TYPES.iter().enumerate() {
            for value in *values {
                let value = format!("{}::{name}", quote_literal(value));
                run(&format!(
                    "INSERT INTO hot.types (c{i}, a{i}) VALUES
                       ({value}, ARRAY[{value}]), (NULL, ARRAY[NULL, {value}, NULL]),
                       (NULL, array_fill({value}, ARRAY[2], ARRAY[-3])),
                       (NULL, array_fill({value}, ARRAY[2, 1, 2], ARRAY[0, 5, 1])),
                       (NULL, ARRAY[ARRAY[{value}, NULL], ARRAY[NULL, {value}]])"
                ));
            }
            let all = values.iter().map(quote_literal).collect::<Vec<_>>().join(", ");
            run(&format!(
                "INSERT INTO hot.types (a{i}) VALUES
                   (ARRAY[{all}]::{name}[]), ('{{}}'), ('{{NULL}}'), ('[3:4]={{NULL,NULL}}'), ('{{{{NULL}},{{NULL}}}}')"
            ));
        }
        run("INSERT INTO hot.types (c9, c12, a9)
               SELECT repeat(n, 100000), decode(repeat('00ff', 50000), 'hex'), array_fill(n, ARRAY[10000])
               FROM unnest(ARRAY['x', 'é', '🐘']) n;
             CREATE TABLE hot.copy AS TABLE hot.types_1");
        storage
    }

    #[pg_test]
    fn p5_every_value_of_every_type_comes_back() {
        let _storage = every_type();
        let rows = number("SELECT count(*) FROM hot.copy");
        assert_eq!(number("SELECT rows FROM archive_partition('hot.types_1', verify => 'deep')"), rows);
        let all = (0..TYPES.len()).flat_map(|i| [format!("c{i}"), format!("a{i}")]);
        let differs = |table: &str, column: &str| difference(&format!("id, {column}"), table, "hot.copy");
        for column in all.clone() {
            assert_eq!(differs("archive.types_1", &column), 0, "archived {column}");
        }
        assert_eq!(difference("x.*", "archive.types_all x", "hot.copy x"), 0);
        assert_eq!(text("SELECT to_regclass('hot.types_1')::text"), "");
        assert_eq!(text("SELECT reattach_partition('hot.types_1')::text"), "hot.types_1");
        for column in all {
            assert_eq!(differs("hot.types_1", &column), 0, "reattached {column}");
        }
        assert_eq!(difference("x.*", "hot.types x", "hot.copy x"), 0);
    }

    #[pg_test]
    fn p5_columns_that_were_dropped_added_or_stand_elsewhere() {
        let _storage = Storage::create(SETTINGS);
        run("CREATE TABLE hot.items (gone int, id int NOT NULL, lost text, note text, n int) PARTITION BY RANGE (id);
             ALTER TABLE hot.items DROP gone, DROP lost;
             CREATE TABLE hot.items_1 (n int, gone text, note text, id int NOT NULL);
             INSERT INTO hot.items_1 SELECT i * 2, 'gone', 'note ' || i, i FROM generate_series(0, 99) i;
             ALTER TABLE hot.items_1 DROP gone;
             ALTER TABLE hot.items ATTACH PARTITION hot.items_1 FOR VALUES FROM (0) TO (1000);
             ALTER TABLE hot.items ADD late text DEFAULT 'too late';
             INSERT INTO hot.items VALUES (100, 'last', 1, NULL), (101, NULL, NULL, 'in time');
             CREATE TABLE hot.copy AS TABLE hot.items");
        run("SELECT * FROM archive_partition('hot.items_1')");
        assert_eq!(difference("id, note, n, late", "archive.items_1", "hot.copy"), 0);
        assert_eq!(difference("x.*", "archive.items_all x", "hot.copy x"), 0);
        assert_eq!(
            number("SELECT count(*) FROM archive.items WHERE note = 'note 7' AND n = 14 AND late = 'too late'"),
            1
        );
        run("SELECT reattach_partition('hot.items_1', writable => true)");
        assert_eq!(difference("x.*", "hot.items x", "hot.copy x"), 0);
        run("INSERT INTO hot.items (id) VALUES (102)");
        assert_eq!(text("SELECT late FROM hot.items WHERE id = 102"), "too late");
    }

    #[pg_test]
    fn p3_an_empty_partition() {
        let _storage = Storage::create(SETTINGS);
        run("CREATE TABLE hot.items (id int NOT NULL, note text) PARTITION BY RANGE (id);
             CREATE TABLE hot.items_1 PARTITION OF hot.items FOR VALUES FROM (0) TO (1000)");
        assert_eq!(number("SELECT rows FROM archive_partition('hot.items_1')"), 0);
        assert_eq!(number("SELECT count(*) FROM archive.items"), 0);
        assert_eq!(number("SELECT count(*) FROM archive.items_1 WHERE id = 5 OR note IS NULL"), 0);
        run("SELECT reattach_partition('hot.items_1', writable => true);
             INSERT INTO hot.items VALUES (5, 'new')");
        assert_eq!(number("SELECT count(*) FROM archive.items_all"), 1);
    }

    #[pg_test]
    fn p3_quoted_names_and_a_partition_in_another_schema() {
        let storage = Storage::create(SETTINGS);
        run(r#"CREATE SCHEMA "Sch ""ema"; CREATE SCHEMA "Other.Schema";
             CREATE TABLE "Sch ""ema"."Weird ""Table" ("I d" int NOT NULL, "Co""l'umn" text DEFAULT 'it''s', "select" int)
               PARTITION BY RANGE ("I d");
             CREATE TABLE "Other.Schema"."_Week 1/é" PARTITION OF "Sch ""ema"."Weird ""Table" FOR VALUES FROM (0) TO (1000);
             CREATE INDEX "In ""dex" ON "Other.Schema"."_Week 1/é" ("Co""l'umn", "select");
             INSERT INTO "Sch ""ema"."Weird ""Table" SELECT i, 'n' || i, -i FROM generate_series(0, 99) i;
             CREATE TABLE hot.copy AS TABLE "Other.Schema"."_Week 1/é""#);
        run(r#"SELECT * FROM archive_partition('"Other.Schema"."_Week 1/é"')"#);
        assert_eq!(difference("x.*", r#"archive."_Week 1/é" x"#, "hot.copy x"), 0);
        assert_eq!(difference("x.*", r#"archive."Weird ""Table" x"#, "hot.copy x"), 0);
        assert_eq!(difference("x.*", r#"archive."Weird ""Table_all" x"#, "hot.copy x"), 0);
        let below = |file: PathBuf| file.strip_prefix(&storage.0).unwrap().to_string_lossy().into_owned();
        assert_eq!(
            below(storage.file("v1.json")),
            "Sch%20%22ema.Weird%20%22Table/_manifests/%5FWeek%201%2F%C3%A9.v1.json"
        );
        let back = text(r#"SELECT reattach_partition('"Other.Schema"."_Week 1/é"')::text"#);
        assert_eq!(back, r#""Other.Schema"."_Week 1/é""#);
        assert_eq!(difference("x.*", r#""Sch ""ema"."Weird ""Table" x"#, "hot.copy x"), 0);
        assert_eq!(text(r#"SELECT to_regclass('"Other.Schema"."In ""dex"')::text"#), r#""Other.Schema"."In ""dex""#);
    }

    /// What PostgreSQL says about `hot.goods_1`, one line for each thing on it.
    const DESCRIBED: &str = "
        SELECT pg_get_indexdef(i.indexrelid) || concat_ws(' ', '', i.indisprimary, i.indisvalid, obj_description(i.indexrelid),
                 (SELECT count(*) FROM pg_inherits h WHERE h.inhrelid = i.indexrelid))
        FROM pg_index i WHERE i.indrelid = 'hot.goods_1'::regclass
        UNION ALL
        SELECT concat_ws(' ', conname, pg_get_constraintdef(oid), conislocal, coninhcount, obj_description(oid))
        FROM pg_constraint WHERE conrelid = 'hot.goods_1'::regclass
        UNION ALL
        SELECT concat_ws(' ', a.attname, a.atttypid::regtype, a.attcollation::regcollation, a.attnotnull, a.attstattarget,
                 a.attstorage, a.attgenerated, a.attacl, pg_get_expr(d.adbin, d.adrelid), col_description(a.attrelid, a.attnum))
        FROM pg_attribute a LEFT JOIN pg_attrdef d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
        WHERE a.attrelid = 'hot.goods_1'::regclass AND a.attnum > 0 AND NOT a.attisdropped
        UNION ALL
        SELECT concat_ws(' ', pg_get_triggerdef(oid), tgenabled, obj_description(oid))
        FROM pg_trigger WHERE tgrelid = 'hot.goods_1'::regclass
        UNION ALL
        SELECT concat_ws(' ', pg_get_statisticsobjdef(oid), obj_description(oid))
        FROM pg_statistic_ext WHERE stxrelid = 'hot.goods_1'::regclass
        UNION ALL
        SELECT concat_ws(' ', relowner::regrole, reloptions, relreplident, pg_get_expr(relpartbound, oid), obj_description(oid),
                 (SELECT string_agg(acl::text, ' ' ORDER BY acl::text) FROM unnest(relacl) acl))
        FROM pg_class WHERE oid = 'hot.goods_1'::regclass";

    #[pg_test]
    fn p3_everything_on_the_partition_comes_back() {
        let _storage = Storage::create(SETTINGS);
        run(r#"CREATE ROLE engine_owner; CREATE ROLE engine_reader;
             GRANT ALL ON SCHEMA hot TO engine_owner; GRANT USAGE ON FOREIGN SERVER fdw_cold TO engine_owner;
             CREATE FUNCTION hot.touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;
             CREATE SEQUENCE hot.numbers;
             GRANT USAGE ON SEQUENCE hot.numbers TO engine_owner;
             CREATE TABLE hot.goods (
               id bigint GENERATED BY DEFAULT AS IDENTITY, at date NOT NULL, price numeric(10, 2) DEFAULT 1,
               tax numeric(10, 2) GENERATED ALWAYS AS (price * 0.2) STORED, name text COLLATE "C", amount int,
               PRIMARY KEY (id, at), CONSTRAINT price_is_positive CHECK (price >= 0)) PARTITION BY RANGE (at);
             CREATE INDEX goods_name ON hot.goods (name DESC NULLS LAST) INCLUDE (price);
             CREATE TABLE hot.goods_1 PARTITION OF hot.goods (
               amount DEFAULT nextval('hot.numbers') NOT NULL, UNIQUE (name, at),
               CONSTRAINT amount_range CHECK (amount > -5))
               FOR VALUES FROM ('2024-01-01') TO ('2025-01-01') WITH (fillfactor = 80, autovacuum_enabled = off);
             CREATE INDEX goods_1_lower ON hot.goods_1 (lower(name)) WHERE price > 0;
             CREATE INDEX goods_1_brin ON hot.goods_1 USING brin (at) WITH (pages_per_range = 4);
             CREATE STATISTICS hot.goods_1_stats (ndistinct) ON name, at FROM hot.goods_1;
             CREATE TRIGGER touch BEFORE UPDATE OF price ON hot.goods_1
               FOR EACH ROW WHEN (OLD.price <> NEW.price) EXECUTE FUNCTION hot.touch();
             CREATE TRIGGER off AFTER INSERT ON hot.goods_1 FOR EACH ROW EXECUTE FUNCTION hot.touch();
             ALTER TABLE hot.goods_1 DISABLE TRIGGER off;
             ALTER TABLE hot.goods_1 ALTER COLUMN name SET STATISTICS 77, ALTER COLUMN name SET STORAGE EXTERNAL;
             ALTER TABLE hot.goods_1 REPLICA IDENTITY FULL;
             COMMENT ON TABLE hot.goods_1 IS 'it''s goods';
             COMMENT ON COLUMN hot.goods_1.name IS 'a name';
             COMMENT ON INDEX hot.goods_1_lower IS 'an index';
             COMMENT ON CONSTRAINT amount_range ON hot.goods_1 IS 'a range';
             COMMENT ON TRIGGER touch ON hot.goods_1 IS 'a trigger';
             COMMENT ON STATISTICS hot.goods_1_stats IS 'correlated';
             ALTER TABLE hot.goods OWNER TO engine_owner;
             ALTER TABLE hot.goods_1 OWNER TO engine_owner;
             ALTER STATISTICS hot.goods_1_stats OWNER TO engine_owner;
             GRANT SELECT, UPDATE ON hot.goods_1 TO engine_reader WITH GRANT OPTION;
             GRANT INSERT (name) ON hot.goods_1 TO PUBLIC;
             INSERT INTO hot.goods (at, price, name, amount)
               SELECT date '2024-01-01' + i, i, 'n' || i, i FROM generate_series(0, 99) i;
             CREATE TABLE hot.copy AS TABLE hot.goods_1"#);
        run(&format!("CREATE TABLE hot.described AS {DESCRIBED}"));
        run("SELECT * FROM archive_partition('hot.goods_1');
             SELECT reattach_partition('hot.goods_1', writable => true)");
        let lines = |sql: &str| text(&format!("SELECT string_agg(line, E'\\n') FROM ({sql}) AS lines(line)"));
        assert_eq!(lines(&format!("TABLE hot.described EXCEPT ALL ({DESCRIBED})")), "", "lost");
        assert_eq!(lines(&format!("({DESCRIBED}) EXCEPT ALL TABLE hot.described")), "", "new");
        assert_eq!(difference("x.*", "hot.goods_1 x", "hot.copy x"), 0);
        // What is restored works: identity and generated column, the partition's own default, constraints.
        run("INSERT INTO hot.goods (at, price, name, amount) VALUES ('2024-05-05', 10, 'new', 7);
             INSERT INTO hot.goods_1 (id, at, name) VALUES (500, '2024-06-06', 'direct')");
        assert_eq!(text("SELECT concat_ws(' ', id, tax, amount) FROM hot.goods WHERE name = 'new'"), "101 2.00 7");
        assert_eq!(text("SELECT concat_ws(' ', tax, amount) FROM hot.goods WHERE name = 'direct'"), "0.20 1");
        assert!(outcome("UPDATE hot.goods_1 SET amount = -6").starts_with("23514"));
        assert!(outcome("INSERT INTO hot.goods (id, at, amount) VALUES (1, '2024-01-01', 1)").starts_with("23505"));
    }

    #[pg_test]
    fn an_unmodified_partition_uploads_nothing_and_a_modified_one_a_new_version() {
        let storage = items();
        run("SELECT * FROM archive_partition('hot.items_1')");
        let (objects, manifests) = (storage.files(".parquet"), storage.files(".json"));
        let modified = |path: &PathBuf| std::fs::metadata(path).unwrap().modified().unwrap();
        let before: Vec<_> = objects.iter().chain(&manifests).map(modified).collect();
        run("SELECT reattach_partition('hot.items_1')");
        begin_steps("hot.items_1");
        steps_to("done");
        assert_eq!(storage.files(".parquet"), objects);
        assert_eq!(storage.files(".json"), manifests);
        assert_eq!(objects.iter().chain(&manifests).map(modified).collect::<Vec<_>>(), before);
        assert_eq!(number("SELECT version::bigint FROM archive_ext.partition"), 1);
        assert_eq!(difference("x.*", "archive.items_1 x", "hot.copy x"), 0);

        // One row replaced by a copy of another: count and sums of a column may agree, the digest must not.
        run("SELECT reattach_partition('hot.items_1', writable => true);
             UPDATE hot.items SET note = (SELECT note FROM hot.items WHERE id = 8) WHERE id = 7");
        begin_steps("hot.items_1");
        steps_to("done");
        assert_eq!(storage.files(".parquet").len(), objects.len() + 1);
        assert_eq!(number("SELECT version::bigint FROM archive_ext.partition"), 2);
        assert_eq!(number("SELECT count(*) FROM archive.items_1 WHERE note = md5('8')"), 2);
        assert_eq!(number("SELECT count(*) FROM archive.items_1"), 1000);
    }

    #[pg_test]
    fn a_prefix_has_one_owner() {
        let storage = items();
        let marker = storage.0.join("_archive_ext/owner.json");
        let taken = || {
            let theirs = serde_json::json!({
                "format": 1, "system_identifier": "7000000000000000000/5", "timeline": 1,
                "incarnation": "0123456789abcdef0123456789abcdef", "claimed_at": "2024-01-01T00:00:00Z",
            });
            std::fs::create_dir_all(marker.parent().unwrap()).unwrap();
            std::fs::write(&marker, theirs.to_string()).unwrap();
        };
        taken();
        let archive = "SELECT * FROM archive_partition('hot.items_1')";
        let said = outcome(archive);
        assert!(said.starts_with("55000"), "{said}");
        assert_eq!(storage.files("").len(), 1);
        run("UPDATE hot.items SET note = note");
        run("CREATE ROLE engine_plain; SET ROLE engine_plain");
        assert!(outcome("SELECT adopt_storage('fdw_cold')").starts_with("42501"));
        run("RESET ROLE; SELECT adopt_storage('fdw_cold')");
        assert_eq!(outcome(archive), "ok");

        // Taken over by somebody else: what is archived can be read, nothing can be written.
        taken();
        let objects = storage.files("");
        assert_eq!(difference("x.*", "archive.items_1 x", "hot.copy x"), 0);
        begin_steps("hot.items_2");
        steps_to("frozen");
        let said = outcome(STEP);
        assert!(said.starts_with("55000"), "{said}");
        assert_eq!(storage.files(""), objects);
        run("SELECT adopt_storage('fdw_cold')");
        steps_to("done");

        // A prefix without its marker is another place.
        std::fs::remove_file(&marker).unwrap();
        run("SELECT reattach_partition('hot.items_2', writable => true);
             UPDATE hot.items SET note = 'changed'");
        begin_steps("hot.items_2");
        steps_to("frozen");
        let said = outcome(STEP);
        assert!(said.starts_with("55000"), "{said}");
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
        assert_eq!(difference("x.*", "hot.items_1 x", "hot.copy x"), 0);
        assert_eq!(number("SELECT count(*) FROM hot.items"), 2000);
        std::fs::write(&object, intact).unwrap();
        steps_to("done");
        assert_eq!(difference("x.*", "archive.items_1 x", "hot.copy x"), 0);
    }

    #[pg_test]
    fn p2_a_damaged_object_is_never_reattached() {
        let storage = items();
        run("SELECT * FROM archive_partition('hot.items_1')");
        let object = storage.file(".parquet");
        let intact = std::fs::read(&object).unwrap();
        let reattach = "SELECT reattach_partition('hot.items_1')";
        let unchanged = || {
            assert_eq!(text("SELECT to_regclass('hot.items_1')::text"), "");
            assert_eq!(text("SELECT status::text FROM archive_ext.partitions"), "ARCHIVED");
            assert_eq!(
                text("SELECT inhparent::regclass::text FROM pg_inherits WHERE inhrelid = 'archive.items_1'::regclass"),
                "archive.items"
            );
        };
        std::fs::write(&object, damaged(&intact)).unwrap();
        let said = outcome(reattach);
        assert!(said.starts_with("XX001"), "{said}");
        unchanged();
        std::fs::remove_file(&object).unwrap();
        let said = outcome(reattach);
        assert!(!said.starts_with("ok"), "{said}");
        unchanged();

        // Its manifest is not trusted either, least of all with the SQL in it.
        std::fs::write(&object, intact).unwrap();
        let path = storage.file(".v1.json");
        let manifest = std::fs::read_to_string(&path).unwrap();
        let mut forged: serde_json::Value = serde_json::from_str(&manifest).unwrap();
        forged["ddl"]["comments"] = serde_json::json!(["CREATE TABLE hot.injected ()"]);
        std::fs::write(&path, forged.to_string()).unwrap();
        let said = outcome(reattach);
        assert!(said.starts_with("XX001"), "{said}");
        unchanged();
        std::fs::write(&path, manifest).unwrap();
        assert_eq!(outcome(reattach), "ok");
        assert_eq!(difference("x.*", "hot.items_1 x", "hot.copy x"), 0);
        assert_eq!(text("SELECT to_regclass('hot.injected')::text"), "");
    }

    /// Somebody drops a table while we are on our way to it: nothing is opened, and nothing closed.
    #[pg_test]
    fn a_relation_that_is_gone_is_not_opened() {
        use crate::pg::relation::{LockMode, Relation};
        assert!(Relation::peek(pg_sys::Oid::from(1)).is_none());
        assert!(Relation::open(pg_sys::Oid::from(1), LockMode::AccessExclusive).is_none());
    }
}
