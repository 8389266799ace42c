-- Which words are used by most people?
-- Words of five letters and more.
SELECT word, uniqExact(sender_id) AS people
FROM (SELECT sender_id, arrayJoin(arrayDistinct(splitByNonAlpha(lower(text)))) AS word FROM messages)
WHERE match(word, '^[a-z]{5,}$')
GROUP BY word
ORDER BY people DESC, word
LIMIT 20
