"""Counts and checksums by conversation of a month's rows, computed in Postgres and in ClickHouse, to be held against
each other: a month leaves the warm tier only when they agree in every conversation.

A row's checksum is the first 15 hexadecimal digits of the MD5 of its columns, a conversation's the sum of its rows'
modulo 2⁶⁴: both databases compute exactly that. It guards against loss and damage, not against malice: that is what
the chain of the archive is for.

Of `changes` the cold tier has the stored events, from which `data` is made when it is read. That of a posted message is
made of the columns that `messages` is compared by; of the few others it is made and compared here.
"""

import hashlib
from collections import defaultdict
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from projections.archive import raw
from projections.projection import Connection
from projections.tiers.cold import ColdRows, event_row
from streams import subjects

POSTED: Final = "message.posted"
_MODULUS: Final = 1 << 64  # ClickHouse's sums of 64 bits begin again there
_SEPARATOR: Final = "\x1f"  # of columns; JSON and ids have it nowhere


class Sum(NamedTuple):
    """Of some rows of one conversation."""

    rows: int
    checksum: int


Sums: TypeAlias = Mapping[int, Sum]

_WARM_HASH: Final = "('x' || left(md5({row}), 15))::bit(60)::int8"
_COLD_HASH: Final = "intDiv(reinterpretAsUInt64(reverse(substring(MD5({row}), 1, 8))), 16)"

_WARM_ROWS: Final = {
    "messages": "concat_ws(E'\\x1f', seq, version, sequence, message_id, sender_id, client_msg_id, "
    "(extract(epoch FROM created_at) * 1000)::int8, coalesce(reply_to, 0), coalesce(body::json ->> 'text', ''), "
    'CASE WHEN body LIKE \'{"type":"text","text":"%"}\' '
    "AND (SELECT count(*) FROM json_object_keys(body::json)) = 2 THEN '' ELSE body END, mentions)",
    "changes": "concat_ws(E'\\x1f', version, sequence, type, actor_id, (extract(epoch FROM occurred_at) * 1000)::int8)",
}

# Mentions are a list here and JSON there; of what JSON escapes a user id may have the backslash only.
_MENTIONS: Final = (
    "if(empty(mentions), '[]', concat('[\"', "
    "arrayStringConcat(arrayMap(m -> replaceAll(m, '\\\\', '\\\\\\\\'), mentions), '\",\"'), '\"]'))"
)
_COLD_ROWS: Final = {
    "messages": "concatWithSeparator('\\x1f', toString(seq), toString(version), toString(sequence), "
    "toString(message_id), sender_id, client_msg_id, toString(toUnixTimestamp64Milli(created_at)), "
    f"toString(reply_to), text, body, {_MENTIONS})",
    "changes": "concatWithSeparator('\\x1f', toString(version), toString(sequence), toString(type), actor, "
    "toString(toUnixTimestamp64Milli(occurred_at)))",
}

# Doubles, which an insert repeated beyond its token's memory would make, are one row when they are read.
_COLD_SUMS: Final = {
    "messages": f"""
        SELECT conversation_id, count(), sum(hash) FROM (
            SELECT conversation_id, {_COLD_HASH.format(row=_COLD_ROWS["messages"])} AS hash FROM messages
            WHERE created_at >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
                AND created_at < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC')
            LIMIT 1 BY conversation_id, seq)
        GROUP BY conversation_id""",
    "changes": f"""
        SELECT toUInt64(splitByChar('.', subject)[3]) AS id, count(), sum(hash) FROM (
            SELECT subject, {_COLD_HASH.format(row=_COLD_ROWS["changes"])} AS hash FROM events
            WHERE occurred_at >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
                AND occurred_at < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC')
                AND match(subject, {{of_conversations:String}})
            LIMIT 1 BY subject, version)
        GROUP BY id""",
}

_COLD_COUNTS: Final = {
    "messages": """
        SELECT count() FROM messages
        WHERE created_at >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
            AND created_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')""",
    "changes": """
        SELECT count() FROM events
        WHERE occurred_at >= fromUnixTimestamp64Milli({start:Int64}, 'UTC')
            AND occurred_at < fromUnixTimestamp64Milli({end:Int64}, 'UTC')
            AND match(subject, {of_conversations:String})""",
}

