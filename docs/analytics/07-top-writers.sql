-- Who writes most?
SELECT sender_id AS user, count() AS messages
FROM messages
GROUP BY user
ORDER BY messages DESC, user
LIMIT 15
