"""Getting a command to the writer of its partition, in this process or another.

Commands of one conversation go to another process one request at a time, each with all that have gathered meanwhile:
so they stay in order, also while their partition moves and some find nobody there.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

import msgspec
import structlog

from commands.command import Command, Result
from commands.writers import Reply, Writers
from domain import errors
from domain.errors import DomainError, Unavailable
from domain.ids import partition_of
from streams import subjects
from streams.ports import Bus, BusError, NoReply, NoResponder
from streams.ring import Ring

ROLE: Final = "writer"
REQUEST_S: Final = 6.0  # a writer answers within its own patience (5 s); the rest is the way
MOVING_S: Final = 5.0  # how long a partition may be without an owner before a command is refused
MOVING_RETRY_S: Final = 0.05
GRACE_S: Final = 0.5  # a writer that left in good order still answers what it had
TOGETHER_MAX: Final = 64  # commands in one request: as many as wait while an append is under way
TOGETHER_BYTES: Final = 256 * 1024
WAITING_MAX: Final = 10_000

Place: TypeAlias = tuple[str, int]  # a family, and a partition of it

log_ = structlog.get_logger(__name__)
level_ = logging.getLogger(__name__)  # asked before a line of debugging is made: structlog makes it first

_encode = msgspec.msgpack.Encoder().encode
_decode_replies = msgspec.msgpack.Decoder(list[Reply]).decode


@dataclass(frozen=True, slots=True, eq=False)
class _Waiting:
    """A command on its way, and whoever waits for its result."""

    command: Command
    packed: bytes
    future: "asyncio.Future[Result]"

    def settle(self, outcome: Result | Exception) -> None:
        """Give the outcome, unless nobody waits any more."""
        if self.future.done():
            return
        if isinstance(outcome, Exception):
            self.future.set_exception(outcome)
        else:
            self.future.set_result(outcome)


class Router:
    """The dispatcher (`commands.ports.Dispatcher`).

    Args:
        local: the writers of this process, if it has that role.
        waiting_max: commands on their way to other processes; one more is refused with `unavailable`.
    """

    def __init__(
        self, bus: Bus, *, partitions: int, local: Writers | None = None, waiting_max: int = WAITING_MAX
    ) -> None:
        self._bus = bus
        self._partitions = partitions
        self._local = local
        self._waiting_max = waiting_max
        self._waiting = 0
        self._loop = asyncio.get_running_loop()
        self._lanes: dict[str, deque[_Waiting]] = {}
        self._delivering: set[asyncio.Task[None]] = set()
        self._asking: dict[Place, set[asyncio.Task[bytes]]] = {}
        self._ring = Ring(())

    # -- the door -------------------------------------------------------------------------------------------

    def dispatch(self, command: Command) -> "asyncio.Future[Result]":
        """See `commands.ports.Dispatcher.dispatch`."""
        future: asyncio.Future[Result] = self._loop.create_future()
        try:
            place = command.family, partition_of(command.slot, self._partitions)
        except DomainError as refusal:  # what is asked names no slot
            future.set_exception(refusal)
            return future
        # What is on its way by the bus is not overtaken by what could now be decided here.
        lane = self._lanes.get(command.lane) if command.family == subjects.CONV else None
        writer = self._local.find(*place) if lane is None and self._local else None
        if level_.isEnabledFor(logging.DEBUG):
            log_.debug(
                "command dispatched",
                command=type(command).__name__,
                stream=subjects.stream(*place),
                is_local=writer is not None,
                correlation_id=command.correlation_id,
            )
        if writer is not None:
            return writer.submit(command)
        if self._waiting >= self._waiting_max:
            future.set_exception(Unavailable("too many commands are waiting; try again"))
            return future
        self._waiting += 1
        future.add_done_callback(self._is_settled)
        waiting = _Waiting(command, _encode(command), future)
        if lane is not None:
            lane.append(waiting)
        elif command.family == subjects.CONV:
            lane = self._lanes[command.lane] = deque([waiting])
            self._spawn(self._drain(command.lane, lane, place))
        else:
            self._spawn(self._deliver([waiting], place))
        return future

    def follow(self, ring: Ring) -> None:
        """Take note of which nodes have writers now: nobody waits for an answer of one that is gone."""
        for place, asking in self._asking.items():
            owner = self._ring.owner(*place)
            if owner is not None and owner not in ring.nodes:
                self._loop.call_later(GRACE_S, _cancel, list(asking))
        self._ring = ring

    def _is_settled(self, _future: "asyncio.Future[Result]") -> None:
        self._waiting -= 1

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._delivering.add(task)
        task.add_done_callback(self._delivering.discard)

    # -- on the way -----------------------------------------------------------------------------------------

    async def _drain(self, name: str, lane: deque[_Waiting], place: Place) -> None:
        while lane:
            await self._deliver(_taken(lane), place)
        del self._lanes[name]

    async def _deliver(self, together: list[_Waiting], place: Place) -> None:
        """Have commands decided, in their order, and settle each."""
        started_s = self._loop.time()
        while together:
            try:
                replies = await self._ask(place, together)
            except NoResponder:
                # Certainly without effect: the partition is moving. Wait for its next owner.
                if self._loop.time() > started_s + MOVING_S:
                    _refuse(together, "no writer has this partition; try again")
                    return
                await asyncio.sleep(MOVING_RETRY_S)
            except BusError:
                is_late = self._loop.time() > started_s + REQUEST_S / 2
                again = [] if is_late else [waiting for waiting in together if waiting.command.repeatable]
                _refuse(
                    [waiting for waiting in together if waiting not in again], "the writer did not answer; try again"
                )
                together = again
            except Exception as defect:
                log_.exception("commands could not be sent", partition=place)
                for waiting in together:
                    waiting.settle(defect)
                return
            else:
                for waiting, reply in zip(together, replies, strict=True):
                    waiting.settle(reply.result or errors.BY_CODE[reply.code](reply.detail, field=reply.field))
                return

    async def _ask(self, place: Place, together: Sequence[_Waiting]) -> list[Reply]:
        request = _encode([msgspec.Raw(waiting.packed) for waiting in together])
        asking = self._asking.setdefault(place, set())
        task = asyncio.ensure_future(self._bus.request(subjects.command(*place), request, timeout_s=REQUEST_S))
        asking.add(task)
        try:
            await asyncio.wait({task})
            if task.cancelled():
                raise NoReply("the writer is gone")
            return _decode_replies(task.result())
        finally:
            asking.discard(task)
            task.cancel()


def _taken(lane: deque[_Waiting]) -> list[_Waiting]:
    """What goes next, together: the first, and what follows it as far as one request holds it."""
    together = [lane.popleft()]
    size_bytes = len(together[0].packed)
    while lane and len(together) < TOGETHER_MAX and size_bytes + len(lane[0].packed) <= TOGETHER_BYTES:
        together.append(lane.popleft())
        size_bytes += len(together[-1].packed)
    return together


def _refuse(refused: Sequence[_Waiting], why: str) -> None:
    for waiting in refused:
        waiting.settle(Unavailable(why))


def _cancel(tasks: Sequence["asyncio.Task[bytes]"]) -> None:
    for task in tasks:
        task.cancel()
