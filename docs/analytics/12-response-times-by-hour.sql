-- How long does one wait to be answered, by the hour of the day?
-- Answered is who is mentioned after they wrote, within the hour: the time since their last message; in 250
-- conversations drawn as above.
WITH
    drawn AS (SELECT DISTINCT conversation_id FROM conversations ORDER BY cityHash64(conversation_id) LIMIT 250),
    people AS (
        SELECT arraySort(groupArray((seq, created_at, person != sender_id))) AS turns
        FROM (SELECT *, arrayPushBack(mentions, sender_id) AS people FROM messages WHERE conversation_id IN drawn)
        ARRAY JOIN people AS person
        GROUP BY conversation_id, person
    ),
    -- Beside each turn the last of their own before it.
    pairs AS (SELECT arrayJoin(arrayZip(turns, arrayFill(turn -> NOT turn.3, turns))) AS pair FROM people),
    waits AS (
        SELECT pair.1.2 AS answered_at, dateDiff('second', pair.2.2, pair.1.2) AS seconds
        FROM pairs
        WHERE pair.1.3 AND NOT pair.2.3
    )
SELECT toHour(answered_at) AS hour, round(avg(seconds) / 60, 2) AS minutes
FROM waits
WHERE seconds BETWEEN 0 AND 3599
GROUP BY hour
ORDER BY hour
