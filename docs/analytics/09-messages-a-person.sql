-- How many people wrote once, twice, up to four times, …?
-- Steps that double: the exponent of 2 up to which somebody's number of messages is.
SELECT toUInt8(ceil(log2(messages))) AS up_to_2_to_the, count() AS people
FROM (SELECT sender_id, count() AS messages FROM messages GROUP BY sender_id)
GROUP BY up_to_2_to_the
ORDER BY up_to_2_to_the
