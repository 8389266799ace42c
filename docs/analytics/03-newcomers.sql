-- Of those who write on a day, how many had never written before?
-- What a service lives on: newcomers, and those who come back.
WITH first AS (SELECT sender_id, min(toDate(created_at)) AS first_day FROM messages GROUP BY sender_id)
SELECT
    toDate(created_at) AS day,
    uniqExactIf(sender_id, first_day = day) AS newcomers,
    uniqExactIf(sender_id, first_day < day) AS returning
FROM messages JOIN first USING (sender_id)
GROUP BY day
ORDER BY day
