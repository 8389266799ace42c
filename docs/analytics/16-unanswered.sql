-- Which share of first questions is never answered?
-- The first question of a person on a day, and whether anybody mentions them later that day.
WITH
    asked AS (
        SELECT conversation_id, sender_id AS person, toDate(created_at) AS day, min(seq) AS first_seq
        FROM messages
        WHERE text LIKE '%?%'
        GROUP BY conversation_id, person, day
    ),
    answered AS (
        SELECT conversation_id, arrayJoin(mentions) AS person, toDate(created_at) AS day, max(seq) AS last_seq
        FROM messages
        WHERE notEmpty(mentions)
        GROUP BY conversation_id, person, day
    )
SELECT day, round(countIf(last_seq < first_seq) / count(), 4) AS unanswered
FROM asked LEFT JOIN answered USING (conversation_id, person, day)
GROUP BY day
ORDER BY day
