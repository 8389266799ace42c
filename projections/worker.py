"""The worker of a partition: feeds projections from the log, for as long as it runs.

Several projections share one reading of the log. How events become rows, and what moves a checkpoint, is the applier's
(`projections.applying`); this is where it is read from, and who is told of a commit.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import structlog
from psycopg_pool import AsyncConnectionPool

from projections import metrics
from projections.applying import Applier
from projections.dead import bury, reason_of
from projections.progress import Progress
from projections.projection import LoggedEvent, Projection
from projections.reader import BATCH_MAX, Interrupted, follow
from streams import subjects
from streams.codec import decode
from streams.ports import Delivery, Log

# Told of a commit: the stream, events that were applied, and the sequence up to which everything is.
OnCommit: TypeAlias = Callable[[str, Sequence[LoggedEvent], int], None]

log_ = structlog.get_logger(__name__)


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
        self._applier = Applier(pool, projections, number=partition, bury=self._bury, on_applied=self._applied)
        self._log = log
        self._progress = progress
        self._on_commit = on_commit
        self._told: int | None = None  # what `on_commit` knows to be applied

    @property
    def applied_sequence(self) -> int:
        """The position up to which all projections have applied, as of the last commit seen."""
        return self._applier.applied_sequence

    async def run(self) -> None:
        """Follow the partition until cancelled; through outages of Postgres and of the log, it waits."""
        try:
            await follow(self._log, self.stream, self.reader, self)
        finally:
            metrics.POSITION.remove(self.stream)

    # -- the place of `reader.follow` -----------------------------------------------------------------------

    async def position(self) -> int:
        """The lowest checkpoint in the database."""
        await self._applier.read_checkpoints()
        await self._check_same_log()
        await self._tell_missed()
        return self.applied_sequence

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Apply deliveries; one that a projection cannot apply goes to `DEAD`, and the others on without it."""
        await self._applier.apply(deliveries)
        return self.applied_sequence

    async def idle(self) -> int:
        """A database that was restored, or lost its last moments, is noticed even when nothing comes."""
        before = dict(self._applier.checkpoints)
        position = await self.position()
        if self._applier.checkpoints != before:
            raise Interrupted(f"the checkpoints were {before} and are {self._applier.checkpoints}")
        return position

    # -- who is told ----------------------------------------------------------------------------------------

    async def _check_same_log(self) -> None:
        """A checkpoint past the log's end is of another log: going on from it would leave a hole for ever."""
        end, applied = await self._log.last_sequence(self.stream), max(self._applier.checkpoints.values())
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

    def _applied(self, batch: Sequence[LoggedEvent]) -> None:
        """Alone, a projection is ahead of the others for a while: all have applied only what the last one has."""
        self.events_total += len(batch)
        self._tell(batch, self.applied_sequence)
        if self._progress is not None:
            self._progress.ring()
        metrics.APPLIED.labels(self.stream).inc(len(batch))
        metrics.POSITION.labels(self.stream).set(self.applied_sequence)

    async def _bury(self, projection: str, delivery: Delivery, error: Exception) -> None:
        await bury(self._log, projection, delivery, reason_of(error))
        self.dead_total += 1
        metrics.DEAD.labels(projection).inc()
