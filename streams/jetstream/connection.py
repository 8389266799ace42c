"""One connection to NATS: its loss and return, and requests whose outcome is always known to be one of four.

Nothing is kept over a disconnect to be sent after it: what was asked before is not asked again behind the
asker's back.

RequestError
├── NotSent         not connected: certainly without effect
├── NobodyAnswers   the server knows of no responder: certainly without effect
├── TooLarge        over the server's payload limit: certainly without effect
└── Unanswered      sent perhaps, answered not
"""

import asyncio
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import structlog
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError

from streams import metrics
from streams.jetstream import frames
from streams.jetstream.wire import Receiver, WireClient
from streams.ports import LogUnavailable

RECONNECT_WAIT_S = 0.2  # a restarted server is back in about this; more would add to every outage
FLUSH_S = 5.0
PING_S = 3  # with 2 outstanding, a peer that is cut off is known after 9 s at most
NO_RESPONDERS = "503"

log_ = structlog.get_logger(__name__)

_open: "weakref.WeakSet[WireClient]" = weakref.WeakSet()  # those of this process
metrics.NATS_UNSENT_BYTES.set_function(lambda: sum(client.unsent_bytes for client in _open))


class RequestError(Exception):
    """The root of what a request can end in besides an answer."""


class NotSent(RequestError):
    """Not connected. Certainly without effect."""


class NobodyAnswers(RequestError):
    """No responder. Certainly without effect."""


class TooLarge(RequestError):
    """Over the server's payload limit. Certainly without effect."""


class Unanswered(RequestError):
    """No answer in time, or the connection broke: it may have had its effect, or may have it yet."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back. `status` is the server's own (`404`), empty for an answer of somebody."""

    data: bytes
    headers: Mapping[str, str]
    status: str = ""


# One of many answers: data, and the header block as it came. Who asked reads of it what is needed, once.
PageItem: TypeAlias = tuple[bytes, bytes]


class _Asked:
    """A question under way. A page of answers ends with the first that carries a status."""

    __slots__ = ("future", "page", "timeout_s", "timer")

    timer: asyncio.TimerHandle  # once sent

    def __init__(self, future: "asyncio.Future[Any]", timeout_s: float, page: "list[PageItem] | None") -> None:
        self.future = future
        self.timeout_s = timeout_s
        self.page = page


