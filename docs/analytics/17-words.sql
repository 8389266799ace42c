-- Which words are used by most people?
-- Words of five letters and more; of 600 people drawn by a hash of their names, or all there are.
WITH
    drawn AS (SELECT DISTINCT user_id FROM memberships ORDER BY cityHash64(user_id) LIMIT 600),
    users AS (
        SELECT groupUniqArrayArray(arrayFilter(word -> length(word) >= 5, splitByNonAlpha(lower(text)))) AS words
        FROM messages
        WHERE sender_id IN drawn
        GROUP BY sender_id
    )
SELECT arrayJoin(words) AS word, count() AS people
FROM users
WHERE match(word, '^[a-z]+$')
GROUP BY word
ORDER BY people DESC, word
LIMIT 20
