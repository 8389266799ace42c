"""One process's part of a run: it begins operations when they are due, and goes on until their answers are here.

Open loop: operations are due at a rate whatever the server does, and a latency counts from when one was due, so a
server that stalls is charged for everything that waited, and so is a load generator that is late. Closed loop: so
many operations are under way, and as one completes the next begins: that finds out how much goes through, but a server
that stalls is asked less while it does.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from runtime.bench.adapter import AdapterSpec, Op, Seat, Session
from runtime.bench.adapters import load_adapter
from runtime.bench.books import SECOND_US, Books
from runtime.bench.errors import BenchError
from runtime.bench.inbox import Begun, Circle, Lane, UserInbox
from runtime.bench.load import Load, Measure
from runtime.bench.mark import SEQS, marked, now_us, padding
from runtime.bench.outcome import Outcome
from runtime.bench.processes import Ready
from runtime.bench.server import cpu_seconds, resident_bytes
from runtime.bench.sessions import Sessions, open_sessions
from runtime.client import ClientError

QUIET_S: Final = 1.0  # without a delivery, after which a process that only listens has heard all
LOOK_S: Final = 0.02  # between two looks at whether everything is here
UNDER_WAY_MAX: Final = 50_000  # a process; beyond it operations are counted as not begun, so that memory is bounded
LANES: Final = 100_000  # a process and round
RETRY_S: Final = 0.01
CHOICES: Final = 32  # looked at before one that does not fit is taken


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does.

    Attributes:
        seats: of its sessions; those of the first `posting` post, each in the seat's groups by turns.
        active: how many processes post; they share rate and circles.
        round: of a run of several; `process`: its number.
        measures_server: whether this process looks at the server's.
    """

    spec: AdapterSpec
    load: Load
    seats: list[Seat]
    posting: int
    active: int
    process: int
    round: int
    measures_server: bool


async def work(plan: Work, ready: Ready) -> Outcome:
    """Open the sessions, wait for the others, make the load, and say what came of it.

    Raises:
        BenchError, ClientError: a session could not be opened. One that ends later is counted.
    """
    resumable = Op.RECONNECT in plan.load.mix
    async with open_sessions(load_adapter(plan.spec), plan.seats, resumable=resumable) as sessions:
        driver = _Driver(plan, sessions)
        return await driver.run(await ready())


async def drive(plan: Work, sessions: Sessions) -> Outcome:
    """Make the load through sessions that are open, at once, and leave them open.

    Args:
        sessions: of the plan's seats, in their order. The plan of another run through them has another `round`.
    """
    return await _Driver(plan, sessions).run(now_us())


@dataclass(slots=True)
class _Arriving:
    """A message of which it matters when the last has it."""

    lacking: int
    due_us: int
    circle: Circle | None


