-- Which share of first questions is never answered by name?
-- The first question of a person on a day, and whether anybody addresses them later that day.
WITH
    users AS (SELECT DISTINCT sender_id FROM messages),
    asked AS (
        SELECT conversation_id, sender_id, toDate(created_at) AS day, min(seq) AS first_seq
        FROM messages
        WHERE text LIKE '%?%'
        GROUP BY conversation_id, sender_id, day
    ),
    answered AS (
        SELECT conversation_id, extract(text, '^([^\\s:,]+)[:,]') AS addressee, toDate(created_at) AS day, max(seq) AS last_seq
        FROM messages
        WHERE addressee IN users AND addressee != sender_id
        GROUP BY conversation_id, addressee, day
    )
SELECT day, round(countIf(last_seq < first_seq) / count(), 4) AS unanswered
FROM asked LEFT JOIN answered
    ON answered.conversation_id = asked.conversation_id AND addressee = sender_id AND answered.day = asked.day
GROUP BY day
ORDER BY day
