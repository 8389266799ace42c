-- How long do people stay?
-- A visit ends with half an hour of silence; by its length in minutes, in steps of 10, up to two hours. Of
-- 5,000 people drawn as above.
WITH
    drawn AS (SELECT DISTINCT user_id FROM memberships ORDER BY cityHash64(user_id) LIMIT 5000),
    users AS (
        SELECT arraySort(groupArray(created_at)) AS times, arrayPushFront(arrayPopBack(times), times[1]) AS before
        FROM messages
        WHERE sender_id IN drawn
        GROUP BY sender_id
    ),
    visits AS (
        SELECT arrayJoin(arraySplit((at, last) -> dateDiff('second', last, at) > 1800, times, before)) AS visit FROM users
    )
SELECT least(intDiv(dateDiff('minute', visit[1], visit[-1]), 10), 12) AS tens_of_minutes, count() AS visits
FROM visits
GROUP BY tens_of_minutes
ORDER BY tens_of_minutes
