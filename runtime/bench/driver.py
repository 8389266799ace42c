"""One process's part of a run: it opens its sessions, begins operations when they are due, and counts what comes of it.

Open loop: operations are due at a rate whatever the server does, and a latency counts from when one was due, so a
server that stalls is charged for everything that waited, and so is a load generator that is late. Closed loop: so
many operations are under way, and as one completes the next begins: that finds out how much goes through, but a server
that stalls is asked less while it does.
"""

import asyncio
import random
import time
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from typing import Any, Final

from runtime.bench.adapter import Adapter, AdapterSpec, Op, Seat, Session
from runtime.bench.adapters import load_adapter
from runtime.bench.errors import BenchError
from runtime.bench.inbox import Begun, Lane, UserInbox
from runtime.bench.load import Load, Measure
from runtime.bench.mark import SEQS, marked, now_us, padding
from runtime.bench.outcome import Outcome, Second
from runtime.bench.processes import Ready
from runtime.bench.server import cpu_seconds, resident_bytes
from runtime.client import ClientError

OPENING_AT_ONCE: Final = 64  # well inside a listen backlog of 100
KEEP_ALIVE_S: Final = 20.0
DRAIN_S: Final = 10.0  # for the answers and deliveries still out when the time is up
QUIET_S: Final = 1.0  # without a delivery, after which a process that only listens has heard all
LOOK_S: Final = 0.02  # between two looks at whether everything is here
UNDER_WAY_MAX: Final = 50_000  # a process; beyond it operations are counted as not begun, so that memory is bounded
LANES: Final = 100_000  # a process and round
RETRY_S: Final = 0.01
CHOICES: Final = 32  # looked at before one that does not fit is taken
SECOND_US: Final = 1_000_000
MEASURES: Final = {Op.SEND: Measure.ACK, Op.READ: Measure.READ, Op.RECONNECT: Measure.RECONNECT}


