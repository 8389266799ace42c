-- Which share of all messages is by the most active tenth of people?
-- Tenths of people, the most active first. Here the first writes more than all others together.
WITH
    users AS (SELECT sender_id, count() AS messages FROM messages GROUP BY sender_id),
    ranked AS (
        SELECT messages, row_number() OVER (ORDER BY messages DESC, sender_id) AS rank, count() OVER () AS people
        FROM users
    )
SELECT intDiv((rank - 1) * 10, people) + 1 AS tenth, round(sum(messages) / (SELECT count() FROM messages), 4) AS share
FROM ranked
GROUP BY tenth
ORDER BY tenth
