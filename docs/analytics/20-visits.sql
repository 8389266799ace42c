-- How long do people stay?
-- A visit ends with half an hour of silence; by its length in minutes, in steps of 10, up to two hours.
WITH
    users AS (SELECT arraySort(groupArray(created_at)) AS times FROM messages GROUP BY sender_id),
    visits AS (
        SELECT arrayJoin(arraySplit((at, pause) -> pause > 1800, times, arrayMap((at, before) -> dateDiff('second', before, at), times, arrayPushFront(arrayPopBack(times), times[1])))) AS visit
        FROM users
    )
SELECT least(intDiv(dateDiff('minute', visit[1], visit[-1]), 10), 12) AS tens_of_minutes, count() AS visits
FROM visits
GROUP BY tens_of_minutes
ORDER BY tens_of_minutes
