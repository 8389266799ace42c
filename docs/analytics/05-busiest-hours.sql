-- At which hour is most written?
-- Hours of UTC.
SELECT toHour(created_at) AS hour, count() AS messages
FROM messages
GROUP BY hour
ORDER BY hour
