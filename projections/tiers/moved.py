"""The rows that have left the warm tier, as it had them: for verification, which compares a read model whole.

Only rows of months that have been moved count. One that is missing in another month is missing, whether or not the cold
tier has it.
"""

from collections.abc import AsyncIterator, Sequence
from datetime import UTC
from typing import Any, Final

import msgspec

from projections.archive import raw
from projections.projection import Connection
from projections.reading import Row
from projections.tiers.cold import ColdRows, event_row, json_body
from projections.tiers.months import MOMENT, NUMBER
from projections.tiers.sums import OF_CONVERSATIONS

BATCH: Final = 5_000  # rows that are brought here at a time

# `OrZero`: it may be asked of a reservation or a pair, whose rows another condition of the statement leaves out.
_ID: Final = {"messages": "conversation_id", "changes": "toUInt64OrZero(splitByChar('.', subject)[3])"}
_KEY: Final = {"messages": "conversation_id", "changes": "subject"}  # what the rows lie by
_TABLE: Final = {"messages": "messages", "changes": "events"}

_KEYS: Final = """
    SELECT {key}, count() FROM {table}
    WHERE toYYYYMM({moment}, 'UTC') IN {{months:Array(UInt32)}}{only} GROUP BY {key} ORDER BY min({id})"""

_ROWS: Final = """
    SELECT {id} AS id, {columns} FROM {table}
    WHERE {key} IN {{keys:Array({key_type})}} AND toYYYYMM({moment}, 'UTC') IN {{months:Array(UInt32)}}
        AND (id, {number}) > ({{id:UInt64}}, {{number:UInt64}})
    ORDER BY id, {number} LIMIT 1 BY id, {number} LIMIT {limit}"""

_COLUMNS: Final = {
    "messages": "seq, created_at, version, sequence, message_id, sender_id, client_msg_id, reply_to, text, body, "
    "mentions",
    "changes": raw.SELECT,
}

_NUMBER_AT: Final = {"messages": 1, "changes": 1 + raw.SELECT.split(", ").index("version")}  # where a row has it

_to_json = msgspec.json.Encoder().encode


async def moved_months(connection: Connection, model: str) -> list[int]:
    """The months of which rows have left: 202603."""
    cursor = await connection.execute("SELECT DISTINCT month_start FROM tier_moves WHERE model = %s", (model,))
    return sorted(at.year * 100 + at.month for at in (start.astimezone(UTC) for (start,) in await cursor.fetchall()))


async def moved_rows(cold: ColdRows, model: str, months: Sequence[int]) -> AsyncIterator[Row]:
    """All rows of months in the cold tier, by conversation and number, in the columns that verification digests.

    Raises:
        LogUnavailable: ClickHouse does not answer.
    """
    names = {
        "id": _ID[model],
        "key": _KEY[model],
        "number": NUMBER[model],
        "table": _TABLE[model],
        "moment": MOMENT[model],
        "columns": _COLUMNS[model],
        "only": " AND match(subject, {of_conversations:String})" if model == "changes" else "",
        "limit": BATCH,
        "key_type": "UInt64" if model == "messages" else "String",
    }
    values: dict[str, Any] = {"months": list(months), "of_conversations": OF_CONVERSATIONS}
    keys: list[int | str] = []
    rows = 0
    for key, count in await cold.query(_KEYS.format(**names), values):
        keys.append(key)
        rows += count
        if rows >= BATCH:
            async for row in _rows(cold, model, _ROWS.format(**names), {**values, "keys": keys}):
                yield row
            keys, rows = [], 0
    if keys:
        async for row in _rows(cold, model, _ROWS.format(**names), {**values, "keys": keys}):
            yield row


async def _rows(cold: ColdRows, model: str, statement: str, values: dict[str, Any]) -> AsyncIterator[Row]:
    """Of some conversations, as many as there are; of a long one in several pieces."""
    values |= {"id": 0, "number": 0}
    while True:
        rows = await cold.query(statement, values, binary=raw.BINARY if model == "changes" else ())
        for row in rows:
            if (warm := _WARM[model](row)) is not None:
                yield warm
        if len(rows) < BATCH:
            return
        values |= {"id": rows[-1][0], "number": rows[-1][_NUMBER_AT[model]]}


def _message(row: Sequence[Any]) -> Row:
    id_, seq, at, version, sequence, message_id, sender_id, client_msg_id, reply_to, text, body, mentions = row
    what = (sender_id, client_msg_id, reply_to or None, json_body(text, body), _to_json(list(mentions)).decode())
    return (id_, seq, at, version, sequence, message_id, *what)


def _change(row: Sequence[Any]) -> Row | None:
    id_, delivery = row[0], raw.delivery_of(row[1:])
    if (change := event_row(delivery)) is None:
        return None
    type_, version, at, actor_id, public = change
    return (id_, version, at, delivery.sequence, type_, actor_id, public)


_WARM: Final = {"messages": _message, "changes": _change}


async def merged(warm: AsyncIterator[Row], cold: AsyncIterator[Row]) -> AsyncIterator[Row]:
    """Two sequences of rows by conversation and number as one; what both have is taken from the warm one."""
    left, right = await anext(warm, None), await anext(cold, None)
    while left is not None or right is not None:
        if right is None or (left is not None and left[:2] <= right[:2]):
            assert left is not None
            yield left
            if right is not None and left[:2] == right[:2]:
                right = await anext(cold, None)
            left = await anext(warm, None)
        else:
            yield right
            right = await anext(cold, None)
