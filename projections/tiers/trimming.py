"""Trimming the log: what is in the archive, and was used by everybody who follows, and is old, leaves JetStream.

The archive continues the log backwards (`streams.archived`), so whoever reads notices nothing. Where one of the three
is not known, nothing is trimmed.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from projections.fanout import READER as FANOUT
from projections.projection import Connection
from streams import subjects
from streams.ports import Archive, Delivery, Log

KEEP_EVENTS: Final = 1_000  # that stay in any case: the newest tells a writer where its partition ends

_CHECKPOINTS: Final = """
    SELECT CASE WHEN count(*) = %(count)s THEN min(sequence) ELSE 0 END FROM checkpoints
    WHERE partition = %(partition)s AND projection = ANY(%(projections)s)"""

_PROJECTIONS: Final = {
    subjects.CONV: ["conversations", "heads", "messages"],
    subjects.USER: ["users", "markers"],
}


class Trim(NamedTuple):
    """What a stream may forget.

    Attributes:
        up_to_sequence: 0 when nothing.
        archived, applied, told: up to where the archive, the read models and the fan-out have it; `None` where there is
            no fan-out to wait for.
    """

    stream: str
    up_to_sequence: int
    last_sequence: int
    archived: int
    applied: int
    told: int | None


async def plan(
    log: Log, archive: Archive, connection: Connection, *, partitions: int, keep: timedelta, now: datetime
) -> list[Trim]:
    """What each stream may forget.

    Args:
        keep: what was stored so lately stays.

    Raises:
        LogUnavailable: the log or the archive cannot be reached. psycopg.Error: Postgres cannot.
    """
    planned = []
    for family in subjects.FAMILIES:
        for partition in range(partitions):
            stream = subjects.stream(family, partition)
            last = await log.last_sequence(stream)
            archived = await archive.position(stream)
            applied = await _applied(connection, family, partition)
            # That of users begins at the end, and remembers nothing.
            told = await log.place(stream, FANOUT) if family == subjects.CONV else None
            limit = min(archived, applied, last - KEEP_EVENTS, *([] if told is None else [told]))
            up_to = await _older_than(log, stream, now - keep, limit) if limit > 0 else 0
            planned.append(Trim(stream, up_to, last, archived, applied, told))
    return planned


async def trim(log: Log, planned: list[Trim]) -> None:
    """Forget what was planned.

    Raises:
        LogUnavailable: the log cannot be reached; some streams may have forgotten.
    """
    for one in planned:
        if one.up_to_sequence:
            await log.trim(one.stream, one.up_to_sequence)


async def _applied(connection: Connection, family: str, partition: int) -> int:
    projections = _PROJECTIONS[family]
    values = {"count": len(projections), "partition": partition, "projections": projections}
    row = await (await connection.execute(_CHECKPOINTS, values)).fetchone()
    return int(row[0] or 0) if row is not None else 0


async def _older_than(log: Log, stream: str, before: datetime, limit: int) -> int:
    """The last sequence, up to a limit, of an event that was stored before a moment; 0 if there is none.

    A clock that was set back makes this end earlier or later by as much; what else is asked for holds all the same.
    """
    found, low, high = 0, 1, limit
    while low <= high:
        middle = (low + high) // 2
        delivery = await _first(log.read(stream, after_sequence=middle - 1, up_to_sequence=high))
        if delivery is None:
            high = middle - 1
        elif delivery.stored_at < before:
            found, low = delivery.sequence, delivery.sequence + 1
        else:
            high = middle - 1
    return found


async def _first(deliveries: AsyncIterator[Delivery]) -> Delivery | None:
    try:
        return await anext(deliveries, None)
    finally:
        if (close := getattr(deliveries, "aclose", None)) is not None:
            await close()
