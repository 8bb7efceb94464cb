//! Reading archived partitions through `archive_fdw`.
#![allow(clippy::unwrap_used, clippy::panic)] // A test fails by panicking.

#[pgrx::pg_schema]
mod tests {
    use pgrx::prelude::*;
    use pgrx::spi::quote_literal;

    use crate::pg_test::storage::{Storage, number, run, text};

    const SETTINGS: &str = "SET archive_ext.object_size = '1MB'; SET archive_ext.row_group_rows = 1000";

    /// The plan as EXPLAIN prints it.
    fn explain(statement: &str) -> String {
        Spi::connect_mut(|client| {
            let rows = client.update(statement, None, &[]).unwrap();
            rows.map(|row| row.get::<String>(1).unwrap().unwrap_or_default()).collect::<Vec<_>>().join("\n")
        })
    }

    /// The first plan node that has `key`, in the plan that EXPLAIN (FORMAT JSON) prints.
    fn explain_json(options: &str, query: &str, key: &str) -> i64 {
        fn find(node: &serde_json::Value, key: &str) -> Option<i64> {
            let below = || node["Plans"].as_array().into_iter().flatten().find_map(|node| find(node, key));
            node[key].as_i64().or_else(below)
        }
        let plan = Spi::get_one::<pgrx::Json>(&format!("EXPLAIN (FORMAT JSON{options}) {query}")).unwrap().unwrap();
        find(&plan.0[0]["Plan"], key).unwrap_or_else(|| panic!("no {key} in {}", plan.0))
    }

