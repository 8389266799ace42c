-- How long does it take until somebody else writes?
-- From each message to the next of another person in the conversation, within the hour.
WITH next AS (
    SELECT
        created_at,
        sender_id,
        leadInFrame(created_at) OVER w AS next_at,
        leadInFrame(sender_id) OVER w AS next_sender
    FROM messages
    WINDOW w AS (PARTITION BY conversation_id ORDER BY seq ROWS BETWEEN CURRENT ROW AND 1 FOLLOWING)
)
SELECT dateDiff('minute', created_at, next_at) AS minutes, count() AS answers
FROM next
WHERE next_sender != '' AND next_sender != sender_id AND minutes BETWEEN 0 AND 59
GROUP BY minutes
HAVING minutes <= 10
ORDER BY minutes
