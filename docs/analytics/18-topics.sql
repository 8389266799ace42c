-- Which desktop is talked about, over the years?
-- Messages in a thousand that hold the word.
SELECT
    toYear(created_at) AS year,
    round(1000 * countIf(hasToken(lower(text), 'gnome')) / count(), 2) AS gnome,
    round(1000 * countIf(hasToken(lower(text), 'kde')) / count(), 2) AS kde,
    round(1000 * countIf(hasToken(lower(text), 'unity')) / count(), 2) AS unity,
    round(1000 * countIf(hasToken(lower(text), 'xfce')) / count(), 2) AS xfce
FROM messages
GROUP BY year
ORDER BY year
