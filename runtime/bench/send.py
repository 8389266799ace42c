"""Durable sends: many senders post over WebSocket, and every ack is timed.

Closed loop: each sender has one message under way and posts the next when it is acked, which finds the maximum.
Open loop: messages are due at a fixed rate whatever the server does, and a latency counts from when the message
was due, so a server that stalls is charged for every message that waited.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from array import array
from collections import Counter, deque
from dataclasses import dataclass, field

import msgspec

from runtime.bench.crowd import Seat
from runtime.bench.latencies import Latencies, latencies
from runtime.bench.processes import Ready
from runtime.bench.socket import LightSocket, close_sockets, keep_alive, open_sockets

DRAIN_S = 10.0  # for the acks still out when the time is up


@dataclass(frozen=True, slots=True)
class SendPlan:
    """What one process does.

    Args:
        seats: one a sender.
        warmup_s: sends that count for nothing, before `seconds` that do.
        rate: messages a second of this process for the open loop; `None` for the closed one.
    """

    url: str
    seats: list[Seat]
    seconds: float
    warmup_s: float
    size_bytes: int
    rate: float | None = None


@dataclass(slots=True)
class SendOutcome:
    """What one process saw in its `seconds`.

    Attributes:
        pushes: events pushed to the senders, who are members of what they post in.
        unanswered: sends whose session ended first, or without an answer `DRAIN_S` after the end.
    """

    acked: int = 0
    pushes: int = 0
    unanswered: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    seconds: "array[float]" = field(default_factory=lambda: array("d"))


class SendReport(msgspec.Struct, frozen=True, kw_only=True):
    """The figures of a run, all processes together.

    `errors` counts refusals by code and ended sessions by close code.
    """

    acked: int
    acked_per_s: float
    pushes_per_s: float
    latency_ms: Latencies
    errors: dict[str, int]
    unanswered: int


def report(outcomes: list[SendOutcome], seconds: float) -> SendReport:
    """The outcomes as one."""
    acked = sum(outcome.acked for outcome in outcomes)
    return SendReport(
        acked=acked,
        acked_per_s=round(acked / seconds, 1),
        pushes_per_s=round(sum(outcome.pushes for outcome in outcomes) / seconds, 1),
        latency_ms=latencies(value for outcome in outcomes for value in outcome.seconds),
        errors=dict(sum((outcome.errors for outcome in outcomes), Counter[str]())),
        unanswered=sum(outcome.unanswered for outcome in outcomes),
    )


async def send(plan: SendPlan, ready: Ready) -> SendOutcome:
    """Connect, wait for the others, send, and say what came of it.

    Raises:
        ClientError: a session could not be opened. One that ends later is counted under `errors`.
    """
    sockets = await open_sockets(plan.url, [seat.token for seat in plan.seats])
    pinging = asyncio.create_task(keep_alive(sockets))
    try:
        await ready()
        return await send_through(sockets, plan)
    finally:
        pinging.cancel()
        await close_sockets(sockets)


async def send_through(sockets: list[LightSocket], plan: SendPlan) -> SendOutcome:
    """Send through open sessions, one a seat, and leave them open. `plan.seconds` begin `warmup_s` from now."""
    return await _Run(plan, sockets).measure()


class _Run:
    def __init__(self, plan: SendPlan, sockets: list[LightSocket]) -> None:
        self.plan = plan
        self.outcome = SendOutcome()
        self.under_way = 0
        self.drained = asyncio.Event()
        self.counting_from = time.perf_counter() + plan.warmup_s
        self.until = self.counting_from + plan.seconds
        self.senders = [
            _Sender(self, socket, [seat.conversation_id, *seat.others], plan.size_bytes)
            for socket, seat in zip(sockets, plan.seats, strict=True)
        ]

    async def measure(self) -> SendOutcome:
        if self.plan.rate is None:
            for sender in self.senders:
                sender.post(time.perf_counter())
            await asyncio.sleep(self.until - time.perf_counter())
        else:
            await self._open_loop(self.plan.rate)
        if not self.under_way:
            self.drained.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_S):
                await self.drained.wait()
        self.outcome.unanswered += self.under_way
        for sender in self.senders:
            if sender.socket.closed.done():
                self.outcome.errors[f"closed_{sender.socket.closed.result().close_code}"] += 1
        return self.outcome

    async def _open_loop(self, rate: float) -> None:
        start = time.perf_counter()
        posted = 0
        while (now := time.perf_counter()) < self.until:
            for number in range(posted, int((now - start) * rate) + 1):
                self.senders[number % len(self.senders)].post(start + number / rate)
                posted = number + 1
            await asyncio.sleep(max(0.0, start + posted / rate - time.perf_counter()))


class _Sender:
    """One sender. The answers of a session come in order for one conversation, so `due` is a queue.

    In several conversations they need not: an open loop's latencies are then right together, not each.
    """

    __slots__ = ("conversations", "due", "number", "run", "socket", "template")

    def __init__(self, run: _Run, socket: LightSocket, conversation_ids: list[str], size_bytes: int) -> None:
        self.run = run
        self.socket = socket
        self.due: deque[float] = deque()  # when each message under way was due
        self.number = 1
        self.conversations = itertools.cycle([id_.encode() for id_ in conversation_ids])
        self.template = (
            f'{{"id":%d,"send":{{"conversation_id":"%b","client_msg_id":"{secrets.token_hex(6)}-%d",'
            f'"body":{{"type":"text","text":"{"x" * size_bytes}"}}}}}}'
        ).encode()
        socket.listen(self.take)
        socket.closed.add_done_callback(self.ended)

    def ended(self, _: object) -> None:
        """The session is over; what was under way will not be answered."""
        self.run.outcome.unanswered += len(self.due)
        self.run.under_way -= len(self.due)
        self.due.clear()
        if not self.run.under_way and time.perf_counter() >= self.run.until:
            self.run.drained.set()

    def post(self, due: float) -> None:
        if self.socket.closed.done():
            return
        self.due.append(due)
        self.run.under_way += 1
        self.number += 1
        self.socket.send(self.template % (self.number, next(self.conversations), self.number))

    def take(self, payload: bytes) -> None:
        run = self.run
        now = time.perf_counter()
        counts = run.counting_from <= now < run.until
        for line in payload.split(b"\n"):
            if line.startswith(b'{"id":'):
                if line.startswith(b'{"id":0,'):
                    continue  # the answer to a ping
                due = self.due.popleft()
                run.under_way -= 1
                if b'"error":' in line:
                    run.outcome.errors[msgspec.json.decode(line)["error"]["code"]] += 1
                elif counts:
                    run.outcome.acked += 1
                    run.outcome.seconds.append(now - due)
                if now >= run.until:
                    if not run.under_way:
                        run.drained.set()
                elif run.plan.rate is None:
                    self.post(now)
            elif counts and line.startswith(b'{"event":'):
                run.outcome.pushes += 1
