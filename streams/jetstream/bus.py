"""Core NATS as the bus: signals at most once, and requests in order."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog
from nats.aio.subscription import Subscription as NatsSubscription

from streams.jetstream import frames
from streams.jetstream.connection import Connection, NobodyAnswers, NotSent, RequestError, TooLarge, Unanswered
from streams.jetstream.wire import Receiver
from streams.ports import BusError, NoReply, NoResponder, Signal

CLOSE_S = 1.0  # handlers still at work when the bus closes get this long to answer
CHUNK_BYTES = 256 * 1024  # of one `publish_many` before the socket is waited for
SUBJECT_BYTES = 100  # a long one, with what stands around it

log_ = structlog.get_logger(__name__)


class JetStreamSubscription:
    """See `streams.ports.Subscription`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.inner: NatsSubscription | None = None
        self.closed = False

    async def close(self) -> None:
        """See `streams.ports.Subscription.close`."""
        if self.closed:
            return
        self.closed = True
        if self.inner is not None:
            await self._connection.unhear(self.inner)


class JetStreamBus:
    """See `streams.ports.Bus`."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._answering: set[asyncio.Task[None]] = set()

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See `streams.ports.Bus.publish`. Waits while the socket is behind.

        Raises:
            BusError: over the server's payload limit.
        """
        try:
            sent = self._connection.tell(subject, data, lines=frames.header_lines(headers) if headers else "")
        except TooLarge as error:
            raise BusError(f"{subject}: {error}") from error
        if not sent:
            # At most once: what cannot be sent is lost, and whoever would have heard it learns of the gap.
            log_.warning("signal dropped: not connected", subject=subject)
            return
        await self._connection.drained()

    async def publish_many(
        self, subjects: Sequence[str], data: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """See `streams.ports.Bus.publish_many`. Waits while the socket is behind.

        Raises:
            BusError: over the server's payload limit; nothing was sent.
        """
        lines = frames.header_lines(headers) if headers else ""
        count = max(1, CHUNK_BYTES // (len(lines) + len(data) + SUBJECT_BYTES))
        for start in range(0, len(subjects), count):
            try:
                sent = self._connection.tell_many(subjects[start : start + count], data, lines=lines)
            except TooLarge as error:
                raise BusError(f"{subjects[0]}: {error}") from error
            if not sent:
                log_.warning("signals dropped: not connected", subject=subjects[start], count=len(subjects) - start)
                return
            await self._connection.drained()

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> JetStreamSubscription:
        """See `streams.ports.Bus.subscribe`.

        Raises:
            BusError: the server did not take it.
        """

        def on_message(subject: str, _reply: str, data: bytes, block: bytes) -> None:
            if not subscription.closed:
                callback(Signal(subject, data, frames.headers_of(block)))

        subscription = JetStreamSubscription(self._connection)
        await self._subscribe(subscription, subject, on_message)
        return subscription

    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> JetStreamSubscription:
        """See `streams.ports.Bus.respond`. How many run at once is bounded by the handler, which refuses.

        Closing the subscription lets what is being handled end and be answered.

        Raises:
            BusError: the server did not take it.
        """

        def on_message(subject: str, reply: str, data: bytes, _block: bytes) -> None:
            if subscription.closed or not reply:
                return
            task = asyncio.ensure_future(self._answer(subject, reply, handler(data)))
            self._answering.add(task)
            task.add_done_callback(self._answering.discard)

        subscription = JetStreamSubscription(self._connection)
        await self._subscribe(subscription, subject, on_message)
        return subscription

    async def _subscribe(self, subscription: JetStreamSubscription, subject: str, on_message: Receiver) -> None:
        try:
            subscription.inner = await self._connection.hear(subject, on_message)
            await self._connection.flush()
        except RequestError as error:
            await subscription.close()
            raise BusError(f"cannot subscribe to {subject}: {error!r}") from error

    async def _answer(self, subject: str, reply: str, answering: Awaitable[bytes]) -> None:
        try:
            answer = await answering
        except Exception:
            # The asker hears nothing, which is what it must be ready for; the defect is ours to see.
            log_.exception("a request could not be answered", subject=subject)
            return
        await self.publish(reply, answer)

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """See `streams.ports.Bus.request`.

        Raises:
            NoResponder, NoReply. BusError: the request is over the server's payload limit.
        """
        try:
            return (await self._connection.ask(subject, data, timeout_s=timeout_s)).data
        except (NotSent, NobodyAnswers) as error:
            raise NoResponder(f"{subject}: {error}") from error
        except Unanswered as error:
            raise NoReply(f"{subject}: {error}") from error
        except TooLarge as error:
            raise BusError(f"{subject}: {error}") from error

    def on_loss(self, callback: Callable[[str], None]) -> None:
        """See `streams.ports.Bus.on_loss`."""
        self._connection.on_loss(callback)

    async def close(self) -> None:
        """Let handlers at work end, for a second; cancel the rest."""
        if self._answering:
            _, late = await asyncio.wait(self._answering, timeout=CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
