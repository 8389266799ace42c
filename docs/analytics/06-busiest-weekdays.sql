-- On which day of the week is most written?
-- A mean over the days that there are, so that a weekday that occurs twice does not count twice. Monday is 1.
SELECT toDayOfWeek(created_at) AS weekday, round(count() / uniqExact(toDate(created_at)), 1) AS messages_a_day
FROM messages
GROUP BY weekday
ORDER BY weekday