class Connection:
    """Made by `open`. Reconnects for ever; `connected` says how it stands."""

    def __init__(self, name: str) -> None:
        self._client = WireClient()
        self._name = name
        self._loop = asyncio.get_running_loop()
        self._loss_callbacks: list[Callable[[str], None]] = []
        self._up = asyncio.Event()
        self._closing = False
        self._inbox = ""
        self._asked: dict[int, _Asked] = {}
        self._questions = 0
        self._flushing: asyncio.Task[None] | None = None
        self._flush_next: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, url: str, *, name: str, timeout_s: float, **options: Any) -> Self:
        """Connect.

        Args:
            url: `nats://[user:password@]host:port`, or several, separated by commas.
            name: what the server's monitoring shows.
            options: nats-py's own, for credentials and TLS.

        Raises:
            LogUnavailable: no server let us in within `timeout_s`.
        """
        connection = cls(name)
        try:
            async with asyncio.timeout(timeout_s):
                await connection._connect(url, options)
        except (TimeoutError, NatsError, OSError) as error:
            last = connection._client.last_error or error
            await connection.close()
            raise LogUnavailable(f"NATS does not let us in: {last!r}") from error
        except BaseException:
            await connection.close()
            raise
        return connection

    async def _connect(self, url: str, options: dict[str, Any]) -> None:
        # `Any`: nats-py types the waiting time as whole seconds, and takes fractions.
        settings: dict[str, Any] = {
            "name": self._name,
            "max_reconnect_attempts": -1,
            "reconnect_time_wait": RECONNECT_WAIT_S,
            "ping_interval": PING_S,
            "error_cb": self._on_error,
            "disconnected_cb": self._on_disconnect,
            "reconnected_cb": self._on_reconnect,
            "closed_cb": self._on_closed,
        }
        _open.add(self._client)
        await self._client.connect(url.split(","), **settings, **options)
        self._inbox = self._client.new_inbox()
        await self._client.receive(f"{self._inbox}.*", self._on_answer)
        self._up.set()

    async def close(self) -> None:
        """End it. Requests under way are unanswered."""
        self._closing = True
        self._up.clear()
        self._break_off("the connection was closed")
        await self._client.close()
        _open.discard(self._client)

    # -- its state ------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether a server is there now, as far as is known."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message the server takes, headers included, in bytes."""
        return self._client.max_payload

    async def wait_connected(self, timeout_s: float) -> bool:
        """Wait until the connection stands, at most `timeout_s`; whether it does."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._up.wait()
        except TimeoutError:
            return False
        return True

    def on_loss(self, callback: Callable[[str], None]) -> Callable[[], None]:
        """Be told whenever deliveries may have been lost. Returns what ends that."""
        self._loss_callbacks.append(callback)
        return lambda: self._loss_callbacks.remove(callback)

    def _lose(self, reason: str) -> None:
        for callback in list(self._loss_callbacks):
            callback(reason)

    def _break_off(self, reason: str) -> None:
        asked, self._asked = self._asked, {}
        for question in asked.values():
            question.timer.cancel()
            if not question.future.done():
                question.future.set_exception(Unanswered(reason))

    async def _on_disconnect(self) -> None:
        self._up.clear()
        self._break_off("the connection broke")
        if not self._closing:
            log_.warning("the connection to NATS broke", connection=self._name)
            self._lose("the connection to NATS broke")

    async def _on_reconnect(self) -> None:
        self._up.set()
        metrics.NATS_RECONNECTS.inc()
        log_.info("connected to NATS again", connection=self._name)

    async def _on_closed(self) -> None:
        if not self._closing:
            # The server refused us for good (a revoked credential, a protocol violation): reconnecting has ended.
            log_.error("NATS closed the connection", connection=self._name, error=repr(self._client.last_error))

    async def _on_error(self, error: Exception) -> None:
        if self._up.is_set():  # while it is not, these are the attempts to reconnect
            log_.warning("NATS error", connection=self._name, error=repr(error))

    # -- asking ---------------------------------------------------------------------------------------------

    def ask(
        self, subject: str, data: bytes, *, timeout_s: float, lines: str = "", first: bytes = b""
    ) -> "asyncio.Future[Answer]":
        """Send a request now, in the order of the calls; the future has the answer.

        Args:
            lines: headers, as `frames.header_lines` makes them.
            first: frames that go out before it, in the same write.

        Raises (the call): NotSent, TooLarge. Raises (the future): NobodyAnswers, Unanswered.
        """
        future: asyncio.Future[Answer] = self._loop.create_future()
        question = _Asked(future, timeout_s, None)
        self._send(question, subject, data, lines=lines, first=first)
        return future

    def ask_page(
        self, subject: str, data: bytes, *, timeout_s: float
    ) -> "asyncio.Future[tuple[list[PageItem], Answer]]":
        """As `ask`, for a request with many answers: all of them, and the one with a status that ended them."""
        future: asyncio.Future[tuple[list[PageItem], Answer]] = self._loop.create_future()
        self._send(_Asked(future, timeout_s, []), subject, data)
        return future

    def _send(self, question: _Asked, subject: str, data: bytes, *, lines: str = "", first: bytes = b"") -> None:
        if not self.connected:
            raise NotSent("not connected to NATS")
        self._questions += 1
        token = self._questions
        frame, size_bytes = frames.publication(subject, data, lines=lines, reply=f"{self._inbox}.{token}")
        if size_bytes > self.max_payload:
            raise TooLarge(f"{size_bytes:,} bytes, and the server takes {self.max_payload:,}")
        question.timer = self._loop.call_later(question.timeout_s, self._expire, token)
        self._asked[token] = question
        self._client.send(first + frame)

    def _expire(self, token: int) -> None:
        question = self._asked.pop(token, None)
        if question is not None and not question.future.done():
            question.future.set_exception(Unanswered(f"no answer in {question.timeout_s:g} s"))

    def _on_answer(self, subject: str, _reply: str, data: bytes, block: bytes) -> None:
        token = int(subject.rpartition(".")[2])
        question = self._asked.get(token)
        if question is None:
            return
        if question.page is not None and block.startswith(frames.PLAIN_BYTES):  # no status: there are more
            question.page.append((data, block))
            return
        headers = frames.headers_of(block)
        answer = Answer(data, headers, headers.get(frames.STATUS, ""))
        del self._asked[token]
        question.timer.cancel()
        if question.future.done():
            return
        if answer.status == NO_RESPONDERS and not data:
            question.future.set_exception(NobodyAnswers("nobody answers"))
        else:
            question.future.set_result(answer if question.page is None else (question.page, answer))

    # -- hearing and telling --------------------------------------------------------------------------------

    def tell(self, subject: str, data: bytes, *, lines: str = "", reply: str = "") -> bool:
        """Publish, at most once; false when it was dropped: not connected.

        Raises:
            TooLarge.
        """
        frame, size_bytes = frames.publication(subject, data, lines=lines, reply=reply)
        if size_bytes > self.max_payload:
            raise TooLarge(f"{size_bytes:,} bytes, and the server takes {self.max_payload:,}")
        return self._client.send(frame)

    def tell_many(self, subjects: Sequence[str], data: bytes, *, lines: str = "") -> bool:
        """Publish the same under one or more subjects, all or none; false when it was dropped: not connected.

        Raises:
            TooLarge.
        """
        written, size_bytes = frames.publications(subjects, data, lines=lines)
        if size_bytes > self.max_payload:
            raise TooLarge(f"{size_bytes:,} bytes, and the server takes {self.max_payload:,}")
        return self._client.send(written)

    async def drained(self) -> None:
        """Wait while too much of what was told is on its way (256 KiB)."""
        await self._client.drained()

    def new_inbox(self) -> str:
        """A subject that is nobody else's."""
        return self._client.new_inbox()

    async def hear(self, subject: str, receiver: Receiver) -> Subscription:
        """Have a function called, in order, for each message of a subject. It must not block.

        Sent before whatever is sent next; `flush` waits until the server knows. It outlives reconnects.

        Raises:
            Unanswered: the connection was closed.
        """
        try:
            return await self._client.receive(subject, receiver)
        except NatsError as error:
            raise Unanswered(f"cannot hear {subject}: {error!r}") from error

    async def unhear(self, subscription: Subscription) -> None:
        """End it: the function is not called again."""
        await self._client.stop(subscription)

    async def flush(self) -> None:
        """Wait until the server has seen all that was sent so far. Those who ask while one look at it is under way
        share the next one.

        Raises:
            Unanswered: it has not, after 5 s or because the connection broke.
        """
        if self._flush_next is None:
            self._flush_next = asyncio.create_task(self._flush_after(self._flushing))
        await asyncio.shield(self._flush_next)

    async def _flush_after(self, before: "asyncio.Task[None] | None") -> None:
        if before is not None:
            await asyncio.wait([before])
        self._flushing, self._flush_next = self._flush_next, None
        if not await self.wait_connected(FLUSH_S):
            raise Unanswered("not connected to NATS")
        self._client.write_out()  # nats-py's PING would overtake what is still to be written
        try:
            await self._client.flush(timeout=int(FLUSH_S))
        except (NatsError, OSError) as error:
            raise Unanswered(f"the connection broke: {error!r}") from error
