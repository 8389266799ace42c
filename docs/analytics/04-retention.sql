-- Of those who came first in a year, which share writes in later years?
-- Cohorts by year; with `toStartOfWeek` for `toYear` and `dateDiff` for the subtraction, by week.
WITH
    users AS (SELECT groupUniqArray(toYear(created_at)) AS years FROM messages GROUP BY sender_id),
    cohorts AS (
        SELECT arrayMin(years) AS cohort, count() AS people, groupArrayArray(years) AS seen FROM users GROUP BY cohort
    )
SELECT year - cohort AS years_later, toString(cohort) AS cohort_year, round(countEqual(seen, year) / people, 4) AS share
FROM cohorts ARRAY JOIN arrayDistinct(seen) AS year
WHERE years_later > 0
ORDER BY cohort, years_later
