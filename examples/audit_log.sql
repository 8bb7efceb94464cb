-- An audit log: 7 days hot, 30 warm, then in the archive, a partition a month; detached from the table month by month.
--
--   psql -v storage=file:///srv/archive -f examples/audit_log.sql

\ir prologue.sql

CREATE TABLE audit_log (
    at      timestamptz NOT NULL,
    actor   text NOT NULL,
    action  text NOT NULL,
    details jsonb
) PARTITION BY RANGE (at);
CREATE TABLE audit_log_2025_01 PARTITION OF audit_log FOR VALUES FROM ('2025-01-01') TO ('2025-02-01');

-- Ages count from the end of a partition. expire_after is when the files may go; NULL, the default, means never.
SELECT set_archive_policy('audit_log', hot_after => '0', warm_after => '7 days', archive_after => '30 days',
                          expire_after => '180 days', premake => 2);

\echo '== half a year of it, a run of the lifecycle at the beginning of each month'
SET archive_ext.now = '2025-01-01';
CALL run_lifecycle('audit_log');
SELECT format($$INSERT INTO audit_log SELECT %L::timestamptz + n * interval '1 hour', 'user ' || n %% 7, 'login', NULL
                FROM generate_series(0, 600) n$$, month) AS fill,
       format('SET archive_ext.now = %L', month + interval '1 month 12 hours') AS clock, 'CALL run_lifecycle(''audit_log'')' AS run
FROM generate_series(timestamptz '2025-01-01', '2025-06-01', interval '1 month') AS month
\gexec
SELECT partition, status, next_step, reason FROM explain_lifecycle('audit_log');
SELECT line AS map FROM lifecycle_map('audit_log') AS line;
SELECT count(*) AS local FROM audit_log;
SELECT count(*) AS archived FROM archive.audit_log;
