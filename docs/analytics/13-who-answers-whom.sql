-- Who answers whom?
-- The pairs that mention each other most often.
SELECT sender_id || ' → ' || arrayJoin(mentions) AS pair, count() AS messages
FROM messages
WHERE notEmpty(mentions)
GROUP BY pair
ORDER BY messages DESC, pair
LIMIT 15
