-- Waits while the cluster is busier than the limits allow, but no longer than until `ends`; `why` says that it still is. A job that is
-- paused or cancelled meanwhile waits no more: its next step says so.
CREATE PROCEDURE archive_ext.wait_for_calm(job uuid, ends timestamptz, INOUT why text)
LANGUAGE plpgsql AS $$
DECLARE
    held  text;
    waits boolean := false;
BEGIN
    LOOP
        held := archive_ext.throttled();
        COMMIT;
        why := CASE WHEN held IS NOT NULL THEN 'throttled' END;
        EXIT WHEN held IS NULL OR pg_catalog.clock_timestamp() >= ends;
        EXIT WHEN NOT EXISTS (SELECT FROM archive_ext.jobs j WHERE j.job_id = job AND j.status = 'running');
        IF NOT waits THEN
            RAISE NOTICE 'waiting: %', held;
            waits := true;
        END IF;
        PERFORM archive_ext.pause(1);
    END LOOP;
END
$$;

-- Runs a job to its end, or as far as the limits let it, each step in a transaction of its own; the phase it reached. Waits for
-- locks are tried again; any other error ends the job, and what it had frozen is writable again.
CREATE PROCEDURE archive_ext.run_steps(
    job           uuid,
    INOUT reached text,
    max_steps     int DEFAULT NULL,
    run_for       interval DEFAULT NULL,
    rest          interval DEFAULT '0',
    patient       boolean DEFAULT false,
    obliging      boolean DEFAULT false,
    hours         text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    ends     timestamptz := pg_catalog.clock_timestamp() + run_for;
    why      text;
    steps    int := 0;
    attempts int := 0;
    more     boolean := true;
    failure  text;
    state    text;
    message  text;
    detail   text;
    hint     text;
BEGIN
    WHILE more LOOP
        IF obliging THEN
            CALL archive_ext.wait_for_calm(job, ends, why);
        END IF;
        why := CASE WHEN steps >= max_steps THEN 'max_batches'
                    WHEN NOT archive_ext.window_open(hours) THEN 'window'
                    WHEN pg_catalog.clock_timestamp() >= ends THEN coalesce(why, 'run_for') END;
        EXIT WHEN why IS NOT NULL;
        failure := NULL;
        BEGIN
            SELECT s.more, s.phase INTO more, reached FROM archive_ext.archive_step(job) s;
        EXCEPTION WHEN OTHERS THEN
            GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, message = MESSAGE_TEXT,
                detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
            failure := message;
        END;
        -- 40P01 and 40001: another session changed or moved the same rows first. A merge or split that has copied everything
        -- waits for its swap, as CREATE INDEX CONCURRENTLY does for old transactions: hours of copying are not thrown away.
        IF failure IS NOT NULL AND state IN ('55P03', '40P01', '40001') AND (attempts < 10 OR patient AND reached = 'verified') THEN
            attempts := attempts + 1;
            COMMIT;
            RAISE NOTICE '%; trying again (%)', failure, CASE WHEN patient AND reached = 'verified' THEN attempts::text
                                                         ELSE attempts || ' of 10' END
                USING DETAIL = coalesce(nullif(detail, ''), 'Nothing was changed.');
            PERFORM archive_ext.pause(least(attempts::float8, 5::float8));
        ELSIF failure IS NOT NULL THEN
            -- 55006: another session works on the partitions, and the job is its.
            IF state <> '55006' THEN
                PERFORM archive_ext.fail_job(job, failure);
            END IF;
            COMMIT;
            RAISE EXCEPTION USING ERRCODE = state, MESSAGE = message, DETAIL = detail, HINT = hint;
        ELSE
            attempts := 0;
            steps := steps + 1;
        END IF;
        COMMIT;
        IF attempts = 0 AND more AND rest > interval '0' THEN
            PERFORM archive_ext.pause(extract(epoch FROM rest)::float8);
        END IF;
    END LOOP;
    IF why IS NOT NULL THEN
        PERFORM archive_ext.note_stop(job, why);
        COMMIT;
    END IF;
END
$$;

-- Commits between the steps of each partition, so that a crash resumes where it was: freeze, validate, export, verify,
-- swap.
CREATE PROCEDURE archive_partition_steps(
    partitions regclass[],
    storage    name DEFAULT NULL,
    verify     text DEFAULT 'content',
    drop_local interval DEFAULT NULL,
    allow_subscribed boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    part      regclass;
    part_name text;
    job       uuid;
    reached   text;
BEGIN
    FOREACH part IN ARRAY partitions LOOP
        CONTINUE WHEN part IS NULL;
        part_name := part;
        job := archive_ext.begin_archive(part, storage, verify, drop_local, allow_subscribed);
        COMMIT;
        IF job IS NULL THEN
            RAISE NOTICE 'partition % is already archived, skipping', part_name;
            CONTINUE;
        END IF;
        CALL archive_ext.run_steps(job, reached);
        IF reached IS DISTINCT FROM 'done' THEN
            RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
                MESSAGE = pg_catalog.format('archiving %s was cancelled or taken over by another session', part_name),
                HINT = 'See archive_ext.jobs.';
        END IF;
        RAISE NOTICE 'partition % archived', part_name;
    END LOOP;
END
$$;

CREATE PROCEDURE merge_partitions_steps(partitions regclass[], name name DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    job     uuid := archive_ext.begin_merge(partitions, name);
    reached text;
BEGIN
    COMMIT;
    CALL archive_ext.run_steps(job, reached, patient => true);
END
$$;

CREATE PROCEDURE split_partition_steps(partition regclass, granularity text)
LANGUAGE plpgsql AS $$
DECLARE
    job     uuid := archive_ext.begin_split(partition, granularity);
    reached text;
BEGIN
    COMMIT;
    CALL archive_ext.run_steps(job, reached, patient => true);
END
$$;

-- Does what the policies say is due: makes jobs, then does them one after the other, committing after each step. What
-- fails is put back and tried again by a later call. Jobs that others made due (a split) are done in the same call.
-- While the cluster is busy no further job is begun, and one that was begun waits between its steps, as in a worker.
CREATE PROCEDURE run_lifecycle(source regclass DEFAULT NULL, max_jobs int DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    job      uuid;
    more     boolean;
    reached  text;
    done     int := 0;
    rounds   int := 10;
    made     int;
    failure  text;
    state    text;
    detail   text;
    held     text;
    waits    boolean;
BEGIN
    made := archive_ext.schedule_jobs(source);
    COMMIT;
    LOOP
        EXIT WHEN done >= max_jobs;
        held := archive_ext.throttled();
        COMMIT;
        IF held IS NOT NULL THEN
            RAISE NOTICE 'no further job is begun: %', held USING HINT = 'A later call goes on.';
            EXIT;
        END IF;
        job := archive_ext.next_job(source);
        COMMIT;
        IF job IS NULL THEN
            rounds := rounds - 1;
            EXIT WHEN done = 0 OR rounds = 0;
            made := archive_ext.schedule_jobs(source);
            COMMIT;
            EXIT WHEN made = 0;
            CONTINUE;
        END IF;
        more := true;
        WHILE more LOOP
            failure := NULL;
            BEGIN
                SELECT s.more, s.phase INTO more, reached FROM archive_ext.lifecycle_step(job) s;
            EXCEPTION WHEN OTHERS THEN
                GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, failure = MESSAGE_TEXT, detail = PG_EXCEPTION_DETAIL;
            END;
            IF failure IS NOT NULL THEN
                PERFORM archive_ext.job_failed(job, state, failure, detail);
                more := false;
            END IF;
            COMMIT;
            waits := false;
            WHILE more LOOP
                held := archive_ext.throttled();
                COMMIT;
                EXIT WHEN held IS NULL;
                -- Paused or cancelled while it waited: the next step says so.
                EXIT WHEN NOT EXISTS (SELECT FROM archive_ext.jobs j WHERE j.job_id = job AND j.status = 'running');
                IF NOT waits THEN
                    RAISE NOTICE 'job % waits: %', job, held;
                    waits := true;
                END IF;
                PERFORM archive_ext.pause(1);
                COMMIT;
            END LOOP;
        END LOOP;
        done := done + 1;
    END LOOP;
END
$$;

-- Moves rows to another status in batches, each committed. Called again after a crash or cancel it goes on, since rows
-- that moved no longer match.
CREATE PROCEDURE set_lifecycle_where_steps(
    source       regclass,
    where_clause text,
    status       archive_ext.lifecycle_status,
    removal_time timestamptz DEFAULT NULL,
    batch_rows   bigint DEFAULT 10000,
    keep_keys    boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    job     uuid := archive_ext.begin_rows(source, where_clause, status, removal_time, batch_rows, keep_keys);
    reached text;
    moved   bigint;
BEGIN
    COMMIT;
    CALL archive_ext.run_steps(job, reached);
    SELECT j.rows_archived INTO moved FROM archive_ext.jobs j WHERE j.job_id = job;
    RAISE NOTICE '% rows moved to %', moved, status;
END
$$;

-- The same for a partition with those of its children: every member's steps are committed, then one swap of all.
CREATE PROCEDURE archive_family_steps(
    partition  regclass,
    storage    name DEFAULT NULL,
    verify     text DEFAULT 'content',
    drop_local interval DEFAULT NULL,
    allow_subscribed boolean DEFAULT false)
LANGUAGE plpgsql AS $$
DECLARE
    part_name text := partition;
    job       uuid;
    reached   text;
BEGIN
    IF partition IS NULL THEN
        RETURN;
    END IF;
    job := archive_ext.begin_family(partition, storage, verify, drop_local, allow_subscribed);
    COMMIT;
    IF job IS NULL THEN
        RAISE NOTICE 'partition % is already archived, skipping', part_name;
        RETURN;
    END IF;
    CALL archive_ext.run_steps(job, reached);
    IF reached IS DISTINCT FROM 'done' THEN
        RAISE EXCEPTION USING ERRCODE = 'object_not_in_prerequisite_state',
            MESSAGE = pg_catalog.format('archiving the family of %s was cancelled or taken over by another session', part_name),
            HINT = 'See archive_ext.jobs.';
    END IF;
    RAISE NOTICE 'partition % archived with its children', part_name;
END
$$;

-- Archives rows batch after batch, each committed, until a whole pass finds nothing more, or as many batches or as much time as
-- allowed are used up, or the window closes. While the cluster is busy it waits. Called again after that, after a crash or a cancel,
-- it goes on.
CREATE PROCEDURE archive_table(
    source         regclass,
    archive_before timestamptz,
    time_column    name DEFAULT NULL,
    batch_rows     bigint DEFAULT 5000,
    batch_bytes    bigint DEFAULT 67108864,
    where_clause   text DEFAULT NULL,
    order_key      name[] DEFAULT NULL,
    storage        name DEFAULT NULL,
    format         text DEFAULT NULL,
    locked         text DEFAULT 'skip',
    referenced     text DEFAULT 'skip',
    mode           text DEFAULT 'delete',
    mark_column    name DEFAULT NULL,
    payload        name[] DEFAULT NULL,
    search_column  name DEFAULT NULL,
    search_config  text DEFAULT NULL,
    max_batches    int DEFAULT NULL,
    run_for        interval DEFAULT NULL,
    sleep          interval DEFAULT '0',
    maintenance_window text DEFAULT NULL)
LANGUAGE plpgsql AS $$
DECLARE
    -- Refused before there is a job.
    is_open  boolean := archive_ext.window_open(maintenance_window);
    job      uuid := archive_ext.begin_batches(source, archive_before, time_column, batch_rows, batch_bytes, where_clause,
                                               order_key, storage, format, locked, referenced, mode, mark_column, payload,
                                               search_column, search_config);
    reached  text;
    before   bigint;
    archived bigint;
    why      text;
    told     text;
BEGIN
    SELECT j.rows_archived INTO before FROM archive_ext.jobs j WHERE j.job_id = job;
    COMMIT;
    CALL archive_ext.run_steps(job, reached, max_batches, run_for, sleep, obliging => true, hours => maintenance_window);
    SELECT j.rows_archived - before, j.why_stopped INTO archived, why FROM archive_ext.jobs j WHERE j.job_id = job;
    told := pg_catalog.format('%s rows archived, %s', archived,
        CASE reached WHEN 'done' THEN 'none are left' ELSE pg_catalog.format('more may be left (%s)', why) END);
    IF archived > 0 THEN
        RAISE NOTICE '%', told USING HINT = pg_catalog.format('VACUUM (ANALYZE) %s lets their room be used again.', source);
    ELSE
        RAISE NOTICE '%', told;
    END IF;
END
$$;

-- Deletes marked rows in batches, each committed, until none is left that can go.
CREATE PROCEDURE purge_marked_steps(source regclass, batch_rows bigint DEFAULT 5000, sleep interval DEFAULT '0')
LANGUAGE plpgsql AS $$
DECLARE
    gone  bigint;
    total bigint := 0;
BEGIN
    LOOP
        gone := archive_ext.purge_batch(source, batch_rows);
        COMMIT;
        EXIT WHEN gone = 0;
        total := total + gone;
        IF sleep > interval '0' THEN
            PERFORM archive_ext.pause(extract(epoch FROM sleep)::float8);
        END IF;
    END LOOP;
    RAISE NOTICE '% marked rows deleted', total;
END
$$;

-- Merges small objects of a table's archive into large ones, one group after the other, each committed, until none are left or
-- the time allowed is over.
CREATE PROCEDURE compact_archive_steps(
    source      regclass,
    time_column name DEFAULT NULL,
    min_objects int DEFAULT 2,
    max_bytes   bigint DEFAULT NULL,
    run_for     interval DEFAULT NULL,
    sleep       interval DEFAULT '0')
LANGUAGE plpgsql AS $$
DECLARE
    job     uuid := archive_ext.begin_compaction(source, time_column, min_objects, max_bytes);
    reached text;
    merged  bigint;
    written bigint;
BEGIN
    COMMIT;
    CALL archive_ext.run_steps(job, reached, run_for => run_for, rest => sleep);
    SELECT coalesce(sum((e.details ->> 'objects')::bigint), 0), coalesce(sum((e.details ->> 'into_objects')::bigint), 0)
    INTO merged, written FROM archive_ext.events e WHERE e.job_id = job AND e.event = 'compacted';
    RAISE NOTICE '% objects became %, %', merged, written,
        CASE reached WHEN 'done' THEN 'none are left to merge' ELSE 'more may be left' END;
END
$$;

-- Verifies a table's whole archive, or a partition, and commits after each partition. What fails does not keep the others from being
-- verified; at the end it is an error.
CREATE PROCEDURE verify_archive_steps(partition text, level text DEFAULT 'content')
LANGUAGE plpgsql AS $$
DECLARE
    ids    bigint[];
    names  text[];
    passed boolean;
    told   text;
    failed text[] := '{}';
BEGIN
    SELECT pg_catalog.array_agg(v.id), pg_catalog.array_agg(v.partition) INTO ids, names
    FROM archive_ext.verifiable(partition, level) v;
    FOR i IN 1 .. pg_catalog.cardinality(ids) LOOP
        SELECT v.passed, v.result INTO passed, told FROM archive_ext.verify_one(ids[i], level) v;
        COMMIT;
        CONTINUE WHEN passed IS NULL;
        RAISE NOTICE '%: %', names[i], told;
        IF NOT passed THEN
            failed := failed || names[i];
        END IF;
    END LOOP;
    IF pg_catalog.cardinality(failed) > 0 THEN
        RAISE EXCEPTION USING ERRCODE = 'data_corrupted',
            MESSAGE = pg_catalog.format('%s of %s partitions are not what was archived', pg_catalog.cardinality(failed),
                                        pg_catalog.cardinality(ids)),
            DETAIL = pg_catalog.array_to_string(failed, ', '),
            HINT = 'archive_ext.findings tells which objects; put these back from a copy, then verify again.';
    END IF;
END
$$;
