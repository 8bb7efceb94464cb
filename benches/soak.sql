-- What a client of `make soak` does: writes and reads rows of this month, which stays.
\set id random(1, 1000000000)
\set day random(0, 27)
\set kind random(1, 10)
\if :kind <= 6
INSERT INTO reading (at, sensor, value) VALUES (date_trunc('month', now()) + :day * interval '1 day', :id % 500, :id);
\elif :kind <= 8
UPDATE reading SET value = value + 1 WHERE at >= date_trunc('month', now()) AND sensor = :id % 500;
\elif :kind = 9
SELECT count(*), avg(value) FROM reading WHERE at >= date_trunc('month', now()) + :day * interval '1 day' AND at < date_trunc('month', now()) + (:day + 1) * interval '1 day';
\else
SELECT at, value FROM reading WHERE sensor = :id % 500 AND at >= date_trunc('month', now()) ORDER BY at DESC LIMIT 10;
\endif