    /// `SQLSTATE message | hint` of a statement that fails, `ok` of one that does not. The failure is in a
    /// subtransaction, as in any PL/pgSQL function.
    fn outcome(statement: &str) -> String {
        if text("SELECT to_regprocedure('pg_temp.fdw_outcome(text)')::text").is_empty() {
            run("CREATE FUNCTION pg_temp.fdw_outcome(statement text) RETURNS text LANGUAGE plpgsql AS $$
                 DECLARE hint text;
                 BEGIN
                   EXECUTE statement;
                   RETURN 'ok';
                 EXCEPTION WHEN OTHERS THEN
                   GET STACKED DIAGNOSTICS hint = PG_EXCEPTION_HINT;
                   RETURN SQLSTATE || ' ' || SQLERRM || ' | ' || hint;
                 END $$");
        }
        text(&format!("SELECT pg_temp.fdw_outcome({})", quote_literal(statement)))
    }

    /// `hot.events` with one partition of 20,000 rows in several objects, a heap copy `hot.copy`, and the partition
    /// archived as `archive.events_1`.
    fn events() -> Storage {
        let storage = Storage::create(SETTINGS);
        run("CREATE SCHEMA hot;
             CREATE TABLE hot.events (id bigint NOT NULL, at timestamptz NOT NULL, kind text, payload text)
               PARTITION BY RANGE (id);
             CREATE TABLE hot.events_1 PARTITION OF hot.events FOR VALUES FROM (0) TO (20000);
             CREATE TABLE hot.events_2 PARTITION OF hot.events FOR VALUES FROM (20000) TO (40000);
             INSERT INTO hot.events
               SELECT i, timestamptz '2024-01-01 00:00:00+00' + i * interval '1 minute', 'kind ' || i % 7,
                      CASE WHEN i % 11 > 0 THEN (sha512(i::text::bytea) || sha512((i || 'x')::bytea))::text END
               FROM generate_series(0, 20099) i;
             CREATE TABLE hot.copy AS TABLE hot.events_1");
        run("SELECT * FROM archive_partition('hot.events_1')");
        storage
    }

    /// A table with a column of each comparable type: NULLs, extremes and values that Parquet's types cannot hold.
    fn all_types() -> Storage {
        let storage = Storage::create(SETTINGS);
        run("CREATE SCHEMA hot;
             DO $$
             BEGIN
               IF EXISTS (SELECT FROM pg_collation WHERE collname = 'und-x-icu') THEN
                 CREATE COLLATION hot.blind (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
                 CREATE COLLATION hot.icu (provider = icu, locale = 'und');
               ELSE
                 CREATE COLLATION hot.blind FROM \"C\";
                 CREATE COLLATION hot.icu FROM \"C\";
               END IF;
             END $$;
             CREATE TYPE hot.mood AS ENUM ('sad', 'fine', 'happy', 'angry');
             CREATE TABLE hot.types (
               id integer NOT NULL, b boolean, i2 smallint, i4 integer, i8 bigint, f4 real, f8 double precision,
               n numeric(12, 2), t text, v varchar(40), c char(8), tc text COLLATE \"C\",
               tb text COLLATE hot.blind, ti text COLLATE hot.icu, ba bytea, d date, tm time,
               ts timestamp, tz timestamptz, u uuid, e hot.mood, js json, jb jsonb, ia integer[])
               PARTITION BY RANGE (id);
             CREATE TABLE hot.types_1 PARTITION OF hot.types FOR VALUES FROM (0) TO (100000);
             INSERT INTO hot.types
               SELECT i, i % 3 = 0, i % 1000, i, i::bigint * 1000000007, i / 8.0, i / 3.0, i / 7.0,
                 'text ' || i, 'var ' || i % 100, 'c' || i % 50, chr(65 + i % 60) || i,
                 'Text ' || i, 'text ' || i, sha512(i::text::bytea) || sha512((i || 'x')::bytea),
                 date '2020-01-01' + i / 10, time '00:00' + i * interval '7 seconds',
                 timestamp '2020-01-01' + i * interval '1 hour', timestamptz '2020-01-01 00:00+00' + i * interval '1 hour',
                 md5(i::text)::uuid, (ARRAY['sad', 'fine', 'happy'])[1 + i % 3]::hot.mood,
                 json_build_object('i', i), jsonb_build_object('i', i), ARRAY[i, NULL, i + 1]
               FROM generate_series(0, 11999) i;
             INSERT INTO hot.types (id) SELECT generate_series(12000, 12009);
             INSERT INTO hot.types (id, f4, f8, n, d, ts, tz, t, c) VALUES
               (12010, 'NaN', 'NaN', 'NaN', 'infinity', 'infinity', 'infinity', '', ''),
               (12011, 'infinity', '-infinity', 0.10, '-infinity', '-infinity', '-infinity', 'é', 'c1'),
               (12012, '-0', '-0', -9999999999.99, '5874897-12-31', '294276-12-31 23:59:59.999999',
                '294276-12-31 00:00:00+00', 'ZZZ', 'C1'),
               (12013, '0', '0', 9999999999.99, '4713-01-01 BC', '4713-01-01 00:00:00 BC', '4713-01-01 00:00:00+00 BC',
                'zzz', NULL);
             CREATE TABLE hot.copy AS TABLE hot.types_1");
        run("SELECT * FROM archive_partition('hot.types_1')");
        storage
    }

    /// What only one of `archive.types_1` and its heap copy returns under a condition: ids, or whole rows.
    fn difference(what: &str, condition: &str) -> i64 {
        let rows = |table: &str| format!("SELECT {what}::text FROM {table} AS types_1 WHERE {condition}");
        let (archived, copy) = (rows("archive.types_1"), rows("hot.copy"));
        number(&format!(
            "SELECT count(*) FROM ((({archived}) EXCEPT ALL ({copy})) UNION ALL (({copy}) EXCEPT ALL ({archived}))) x"
        ))
    }

    #[pg_test]
    fn fdw_every_type_and_predicate_agrees_with_the_heap() {
        let _storage = all_types();
        let conditions = [
            "true",
            "false",
            "b",
            "NOT b",
            "b IS TRUE",
            "b IS FALSE",
            "b IS NOT TRUE",
            "b IS UNKNOWN",
            "b = false",
            "b IS NULL",
            "i2 = 7",
            "i2 < 3",
            "i2 > 997::bigint",
            "3 >= i2",
            "i4 = 500",
            "i4 = 500::bigint",
            "i4 BETWEEN 100 AND 110",
            "i4 IS NULL",
            "i4 IS NOT NULL AND i4 < 5",
            "i4 <> 4",
            "i8 > 11990000000000",
            "i8 = 1000000007",
            "i4 > 40000",
            "i4 = ANY (ARRAY[1, 5000, 11999, NULL])",
            "i4 IN (-1, -2)",
            "i4 = ANY ('{}'::int[])",
            "i4 = ANY (NULL::int[])",
            "i4 = NULL",
            "i4 < ANY (ARRAY[3, 5])",
            "f4 = 0",
            "f4 >= 1490",
            "f4 = 'NaN'",
            "f4 > 1e30",
            "f8 = '-0'",
            "f8 < -1",
            "f8 > 3999",
            "f8 = 'NaN'",
            "f8 > 'infinity'",
            "f4 < 1.5::float8",
            "n = 0.10",
            "n = 0.1",
            "n > 1714.10",
            "n < 0",
            "n = 'NaN'",
            "n >= 9999999999.99",
            "n < 1::int",
            "t = 'text 77'",
            "t = 'é'",
            "t < 'text 10'",
            "t > 'z'",
            "t = ''",
            "t COLLATE \"C\" > 'text 9'",
            "t COLLATE \"C\" = 'text 9'",
            "t IN ('text 1', 'text 2', 'nothing')",
            "t = 'text 1'::name",
            "v = 'var 5'",
            "v >= 'var 98'",
            "v = ANY (ARRAY['var 1', 'var 2']::varchar[])",
            "c = 'c1'",
            "c = 'c1   '",
            "c > 'c9'",
            "c = ''",
            "c::text = 'c1'",
            "tc < 'B'",
            "tc = 'A0'",
            "tc > 'z'",
            "tc BETWEEN 'C' AND 'D'",
            "tb = 'TEXT 77'",
            "tb < 'text 10'",
            "tb > 'TEXT 99'",
            "tb IN ('tExt 1', 'TEXT 2')",
            "tb = 'TEXT 77' COLLATE \"C\"",
            "ti = 'text 77'",
            "ti < 'text 10'",
            "ti > 'TEXT 99'",
            "ti > 'text 99' COLLATE \"C\"",
            "ba = sha512('5') || sha512('5x')",
            "ba < '\\x01'",
            "ba > '\\xff'",
            "d = '2020-03-01'",
            "d < '2020-01-03'",
            "d > '9999-01-01'",
            "d = 'infinity'",
            "d = '-infinity'",
            "d >= timestamp '2023-04-01 12:00'",
            "d < timestamp '2020-01-02 00:00:01'",
            "d = timestamp '2020-02-02'",
            "d = timestamp '2020-02-02 01:00'",
            "d <= timestamptz '2020-01-02 00:00+00'",
            "d < timestamp 'infinity'",
            "tm < '00:01'",
            "tm = '23:00:00'",
            "tm >= '23:59'",
            "ts < '2020-01-01 05:00'",
            "ts = '2020-01-05'",
            "ts = date '2020-01-05'",
            "ts >= date '2021-05-01'",
            "ts > timestamptz '2021-05-13 00:00+00'",
            "ts = timestamptz '2020-01-05 03:00+00'",
            "ts = 'infinity'",
            "ts < timestamptz '-infinity'",
            "ts >= now() - interval '1 day'",
            "ts > '200000-01-01'",
            "tz < '2020-01-01 05:00+02'",
            "tz = '2020-01-05 00:00+00'",
            "tz >= date '2021-05-01'",
            "tz < timestamp '2020-01-01 05:00'",
            "tz > now()",
            "tz = 'infinity'",
            "tz < date '5874897-12-31'",
            "tz = ANY (ARRAY['2020-01-01 00:00+00', '2020-01-02 00:00+00']::timestamptz[])",
            "u = md5('5')::uuid",
            "u < '00100000-0000-0000-0000-000000000000'",
            "u > md5('1')::uuid",
            "e = 'happy'",
            "e < 'happy'",
            "e >= 'happy'",
            "e > 'happy'",
            "e = 'angry'",
            "e IN ('sad', 'angry')",
            "e IS NULL",
            "js IS NULL",
            "jb = '{\"i\": 5}'",
            "jb IS NOT NULL",
            "ia = ARRAY[1, NULL, 2]",
            "ia IS NULL",
            "ia > ARRAY[11990]",
            "i4 < 100 AND t > 'text 5'",
            "i4 < 10 OR t = 'text 77'",
            "i4 + 0 = 77",
            "i4 = (SELECT 77)",
            "i4 > (SELECT max(i4) - 3 FROM hot.copy)",
            "id = i4 AND i4 < 3",
            "i4 = ANY (SELECT generate_series(5, 7))",
        ];
        for condition in conditions {
            assert_eq!(difference("id", condition), 0, "{condition}");
        }
        for zone in ["America/New_York", "Pacific/Apia"] {
            run(&format!("SET timezone = '{zone}'"));
            for condition in
                conditions.iter().filter(|condition| ["d ", "ts ", "tz "].iter().any(|c| condition.starts_with(c)))
            {
                assert_eq!(difference("id", condition), 0, "{condition} in {zone}");
            }
        }
        run("SET datestyle = 'SQL, DMY'");
        assert_eq!(difference("types_1", "true"), 0);
    }

    #[pg_test]
    fn fdw_local_time_is_not_monotonic() {
        let _storage = Storage::create(SETTINGS);
        // In the hour that does not exist, 02:30 is a later instant than 03:00.
        run("SET timezone = 'America/New_York';
             CREATE SCHEMA hot;
             CREATE TABLE hot.types (id int, ts timestamp, d date) PARTITION BY RANGE (id);
             CREATE TABLE hot.types_1 PARTITION OF hot.types FOR VALUES FROM (0) TO (10);
             INSERT INTO hot.types VALUES (1, '2024-03-10 02:30', '2024-03-10'), (2, '2024-03-10 03:00', '2024-03-10');
             CREATE TABLE hot.copy AS TABLE hot.types_1");
        run("SELECT * FROM archive_partition('hot.types_1')");
        let condition = "ts >= timestamptz '2024-03-10 07:15:00+00'";
        assert_eq!(number(&format!("SELECT count(*) FROM archive.types_1 WHERE {condition}")), 1);
        assert_eq!(difference("id", condition), 0);
        assert_eq!(difference("id", "d = timestamptz '2024-03-10 05:00:00+00'"), 0);
    }

    #[pg_test]
    fn fdw_projections() {
        let _storage = events();
        for list in
            ["count(*)", "sum(id)", "max(payload)", "count(DISTINCT kind)", "count(payload)", "sum(hashtext(r::text))"]
        {
            let of = |table: &str| text(&format!("SELECT ({list})::text FROM {table} r"));
            assert_eq!(of("archive.events_1"), of("hot.copy"), "{list}");
        }
        assert_eq!(text("SELECT tableoid::regclass::text FROM archive.events_1 LIMIT 1"), "archive.events_1");
        assert_eq!(number("SELECT count(*) FROM archive.events_all"), 20_100);
        assert_eq!(number("SELECT count(*) FROM archive.events WHERE id >= 20000"), 0);
        // Reading no column costs the footers only.
        let bytes = |list: &str| {
            let query = format!("SELECT {list} FROM archive.events_1");
            explain_json(", ANALYZE", &query, "Storage Read Bytes")
        };
        assert!(bytes("count(*)") < bytes("sum(id)"));
        assert!(bytes("sum(id)") * 5 < bytes("*"));
    }

    #[pg_test]
    fn fdw_explain() {
        let storage = events();
        let files = number("SELECT count(*) FROM archive_ext.object");
        assert!(files > 1, "{files} objects");
        let plan = explain("EXPLAIN SELECT * FROM archive.events_1 WHERE id < 10");
        let archive = format!("Archive: file://{} (hot.events_1, version 1)", storage.0.display());
        assert!(plan.contains(&archive), "{plan}");
        assert!(plan.contains(&format!("Files: 1 of {files}")), "{plan}");
        assert!(!plan.contains("Files Read"), "{plan}");
        let plan = explain("EXPLAIN (ANALYZE, COSTS off) SELECT * FROM archive.events_1 WHERE id < 10");
        for line in ["Files: 1 of", "Files Read: 1", "Row Groups: read 1, skipped", "Storage Reads: ", " kB"] {
            assert!(plan.contains(line), "{line} in {plan}");
        }
        assert!(!plan.contains("skipped 0"), "{plan}");
        let plan = explain("EXPLAIN (ANALYZE, COSTS off) SELECT * FROM archive.events_1 WHERE id = -1");
        assert!(plan.contains("Files: 0 of") && plan.contains("Files Read: 0"), "{plan}");
        assert!(plan.contains("Storage Reads: 0 requests, 0 kB"), "{plan}");
        let plan = explain("EXPLAIN (VERBOSE, FORMAT YAML) SELECT id FROM archive.events_1");
        assert!(plan.contains("Archived Partition: \"hot.events_1\"") && plan.contains("Files Total: "), "{plan}");
        // The estimate of a pruned scan is bounded by what the remaining objects hold.
        assert_eq!(explain_json("", "SELECT * FROM archive.events_1 WHERE id < 0", "Plan Rows"), 1);
    }

    #[pg_test]
    fn fdw_limit_stops_reading() {
        let _storage = events();
        let plan = explain("EXPLAIN (ANALYZE, COSTS off) SELECT * FROM archive.events_1 LIMIT 5");
        assert!(plan.contains("Files Read: 1") && plan.contains("Row Groups: read 1,"), "{plan}");
    }

    #[pg_test]
    fn fdw_prepared_statements() {
        let _storage = events();
        for mode in ["auto", "force_generic_plan", "force_custom_plan"] {
            run(&format!("SET plan_cache_mode = {mode}"));
            run("PREPARE read(bigint, text) AS
                 SELECT count(*) FROM archive.events_1 WHERE id < $1 AND kind = $2 AND at > now() - interval '100 years'");
            for execution in 0..8 {
                let limit = execution * 700;
                let found = number(&format!("EXECUTE read({limit}, 'kind 3')"));
                let expected = number(&format!("SELECT count(*) FROM hot.copy WHERE id < {limit} AND kind = 'kind 3'"));
                assert_eq!(found, expected, "{mode}, execution {execution}");
            }
            assert_eq!(number("EXECUTE read(NULL, 'kind 3')"), 0, "{mode}");
            let plan = explain("EXPLAIN EXECUTE read(10, 'kind 3')");
            assert!(plan.contains("Files: 1 of"), "{mode}: {plan}");
            run("DEALLOCATE read");
        }
    }

    #[pg_test]
    fn fdw_cursors() {
        let _storage = events();
        run("DECLARE half CURSOR FOR SELECT id FROM archive.events_1");
        assert_eq!(number("FETCH 1 FROM half"), 0);
        run("MOVE 5000 FROM half");
        assert_eq!(number("FETCH 1 FROM half"), 5001);
        run("CLOSE half");
        run("DECLARE scroll SCROLL CURSOR FOR SELECT id FROM archive.events_1 ORDER BY id");
        assert_eq!(number("FETCH LAST FROM scroll"), 19_999);
        assert_eq!(number("FETCH FIRST FROM scroll"), 0);
        run("CLOSE scroll");
        run("DECLARE two CURSOR FOR SELECT a.id FROM archive.events_1 a JOIN archive.events_1 b USING (id)");
        run("MOVE 10 FROM two; CLOSE two");
    }

    #[pg_test]
    fn fdw_nested_loops_prune_again_for_each_outer_row() {
        let _storage = events();
        run("CREATE TEMP TABLE wanted AS SELECT unnest(ARRAY[5, 9999, 15000, NULL, 77777, 5]::bigint[]) AS id;
             ANALYZE wanted;
             SET enable_hashjoin = off; SET enable_mergejoin = off; SET enable_material = off;
             SET enable_memoize = off");
        let query = "SELECT sum(e.id)::bigint FROM wanted w JOIN archive.events_1 e ON e.id = w.id";
        assert_eq!(number(query), 5 + 5 + 9999 + 15000);
        let plan = explain(&format!("EXPLAIN (ANALYZE, COSTS off, TIMING off) {query}"));
        assert!(plan.contains("Nested Loop") && plan.contains("loops=6"), "{plan}");
        // Four of the six values are in one object each, the others in none.
        assert!(plan.contains("Files Read: 4"), "{plan}");
        let lateral = "SELECT count(*) FROM wanted w,
                       LATERAL (SELECT * FROM archive.events_1 e WHERE e.id < w.id ORDER BY e.id LIMIT 3) x";
        assert_eq!(number(lateral), 15);
        let subquery = "SELECT count((SELECT kind FROM archive.events_1 e WHERE e.id = w.id)) FROM wanted w";
        assert_eq!(number(subquery), 4);
        // A rescan without a parameter begins again.
        assert_eq!(number("SELECT count(*) FROM wanted w JOIN archive.events_1 e ON e.id < 3 AND w.id > 0"), 15);
    }

    #[pg_test]
    fn fdw_parallel_plans_elsewhere() {
        let _storage = events();
        run("SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0;
             SET max_parallel_workers_per_gather = 2; ALTER TABLE hot.copy SET (parallel_workers = 2)");
        let query = "SELECT count(*) FROM (SELECT kind FROM archive.events_1 UNION ALL SELECT kind FROM hot.copy) x";
        assert_eq!(number(query), 40_000);
        let join = "SELECT count(*) FROM hot.copy c JOIN archive.events_1 e USING (id) WHERE c.kind = 'kind 1'";
        assert_eq!(number(join), number("SELECT count(*) FROM hot.copy WHERE kind = 'kind 1'"));
    }

    #[pg_test]
    fn fdw_an_error_in_mid_scan_leaves_the_session_usable() {
        let _storage = events();
        run("DO $$
             DECLARE failed int := 0;
             BEGIN
               FOR round IN 1..20 LOOP
                 BEGIN
                   PERFORM sum(1 / (7000 - id)) FROM archive.events_1;
                 EXCEPTION WHEN division_by_zero THEN failed := failed + 1;
                 END;
               END LOOP;
               ASSERT failed = 20;
               ASSERT (SELECT count(*) FROM archive.events_1) = 20000;
             END $$");
        run("DO $$
             DECLARE r record; seen int := 0;
             BEGIN
               FOR r IN SELECT * FROM archive.events_1 LOOP
                 seen := seen + 1;
                 BEGIN
                   IF seen % 1000 = 0 THEN
                     PERFORM sum(1 / (seen - id)) FROM archive.events_1 WHERE id < 3000;
                   END IF;
                 EXCEPTION WHEN division_by_zero THEN NULL;
                 END;
               END LOOP;
               ASSERT seen = 20000;
             END $$");
        assert_eq!(number("SELECT count(*) FROM archive.events_1 WHERE id < 100"), 100);
    }

    #[pg_test]
    fn fdw_a_missing_object_is_an_error() {
        let storage = events();
        let key = text("SELECT key FROM archive_ext.object ORDER BY ordinal DESC LIMIT 1");
        std::fs::remove_file(storage.0.join(&key)).unwrap();
        assert!(!outcome("SELECT count(*) FROM archive.events_1").starts_with("ok"));
        assert_eq!(outcome("SELECT count(*) FROM archive.events_1 WHERE id < 10"), "ok");
        run("SET archive_ext.enable_catalog_answers = on");
        assert_eq!(outcome("SELECT count(*), min(id), max(id) FROM archive.events_1"), "ok");
        run("DELETE FROM archive_ext.object WHERE ordinal = (SELECT max(ordinal) FROM archive_ext.object)");
        assert!(outcome("SELECT count(*) FROM archive.events_1").starts_with("XX001"));
    }

    #[pg_test]
    fn fdw_changes_are_refused() {
        let _storage = events();
        for statement in [
            "INSERT INTO archive.events_1 (id, at) VALUES (1, now())",
            "INSERT INTO archive.events (id, at) VALUES (1, now())",
            "UPDATE archive.events_1 SET kind = 'x'",
            "UPDATE archive.events SET kind = 'x' WHERE id = 5",
            "DELETE FROM archive.events_1",
            "DELETE FROM archive.events WHERE id = 5",
            "TRUNCATE archive.events_1",
            "TRUNCATE archive.events",
        ] {
            let said = outcome(statement);
            assert!(said.starts_with("55000 cannot change archived partition archive.events_1"), "{statement}: {said}");
            assert!(said.contains("reattach_partition('hot.events_1', writable => true)"), "{statement}: {said}");
        }
        assert_eq!(number("SELECT count(*) FROM archive.events"), 20_000);
    }

    #[pg_test]
    fn fdw_a_partition_is_read_by_its_own_foreign_table_only() {
        let _storage = events();
        run("CREATE ROLE fdw_reader; CREATE ROLE fdw_thief;
             GRANT USAGE ON SCHEMA archive TO fdw_reader, fdw_thief;
             GRANT SELECT ON archive.events_1 TO fdw_reader;
             GRANT USAGE ON FOREIGN SERVER fdw_cold TO fdw_thief;
             CREATE SCHEMA thief AUTHORIZATION fdw_thief");
        run("SET ROLE fdw_reader");
        assert_eq!(number("SELECT count(*) FROM archive.events_1"), 20_000);
        run("SET ROLE fdw_thief");
        assert!(outcome("SELECT count(*) FROM archive.events_1").starts_with("42501"));
        run("RESET ROLE");
        let id = number("SELECT id FROM archive_ext.partition");
        run("SET ROLE fdw_thief");
        run(&format!("CREATE FOREIGN TABLE thief.loot (id bigint) SERVER fdw_cold OPTIONS (partition_id '{id}')"));
        for statement in ["SELECT * FROM thief.loot", "EXPLAIN SELECT * FROM thief.loot", "ANALYZE thief.loot"] {
            let said = outcome(statement);
            assert!(said.starts_with("42501") && said.contains("archive_partition()"), "{statement}: {said}");
        }
        run("RESET ROLE");
    }

    #[pg_test]
    fn fdw_columns_that_the_archive_lacks() {
        let _storage = events();
        run("ALTER FOREIGN TABLE archive.events_1 OWNER TO CURRENT_USER;
             ALTER TABLE archive.events ADD COLUMN late integer");
        let said = outcome("SELECT late FROM archive.events_1");
        assert!(said.starts_with("0A000 column \"late\""), "{said}");
        assert_eq!(number("SELECT count(*) FROM archive.events_1 WHERE id < 10"), 10);
        run("ANALYZE archive.events_1");
    }

    #[pg_test]
    fn fdw_analyze() {
        let _storage = events();
        run("ANALYZE archive.events_1");
        assert_eq!(number("SELECT reltuples::bigint FROM pg_class WHERE oid = 'archive.events_1'::regclass"), 20_000);
        let statistic = |column: &str, attribute: &str| {
            text(&format!(
                "SELECT {column}::text FROM pg_stats WHERE schemaname = 'archive' AND tablename = 'events_1'
                 AND attname = '{attribute}'"
            ))
        };
        assert_eq!(statistic("n_distinct", "id"), "-1");
        assert_eq!(statistic("n_distinct", "kind"), "7");
        assert_eq!(statistic("correlation", "id"), "1");
        let nulls: f64 = statistic("null_frac", "payload").parse().unwrap();
        assert!((nulls - 1.0 / 11.0).abs() < 0.01, "{nulls}");
        let rows = explain_json("", "SELECT * FROM archive.events_1 WHERE kind = 'kind 1'", "Plan Rows");
        assert!((2_500..3_200).contains(&rows), "{rows}");
    }

    #[pg_test]
    fn fdw_every_ordered_type_prunes_objects() {
        let _storage = Storage::create(SETTINGS);
        run("SET timezone = 'UTC';
             CREATE SCHEMA hot;
             CREATE TYPE hot.half AS ENUM ('low', 'high');
             CREATE TABLE hot.ordered (i2 smallint, i4 int, i8 bigint, f4 real, f8 float8, n numeric(12, 2),
               t text COLLATE \"C\", v varchar COLLATE \"C\", c char(9) COLLATE \"C\", ba bytea, d date, tm time,
               ts timestamp, tz timestamptz, u uuid, b bool, e hot.half, nothing int, something int, payload bytea)
               PARTITION BY RANGE (i4);
             CREATE TABLE hot.ordered_1 PARTITION OF hot.ordered FOR VALUES FROM (0) TO (100000);
             INSERT INTO hot.ordered
               SELECT i, i, i, i, i, i, lpad(i::text, 8, '0'), lpad(i::text, 8, '0'), lpad(i::text, 8, '0'),
                 decode(lpad(to_hex(i), 8, '0'), 'hex'), date '2000-01-01' + i, time '00:00' + i * interval '4 seconds',
                 timestamp '2000-01-01' + i * interval '1 day', timestamptz '2000-01-01' + i * interval '1 day',
                 (lpad(to_hex(i), 8, '0') || repeat('0', 24))::uuid, i > 19000,
                 CASE WHEN i > 19000 THEN 'high' ELSE 'low' END::hot.half, CASE WHEN i > 19000 THEN i END,
                 CASE WHEN i < 19000 THEN i END, sha512(i::text::bytea) || sha512((i || 'x')::bytea)
               FROM generate_series(0, 19999) i");
        run("SELECT * FROM archive_partition('hot.ordered_1')");
        let objects = number("SELECT count(*) FROM archive_ext.object");
        assert!(objects > 2, "{objects} objects");
        for condition in [
            "i2 < 5",
            "i4 < 5::bigint",
            "i8 <= 5",
            "f4 < 5",
            "f8 < 5",
            "n < 5",
            "n = 19999",
            "t < '00000005'",
            "v = '00019999'",
            "c = '00000005'",
            "c > '00019990'",
            "ba < '\\x00000005'",
            "d < '2000-01-05'",
            "d < timestamp '2000-01-05'",
            "d < timestamptz '2000-01-05'",
            "tm < '00:01'",
            "ts < '2000-01-05'",
            "ts < date '2000-01-05'",
            "ts < timestamptz '2000-01-05'",
            "tz < '2000-01-05'",
            "tz < date '2000-01-05'",
            "tz < timestamp '2000-01-05'",
            "u < '00000005-0000-0000-0000-000000000000'",
            "b",
            "e = 'high'",
            "e > 'low'",
            "nothing IS NOT NULL",
            "something IS NULL",
            "i4 IN (3, 4)",
            "t = ANY (ARRAY['00000001', '00000002'])",
            "i4 = (SELECT 5)",
            "tz > now() + interval '27 years'",
            "payload = '\\x'",
        ] {
            let query = format!("SELECT * FROM archive.ordered_1 WHERE {condition}");
            let read = explain_json(", ANALYZE", &query, "Files Read");
            assert!(read < objects, "{condition}: {read} of {objects}");
        }
        let skipped = |condition: &str| {
            let query = format!("SELECT * FROM archive.ordered_1 WHERE {condition}");
            explain_json(", ANALYZE", &query, "Row Groups Skipped")
        };
        assert!(skipped("i4 = 500") > 1);
        assert!(skipped("ts = date '2000-01-05'") > 1);
        assert!(skipped("n = 77.0") > 1);
    }

    #[pg_test]
    fn fdw_options_are_checked() {
        let server = |options: &str| {
            outcome(&format!("CREATE SERVER fdw_x FOREIGN DATA WRAPPER archive_fdw OPTIONS ({options})"))
        };
        run("SET client_min_messages = error");
        let said = server("location 's3://bucket/prefix', colour 'red'");
        assert!(said.starts_with("HV00D") && said.contains("location") && said.contains("region"), "{said}");
        assert!(server("region 'eu-west-1'").starts_with("HV00D"));
        assert!(server("location 'ftp://x'").starts_with("22023"));
        let data = text("SELECT setting FROM pg_settings WHERE name = 'data_directory'");
        assert!(server(&format!("location 'file://{data}/archive'")).starts_with("22023"));
        assert_eq!(server("location 's3://bucket/prefix', credentials 'environment'"), "ok");
        run("DROP SERVER fdw_x");

        run("CREATE ROLE fdw_plain; GRANT USAGE ON FOREIGN DATA WRAPPER archive_fdw TO fdw_plain; SET ROLE fdw_plain");
        assert!(server("location 'file:///tmp/fdw_x'").starts_with("42501"));
        assert!(server("location 's3://bucket/prefix', credentials 'environment'").starts_with("42501"));
        assert!(server("location 's3://bucket/prefix', credentials 'file:/etc/passwd'").starts_with("42501"));
        assert_eq!(server("location 's3://bucket/prefix'"), "ok");
        let mapping =
            |options: &str| outcome(&format!("CREATE USER MAPPING FOR fdw_plain SERVER fdw_x OPTIONS ({options})"));
        let said = mapping("access_key_id 'a', secret_access_key 'hunter2', shape 'round'");
        assert!(said.starts_with("HV00D") && !said.contains("hunter2"), "{said}");
        assert_eq!(mapping("access_key_id 'a', secret_access_key 'b'"), "ok");
        run("RESET ROLE; GRANT pg_read_server_files, pg_write_server_files TO fdw_plain; SET ROLE fdw_plain");
        run("DROP SERVER fdw_x CASCADE");
        assert_eq!(server("location 'file:///tmp/fdw_x'"), "ok");
        run("RESET ROLE");

        let table = |options: &str, column: &str| {
            outcome(&format!("CREATE FOREIGN TABLE fdw_t (id bigint {column}) SERVER fdw_x {options}"))
        };
        assert!(table("", "").starts_with("HV002"));
        assert!(table("OPTIONS (partition_id 'x')", "").starts_with("22023"));
        assert!(table("OPTIONS (partition_id '0')", "").starts_with("22023"));
        let said = table("OPTIONS (partition_id '1', location 'x')", "");
        assert!(said.starts_with("HV00D") && said.contains("partition_id"), "{said}");
        assert!(table("OPTIONS (partition_id '1')", "OPTIONS (name 'x')").starts_with("HV00D"));
        assert!(outcome("ALTER FOREIGN DATA WRAPPER archive_fdw OPTIONS (debug 'on')").starts_with("HV00D"));
    }
}
