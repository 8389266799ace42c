"""Snapshots of what is about to be trimmed, so that deciding never waits for the archive.

Up to a stream's mark (the table `covered`) whatever happened is in a snapshot: an aggregate of which the log has
nothing, and that has no snapshot, is new. A mark that is before what was trimmed says nothing, and the archive is
asked: Postgres was lost, or put back from an older copy, or a snapshot was deleted, which deletes all marks.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import structlog
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from commands.cache import AnyAggregate
from commands.ports import Snapshot
from commands.repository import SCHEMAS, Snapshotted, folded, kind_of, restored, snapshot_of
from commands.snapshots import SAVE, values_of
from streams import codec, subjects
from streams.ports import Delivery

log_ = structlog.get_logger(__name__)

GROUP: Final = 50  # aggregates whose states are in memory at once; one of ten thousand members has 260 KB, packed
NO_SCHEMA: Final = 0  # of an aggregate that cannot be folded: there is one, and that is all that is known

_MARK: Final = "SELECT sequence FROM covered WHERE stream = %s AND schemas = %s"
_LOAD: Final = """
    SELECT family, aggregate_id, version, sequence, schema, state FROM snapshots
    WHERE family = %s AND aggregate_id = ANY(%s)"""
_SET_MARK: Final = """
    INSERT INTO covered (stream, schemas, sequence) VALUES (%s, %s, %s)
    ON CONFLICT (stream) DO UPDATE SET schemas = excluded.schemas, sequence = excluded.sequence"""


class Covering:
    """The snapshots of one stream. One process at a time covers it.

    Args:
        pool: opened and closed by its maker.
    """

    def __init__(self, pool: AsyncConnectionPool, *, family: str, partition: int) -> None:
        self._pool = pool
        self._family = family
        self._stream = subjects.stream(family, partition)

    async def mark(self) -> int:
        """Up to which sequence the stream is covered.

        Raises:
            psycopg.Error: Postgres does not answer.
        """
        async with self._pool.connection() as connection:
            row = await (await connection.execute(_MARK, (self._stream, SCHEMAS))).fetchone()
        return int(row[0]) if row else 0

    async def cover(self, deliveries: Sequence[Delivery]) -> None:
        """Make the snapshots of the events that follow the mark, and move it. Again, it changes nothing.

        The cost of an aggregate is its whole state, however few of its events there are: give many at once.

        Raises:
            psycopg.Error: Postgres does not answer. The mark is where it was.
        """
        events: dict[str, list[Delivery]] = {}
        for delivery in deliveries:
            if not subjects.stays(delivery.subject):
                events.setdefault(subjects.aggregate_id(delivery.subject), []).append(delivery)
        ids = list(events)
        async with self._pool.connection() as connection:
            # Each group for itself, so that few states are in memory, and no writer waits for long; then the mark.
            for begin in range(0, len(ids), GROUP):
                await self._save(connection, {id_: events[id_] for id_ in ids[begin : begin + GROUP]})
            await connection.execute(_SET_MARK, (self._stream, SCHEMAS, deliveries[-1].sequence))

    async def _save(self, connection: AsyncConnection[Any], events: Mapping[str, Sequence[Delivery]]) -> None:
        cursor = await connection.execute(_LOAD, (self._family, list(events)), binary=True)
        known = {row[1]: Snapshot(*row) for row in await cursor.fetchall()}
        made = [self._snapshot(id_, of_one, known.get(id_)) for id_, of_one in events.items()]
        values = [values_of(snapshot) for snapshot in made if snapshot is not None]
        async with connection.transaction(), connection.cursor() as writing:
            await writing.executemany(SAVE, values)

    def _snapshot(self, aggregate_id: str, deliveries: Sequence[Delivery], known: Snapshot | None) -> Snapshot | None:
        """The snapshot after the events; `None` when the known one is as new."""
        kind = kind_of(self._family, aggregate_id)
        aggregate: AnyAggregate | None = None if kind is None or known is None else restored(kind, known)
        try:
            if aggregate is not None and aggregate.version >= codec.event_version(deliveries[-1].headers):
                return None
            for delivery in deliveries:
                aggregate = _next(aggregate, delivery)
            if isinstance(aggregate, Snapshotted):
                return snapshot_of(self._family, aggregate, deliveries[-1].sequence)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's, and no writer can load it either
            log_.warning("an aggregate cannot be folded, so no snapshot has it", id=aggregate_id, error=repr(error))
        return Snapshot(self._family, aggregate_id, 0, deliveries[-1].sequence, NO_SCHEMA, b"")


def _next(aggregate: AnyAggregate | None, delivery: Delivery) -> AnyAggregate | None:
    """The state after an event, unless it was in it already.

    Raises:
        ValueError: the event is not the next one.
    """
    version, number = aggregate.version if aggregate else 0, codec.event_version(delivery.headers)
    if number <= version:
        return aggregate
    if number != version + 1:
        raise ValueError(f"version {number} after {version}")
    return folded(aggregate, codec.decode(delivery))
