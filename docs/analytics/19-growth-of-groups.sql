-- How do groups grow?
-- Who joined less who left, summed up over the days, of the five largest groups. Names are the newest.
WITH
    names AS (SELECT conversation_id, argMax(name, version) AS newest FROM conversations GROUP BY conversation_id),
    changes AS (
        SELECT conversation_id, toDate(occurred_at) AS day, countIf(change = 'joined') - countIf(change = 'left') AS net
        FROM memberships
        GROUP BY conversation_id, day
    ),
    largest AS (SELECT conversation_id FROM changes GROUP BY conversation_id ORDER BY sum(net) DESC, conversation_id LIMIT 5)
SELECT day, newest AS group, sum(net) OVER (PARTITION BY conversation_id ORDER BY day) AS members
FROM changes JOIN names USING (conversation_id)
WHERE conversation_id IN largest
ORDER BY group, day
