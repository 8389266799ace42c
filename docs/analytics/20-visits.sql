-- How long do people stay?
-- A visit ends with half an hour of silence; by its length in minutes, in steps of 10, up to two hours.
WITH
    marked AS (
        SELECT
            sender_id,
            created_at,
            dateDiff('second', lagInFrame(created_at, 1, toDateTime64(0, 3, 'UTC')) OVER w, created_at) > 1800 AS begins
        FROM messages
        WINDOW w AS (PARTITION BY sender_id ORDER BY created_at ROWS BETWEEN 1 PRECEDING AND CURRENT ROW)
    ),
    numbered AS (
        SELECT sender_id, created_at, sum(begins) OVER (PARTITION BY sender_id ORDER BY created_at) AS visit FROM marked
    ),
    visits AS (SELECT dateDiff('minute', min(created_at), max(created_at)) AS minutes FROM numbered GROUP BY sender_id, visit)
SELECT least(intDiv(minutes, 10), 12) AS tens_of_minutes, count() AS visits
FROM visits
GROUP BY tens_of_minutes
ORDER BY tens_of_minutes
