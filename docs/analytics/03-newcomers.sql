-- Of those who write on a day, how many had never written before?
-- What a service lives on: newcomers, and those who come back.
WITH users AS (SELECT groupUniqArray(toDate(created_at)) AS days FROM messages GROUP BY sender_id)
SELECT arrayJoin(days) AS day, countIf(day = arrayMin(days)) AS newcomers, countIf(day > arrayMin(days)) AS returning
FROM users
GROUP BY day
ORDER BY day
