-- How many people write on a day?
-- Who wrote at least once counts once.
SELECT toDate(created_at) AS day, uniqExact(sender_id) AS users
FROM messages
GROUP BY day
ORDER BY day
