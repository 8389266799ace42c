"""Applying events to projections: rows and checkpoints in one transaction, whoever reads the log.

A checkpoint is the truth about what is applied. It is moved on the condition that it stands where it was left, and that
it is of the projection's own version: of two that both think they have a partition one applies each event and the other
notices, and code never writes into the tables of other code.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

import psycopg
from psycopg_pool import AsyncConnectionPool

from projections import metrics
from projections.projection import Connection, LoggedEvent, Projection
from projections.reader import Interrupted
from streams.codec import decode
from streams.ports import Delivery

CONNECT_S = 5.0  # for a connection of the pool; then Postgres counts as down
TRIES = 3  # of an event alone, before it is buried: what fails for the moment's sake does not fail thrice
TRY_AGAIN_S = 0.1

# Keeps an event that a projection cannot apply, and why, before it is passed over. A crash in between keeps it twice.
Bury: TypeAlias = Callable[[str, Delivery, Exception], Awaitable[None]]
# Told of events that were applied, after the commit.
OnApplied: TypeAlias = Callable[[Sequence[LoggedEvent]], None]

# The read models may lose their last moments in a crash of Postgres, always together with the checkpoint that says
# so, and are then filled again from the log: waiting for the disk would buy nothing.
_MOVE = """
    UPDATE checkpoints SET sequence = %s FROM unnest(%s::text[], %s::int4[], %s::int8[])
        AS held (projection, version, sequence)
    WHERE checkpoints.projection = held.projection AND checkpoints.sequence = held.sequence
        AND checkpoints.version = held.version AND partition = %s
    RETURNING set_config('synchronous_commit', 'off', true)"""
_OPEN = """
    INSERT INTO checkpoints (projection, partition, sequence, version) VALUES (%s, %s, 0, %s) ON CONFLICT DO NOTHING"""
_READ = "SELECT sequence, version FROM checkpoints WHERE projection = %s AND partition = %s"


class OtherVersion(Interrupted):
    """A read model was made by another version of its projection: it is to be rebuilt. One line."""

    def __init__(self, projection: Projection, found: int) -> None:
        super().__init__(
            f"the read models of {projection.name} were made by version {found} of the projection, and this is version "
            f"{projection.version}: `riverrun rebuild {projection.name}`"
        )


class Applier:
    """Applies one partition's events to projections that share one reading.

    An event is decoded once, and a batch costs one transaction, however many read models it reaches. Each projection
    still has a checkpoint of its own, and is left alone by another's failure: an event that one cannot apply is passed
    over by that one only.

    Args:
        pool: open; one connection is held during a transaction only.
        number: that of the partition in `checkpoints`.

    Attributes:
        checkpoints: by projection, as of the last commit seen.
    """

    def __init__(
        self,
        pool: AsyncConnectionPool,
        projections: Sequence[Projection],
        *,
        number: int,
        bury: Bury,
        on_applied: OnApplied | None = None,
    ) -> None:
        self.checkpoints = {projection.name: 0 for projection in projections}
        self._projections = {projection.name: projection for projection in projections}
        self._pool = pool
        self._number = number
        self._bury = bury
        self._on_applied = on_applied

    @property
    def applied_sequence(self) -> int:
        """The position up to which all projections have applied, as of the last commit seen."""
        return min(self.checkpoints.values())

    async def read_checkpoints(self) -> None:
        """Read the checkpoints from the database; made, at 0, where there is none.

        Raises:
            Interrupted: they cannot be read. OtherVersion: these are tables of another version.
        """
        try:
            async with self._pool.connection(timeout=CONNECT_S) as connection, connection.transaction():
                for name, projection in self._projections.items():
                    await connection.execute(_OPEN, (name, self._number, projection.version))
                    row = await (await connection.execute(_READ, (name, self._number))).fetchone()
                    assert row is not None
                    if row[1] != projection.version:
                        raise OtherVersion(projection, row[1])
                    self.checkpoints[name] = row[0]
        except psycopg.Error as error:
            raise Interrupted(f"the checkpoints could not be read: {error}") from error

    async def apply(self, deliveries: Sequence[Delivery]) -> None:
        """Apply deliveries, in order; one that a projection cannot apply is buried, and the others go on without it.

        Raises:
            Interrupted: nothing is known to be applied, for no event's fault. LogUnavailable: it could not be buried.
        """
        try:
            batch = [LoggedEvent(delivery.sequence, decode(delivery)) for delivery in deliveries]
            await self._apply(list(self._projections.values()), batch, deliveries[-1].sequence)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's or an outage
            _raise_if_outage(error)
            for projection in self._projections.values():
                await self._apply_alone(projection, deliveries)

    async def _apply_alone(self, projection: Projection, deliveries: Sequence[Delivery]) -> None:
        """One projection, in ever smaller parts: what it cannot apply is found, buried and passed over."""
        fresh = [delivery for delivery in deliveries if delivery.sequence > self.checkpoints[projection.name]]
        if not fresh:
            return
        last = fresh[-1]
        tries = 1 if len(fresh) > 1 else TRIES
        while tries:
            try:
                batch = [LoggedEvent(delivery.sequence, decode(delivery)) for delivery in fresh]
                await self._apply([projection], batch, last.sequence)
                return
            except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's or an outage
                _raise_if_outage(error)
                tries -= 1
                failure = error
            if tries:
                await asyncio.sleep(TRY_AGAIN_S)
        if len(fresh) > 1:
            half = len(fresh) // 2
            await self._apply_alone(projection, fresh[:half])
            await self._apply_alone(projection, fresh[half:])
            return
        await self._bury(projection.name, last, failure)
        try:
            await self._apply([projection], [], last.sequence)
        except psycopg.Error as error:
            raise Interrupted(str(error)) from error

    async def _apply(self, projections: Sequence[Projection], batch: Sequence[LoggedEvent], sequence: int) -> None:
        """Apply a batch to those of the projections that have not had it, and move their checkpoints, in one."""
        behind = {p.name: self.checkpoints[p.name] for p in projections if self.checkpoints[p.name] < sequence}
        began_s = time.perf_counter()
        async with self._pool.connection(timeout=CONNECT_S) as connection, connection.transaction():
            await self._move_checkpoints(connection, behind, sequence)
            for projection in projections:
                if (checkpoint := behind.get(projection.name)) is not None:
                    await projection.apply(connection, [logged for logged in batch if logged.sequence > checkpoint])
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began_s)
        metrics.BATCH_EVENTS.observe(len(batch))
        self.checkpoints |= dict.fromkeys(behind, sequence)
        if self._on_applied is not None:
            self._on_applied(batch)

    async def _move_checkpoints(self, connection: Connection, behind: dict[str, int], sequence: int) -> None:
        versions = [self._projections[name].version for name in behind]
        held = (list(behind), versions, list(behind.values()))
        cursor = await connection.execute(_MOVE, (sequence, *held, self._number), prepare=True)
        if cursor.rowcount != len(behind):
            raise Interrupted("somebody else moved a checkpoint")


def _raise_if_outage(error: Exception) -> None:
    """Raise `Interrupted` for what is no event's fault: no database, no schema, another worker.

    An event's fault is what Postgres says of the data, and what never reached it: an error of ours, or a value
    psycopg cannot send (an error of its own, without a `sqlstate`).
    """
    if isinstance(error, psycopg.DataError | psycopg.IntegrityError):
        return
    of_the_client = psycopg.ProgrammingError | psycopg.NotSupportedError
    if isinstance(error, psycopg.Error) and (error.sqlstate or not isinstance(error, of_the_client)):
        raise Interrupted(f"Postgres: {error}") from error
    if isinstance(error, Interrupted | OSError):
        raise Interrupted(str(error)) from error
