"""The bus within one process: delivers on the next turn of the loop, in order."""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Mapping, Sequence

import structlog

from streams.ports import NoReply, NoResponder, Signal

log_ = structlog.get_logger(__name__)


class MemorySubscription:
    """See `streams.ports.Subscription`."""

    def __init__(self, bus: "MemoryBus", subject: str, callback: Callable[[Signal, str], None]) -> None:
        self.subject = subject
        self.callback = callback
        self.closed = False
        self._bus = bus
        self._pattern = subject.split(".")

    def matches(self, tokens: list[str]) -> bool:
        """Whether a subject, split into its tokens, is heard here."""
        for pattern, token in itertools.zip_longest(self._pattern, tokens):
            if pattern == ">" and token is not None:
                return True
            if pattern is None or token is None or pattern not in ("*", token):
                return False
        return True

    async def close(self) -> None:
        """See `streams.ports.Subscription.close`."""
        if not self.closed:
            self.closed = True
            self._bus.forget(self)


class MemoryBus:
    """See `streams.ports.Bus`. One object stands for one server and all its connections."""

    def __init__(self) -> None:
        self._subscriptions: list[MemorySubscription] = []
        self._loss_callbacks: list[Callable[[str], None]] = []
        self._answers: dict[str, asyncio.Future[bytes]] = {}
        self._questions = itertools.count(1)
        self._answering: set[asyncio.Task[None]] = set()

    async def publish(self, subject: str, data: bytes, headers: Mapping[str, str] | None = None) -> None:
        """See `streams.ports.Bus.publish`."""
        self.emit(Signal(subject, data, dict(headers or {})))

    async def publish_many(
        self, subjects: Sequence[str], data: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """See `streams.ports.Bus.publish_many`."""
        for subject in subjects:
            self.emit(Signal(subject, data, dict(headers or {})))

    async def subscribe(self, subject: str, callback: Callable[[Signal], None]) -> MemorySubscription:
        """See `streams.ports.Bus.subscribe`."""
        return self._subscribe(subject, lambda signal, _reply: callback(signal))

    async def respond(self, subject: str, handler: Callable[[bytes], Awaitable[bytes]]) -> MemorySubscription:
        """See `streams.ports.Bus.respond`."""

        def on_request(signal: Signal, reply: str) -> None:
            if reply:
                task = asyncio.ensure_future(self._answer(signal.subject, reply, handler(signal.data)))
                self._answering.add(task)
                task.add_done_callback(self._answering.discard)

        return self._subscribe(subject, on_request)

    async def request(self, subject: str, data: bytes, *, timeout_s: float) -> bytes:
        """See `streams.ports.Bus.request`."""
        reply = str(next(self._questions))
        future: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._answers[reply] = future
        try:
            if not self.emit(Signal(subject, data, {}), reply):
                raise NoResponder(f"nobody answers {subject}")
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            raise NoReply(f"{subject}: no answer in {timeout_s:g} s") from None
        finally:
            del self._answers[reply]

    def on_loss(self, callback: Callable[[str], None]) -> None:
        """See `streams.ports.Bus.on_loss`."""
        self._loss_callbacks.append(callback)

    def lose(self, reason: str) -> None:
        """For tests: say that deliveries may have been lost."""
        for callback in list(self._loss_callbacks):
            callback(reason)

    def emit(self, signal: Signal, reply: str = "") -> int:
        """Send a signal to whoever listens; how many do."""
        loop = asyncio.get_running_loop()
        tokens = signal.subject.split(".")
        heard = [subscription for subscription in self._subscriptions if subscription.matches(tokens)]
        for subscription in heard:
            loop.call_soon(self._deliver, subscription, signal, reply)
        return len(heard)

    def forget(self, subscription: MemorySubscription) -> None:
        """End a subscription; see `MemorySubscription.close`."""
        self._subscriptions.remove(subscription)

    def _subscribe(self, subject: str, callback: Callable[[Signal, str], None]) -> MemorySubscription:
        subscription = MemorySubscription(self, subject, callback)
        self._subscriptions.append(subscription)
        return subscription

    @staticmethod
    def _deliver(subscription: MemorySubscription, signal: Signal, reply: str) -> None:
        if subscription.closed:
            return
        try:
            subscription.callback(signal, reply)
        except Exception:
            # As over NATS: a defect of one listener concerns neither the sender nor the others.
            log_.exception("a signal could not be handled", subject=signal.subject)

    async def _answer(self, subject: str, reply: str, answering: Awaitable[bytes]) -> None:
        try:
            answer = await answering
        except Exception:
            log_.exception("a request could not be answered", subject=subject)
            return
        future = self._answers.get(reply)
        if future is not None and not future.done():
            future.set_result(answer)
