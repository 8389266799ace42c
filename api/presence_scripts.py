"""The Lua that Valkey runs for presence: many users a call, each call atomic.

A user's hash `presence:<user>` has a field a gateway (`g:<gateway>`: an `Entry`), `status` (`<ms>:<chosen>`) and
`last_seen` (ms). The sorted set `gateways` holds the leases by their expiry, on the server's clock: gateways' clocks
may differ. All keys may lie on one server only: a Valkey cluster would spread them.
"""

from typing import Final

_NOW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
"""

# An invisible user is not seen.
_SEEN = """
local function seen(key, at)
    local status = redis.call('HGET', key, 'status')
    if status and string.match(status, ':(.*)$') == 'invisible' then return end
    local known = redis.call('HGET', key, 'last_seen')
    if not known or tonumber(known) < tonumber(at) then redis.call('HSET', key, 'last_seen', at) end
end
"""

# KEYS: leases, then users. ARGV: lease, its length in ms, 1 to begin it, field, seconds to keep, now of the gateway;
# then an entry a user, empty for one who has left.
# The lease is renewed, and the users are written, unless it ended: then nothing is, and the answer is nil.
WRITE: Final = f"""{_NOW}{_SEEN}
local expiry = redis.call('ZSCORE', KEYS[1], ARGV[1])
if ARGV[3] ~= '1' and not (expiry and tonumber(expiry) > now) then return nil end
redis.call('ZADD', KEYS[1], now + ARGV[2], ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - 86400000)
local known = {{}}
for i = 2, #KEYS do
    local entry = ARGV[i + 5]
    if entry == '' then
        redis.call('HDEL', KEYS[i], ARGV[4])
        seen(KEYS[i], ARGV[6])
    else
        redis.call('HSET', KEYS[i], ARGV[4], entry)
    end
    redis.call('EXPIRE', KEYS[i], ARGV[5])
    local found = redis.call('HMGET', KEYS[i], 'status', 'last_seen')
    known[i - 1] = {{found[1] or '', found[2] or ''}}
end
return known
"""

# KEYS: leases, then users. Now, all leases with their expiries, and each user's hash.
LOOK: Final = f"""{_NOW}
local users = {{}}
for i = 2, #KEYS do users[i - 1] = redis.call('HGETALL', KEYS[i]) end
return {{now, redis.call('ZRANGE', KEYS[1], 0, -1, 'WITHSCORES'), users}}
"""

# KEYS: a user. ARGV: now, the status chosen, seconds to keep. Who becomes invisible was seen until now.
CHOOSE: Final = f"""{_SEEN}
if ARGV[2] == 'invisible' then
    for _, field in ipairs(redis.call('HKEYS', KEYS[1])) do
        if string.sub(field, 1, 2) == 'g:' then seen(KEYS[1], ARGV[1]) break end
    end
end
redis.call('HSET', KEYS[1], 'status', ARGV[1] .. ':' .. ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
"""

# KEYS: users. ARGV: seconds to keep; then the choice and the last_seen of each, or nothing. The newer of two stays.
RESTORE: Final = """
for i, key in ipairs(KEYS) do
    local choice, at = ARGV[2 * i], ARGV[2 * i + 1]
    local had = redis.call('HMGET', key, 'status', 'last_seen')
    local function newer(given, known)
        if given == '' then return false end
        return not known or tonumber(string.match(known, '^%d+')) < tonumber(string.match(given, '^%d+'))
    end
    if newer(choice, had[1]) then redis.call('HSET', key, 'status', choice) end
    if newer(at, had[2]) then redis.call('HSET', key, 'last_seen', at) end
    redis.call('EXPIRE', key, ARGV[1])
end
"""

# KEYS: users. ARGV: field, the entry found there, and when the gateway was last there, of each.
# Compared, because the gateway may have come back, under another lease.
FORGET: Final = f"""{_SEEN}
for i, key in ipairs(KEYS) do
    if redis.call('HGET', key, ARGV[3 * i - 2]) == ARGV[3 * i - 1] then
        redis.call('HDEL', key, ARGV[3 * i - 2])
        if ARGV[3 * i] ~= '' then seen(key, ARGV[3 * i]) end
    end
end
"""
