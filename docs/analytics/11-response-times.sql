-- How long does it take until somebody else writes?
-- From each message to the next of another person, within minutes; in 250 conversations drawn by a hash of
-- their ids, or all there are.
WITH
    drawn AS (SELECT DISTINCT conversation_id FROM conversations ORDER BY cityHash64(conversation_id) LIMIT 250),
    conversations AS (
        SELECT arraySort(groupArray((seq, created_at, cityHash64(sender_id)))) AS said
        FROM messages
        WHERE conversation_id IN drawn
        GROUP BY conversation_id
    ),
    pairs AS (SELECT arrayJoin(arrayZip(arrayPopBack(said), arrayPopFront(said))) AS pair FROM conversations)
SELECT dateDiff('minute', pair.1.2, pair.2.2) AS minutes, count() AS answers
FROM pairs
WHERE pair.1.3 != pair.2.3 AND minutes BETWEEN 0 AND 10
GROUP BY minutes
ORDER BY minutes
