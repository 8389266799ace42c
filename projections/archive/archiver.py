"""The archiver of a stream: follows it and stores what comes, batch by batch, exactly once (`batches`)."""

import time
from collections.abc import Sequence
from typing import Final

from projections.archive import metrics
from projections.archive.batches import Batches, Bounds
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

    @property
    def archived_sequence(self) -> int:
        """The sequence up to which the stream is archived, as far as is known here."""
        return self._batches.anchor.sequence

    async def run(self) -> None:
        """Follow the stream until cancelled; through outages of ClickHouse and of the log, it waits."""
        try:
            await follow(self._log, self.stream, READER, self, pace_s=self._every_s, batch_max=BATCH_MAX)
        finally:
            metrics.POSITION.remove(self.stream)

    # -- the place of `reader.follow` -----------------------------------------------------------------------

    async def position(self) -> int:
        """Where the archive ends, after a batch that was begun and not ended is stored."""
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
            await self._store(settled, await self._events(settled))
        return self.archived_sequence

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Archive a batch."""
        bounds = Bounds(deliveries[0].sequence, deliveries[-1].sequence)
        if not await self._batches.settle(bounds):
            raise Interrupted("another archiver has begun a batch")
        await self._store(bounds, deliveries)
        return self.archived_sequence

    async def idle(self) -> None:
        """Nothing to do: whoever else archives finds out at the next batch."""

    async def _store(self, bounds: Bounds, deliveries: Sequence[Delivery]) -> None:
        began_s, undecodable = time.perf_counter(), self._batches.undecodable_total
        try:
            await self._batches.store(bounds, deliveries)
        except ArchiveRefused as error:
            raise Interrupted(f"ClickHouse: {error}") from error
        metrics.SECONDS.observe(time.perf_counter() - began_s)
        metrics.BATCH_EVENTS.observe(len(deliveries))
        metrics.EVENTS.labels(self.stream).inc(len(deliveries))
        metrics.UNDECODABLE.labels(self.stream).inc(self._batches.undecodable_total - undecodable)
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
