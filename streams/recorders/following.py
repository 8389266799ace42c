"""Following a stream without end: an iterator of notifications that waits for what is stored next."""

import asyncio
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from secrets import token_hex
from typing import Self

import structlog
from eventsourcing.persistence import ApplicationRecorder, InterfaceError, Notification, Subscription

from streams import subjects
from streams.jetstream.api import NO_STREAM, ApiError
from streams.jetstream.connection import Connection
from streams.jetstream.consumer import JetStreamConsumer
from streams.ports import Delivery, LogUnavailable
from streams.recorders.datastore import JetStreamDatastore
from streams.recorders.selecting import Selecting
from streams.recorders.stored import StoredIn

FETCH_MAX = 500
FETCH_S = 30.0
RETRY_S = 0.2
FORGOTTEN_AFTER_S = 60.0  # what a follower that was killed leaves behind is gone after this

log_ = structlog.get_logger(__name__)


class Following:
    """A place in a stream that is nobody else's. Nothing is skipped and nothing comes twice. Made by `begin`."""

    def __init__(self, consumer: JetStreamConsumer, selecting: Selecting, after: int) -> None:
        self._consumer = consumer
        self._selecting = selecting
        self._last = after

    @classmethod
    async def begin(cls, connection: Connection, selecting: Selecting, stream: str, after: int) -> Self:
        """Take a place after a sequence.

        Raises:
            LogUnavailable: the log cannot be reached, or the stream was trimmed beyond the place.
        """
        await selecting.check_begins(after + 1)
        name = f"follower-{token_hex(8)}"
        consumer = JetStreamConsumer(connection, stream, name, after, forgotten_after_s=FORGOTTEN_AFTER_S)
        try:
            await consumer.open()
        except BaseException:
            await consumer.close()
            raise
        return cls(consumer, selecting, after)

    async def fetch(self) -> list[Delivery]:
        """The next ones, as soon as there is one. While the server is away, this waits for it to come back.

        Raises:
            LogUnavailable: the stream is gone, or was trimmed beyond the place.
        """
        while True:
            try:
                deliveries = await self._consumer.fetch(FETCH_MAX, FETCH_S)
            except LogUnavailable as error:
                if isinstance(error, ApiError) and error.err_code == NO_STREAM:
                    raise
                log_.warning("a follower waits for NATS", error=str(error))
                await asyncio.sleep(RETRY_S)
                continue
            if deliveries:
                if deliveries[-1].sequence - self._last != len(deliveries):  # a hole, wherever
                    await self._selecting.check_begins(self._last + 1)
                self._last = deliveries[-1].sequence
                await self._consumer.ack(self._last)
                return deliveries

    async def close(self) -> None:
        """Give the place up."""
        try:
            await self._consumer.forget()
        except LogUnavailable:
            return  # the server forgets it by itself


class JetStreamSubscription(Subscription[ApplicationRecorder]):
    """See the library's `ApplicationRecorder.subscribe`. Events are asked for as they are iterated over: what nobody
    iterates over waits in the server, but for some thousand events. An iteration that raised has ended."""

    def __init__(
        self,
        recorder: ApplicationRecorder,
        *,
        datastore: JetStreamDatastore,
        selecting: Selecting,
        stored_in: StoredIn,
        gt: int | None,
        topics: Sequence[str],
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._datastore = datastore
        self._in = stored_in
        self._found: deque[Notification] = deque()
        self._asked: Future[list[Delivery]] | None = None
        self._following = datastore.run(
            Following.begin(datastore.connection, selecting, stored_in.stream, max(0, gt or 0))
        )

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            if self._found:
                return self._found.popleft()
            self._found.extend(
                self._in.notification(delivery)
                for delivery in self._fetch()
                if not self._topics or delivery.headers.get(subjects.TYPE) in self._topics
            )
        raise StopIteration

    def _fetch(self) -> list[Delivery]:
        self._asked = self._datastore.submit(self._following.fetch())
        if self._has_been_stopped:  # by another thread, which did not see yet what is asked
            self._asked.cancel()
        try:
            return self._datastore.result(self._asked)
        except BaseException as error:
            if self._has_been_stopped and isinstance(error, InterfaceError):
                return []
            self.stop()  # what was on its way is lost with it, and must not be passed over
            raise

    def stop(self) -> None:
        """End the iteration, from any thread, at once. Idempotent."""
        if self._has_been_stopped:
            return
        super().stop()
        if self._asked is not None:
            self._asked.cancel()
        try:
            self._datastore.submit(self._following.close())
        except InterfaceError:
            return  # closed: there is nothing to give up
