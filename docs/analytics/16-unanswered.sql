-- Which share of first questions is never answered?
-- The first question of a person on a day, and whether anybody mentions them later that day; in 100
-- conversations drawn as above.
WITH
    drawn AS (SELECT DISTINCT conversation_id FROM conversations ORDER BY cityHash64(conversation_id) LIMIT 100),
    turns AS (
        SELECT conversation_id, sender_id AS person, toDate(created_at) AS day, seq, true AS asks
        FROM messages
        WHERE conversation_id IN drawn AND text LIKE '%?%'
        UNION ALL
        SELECT conversation_id, arrayJoin(mentions), toDate(created_at), seq, false
        FROM messages
        WHERE conversation_id IN drawn AND notEmpty(mentions)
    ),
    days AS (
        SELECT day, minIf(seq, asks) AS asked, maxIf(seq, NOT asks) AS answered
        FROM turns
        GROUP BY conversation_id, person, day
    )
SELECT day, round(countIf(answered < asked) / count(), 4) AS unanswered
FROM days
WHERE asked > 0
GROUP BY day
ORDER BY day
