-- How long are messages?
-- In steps of 20 characters; the last step is all that are longer.
SELECT least(intDiv(lengthUTF8(text), 20) * 20, 300) AS characters, count() AS messages
FROM messages
GROUP BY characters
ORDER BY characters
