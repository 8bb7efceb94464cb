-- What a client of `make soak` does: mostly recent rows, now and then the whole of a day, rarely old ones.
\set id random(1, 1000000000)
\set day random(0, 27)
\set kind random(1, 10)
\if :kind <= 6
INSERT INTO reading (at, sensor, value) VALUES (timestamptz '2025-01-01' + :day * interval '1 day', :id % 500, :id);
\elif :kind <= 8
UPDATE reading SET value = value + 1 WHERE at >= '2025-01-01' AND sensor = :id % 500;
\elif :kind = 9
SELECT count(*), avg(value) FROM reading WHERE at >= timestamptz '2025-01-01' + :day * interval '1 day' AND at < timestamptz '2025-01-02' + :day * interval '1 day';
\else
SELECT count(*) FROM reading WHERE sensor = :id % 500 AND at < '2024-03-01';
\endif
