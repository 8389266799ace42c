"""The only author of the hot store's keys, of what is packed in them, and of the scripts that write them.

riverrun:epoch                     a random word: the hot store that is in force
riverrun:<epoch>:at                hash: stream -> the sequence up to which the hot store has everything
riverrun:<epoch>:going             hash: stream -> the sequence up to which it is being written, in several scripts
riverrun:<epoch>:rank:<id>         when a conversation was updated, Unix milliseconds in decimal
riverrun:<epoch>:head:<id>         its head, packed
riverrun:<epoch>:own:<user id>     hash: conversation id -> the user's own part, packed; and NOBODY
riverrun:<epoch>:tail:<id>         list: its newest messages, packed, no seq left out; for as long as somebody looks

All but the first three expire, and are rebuilt when they are asked for. What a script is given as a conversation's or a
user's id it makes the key of itself: a script reaches more keys than are worth naming beforehand, and one Valkey holds
the hot store whole.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from projections.entries import Head, Own
from projections.pages import Positions
from streams import subjects
from streams.public import Message

EPOCH: Final = "riverrun:epoch"
TTL_S: Final = 7 * 24 * 3600  # who has not looked for a week can wait for a rebuild of some milliseconds
TAIL_TTL_S: Final = 3600
TAIL_MAX: Final = 100  # messages: the largest page
MESSAGE_MAX_BYTES: Final = 4096  # packed; a conversation with a longer one among its newest has no tail
NOBODY: Final = b"0"  # a field that no conversation has: an inbox with nothing in it is known to be empty

# Every script reads its arguments one after the other.
_ARGUMENTS = """
local next_argument = 0
local function argument() next_argument = next_argument + 1 return ARGV[next_argument] end
local function root(epoch) return 'riverrun:' .. epoch .. ':' end
"""

# A new epoch for a feeder's streams; or the one that another feeder has just begun, if these streams are not in it yet.
# epoch, the epoch that was lost or '', ttl, n, n of (stream, sequence). Gives the epoch in force, and the one before.
BEGIN: Final = (
    _ARGUMENTS
    + """
local mine, lost, ttl = argument(), argument(), argument()
local positions = {}
for i = 1, 2 * tonumber(argument()) do positions[i] = argument() end
local before = redis.call('GET', KEYS[1])
local begun = before and before ~= lost
for i = 1, #positions, 2 do
    begun = begun and redis.call('HEXISTS', root(before) .. 'at', positions[i]) == 0
end
if begun then
    mine = before
else
    redis.call('SET', KEYS[1], mine)
    if before then redis.call('EXPIRE', root(before) .. 'at', ttl) end
end
for i = 1, #positions, 2 do redis.call('HSET', root(mine) .. 'at', positions[i], positions[i + 1]) end
return {mine, before or ''}
"""
)

# What the projections have committed. It is refused, 0, when the hot store is not as the feeder left it.
# What does not fit in one script comes in several, of which only the last moves the sequences. Until then INSTALL is
# told how far they are going: what one script has passed over, for not being there, is not to be put there as it was.
# epoch, ttl, 1 if it is the last, n, n of (stream, the sequence it was left at, the sequence now),
# n, n of (id, head or '', rank), n, n of (user, m, m of (id, own part or '')), n, n of (id, seq, message or '')
WRITE: Final = (
    _ARGUMENTS
    + """
local epoch, ttl, is_last = argument(), argument(), argument() == '1'
if redis.call('GET', KEYS[1]) ~= epoch then return 0 end
local moved = {}
for _ = 1, tonumber(argument()) do
    local stream, left, now = argument(), argument(), argument()
    if redis.call('HGET', root(epoch) .. 'at', stream) ~= left then return 0 end
    moved[stream] = now
end
for _ = 1, tonumber(argument()) do
    local id, head, rank = argument(), argument(), argument()
    if head == '' then
        redis.call('DEL', root(epoch) .. 'head:' .. id, root(epoch) .. 'rank:' .. id)
    else
        redis.call('SET', root(epoch) .. 'head:' .. id, head, 'EX', ttl)
        redis.call('SET', root(epoch) .. 'rank:' .. id, rank, 'EX', ttl)
    end
end
for _ = 1, tonumber(argument()) do
    local own, count = root(epoch) .. 'own:' .. argument(), tonumber(argument())
    local known = redis.call('EXISTS', own) == 1
    for _ = 1, count do
        local id, packed = argument(), argument()
        if known and packed == '' then
            redis.call('HDEL', own, id)
        elseif known then
            redis.call('HSET', own, id, packed)
        end
    end
