-- How many people write in a week, and how much?
-- Weeks begin on Monday. The two lines drift apart where the same people write more.
SELECT toStartOfWeek(created_at, 1) AS week, uniqExact(sender_id) AS users, count() AS messages
FROM messages
GROUP BY week
ORDER BY week
