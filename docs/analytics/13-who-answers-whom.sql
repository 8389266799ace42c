-- Who answers whom?
-- The pairs that address each other by name most often. Where clients answer properly, `reply_to` says it better.
WITH users AS (SELECT DISTINCT sender_id FROM messages)
SELECT sender_id || ' → ' || addressee AS pair, count() AS messages
FROM (SELECT sender_id, extract(text, '^([^\\s:,]+)[:,]') AS addressee FROM messages)
WHERE addressee != '' AND addressee IN users AND addressee != sender_id
GROUP BY pair
ORDER BY messages DESC, pair
LIMIT 15
