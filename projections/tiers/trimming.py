"""Trimming the log: what is in the archive, and was used by everybody who follows, and is old, leaves JetStream.

The archive continues the log backwards (`streams.archived`), so whoever reads notices nothing. Before anything leaves,
every event of it is read from both, and compared byte for byte; and snapshots are made of what happened
(`commands.covering`), so that who writes needs the archive as little as before. Killed anywhere, the next round goes
on.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime, timedelta
from typing import Final, NamedTuple, Protocol

from projections.catalogue import CATALOGUE
from projections.fanout import READER as FANOUT
from projections.projection import Connection
from streams import subjects
from streams.archived import ArchivedLog, chunks
from streams.ports import Archive, Delivery, Log

KEEP_EVENTS: Final = 1_000  # that stay in any case: the newest tells a writer where its partition ends
# That leave at once. A step reads whole all pieces of the archive that it touches (2^20 positions each, by subject).
STEP_EVENTS: Final = 1 << 18
# That snapshots are told of at once. Each saves the whole state of whoever is in them: with lists of 512, of a thousand
# conversations that are written in by turns, trimming went at 850 events/s, and so at 7,400.
COVER_EVENTS: Final = 1 << 16
COVER_BYTES: Final = 64 << 20

_CHECKPOINTS: Final = """
    SELECT CASE WHEN count(*) = %(count)s THEN min(sequence) ELSE 0 END FROM checkpoints
    WHERE partition = %(partition)s AND projection = ANY(%(projections)s)"""


class LogDiffers(Exception):
    """The log and the archive do not have the same. Nothing from there on is trimmed."""


class Snapshots(Protocol):
    """Of one stream: see `commands.covering.Covering`."""

    async def mark(self) -> int:
        """Up to which sequence they know of everything."""
        ...

    async def cover(self, deliveries: Sequence[Delivery]) -> None:
        """Know of the events that follow."""
        ...


class Trim(NamedTuple):
    """What a stream may forget.

    Attributes:
        up_to_sequence: 0 when nothing.
        trimmed: up to where it has forgotten already.
        archived, applied, told: up to where the archive, the read models and the fan-out have it; `None` where there is
            no fan-out to wait for.
    """

    stream: str
    up_to_sequence: int
    trimmed: int
    last_sequence: int
    archived: int
    applied: int
    told: int | None

    @property
    def events(self) -> int:
        """How many events are to go, at the most."""
        return max(0, self.up_to_sequence - self.trimmed)


class Trimmer:
    """Trims the log of a deployment, one process at a time.

    Args:
        snapshots: makes those of a family's partition.
        keep: what was stored so lately stays.
    """

    def __init__(
        self,
        log: Log,
        archive: Archive,
        snapshots: Callable[[str, int], Snapshots],
        *,
        partitions: int,
        keep: timedelta,
    ) -> None:
        self._log = log
        self._archive = archive
        self._snapshots = snapshots
        self._partitions = partitions
        self._keep = keep

    async def plan(self, connection: Connection, now: datetime) -> list[Trim]:
        """What each stream may forget.

        Raises:
            LogUnavailable: the log or the archive cannot be reached. psycopg.Error: Postgres cannot.
        """
        planned = []
        for family in subjects.FAMILIES:
            for partition in range(self._partitions):
                stream = subjects.stream(family, partition)
                trimmed = await self._log.trimmed(stream)
                last = await self._log.last_sequence(stream)
                archived = await self._archive.position(stream)
                applied = await _applied(connection, family, partition)
                # That of users begins at the end, and remembers nothing.
                told = await self._log.place(stream, FANOUT) if family == subjects.CONV else None
                limit = min(archived, applied, last - KEEP_EVENTS, *([] if told is None else [told]))
                up_to = await _older_than(self._log, stream, now - self._keep, trimmed, limit)
                planned.append(Trim(stream, up_to, trimmed, last, archived, applied, told))
        return planned

    async def trim(self, planned: Trim, on_step: Callable[[int], None] = lambda _: None) -> int:
        """Forget what was planned; how many events that were.

        Args:
            on_step: told after each step how many have left so far.

        Raises:
            LogDiffers: what is after the last step that was trimmed stays.
            LogUnavailable: the log or the archive cannot be reached. psycopg.Error: Postgres cannot. Some is forgotten.
        """
        family, _, partition = planned.stream.rpartition("-")
        snapshots = self._snapshots(family.lower(), int(partition))
        if planned.trimmed:
            await self._log.trim(planned.stream, planned.trimmed)  # what is left where somebody was killed
        forgotten, up_to = 0, planned.trimmed
        while up_to < planned.up_to_sequence:
            before, up_to = up_to, min(up_to + STEP_EVENTS, planned.up_to_sequence)
            forgotten += await self._compare(planned.stream, before, up_to)
            await self._cover(snapshots, planned.stream, up_to)
            await self._log.trim(planned.stream, up_to)
            on_step(forgotten)
        return forgotten

    async def _compare(self, stream: str, after: int, up_to: int) -> int:
        """Read the same events from both; how many there are."""
        count = 0
        logged = chunks(self._log.read(stream, after_sequence=after, up_to_sequence=up_to))
        archived = chunks(self._archive.read(stream, after_sequence=after, up_to_sequence=up_to))
        async with aclosing(logged), aclosing(archived):
            while True:
                ours: list[Delivery] = await anext(logged, [])
                theirs: list[Delivery] = await anext(archived, [])
                if ours != theirs:
                    where = next((a for a, b in zip(ours, theirs, strict=False) if a != b), None)
                    at = where.sequence if where else after + count + min(len(ours), len(theirs)) + 1
                    raise LogDiffers(f"the log and the archive differ at {stream} {at:,}: see riverrun verify --chain")
                if not ours:
                    return count
                count += len(ours)

    async def _cover(self, snapshots: Snapshots, stream: str, up_to: int) -> None:
        """Have the snapshots know of everything: of the archive's as well, where they were lost."""
        mark = await snapshots.mark()
        if mark >= up_to:
            return
        reading = ArchivedLog(self._log, self._archive).read(stream, after_sequence=mark, up_to_sequence=up_to)
        async with aclosing(chunks(reading, events_max=COVER_EVENTS, bytes_max=COVER_BYTES)) as held:
            async for chunk in held:
                if chunk:
                    await snapshots.cover(chunk)


async def _applied(connection: Connection, family: str, partition: int) -> int:
    projections = [name for name, entry in CATALOGUE.items() if entry.family == family]
    values = {"count": len(projections), "partition": partition, "projections": projections}
    row = await (await connection.execute(_CHECKPOINTS, values)).fetchone()
    return int(row[0] or 0) if row is not None else 0


async def _older_than(log: Log, stream: str, before: datetime, trimmed: int, limit: int) -> int:
    """The last sequence, after what was trimmed and up to a limit, of an event that was stored before a moment; 0 if
    there is none.

    A clock that was set back makes this end earlier or later by as much; what else is asked for holds all the same.
    """
    found, low, high = 0, trimmed + 1, limit
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