class _Driver:
    """Also the `Run` of its inboxes."""

    def __init__(self, plan: Work, sessions: Sessions) -> None:
        load = plan.load
        self._plan, self._load, self._sessions = plan, load, sessions
        self._books = Books(load)
        self._draw = random.Random(f"{load.seed}/{plan.round}/{plan.process}")  # noqa: S311  # repeatable on purpose
        self._padding = padding(load.size)
        self._weights = list(load.mix.values())
        self._ops = list(load.mix)
        self._to_the_last = load.headline is Measure.LAST
        every = plan.round * load.processes
        keys = range(every * LANES * SEQS, (every + load.processes) * LANES * SEQS)
        for inbox, seat in zip(sessions.inboxes, plan.seats, strict=True):
            inbox.take_part(self, seat, keys)
        self._lanes = self._numbered((every + plan.process) * LANES)
        by_user = itertools.groupby(self._lanes, lambda lane: lane.inbox)
        self._circles = [itertools.cycle(list(lanes)) for _, lanes in by_user]
        self._listeners: dict[int, list[UserInbox]] = {}  # by group
        for inbox in sessions.inboxes:
            for group in inbox.seat.groups:
                self._listeners.setdefault(group, []).append(inbox)
        self._turn = 0
        self._under_way = 0
        self._arriving: dict[int, _Arriving] = {}  # by key
        self._tasks: set[asyncio.Task[None]] = set()

    def _numbered(self, first: int) -> list[Lane]:
        posting = self._sessions.inboxes[: self._plan.posting]
        places = [(inbox, number, name) for inbox in posting for number, name in inbox.seat.groups.items()]
        if len(places) > LANES:
            raise BenchError(f"{len(places):,} places in groups are too many for one process: take more --processes")
        return [Lane(first + index, *place) for index, place in enumerate(places)]

    # -- the run --------------------------------------------------------------------------------------------

    async def run(self, start_us: int) -> Outcome:
        """Make the load from `start_us` on."""
        load, books = self._load, self._books
        await asyncio.sleep(max(0.0, (start_us - now_us()) / SECOND_US))
        books.open(start_us)
        pids = self._sessions.adapter.pids() if self._plan.measures_server else {}
        cpu_before, server_before = time.process_time(), cpu_seconds(pids)
        try:
            if not self._lanes or not load.mix:
                await self._sleep_until(books.until_us)
            elif load.rate is None:
                for number in range(self._plan.process, load.closed, self._plan.active):
                    self._go_on(self._circles[number // self._plan.active % len(self._circles)])
                await self._sleep_until(books.until_us)
            else:
                await self._open_loop(start_us, load.dues_us(self._plan.process, self._plan.active))
            outcome = books.outcome
            outcome.cpu_s = [time.process_time() - cpu_before]
            outcome.wall_s = (now_us() - start_us) / SECOND_US
            outcome.server_cpu_s = {
                name: cpu_s - server_before.get(name, cpu_s) for name, cpu_s in cpu_seconds(pids).items()
            }
            outcome.memory_bytes = resident_bytes(pids)
            await self._drained()
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
        self._close_the_books()
        return outcome

    async def _sleep_until(self, until_us: int) -> None:
        await asyncio.sleep(max(0.0, (until_us - now_us()) / SECOND_US))

    async def _open_loop(self, start_us: int, dues_us: Iterator[float]) -> None:
        until_us = self._books.until_us
        due_us = start_us + int(next(dues_us))
        while due_us < until_us:
            while due_us <= (now := now_us()):
                self._books.begun(due_us, now)
                self._begin(self._next_lane(), due_us, None)
                due_us = start_us + int(next(dues_us))
                if due_us >= until_us:
                    return
            await asyncio.sleep((due_us - now) / SECOND_US)

    def _next_lane(self) -> Lane:
        """Lanes in turn when all do the same, so that the load is even; else at random. Only of open sessions."""
        lanes = self._lanes
        for _ in range(min(len(lanes), CHOICES)):
            self._turn = (self._turn + 1) % len(lanes) if len(self._ops) == 1 else self._draw.randrange(len(lanes))
            if lanes[self._turn].inbox.session is not None:
                break
        return lanes[self._turn]

    def _go_on(self, circle: Circle) -> None:
        """The closed loop's next operation."""
        now = now_us()
        if now >= self._books.until_us:
            return
        lane = next(circle)
        if lane.inbox.session is None:  # it is being opened again
            asyncio.get_running_loop().call_later(RETRY_S, self._go_on, circle)
        else:
            self._begin(lane, now, circle)

    def _begin(self, lane: Lane, due_us: int, circle: Circle | None) -> None:
        inbox = lane.inbox
        session = inbox.session
        self._books.due(due_us)
        if session is None or self._under_way >= UNDER_WAY_MAX:
            self._books.not_begun(due_us)
            return
        op = self._ops[0] if len(self._ops) == 1 else self._draw.choices(self._ops, self._weights)[0]
        number = next(self._sessions.numbers)
        self._under_way += 1
        if op is Op.SEND:
            key = lane.number * SEQS + lane.posted
            lane.posted += 1
            if self._to_the_last:
                self._arriving[key] = _Arriving(len(self._listeners[lane.group_number]), due_us, circle)
            inbox.under_way[number] = Begun(op, due_us, key, circle)
            session.send(lane.group, number, marked(key, due_us, self._padding))
        elif op is Op.RECONNECT:
            inbox = self._at_rest(inbox)
            standing, inbox.session = inbox.session, None
            task = asyncio.create_task(self._reconnect(inbox, standing, Begun(op, due_us, -1, circle)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        else:
            begin = session.read if op is Op.READ else session.typing
            inbox.under_way[number] = Begun(op, due_us, -1, circle)
            begin(lane.group, number)

    def _at_rest(self, inbox: UserInbox) -> UserInbox:
        """An inbox that waits for no answer, if one is soon found: a cut would lose the answer."""
        for _ in range(CHOICES):
            if inbox.session is not None and not inbox.under_way:
                return inbox
            other = self._draw.choice(self._lanes).inbox
            inbox = other if other.session is not None else inbox
        return inbox

    async def _reconnect(self, inbox: UserInbox, session: Session | None, begun: Begun) -> None:
        assert session is not None, "chosen for being open"
        session.drop()
        self._lose(inbox)
        try:
            await self._sessions.follow(inbox, session)
        except (BenchError, ClientError) as error:
            self.failed(begun, str(error))
            return
        self.completed(begun, now_us())

    def _lose(self, inbox: UserInbox) -> None:
        """What was under way in a session that is over has no answer; whether it had its effect nobody knows."""
        lost = list(inbox.under_way.values())
        inbox.under_way.clear()
        for begun in lost:
            self.failed(begun, "cut off by its session's end")

    def _next(self, circle: Circle | None) -> None:
        if circle is not None:  # not from within, for an adapter may answer at once
            asyncio.get_running_loop().call_soon(self._go_on, circle)

    # -- the end --------------------------------------------------------------------------------------------

    async def _drained(self) -> None:
        """Wait for answers and deliveries, within bounds."""
        give_up_us = now_us() + int(self._load.drain_s * SECOND_US)
        # Looked at now and then, because an event would cost each delivery of the run something.
        while now_us() < give_up_us and not self._everything_is_here():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    def _everything_is_here(self) -> bool:
        if self._under_way or self._arriving:
            return False
        if not self._lanes and self._load.mix:
            return now_us() - self._books.heard_us > QUIET_S * SECOND_US
        return not any(True for _ in self._lacking())

    def _lacking(self) -> Iterator[int]:
        """Keys of messages that a session should have been given and was not."""
        void = self._books.outcome.void
        for lane in self._lanes:
            for inbox in self._listeners[lane.group_number] if lane.posted else ():
                if inbox.session is not None:
                    yield from (key for key in inbox.lacks(lane) if key not in void)

    def _close_the_books(self) -> None:
        now, books = now_us(), self._books
        for inbox in self._sessions.inboxes:
            books.outcome.sessions += inbox.session is not None
            for begun in inbox.under_way.values():
                books.unanswered(begun, now)
            books.outcome.missing.update(inbox.missing)
        for key, arriving in self._arriving.items():
            books.incomplete(key, arriving.due_us, now)
        books.outcome.missing.update(self._lacking())

    # -- what the inboxes tell ------------------------------------------------------------------------------

    def completed(self, begun: Begun, now: int) -> None:
        """See `inbox.Run`."""
        self._under_way -= 1
        self._books.completed(begun, now)
        if begun.op is not Op.SEND or not self._to_the_last:
            self._next(begun.circle)  # else when the last has it

    def failed(self, begun: Begun, code: str) -> None:
        """See `inbox.Run`."""
        self._under_way -= 1
        self._books.failed(begun, code)
        self._arriving.pop(begun.key, None)
        self._next(begun.circle)

    def received(self, payload: bytes, now: int) -> None:
        """See `inbox.Run`."""
        self._books.received(payload, now)

    def delivered(self, key: int, due_us: int, now: int) -> None:
        """See `inbox.Run`."""
        self._books.delivered(due_us, now)
        if self._to_the_last:
            self._arrived(key, due_us, now)

    def _arrived(self, key: int, due_us: int, now: int) -> None:
        """Know when the last session here has a message; those of other processes' lanes are not waited for."""
        self._books.last(key, due_us, now)
        if (arriving := self._arriving.get(key)) is not None:
            arriving.lacking -= 1
            if not arriving.lacking:
                del self._arriving[key]
                self._next(arriving.circle)

    def disordered(self) -> None:
        """See `inbox.Run`."""
        self._books.outcome.disordered += 1

    def doubled(self) -> None:
        """See `inbox.Run`."""
        self._books.outcome.doubled += 1

    def ended(self, inbox: UserInbox, reason: str) -> None:
        """See `inbox.Run`."""
        self._books.outcome.errors[f"session ended: {reason}"] += 1
        self._lose(inbox)
