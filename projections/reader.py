"""Following one stream of the log for ever, from a durable place, through outages: what every reader shares.

A reader says where it stands and handles batches; this opens the consumer there, keeps the pace, acknowledges,
and after any outage starts again from where the reader then says it stands.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog

from projections.lag import Lag
from streams.cancelling import raise_if_cancelled
from streams.ports import Consumer, Delivery, Log, LogError

BATCH_MAX = 500  # events: beyond it a transaction gains little and holds up its readers
PACE_S = 0.050  # between two batches that are not full: one event after a pause is handled at once
IDLE_S = 1.0  # of silence, then the reader is asked whether it still stands where it stood
PAUSE_FIRST_S = 0.05  # in an outage, doubling
PAUSE_MAX_S = 2.0

log_ = structlog.get_logger(__name__)


class Interrupted(Exception):
    """The reader cannot go on now. It is asked again where it stands, after a pause."""


class Place(Protocol):
    """Where a reader stands, and what it does with what comes next."""

    async def position(self) -> int:
        """The sequence up to which everything is handled. Asked at the start and after every interruption.

        Raises:
            Interrupted, LogError: it cannot be told now.
        """
        ...

    async def handle(self, deliveries: Sequence[Delivery]) -> int:
        """Take deliveries, in order, none of them taken before; the new position.

        It may be before the last of them: what is still under way is handled when a later position, or that of `idle`,
        says so.

        Raises:
            Interrupted, LogError: nothing is known to be handled; ask `position`.
        """
        ...

    async def idle(self) -> int:
        """Nothing came for a while: the position when all that was taken is handled.

        Raises:
            Interrupted, LogError: as `handle`; or the place is not where it was.
        """
        ...


async def follow(
    log: Log, stream: str, reader: str, place: Place, *, pace_s: float = PACE_S, batch_max: int = BATCH_MAX
) -> None:
    """Read a stream until cancelled. An outage is logged once when it begins and once when it ends.

    Args:
        reader: names the durable consumer.
        pace_s: between two batches that are not full; 0 for who hands on what others wait for.
        batch_max: events of a full batch.
    """
    lag = Lag(log, reader, stream)
    looking = asyncio.create_task(lag.run())
    try:
        await _Following(log, stream, reader, place, pace_s, batch_max, lag).run()
    finally:
        looking.cancel()
        await asyncio.gather(looking, return_exceptions=True)


@dataclass(frozen=True, slots=True)
class _Following:
    """One `follow`."""

    log: Log
    stream: str
    reader: str
    place: Place
    pace_s: float
    batch_max: int
    lag: Lag

    async def run(self) -> None:
        """Until cancelled."""
        outage = _Outage(self.reader, self.stream)
        while True:
            raise_if_cancelled()
            consumer: Consumer | None = None
            try:
                self.lag.position = position = await self.place.position()
                consumer = await self.log.consume(self.stream, self.reader, after_sequence=position)
                await self._read(consumer, position, outage)
            except (Interrupted, LogError) as error:
                outage.goes_on(error)
            finally:
                if consumer is not None:
                    await consumer.close()
            await asyncio.sleep(outage.pause_s)

    async def _read(self, consumer: Consumer, position: int, outage: "_Outage") -> None:
        clock = asyncio.get_running_loop().time
        next_batch_s, taken = clock(), position
        while True:
            raise_if_cancelled()
            deliveries = await consumer.fetch(self.batch_max, IDLE_S)
            while deliveries and len(deliveries) < self.batch_max and (left_s := next_batch_s - clock()) > 0:
                deliveries += await consumer.fetch(self.batch_max - len(deliveries), left_s)
            next_batch_s = clock() + self.pace_s
            fresh = [delivery for delivery in deliveries if delivery.sequence > taken]
            before = position
            if fresh:
                taken = fresh[-1].sequence
                self.lag.position = position = await self.place.handle(fresh)
            elif not deliveries:
                self.lag.position = position = await self.place.idle()
            outage.is_over()
            if deliveries or position > before:
                await consumer.ack(position)


@dataclass(slots=True)
class _Outage:
    """From the first failure to the next success: how long to pause, and what to log."""

    reader: str
    stream: str
    pause_s: float = 0.0

    def goes_on(self, error: Exception) -> None:
        if not self.pause_s:
            log_.warning("reading interrupted", reader=self.reader, stream=self.stream, error=str(error) or repr(error))
        self.pause_s = min(max(2 * self.pause_s, PAUSE_FIRST_S), PAUSE_MAX_S)

    def is_over(self) -> None:
        if self.pause_s:
            log_.info("reading again", reader=self.reader, stream=self.stream)
        self.pause_s = 0.0
