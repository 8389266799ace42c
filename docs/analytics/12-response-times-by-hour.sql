-- How long does one wait to be answered, by the hour of the day?
-- Answered is who is mentioned after they wrote, within the hour: the time since their last message.
WITH
    turns AS (
        SELECT conversation_id, seq, created_at, sender_id AS person, created_at AS said_at, false AS is_answer
        FROM messages
        UNION ALL
        SELECT conversation_id, seq, created_at, arrayJoin(mentions), toDateTime64(0, 3, 'UTC'), true
        FROM messages
        WHERE notEmpty(mentions)
    ),
    waits AS (
        SELECT
            created_at,
            is_answer,
            dateDiff('second', max(said_at) OVER (PARTITION BY conversation_id, person ORDER BY seq), created_at) AS seconds
        FROM turns
    )
SELECT toHour(created_at) AS hour, round(avg(seconds) / 60, 2) AS minutes
FROM waits
WHERE is_answer AND seconds < 3600
GROUP BY hour
ORDER BY hour
