"""What stayed of a month that has left, and may leave by now: rows that are not the last any more, rows of kinds that
were kept longer, events that came late. There are few, so they are compared one by one with what will be read in their
stead, and deleted in small transactions. A month of which nothing is left is taken away.
"""

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import psycopg

from projections.entries import MESSAGE_COLUMNS
from projections.projection import Connection
from projections.reading import Row
from projections.tiers.cold import Cold
from projections.tiers.months import MOMENT, NUMBER, Month, leaving_values
from projections.tiers.moves import LEAVING, PATIENCE_MS, Busy, Differs, Moved, lock, record
from projections.tiers.policy import Leaving

BATCH: Final = 1_000  # rows compared, and deleted, at a time

# As `Cold` gives them, after the conversation's id.
_COLUMNS: Final = {
    "messages": MESSAGE_COLUMNS,
    "changes": "type, version, occurred_at, actor_id, data",
}

_LEAVING: Final = f"""
    FROM {{partition}} month
        JOIN conversations USING (conversation_id) JOIN {LEAVING} ON leaving.kind = conversations.kind
    WHERE EXISTS (SELECT FROM {{model}} later WHERE later.conversation_id = month.conversation_id
        AND later.{{number}} > month.{{number}} AND later.{{moment}} < leaving.horizon)"""
_COUNT: Final = f"SELECT count(*) {_LEAVING}"
_MAY_LEAVE: Final = f"""
    SELECT month.conversation_id, {{columns}} {_LEAVING}
        AND (month.conversation_id, month.{{number}}) > (%(id)s, %(number)s)
    ORDER BY month.conversation_id, month.{{number}} LIMIT %(limit)s"""

_DELETE: Final = """
    DELETE FROM {partition} month USING unnest(%s::int8[], %s::int8[]) AS gone (conversation_id, number)
    WHERE month.conversation_id = gone.conversation_id AND month.{number} = gone.number"""

# The same rule, of a whole read model: before the last row before the horizon, in a month of which rows have left.
_DELETE_LEFT: Final = f"""
    DELETE FROM {{model}} gone USING (
        SELECT conversation_id, leaving.horizon, max(later.{{number}}) AS number
        FROM {{model}} later JOIN conversations USING (conversation_id)
            JOIN {LEAVING} ON leaving.kind = conversations.kind
        WHERE later.{{moment}} < leaving.horizon GROUP BY conversation_id, leaving.horizon) last
    WHERE gone.conversation_id = last.conversation_id AND gone.{{number}} < last.number
        AND gone.{{moment}} < last.horizon AND EXISTS (SELECT FROM tier_moves
            WHERE model = '{{model}}' AND gone.{{moment}} >= month_start AND gone.{{moment}} < month_end)"""


async def may_leave(connection: Connection, month: Month, leaving: Leaving) -> int:
    """How many rows of a month may leave by the policy."""
    statement = _COUNT.format(**_names(month)).encode()
    row = await (await connection.execute(statement, leaving_values(leaving))).fetchone()
    assert row is not None
    return int(row[0])


async def delete_left(connection: Connection, model: str, *, leaving: Leaving) -> None:
    """Delete what has left, compared with nothing: of rows that were just made of the archive, for all months at once.

    Args:
        leaving: each kind that leaves at all, with its horizon.
    """
    statement = _DELETE_LEFT.format(model=model, number=NUMBER[model], moment=MOMENT[model])
    await connection.execute(statement.encode(), leaving_values(leaving))


async def clear(connection: Connection, cold: Cold, month: Month, *, leaving: Leaving) -> Moved | None:
    """Delete what may leave a month of which the rest has left. May be killed at any time, and called again.

    Returns:
        `None` when there was nothing.

    Raises:
        Differs: of some conversations rows are not the same in the cold tier; those stay, all others have left.
        Busy: nothing is left, and the month could not be taken away; the next round tries again.
        Unavailable: ClickHouse does not answer. psycopg.OperationalError: Postgres went away.
    """
    names = _names(month)
    at, gone, conversations, differing = (0, 0), 0, set[int](), set[int]()
    while True:
        values = {**leaving_values(leaving), "id": at[0], "number": at[1], "limit": BATCH}
        rows = await (await connection.execute(_MAY_LEAVE.format(**names).encode(), values)).fetchall()
        if not rows:
            break
        at = rows[-1][0], _number(rows[-1][1:])
        same, others = await _compare(cold, month, rows)
        await connection.execute(
            _DELETE.format(**names).encode(), ([id_ for id_, _ in same], [number for _, number in same])
        )
        gone += len(same)
        conversations |= {id_ for id_, _ in same}
        differing |= others
    kept = await _take_away_if_empty(connection, month)
    moved = Moved(month, gone, kept, len(conversations), 0 if kept else month.size_bytes)
    if gone:
        await record(connection, moved)
    if differing:
        raise Differs(month, sorted(differing))
    return moved if gone or not kept else None


def _names(month: Month) -> dict[str, str]:
    """What a statement is about."""
    return {
        "model": month.model,
        "partition": month.partition,
        "number": NUMBER[month.model],
        "moment": MOMENT[month.model],
        "columns": ", ".join(f"month.{column}" for column in _COLUMNS[month.model].split(", ")),
    }


async def _compare(cold: Cold, month: Month, rows: Sequence[Row]) -> tuple[list[tuple[int, int]], set[int]]:
    """Which rows are the same in the cold tier, and the conversations of those that are not."""
    read = cold.messages if month.model == "messages" else cold.events
    by_conversation: dict[int, dict[int, Row]] = defaultdict(dict)
    for id_, *row in rows:
        by_conversation[id_][_number(row)] = tuple(row)
    same, differing = [], set()
    for id_, warm in by_conversation.items():
        there = await read(id_, list(warm))
        agreeing = [number for number, row in warm.items() if there.get(number) == row]
        same += [(id_, number) for number in agreeing]
        if len(agreeing) < len(warm):
            differing.add(id_)
    return same, differing


async def _take_away_if_empty(connection: Connection, month: Month) -> int:
    """How many rows are left; without any, the month's partition is gone."""
    count = f"SELECT count(*) FROM {month.partition}".encode()
    if left := await _one(connection, count):
        return left
    try:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL lock_timeout = {PATIENCE_MS}".encode())
            await connection.execute(f"LOCK TABLE ONLY {month.partition} IN SHARE MODE".encode())
            if left := await _one(connection, count):  # it came this very moment
                return left
            await lock(connection, month)
            await connection.execute(f"ALTER TABLE {month.model} DETACH PARTITION {month.partition}".encode())
            await connection.execute(f"DROP TABLE {month.partition}".encode())
    except (psycopg.errors.LockNotAvailable, psycopg.errors.DeadlockDetected) as error:
        raise Busy(month, error) from error
    return 0


def _number(row: Sequence[object]) -> int:
    number = row[1]  # of both read models
    assert isinstance(number, int)
    return number


async def _one(connection: Connection, statement: bytes) -> int:
    row = await (await connection.execute(statement)).fetchone()
    assert row is not None
    return int(row[0])