end
for _ = 1, tonumber(argument()) do
    local tail, seq, message = root(epoch) .. 'tail:' .. argument(), tonumber(argument()), argument()
    local newest = redis.call('LINDEX', tail, -1)
    local last = newest and tonumber(string.match(newest, '^%d+'))
    if last and seq == last + 1 and message ~= '' then
        if redis.call('RPUSH', tail, message) > TAIL_MAX then redis.call('LPOP', tail) end
    elseif last and seq > last then
        redis.call('DEL', tail)
    end
end
for stream, now in pairs(moved) do redis.call('HSET', root(epoch) .. (is_last and 'at' or 'going'), stream, now) end
return 1
"""
).replace("TAIL_MAX", str(TAIL_MAX))

# What was missing, as it was in Postgres when all streams had been applied up to some sequence. It is refused, 0, when
# the feeder has gone further since: then it may have passed over a key for not being there.
# epoch, ttl, n, n of (stream, sequence), n, n of (key without its root, value), user or '', n, n of (id, own part),
# conversation or '', ttl of its tail, n, n messages
INSTALL: Final = (
    _ARGUMENTS
    + """
local epoch, ttl = argument(), argument()
if redis.call('GET', KEYS[1]) ~= epoch then return 0 end
for _ = 1, tonumber(argument()) do
    local stream, applied = argument(), argument()
    local at = redis.call('HGET', root(epoch) .. 'at', stream)
    if not at or tonumber(at) > tonumber(applied) then return 0 end
    local going = redis.call('HGET', root(epoch) .. 'going', stream)
    if going and tonumber(going) > tonumber(applied) then return 0 end
end
for _ = 1, tonumber(argument()) do
    local key, value = argument(), argument()
    redis.call('SET', root(epoch) .. key, value, 'EX', ttl)
end
local user, count = argument(), tonumber(argument())
if user ~= '' then
    local own = root(epoch) .. 'own:' .. user
    redis.call('DEL', own)
    for _ = 1, count do
        local id, packed = argument(), argument()
        redis.call('HSET', own, id, packed)
    end
    redis.call('EXPIRE', own, ttl)
end
local conversation, tail_ttl, messages = argument(), argument(), tonumber(argument())
if conversation ~= '' then
    local tail = root(epoch) .. 'tail:' .. conversation
    redis.call('DEL', tail)
    for _ = 1, messages do redis.call('RPUSH', tail, argument()) end
    redis.call('EXPIRE', tail, tail_ttl)
end
return 1
"""
)

_pack = msgspec.msgpack.Encoder().encode
unpacked_head = msgspec.msgpack.Decoder(Head).decode
unpacked_own = msgspec.msgpack.Decoder(Own).decode
_unpack_message = msgspec.msgpack.Decoder(Message).decode


def root(epoch: str) -> str:
    """What all keys of an epoch begin with."""
    return f"riverrun:{epoch}:"


def by_stream(positions: Positions) -> dict[str, int]:
    """Positions by the names of their streams."""
    return {
        subjects.stream(family, partition): sequence
        for family, of_family in ((subjects.CONV, positions.conversations), (subjects.USER, positions.users))
        for partition, sequence in enumerate(of_family)
    }


def packed(part: Head | Own) -> bytes:
    """A head or an own part, for Valkey."""
    return _pack(part)


def packed_message(message: Message) -> bytes:
    """A message, for a tail, which scripts can tell the seq of; empty when it is too long for one."""
    entry = b"%d %b" % (message.seq, _pack(message))
    return entry if len(entry) <= MESSAGE_MAX_BYTES else b""


class Tail:
    """The newest messages of a conversation, with no seq left out, unpacked when they are asked for.

    Args:
        entries: at least one, ascending.

    Attributes:
        first, last: the seqs of the first and the last.
    """

    def __init__(self, entries: Sequence[bytes]) -> None:
        self.first = int(entries[0][: entries[0].index(b" ")])
        self.last = self.first + len(entries) - 1
        self._entries = entries

    def messages(self, seqs: range) -> list[Message]:
        """Those of some seqs, which are in it."""
        some = self._entries[seqs.start - self.first : seqs.stop - self.first] if seqs else ()
        return [_unpack_message(entry[entry.index(b" ") + 1 :]) for entry in some]

    @property
    def version(self) -> int:
        """That of the conversation when the last was posted."""
        return self.messages(range(self.last, self.last + 1))[0].version
