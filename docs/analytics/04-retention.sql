-- Of those who came first in a year, which share writes in later years?
-- Cohorts by year; with `toStartOfWeek` for `toYear` and `dateDiff` for the subtraction, by week.
WITH
    seen AS (SELECT DISTINCT sender_id, toYear(created_at) AS year FROM messages),
    first AS (SELECT sender_id, min(year) AS cohort FROM seen GROUP BY sender_id),
    sizes AS (SELECT cohort, count() AS people FROM first GROUP BY cohort)
SELECT toInt64(year) - cohort AS years_later, toString(cohort) AS cohort_year, round(count() / any(people), 4) AS share
FROM seen JOIN first USING (sender_id) JOIN sizes USING (cohort)
WHERE year > cohort
GROUP BY cohort, years_later
ORDER BY cohort, years_later
