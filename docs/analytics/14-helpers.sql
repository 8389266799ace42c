-- Whom do most different people hear from?
-- How many others somebody has mentioned: the helpers of a room.
SELECT sender_id AS user, uniqExactArray(mentions) AS people
FROM messages
WHERE notEmpty(mentions)
GROUP BY user
ORDER BY people DESC, user
LIMIT 15