@dataclass(frozen=True, slots=True)
class Work:
    """What one process does.

    Attributes:
        seats: of its sessions; those of the first `posting` post.
        active: how many processes post; they share rate and slots.
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
    driver = _Driver(plan, load_adapter(plan.spec))
    try:
        await driver.open()
        return await driver.run(await ready())
    finally:
        await driver.close()


@dataclass(slots=True)
class _Arriving:
    """A message of which it matters when the last has it."""

    lacking: int
    due_us: int
    slot: Lane | None


class _Driver:
    """Also the `Run` of its inboxes."""

    def __init__(self, plan: Work, adapter: Adapter) -> None:
        load = plan.load
        self._plan, self._load, self._adapter = plan, load, adapter
        self._outcome = Outcome(seconds=load.seconds, series=[Second() for _ in range(max(1, round(load.seconds)))])
        self._draw = random.Random(f"{load.seed}/{plan.round}/{plan.process}")  # noqa: S311  # repeatable on purpose
        self._padding = padding(load.size)
        self._resumable = Op.RECONNECT in load.mix
        self._weights = list(load.mix.values())
        self._ops = list(load.mix)
        every = plan.round * load.processes
        keys = range(every * LANES * SEQS, (every + load.processes) * LANES * SEQS)
        self._inboxes = [UserInbox(self, seat, keys) for seat in plan.seats]
        self._lanes = self._numbered((every + plan.process) * LANES)
        self._listeners: dict[int, list[UserInbox]] = {}  # by group
        for inbox in self._inboxes:
            for group in inbox.seat.groups:
                self._listeners.setdefault(group, []).append(inbox)
        self._turn = 0
        self._number = 9  # of the last operation; adapters have the lower ones for themselves
        self._under_way = 0
        self._arriving: dict[int, _Arriving] = {}  # by key
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard = 0
        self._from = self._until = 0

    def _numbered(self, first: int) -> list[Lane]:
        posting = self._inboxes[: self._plan.posting]
        places = [(inbox, number, name) for inbox in posting for number, name in inbox.seat.groups.items()]
        if len(places) > LANES:
            raise BenchError(f"{len(places):,} places in groups are too many for one process: take more --processes")
        return [Lane(first + index, *place) for index, place in enumerate(places)]

    # -- sessions -------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open all sessions, a bounded number at a time."""
        gate = asyncio.Semaphore(OPENING_AT_ONCE)

        async def gated(inbox: UserInbox) -> None:
            async with gate:
                inbox.session = await self._adapter.connect(inbox.seat, inbox, resumable=self._resumable)

        opening = [asyncio.create_task(gated(inbox)) for inbox in self._inboxes]
        try:
            await asyncio.gather(*opening)
        except BaseException:
            for task in opening:
                task.cancel()
            await asyncio.gather(*opening, return_exceptions=True)
            raise
        self._spawn(self._keep_alive())

    async def close(self) -> None:
        """End all sessions."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        open_ones = [inbox.session for inbox in self._inboxes if inbox.session is not None]
        for inbox in self._inboxes:
            inbox.session = None
        await asyncio.gather(*(session.close() for session in open_ones), return_exceptions=True)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(KEEP_ALIVE_S)
            for inbox in self._inboxes:
                if inbox.session is not None:
                    inbox.session.keep_alive()

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(coroutine)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- the run --------------------------------------------------------------------------------------------

    async def run(self, start_us: int) -> Outcome:
        """Make the load from `start_us` on."""
        load, outcome = self._load, self._outcome
        await asyncio.sleep(max(0.0, (start_us - now_us()) / SECOND_US))
        self._from = start_us + int(load.warmup_s * SECOND_US)
        self._until = self._from + int(load.seconds * SECOND_US)
        pids = self._adapter.pids() if self._plan.measures_server else {}
        cpu_before, server_before = time.process_time(), cpu_seconds(pids)
        if not self._lanes or not load.mix:
            await self._sleep_until(self._until)
        elif load.rate is None:
            for slot in range(self._plan.process, load.closed, self._plan.active):
                self._go_on(self._lanes[slot // self._plan.active % len(self._lanes)])
            await self._sleep_until(self._until)
        else:
            await self._open_loop(start_us, load.dues_us(self._plan.process, self._plan.active))
        outcome.cpu_s = [time.process_time() - cpu_before]
        outcome.wall_s = (now_us() - start_us) / SECOND_US
        outcome.server_cpu_s = {
            name: cpu_s - server_before.get(name, cpu_s) for name, cpu_s in cpu_seconds(pids).items()
        }
        outcome.memory_bytes = resident_bytes(pids)
        await self._drained()
        self._close_the_books()
        return outcome

    async def _sleep_until(self, until_us: int) -> None:
        await asyncio.sleep(max(0.0, (until_us - now_us()) / SECOND_US))

    async def _open_loop(self, start_us: int, dues_us: Iterator[float]) -> None:
        due_us = start_us + int(next(dues_us))
        while due_us < self._until:
            while due_us <= (now := now_us()):
                if self._from <= due_us:
                    self._outcome.lateness.record(now - due_us)
                self._begin(self._next_lane(), due_us, None)
                due_us = start_us + int(next(dues_us))
                if due_us >= self._until:
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

    def _go_on(self, slot: Lane) -> None:
        """The closed loop's next operation."""
        now = now_us()
        if now >= self._until:
            return
        if slot.inbox.session is None:  # it is being opened again
            asyncio.get_running_loop().call_later(RETRY_S, self._go_on, slot)
        else:
            self._begin(slot, now, slot)

    def _begin(self, lane: Lane, due_us: int, slot: Lane | None) -> None:
        outcome, inbox = self._outcome, lane.inbox
        counts, session = self._from <= due_us, inbox.session
        if counts:
            outcome.due += 1
        if session is None or self._under_way >= UNDER_WAY_MAX:
            if counts:
                outcome.not_begun += 1
            return
        op = self._ops[0] if len(self._ops) == 1 else self._draw.choices(self._ops, self._weights)[0]
        self._number += 1
        self._under_way += 1
        number = self._number
        if op is Op.SEND:
            key = lane.number * SEQS + lane.posted
            lane.posted += 1
            if self._load.headline is Measure.LAST:
                self._arriving[key] = _Arriving(len(self._listeners[lane.group_number]), due_us, slot)
            inbox.under_way[number] = Begun(op, due_us, key, slot)
            session.send(lane.group, number, marked(key, due_us, self._padding))
        elif op is Op.RECONNECT:
            inbox = self._at_rest(inbox)
            standing, inbox.session = inbox.session, None
            self._spawn(self._reconnect(inbox, standing, Begun(op, due_us, -1, slot)))
        else:
            begin = session.read if op is Op.READ else session.typing
            inbox.under_way[number] = Begun(op, due_us, -1, slot)
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
            inbox.session = await self._adapter.connect(inbox.seat, inbox, resumable=True, follows=session)
        except (BenchError, ClientError) as error:
            self.failed(begun, str(error))
            return
        self.completed(begun, now_us())

    def _lose(self, inbox: UserInbox) -> None:
        """What was under way in a session that is over has no answer; whether it had its effect nobody knows."""
        lost = list(inbox.under_way.values())
        inbox.under_way.clear()
        self._under_way -= len(lost)
        for begun in lost:
            if begun.key >= 0:
                self._outcome.void.add(begun.key)
                self._arriving.pop(begun.key, None)
            self._outcome.errors[f"{begun.op}: cut off by its session's end"] += 1
            self._next(begun.slot)

    def _next(self, slot: Lane | None) -> None:
        if slot is not None:  # not from within, for an adapter may answer at once
            asyncio.get_running_loop().call_soon(self._go_on, slot)

    async def _drained(self) -> None:
        """Wait for answers and deliveries, within bounds."""
        give_up_us = now_us() + int(DRAIN_S * SECOND_US)
        # Looked at now and then, because an event would cost each delivery of the run something.
        while now_us() < give_up_us and not self._everything_is_here():  # noqa: ASYNC110
            await asyncio.sleep(LOOK_S)

    def _everything_is_here(self) -> bool:
        if self._under_way or self._arriving:
            return False
        if not self._lanes and self._load.mix:
            return now_us() - self._heard > QUIET_S * SECOND_US
        return not any(self._lacking())

    def _lacking(self) -> Iterator[int]:
        """Keys of messages that a session should have been given and was not."""
        void = self._outcome.void
        for lane in self._lanes:
            for inbox in self._listeners[lane.group_number] if lane.posted else ():
                if inbox.session is not None:
                    yield from (key for key in inbox.lacks(lane) if key not in void)

    def _close_the_books(self) -> None:
        now, outcome = now_us(), self._outcome
        for inbox in self._inboxes:
            outcome.sessions += inbox.session is not None
            for begun in inbox.under_way.values():
                if begun.key >= 0:
                    outcome.void.add(begun.key)
                if self._from <= begun.due_us < self._until:
                    outcome.unanswered += 1
                    self._record(MEASURES.get(begun.op), begun.due_us, now)
            outcome.missing.update(inbox.missing)
        for key, arriving in self._arriving.items():
            if self._from <= arriving.due_us < self._until:
                outcome.unanswered += 1
                outcome.last[key] = (self._index(arriving.due_us), now - arriving.due_us)
        outcome.missing.update(self._lacking())

    # -- what the inboxes tell ------------------------------------------------------------------------------

    def _record(self, measure: Measure | None, due_us: int, now: int) -> None:
        if measure is None or not self._from <= due_us < self._until:
            return
        self._outcome.of(measure).record(now - due_us)
        if measure is self._load.headline:
            self._outcome.series[self._index(due_us)].latencies.record(now - due_us)

    def _index(self, at_us: int) -> int:
        """The second of the measured time."""
        return min((at_us - self._from) // SECOND_US, len(self._outcome.series) - 1)

    def completed(self, begun: Begun, now: int) -> None:
        """See `inbox.Run`."""
        self._under_way -= 1
        self._record(MEASURES.get(begun.op), begun.due_us, now)
        if self._from <= now < self._until:
            self._outcome.completed[begun.op.value] += 1
            self._outcome.series[self._index(now)].completed += 1
        if begun.op is not Op.SEND or self._load.headline is not Measure.LAST:
            self._next(begun.slot)  # else when the last has it

    def failed(self, begun: Begun, code: str) -> None:
        """See `inbox.Run`."""
        self._under_way -= 1
        self._outcome.errors[f"{begun.op}: {code}"] += 1
        if begun.key >= 0:
            self._outcome.void.add(begun.key)
            self._arriving.pop(begun.key, None)
        self._next(begun.slot)

    def received(self, payload: bytes, now: int) -> None:
        """See `inbox.Run`."""
        self._heard = now
        if self._from <= now < self._until:
            self._outcome.received_bytes += len(payload)
            if not self._outcome.sample:
                self._outcome.sample = payload

    def delivered(self, key: int, due_us: int, now: int) -> None:
        """See `inbox.Run`."""
        outcome = self._outcome
        if self._from <= due_us < self._until:
            outcome.of(Measure.DELIVERY).record(now - due_us)
        if self._from <= now < self._until:
            outcome.deliveries += 1
            self._outcome.series[self._index(now)].deliveries += 1
        if self._load.headline is Measure.LAST:
            self._arrived(key, due_us, now)

    def _arrived(self, key: int, due_us: int, now: int) -> None:
        """Know when the last session here has a message; those of other processes' lanes are not waited for."""
        if self._from <= due_us < self._until:
            self._outcome.last[key] = (self._index(due_us), now - due_us)
        if (arriving := self._arriving.get(key)) is not None:
            arriving.lacking -= 1
            if not arriving.lacking:
                del self._arriving[key]
                self._next(arriving.slot)

    def disordered(self) -> None:
        """See `inbox.Run`."""
        self._outcome.disordered += 1

    def doubled(self) -> None:
        """See `inbox.Run`."""
        self._outcome.doubled += 1

    def ended(self, inbox: UserInbox, reason: str) -> None:
        """See `inbox.Run`."""
        self._outcome.errors[f"session ended: {reason}"] += 1
        self._lose(inbox)
