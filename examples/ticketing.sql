-- Tickets that age by what happens to them: LIVE for this month and the last, one HOT, WARM by year, ARCHIVE by month.
--
--   psql -v storage=file:///srv/archive -f examples/ticketing.sql      on a database of your own
--
-- The table is partitioned by its label. INC-23 to INC-26 walk LIVE_202412 -> HOT -> WARM_2024 -> ARCHIVE_202509, and one
-- call brings them back. archive_ext.now is the clock of this walk; leave it alone in production.

\ir prologue.sql

CREATE TABLE ticket (
    id               text NOT NULL,
    title            text NOT NULL,
    opened_at        timestamptz NOT NULL,
    closed_at        timestamptz,
    removal_time     timestamptz,                 -- when a WARM ticket goes to the archive; never a deletion
    lifecycle_status text NOT NULL DEFAULT partition_label('LIVE', 'month', now()),
    PRIMARY KEY (id, lifecycle_status)
) PARTITION BY LIST (lifecycle_status);
CREATE TABLE ticket_live_202412 PARTITION OF ticket FOR VALUES IN ('LIVE_202412');
CREATE TABLE ticket_live_202501 PARTITION OF ticket FOR VALUES IN ('LIVE_202501');
CREATE TABLE ticket_live_202502 PARTITION OF ticket FOR VALUES IN ('LIVE_202502');
CREATE TABLE ticket_hot         PARTITION OF ticket FOR VALUES IN ('HOT');

SELECT set_archive_policy('ticket',
    hot_after           => '1 month',             -- after the end of the label's month: the current and the previous stay LIVE
    warm_granularity    => 'year',
    archive_granularity => 'month',
    removal_column      => 'removal_time');

\echo '== December 2024: four tickets are opened'
SET archive_ext.now = '2024-12-20';
INSERT INTO ticket (id, title, opened_at, lifecycle_status) VALUES
    ('INC-23', 'printer on fire',      '2024-12-03 09:12', 'LIVE_202412'),
    ('INC-24', 'password forgotten',   '2024-12-11 14:40', 'LIVE_202412'),
    ('INC-25', 'mail bounces',         '2024-12-19 08:05', 'LIVE_202412'),
    ('INC-26', 'no light in room 101', '2024-12-30 17:55', 'LIVE_202412'),
    ('INC-27', 'new laptop',           '2025-01-07 10:00', 'LIVE_202501');
CALL run_lifecycle('ticket');
SELECT lifecycle_status, count(*) FROM ticket GROUP BY 1 ORDER BY 1;

\echo '== February 2025: December is neither the current month nor the previous'
SET archive_ext.now = '2025-02-02';
CALL run_lifecycle('ticket');
SELECT lifecycle_status, string_agg(id, ' ' ORDER BY id) AS tickets FROM ticket GROUP BY 1 ORDER BY 1;

\echo '== they are closed, and may go in September'
UPDATE ticket SET closed_at = '2025-02-03' WHERE id IN ('INC-23', 'INC-24', 'INC-25', 'INC-26');
SELECT set_lifecycle_where('ticket', 'closed_at IS NOT NULL', 'WARM', '2025-09-01') AS moved;
SELECT lifecycle_status, string_agg(id, ' ' ORDER BY id) AS tickets, max(removal_time) AS removal_time
FROM ticket GROUP BY 1 ORDER BY 1;

\echo '== September 2025: their removal time has come'
SET archive_ext.now = '2025-09-02';
CALL run_lifecycle('ticket');
\echo '== October 2025: September is over, its partition goes to the storage'
SET archive_ext.now = '2025-10-15';
CALL run_lifecycle('ticket');
SELECT lifecycle_status, string_agg(id, ' ' ORDER BY id) AS tickets FROM ticket GROUP BY 1 ORDER BY 1;
SELECT lifecycle_status, string_agg(id, ' ' ORDER BY id) AS tickets FROM archive.ticket GROUP BY 1 ORDER BY 1;
SELECT line AS map FROM lifecycle_map('ticket') AS line;

\echo '== somebody asks for INC-24: one call brings the month back'
SELECT reattach_partition('ticket_archive_202509');
SELECT id, title, lifecycle_status FROM ticket WHERE id = 'INC-24';