_COLD_OTHERS: Final = f"""
    SELECT {raw.SELECT} FROM events
    WHERE occurred_at >= fromUnixTimestamp64Milli({{start:Int64}}, 'UTC')
        AND occurred_at < fromUnixTimestamp64Milli({{end:Int64}}, 'UTC')
        AND type != {{posted:String}} AND match(subject, {{of_conversations:String}})
    LIMIT 1 BY subject, version"""

OF_CONVERSATIONS: Final = rf"^{subjects.CONV}\.[0-9]+\.[0-9]+$"  # not of reservations and pairs
_SLICE: Final = timedelta(days=1)  # of events that are brought here at a time


async def warm_sums(connection: Connection, model: str, partition: str) -> Sums:
    """Of a month's partition of `messages` or `changes`, by conversation."""
    hashed = _WARM_HASH.format(row=_WARM_ROWS[model])
    cursor = await connection.execute(
        f"SELECT conversation_id, count(*), sum({hashed}) FROM {partition} GROUP BY conversation_id".encode()
    )
    return {id_: Sum(rows, int(checksum) % _MODULUS) async for id_, rows, checksum in cursor}


async def cold_sums(cold: ColdRows, model: str, start: datetime, end: datetime) -> Sums:
    """Of the same month in the cold tier.

    Raises:
        LogUnavailable: ClickHouse does not answer.
    """
    rows = await cold.query(_COLD_SUMS[model], _period(start, end))
    return {id_: Sum(count, checksum) for id_, count, checksum in rows}


async def cold_count(cold: ColdRows, model: str, start: datetime, end: datetime) -> int:
    """How many rows there are of a month in the cold tier, doubles included: cheap, and no proof.

    Raises:
        LogUnavailable: ClickHouse does not answer.
    """
    ((count,),) = await cold.query(_COLD_COUNTS[model], _period(start, end))
    return int(count)


async def warm_others(connection: Connection, partition: str) -> Sums:
    """As `warm_sums` of `changes`, of the `data` of all that are not posted messages."""
    hashed = _WARM_HASH.format(row="concat_ws(E'\\x1f', version, data)")
    cursor = await connection.execute(
        f"SELECT conversation_id, count(*), sum({hashed}) FROM {partition} WHERE type <> %s "
        "GROUP BY conversation_id".encode(),
        (POSTED,),
    )
    return {id_: Sum(rows, int(checksum) % _MODULUS) async for id_, rows, checksum in cursor}


async def cold_others(cold: ColdRows, start: datetime, end: datetime) -> Sums:
    """As `warm_others`, made as they are made when they are read.

    Raises:
        LogUnavailable: ClickHouse does not answer.
    """
    sums: dict[int, Sum] = defaultdict(lambda: Sum(0, 0))
    while start < end:
        until = min(start + _SLICE, end)
        values = {**_period(start, until), "posted": POSTED}
        for stored in await cold.query(_COLD_OTHERS, values, binary=raw.BINARY):
            delivery = raw.delivery_of(stored)
            if (row := event_row(delivery)) is None:
                continue
            _, version, _, _, public = row
            id_ = int(subjects.aggregate_id(delivery.subject))
            digest = hashlib.md5(f"{version}{_SEPARATOR}{public}".encode(), usedforsecurity=False).hexdigest()
            sums[id_] = Sum(sums[id_].rows + 1, (sums[id_].checksum + int(digest[:15], 16)) % _MODULUS)
        start = until
    return sums


def different(warm: Sums, cold: Sums) -> list[int]:
    """The conversations in which they do not agree."""
    return sorted(id_ for id_ in warm.keys() | cold.keys() if warm.get(id_) != cold.get(id_))


def _period(start: datetime, end: datetime) -> dict[str, object]:
    return {
        "start": round(start.timestamp() * 1000),
        "end": round(end.timestamp() * 1000),
        "of_conversations": OF_CONVERSATIONS,
    }
