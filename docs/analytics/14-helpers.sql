-- Whom do most different people hear from?
-- How many others somebody has addressed by name: the helpers of a room.
WITH users AS (SELECT DISTINCT sender_id FROM messages)
SELECT sender_id AS user, uniqExact(addressee) AS people
FROM (SELECT sender_id, extract(text, '^([^\\s:,]+)[:,]') AS addressee FROM messages)
WHERE addressee != '' AND addressee IN users AND addressee != sender_id
GROUP BY user
ORDER BY people DESC, user
LIMIT 15
