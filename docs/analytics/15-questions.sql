-- Which share of messages asks something, by the hour?
SELECT toHour(created_at) AS hour, round(countIf(text LIKE '%?%') / count(), 4) AS share
FROM messages
GROUP BY hour
ORDER BY hour
