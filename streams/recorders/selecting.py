"""Reading what recorders stored: of one aggregate, complete up to what the leader says is its end; and of all, in the
order in which they were stored."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

from eventsourcing.persistence import Notification, StoredEvent

from streams import subjects
from streams.jetstream.api import LOOK_S, call
from streams.jetstream.connection import Connection
from streams.ports import Delivery, Log, LogUnavailable
from streams.recorders.stored import StoredIn, highest_version
from streams.recorders.tails import Tail, Tails

FIRST_VERSION = 1  # of an aggregate, in the library and in Riverrun

READ_TRIES = 5  # a follower that lags has caught up after a few of these
READ_AGAIN_S = 0.02


async def read_subject(
    log: Log, stream: str, subject: str, *, after_sequence: int, up_to_sequence: int
) -> list[Delivery]:
    """The events of an aggregate after one sequence, up to that of one of its events.

    Raises:
        LogUnavailable: the log cannot be reached, or whoever answers does not have all of it yet.
    """
    for _ in range(READ_TRIES):
        deliveries = [
            delivery
            async for delivery in log.read(
                stream, subject=subject, after_sequence=after_sequence, up_to_sequence=up_to_sequence
            )
        ]
        if deliveries and deliveries[-1].sequence == up_to_sequence:
            return deliveries
        await asyncio.sleep(READ_AGAIN_S)
    raise LogUnavailable(f"{subject} could not be read up to its event of sequence {up_to_sequence}")


class Selecting:
    """The events of one stream. Every method raises `LogUnavailable`, and `DataError` for what is no event."""

    def __init__(self, log: Log, connection: Connection, stored_in: StoredIn, tails: Tails) -> None:
        self._log = log
        self._connection = connection
        self._in = stored_in
        self._tails = tails

    async def events(
        self, originator_id: UUID | str, *, gt: int | None, lte: int | None, desc: bool, limit: int | None
    ) -> list[StoredEvent]:
        """See the library's `AggregateRecorder.select_events`. Everything that was stored before is there."""
        subject = self._in.subject(originator_id)
        last = await self._log.last(self._in.stream, subject)
        if last is None:
            if self._in.is_riverrun and not subjects.stays(subject):
                await self.check_begins(1)
            return []
        newest = self._in.event(last)
        self._tails.remember(subject, Tail(last.sequence, highest_version(last)))

        def is_wanted(event: StoredEvent) -> bool:
            version = event.originator_version
            return (gt is None or version > gt) and (lte is None or version <= lte)

        if desc and limit == 1 and is_wanted(newest) and newest.originator_version == highest_version(last):
            return [newest]  # a snapshot is asked for so
        deliveries = await read_subject(
            self._log, self._in.stream, subject, after_sequence=0, up_to_sequence=last.sequence
        )
        stored = list(map(self._in.event, deliveries))
        if self._in.is_riverrun and stored[0].originator_version > FIRST_VERSION:
            raise LogUnavailable(f"{self._in.stream} was trimmed: {subject} begins in the archive")
        events = [event for event in stored if is_wanted(event)]
        events.sort(key=lambda event: event.originator_version, reverse=desc)
        return events[:limit]

    async def notifications(
        self, *, after: int, limit: int, stop: int | None, topics: Sequence[str]
    ) -> list[Notification]:
        """Up to `limit` events after a sequence, up to another, of some topics or of all."""
        found: list[Notification] = []
        async for delivery in self._from(after, limit, stop):
            if len(found) == limit:
                break
            if not topics or delivery.headers.get(subjects.TYPE) in topics:
                found.append(self._in.notification(delivery))
        return found

    async def _from(self, after: int, count: int, stop: int | None) -> AsyncIterator[Delivery]:
        """All after a sequence. Asks for no more than `count` at first, which is most often enough."""
        wanted = after + 1
        soon = after + count if stop is None else min(after + count, stop)
        for up_to in (soon, stop):
            if up_to is not None and up_to <= after:
                return
            async for delivery in self._log.read(self._in.stream, after_sequence=after, up_to_sequence=up_to):
                after = delivery.sequence
                if after != wanted:
                    await self.check_begins(wanted)
                wanted = after + 1
                yield delivery
            after = max(after, soon)

    async def check_begins(self, sequence: int) -> None:
        """Whether the stream still has its events from a sequence on.

        Raises:
            LogUnavailable: it was trimmed beyond it.
        """
        if (first := await self._first()) > sequence:
            raise LogUnavailable(f"{self._in.stream} was trimmed: it begins at sequence {first}, not at {sequence}")

    async def _first(self) -> int:
        stream = self._in.stream
        if self._in.is_riverrun:
            return await self._log.trimmed(stream) + 1
        state = (await call(self._connection, f"STREAM.INFO.{stream}", timeout_s=LOOK_S))["state"]
        return max(1, int(state["first_seq"]))  # nothing trims it, but somebody may have; 0: there was never an event

    async def last_sequence(self) -> int:
        """The newest event's, 0 when there was never one."""
        return await self._log.last_sequence(self._in.stream)
