"""Fan-out: one member of a conversation posts, and every delivery to every connected member is seen.

Closed loop: `window` messages are under way, and the next is posted when one has reached the last member, which
finds the maximum. Open loop: messages are due at a fixed rate, and a latency counts from when one was due.
"""

import asyncio
import contextlib
import secrets
import time
from array import array
from collections.abc import Awaitable, Sequence

import msgspec

from runtime.bench.latencies import Latencies, latencies
from runtime.bench.socket import LightSocket, close_sockets, keep_alive, open_sockets
from runtime.client import SessionClosed

POSTED = b'"message.posted"'  # once in every push of a message
SEQ = b'"seq":'
DRAIN_S = 10.0  # for the deliveries still out when the time is up


class FanoutFailed(Exception):
    """The run is worthless: a session ended, a send was refused, or a member missed a message."""


class FanoutReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures.

    Attributes:
        latency_ms: from the send to the delivery to the last member.
        bytes_per_delivery: of payload.
        push: one delivery as it came.
    """

    members: int
    messages_per_s: float
    deliveries_per_s: float
    latency_ms: Latencies
    bytes_per_delivery: float
    push: str


async def fan_out(
    url: str,
    tokens: Sequence[str],
    conversation_id: str,
    *,
    seconds: float,
    warmup_s: float,
    size_bytes: int,
    window: int = 1,
    rate: float | None = None,
    first_seq: int = 1,
) -> FanoutReport:
    """Connect a session a token, post from the first, and count.

    Args:
        tokens: of members of the conversation, which nobody else posts in.
        rate: messages a second for the open loop; `None` for the closed one.
        first_seq: of the first message to be posted.

    Raises:
        ClientError: a session could not be opened. FanoutFailed: see there.
    """
    sockets = await open_sockets(url, tokens)
    pinging = asyncio.create_task(keep_alive(sockets))
    try:
        run = _Run(
            sockets,
            conversation_id=conversation_id,
            size_bytes=size_bytes,
            first_seq=first_seq,
            warmup_s=warmup_s,
            seconds=seconds,
        )
        return await run.measure(window, rate)
    finally:
        pinging.cancel()
        await close_sockets(sockets)


class _Run:
    def __init__(
        self,
        sockets: list[LightSocket],
        *,
        conversation_id: str,
        size_bytes: int,
        first_seq: int,
        warmup_s: float,
        seconds: float,
    ) -> None:
        self.sockets = sockets
        self.members = len(sockets)
        self.first_seq = first_seq
        self.due: list[float] = []  # of message 0, 1, 2, …
        self.arrived: list[int] = []  # how many members have it
        self.complete = 0  # messages that all members have
        self.deliveries = self.bytes = 0
        self.seconds = array("d")
        self.seconds_span = seconds
        self.counting_from = time.perf_counter() + warmup_s
        self.until = self.counting_from + seconds
        self.closed_loop = False
        self.idle = asyncio.Event()  # nothing is under way
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.push = ""
        self.template = (
            f'{{"id":%d,"send":{{"conversation_id":"{conversation_id}","client_msg_id":"{secrets.token_hex(6)}-%d",'
            f'"body":{{"type":"text","text":"{"x" * size_bytes}"}}}}}}'
        ).encode()
        for socket in sockets:
            socket.listen(_Receiver(self).take)
            socket.closed.add_done_callback(self._session_ended)

    async def measure(self, window: int, rate: float | None) -> FanoutReport:
        if rate is None:
            self.closed_loop = True
            for _ in range(window):
                self.post(time.perf_counter())
            await self._until(asyncio.sleep(self.until - time.perf_counter()))
        else:
            await self._until(self._open_loop(rate))
        await self._until(self._drained())
        self.ended.set_result(None)
        if self.complete < len(self.due):
            missing = len(self.due) - self.complete
            raise FanoutFailed(f"{missing} of {len(self.due)} messages had not reached all members after {DRAIN_S:g} s")
        return FanoutReport(
            members=self.members,
            messages_per_s=round(len(self.seconds) / self.seconds_span, 1),
            deliveries_per_s=round(self.deliveries / self.seconds_span, 1),
            latency_ms=latencies(self.seconds),
            bytes_per_delivery=round(self.bytes / max(1, self.deliveries), 1),
            push=self.push,
        )

    async def _until(self, wait: Awaitable[None]) -> None:
        """Wait for one thing, or for the run to fail."""
        waiting = asyncio.ensure_future(wait)
        try:
            await asyncio.wait([waiting, self.ended], return_when=asyncio.FIRST_COMPLETED)
            if self.ended.done():
                self.ended.result()
            waiting.result()
        finally:
            waiting.cancel()

    async def _open_loop(self, rate: float) -> None:
        start = time.perf_counter()
        while (now := time.perf_counter()) < self.until:
            for number in range(len(self.due), int((now - start) * rate) + 1):
                self.post(start + number / rate)
            await asyncio.sleep(max(0.0, start + len(self.due) / rate - time.perf_counter()))

    async def _drained(self) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.idle.wait()

    def post(self, due: float) -> None:
        self.due.append(due)
        self.arrived.append(0)
        self.idle.clear()
        number = len(self.due) + 1  # request 1 was the connect
        self.sockets[0].send(self.template % (number, number))

    def completed(self, index: int, now: float) -> None:
        """The last member has message `index`."""
        self.complete += 1
        if self.counting_from <= now < self.until:
            self.seconds.append(now - self.due[index])
        if self.closed_loop and now < self.until:
            self.post(now)
        elif self.complete == len(self.due):
            self.idle.set()

    def fail(self, reason: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(FanoutFailed(reason))

    def _session_ended(self, closed: "asyncio.Future[SessionClosed]") -> None:
        if not self.ended.done():
            self.fail(f"a session ended: {closed.result()}")


class _Receiver:
    """One member's deliveries: counted, and the seq of the newest held against the count, so a hole shows."""

    __slots__ = ("received", "run")

    def __init__(self, run: _Run) -> None:
        self.run = run
        self.received = 0

    def take(self, payload: bytes) -> None:
        run = self.run
        pushed = payload.count(POSTED)
        if not pushed:
            if b'"error":' in payload:
                run.fail(f"a send was refused: {payload.decode(errors='replace')}")
            return
        now = time.perf_counter()
        if not run.push:
            run.push = payload[payload.index(b'{"event":') :].partition(b"\n")[0].decode()
        first, self.received = self.received, self.received + pushed
        at = payload.find(SEQ, payload.rfind(POSTED)) + len(SEQ)  # an ack may follow in the same frame
        newest = int(payload[at : _end_of_number(payload, at)])
        if newest != run.first_seq + self.received - 1:
            run.fail(f"a member got seq {newest} where {run.first_seq + self.received - 1} was due")
            return
        if run.counting_from <= now < run.until:
            run.deliveries += pushed
            run.bytes += len(payload)
        arrived, members = run.arrived, run.members
        for index in range(first, self.received):
            arrived[index] += 1
            if arrived[index] == members:
                run.completed(index, now)


def _end_of_number(payload: bytes, at: int) -> int:
    while payload[at : at + 1].isdigit():
        at += 1
    return at
