"""The worker of a partition: feeds projections from the log, their rows and checkpoints in one transaction.

Several projections share one reading of the log: an event is delivered and decoded once, and a batch costs one
transaction, however many read models it reaches. Each still has a checkpoint of its own, and is left alone by another's
failure: an event that one cannot apply is passed over by that one only.

A checkpoint is the truth about what is applied. It is moved on the condition that it stands where this worker left
it, so of two workers that both think they own a partition one applies each event and the other notices.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import psycopg
import structlog
from psycopg_pool import AsyncConnectionPool

from projections import metrics
from projections.progress import Progress
from projections.projection import Connection, LoggedEvent, Projection
from projections.reader import BATCH_MAX, Interrupted, follow
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery, Log, Record

CONNECT_S = 5.0  # for a connection of the pool; then Postgres counts as down
ERROR_MAX = 500  # characters of an error kept with a dead event
TRIES = 3  # of an event alone, before it is buried: what fails for the moment's sake does not fail thrice
TRY_AGAIN_S = 0.1

# Told of a commit: the stream, events that were applied, and the sequence up to which everything is.
OnCommit: TypeAlias = Callable[[str, Sequence[LoggedEvent], int], None]

log_ = structlog.get_logger(__name__)

# The read models may lose their last moments in a crash of Postgres, always together with the checkpoint that says
# so, and are then filled again from the log: waiting for the disk would buy nothing.
_MOVE = """
    UPDATE checkpoints SET sequence = %s FROM unnest(%s::text[], %s::int8[]) AS held (projection, sequence)
    WHERE checkpoints.projection = held.projection AND checkpoints.sequence = held.sequence AND partition = %s
    RETURNING set_config('synchronous_commit', 'off', true)"""
_OPEN = "INSERT INTO checkpoints (projection, partition, sequence) VALUES (%s, %s, 0) ON CONFLICT DO NOTHING"
_READ = "SELECT sequence FROM checkpoints WHERE projection = %s AND partition = %s"


class ProjectionWorker:
    """Applies one partition's events to projections while `run` runs.

    Args:
        pool: open, or opened later by its maker; one connection is held during a transaction only.
        projections: what shares this reading; a projection that is behind the others catches up first.
        family: whose partitions: of conversations, or of users.
        progress: rung after every commit.
        on_commit: told of every commit since `run` began, of one whose answer was lost too, and of those of another
            worker that came in between. It neither waits nor raises. Events may repeat; the sequence goes back only
            when the database did. What a projection passed over comes as no event.

    Attributes:
        events_total: events applied by this worker.
        dead_total: events passed over by this worker, kept in `DEAD`, each once for each projection.
    """

    def __init__(
        self,
        log: Log,
        pool: AsyncConnectionPool,
        projections: Sequence[Projection],
        *,
        family: str = subjects.CONV,
        partition: int,
        progress: Progress | None = None,
        on_commit: OnCommit | None = None,
    ) -> None:
        self.events_total = 0
        self.dead_total = 0
        self.stream = subjects.stream(family, partition)
        self.reader = "+".join(projection.name for projection in projections)
        self.partition = partition
        self._projections = projections
        self._checkpoints = {projection.name: 0 for projection in projections}
        self._log = log
        self._pool = pool
        self._progress = progress
        self._on_commit = on_commit
        self._told: int | None = None  # what `on_commit` knows to be applied

    @property
    def applied_sequence(self) -> int:
        """The position up to which all projections have applied, as of the last commit seen."""
        return min(self._checkpoints.values())

    async def run(self) -> None:
        """Follow the partition until cancelled; through outages of Postgres and of the log, it waits."""
        try:
            await follow(self._log, self.stream, self.reader, self)
        finally:
            metrics.POSITION.remove(self.stream)

    # -- the place of `reader.follow` -----------------------------------------------------------------------

    async def position(self) -> int:
        """The lowest checkpoint in the database; made, at 0, where there is none."""
        try:
            async with self._pool.connection(timeout=CONNECT_S) as connection, connection.transaction():
                for name in self._checkpoints:
                    await connection.execute(_OPEN, (name, self.partition))
                    row = await (await connection.execute(_READ, (name, self.partition))).fetchone()
                    assert row is not None
                    self._checkpoints[name] = row[0]
        except psycopg.Error as error:
            raise Interrupted(f"the checkpoints could not be read: {error}") from error
        await self._check_same_log()
        await self._tell_missed()
        return self.applied_sequence

    async def _check_same_log(self) -> None:
        """A checkpoint past the log's end is of another log: going on from it would leave a hole for ever."""
        end, applied = await self._log.last_sequence(self.stream), max(self._checkpoints.values())
        if applied > end:
            raise Interrupted(
                f"the read models have applied {applied} events of {self.stream}, which has {end}: this database is of "
                "another log, or the log was put back from an older copy; give it an empty database"
            )

    async def _tell_missed(self) -> None:
        """Tell of what was applied without this worker knowing: a commit whose answer was lost was a commit."""
        applied = self.applied_sequence
        if self._told is None or self._on_commit is None:
            self._told = applied
        if self._told == applied:
            return
        batch: list[LoggedEvent] = []
        async for delivery in self._log.read(self.stream, after_sequence=self._told, up_to_sequence=applied):
            with suppress(Exception):  # what cannot be read is in DEAD, and no projection has it
                batch.append(LoggedEvent(delivery.sequence, decode(delivery)))
            if len(batch) == BATCH_MAX:
                self._tell(batch, delivery.sequence)
                batch = []
        self._tell(batch, applied)

    def _tell(self, batch: Sequence[LoggedEvent], sequence: int) -> None:
        self._told = sequence
        if self._on_commit is not None:
            self._on_commit(self.stream, batch, sequence)

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Apply deliveries; one that a projection cannot apply goes to `DEAD`, and the others on without it."""
        try:
            batch = [LoggedEvent(delivery.sequence, decode(delivery)) for delivery in deliveries]
            await self._apply(self._projections, batch, deliveries[-1].sequence)
        except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's or an outage
            _raise_if_outage(error)
            for projection in self._projections:
                await self._handle_alone(projection, deliveries)
        return self.applied_sequence

    async def idle(self) -> None:
        """A database that was restored, or lost its last moments, is noticed even when nothing comes."""
        before = dict(self._checkpoints)
        await self.position()
        if self._checkpoints != before:
            raise Interrupted(f"the checkpoints were {before} and are {self._checkpoints}")

    # -- applying -------------------------------------------------------------------------------------------

    async def _handle_alone(self, projection: Projection, deliveries: Sequence[Delivery]) -> None:
        """One projection, event by event: what it cannot apply is found, buried and passed over."""
        for delivery in deliveries:
            if delivery.sequence <= self._checkpoints[projection.name]:
                continue
            for tries in range(1, TRIES + 1):
                try:
                    event = LoggedEvent(delivery.sequence, decode(delivery))
                    await self._apply([projection], [event], delivery.sequence)
                    break
                except Exception as error:  # noqa: BLE001  # whatever it is, it is the event's or an outage
                    _raise_if_outage(error)
                    if tries == TRIES:
                        await self._bury(projection, delivery, error)
                await asyncio.sleep(TRY_AGAIN_S)

    async def _bury(self, projection: Projection, delivery: Delivery, error: Exception) -> None:
        """Keep an event that cannot be applied, then pass over it. A crash in between buries it twice."""
        reason = f"{type(error).__name__}: {error}"
        log_.error(
            "event not applied, kept in DEAD",
            projection=projection.name,
            stream=delivery.stream,
            sequence=delivery.sequence,
            subject=delivery.subject,
            correlation_id=delivery.headers.get(subjects.CORRELATION),
            error=reason,
        )
        headers = {
            **delivery.headers,
            subjects.DEAD_STREAM: delivery.stream,
            subjects.DEAD_SEQUENCE: str(delivery.sequence),
            subjects.DEAD_SUBJECT: delivery.subject,
            # A header is one line of ASCII.
            subjects.DEAD_ERROR: " ".join(reason.split())[:ERROR_MAX].encode("ascii", "backslashreplace").decode(),
        }
        subject = subjects.dead(projection.name, self.partition)
        await self._log.publish_dead(subject, Record(subject, delivery.data, headers))
        try:
            await self._apply([projection], [], delivery.sequence)
        except psycopg.Error as failure:
            raise Interrupted(str(failure)) from failure
        self.dead_total += 1
        metrics.DEAD.labels(projection.name).inc()

    async def _apply(self, projections: Sequence[Projection], batch: Sequence[LoggedEvent], sequence: int) -> None:
        """Apply a batch to those of the projections that have not had it, and move their checkpoints, in one."""
        behind = {p.name: self._checkpoints[p.name] for p in projections if self._checkpoints[p.name] < sequence}
        began_s = time.perf_counter()
        async with self._pool.connection(timeout=CONNECT_S) as connection, connection.transaction():
            await self._move_checkpoints(connection, behind, sequence)
            for projection in projections:
                if (checkpoint := behind.get(projection.name)) is not None:
                    await projection.apply(connection, [logged for logged in batch if logged.sequence > checkpoint])
        metrics.COMMIT_SECONDS.observe(time.perf_counter() - began_s)
        metrics.BATCH_EVENTS.observe(len(batch))
        self._checkpoints |= dict.fromkeys(behind, sequence)
        self.events_total += len(batch)
        # Alone, a projection is ahead of the others for a while: all have applied only what the last one has.
        self._tell(batch, self.applied_sequence)
        if self._progress is not None:
            self._progress.ring()
        metrics.APPLIED.labels(self.stream).inc(len(batch))
        metrics.POSITION.labels(self.stream).set(self.applied_sequence)

    async def _move_checkpoints(self, connection: Connection, behind: dict[str, int], sequence: int) -> None:
        held = (list(behind), list(behind.values()))
        cursor = await connection.execute(_MOVE, (sequence, *held, self.partition), prepare=True)
        if cursor.rowcount != len(behind):
            raise Interrupted("another worker moved a checkpoint")


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
