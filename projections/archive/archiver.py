"""The archiver of a stream: follows it and stores what comes, batch by batch, exactly once (`batches`)."""

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from projections.archive import metrics
from projections.archive.batches import Batches, Bounds, Made
from projections.archive.clickhouse import ArchiveRefused, ClickHouse
from projections.reader import Interrupted, follow
from streams.ports import Delivery, Log

BATCH_MAX: Final = 5_000  # events: an insert of few rows costs as much as one of thousands
READER: Final = "archive"


class Archiver:
    """Archives one stream while `run` runs.

    Args:
        every_s: between two batches that are not full: how far the archive may be behind in quiet times.
    """

    def __init__(self, log: Log, clickhouse: ClickHouse, stream: str, *, every_s: float) -> None:
        self.stream = stream
        self._log = log
        self._batches = Batches(log, clickhouse, stream)
        self._every_s = every_s
        self._storing: asyncio.Task[None] | None = None

    @property
    def archived_sequence(self) -> int:
        """The sequence up to which the stream is archived, as far as is known here."""
        return self._batches.anchor.sequence

    async def run(self) -> None:
        """Follow the stream until cancelled; through outages of ClickHouse and of the log, it waits."""
        try:
            await follow(self._log, self.stream, READER, self, pace_s=self._every_s, batch_max=BATCH_MAX)
        finally:
            self._give_up()
            metrics.POSITION.remove(self.stream)

    # -- the place of `reader.follow` -----------------------------------------------------------------------

    async def position(self) -> int:
        """Where the archive ends, after a batch that was begun and not ended is stored."""
        self._give_up()
        try:
            archived = (await self._batches.newest()).sequence
        except ArchiveRefused as error:
            raise Interrupted(f"ClickHouse: {error}") from error
        end = await self._log.last_sequence(self.stream)
        if archived > end:
            raise Interrupted(
                f"the archive has {self.stream} up to {archived}, and the log ends at {end}: this archive is of "
                "another log, or the log was put back from an older copy; give it an empty database"
            )
        settled = await self._batches.settled()
        if settled is not None and settled.last > archived:
            await self._store(settled, await self._batches.make(await self._events(settled)))
        return self.archived_sequence

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Archive a batch. While one after which more waits is stored, the next is read and its rows are made."""
        made = await self._batches.make(deliveries)
        await self.idle()
        bounds = Bounds(deliveries[0].sequence, deliveries[-1].sequence)
        if not await self._batches.settle(bounds):
            raise Interrupted("another archiver has begun a batch")
        self._storing = asyncio.create_task(self._store(bounds, made))
        return self.archived_sequence if len(deliveries) == BATCH_MAX else await self.idle()

    async def idle(self) -> int:
        """All that was taken is archived. Whoever else archives finds out at the next batch."""
        if self._storing is not None:
            await self._storing
            self._storing = None
        return self.archived_sequence

    def _give_up(self) -> None:
        """Wait for no ClickHouse. What is stored of a batch is stored again by who asks for `position`."""
        if self._storing is not None:
            self._storing.add_done_callback(_forget)
            self._storing.cancel()
            self._storing = None

    async def _store(self, bounds: Bounds, made: Made) -> None:
        began_s = time.perf_counter()
        try:
            await self._batches.store(bounds, made)
        except ArchiveRefused as error:
            raise Interrupted(f"ClickHouse: {error}") from error
        metrics.SECONDS.observe(time.perf_counter() - began_s)
        metrics.BATCH_EVENTS.observe(made.events)
        metrics.EVENTS.labels(self.stream).inc(made.events)
        metrics.UNDECODABLE.labels(self.stream).inc(made.undecodable)
        metrics.POSITION.labels(self.stream).set(self.archived_sequence)

    async def _events(self, bounds: Bounds) -> list[Delivery]:
        reading = self._log.read(self.stream, after_sequence=bounds.first - 1, up_to_sequence=bounds.last)
        events = [delivery async for delivery in reading]
        if not events or (events[0].sequence, events[-1].sequence) != (bounds.first, bounds.last):
            # A replica of the log lags, or the log was trimmed of what was never archived.
            raise Interrupted(
                f"the log does not give {self.stream} from {bounds.first} to {bounds.last}, which was begun"
            )
        return events


def _forget(storing: "asyncio.Task[None]") -> None:
    """Of a batch that nobody waits for any more: the outcome is looked up."""
    if not storing.cancelled():
        storing.exception()
